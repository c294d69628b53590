"""Retention over a whole chain of one flavour: nights, two releases, a switch; then all that was promised still works.

The tests of this file tell one story in order; each starts where the one before ended.
"""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Iterator
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
from sid_pipeline.retention import CLEANINGS, DAY, PUBLICATION, RUN, VECTORS, plan, take_away
from sid_pipeline.run import run_everything
from sid_pipeline.sample import generate
from sid_pipeline.schemas import CLEANED_ATTRIBUTES, EMBEDDED_PRODUCTS, EMBEDDINGS, PRODUCTS, SEMANTIC_IDS
from sid_pipeline.settings import load_settings
from sid_pipeline_tests.e2e.conftest import DAY1, DAY2, SETTINGS

pytestmark = pytest.mark.slow

NIGHTS = [(date.fromisoformat(DAY1) + timedelta(days=n)).isoformat() for n in range(5)]
FLAVOUR = "esci_gemma"  # the one that is cleaned, too
BY = {"by": "Ada", "reason": "because"}
KEPT = """
[flavours.esci]
enabled = false

[retention]
snapshots = 1
publications = 2
"""


@pytest.fixture(scope="module")
def story(tmp_path_factory, spark) -> Iterator[Warehouse]:
    """Three nights of r1; r2 is built on the third, goes live, and has the fourth to itself."""
    folder = tmp_path_factory.mktemp("retention")
    generate(folder / "data", products=300)
    (folder / "sid.toml").write_text(SETTINGS + KEPT, encoding="utf-8")
    for number, night in enumerate(NIGHTS[2:]):  # the two days of the sample by turns: products come and go
        shutil.copytree(folder / "data" / "catalogue" / (DAY1, DAY2)[number % 2], folder / "data/catalogue" / night)
    second = folder / "data" / "catalogue" / DAY2 / "products.csv.gz"
    lines = gzip.decompress(second.read_bytes()).decode().splitlines()
    own = {"product_id": "ONLY2", "title": "Lonely Lentil Soup, 400 g"}  # a text that no later night has
    lines.append(",".join(f'"{own.get(name, "")}"' for name in lines[0].split(",")))
    second.write_bytes(gzip.compress("\n".join(lines).encode()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SID_SETTINGS", str(folder / "sid.toml"))
        patch.delenv("DAGSTER_HOME", raising=False)
        patch.chdir(folder)
        warehouse = Warehouse(load_settings())
        for night in NIGHTS[:3]:
            run_everything(warehouse.settings, night)
        run_everything(warehouse.settings, NIGHTS[2], "r2")
        invoke("promote", "r2", "--by", "Ada", "--reason", "better")
        run_everything(warehouse.settings, NIGHTS[3], "r2")
        yield warehouse


def invoke(*arguments: str) -> str:
    done = CliRunner().invoke(cli.main, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def sids(warehouse: Warehouse, release: str) -> dict[str, str]:
    table = warehouse.tables.arrow(SEMANTIC_IDS, ["product_id", "base_sid"], flavour=FLAVOUR, release=release)
    return dict(zip(table["product_id"].to_pylist(), table["base_sid"].to_pylist(), strict=True))


def state_of(warehouse: Warehouse) -> dict[Path, int]:
    folders = [warehouse.state / name for name in ("tables", "publications", "receipts", "artefacts")]
    return {p: p.stat().st_mtime_ns for folder in folders for p in folder.rglob("*") if p.is_file()}


def test_a_dry_run_changes_nothing_and_says_what_would_go(story):
    before = state_of(story)
    told = invoke("retention", "--dry-run")
    assert state_of(story) == before
    going = plan(story)
    # r1 is trained on the first night and stands on the third, on which r2 is trained; the fourth is the newest.
    assert going.names(DAY) == [NIGHTS[1]] and len(going.names(PUBLICATION)) == 1
    stays, goes = told.split("would go")
    assert NIGHTS[1] in goes and going.names(PUBLICATION)[0] in goes
    assert NIGHTS[0] in stays and "r1 is trained on it" in stays and NIGHTS[2] in stays


def test_what_is_said_goes_and_nothing_else(story):
    before = {release: sids(story, release) for release in ("r1", "r2")}
    going = plan(story)
    assert {VECTORS, CLEANINGS} <= {removal.kind for removal in going.removals}
    stored = {spec: len(story.tables.arrow(spec)) for spec in (EMBEDDINGS, CLEANED_ATTRIBUTES)}
    with dg.DagsterInstance.get() as instance:
        take_away(story, going, instance)
        assert plan(story, instance).removals == ()
    kept = {NIGHTS[0], NIGHTS[2], NIGHTS[3]}
    assert {day for (day,) in story.tables.slices(PRODUCTS)} == kept == set(story.receipts.partitions("products"))
    assert {day for _, day in story.tables.slices(EMBEDDED_PRODUCTS)} == kept
    assert {release: sids(story, release) for release in ("r1", "r2")} == before
    # The second night's texts were those of the fourth but for some: what is left is what kept days use, exactly.
    for spec, kind in ((EMBEDDINGS, VECTORS), (CLEANED_ATTRIBUTES, CLEANINGS)):
        gone = sum(int(r.size.split()[0].replace(",", "")) for r in going.removals if r.kind == kind)
        assert len(story.tables.arrow(spec)) == stored[spec] - gone


def test_readers_open_what_is_live_and_every_kept_release(story):
    assert open_live(FLAVOUR, story.published).manifest["release"] == "r2"
    for release in ("r1", "r2"):
        assert len(open_release(FLAVOUR, release, story.published)) > 250


def test_the_next_night_is_assigned_incrementally_for_both_releases(story):
    for release in ("r1", "r2"):
        before = story.receipts.need(f"{FLAVOUR}/semantic_ids", release)
        run_everything(story.settings, NIGHTS[4], release)
        made = story.receipts.need(f"{FLAVOUR}/semantic_ids", release)
        assert made.facts["as_of_snapshot"] == NIGHTS[4] and made.metadata["whole slice"] is False
        assert made.facts["codebook_id"] == before.facts["codebook_id"]
        assert open_release(FLAVOUR, release, story.published).manifest["parent"]


def test_a_codebook_that_is_lost_is_made_again_from_the_training_set(story):
    made = story.receipts.need(f"{FLAVOUR}/codebook", "r2")
    shutil.rmtree(story.state / made.facts["folder"])
    definitions = build_definitions(story.settings, {"warehouse": story})
    with dg.DagsterInstance.get() as instance:
        job = definitions.resolve_job_def("release_build")
        selection = [dg.AssetKey([FLAVOUR, "codebook"])]
        assert job.execute_in_process(partition_key="r2", instance=instance, asset_selection=selection).success
    assert story.receipts.need(f"{FLAVOUR}/codebook", "r2").facts["codebook_id"] == made.facts["codebook_id"]
    assert (story.state / made.facts["folder"] / "manifest.json").is_file()


def test_rollback_goes_back_to_the_night_before_and_to_the_release_before(story):
    with dg.DagsterInstance.get() as instance:
        take_away(story, plan(story, instance), instance)
    assert open_live(FLAVOUR, story.published).manifest["as_of_snapshot"] == NIGHTS[4]
    rollback(story, FLAVOUR, **BY)
    assert read_pointer(story.store, FLAVOUR)["as_of_snapshot"] == NIGHTS[3]
    while read_pointer(story.store, FLAVOUR)["release"] == "r2":
        rollback(story, FLAVOUR, **BY)
    pointer = read_pointer(story.store, FLAVOUR)
    assert (pointer["release"], pointer["as_of_snapshot"]) == ("r1", NIGHTS[2])
    assert len(open_live(FLAVOUR, story.published)) > 250


def test_old_runs_go_but_for_those_that_last_made_what_is_kept(story, monkeypatch):
    with dg.DagsterInstance.get() as instance:
        later = run_history.datetime.now(run_history.timezone.utc) + timedelta(days=31)
        every = {run.run_id for run in instance.get_runs()}
        kept = {*plan(story).kept.snapshots, *plan(story).kept.releases}
        old = run_history.old_runs(instance, 30, kept, now=later)
        assert 0 < len(old) < len(every)
        for run_id in old:
            run_history.delete_run(instance, run_id)
        assert {run.run_id for run in instance.get_runs()} == every - set(old)
        home = story.state / "dagster"
        assert not [path for path in home.rglob("*") if any(run_id in path.name for run_id in old)]
        codebook = instance.get_latest_storage_id_by_partition(
            dg.AssetKey([FLAVOUR, "codebook"]), dg.DagsterEventType.ASSET_MATERIALIZATION
        )
        assert set(codebook) == {"r1", "r2"}, "Dagster still shows what is there"
        days = instance.get_latest_storage_id_by_partition(
            dg.AssetKey("products"), dg.DagsterEventType.ASSET_MATERIALIZATION
        )
        assert set(days) == set(plan(story).kept.snapshots)
        assert RUN not in {removal.kind for removal in plan(story, instance).removals}
