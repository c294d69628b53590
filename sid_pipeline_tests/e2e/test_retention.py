"""Retention over a whole chain: nights, two releases, a switch; then everything that was promised still works.

The tests of this file tell one story in order; each starts where the one before ended.
"""

from __future__ import annotations

import shutil
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner

from sid_pipeline import cli, run_history
from sid_pipeline.definitions import build_definitions
from sid_pipeline.promotion import rollback
from sid_pipeline.publication.live import read_pointer
from sid_pipeline.reader import open_live, open_release
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.retention import DAY, PUBLICATION, RUN, plan, take_away
from sid_pipeline.run import run_everything
from sid_pipeline.schemas import CLEANED_ATTRIBUTES, EMBEDDED_PRODUCTS, EMBEDDINGS, PRODUCTS, SEMANTIC_IDS
from sid_pipeline.settings import load_settings
from sid_pipeline_tests.e2e.conftest import DAY1, DAY2

pytestmark = pytest.mark.slow

NIGHTS = [(date.fromisoformat(DAY1) + timedelta(days=n)).isoformat() for n in range(7)]
FLAVOURS = ("esci", "esci_gemma")
BY = {"by": "Ada", "reason": "because"}


@pytest.fixture(scope="module")
def story(settings, spark, project) -> Warehouse:
    """Six nights of r1, of which the last five stand on their own; r2 built on the fourth and live since then."""
    for number, night in enumerate(NIGHTS[2:], 2):  # the two days of the sample by turns: products come back
        shutil.copytree(project / "data" / "catalogue" / (DAY1, DAY2)[number % 2], project / "data/catalogue" / night)
    with (project / "sid.toml").open("a", encoding="utf-8") as file:
        file.write("\n[retention]\nsnapshots = 2\npublications = 2\n")
    warehouse = Warehouse(load_settings())
    for night in NIGHTS[:4]:
        run_everything(warehouse.settings, night)
    run_everything(warehouse.settings, NIGHTS[3], "r2")
    invoke("promote", "r2", "--by", "Ada", "--reason", "better")
    for night in NIGHTS[4:6]:
        for release in ("r1", "r2"):
            run_everything(warehouse.settings, night, release)
    return warehouse


def invoke(*arguments: str) -> str:
    done = CliRunner().invoke(cli.main, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def sids(warehouse: Warehouse, release: str) -> dict[str, dict[str, str]]:
    columns = ["product_id", "base_sid"]
    tables = {f: warehouse.tables.arrow(SEMANTIC_IDS, columns, flavour=f, release=release) for f in FLAVOURS}
    return {f: dict(zip(*(t[c].to_pylist() for c in columns), strict=True)) for f, t in tables.items()}


def state_of(warehouse: Warehouse) -> dict[Path, int]:
    folders = [warehouse.state / name for name in ("tables", "publications", "receipts", "artefacts")]
    return {p: p.stat().st_mtime_ns for folder in folders for p in folder.rglob("*") if p.is_file()}


def test_a_dry_run_changes_nothing_and_says_what_would_go(story):
    before = state_of(story)
    told = invoke("retention", "--dry-run")
    assert state_of(story) == before
    # r1 is trained on the first night, r2 on the fourth; the newest two stay.
    gone = [NIGHTS[1], NIGHTS[2]]
    assert plan(story).names(DAY) == gone
    assert all(f"day          {night}" in told for night in gone), told
    assert f"{NIGHTS[0]}" in told.split("would go")[0] and "r1 is trained on it" in told


def test_what_is_said_goes_and_nothing_else(story):
    before = {release: sids(story, release) for release in ("r1", "r2")}
    going = plan(story)
    assert len(going.names(PUBLICATION)) == 2 * 3, "of r1 the first three nights, in two flavours"
    with dg.DagsterInstance.get() as instance:
        take_away(story, going, instance)
        assert plan(story, instance).removals == ()
    kept = {NIGHTS[0], NIGHTS[3], NIGHTS[4], NIGHTS[5]}
    assert {day for (day,) in story.tables.slices(PRODUCTS)} == kept == set(story.receipts.partitions("products"))
    assert {day for _, day in story.tables.slices(EMBEDDED_PRODUCTS)} == kept
    assert {release: sids(story, release) for release in ("r1", "r2")} == before
    assert len(story.tables.arrow(EMBEDDINGS)) and len(story.tables.arrow(CLEANED_ATTRIBUTES))


def test_readers_open_what_is_live_and_every_kept_release(story):
    for flavour in FLAVOURS:
        assert open_live(flavour, story.published).manifest["release"] == "r2"
        for release in ("r1", "r2"):
            assert len(open_release(flavour, release, story.published)) > 350


def test_the_next_night_is_assigned_incrementally_for_both_releases(story):
    for release in ("r1", "r2"):
        before = story.receipts.need("esci/semantic_ids", release)
        run_everything(story.settings, NIGHTS[6], release)
        made = story.receipts.need("esci/semantic_ids", release)
        assert made.facts["as_of_snapshot"] == NIGHTS[6] and made.metadata["whole slice"] is False
        assert made.facts["codebook_id"] == before.facts["codebook_id"]
        # Six nights, two kept, and each still has its parent's delta.
        assert open_release("esci", release, story.published).manifest["parent"]


def test_a_codebook_that_is_lost_is_made_again_from_the_training_set(story):
    made = story.receipts.need("esci/codebook", "r2")
    shutil.rmtree(story.state / made.facts["folder"])
    definitions = build_definitions(story.settings, {"warehouse": story})
    with dg.DagsterInstance.get() as instance:
        job = definitions.resolve_job_def("release_build")
        selection = [dg.AssetKey(["esci", "codebook"])]
        assert job.execute_in_process(partition_key="r2", instance=instance, asset_selection=selection).success
    assert story.receipts.need("esci/codebook", "r2").facts["codebook_id"] == made.facts["codebook_id"]
    assert (story.state / made.facts["folder"] / "manifest.json").is_file()


def test_rollback_goes_back_to_the_night_before_and_to_the_release_before(story):
    with dg.DagsterInstance.get() as instance:
        take_away(story, plan(story, instance), instance)
    assert open_live("esci", story.published).manifest["as_of_snapshot"] == NIGHTS[6]
    rollback(story, "esci", **BY)
    assert read_pointer(story.store, "esci")["as_of_snapshot"] == NIGHTS[5]
    rollback(story, "esci", **BY)
    rollback(story, "esci", **BY)
    pointer = read_pointer(story.store, "esci")
    assert (pointer["release"], pointer["as_of_snapshot"]) == ("r1", NIGHTS[3])
    assert len(open_live("esci", story.published)) > 350


def test_old_runs_go_but_for_those_that_last_made_what_is_kept(story, monkeypatch):
    with dg.DagsterInstance.get() as instance:
        later = run_history.datetime.now(run_history.timezone.utc) + timedelta(days=31)
        every = {run.run_id for run in instance.get_runs()}
        kept = {*plan(story).kept.snapshots, *plan(story).kept.releases}
        old = run_history.old_runs(instance, 30, kept, now=later)
        assert 0 < len(old) < len(every)
        going = plan(story)
        take_away(story, going, None)
        for run_id in old:
            run_history.delete_run(instance, run_id)
        assert {run.run_id for run in instance.get_runs()} == every - set(old)
        home = story.state / "dagster"
        assert not [path for path in home.rglob("*") if any(run_id in path.name for run_id in old)]
        codebook = instance.get_latest_storage_id_by_partition(
            dg.AssetKey(["esci", "codebook"]), dg.DagsterEventType.ASSET_MATERIALIZATION
        )
        assert set(codebook) == {"r1", "r2"}, "Dagster still shows what is there"
        days = instance.get_latest_storage_id_by_partition(
            dg.AssetKey("products"), dg.DagsterEventType.ASSET_MATERIALIZATION
        )
        assert kept >= set(days) >= {NIGHTS[5], NIGHTS[6]}
        assert RUN not in {removal.kind for removal in plan(story, instance).removals}
