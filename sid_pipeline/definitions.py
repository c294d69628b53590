"""The Dagster code location: everything assembled by `build_definitions`, from settings and optional overrides.

What belongs here: putting the parts together. What does not: any part. Importing this module pulls in no torch,
pyspark or sentence-transformers, because every step is a process that imports it again.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from sid_pipeline.assets.assignment import assignment_assets
from sid_pipeline.assets.cleaning import cleaning_assets
from sid_pipeline.assets.codebook_diff import diff_assets
from sid_pipeline.assets.comparison import comparison_assets
from sid_pipeline.assets.embeddings import embedding_assets
from sid_pipeline.assets.explorer import explorer_assets
from sid_pipeline.assets.flavours import Flavour
from sid_pipeline.assets.names import names_assets
from sid_pipeline.assets.publication import publication_assets
from sid_pipeline.assets.relevance import relevance_assets
from sid_pipeline.assets.report import report_assets
from sid_pipeline.assets.snapshot import snapshot_assets
from sid_pipeline.assets.taxonomy import taxonomy_assets
from sid_pipeline.assets.training import training_assets
from sid_pipeline.automation import build_automation_sensors, keep_up
from sid_pipeline.console import console
from sid_pipeline.jobs import build_jobs
from sid_pipeline.operations import build_operations
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schedules import build_schedules
from sid_pipeline.sensors import build_sensors
from sid_pipeline.settings import Settings, load_settings


def build_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """All assets: the snapshot plane, the relevance model, and one chain per flavour on the release plane."""
    flavours = [Flavour(name, spec, settings) for name, spec in settings.active_flavours.items()]
    assets = [
        *snapshot_assets(settings),
        *cleaning_assets(settings),
        *relevance_assets(settings),
        *embedding_assets(settings),
        *taxonomy_assets(settings),
    ]
    for flavour in flavours:
        assets += training_assets(flavour)
        assets += assignment_assets(flavour)
        assets += report_assets(flavour)
        assets += names_assets(flavour)
        assets += diff_assets(flavour)
        assets += publication_assets(flavour)
    return keep_up(settings, [*assets, *comparison_assets(flavours), *explorer_assets(flavours)])


def build_definitions(settings: Settings, overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """The code location for some settings.

    Args:
        settings: decide the assets, the executor, and whether schedules and sensors start by themselves.
        overrides: resources to use instead of the real ones, by name (`warehouse`).
    """
    in_process = settings.orchestration.executor == "in_process"
    steps = {"max_concurrent": settings.orchestration.max_concurrent_steps}
    jobs = build_jobs(settings)
    return dg.Definitions(
        assets=build_assets(settings),
        resources={"warehouse": Warehouse(settings), **(overrides or {})},
        executor=dg.in_process_executor if in_process else dg.multiprocess_executor.configured(steps),
        jobs=[*jobs.values(), *build_operations()],
        schedules=build_schedules(settings, jobs),
        sensors=[*build_sensors(settings, jobs), *build_automation_sensors(settings)],
        loggers={"console": console},
    )


defs = build_definitions(load_settings())
