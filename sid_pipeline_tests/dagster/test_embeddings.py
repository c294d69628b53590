"""The embedding assets over a tiny model: what a night pays for, faults, pinned embedders, supplied vectors, Spark."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sid_pipeline.assets.embeddings import embedding_assets
from sid_pipeline.assets.flavours import Flavour, embedding_receipts
from sid_pipeline.embedders import current_id
from sid_pipeline.embedding.model import Embedder, Encoded
from sid_pipeline.embedding.texts import text_hash
from sid_pipeline.embedding.vectors import matrix
from sid_pipeline.receipts import MissingInput, Receipt
from sid_pipeline.releases import SERVED, need_release
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import EMBEDDED_PRODUCTS, EMBEDDINGS, PRODUCTS, RELEASES
from sid_pipeline.settings import Settings

DAY1, DAY2, DAY3 = "2026-01-05", "2026-01-06", "2026-01-07"
NIGHT1 = {"p1": "rye bread", "p2": "white bread", "p3": "white bread", "p4": "milk"}
NIGHT2 = {**NIGHT1, "p2": "soft white bread", "p5": "cheese"}


def make(tmp_path: Path, embedder: dict[str, Any], **more: Any) -> Warehouse:
    settings = Settings.model_validate(
        {
            "root": tmp_path,
            "source": {"products": "products.csv"},
            "embedders": {"esci": {"device": "cpu", **embedder}},
            "flavours": {"esci": {"description": "test", "embedders": {"esci": 1.0}}},
            **more,
        }
    )
    return Warehouse(settings)


def night(warehouse: Warehouse, day: str, titles: dict[str, str]) -> None:
    """Products of a day, as the catalogue's asset leaves them."""
    rows = [
        {"product_id": p, "title": t, "brand": None, "size": None, "description": None, "price": None,
         "category": None, "text_hash": t, "source_file": "f", "source_row": 1}
        for p, t in titles.items()
    ]  # fmt: skip
    frame = warehouse.spark.createDataFrame(rows, PRODUCTS.ddl(without=("snapshot",)))
    warehouse.tables.replace(PRODUCTS, frame, snapshot=day)
    warehouse.receipts.put(Receipt("products", day, {}, json.dumps(titles)))


def materialise(warehouse: Warehouse, day: str, raise_on_error: bool = True, **tags: str) -> Any:
    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(
            embedding_assets(warehouse.settings),
            instance=instance,
            partition_key=day,
            resources={"warehouse": warehouse},
            raise_on_error=raise_on_error,
            tags=tags,
        )


def metadata(result: Any) -> dict[str, Any]:
    (event,) = result.asset_materializations_for_node("esci_embeddings")
    return {name: value.value for name, value in event.metadata.items()}


def vectors_of(warehouse: Warehouse, day: str, identity: str) -> dict[str, bytes | None]:
    """product_id -> vector, with every key of the store checked to be there once."""
    tables = warehouse.tables
    hashes = tables.arrow(
        EMBEDDED_PRODUCTS, ["product_id", "text_hash"], embedder_id=identity, snapshot=day
    ).to_pylist()
    store = tables.arrow(EMBEDDINGS, ["text_hash", "vector"], embedder_id=identity).to_pylist()
    found = {row["text_hash"]: row["vector"] for row in store}
    assert len(found) == len(store), "a text is in the store once"
    return {row["product_id"]: found[row["text_hash"]] for row in hashes}


def test_a_night_encodes_the_changed_distinct_texts_only(spark, tmp_path, tiny_bert):
    warehouse = make(tmp_path, {"model": str(tiny_bert)})
    night(warehouse, DAY1, NIGHT1)
    first = metadata(materialise(warehouse, DAY1))
    assert (first["encoded now"], first["distinct texts"], first["dagster/row_count"]) == (3, 3, 4)
    assert 0 <= first["padding share"] < 1
    shown = first["texts and nearest products (among 5,000)"]
    assert "white bread" in shown and "embedded (raw text)" in shown
    night(warehouse, DAY2, NIGHT2)
    assert metadata(materialise(warehouse, DAY2))["encoded now"] == 2
    again = metadata(materialise(warehouse, DAY2))
    assert again["unchanged"] is True
    identity = current_id(warehouse, "esci")
    found = vectors_of(warehouse, DAY2, identity)
    expected = Embedder.load(warehouse.settings.embedders["esci"], tmp_path).encode(list(NIGHT2.values()))
    got = np.stack([np.frombuffer(found[product], "<f4") for product in NIGHT2])
    assert np.allclose(got, expected, atol=1e-6)
    assert not list((warehouse.state / "spool").iterdir())


def test_an_unchanged_night_takes_over_the_texts_of_the_night_before(spark, tmp_path, tiny_bert, monkeypatch):
    warehouse = make(tmp_path, {"model": str(tiny_bert)})
    night(warehouse, DAY1, NIGHT1)
    first = metadata(materialise(warehouse, DAY1))
    night(warehouse, DAY2, NIGHT1)
    with monkeypatch.context() as patch:
        patch.setattr("sid_pipeline.assets.embeddings._embed_all", lambda *_: pytest.fail("it was done again"))
        second = metadata(materialise(warehouse, DAY2))
    assert (first["encoded now"], second["encoded now"], second["unchanged"]) == (3, 0, False)
    assert second["dagster/row_count"] == 4 and "white bread" in second["texts and nearest products (among 5,000)"]
    identity = current_id(warehouse, "esci")
    assert vectors_of(warehouse, DAY2, identity) == vectors_of(warehouse, DAY1, identity)
    then, now = (warehouse.receipts.need("esci_embeddings", day) for day in (DAY1, DAY2))
    assert now.data_version == then.data_version and now.facts["encoded_now"] == 0
    # A vector that the store has lost is made again, and not the loss taken over.
    gone = spark.createDataFrame([(text_hash("milk"),)], "text_hash string")
    warehouse.tables.remove(EMBEDDINGS, gone, embedder_id=identity)
    night(warehouse, DAY3, NIGHT1)
    assert metadata(materialise(warehouse, DAY3))["encoded now"] == 1
    assert vectors_of(warehouse, DAY3, identity).keys() == NIGHT1.keys()


def test_a_faulty_vector_is_listed_with_its_products_and_tried_again(spark, tmp_path, tiny_bert, monkeypatch):
    warehouse = make(tmp_path, {"model": str(tiny_bert)})
    night(warehouse, DAY1, NIGHT1)
    whole = Embedder.encode_counted

    def broken(self: Embedder, texts: list[str]) -> Encoded:
        encoded = whole(self, texts)
        encoded.vectors[texts.index("white bread")] = np.nan
        return encoded

    with monkeypatch.context() as patch:
        patch.setattr(Embedder, "encode_counted", broken)
        first = metadata(materialise(warehouse, DAY1))
    assert first["products without a usable vector"] == 2
    listed = first["without a usable vector (tried again with the next snapshot)"]
    assert "p2" in listed and "p3" in listed and "NaN" in listed and "p1" not in listed
    identity = current_id(warehouse, "esci")
    found = vectors_of(warehouse, DAY1, identity)
    assert found["p2"] is None and found["p3"] is None and found["p1"] is not None
    before = warehouse.receipts.need("esci_embeddings", DAY1).data_version
    night(warehouse, DAY2, NIGHT1)
    second = metadata(materialise(warehouse, DAY2))
    assert (second["encoded now"], second["products without a usable vector"]) == (1, 0)
    assert all(vectors_of(warehouse, DAY2, identity).values())
    assert warehouse.receipts.need("esci_embeddings", DAY2).data_version != before, "readers see that it changed"


def test_a_night_encodes_for_every_embedder_that_a_release_in_use_pins(spark, tmp_path, tiny_bert):
    warehouse = make(tmp_path, {"model": str(tiny_bert)})
    night(warehouse, DAY1, NIGHT1)
    materialise(warehouse, DAY1)
    old = current_id(warehouse, "esci")
    pin(warehouse, "r1", {"esci": old})
    changed = make(tmp_path, {"model": str(tiny_bert), "prompt": "query : "})
    new = current_id(changed, "esci")
    assert new != old
    flavour = Flavour("esci", changed.settings.flavours["esci"], changed.settings)
    release = need_release(changed.tables, "r1")
    # Made before the release was pinned and by today's settings alone, a snapshot is no use for the release.
    night(changed, DAY2, NIGHT2)
    result = metadata(materialise(changed, DAY2))
    assert old in result["also encoded for releases in use"]
    versions = changed.receipts.need("esci_embeddings", DAY2).facts["embedder_ids"]
    assert set(versions) == {old, new}
    assert [r.data_version for r in embedding_receipts(changed, flavour, release, DAY2)] == [versions[old]]
    assert vectors_of(changed, DAY2, old)["p1"] != vectors_of(changed, DAY2, new)["p1"]
    # A release that is pinned to what is gone holds back nobody; it is named, and refused for itself.
    pin(warehouse, "r2", {"esci": "lost-0123456789ab"})
    night(changed, DAY1, NIGHT2)
    gone = metadata(materialise(changed, DAY1))["embedders that are gone"]
    assert "r2" in gone and "lost-0123456789ab" in gone
    with pytest.raises(MissingInput, match="never meet in one codebook"):
        embedding_receipts(changed, flavour, need_release(changed.tables, "r2"), DAY1)


def pin(warehouse: Warehouse, release: str, embedder_ids: dict[str, str]) -> None:
    row = {
        name: None for name in RELEASES.column_names if name != "release"
    } | {
        "state": SERVED, "taxonomy_source": "t", "taxonomy_revision": "1", "training_snapshot": DAY1,
        "embedder_ids": json.dumps(embedder_ids), "created_at": datetime.now(timezone.utc),
    }  # fmt: skip
    frame = warehouse.spark.createDataFrame([row], RELEASES.ddl(without=("release",)))
    warehouse.tables.replace(RELEASES, frame, release=release)


@pytest.mark.slow
def test_the_weights_of_a_pinned_embedder_must_be_what_they_were(spark, tmp_path, tiny_bert):
    import shutil

    shutil.copytree(tiny_bert, tmp_path / "model")
    warehouse = make(tmp_path, {"model": "./model"})
    night(warehouse, DAY1, NIGHT1)
    materialise(warehouse, DAY1)
    pin(warehouse, "r1", {"esci": current_id(warehouse, "esci")})
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x07")
    night(warehouse, DAY2, NIGHT2)
    gone = metadata(materialise(warehouse, DAY2))["embedders that are gone"]
    assert "are not what they were" in gone and "r1" in gone


@pytest.mark.parametrize("as_bytes", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_supplied_vectors_are_judged_row_by_row(spark, tmp_path, as_bytes):
    titles = {f"p{i}": f"product {i}" for i in range(8)}
    good = {"p0": [3.0, 4.0, 0.0], "p1": [0.0, 2.0, 0.0], "p6": [3.0, 4.0, 0.0]}
    bad = [("p2", [1.0, float("nan"), 0.0]), ("p3", [0.0] * 3), ("p4", [1.0, 2.0]), ("p5", [1.0, 0.0, 0.0])]
    rows = [*good.items(), *bad, ("p5", [0.0, 1.0, 0.0]), ("p1", good["p1"]), ("unknown", [1.0, 0.0, 0.0])]
    write_vectors(tmp_path, rows, as_bytes)
    embedder = {"vectors": "vectors-{snapshot}.parquet", "dimension": 3, "revision": "clip-1"}
    warehouse = make(tmp_path, embedder)
    night(warehouse, DAY1, titles)
    first = metadata(materialise(warehouse, DAY1))
    identity = current_id(warehouse, "esci")
    found = vectors_of(warehouse, DAY1, identity)
    assert set(found) == set(titles)
    assert {p for p, vector in found.items() if vector} == set(good)
    assert np.allclose(np.frombuffer(found["p0"], "<f4"), [0.6, 0.8, 0]) and found["p0"] == found["p6"]
    listed = first["without a usable vector (tried again with the next snapshot)"]
    for product, words in {
        "p2": "NaN", "p3": "zero", "p4": "2 values where 3 are expected", "p5": "several vectors", "p7": "no row",
    }.items():  # fmt: skip
        assert any(product in line and words in line for line in listed.splitlines()), (product, words)
    assert first["products without a usable vector"] == 5
    mended = [*good.items(), ("p2", [1.0, 0.0, 0.0]), ("p4", [0.0, 0.0, 9.0])]
    write_vectors(tmp_path, mended, as_bytes, DAY2)
    night(warehouse, DAY2, {p: t for p, t in titles.items() if p in dict(mended)})
    second = metadata(materialise(warehouse, DAY2))
    assert (second["encoded now"], second["products without a usable vector"]) == (2, 0)
    assert all(vectors_of(warehouse, DAY2, identity).values())


def test_vectors_of_another_revision_or_none_hold_back_their_release_alone(spark, tmp_path, tiny_bert):
    own = {"vectors": "vectors-{snapshot}.parquet", "dimension": 3}
    warehouse = make(tmp_path, {**own, "revision": "model-1"})
    night(warehouse, DAY1, {"p1": "tea"})
    write_vectors(tmp_path, [("p1", [3.0, 4.0, 0.0])], as_bytes=True)
    materialise(warehouse, DAY1)
    old = current_id(warehouse, "esci")
    pin(warehouse, "r1", {"esci": old})
    # The same place holds another model's vectors: they are not taken for the release's.
    changed = make(tmp_path, {**own, "revision": "model-2"})
    night(changed, DAY2, {"p1": "tea"})
    write_vectors(tmp_path, [("p1", [0.0, 0.0, 1.0])], as_bytes=True, day=DAY2)
    gone = metadata(materialise(changed, DAY2))["embedders that are gone"]
    assert "r1" in gone and "model-1" in gone and "model-2" in gone
    assert set(changed.receipts.need("esci_embeddings", DAY2).facts["embedder_ids"]) == {current_id(changed, "esci")}
    assert vectors_of(changed, DAY1, old).keys() == {"p1"} and not vectors_of(changed, DAY2, old)
    # A model in their place, and nothing is delivered any more: the night goes on for the model.
    moved = make(tmp_path, {"model": str(tiny_bert)})
    night(moved, DAY3, {"p1": "tea"})
    gone = metadata(materialise(moved, DAY3))["embedders that are gone"]
    assert f"the vectors of {old} cannot be had" in gone and f"vectors-{DAY3}.parquet" in gone


def write_vectors(folder: Path, rows: list[tuple[str, list[float]]], as_bytes: bool, day: str = DAY1) -> None:
    products, vectors = zip(*rows, strict=True)
    column = pa.array([np.array(v, "<f4").tobytes() for v in vectors]) if as_bytes else pa.array(vectors)
    pq.write_table(pa.table({"product_id": products, "vector": column}), folder / f"vectors-{day}.parquet")


def test_a_table_of_vectors_that_cannot_be_used_is_one_sentence(spark, tmp_path):
    warehouse = make(tmp_path, {"vectors": "vectors-{snapshot}.parquet", "dimension": 3, "revision": "clip-1"})
    night(warehouse, DAY1, NIGHT1)
    pq.write_table(pa.table({"sku": ["p1"], "vector": ["text"]}), tmp_path / f"vectors-{DAY1}.parquet")
    result = materialise(warehouse, DAY1, raise_on_error=False)
    told = result.failure_data_for_node("esci_embeddings").user_failure_data.description
    assert "no column product_id" in told and "sku" in told


def test_the_spark_runner_gives_the_vectors_of_the_local_one(spark, tmp_path, tiny_bert):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    local = make(tmp_path / "a", {"model": str(tiny_bert)})
    workers = make(tmp_path / "b", {"model": str(tiny_bert)}, embedding={"runner": "spark"})
    for warehouse in (local, workers):
        night(warehouse, DAY1, NIGHT2)
        assert metadata(materialise(warehouse, DAY1))["encoded now"] == 5
    identity = current_id(local, "esci")
    assert identity == current_id(workers, "esci")
    a, b = (vectors_of(warehouse, DAY1, identity) for warehouse in (local, workers))
    assert a.keys() == b.keys()
    assert np.allclose(*(matrix(pa.array([v[p] for p in NIGHT2], pa.binary())) for v in (a, b)), atol=1e-6)


@pytest.mark.slow
def test_retention_keeps_what_is_referred_to_and_nothing_else(spark, tmp_path, tiny_bert):
    from sid_pipeline.operations import retention

    warehouse = make(tmp_path, {"model": str(tiny_bert)}, retention={"snapshots": 1})
    tables = warehouse.tables
    night(warehouse, DAY1, {"p1": "rye bread", "p2": "milk"})
    night(warehouse, DAY2, {"p1": "rye bread", "p2": "cheese"})
    for day in (DAY1, DAY2):
        materialise(warehouse, day)
    old = current_id(warehouse, "esci")
    changed = make(tmp_path, {"model": str(tiny_bert), "prompt": "query : "}, retention={"snapshots": 1})
    materialise(changed, DAY2)
    new = current_id(changed, "esci")
    kept = vectors_of(changed, DAY2, new)

    def take_away() -> None:
        with dg.DagsterInstance.ephemeral() as instance:
            assert retention.execute_in_process(instance=instance, resources={"warehouse": changed}).success

    pin(warehouse, "r1", {"esci": old})  # trained on DAY1
    take_away()
    assert tables.slices(EMBEDDED_PRODUCTS) == sorted(
        (i, d) for i in (old, new) for d in (DAY1, DAY2) if (i, d) != (new, DAY1)
    )
    assert len(vectors_of(changed, DAY1, old)) == 2, "what a release in use was trained on stays"
    retire = tables.arrow(RELEASES, release="r1").to_pylist()[0] | {"state": "retired"}
    tables.replace(RELEASES, spark.createDataFrame([retire], RELEASES.ddl()).drop("release"), release="r1")
    take_away()
    assert tables.slices(EMBEDDED_PRODUCTS) == [(new, DAY2)] and tables.slices(EMBEDDINGS) == [(new,)]
    assert vectors_of(changed, DAY2, new) == kept
    assert changed.receipts.get("esci_embeddings", DAY1) is None and changed.receipts.get("esci_embeddings", DAY2)
    night(changed, DAY2, {"p1": "rye bread", "p3": "loaf"})
    materialise(changed, DAY2)
    assert len(tables.arrow(EMBEDDINGS, embedder_id=new)) == 3
    take_away()
    assert len(tables.arrow(EMBEDDINGS, embedder_id=new)) == 2 == len(vectors_of(changed, DAY2, new))
