"""The taxonomy of a release through changes of its source, and the sensor that watches it."""

from __future__ import annotations

import json
import shutil

import dagster as dg
import pytest
from click.testing import CliRunner

from sid_pipeline import cli
from sid_pipeline.assets.taxonomy import _outcome, _Pins
from sid_pipeline.definitions import build_definitions
from sid_pipeline.jobs import RELEASE_BUILD, TAXONOMY_REVISION
from sid_pipeline.publication.live import write_pointer
from sid_pipeline.publication.publish import publish
from sid_pipeline.receipts import Receipt
from sid_pipeline.releases import (
    RETIRED,
    SERVED,
    TRIAL,
    ReleaseError,
    drop_trial,
    keep,
    need_release,
    retire,
)
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import PRODUCTS, RELEASES, TAXONOMY_CHANGES, TAXONOMY_NODES
from sid_pipeline.settings import TaxonomySettings, load_settings
from sid_pipeline.taxonomy.tree import Taxonomy
from sid_pipeline.taxonomy_sensor import look
from sid_pipeline.taxonomy_source import release_tree
from sid_pipeline_tests.publications import source

DAY = "2026-01-05"
EDGES = {
    "1": (None, "Food"), "2": ("1", "Dairy"), "3": ("2", "Milk"), "4": ("2", "Cheese"),
    "5": ("1", "Bakery"), "6": (None, "Home"), "7": ("6", "Lamps"),
}  # fmt: skip
# 100 products; one change of Lamps is one percent, of Milk half of them.
CATALOGUE = {"Food > Dairy > Milk": 50, "Food > Dairy > Cheese": 30, "Food > Bakery": 14, "Home > Lamps": 1, "": 5}
MINOR = {"2": ("1", "Chilled"), "8": ("1", "Deli"), "7": ("1", "Lamps")}
MAJOR = {"3": ("5", "Milk")}
SETTINGS = """
[source]
products = "products.csv"
[taxonomy]
source = "tree.csv"
max_minor_share = 0.02
"""


class Shop:
    """A catalogue of 100 products in a state folder of its own, with what the release plane needs of it."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.settings = load_settings(folder / "sid.toml", env={})
        self.warehouse = Warehouse(self.settings)
        self.instance = dg.DagsterInstance.ephemeral()
        self.definitions = build_definitions(self.settings, {"warehouse": self.warehouse})

    def edges(self, rows=None) -> None:
        rows = {**EDGES, **(rows or {})}
        lines = [f"{node},{parent or ''},{name}" for node, (parent, name) in rows.items()]
        (self.folder / "tree.csv").write_text("\n".join(["node_id,parent_id,name", *lines, ""]))

    def night(self, spark, day: str, catalogue: dict[str, int]) -> None:
        paths = [path for path, count in catalogue.items() for _ in range(count)]
        blank = {c.name: None if c.nullable else "x" for c in PRODUCTS.columns if c.name != "snapshot"}
        rows = [
            {**blank, "product_id": f"P{number}", "category": path.split(" > ") if path else None}
            for number, path in enumerate(paths)
        ]
        frame = spark.createDataFrame(rows, PRODUCTS.ddl(without=("snapshot",)))
        self.warehouse.tables.replace(PRODUCTS, frame, snapshot=day)
        self.warehouse.receipts.put(Receipt("products", day, {}, f"products {day}"))
        for name in ("esci", "gemma"):
            self.warehouse.receipts.put(Receipt(f"{name}_embeddings", day, {"products": f"products {day}"}, "v"))

    def build(self, release: str, **config) -> dg.ExecuteInProcessResult:
        self.instance.add_dynamic_partitions("releases", [release])
        return self.definitions.resolve_job_def(RELEASE_BUILD).execute_in_process(
            instance=self.instance,
            partition_key=release,
            run_config={"ops": {"taxonomy": {"config": config}}},
            asset_selection=[dg.AssetKey("taxonomy")],
            raise_on_error=False,
        )

    def metadata(self, result: dg.ExecuteInProcessResult) -> dict:
        assert result.success
        (event,) = result.get_asset_materialization_events()
        return {name: entry.value for name, entry in event.materialization.metadata.items()}

    def paths(self, release: str, revision: str | None = None) -> set[str]:
        tree = release_tree(self.warehouse, need_release(self.warehouse.tables, release), revision)
        return {" > ".join(node.path) for node in tree.nodes}

    def look(self, cursor: str | None = None):
        return look(cursor, self.warehouse)


@pytest.fixture(scope="module")
def with_r1(tmp_path_factory, spark):
    """A folder in which r1 stands on the first tree."""
    folder = tmp_path_factory.mktemp("shop") / "shop"
    folder.mkdir()
    (folder / "sid.toml").write_text(SETTINGS)
    shop = Shop(folder)
    shop.edges()
    assert "no release is served yet" in shop.look().skip_message
    shop.night(spark, DAY, CATALOGUE)
    assert shop.build("r1").success
    return folder


@pytest.fixture
def shop(tmp_path, with_r1) -> Shop:
    shutil.copytree(with_r1, tmp_path / "shop")
    return Shop(tmp_path / "shop")


OLD_PATHS = {
    "Food",
    "Food > Dairy",
    "Food > Dairy > Milk",
    "Food > Dairy > Cheese",
    "Food > Bakery",
    "Home",
    "Home > Lamps",
}


def test_a_minor_change_is_a_revision_of_the_release(shop):
    first = need_release(shop.warehouse.tables, "r1")
    shop.edges(rows=MINOR)
    told = shop.metadata(shop.build("r1"))
    assert told["change"].startswith("minor: 1 of 95 products changed their category's path (1.05%")
    assert told["share touched"] == pytest.approx(1 / 95, rel=1e-5)
    assert {"Food > Chilled > Milk", "Food > Deli", "Food > Lamps"} < shop.paths("r1")
    # What the codebooks stand on stays, and can be read back.
    assert need_release(shop.warehouse.tables, "r1") == first
    assert told["revision"] != told["revision of the codebooks"] == first.taxonomy_revision
    assert shop.paths("r1", first.taxonomy_revision) == OLD_PATHS
    changes = shop.warehouse.tables.arrow(TAXONOMY_CHANGES, release="r1").to_pylist()
    assert sorted(row["kind"] for row in changes) == ["added", "moved", "renamed"]
    assert {row["class"] for row in changes} == {"minor"}
    # The catalogue still says Dairy: it is the same node.
    tree = release_tree(shop.warehouse, first)
    found = tree.find(["food", "dairy", "milk"])
    assert found is not None and found.path == ("Food", "Chilled", "Milk")
    assert shop.metadata(shop.build("r1"))["unchanged"] is True


@pytest.mark.slow
def test_many_small_changes_add_up(shop):
    shop.edges(rows=MINOR)
    shop.build("r1")
    shop.edges(rows={**MINOR, "4": ("5", "Cheese")})
    told = shop.metadata(shop.build("r1"))
    assert told["change"].startswith("major: 31 of 95 products")


def test_a_major_change_leaves_the_release_as_it_is(shop):
    nodes = shop.warehouse.tables.version(TAXONOMY_NODES)
    shop.edges(rows=MAJOR)
    told = shop.metadata(shop.build("r1"))
    assert told["change"].startswith("major: 50 of 95") and "a new vocabulary release is due" in told["change"]
    assert shop.paths("r1") == OLD_PATHS and shop.warehouse.tables.version(TAXONOMY_NODES) == nodes


@pytest.mark.parametrize(
    "content", [None, "", "node_id,parent_id,name\n", "<html>", "node_id,parent_id,name\n1,9,x\n2,,y\n"]
)
def test_a_source_that_cannot_be_read_is_never_an_empty_taxonomy(shop, content):
    """Neither for the release, which keeps its tree and says so, nor for a new one, nor for the sensor."""
    seen = shop.look().cursor
    path = shop.folder / "tree.csv"
    path.unlink() if content is None else path.write_text(content)
    result = shop.build("r1")
    told = shop.metadata(result)
    assert "keeps its tree" in told["change"] and shop.paths("r1") == OLD_PATHS
    (check,) = result.get_asset_check_evaluations()
    assert not check.passed
    refused = shop.build("r2")
    assert not refused.success and "tree.csv" in refused.failure_data_for_node("taxonomy").user_failure_data.description
    assert shop.warehouse.tables.arrow(RELEASES)["release"].to_pylist() == ["r1"]
    skipped = shop.look(seen)
    assert isinstance(skipped, dg.SkipReason) and "tries again" in skipped.skip_message
    shop.edges()
    assert "keeps its tree" not in shop.metadata(shop.build("r1"))["change"]
    assert isinstance(shop.look(seen), dg.SkipReason)


def test_another_max_bad_share_asks_for_the_source_again_and_the_default_is_not_named():
    def inputs(**set_to):
        return _Pins("r1", None, {"training_snapshot": DAY}, "f", TaxonomySettings(**set_to)).inputs

    assert inputs() == {"training_snapshot": DAY, "source": "f", "max_minor_share": 0.01}
    assert inputs(max_bad_share=0.5) == {**inputs(), "max_bad_share": 0.5}


def test_a_category_may_be_named_like_a_fault(monkeypatch):
    monkeypatch.setattr("sid_pipeline.assets.taxonomy._placed", lambda *_: ({}, 0, 0))
    pins = _Pins("r1", None, {"training_snapshot": DAY, "taxonomy_source": "t"}, "f", TaxonomySettings())
    tree = Taxonomy.from_paths([("Returned", "cannot be used")])
    (check,) = _outcome(None, pins, tree, "minor: 'cannot be used' is new").checks
    assert check.passed
    (check,) = _outcome(None, pins, tree, "the source is a mess", readable=False).checks
    assert not check.passed


@pytest.mark.slow
def test_a_new_release_follows_the_live_one(shop):
    shop.edges(rows={**MAJOR, "2": ("1", "Chilled")})
    told = shop.metadata(shop.build("r2", reason="v2", asked_by="Ada"))
    assert told["change"].startswith("against r1: major: 50 of 95")
    second = need_release(shop.warehouse.tables, "r2")
    assert (second.predecessor, second.state, second.reason) == ("r1", SERVED, "v2")
    assert shop.metadata(shop.build("r3", predecessor="none"))["change"] == "the first tree"
    refused = shop.build("r2", predecessor="none")
    assert "add a new release" in refused.failure_data_for_node("taxonomy").user_failure_data.description
    assert not shop.build("r4", predecessor="r9").success


@pytest.mark.slow
def test_a_run_that_broke_off_after_pinning_is_completed(shop, monkeypatch):
    pinned = need_release(shop.warehouse.tables, "r1")
    shop.warehouse.receipts.begin("taxonomy", "r1")
    assert shop.warehouse.receipts.get("taxonomy", "r1") is None
    shop.edges(rows=MINOR)
    assert shop.metadata(shop.build("r1"))["change"].startswith("minor")
    assert need_release(shop.warehouse.tables, "r1") == pinned


# ------------------------------------------------------------------ the sensor


def test_the_sensor_asks_once_for_a_major_change(shop):
    first = shop.look()
    assert first.run_requests == [] and "r1 has" in first.skip_reason.skip_message
    assert "as it was" in shop.look(first.cursor).skip_message
    shop.edges(rows=MAJOR)
    asked = shop.look(first.cursor)
    (request,) = asked.run_requests
    (added,) = asked.dynamic_partitions_requests
    assert (request.job_name, added.partition_keys) == (RELEASE_BUILD, [request.partition_key])
    assert request.partition_key.startswith("taxonomy-")
    assert request.run_config["ops"]["taxonomy"]["config"]["predecessor"] == "r1"
    assert "50 of 95 products" in request.run_config["ops"]["taxonomy"]["config"]["reason"]
    assert "as it was" in shop.look(asked.cursor).skip_message
    # A cursor that a crash lost asks by the same key, which Dagster runs once.
    assert shop.look(first.cursor).run_requests[0].run_key == request.run_key
    # The request is one that the job takes.
    self_built = shop.build(request.partition_key, **request.run_config["ops"]["taxonomy"]["config"])
    assert self_built.success
    assert f"{request.partition_key} has" in shop.look(first.cursor).skip_reason.skip_message
    # A small change of the new tree is minor for the release that waits: no third one is asked for.
    shop.edges(rows={**MAJOR, "5": ("1", "Breads")})
    (revision,) = shop.look(asked.cursor).run_requests
    assert (revision.job_name, revision.partition_key) == (TAXONOMY_REVISION, request.partition_key)


def test_the_sensor_asks_for_a_revision_after_a_minor_change(shop):
    first = shop.look()
    shop.edges(rows=MINOR)
    asked = shop.look(first.cursor)
    assert [(r.job_name, r.partition_key) for r in asked.run_requests] == [(TAXONOMY_REVISION, "r1")]
    assert not asked.dynamic_partitions_requests
    shop.definitions.resolve_job_def(TAXONOMY_REVISION)


def test_a_source_that_only_looks_different_asks_for_nothing(shop):
    first = shop.look()
    path = shop.folder / "tree.csv"
    path.write_text(path.read_text().replace("Milk", " Milk "))
    again = shop.look(first.cursor)
    assert again.run_requests == [] and json.loads(again.cursor) != json.loads(first.cursor)


def test_the_catalogue_itself_as_the_source(shop, spark):
    """No ids anywhere: a renamed category keeps its id because its products say that it is the same."""
    shop.settings.taxonomy.__dict__["source"] = "products"
    shop.build("p1", taxonomy_source="products", predecessor="none")
    tree = release_tree(shop.warehouse, need_release(shop.warehouse.tables, "p1"))
    bakery = tree.find(["Food", "Bakery"])
    seen = shop.look().cursor
    assert "those of the last look" in shop.look(seen).skip_message
    renamed = {path.replace("Bakery", "Fresh from the oven"): count for path, count in CATALOGUE.items()}
    shop.night(spark, "2026-01-06", renamed)
    asked = shop.look(seen)
    assert [r.job_name for r in asked.run_requests] == [TAXONOMY_REVISION]
    told = shop.metadata(shop.build("p1"))
    assert told["change"].startswith("minor: 0 of 95") and "is now named 'Fresh from the oven'" in told["changes"]
    tree = release_tree(shop.warehouse, need_release(shop.warehouse.tables, "p1"))
    assert tree.find(["Food", "Fresh from the oven"]).node_id == bakery.node_id
    assert tree.find(["Food", "Bakery"]).node_id == bakery.node_id


# ------------------------------------------------------------------ states of a release


@pytest.mark.slow
def test_retiring_needs_a_name_and_no_reader(shop, tmp_path):
    shop.build("r2")
    made = publish(shop.warehouse.store, source(tmp_path), tmp_path / "spool")
    write_pointer(shop.warehouse.store, made.folder, made.manifest)
    with pytest.raises(ReleaseError, match="is live for esci: promote another one first"):
        retire(shop.warehouse, "r1", "Ada", "2026-02-01")
    for by, day, says in ((" ", "2026-02-01", "needs the name"), ("Ada", "tomorrow", "is no day")):
        with pytest.raises(ReleaseError, match=says):
            retire(shop.warehouse, "r2", by, day)
    retired = retire(shop.warehouse, "r2", "Ada of search", "2026-02-01")
    assert retired == need_release(shop.warehouse.tables, "r2")
    assert (retired.state, retired.acknowledged_by, retired.acknowledged_on) == (RETIRED, "Ada of search", "2026-02-01")
    assert [r["release"] for r in shop.warehouse.tables.arrow(RELEASES).to_pylist() if r["state"] == SERVED] == ["r1"]


@pytest.mark.slow
def test_a_trial_is_thrown_away_without_a_trace_and_nothing_else_is(shop):
    shop.build("esci", trial=True)  # named like a flavour, out of spite
    shop.build(DAY, trial=True)
    warehouse = shop.warehouse
    for folder in (warehouse.codebooks("esci", "esci"), warehouse.reports("esci", "r1"), warehouse.explorer("esci")):
        folder.mkdir(parents=True)
    warehouse.receipts.put(Receipt("esci/codebook", "esci", {}, "v"))
    with pytest.raises(ReleaseError, match="only a trial can be thrown away"):
        drop_trial(warehouse, "r1")
    for trial in ("esci", DAY):
        assert need_release(warehouse.tables, trial).state == TRIAL
        drop_trial(warehouse, trial)
    assert warehouse.tables.arrow(RELEASES)["release"].to_pylist() == ["r1"]
    assert set(warehouse.tables.arrow(TAXONOMY_NODES)["release"].to_pylist()) == {"r1"}
    assert not warehouse.codebooks("esci", "esci").exists() and not warehouse.explorer("esci").exists()
    assert warehouse.receipts.get("esci/codebook", "esci") is None
    assert warehouse.reports("esci", "r1").is_dir() and warehouse.receipts.need("products", DAY)


@pytest.mark.slow
def test_a_kept_trial_is_served(shop):
    shop.build("t1", trial=True)
    assert keep(shop.warehouse, "t1").state == SERVED
    with pytest.raises(ReleaseError, match="is served, not a trial"):
        keep(shop.warehouse, "t1")


@pytest.mark.slow
def test_the_plan_names_class_products_and_the_next_step(shop, monkeypatch):
    monkeypatch.setenv("SID_SETTINGS", str(shop.folder / "sid.toml"))
    monkeypatch.setenv("DAGSTER_HOME", str(shop.folder))
    monkeypatch.chdir(shop.folder)
    shop.edges(rows=MAJOR)
    done = CliRunner().invoke(cli.main, ["taxonomy", "plan"])
    assert done.exit_code == 0, done.output
    assert (
        "major: 50 of 95 products" in done.output
        and "'Food > Dairy > Milk' (3) moved to Food > Bakery: 50 products." in done.output
    )
    assert "next: sid taxonomy rebuild taxonomy-" in done.output and "no build to estimate from" in done.output
    shop.edges(rows=MINOR)
    told = json.loads(CliRunner().invoke(cli.main, ["taxonomy", "plan", "--json"]).stdout)
    assert (told["class"], told["release"], told["estimated_minutes"]) == ("minor", "r1", 0)
    assert told["next"].startswith("sid run --release r1")
