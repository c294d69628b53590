"""`sid run`: the jobs of `jobs`, one after the other in this process, with the project's Dagster instance.

One process means one Spark session for all of them. What does not belong here: any stage's work.
"""

from __future__ import annotations

import os
import time
import warnings
from pathlib import Path
from typing import Any

from sid_pipeline.receipts import UNPARTITIONED, complete_snapshots
from sid_pipeline.settings import PROJECT_ROOT, Settings, check_key


class RunFailed(RuntimeError):
    """A job failed; the message names the stage and the cause."""


def home(settings: Settings) -> None:
    """Point Dagster at the project's instance: the top-level dagster.yaml, its relative paths beside the state."""
    settings.state.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("DAGSTER_HOME", str(PROJECT_ROOT))
    os.chdir(settings.state.parent)


def run_everything(settings: Settings, snapshot: str | None = None, release: str | None = None) -> str:
    """Materialise the whole graph and return the summary.

    Args:
        settings: of the pipeline.
        snapshot: the day; None takes the newest in the ledger, else the first day of the settings.
        release: the release; None takes the settings' default.

    Raises:
        RunFailed: a stage failed.
        ValueError: the day or the release is no possible partition.
    """
    standing = Path.cwd()
    home(settings)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import dagster as dg

    from sid_pipeline.definitions import build_definitions
    from sid_pipeline.jobs import RELEASE_BUILD, RELEVANCE_MODEL, SNAPSHOT_REFRESH
    from sid_pipeline.partitions import releases, snapshots
    from sid_pipeline.resources.warehouse import Warehouse
    from sid_pipeline.summary import summarise

    warnings.filterwarnings("ignore", module="dagster")
    warehouse = Warehouse(settings)
    release = check_key("release", release or settings.release.default)
    days = warehouse.receipts.partitions("products")
    snapshot = snapshot or (days[-1] if days else settings.snapshots.start.isoformat())
    if not snapshots(settings.snapshots).has_partition_key(snapshot):
        raise ValueError(
            f"{snapshot!r} is no day from {settings.snapshots.start} to today (YYYY-MM-DD); "
            "see snapshots.start in the settings"
        )
    started = time.monotonic()
    definitions = build_definitions(settings, {"warehouse": warehouse})
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions(str(releases.name), [release])
        failed = [
            *_run(definitions, instance, RELEVANCE_MODEL, UNPARTITIONED),
            *_run(definitions, instance, SNAPSHOT_REFRESH, snapshot),
        ]
        # What failed for one flavour does not hold back another that has a complete snapshot.
        if any(complete_snapshots(warehouse.receipts, settings, flavour) for flavour in settings.active_flavours):
            failed += _run(definitions, instance, RELEASE_BUILD, release)
    if failed:
        raise RunFailed(
            f"failed: {', '.join(failed)}. What is live stays or moved only where all was well. Mend it as said above "
            "and run again: what is done is not done twice. The full log is in the UI (`make ui`)."
        )
    return summarise(warehouse, release, time.monotonic() - started, standing)


def _run(definitions: Any, instance: Any, job: str, partition: str) -> list[str]:
    """Run a job and return its failed steps."""
    import click

    click.echo(f"{job}{'' if partition == UNPARTITIONED else f' {partition}'}", err=True)
    result = definitions.resolve_job_def(job).execute_in_process(
        instance=instance,
        partition_key=None if partition == UNPARTITIONED else partition,
        raise_on_error=False,
        run_config={"loggers": {"console": {}}},
    )
    if result.success:
        return []
    return [str(event.step_key) for event in result.all_events if event.is_step_failure] or [job]
