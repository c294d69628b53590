"""The whole chain on a small catalogue: first run, unchanged run, second night, second release, bad nights.

The tests of this file tell one story in order; each starts where the one before ended.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
from datetime import datetime, timedelta, timezone
from pathlib import Path

import dagster as dg
import pyarrow.compute as pc
import pytest
from click.testing import CliRunner

from sid_pipeline import cli
from sid_pipeline.assets.snapshot import CATALOGUE
from sid_pipeline.embedders import current_id
from sid_pipeline.publication.live import read_pointer
from sid_pipeline.reader import open_live, open_release
from sid_pipeline.resources.tables import Tables
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.run import RunFailed, run_everything
from sid_pipeline.schemas import (
    CLEANED_ATTRIBUTES,
    EMBEDDED_PRODUCTS,
    EMBEDDINGS,
    OFFERS,
    PREFIX_NAMES,
    PRODUCTS,
    PROMOTIONS,
    REJECTED_PRODUCTS,
    SEMANTIC_IDS,
    SNAPSHOT_CLEANINGS,
)
from sid_pipeline_tests.automation import asked_for
from sid_pipeline_tests.e2e.conftest import DAY1, DAY2
from sid_pipeline_tests.llm_server import KEY, running

DAY3 = "2026-01-07"
FLAVOURS = ("esci", "esci_gemma")


@pytest.fixture(scope="module")
def warehouse(settings, spark):
    return Warehouse(settings)


@pytest.fixture(scope="module")
def first_summary(settings, warehouse) -> str:
    return run_everything(settings)


def sids(warehouse, flavour, release="r1"):
    here = pc.field("withdrawn_on").is_null()
    rows = warehouse.tables.arrow(SEMANTIC_IDS, filters=here, flavour=flavour, release=release).to_pylist()
    return {row["product_id"]: row for row in rows}


def product_ids(warehouse, day):
    return set(warehouse.tables.arrow(PRODUCTS, ["product_id"], snapshot=day)["product_id"].to_pylist())


def test_every_product_has_one_sid_in_both_flavours(warehouse, first_summary):
    products = product_ids(warehouse, DAY1)
    assert len(products) > 350
    for flavour in FLAVOURS:
        rows = warehouse.tables.arrow(SEMANTIC_IDS, flavour=flavour, release="r1").to_pylist()
        assert len(rows) == len(products)
        assert {row["product_id"] for row in rows} == products
        assert all(row["base_sid"] == "_".join(map(str, row["codes"])) for row in rows)
        assert all(0 <= code < 32 for row in rows for code in row["codes"])


def test_rows_in_are_rows_out_plus_rejected(settings, warehouse, first_summary):
    receipt = warehouse.receipts.need("products", DAY1)
    rejected = warehouse.tables.arrow(REJECTED_PRODUCTS, snapshot=DAY1).to_pylist()
    of_products = [row for row in rejected if row["source_file"].endswith("products.csv.gz")]
    assert receipt.metadata["source rows"] == receipt.metadata["dagster/row_count"] + len(of_products)
    assert len(of_products) > 0 and all(row["message"] for row in of_products)


def test_the_flavours_differ(warehouse, first_summary):
    esci, gemma = sids(warehouse, "esci"), sids(warehouse, "esci_gemma")
    groups = [{p: row["base_sid"].split("_")[0] for p, row in table.items()} for table in (esci, gemma)]
    from sklearn.metrics import adjusted_mutual_info_score

    order = sorted(esci)
    agreement = adjusted_mutual_info_score([groups[0][p] for p in order], [groups[1][p] for p in order])
    assert 0.05 < agreement < 0.95


def test_the_summary_tells_what_a_newcomer_wants(warehouse, first_summary):
    for part in (
        *FLAVOURS,
        "products with a SID",
        "distinct SIDs",
        "codes in use",
        "near-duplicates",
        "next: ",
    ):
        assert part in first_summary
    by_file = [row["source_file"] for row in warehouse.tables.arrow(REJECTED_PRODUCTS, snapshot=DAY1).to_pylist()]
    counts = [sum(file.endswith(f"{kind}.csv.gz") for file in by_file) for kind in ("products", "offers")]
    assert f"rejected rows {DAY1}: {counts[0]} of products, {counts[1]} of offers" in first_summary
    for flavour in FLAVOURS:
        page = warehouse.reports(flavour, "r1") / "report.html"
        assert str(page.name) in first_summary and "<html" in page.read_text(encoding="utf-8")[:200]
        assert sum(row["base_sid"] in first_summary for row in sids(warehouse, flavour).values()) >= 5
    assert (warehouse.explorer("r1") / "index.html").is_file()


def test_readers_get_what_was_assigned(settings, warehouse, first_summary):
    for flavour in FLAVOURS:
        live = open_live(flavour, settings.state)
        assert live.sids() == {p: row["published_sid"] for p, row in sids(warehouse, flavour).items()}
        assert live.manifest["pins"]["as_of_snapshot"] == DAY1
        offers = warehouse.tables.arrow(OFFERS, filters=pc.field("available"), snapshot=DAY1).to_pylist()
        retailer = offers[0]["retailer_id"]
        expected = {o["product_id"] for o in offers if o["retailer_id"] == retailer}
        found = {p for code in range(32) for p in live.products(str(code), retailer=retailer)}
        assert found == expected & set(live.sids())


def test_runs_and_metadata_are_in_the_dagster_instance(settings, first_summary):
    with dg.DagsterInstance.get() as instance:
        assert Path(settings.state / "dagster").is_dir()
        assert {run.job_name for run in instance.get_runs()} >= {
            "relevance_model",
            "snapshot_refresh",
            "release_build",
        }
        event = instance.get_latest_materialization_event(dg.AssetKey(["esci", "semantic_ids"]))
        metadata = event.asset_materialization.metadata
        assert metadata["dagster/row_count"].value > 350
        assert metadata["as of snapshot"].value == DAY1
        assert instance.get_dynamic_partitions("releases") == ["r1"]


def test_an_unchanged_run_does_no_work_and_is_recorded(settings, warehouse, first_summary, monkeypatch):
    pointers = {flavour: read_pointer(settings.state, flavour) for flavour in FLAVOURS}
    with dg.DagsterInstance.get() as instance:
        keys = [key for key in instance.get_asset_keys()]
        before = {key: instance.get_latest_materialization_event(key).timestamp for key in keys}
    versions = {spec.name: warehouse.tables.version(spec) for spec in (PRODUCTS, EMBEDDINGS, SEMANTIC_IDS)}
    # The run after the first may still settle what depends on the live pointer; from then on no Spark is needed.
    run_everything(settings)
    monkeypatch.setattr(Tables, "spark", property(lambda self: pytest.fail("Spark was asked for")))
    run_everything(settings)
    assert versions == {spec.name: warehouse.tables.version(spec) for spec in (PRODUCTS, EMBEDDINGS, SEMANTIC_IDS)}
    assert pointers == {flavour: read_pointer(settings.state, flavour) for flavour in FLAVOURS}
    with dg.DagsterInstance.get() as instance:
        for key in keys:
            event = instance.get_latest_materialization_event(key)
            assert event.timestamp > before[key], key
            assert event.asset_materialization.metadata["unchanged"].value is True, key


def test_a_product_is_traced_through_every_stage(warehouse, first_summary):
    row = next(iter(sids(warehouse, "esci").values()))
    done = CliRunner().invoke(cli.main, ["show", row["product_id"]])
    assert done.exit_code == 0, done.output
    for part in ("raw text", "cleaned by rules", f"esci: {row['base_sid']}", "esci_gemma: ", "embedded as"):
        assert part in done.output
    prefix = row["base_sid"].split("_")[0]
    done = CliRunner().invoke(cli.main, ["show", prefix, "--flavour", "esci", "--limit", "1000"])
    under = [p for p, r in sids(warehouse, "esci").items() if r["base_sid"].split("_")[0] == prefix]
    assert f"{len(under)} products" in done.output and all(product in done.output for product in under)
    assert "no SID prefix" in CliRunner().invoke(cli.main, ["show", "nobody"]).output


def test_the_second_night_pays_for_what_changed_only(settings, warehouse, first_summary):
    before = sids(warehouse, "esci")
    cleaned = len(warehouse.tables.arrow(CLEANED_ATTRIBUTES, ["text_hash"]))
    run_everything(settings, snapshot=DAY2)
    encoded = warehouse.receipts.need("esci_embeddings", DAY2).facts["encoded_now"]
    assert 0 < encoded < 40
    assert 0 < len(warehouse.tables.arrow(CLEANED_ATTRIBUTES, ["text_hash"])) - cleaned < 40
    after = sids(warehouse, "esci")
    assert set(after) == product_ids(warehouse, DAY2) != product_ids(warehouse, DAY1)
    same_text = [p for p in before if p in after and before[p]["text_hash"] == after[p]["text_hash"]]
    assert len(same_text) > 300
    assert all(before[p] == after[p] for p in same_text), "untouched"
    every = {
        row["product_id"]: row for row in warehouse.tables.arrow(SEMANTIC_IDS, flavour="esci", release="r1").to_pylist()
    }
    gone = product_ids(warehouse, DAY1) - product_ids(warehouse, DAY2)
    assert gone and {p for p, row in every.items() if row["withdrawn_on"] == DAY2} == gone
    assert all(every[p]["published_sid"] == before[p]["published_sid"] for p in gone)
    assert {row["change"] for row in every.values() if row["as_of_snapshot"] == DAY2} == {
        "new", "withdrawn", "text_changed",
    }  # fmt: skip
    live = read_pointer(settings.state, "esci")
    assert (live["release"], live["as_of_snapshot"]) == ("r1", DAY2)
    assert before[same_text[0]]["codebook_id"] == after[same_text[0]]["codebook_id"]


def test_a_night_without_changes_lets_what_is_there_serve_again(
    settings, warehouse, first_summary, project, monkeypatch
):
    days = project / "data" / "catalogue"
    shutil.copytree(days / DAY2, days / DAY3)
    before = {flavour: sids(warehouse, flavour) for flavour in FLAVOURS}
    versions = {spec.name: warehouse.tables.version(spec) for spec in (SEMANTIC_IDS, PREFIX_NAMES, EMBEDDINGS)}
    for work in ("cleaning._Night.clean", "embeddings._embed_all", "assignment._assign"):
        monkeypatch.setattr(f"sid_pipeline.assets.{work}", lambda *_: pytest.fail("the work was done again"))
    run_everything(settings, snapshot=DAY3)
    assert before == {flavour: sids(warehouse, flavour) for flavour in FLAVOURS}
    assert versions == {spec.name: warehouse.tables.version(spec) for spec in (SEMANTIC_IDS, PREFIX_NAMES, EMBEDDINGS)}
    for table, slice in [
        (SNAPSHOT_CLEANINGS, {}),
        *[(EMBEDDED_PRODUCTS, {"embedder_id": current_id(warehouse, name)}) for name in ("esci", "gemma")],
    ]:
        then, now = (
            warehouse.tables.arrow(table, [*table.key, "text_hash"], snapshot=day, **slice).to_pylist()
            for day in (DAY2, DAY3)
        )
        assert now and sorted(map(str, now)) == sorted(map(str, then)), table.name
    for flavour in FLAVOURS:
        live = read_pointer(settings.state, flavour)
        assert (live["release"], live["as_of_snapshot"]) == ("r1", DAY3)
        told = warehouse.receipts.need(f"{flavour}/semantic_ids", "r1").metadata
        assert (told["as of snapshot"], told["rows written"]) == (DAY3, 0)
        assert all(number == 0 for name, number in told.items() if name.startswith("changed: "))


@pytest.mark.slow
def test_what_a_correction_by_hand_asks_for_is_run_and_asks_for_no_more(settings, warehouse, first_summary, project):
    definitions, noon = _definitions(settings, warehouse), datetime(2026, 1, 7, 12, tzinfo=timezone.utc)
    job = definitions.resolve_job_def("snapshot_refresh")
    with dg.DagsterInstance.get() as instance:
        asked, cursor = asked_for(definitions, instance, noon, None)
        assert asked == {}
        file = project / "data" / "catalogue" / DAY3 / "products.csv.gz"  # of the night without changes
        rows = gzip.decompress(file.read_bytes())
        file.write_bytes(gzip.compress(re.sub(rb"(?m)^(P\d+,)(\w)", rb"\1Corrected \2", rows, count=1)))
        catalogue = [dg.AssetKey(name) for name in CATALOGUE]
        assert job.execute_in_process(instance=instance, partition_key=DAY3, asset_selection=catalogue).success
        asked, cursor = asked_for(definitions, instance, noon + timedelta(minutes=1), cursor)
        follow = ["cleaned_attributes", "esci_embeddings", "gemma_embeddings"]
        assert asked == {name: {DAY3} for name in follow}
        keys = [dg.AssetKey(name) for name in follow]
        assert job.execute_in_process(instance=instance, partition_key=DAY3, asset_selection=keys).success
        assert warehouse.receipts.need("esci_embeddings", DAY3).facts["encoded_now"] == 1
        asked, _ = asked_for(definitions, instance, noon + timedelta(minutes=2), cursor)
        assert asked == {}
    run_everything(settings, snapshot=DAY3)  # the SIDs, by the sensor's job


def test_going_back_in_time_is_refused(settings, warehouse, first_summary):
    job = _definitions(settings, warehouse).resolve_job_def("sid_refresh")
    config = {"ops": {"esci__semantic_ids": {"config": {"as_of_snapshot": DAY1}}}}
    with dg.DagsterInstance.get() as instance:
        result = job.execute_in_process(
            instance=instance, partition_key="r1", run_config=config, raise_on_error=False,
            asset_selection=[dg.AssetKey(["esci", "semantic_ids"])],
        )  # fmt: skip
    failure = result.failure_data_for_node("esci__semantic_ids")
    assert "set force to go back" in failure.user_failure_data.description


def test_a_second_release_lives_beside_the_first_and_waits_for_a_person(settings, warehouse, first_summary, project):
    shutil.copy(project / "data" / "taxonomy_v2.csv", project / "data" / "other_taxonomy.csv")
    definitions = _definitions(settings, warehouse)
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions("releases", ["r2"])
        config = {"ops": {"taxonomy": {"config": {"taxonomy_source": "data/other_taxonomy.csv", "reason": "v2"}}}}
        done = definitions.resolve_job_def("release_build").execute_in_process(
            instance=instance, partition_key="r2", run_config=config
        )
    assert done.success
    for flavour in FLAVOURS:
        assert read_pointer(settings.state, flavour)["release"] == "r1"
        first, second = (open_release(flavour, release, settings.state) for release in ("r1", "r2"))
        assert set(first.sids()) == set(second.sids())
        assert first.manifest["pins"]["codebook_id"] != second.manifest["pins"]["codebook_id"]
    promoted = CliRunner().invoke(cli.main, ["promote", "r2", "--flavour", "esci", "--by", "Ada", "--reason", "test"])
    assert promoted.exit_code == 0, promoted.output
    assert read_pointer(settings.state, "esci")["release"] == "r2"
    assert read_pointer(settings.state, "esci_gemma")["release"] == "r1"
    log = warehouse.tables.arrow(PROMOTIONS).sort_by("at").to_pylist()
    assert [(row["flavour"], row["kind"], row["by"]) for row in log][-1] == ("esci", "switch", "Ada")
    status = CliRunner().invoke(cli.main, ["status"])
    assert "live r2" in status.output and "live (esci_gemma)" in status.output and "blocked: nothing" in status.output


def test_a_pinned_release_keeps_its_pins(settings, warehouse, first_summary):
    definitions = _definitions(settings, warehouse)
    config = {"ops": {"taxonomy": {"config": {"taxonomy_source": "products"}}}}
    with dg.DagsterInstance.get() as instance:
        result = definitions.resolve_job_def("release_build").execute_in_process(
            instance=instance, partition_key="r2", run_config=config, raise_on_error=False,
            asset_selection=[dg.AssetKey("taxonomy")],
        )  # fmt: skip
    assert "add a new release" in result.failure_data_for_node("taxonomy").user_failure_data.description


def test_a_release_is_never_retrained_behind_its_readers_backs(settings, warehouse, first_summary):
    trained = warehouse.receipts.need("esci/codebook", "r1")
    other = settings.model_copy(update={"training": {**settings.training, "seed": 7}})
    config = {"ops": {"esci__codebook": {"config": {"seed": 8}}}}
    for build, run_config in ((other, {}), (settings, config)):
        with dg.DagsterInstance.get() as instance:
            job = _definitions(build, warehouse).resolve_job_def("release_build")
            result = job.execute_in_process(
                instance=instance,
                partition_key="r1",
                run_config=run_config,
                raise_on_error=False,
                asset_selection=[dg.AssetKey(["esci", "codebook"])],
            )
        assert warehouse.receipts.need("esci/codebook", "r1") == trained
        if run_config:
            failure = result.failure_data_for_node("esci__codebook")
            assert "add a new release to train otherwise" in failure.user_failure_data.description
        else:
            assert result.success


def test_a_lost_codebook_is_rebuilt_bit_for_bit(settings, warehouse, first_summary):
    trained = warehouse.receipts.need("esci/codebook", "r1")
    folder = warehouse.state / trained.facts["folder"]
    before = {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
    assert before
    shutil.rmtree(folder)
    with dg.DagsterInstance.get() as instance:
        job = _definitions(settings, warehouse).resolve_job_def("release_build")
        selection = [dg.AssetKey(["esci", "codebook"])]
        assert job.execute_in_process(instance=instance, partition_key="r1", asset_selection=selection).success
    assert warehouse.receipts.need("esci/codebook", "r1").data_version == trained.data_version
    assert {path.name: path.read_bytes() for path in folder.glob("*.safetensors")} == before


def test_a_bad_night_publishes_nothing(settings, warehouse, first_summary, project):
    day = "2026-01-08"
    folder = project / "data" / "catalogue" / day
    shutil.copytree(project / "data" / "catalogue" / DAY2, folder)
    pointers = {flavour: read_pointer(settings.state, flavour) for flavour in FLAVOURS}
    lines = gzip.decompress((folder / "products.csv.gz").read_bytes()).decode("utf-8", "replace").splitlines()
    bad = [lines[0], *[f",no id {i},,,,," for i in range(90)], *lines[1:]]
    with gzip.open(folder / "products.csv.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(bad))
    with pytest.raises(RunFailed, match="catalogue"):
        run_everything(settings, snapshot=day, release="r1")
    assert len(warehouse.tables.arrow(REJECTED_PRODUCTS, snapshot=day)) >= 90, "the reasons can be looked at"
    assert not product_ids(warehouse, day)
    assert pointers == {flavour: read_pointer(settings.state, flavour) for flavour in FLAVOURS}


@pytest.mark.slow
def test_a_cut_delivery_waits_for_a_whole_one_that_brings_the_products_back(
    settings, warehouse, first_summary, project
):
    """A file cut between two rows: valid, and 12 % of the products gone. Of the live r1 of esci_gemma."""
    flavour, cut_day, next_day = "esci_gemma", "2026-01-10", "2026-01-11"
    before, live = sids(warehouse, flavour), read_pointer(settings.state, flavour)
    days = project / "data" / "catalogue"
    for day in (cut_day, next_day):
        shutil.copytree(days / DAY3, days / day)
    file = days / cut_day / "products.csv.gz"
    lines = gzip.decompress(file.read_bytes()).splitlines(keepends=True)
    file.write_bytes(gzip.compress(b"".join(lines[: round(0.88 * len(lines))])))
    run_everything(settings, snapshot=cut_day)
    left = sids(warehouse, flavour)
    assert 0.8 * len(before) < len(left) < 0.93 * len(before)
    assert read_pointer(settings.state, flavour) == live
    status = CliRunner().invoke(cli.main, ["status"]).output
    told = f"{flavour} r1 did not go live: products_are_there: {len(left)} active products against {len(before)}"
    assert told in status and f"sid run --snapshot {cut_day} --release r1" in status and "offers rejected" in status
    run_everything(settings, snapshot=next_day)
    after = sids(warehouse, flavour)
    assert {p: row["published_sid"] for p, row in after.items()} == {p: r["published_sid"] for p, r in before.items()}
    assert {after[p]["change"] for p in set(before) - set(left)} == {"returned"}
    assert open_live(flavour, settings.state).sids() == {p: row["published_sid"] for p, row in before.items()}
    assert read_pointer(settings.state, flavour)["as_of_snapshot"] == next_day
    assert f"{flavour} r1 did not go live" not in CliRunner().invoke(cli.main, ["status"]).output


def test_a_missing_night_is_one_sentence(settings, warehouse, first_summary, capsys):
    with pytest.raises(RunFailed, match="catalogue"):
        run_everything(settings, snapshot="2026-01-09", release="r1")
    told = capsys.readouterr().err
    assert "2026-01-09/products.csv.gz" in told and "Traceback" not in told


def test_a_day_outside_the_partitions_is_named(settings):
    with pytest.raises(ValueError, match="is no day from 2026-01-05"):
        run_everything(settings, snapshot="2020-01-01")


def test_doctor_finds_this_machine_ready(settings):
    done = CliRunner().invoke(cli.main, ["doctor"])
    assert done.exit_code == 0, done.output
    for part in ("java", "jars", "weights", "disk", "settings"):
        assert f"ok   {part}" in done.output


def test_a_language_model_may_polish_the_names(settings, first_summary, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def first_word(turn: str) -> str:
        return json.dumps({"name": re.findall(r"[^\W_]+", json.loads(turn)["working_name"])[0]})

    with running(reply=first_word) as server:
        asked = {
            "report": settings.report.model_copy(update={"polish_levels": 1}),
            "cleaning": settings.cleaning.model_copy(
                update={"provider": "openai", "model": "m", "base_url": f"{server.url}/v1"}
            ),
        }
        polishing = settings.model_copy(update=asked)
        warehouse = Warehouse(polishing)
        with dg.DagsterInstance.get() as instance:
            job = _definitions(polishing, warehouse).resolve_job_def("sid_refresh")
            selection = [dg.AssetKey(["esci", "prefix_names"])]
            done = job.execute_in_process(instance=instance, partition_key="r1", asset_selection=selection)
    (made,) = done.asset_materializations_for_node("esci__prefix_names")
    rows = warehouse.tables.arrow(PREFIX_NAMES, ["level", "name"], flavour="esci", release="r1").to_pylist()
    first = [row["name"] for row in rows if row["level"] == 1]
    assert made.metadata["names polished"].value == len(first) and all(" " not in name for name in first)
    assert warehouse.receipts.need("esci/prefix_names", "r1").facts["unpolished"] == 0


def _definitions(settings, warehouse):
    from sid_pipeline.definitions import build_definitions

    return build_definitions(settings, {"warehouse": warehouse})


def test_the_codebook_manifest_names_what_it_was_made_from(warehouse, first_summary):
    receipt = warehouse.receipts.need("esci/codebook", "r1")
    manifest = json.loads((warehouse.state / receipt.facts["folder"] / "manifest.json").read_text())
    text = json.dumps(manifest)
    training = warehouse.receipts.need("esci/training_set", "r1")
    assert training.data_version in text and warehouse.receipts.need("taxonomy", "r1").facts["revision"] in text
