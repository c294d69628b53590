"""`sid run`: the jobs of `jobs`, one after the other in this process, with the project's Dagster instance.

One process means one Spark session for all of them. What does not belong here: any stage's work.
"""

from __future__ import annotations

import os
import time
import uuid
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sid_pipeline.keys import check_key
from sid_pipeline.receipts import UNPARTITIONED, complete_snapshots
from sid_pipeline.settings import PROJECT_ROOT, Settings


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
        release: the release; None takes what is live, each where flavours differ, else the settings' default.

    Raises:
        RunFailed: a stage failed, or all was done but for a flavour whose live release is unreadable or retired.
        ReleaseError: the release is retired.
        InputError: the state is another catalogue's.
        ValueError: the day or the release is no possible partition.
    """
    standing = Path.cwd()
    home(settings)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import dagster as dg

    from sid_pipeline.definitions import build_definitions
    from sid_pipeline.jobs import RELEASE_BUILD, RELEVANCE_MODEL, SNAPSHOT_REFRESH
    from sid_pipeline.partitions import releases, snapshots
    from sid_pipeline.releases import refuse_retired, to_refresh
    from sid_pipeline.resources.warehouse import Warehouse
    from sid_pipeline.summary import summarise

    warnings.filterwarnings("ignore", module="dagster")
    warehouse = Warehouse(settings)
    warehouse.claim()
    served, left_out = ([], []) if release else to_refresh(warehouse)
    wanted = [check_key("release", release)] if release else served
    if not wanted and not left_out:
        wanted = [settings.release.default]
    for name in wanted:
        refuse_retired(warehouse.tables, name)
    days = warehouse.receipts.partitions("products")
    snapshot = snapshot or (days[-1] if days else settings.snapshots.start.isoformat())
    if not snapshots(settings.snapshots).has_partition_key(snapshot):
        raise ValueError(
            f"{snapshot!r} is no day from {settings.snapshots.start} to today (YYYY-MM-DD); "
            "see snapshots.start in the settings"
        )
    if served:
        _say(f"no release is named: what is live is refreshed, {', '.join(served)}")
    for sentence in left_out:
        _say(sentence)
    started = time.monotonic()
    definitions = build_definitions(settings, {"warehouse": warehouse})
    with dg.DagsterInstance.get() as instance:
        _end_lost_runs(instance)
        instance.add_dynamic_partitions(str(releases.name), wanted)
        failed = [
            *_run(definitions, instance, RELEVANCE_MODEL, UNPARTITIONED),
            *_run(definitions, instance, SNAPSHOT_REFRESH, snapshot),
        ]
        # What failed for one flavour does not hold back another that has a complete snapshot.
        if any(complete_snapshots(warehouse.receipts, settings, flavour) for flavour in settings.active_flavours):
            for name in wanted:
                failed += _run(definitions, instance, RELEASE_BUILD, name)
    if failed:
        raise RunFailed(
            f"failed: {', '.join(failed)}. What is live stays or moved only where all was well. Mend what `sid status` "
            "says and run again: what is done is not done twice. The full log is in the UI (`make ui`)."
        )
    seconds = time.monotonic() - started
    told = "\n".join(summarise(warehouse, name, seconds, standing) for name in wanted)
    if left_out:
        _say(told)
        raise RunFailed(f"all is done but for this: {'; '.join(left_out)}")
    return told


def build_release(
    settings: Settings, release: str, pins: Mapping[str, Any], flavours: Sequence[str] | None = None
) -> str:
    """Add a release and build it, or bring one up to date; it goes live only by a promotion.

    Args:
        settings: of the pipeline.
        release: its name.
        pins: of `assets.taxonomy.ReleaseConfig`, for a release that is new.
        flavours: None builds all.

    Returns:
        A sentence on what was built.

    Raises:
        RunFailed: a stage failed.
        InputError: the state is another catalogue's.
        ValueError: a name is not allowed or a flavour unknown.
    """
    home(settings)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import dagster as dg

    from sid_pipeline.definitions import build_definitions
    from sid_pipeline.jobs import RELEASE_BUILD
    from sid_pipeline.partitions import releases
    from sid_pipeline.releases import refuse_retired
    from sid_pipeline.resources.warehouse import Warehouse
    from sid_pipeline.taxonomy_source import TAXONOMY

    warnings.filterwarnings("ignore", module="dagster")
    check_key("release", release)
    unknown = [name for name in flavours or () if name not in settings.active_flavours]
    if unknown:
        raise ValueError(f"no flavour {unknown[0]!r}; there are {', '.join(settings.active_flavours)}")
    warehouse = Warehouse(settings)
    warehouse.claim()
    refuse_retired(warehouse.tables, release)
    definitions = build_definitions(settings, {"warehouse": warehouse})
    selection = None
    if flavours:
        job = definitions.resolve_job_def(RELEASE_BUILD)
        keys = job.asset_layer.executable_asset_keys
        selection = sorted(key for key in keys if key.path[0] in {TAXONOMY, *flavours})
    started = time.monotonic()
    with dg.DagsterInstance.get() as instance:
        _end_lost_runs(instance)
        instance.add_dynamic_partitions(str(releases.name), [release])
        failed = _run(definitions, instance, RELEASE_BUILD, release, {TAXONOMY: {"config": dict(pins)}}, selection)
    if failed:
        raise RunFailed(
            f"failed: {', '.join(failed)}. Mend what `sid status` says and ask again: what is done stays done."
        )
    return f"release {release} is built, in {time.monotonic() - started:.0f} s"


def build_minutes(settings: Settings) -> float | None:
    """How long building a release took at most so far, in minutes; None when none was built."""
    home(settings)
    import dagster as dg

    from sid_pipeline.jobs import RELEASE_BUILD

    wanted = dg.RunsFilter(job_name=RELEASE_BUILD, statuses=[dg.DagsterRunStatus.SUCCESS])
    with dg.DagsterInstance.get() as instance:
        spans = [
            record.end_time - record.start_time
            for record in instance.get_run_records(wanted, limit=20)
            if record.end_time and record.start_time
        ]
    return max(spans) / 60 if spans else None


def _run(
    definitions: Any,
    instance: Any,
    job: str,
    partition: str,
    ops: Mapping[str, Any] | None = None,
    selection: Sequence[Any] | None = None,
) -> list[str]:
    """Run a job, or the selected assets of it, and return its failed steps."""
    from sid_pipeline.run_history import own_tags

    _say(f"{job}{'' if partition == UNPARTITIONED else f' {partition}'}")
    run_id = str(uuid.uuid4())
    result = definitions.resolve_job_def(job).execute_in_process(
        instance=instance,
        partition_key=None if partition == UNPARTITIONED else partition,
        raise_on_error=False,
        run_id=run_id,
        tags=own_tags(run_id),
        run_config={"loggers": {"console": {}}, "ops": dict(ops or {})},
        asset_selection=selection,
    )
    if result.success:
        return []
    return [str(event.step_key) for event in result.all_events if event.is_step_failure] or [job]


def _end_lost_runs(instance: Any) -> None:
    from sid_pipeline.run_history import end_lost_runs

    for sentence in end_lost_runs(instance):
        _say(sentence)


def _say(text: str) -> None:
    import click

    click.echo(text, err=True)
