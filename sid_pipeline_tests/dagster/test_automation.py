"""The automation conditions of the real code location, evaluated tick by tick on an ephemeral instance."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import dagster as dg
import pytest

from sid_pipeline.definitions import build_definitions
from sid_pipeline.partitions import releases
from sid_pipeline.settings import Settings, load_settings
from sid_pipeline_tests.automation import asked_for

DAY = "2026-01-06"
NOON = datetime(2026, 1, 6, 12, tzinfo=timezone.utc)
CATALOGUE = ["products", "offers", "rejected_products"]
SNAPSHOT = ["cleaned_attributes", "esci_embeddings", "gemma_embeddings"]
STAGES = ["semantic_ids", "prefix_names", "report", "codebook_diff", "publication", "live"]


class World:
    """An instance in which everything of a day and a release was made, and its clock of ticks."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.definitions = build_definitions(load_settings(env={}))
        self.cursor = None
        self.now = NOON
        instance.add_dynamic_partitions(str(releases.name), ["r1"])
        for asset in [*CATALOGUE, *SNAPSHOT]:
            self.make(asset, DAY)
        for asset in [
            "taxonomy",
            *[f"{f}/{s}" for f in ("esci", "esci_gemma") for s in ("training_set", "codebook", *STAGES)],
        ]:
            self.make(asset, "r1")
        for asset in ("flavour_comparison", "explorer"):
            self.make(asset, "r1")

    def make(self, asset: str, partition: str, version: str = "1") -> None:
        """A materialisation of a content."""
        tags = {"dagster/data_version": version}
        self.instance.report_runless_asset_event(
            dg.AssetMaterialization(dg.AssetKey(asset.split("/")), partition=partition, tags=tags)
        )

    def check(self, passed: bool) -> None:
        """What the blocking checks of esci's SIDs say."""
        for name in ("codes_in_range", "every_product_has_one_sid"):
            self.instance.report_runless_asset_event(
                dg.AssetCheckEvaluation(
                    asset_key=dg.AssetKey(["esci", "semantic_ids"]), check_name=name, passed=passed, metadata={},
                    severity=dg.AssetCheckSeverity.ERROR, blocking=True,
                )
            )  # fmt: skip

    def tick(self) -> dict[str, set[str]]:
        """What is asked for now: asset to partitions."""
        self.now += timedelta(minutes=1)
        asked, self.cursor = asked_for(self.definitions, self.instance, self.now, self.cursor)
        return asked


@pytest.fixture
def world() -> Iterator[World]:
    with dg.DagsterInstance.ephemeral() as instance:
        world = World(instance)
        assert world.tick() == {}, "what is there already is not asked for"
        yield world


def test_an_unchanged_night_asks_for_nothing(world):
    for asset in [*CATALOGUE, *SNAPSHOT]:
        world.make(asset, DAY)
    assert world.tick() == {} and world.tick() == {}


def test_corrected_products_are_cleaned_and_embedded_and_no_release_is_touched(world):
    world.make("products", DAY, "2")
    assert world.tick() == {asset: {DAY} for asset in SNAPSHOT}
    for asset in SNAPSHOT:
        world.make(asset, DAY, "2")
    assert world.tick() == {}, "SIDs follow by the sensor that knows the newest complete day"


def test_a_change_of_an_older_day_is_left_to_a_person(world):
    world.make("products", "2026-01-05", "2")
    assert world.tick() == {}


def test_a_codebook_that_was_asked_for_gets_all_that_stands_on_it(world):
    world.instance.add_dynamic_partitions(str(releases.name), ["r2"])
    assert world.tick() == {}, "a release is built by its job; what is only missing is not asked for"
    for asset in ("taxonomy", "esci/training_set", "esci/codebook"):
        world.make(asset, "r2")
    assert world.tick() == {"esci/semantic_ids": {"r2"}}, "first, and alone: its blocking checks are waited for"
    world.make("esci/semantic_ids", "r2")
    world.check(passed=True)
    rest = {f"esci/{stage}": {"r2"} for stage in STAGES if stage != "semantic_ids"}
    assert world.tick() == rest, "no flavour waits for another"
    for asset in rest:
        world.make(asset, "r2")
    assert world.tick() == {}, "each once"


def test_nothing_is_trained_by_itself(world):
    world.make("taxonomy", "r1", "2")
    world.make("gemma_embeddings", DAY, "2")
    asked = world.tick()
    assert not [name for name in asked if name.rsplit("/")[-1] in ("training_set", "codebook", "taxonomy", "products")]


def test_sids_that_failed_a_blocking_check_are_not_published(world):
    world.make("esci/semantic_ids", "r1", "2")
    world.check(passed=False)
    assert world.tick() == {} and world.tick() == {}
    world.check(passed=True)
    assert "esci/report" in world.tick()


def test_the_sensors_cover_every_condition_and_follow_the_setting():
    for wanted in (False, True):
        settings: Settings = load_settings(env={"SID_ORCHESTRATION__AUTOMATION": str(wanted).lower()})
        repository = build_definitions(settings).get_repository_def()
        named = {sensor.name: sensor for sensor in repository.sensor_defs}
        assert "default_automation_condition_sensor" not in named
        for name in ("keep_up_snapshot", "keep_up_release"):
            assert (named[name].default_status == dg.DefaultSensorStatus.RUNNING) is wanted
        graph = repository.asset_graph
        covered = {k for n in ("keep_up_snapshot", "keep_up_release") for k in named[n].asset_selection.resolve(graph)}
        assert covered == {k for k in graph.materializable_asset_keys if graph.get(k).automation_condition is not None}


def test_publications_carry_a_freshness_policy_that_follows_the_settings():
    env = {"SID_ALERTS__LATE_AFTER_MINUTES": "60", "SID_ALERTS__STALE_AFTER_DAYS": "1"}
    graph = build_definitions(load_settings(env=env)).resolve_asset_graph()
    policy = graph.get(dg.AssetKey(["esci", "publication"])).freshness_policy
    assert (policy.warn_window.to_timedelta(), policy.fail_window.to_timedelta()) == (
        timedelta(hours=25),
        timedelta(hours=26),
    )
