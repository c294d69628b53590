"""Delta tables: one commit per write, slices replaced alone, reads without Spark, two processes at once."""

import dataclasses
import multiprocessing

import pytest

from sid_pipeline.keys import KeyNotAllowed
from sid_pipeline.resources.tables import MissingSlice, Tables, _condition
from sid_pipeline.schemas import ALL_TABLES, CLEANED_ATTRIBUTES, OFFERS, RELEASES

DDL = OFFERS.ddl(without=("snapshot",))


@pytest.fixture
def tables(spark, tmp_path):
    return Tables(tmp_path / "tables", lambda: spark)


def offers(spark, *rows):
    return spark.createDataFrame([(p, r, True, float(n)) for p, r, n in rows], DDL)


def test_a_slice_is_replaced_alone(spark, tables):
    assert tables.replace(OFFERS, offers(spark, ("a", "x", 1), ("b", "x", 2)), snapshot="2026-01-05") == 2
    assert tables.replace(OFFERS, offers(spark, ("c", "x", 3)), snapshot="2026-01-06") == 1
    assert tables.replace(OFFERS, offers(spark, ("d", "x", 4)), snapshot="2026-01-05") == 1
    assert tables.arrow(OFFERS, ["product_id"], snapshot="2026-01-05")["product_id"].to_pylist() == ["d"]
    assert tables.arrow(OFFERS, ["product_id"], snapshot="2026-01-06")["product_id"].to_pylist() == ["c"]
    assert [row.product_id for row in tables.read(OFFERS, snapshot="2026-01-06").collect()] == ["c"]
    created = 1
    assert tables.version(OFFERS) == created + 2, "one commit a write"


def test_an_empty_slice_empties(spark, tables):
    tables.replace(OFFERS, offers(spark, ("a", "x", 1)), snapshot="2026-01-05")
    assert tables.replace(OFFERS, offers(spark).limit(0), snapshot="2026-01-05") == 0
    assert len(tables.arrow(OFFERS, snapshot="2026-01-05")) == 0


def test_the_fingerprint_follows_content_not_order(spark, tables):
    def version(*rows):
        tables.replace(OFFERS, offers(spark, *rows), snapshot="2026-01-05")
        return tables.fingerprint(OFFERS, ["product_id", "popularity"], snapshot="2026-01-05")

    first = version(("a", "x", 1), ("b", "x", 2))
    assert version(("b", "x", 2), ("a", "x", 1)) == first
    assert version(("a", "x", 1), ("b", "x", 3)) != first


def test_wrong_columns_and_slices_are_named(spark, tables):
    with pytest.raises(ValueError, match="lacks \\['popularity'\\]"):
        tables.replace(OFFERS, offers(spark, ("a", "x", 1)).drop("popularity"), snapshot="2026-01-05")
    with pytest.raises(ValueError, match="exactly"):
        tables.replace(OFFERS, offers(spark, ("a", "x", 1)))
    with pytest.raises(ValueError, match="snapshot"):
        tables.replace(OFFERS, offers(spark, ("a", "x", 1)), snapshot="x' OR '1'='1")


def test_a_table_of_an_earlier_version_gets_its_new_columns(spark, tables):
    earlier = dataclasses.replace(OFFERS, columns=tuple(c for c in OFFERS.columns if c.name != "popularity"))
    tables.replace(earlier, offers(spark, ("a", "x", 1)).drop("popularity"), snapshot="2026-01-05")
    tables.replace(OFFERS, offers(spark, ("b", "x", 2)), snapshot="2026-01-06")
    rows = tables.arrow(OFFERS).sort_by("product_id").to_pylist()
    assert [(row["product_id"], row["popularity"]) for row in rows] == [("a", None), ("b", 2.0)]


def test_a_null_in_a_required_column_is_refused(spark, tables):
    bad = spark.createDataFrame([(None, "x", True, 1.0)], DDL)
    with pytest.raises(Exception, match=r"(?i)null"):
        tables.replace(OFFERS, bad, snapshot="2026-01-05")


def test_a_table_never_written_is_missing_for_spark_and_empty_for_arrow(tables):
    with pytest.raises(MissingSlice, match="releases"):
        tables.read(RELEASES)
    assert len(tables.arrow(RELEASES)) == 0


def test_every_spec_describes_its_columns_and_can_be_created(tables):
    for spec in ALL_TABLES.values():
        assert spec.description.endswith(".")
        assert all(column.description for column in spec.columns)
        assert set(spec.key) | set(spec.partition_by) <= set(spec.column_names)
        assert spec.arrow().names == spec.column_names
    tables.create(RELEASES)
    assert tables.version(RELEASES) == 0


def append_from_own_process(root, retailer):
    from sid_pipeline.resources.spark import spark_session
    from sid_pipeline.settings import SparkSettings

    session = spark_session(SparkSettings(master="local[1]", driver_memory="512m"))
    tables = Tables(root, lambda: session)
    for i in range(3):
        tables.append(OFFERS, offers(session, (f"p{i}", retailer, i)), snapshot="2026-01-05")
    session.stop()


@pytest.mark.slow
def test_two_processes_lose_nothing(tables):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=append_from_own_process, args=(tables.root, name)) for name in ("x", "y")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(timeout=300)
        assert writer.exitcode == 0
    found = tables.arrow(OFFERS, ["product_id", "retailer_id"], snapshot="2026-01-05").to_pylist()
    assert sorted((row["retailer_id"], row["product_id"]) for row in found) == [
        (r, f"p{i}") for r in ("x", "y") for i in range(3)
    ]


def test_a_slice_is_picked_by_plain_keys_and_by_ids_made_of_them():
    assert _condition(CLEANED_ATTRIBUTES, {"cleaner_id": "rules-2+grocery_1"}) == "cleaner_id = 'rules-2+grocery_1'"
    for odd in ("x' OR '1' = '1", "a/b", "..", "a+", "a+../b", ""):
        with pytest.raises(KeyNotAllowed):
            _condition(CLEANED_ATTRIBUTES, {"cleaner_id": odd})


def test_what_all_rows_of_a_slice_share_is_read_from_the_log(spark, tables):
    tables.replace(OFFERS, offers(spark, ("a", "x", 1), ("b", "x", 2)).repartition(2), snapshot="2026-01-05")
    tables.replace(OFFERS, offers(spark, ("a", "y", 1), ("b", "z", 2)), snapshot="2026-01-06")
    tables.replace(OFFERS, offers(spark, ("a", "y" * 40, 1)), snapshot="2026-01-07")

    def only(day, *columns, version=None):
        return tables.the_only(OFFERS, columns, tables.version(OFFERS) if version is None else version, snapshot=day)

    assert only("2026-01-05", "retailer_id") == {"retailer_id": "x"}
    assert only("2026-01-05", "retailer_id", "product_id") is None
    assert only("2026-01-06", "retailer_id") is None
    assert only("2026-01-07", "retailer_id") is None, "the log cuts long texts off"
    assert only("2026-01-08", "retailer_id") is None
    assert only("2026-01-05", "retailer_id", version=0) is None
