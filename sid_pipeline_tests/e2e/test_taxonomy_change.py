"""A merchandiser edits the taxonomy file: sensor, revision or release, rebuild, diff, promotion, rollback.

Over a real webserver and daemon, as `sid ui` starts them; the tests of this file tell one story in order.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sid_pipeline.reader import open_live, open_release
from sid_pipeline.releases import need_release
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.sample import generate
from sid_pipeline.schemas import SEMANTIC_IDS, TAXONOMY_CHANGES
from sid_pipeline.settings import load_settings
from sid_pipeline.taxonomy_source import release_tree
from sid_pipeline_tests.e2e.conftest import DAY1, SETTINGS
from sid_pipeline_tests.e2e.graphql import ADD_PARTITION, UI
from sid_pipeline_tests.e2e.test_ui import RELEASE_ASSETS, SNAPSHOT_ASSETS

pytestmark = pytest.mark.slow

FLAVOURS = ("esci", "esci_gemma")
REPOSITORY = {"repositoryLocationName": "sid_pipeline", "repositoryName": "__repository__"}
START_SENSOR = """mutation ($sensor: SensorSelector!) { startSensor(sensorSelector: $sensor) {
  __typename ... on PythonError { message } } }"""
RUNS = """query ($job: String!) { runsOrError(filter: {pipelineName: $job}) {
  ... on Runs { results { status tags { key value } } } } }"""
TICKS = """query ($sensor: SensorSelector!) { sensorOrError(sensorSelector: $sensor) {
  ... on Sensor { sensorState { ticks(limit: 20) { status skipReason runIds error { message } } } } } }"""
SENSOR = {**REPOSITORY, "sensorName": "taxonomy_watch"}
MINUTES = 15


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("taxonomy-change")
    generate(folder / "data", products=400)
    settings = SETTINGS.replace("[taxonomy]", "[taxonomy]\nwatch_seconds = 30")
    (folder / "sid.toml").write_text(settings, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def warehouse(project) -> Warehouse:
    return Warehouse(load_settings(project / "sid.toml", env={}))


def edit(project: Path, change: Callable[[list[str]], list[str]]) -> None:
    file = project / "data" / "taxonomy.csv"
    head, *rows = file.read_text(encoding="utf-8").splitlines()
    part = file.with_suffix(".part")
    part.write_text("\n".join([head, *change(rows), ""]), encoding="utf-8")
    part.replace(file)


def runs(ui: UI, job: str) -> list[dict]:
    found = ui.ask(RUNS, job=job)["runsOrError"]["results"]
    return [{"status": run["status"], **{tag["key"]: tag["value"] for tag in run["tags"]}} for run in found]


def wait_for_run(ui: UI, job: str, partition: Callable[[str], bool]) -> str:
    """Wait until a run of the job that the sensor asked for has succeeded; its partition."""
    deadline = time.monotonic() + 60 * MINUTES
    while time.monotonic() < deadline:
        mine = [
            run for run in runs(ui, job) if partition(run.get("dagster/partition", "")) and "dagster/sensor_name" in run
        ]
        assert not any(run["status"] in ("FAILURE", "CANCELED") for run in mine), mine
        if any(run["status"] == "SUCCESS" for run in mine):
            return mine[0]["dagster/partition"]
        time.sleep(3)
    pytest.fail(f"no run of {job}: {ui.ask(TICKS, sensor=SENSOR)}")


def sid(project: Path, *arguments: str) -> str:
    env = {k: v for k, v in os.environ.items() if k != "DAGSTER_HOME"}
    command = [sys.executable, "-m", "sid_pipeline.cli", "--settings", str(project / "sid.toml"), *arguments]
    done = subprocess.run(command, env=env, cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def live_before(ui, project):
    """r1 is live in both flavours and the sensor watches; the SIDs of both."""
    ui.backfill(SNAPSHOT_ASSETS, [DAY1])
    assert ui.ask(ADD_PARTITION, key="r1", repo=REPOSITORY)["addDynamicPartition"]["__typename"].endswith("Success")
    ui.backfill([*RELEASE_ASSETS, *[[flavour, "prefix_names"] for flavour in FLAVOURS]], ["r1"])
    assert ui.ask(START_SENSOR, sensor=SENSOR)["startSensor"]["__typename"] == "Sensor"
    return {flavour: open_live(flavour, project / ".sid").sids() for flavour in FLAVOURS}


def test_a_minor_edit_becomes_a_revision_and_moves_no_sid(ui, project, warehouse, live_before):
    before = warehouse.tables.version(SEMANTIC_IDS)
    pinned = need_release(warehouse.tables, "r1")
    edit(project, lambda rows: [row.replace("Cheese", "Cheeses of all kinds") for row in rows] + ["new1,c0020,Kefir"])
    assert wait_for_run(ui, "taxonomy_revision", lambda key: key == "r1") == "r1"
    tree = release_tree(warehouse, need_release(warehouse.tables, "r1"))
    assert {"Kefir", "Cheeses of all kinds"} <= {node.name for node in tree.nodes}
    assert need_release(warehouse.tables, "r1") == pinned
    rows = warehouse.tables.arrow(TAXONOMY_CHANGES, release="r1").to_pylist()
    assert {row["class"] for row in rows} == {"minor"} and {row["kind"] for row in rows} == {"renamed", "added"}
    # The names were made from the new revision; 0 products change their SID.
    exported = warehouse.receipts.need("taxonomy", "r1")
    assert exported.facts["revision"] == tree.revision
    assert warehouse.receipts.need("esci/prefix_names", "r1").inputs["taxonomy"] == exported.data_version
    assert warehouse.tables.version(SEMANTIC_IDS) == before
    for flavour in FLAVOURS:
        assert open_live(flavour, project / ".sid").sids() == live_before[flavour]


def test_a_major_edit_is_rebuilt_promoted_and_rolled_back(ui, project, warehouse, live_before):
    state = project / ".sid"

    def regroup(rows: list[str]) -> list[str]:
        """Bakery becomes a part of Dairy & Eggs: some hundred products change their path."""
        return [row.replace("c0001,,Bakery", "c0001,c0019,Bakery") for row in rows]

    edit(project, regroup)
    assert "major" in sid(project, "taxonomy", "plan")
    release = wait_for_run(ui, "release_build", lambda key: key.startswith("taxonomy-"))
    pinned = need_release(warehouse.tables, release)
    assert (pinned.predecessor, pinned.asked_by) == ("r1", "taxonomy_watch") and "major" in pinned.reason
    # Both flavours are built and published beside the live ones, which stay.
    for flavour in FLAVOURS:
        assert open_release(flavour, release, state).sids().keys() == live_before[flavour].keys()
        assert open_live(flavour, state).sids() == live_before[flavour]
        # The diff to what is live: why products moved, and where the tokens went.
        told = warehouse.receipts.need(f"{flavour}/codebook_diff", release).metadata
        assert "kept L1..L4" in told and any(name.startswith("moved: category moved") for name in told)
        alignment = told["alignment (training set)"]["json"]
        assert alignment["kept after alignment"][0] >= alignment["kept as trained"][0]
        folder = warehouse.codebook_diff(flavour, release)
        tokens = pq.read_table(folder / "token_map.parquet")
        assert set(tokens["level"].to_pylist()) == {1, 2, 3, 4}
        moved = pq.read_table(folder / "moved_products.parquet").to_pylist()
        fresh = open_release(flavour, release, state).sids()
        assert {row["product_id"] for row in moved} == {p for p, s in fresh.items() if s != live_before[flavour][p]}
    # A person switches, and goes back: exactly what it was.
    sid(project, "promote", release, "--by", "Ada", "--reason", "the new tree")
    for flavour in FLAVOURS:
        assert open_live(flavour, state).sids() == open_release(flavour, release, state).sids()
        sid(project, "rollback", "--flavour", flavour, "--by", "Ada", "--reason", "readers are not ready")
        assert open_live(flavour, state).sids() == live_before[flavour]


def test_each_change_was_asked_for_once(ui, live_before):
    time.sleep(70)  # two more looks
    asked = [run for run in runs(ui, "release_build") if "dagster/sensor_name" in run]
    assert len(asked) == 1
    assert len([run for run in runs(ui, "taxonomy_revision") if "dagster/sensor_name" in run]) == 1
    ticks = ui.ask(TICKS, sensor=SENSOR)["sensorOrError"]["sensorState"]["ticks"]
    assert not [tick for tick in ticks if tick["error"]]
