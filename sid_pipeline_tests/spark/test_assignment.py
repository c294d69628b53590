"""Assignment in Spark: the codebook's own codes, whatever the partitions; nights that touch only what changed."""

import json
import subprocess
import sys
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from pyspark import cloudpickle

from sid_pipeline.assignment.assign import NO_TEXT, Assigner, Catalogue, code_batches, last_codewords
from sid_pipeline.assignment.collisions import FULL, Policy, PolicyError
from sid_pipeline.assignment.refresh import OlderSnapshot, inspect, look, refresh
from sid_pipeline.resources.tables import SliceMoved, Tables
from sid_pipeline.rqvae import Codebook, TrainConfig, train
from sid_pipeline.schemas import SEMANTIC_IDS

SHARE = Policy()
DAYS = [f"2026-01-{day:02d}" for day in range(5, 12)]
SLICE = {"flavour": "esci", "release": "r1"}


@pytest.fixture(scope="module")
def x():
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((20, 16))
    rows = centres[rng.integers(0, 20, 600)] + 0.3 * rng.standard_normal((600, 16))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def codebook(x) -> Codebook:
    return train(x, None, TrainConfig(codebook_size=16, latent_dim=8, steps=20, batch_size=128, threads=1))


@dataclass
class Shop:
    """A catalogue as plain dicts: product -> (source hash, text), text -> vector or fault."""

    spark: object
    products: dict = field(default_factory=dict)
    vectors: dict = field(default_factory=dict)

    def put(self, product, vector, text=None, source=None):
        text = text or f"text of {product}"
        self.products[product] = (source or f"source of {product}", text)
        if vector is not None:
            self.vectors[text] = vector

    def catalogue(self, partitions=2):
        frame = self.spark.createDataFrame
        products = [(p, source) for p, (source, _) in self.products.items()]
        texts = [(p, text) for p, (_, text) in self.products.items() if text != "none"]
        store = [
            (text, None, v) if isinstance(v, str) else (text, bytearray(v.tobytes()), None)
            for text, v in self.vectors.items()
        ]
        return Catalogue(
            frame(products, "product_id string, text_hash string").repartition(partitions),
            [frame(texts, "product_id string, text_hash string")],
            [frame(store, "text_hash string, vector binary, fault string").repartition(partitions)],
        )


@pytest.fixture
def shop(spark, x):
    shop = Shop(spark)
    for i in range(40):
        shop.put(f"p{i:02d}", x[i])
    return shop


@pytest.fixture
def tables(spark, tmp_path):
    return Tables(tmp_path / "tables", lambda: spark)


def rows_of(tables):
    return {row["product_id"]: row for row in tables.arrow(SEMANTIC_IDS, **SLICE).to_pylist()}


def night(tables, shop, codebook, day, policy=SHARE, partitions=2):
    assigner = Assigner(codebook, [1.0], policy, DAYS[day])
    return refresh(tables, shop.catalogue(partitions), assigner, **SLICE)


def sid_of(codebook, vector):
    return "_".join(map(str, codebook.encode(vector[None])[0].tolist()))


@pytest.mark.parametrize("partitions", [1, pytest.param(7, marks=pytest.mark.slow)])
def test_spark_gives_what_the_codebook_gives(spark, codebook, x, partitions):
    shop = Shop(spark)
    for i, row in enumerate(x):
        shop.put(f"p{i:03d}", row)
    with Assigner(codebook, [1.0], Policy(), DAYS[0]).assign_all(shop.catalogue(partitions)) as frame:
        rows = {row["product_id"]: row for row in frame.toArrow().to_pylist()}
    assert len(rows) == len(x)
    for i, codes in enumerate(codebook.encode(x).tolist()):
        row = rows[f"p{i:03d}"]
        assert row["codes"] == codes
        assert row["base_sid"] == row["published_sid"] == "_".join(map(str, codes))
        assert row["reason"] is None and row["distance"] >= 0 and row["change"] == "new"
    assert {row["codebook_id"] for row in rows.values()} == {codebook.id}


WORKER = """
import pickle, sys
run, batch = pickle.load(sys.stdin.buffer)
print(sum(len(coded) for coded in run(iter([batch]))), "torch" in sys.modules)
"""


def test_workers_load_no_torch(codebook, x):
    """What Spark sends to a worker, in a fresh process: Spark's own may have run something else before."""
    batch = pa.RecordBatch.from_pydict(
        {
            "text_hash": [f"t{i}" for i in range(20)],
            "vector_0": [row.tobytes() for row in x[:20]],
            "fault": [None] * 20,
        },
        schema=pa.schema([("text_hash", "string"), ("vector_0", "binary"), ("fault", "string")]),
    )
    sent = cloudpickle.dumps((code_batches(codebook, [1.0]), batch))
    done = subprocess.run([sys.executable, "-c", WORKER], input=sent, capture_output=True)
    assert done.stdout == b"20 False\n", done.stderr.decode()


def test_products_without_a_vector_wait_for_one_and_far_ones_are_flagged(tables, shop, codebook, x):
    shop.put("untold", None, text="none")
    shop.put("unembedded", None)
    shop.put("faulty", "the vector is zero")
    distance = codebook.quantise(x[:40]).distance
    codebook = Codebook(codebook.arrays, {**codebook.config, "ood_distance": float(np.median(distance))})
    assert night(tables, shop, codebook, 0).touched == 43
    rows = rows_of(tables)
    assert [(rows[p]["base_sid"], rows[p]["published_sid"], rows[p]["codes"], rows[p]["reason"])
            for p in ("untold", "unembedded", "faulty")] == [
        (None, None, None, NO_TEXT), (None, None, None, NO_TEXT), (None, None, None, "the vector is zero"),
    ]  # fmt: skip
    seen = inspect(
        tables.read(SEMANTIC_IDS, **SLICE), shop.catalogue().products, codebook.levels, codebook.codebook_size, DAYS[0]
    )
    assert (seen.active, seen.assigned, seen.unexplained, seen.bad_codes, seen.same_products) == (43, 40, 0, 0, True)
    flagged = {product for product, row in rows.items() if row["out_of_distribution"]}
    assert flagged == {f"p{i:02d}" for i in np.flatnonzero(distance > np.median(distance))} and len(flagged) == 20

    version = tables.version(SEMANTIC_IDS)
    shop.put("unembedded", x[200])
    assert night(tables, shop, codebook, 1).touched == 1, "the other two still have none"
    row = rows_of(tables)["unembedded"]
    assert (row["published_sid"], row["change"], row["reason"]) == (sid_of(codebook, x[200]), "new", None)
    assert tables.version(SEMANTIC_IDS) == version + 1


def test_two_embedders_join_by_weight(spark, codebook, x):
    ids = ["a", "b"]
    halves = [x[:2, :8], x[:2, 8:]]
    units = [h / np.linalg.norm(h, axis=1, keepdims=True) for h in halves]
    products = spark.createDataFrame([(i, i) for i in ids], "product_id string, text_hash string")
    embedded, stores = [], []
    for n, unit in enumerate(units):
        embedded.append(spark.createDataFrame([(i, f"{n}{i}") for i in ids], "product_id string, text_hash string"))
        vectors = [(f"{n}{i}", bytearray(row.tobytes()), None) for i, row in zip(ids, unit, strict=True)]
        stores.append(spark.createDataFrame(vectors, "text_hash string, vector binary, fault string"))
    assigner = Assigner(codebook, [1.0, 3.0], Policy("capacity", 1), DAYS[0])
    with assigner.assign_all(Catalogue(products, embedded, stores)) as frame:
        rows = frame.toArrow().to_pylist()
    joined = np.concatenate([units[0] * np.float32(0.5), units[1] * np.float32(np.sqrt(0.75))], axis=1)
    assert {r["product_id"]: r["codes"] for r in rows} == dict(zip(ids, codebook.encode(joined).tolist(), strict=True))
    assert {r["text_hash"] for r in rows} == {"0a+1a", "0b+1b"}


def test_nights_touch_what_changed_and_nothing_else(tables, shop, codebook, x):
    first = night(tables, shop, codebook, 0)
    assert (first.touched, first.whole) == (40, True)
    before, version = rows_of(tables), tables.version(SEMANTIC_IDS)
    assert tables.last_commit(SEMANTIC_IDS, **SLICE)["as_of_snapshot"] == DAYS[0]

    assert night(tables, shop, codebook, 1).touched == 0
    assert tables.version(SEMANTIC_IDS) == version, "nothing changed, so nothing is written"

    shop.put("p00", x[100], text="another text", source="another source")
    shop.put("p01", x[101], text="cleaned anew")
    shop.put("p02", x[2], source="another source, cleaned to the same text")
    shop.put("p90", x[90])
    del shop.products["p03"], shop.products["p04"]
    done = night(tables, shop, codebook, 2, partitions=5)
    assert (done.touched, done.whole) == (6, False)
    assert tables.version(SEMANTIC_IDS) == version + 1, "one commit"
    after = rows_of(tables)
    assert len(after) == 41
    touched = ("p00", "p01", "p02", "p03", "p04", "p90")
    assert {p: r for p, r in after.items() if p not in touched} == {p: r for p, r in before.items() if p not in touched}
    assert {p: (after[p]["change"], after[p]["as_of_snapshot"], after[p]["withdrawn_on"]) for p in touched} == {
        "p00": ("text_changed", DAYS[2], None),
        "p01": ("recleaned", DAYS[2], None),
        "p02": ("new", DAYS[0], None),
        "p03": ("withdrawn", DAYS[2], DAYS[2]),
        "p04": ("withdrawn", DAYS[2], DAYS[2]),
        "p90": ("new", DAYS[2], None),
    }
    assert after["p00"]["base_sid"] == sid_of(codebook, x[100])
    assert after["p90"]["published_sid"] == sid_of(codebook, x[90])
    assert {k: v for k, v in after["p02"].items() if k != "source_hash"} == {
        k: v for k, v in before["p02"].items() if k != "source_hash"
    }
    for product in ("p03", "p04"):
        assert after[product]["published_sid"] == before[product]["published_sid"]
    with pytest.raises(PolicyError, match=r"published with collision policy share, the settings say capacity=3"):
        night(tables, shop, codebook, 2, Policy("capacity", 3))
    recorded = json.loads(DeltaTable(tables.location(SEMANTIC_IDS)).history(1)[0]["userMetadata"])
    assert recorded == {
        "slice": SLICE, "as_of_snapshot": DAYS[2], "codebook_id": codebook.id, "collision_policy": "share",
    }  # fmt: skip

    shop.put("p03", x[3])
    shop.put("p04", x[104], text="back with another text")
    assert night(tables, shop, codebook, 3).touched == 2
    back = rows_of(tables)
    assert (back["p03"]["change"], back["p03"]["withdrawn_on"], back["p03"]["as_of_snapshot"]) == (
        "returned", None, DAYS[3],
    )  # fmt: skip
    assert {k: v for k, v in back["p03"].items() if k not in ("change", "as_of_snapshot")} == {
        k: v for k, v in before["p03"].items() if k not in ("change", "as_of_snapshot")
    }, "back with the same SID, figures and all"
    assert (back["p04"]["change"], back["p04"]["base_sid"]) == ("returned", sid_of(codebook, x[104]))
    seen = inspect(tables.read(SEMANTIC_IDS, **SLICE), shop.catalogue().products, 4, 16, DAYS[3])
    assert (seen.active, seen.withdrawn, seen.same_products, seen.changes) == (41, 0, True, {"returned": 2})
    assert seen.distinct == len({row["published_sid"] for row in back.values()})


@pytest.mark.slow
def test_another_codebook_assigns_everything_anew(tables, shop, codebook, x):
    night(tables, shop, codebook, 0)
    del shop.products["p00"]
    shop.put("p99", x[99])
    other = Codebook(codebook.arrays, {**codebook.config, "margin_bound": 0.5})
    done = night(tables, shop, other, 1)
    rows = rows_of(tables)
    assert (done.touched, done.whole) == (41, True)
    assert rows["p99"]["change"] == "new" and rows["p01"]["change"] == "recoded"
    gone = rows["p00"]
    assert (gone["change"], gone["withdrawn_on"], gone["published_sid"]) == ("withdrawn", DAYS[1], None)
    night(tables, shop, codebook, 2)
    assert rows_of(tables)["p00"] == {**gone, "codebook_id": codebook.id}, "a tombstone stays, whatever the codebook"
    assert {row["codebook_id"] for row in rows.values()} == {other.id}


def crowd(shop, x, names, at=0):
    """Products of one and the same vector, so that all have one base SID."""
    for name in names:
        shop.put(name, x[at], text=f"text of {name}")


def published(tables):
    return {product: row["published_sid"] for product, row in rows_of(tables).items()}


def test_disambiguate_numbers_the_products_of_a_sid_densely_and_never_moves_one(tables, shop, codebook, x):
    policy = Policy("disambiguate")
    shop.products.clear()
    crowd(shop, x, ["a", "b", "c", "d"])
    night(tables, shop, codebook, 0, policy)
    first, sid = published(tables), sid_of(codebook, x[0])
    assert sorted(first.values()) == [f"{sid}_{token}" for token in range(4)]

    del shop.products["a"]
    shop.put("b", x[300], text="b is another thing now")
    crowd(shop, x, ["e", "f"])
    night(tables, shop, codebook, 1, policy)
    second = published(tables)
    assert {p: second[p] for p in "acd"} == {p: first[p] for p in "acd"}, "nothing moves, a keeps its place"
    assert {second["e"], second["f"]} == {first["b"], f"{sid}_4"}, "the place that b left is taken first"
    assert second["b"] == f"{sid_of(codebook, x[300])}_0"

    assert len(set(second.values())) == 6


def test_capacity_moves_the_overflow_to_the_nearest_free_codeword_and_never_again(tables, shop, codebook, x):
    policy = Policy("capacity", 2)
    shop.products.clear()
    crowd(shop, x, [f"c{i}" for i in range(7)])
    night(tables, shop, codebook, 0, policy)
    first, sid = published(tables), sid_of(codebook, x[0])
    prefix = sid.rpartition("_")[0]
    nearest = last_codewords(codebook, x[:1])[0].tolist()
    assert sid == f"{prefix}_{nearest[0]}"
    expected = [f"{prefix}_{code}" for code in nearest[:4]]
    assert sorted(first.values()) == sorted([*expected[:3], *expected[:3], expected[3]])

    gone = next(p for p, s in first.items() if s == expected[1])
    del shop.products[gone]
    crowd(shop, x, ["n0", "n1", "n2"])
    night(tables, shop, codebook, 1, policy, partitions=5)
    second = published(tables)
    assert {p: second[p] for p in first} == first, "nothing moves, and the withdrawn one keeps its place"
    assert sorted(second[p] for p in ("n0", "n1", "n2")) == sorted(
        [expected[3], *[f"{prefix}_{nearest[4]}"] * 2]
    )  # fmt: skip

    seen = inspect(tables.read(SEMANTIC_IDS, **SLICE), shop.catalogue().products, 4, 16, DAYS[1])
    assert seen.bad_codes == 0 and seen.same_products


@pytest.mark.slow
@pytest.mark.parametrize("policy", [Policy("disambiguate"), Policy("capacity", 1)], ids=str)
def test_a_night_without_its_vector_takes_no_place_from_a_product(tables, shop, codebook, x, policy):
    shop.products.clear()
    crowd(shop, x, ["a", "b"])
    night(tables, shop, codebook, 0, policy)
    first = published(tables)
    shop.put("a", None, text="none")
    crowd(shop, x, ["c"])
    night(tables, shop, codebook, 1, policy)
    row = rows_of(tables)["a"]
    assert (row["base_sid"], row["published_sid"], row["reason"]) == (None, first["a"], NO_TEXT)
    slice = tables.read(SEMANTIC_IDS, **SLICE)
    seen = inspect(slice, shop.catalogue().products, 4, 16, DAYS[1])
    assert (seen.active, seen.assigned, seen.distinct, seen.unexplained) == (3, 2, 2, 0)
    there = look(slice)
    assert (there.assigned, there.unassigned, there.withdrawn) == (2, 1, 0)
    assert there.fingerprint == seen.fingerprint and there.policies == [str(policy)]
    assert len({*published(tables).values()}) == 3, "its place stays its own"
    version = tables.version(SEMANTIC_IDS)
    assert night(tables, shop, codebook, 1, policy).touched == 0 and tables.version(SEMANTIC_IDS) == version
    crowd(shop, x, ["a"])
    night(tables, shop, codebook, 2, policy)
    assert {p: published(tables)[p] for p in first} == first


@pytest.mark.slow
def test_what_found_no_room_is_placed_when_there_is_some(tables, shop, codebook, x):
    policy = Policy("capacity", 1)
    shop.products.clear()
    crowd(shop, x, [f"c{i:02d}" for i in range(18)])  # under a prefix of 16 places
    night(tables, shop, codebook, 0, policy)
    before = rows_of(tables)
    full = [product for product, row in before.items() if row["reason"] == FULL]
    assert len(full) == 2 and all(before[product]["published_sid"] is None for product in full)
    version = tables.version(SEMANTIC_IDS)
    assert night(tables, shop, codebook, 1, policy).touched == 0 and tables.version(SEMANTIC_IDS) == version
    mover = next(product for product in before if product not in full)
    shop.put(mover, x[300], text="another thing now")
    assert night(tables, shop, codebook, 2, policy).touched == 2
    after = rows_of(tables)
    (placed,) = [product for product in full if after[product]["published_sid"]]
    assert after[placed]["published_sid"] == before[mover]["published_sid"]
    assert (after[placed]["reason"], after[placed]["change"], after[placed]["as_of_snapshot"]) == (None, "new", DAYS[2])
    (still,) = set(full) - {placed}
    assert after[still] == before[still]


def test_an_older_snapshot_is_refused_whatever_the_receipts_say(tables, shop, codebook):
    night(tables, shop, codebook, 2)
    del shop.products["p00"]
    with pytest.raises(OlderSnapshot, match=DAYS[2]):
        night(tables, shop, codebook, 1)
    assert rows_of(tables)["p00"]["withdrawn_on"] is None
    assigner = Assigner(codebook, [1.0], SHARE, DAYS[1])
    assert refresh(tables, shop.catalogue(), assigner, **SLICE, force=True).touched == 1


@pytest.mark.slow
@pytest.mark.parametrize("policy", [Policy("disambiguate"), Policy("capacity", 1)], ids=str)
def test_what_is_published_does_not_depend_on_partitions(spark, tmp_path, codebook, x, policy):
    shop = Shop(spark)
    for i in range(60):
        shop.put(f"p{i:02d}", x[i % 12], text=f"t{i}")
    found = []
    for partitions in (1, 6):
        tables = Tables(tmp_path / str(partitions), lambda: spark)
        night(tables, shop, codebook, 0, policy, partitions)
        found.append(published(tables))
    assert found[0] == found[1]
    assert len(set(found[0].values())) == 60


@pytest.mark.slow
def test_rows_worked_out_from_an_older_state_are_not_written(tables, shop, codebook, x):
    night(tables, shop, codebook, 0)
    since = tables.version(SEMANTIC_IDS)
    current = tables.read(SEMANTIC_IDS, version=since, **SLICE)
    shop.put("p90", x[90])
    assigner = Assigner(codebook, [1.0], Policy(), DAYS[1])
    with assigner.assign_changed(shop.catalogue(), current) as (rows, touched):
        assert touched == 1
        shop.put("p91", x[91])
        night(tables, shop, codebook, 1)  # another process was quicker
        with pytest.raises(SliceMoved, match=rf"written by another process \(version {since + 1}\)"):
            tables.merge(SEMANTIC_IDS, rows, metadata={}, since=since, **SLICE)
    assert {"p90", "p91"} <= set(rows_of(tables))
