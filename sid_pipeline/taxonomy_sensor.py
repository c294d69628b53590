"""The sensor that watches the taxonomy source. It switches nothing: promotion is a person's.

What belongs here: turning a changed source into run requests. What does not: judging the change (`taxonomy_source.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import dagster as dg

from sid_pipeline.files import digest
from sid_pipeline.jobs import RELEASE_BUILD, TAXONOMY_REVISION, Job
from sid_pipeline.partitions import releases
from sid_pipeline.receipts import MissingInput
from sid_pipeline.releases import find_release, newest_release, served_releases
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import PRODUCTS
from sid_pipeline.settings import Settings
from sid_pipeline.taxonomy.diff import MAJOR, MINOR
from sid_pipeline.taxonomy.tree import TaxonomyError
from sid_pipeline.taxonomy.wording import verdict
from sid_pipeline.taxonomy_source import (
    FROM_PRODUCTS,
    SAME,
    TAXONOMY,
    against,
    category_counts,
    newest_snapshot,
    read_source,
    source_fingerprint,
)

NAME = "taxonomy_watch"


def build_taxonomy_sensor(settings: Settings, jobs: Mapping[str, Job]) -> dg.SensorDefinition:
    """`taxonomy_watch`: looks at the source's content, every `taxonomy.watch_seconds`.

    Nothing changed, or the source cannot be read: it skips, and what it has seen stays as it was, so that a failed
    read is tried again and is never an empty taxonomy. A change that is minor for a served release asks that one for
    a new revision of its tree. One that is major for all of them adds a release named by the tree's revision, and
    asks for exactly one run that builds it, following the live release.
    """
    running = settings.orchestration.automation

    @dg.sensor(
        name=NAME,
        jobs=[jobs[RELEASE_BUILD], jobs[TAXONOMY_REVISION]],
        minimum_interval_seconds=settings.taxonomy.watch_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED,
        description="Watches the taxonomy source by its content: a minor change becomes a revision of the served "
        "releases, a major one a new release, asked for once. It never makes one live.",
    )
    def taxonomy_watch(
        context: dg.SensorEvaluationContext, warehouse: dg.ResourceParam[Warehouse]
    ) -> dg.SensorResult | dg.SkipReason:
        return look(context.cursor, warehouse)

    return taxonomy_watch


def look(cursor: str | None, warehouse: Warehouse) -> dg.SensorResult | dg.SkipReason:
    """One look at the source.

    Args:
        cursor: what the last look that could read the source left: JSON of `source` and `fingerprint`.
    """
    source = warehouse.settings.taxonomy.source
    newest = newest_release(warehouse)
    if newest is None:
        return dg.SkipReason("no release is served yet: the first one takes the taxonomy as it is")
    seen = json.loads(cursor) if cursor else {}
    try:
        snapshot = newest_snapshot(warehouse)
        # The catalogue's own categories cannot have changed while its products have not.
        at = digest([source, snapshot, warehouse.receipts.need(PRODUCTS.name, snapshot).data_version])
        if source == FROM_PRODUCTS and seen.get("at") == at:
            return dg.SkipReason("the products are those of the last look")
        fingerprint = source_fingerprint(warehouse, source, snapshot)
        if (seen.get("source"), seen.get("fingerprint")) == (source, fingerprint):
            return dg.SkipReason("the taxonomy source is as it was")
        tree = read_source(warehouse.settings, source, [path for path in category_counts(warehouse, snapshot) if path])
    except (TaxonomyError, MissingInput) as error:
        return dg.SkipReason(f"nothing is asked for, and the next look tries again: {error}")
    now = json.dumps({"source": source, "fingerprint": fingerprint, "at": at})
    served = {release.release for release in served_releases(warehouse.tables) if release.taxonomy_source == source}
    changes = {name: against(warehouse, tree, name, snapshot) for name in sorted({*served, newest.release})}
    if all(change.kind == MAJOR for change in changes.values()):
        change = changes[newest.release]
        return _ask_for_release(warehouse, newest.release, source, change.tree.revision, verdict(change.told), now)
    same = [name for name, change in changes.items() if change.kind == SAME]
    requests = [
        dg.RunRequest(run_key=f"{name}-{fingerprint}", job_name=TAXONOMY_REVISION, partition_key=name)
        for name, change in changes.items()
        if change.kind == MINOR
    ]
    if not requests:
        return dg.SensorResult(skip_reason=f"the source says what {' and '.join(same)} has", cursor=now)
    return dg.SensorResult(run_requests=requests, cursor=now)


def _ask_for_release(
    warehouse: Warehouse, predecessor: str, source: str, revision: str, reason: str, cursor: str
) -> dg.SensorResult:
    name = f"taxonomy-{revision[:8]}"
    if find_release(warehouse.tables, name) is not None:
        return dg.SensorResult(skip_reason=f"release {name} has this tree already", cursor=cursor)
    pins = {"taxonomy_source": source, "predecessor": predecessor, "asked_by": NAME, "reason": reason}
    request = dg.RunRequest(
        # Dagster starts no second run for a key, also when a crash lost the cursor.
        run_key=f"{predecessor}-{name}",
        job_name=RELEASE_BUILD,
        partition_key=name,
        run_config={"ops": {TAXONOMY: {"config": pins}}},
        tags={"sid/taxonomy_revision": revision},
    )
    return dg.SensorResult(
        run_requests=[request], dynamic_partitions_requests=[releases.build_add_request([name])], cursor=cursor
    )
