"""Declarative automation: what follows by itself when something upstream changed outside of a night.

What belongs here: the conditions, which assets have one, and the sensors that evaluate them. What does not: the nights,
which are jobs (`schedules.py`, `sensors.py`).

Why both. A night is one job because it must wait for its input, catch up what was missed and refresh the SIDs once at
the newest *complete* day, and only receipts know that day: Dagster's mapping from days to releases is by the clock. So
conditions never look across the planes. Within a plane they keep up with what a person did: corrected products are
cleaned and embedded (and `sids_follow_snapshot` refreshes the SIDs after that run, as after a night), and a codebook
that was asked for gets its SIDs, report, publication and explorer. Nothing is trained or switched to by itself.
"""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg

from sid_pipeline.assets.assignment import STAGE as SEMANTIC_IDS
from sid_pipeline.assets.codebook_diff import DIFF
from sid_pipeline.assets.comparison import COMPARISON
from sid_pipeline.assets.embeddings import embeddings_key
from sid_pipeline.assets.explorer import EXPLORER
from sid_pipeline.assets.names import NAMES
from sid_pipeline.assets.publication import LIVE, PUBLICATION
from sid_pipeline.assets.relevance import ESCI_MODEL
from sid_pipeline.assets.report import REPORT
from sid_pipeline.assets.snapshot import CATALOGUE
from sid_pipeline.schemas import CLEANED_ATTRIBUTES
from sid_pipeline.settings import Settings

SNAPSHOT_SENSOR, RELEASE_SENSOR = "keep_up_snapshot", "keep_up_release"


def condition(ignored: dg.AssetSelection) -> dg.AutomationCondition:
    """Something upstream has other content than it had, is whole and sound, and nothing is under way.

    Other content, not only another materialisation: an unchanged asset is recorded each night, too. What is only
    missing is not asked for: that a night failed is for a person.

    Args:
        ignored: upstream assets that do not count.
    """
    on = dg.AutomationCondition
    changed: dg.AutomationCondition = on.any_deps_updated().replace("newly_updated", on.data_version_changed())
    ready = ~on.any_deps_missing() & ~on.any_deps_in_progress() & ~on.in_progress()
    follows = on.in_latest_time_window() & changed.since_last_handled() & ready & on.all_deps_blocking_checks_passed()
    return follows.ignore(ignored).with_label("something upstream has changed")


def _planes(settings: Settings) -> tuple[list[dg.AssetKey], list[dg.AssetKey]]:
    """Keys that keep up, of the snapshot plane and of the release plane."""
    flavours = settings.active_flavours
    embeddings = sorted({embeddings_key(name) for flavour in flavours.values() for name in flavour.embedders})
    stages = (SEMANTIC_IDS, NAMES, REPORT, DIFF, PUBLICATION, LIVE)
    return (
        [dg.AssetKey(name) for name in (CLEANED_ATTRIBUTES.name, *embeddings)],
        [dg.AssetKey([f, s]) for f in flavours for s in stages] + [dg.AssetKey(COMPARISON), dg.AssetKey(EXPLORER)],
    )


def keep_up(settings: Settings, assets: Iterable[dg.AssetsDefinition]) -> list[dg.AssetsDefinition]:
    """The assets, those that keep up with their condition."""
    snapshot, release = _planes(settings)
    # A relevance model is no part of every installation; whoever trains one runs the night's job after it.
    of_snapshots = condition(dg.AssetSelection.assets(ESCI_MODEL))
    of_releases = condition(dg.AssetSelection.assets(*CATALOGUE, *snapshot))
    conditions = {**dict.fromkeys(snapshot, of_snapshots), **dict.fromkeys(release, of_releases)}

    def with_condition(spec: dg.AssetSpec) -> dg.AssetSpec:
        found = conditions.get(spec.key)
        return spec if found is None else spec.replace_attributes(automation_condition=found)

    return [definition.map_asset_specs(with_condition) for definition in assets]


def build_automation_sensors(settings: Settings) -> list[dg.AutomationConditionSensorDefinition]:
    """One sensor a plane."""
    running = settings.orchestration.automation
    status = dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED
    return [
        dg.AutomationConditionSensorDefinition(
            name,
            target=dg.AssetSelection.assets(*keys),
            default_status=status,
            minimum_interval_seconds=60,
            description=f"Brings the {plane} plane up to date with what was changed outside of a night.",
        )
        for name, plane, keys in zip(
            (SNAPSHOT_SENSOR, RELEASE_SENSOR), ("snapshot", "release"), _planes(settings), strict=True
        )
    ]
