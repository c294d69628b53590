"""Assignment in Spark equals the codebook's own encoding, whatever the partitions; nothing vanishes."""

import numpy as np
import pytest

from sid_pipeline.assignment.assign import NO_TEXT, assign, product_vectors
from sid_pipeline.rqvae import Codebook, TrainConfig, train


@pytest.fixture(scope="module")
def x():
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((20, 16))
    rows = centres[rng.integers(0, 20, 600)] + 0.3 * rng.standard_normal((600, 16))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def codebook(x) -> Codebook:
    return train(x, None, TrainConfig(codebook_size=16, latent_dim=8, steps=20, batch_size=128, threads=1))


@pytest.fixture(scope="module")
def frames(spark, x):
    ids = [f"p{i:04d}" for i in range(len(x))]
    products = spark.createDataFrame([(i,) for i in [*ids, "untold", "faulty"]], "product_id string")
    embedded = spark.createDataFrame([(i, f"h{i}") for i in [*ids, "faulty"]], "product_id string, text_hash string")
    store = spark.createDataFrame(
        [(f"h{i}", bytearray(row.tobytes()), None) for i, row in zip(ids, x, strict=True)]
        + [("hfaulty", None, "the vector is zero")],
        "text_hash string, vector binary, fault string",
    )
    return product_vectors(products, [embedded], [store])


@pytest.mark.parametrize("partitions", [1, 7])
def test_spark_gives_what_the_codebook_gives(frames, codebook, x, partitions):
    rows = assign(frames.repartition(partitions), codebook, [1.0], "2026-01-05").toArrow().to_pylist()
    found = {row["product_id"]: row for row in rows}
    expected = codebook.encode(x)
    for i, codes in enumerate(expected.tolist()):
        row = found[f"p{i:04d}"]
        assert row["codes"] == codes
        assert row["base_sid"] == row["published_sid"] == "_".join(map(str, codes))
        assert row["reason"] is None and row["distance"] >= 0
    assert {row["codebook_id"] for row in rows} == {codebook.id}


def test_products_without_a_vector_keep_a_row_with_the_reason(frames, codebook, x):
    rows = {r["product_id"]: r for r in assign(frames, codebook, [1.0], "2026-01-05").toArrow().to_pylist()}
    assert len(rows) == len(x) + 2
    assert (rows["untold"]["base_sid"], rows["untold"]["reason"]) == (None, NO_TEXT)
    assert (rows["faulty"]["codes"], rows["faulty"]["reason"]) == (None, "the vector is zero")
    assert rows["faulty"]["text_hash"] == "hfaulty"


def test_a_batch_of_unusable_rows_only(frames, codebook):
    only = frames.where("reason is not null").coalesce(1)
    rows = assign(only, codebook, [1.0], "2026-01-05").toArrow().to_pylist()
    assert [row["base_sid"] for row in rows] == [None, None]


def test_two_embedders_join_by_weight(spark, codebook, x):
    ids = ["a", "b"]
    halves = [x[:2, :8], x[:2, 8:]]
    products = spark.createDataFrame([(i,) for i in ids], "product_id string")
    embedded, stores = [], []
    for n, half in enumerate(halves):
        unit = half / np.linalg.norm(half, axis=1, keepdims=True)
        embedded.append(spark.createDataFrame([(i, f"{n}{i}") for i in ids], "product_id string, text_hash string"))
        stores.append(
            spark.createDataFrame(
                [(f"{n}{i}", bytearray(row.tobytes()), None) for i, row in zip(ids, unit, strict=True)],
                "text_hash string, vector binary, fault string",
            )
        )
    rows = assign(product_vectors(products, embedded, stores), codebook, [1.0, 3.0], "d").toArrow().to_pylist()
    units = [h / np.linalg.norm(h, axis=1, keepdims=True) for h in halves]
    joined = np.concatenate([units[0] * np.float32(0.5), units[1] * np.float32(np.sqrt(0.75))], axis=1)
    assert {r["product_id"]: r["codes"] for r in rows} == dict(zip(ids, codebook.encode(joined).tolist(), strict=True))
    assert {r["text_hash"] for r in rows} == {"0a+1a", "0b+1b"}
