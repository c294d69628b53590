"""Semantic IDs of a snapshot's products with a frozen codebook: of all of them, or of those that changed.

`assign_all` gives every row of a slice of SEMANTIC_IDS, `assign_changed` those that differ from the rows before, among
them tombstones of withdrawn products. The base SID of a product depends on its vector and the codebook alone (see
`rqvae.Codebook`), so codes are worked out once per distinct text, in Arrow batches, by numpy in the workers, and then
joined to the products: vectors are not moved between workers unless a flavour joins several embeddings. A product
without a usable vector keeps a row with the reason and no SID.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sid_pipeline.assignment.collisions import Policy, prefix_of, publish
from sid_pipeline.embedding.vectors import join, matrix
from sid_pipeline.resources.parquet import Batches
from sid_pipeline.rqvae import Codebook
from sid_pipeline.schemas import SEMANTIC_IDS
from sid_pipeline.sids import spelt

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

SLICE = ("flavour", "release")
NO_TEXT = "no text of this product was embedded"
# What the codebook says of a text; the columns that a product takes over from it.
CODED = ("base_sid", "codes", "distance", "margin", "out_of_distribution")
CODED_SCHEMA = pa.schema(
    [
        SEMANTIC_IDS.arrow().field("text_hash"),
        *[SEMANTIC_IDS.arrow().field(name) for name in CODED],
        ("fault", "string"),
    ]
)
CODED_DDL = ", ".join(
    [f"{c.name} {c.type}" for name in ("text_hash", *CODED) for c in SEMANTIC_IDS.columns if c.name == name]
    + ["fault string"]
)
STORED = ("text_hash", "vector", "fault")
# Up to so many texts are sent to every worker to pick their vectors, instead of moving all vectors to the texts.
FEW = 500_000


@dataclass(frozen=True)
class Catalogue:
    """A snapshot's products and where their vectors are.

    Attributes:
        products: product_id, text_hash (of the source's text), and whatever else is to be kept.
        embedded: per embedder its rows of EMBEDDED_PRODUCTS for the snapshot (product_id, text_hash).
        stores: per embedder its rows of EMBEDDINGS (text_hash, vector, fault); a text at most once.
        mapped: what a function makes, in the workers, of `STORED` of the n-th store's rows, as a DDL says it; of all
            rows, or of those whose text_hash is in an array that every worker can hold. None: Spark reads the store.
    """

    products: DataFrame
    embedded: Sequence[DataFrame]
    stores: Sequence[DataFrame]
    mapped: Callable[[int, Batches, str, pa.Array | None], DataFrame] | None = None

    def texts(self) -> DataFrame:
        """`products` with source_hash (their own text_hash), hash_0, hash_1, ... of the texts that were embedded,
        null where there is none, and text_hash, those joined by '+'."""
        from pyspark.sql import functions as F

        frame = self.products.withColumnRenamed("text_hash", "source_hash")
        for i, texts in enumerate(self.embedded):
            frame = frame.join(texts.select("product_id", F.col("text_hash").alias(f"hash_{i}")), "product_id", "left")
        hashes = [F.coalesce(f"hash_{i}", F.lit("")) for i in range(len(self.embedded))]
        return frame.withColumn("text_hash", F.concat_ws("+", *hashes))

    def with_vectors(self, texts: DataFrame) -> DataFrame:
        """Rows with hash_0, ... with vector_0, ... in their place, and `fault`, null when all vectors are there."""
        from pyspark.sql import functions as F

        faults = []
        for i, store in enumerate(self.stores):
            vectors = store.select(
                F.col("text_hash").alias(f"hash_{i}"),
                F.col("vector").alias(f"vector_{i}"),
                F.when(F.col("vector").isNull(), F.coalesce("fault", F.lit(NO_TEXT))).alias(f"fault_{i}"),
                F.lit(True).alias(f"found_{i}"),
            )
            texts = texts.join(vectors, f"hash_{i}", "left")
            faults.append(F.when(F.col(f"found_{i}").isNull(), F.lit(NO_TEXT)).otherwise(F.col(f"fault_{i}")))
        spent = [f"{name}_{i}" for i in range(len(self.stores)) for name in ("hash", "fault", "found")]
        return texts.withColumn("fault", F.coalesce(*faults)).drop(*spent)


@dataclass(frozen=True)
class Assigner:
    """What turns a snapshot's vectors into SIDs.

    Attributes:
        codebook: the release's.
        weights: one per embedder of the flavour, in the order their vectors are joined.
        policy: what is published where products share a SID.
        as_of_snapshot: the snapshot that the catalogue is of.
    """

    codebook: Codebook
    weights: Sequence[float]
    policy: Policy
    as_of_snapshot: str

    @contextmanager
    def assign_all(self, catalogue: Catalogue, before: DataFrame | None = None) -> Iterator[DataFrame]:
        """All rows of a slice from the start: the columns of SEMANTIC_IDS without flavour and release.

        Args:
            before: rows of another codebook that these replace; their products are marked as recoded, and those that
                the catalogue lacks stay or become tombstones, without the SID, which would now mean something else.
        """
        from pyspark.sql import functions as F

        texts = catalogue.texts().select("product_id", "source_hash", *self._hashes, "text_hash")
        coded = self._coded(catalogue, texts, None)
        rows = texts.drop(*self._hashes).join(coded, "text_hash", "left")
        change = F.lit("new")
        if before is not None:
            rows = rows.join(before.select("product_id", F.lit(True).alias("known")), "product_id", "left")
            change = F.when(F.col("known"), F.lit("recoded")).otherwise(change)
        rows = rows.select(
            "product_id",
            "source_hash",
            "text_hash",
            *CODED,
            F.when(F.col("base_sid").isNull(), F.coalesce("fault", F.lit(NO_TEXT))).alias("reason"),
            change.alias("change"),
            F.lit(None).cast("string").alias("published_sid"),
            F.lit(None).cast("string").alias("withdrawn_on"),
            F.lit(self.as_of_snapshot).alias("as_of_snapshot"),
        )
        if before is not None:
            rows = rows.unionByName(self._tombstones(before, texts))
        with _kept(rows, self.policy.kind != "share") as kept:
            yield self._published(catalogue, kept, None)

    @contextmanager
    def assign_changed(self, catalogue: Catalogue, current: DataFrame) -> Iterator[tuple[DataFrame, int]]:
        """The rows that differ from the slice's current ones, and their number; the frame gives the same rows
        however often it is read while the context is open.

        A product is touched when it is new, withdrawn or back, when its text changed, or when it had no SID and has
        a vector now. One that comes back with the text it had takes up its row again, SID and all.

        Args:
            current: the slice's rows, tombstones included, all of this codebook.
        """
        from pyspark.sql import functions as F

        with _kept(self._suspects(catalogue, current), True) as suspects:
            number = suspects.count()
            if not number:
                yield current.limit(0), 0
                return
            few = number <= FEW

            def narrowed(frame: DataFrame) -> DataFrame:
                keys = F.broadcast(suspects) if few else suspects
                return frame.join(keys, F.xxhash64(frame["product_id"]) == keys["key"], "left_semi")

            near = replace(
                catalogue, products=narrowed(catalogue.products), embedded=[narrowed(e) for e in catalogue.embedded]
            )
            with _kept(self._differences(near, narrowed(current)), True) as differences:
                coded = self._coded(near, differences.where(~F.col("keeps")), few)
                with (
                    _kept(self._changed_rows(differences, coded), True) as rows,
                    _kept(self._published(near, rows, current), self.policy.kind != "share") as published,
                ):
                    yield published, published.count()

    def _tombstones(self, before: DataFrame, texts: DataFrame) -> DataFrame:
        """Rows of products that were there `before` another codebook came and are not among `texts`."""
        from pyspark.sql import functions as F

        gone = before.join(texts.select("product_id"), "product_id", "left_anti")
        was_gone = F.col("withdrawn_on").isNotNull()
        same = {
            "withdrawn_on": F.coalesce("withdrawn_on", F.lit(self.as_of_snapshot)),
            "as_of_snapshot": F.when(was_gone, F.col("as_of_snapshot")).otherwise(self.as_of_snapshot),
            "change": F.lit("withdrawn"),
        }
        types = {column.name: column.type for column in SEMANTIC_IDS.columns}
        lost = {name: F.lit(None).cast(types[name]) for name in (*CODED, "reason", "published_sid")}
        columns = ["product_id", "source_hash", "text_hash", *lost, *same]
        return gone.withColumns({**lost, **same}).select(*columns)

    @property
    def _hashes(self) -> list[str]:
        return [f"hash_{i}" for i in range(len(self.weights))]

    def _suspects(self, catalogue: Catalogue, current: DataFrame) -> DataFrame:
        """`key`, the xxhash64 of its id, of every product whose row may have to change; of few others.

        The whole catalogue is read for this alone, and only 64-bit numbers are moved: every source contributes a hash
        of what it says of a product, the slice one of what it was made from, and where nothing changed their xor is
        zero. A change is overlooked when hashes that differ cancel out: once in 2^64 changes.
        """
        from pyspark.sql import functions as F

        def told(name: str, text: Column) -> Column:
            """A hash of what is said; 0 where nothing is."""
            said = F.xxhash64(F.lit(name), F.col("product_id"), text)
            return F.when(F.coalesce(text, F.lit("")) == "", F.lit(0)).otherwise(said)

        def contribution(frame: DataFrame, value: Column) -> DataFrame:
            return frame.select(F.xxhash64("product_id").alias("key"), value.alias("said"))

        here, parts = F.xxhash64(F.lit("here"), F.col("product_id")), [F.col("text_hash")]
        if len(self._hashes) > 1:
            split = F.split("text_hash", "[+]")
            parts = [F.get(split, F.lit(i)) for i in range(len(self._hashes))]
        # One without a SID is looked at every night: its vector, or room under its prefix, may have come.
        was = (
            F.when(F.col("base_sid").isNull() | F.col("published_sid").isNull(), F.lit(1))
            .otherwise(here)
            .bitwiseXOR(told("source", F.col("source_hash")))
        )
        for name, part in zip(self._hashes, parts, strict=True):
            was = was.bitwiseXOR(told(name, part))
        is_there = here.bitwiseXOR(told("source", F.col("text_hash")))
        said = contribution(catalogue.products, is_there)
        for name, texts in zip(self._hashes, catalogue.embedded, strict=True):
            said = said.unionAll(contribution(texts, told(name, F.col("text_hash"))))
        said = said.unionAll(contribution(current.where("withdrawn_on IS NULL"), was))
        return said.groupBy("key").agg(F.bit_xor("said").alias("said")).where("said != 0").select("key")

    def _differences(self, catalogue: Catalogue, current: DataFrame) -> DataFrame:
        """Products whose row may have to change: product_id, source_hash, text_hash, hash_0, ..., `old`, its row in
        the slice, `gone`, whether the snapshot lacks it, and `keeps`, whether what was coded then still holds."""
        from pyspark.sql import functions as F

        now = catalogue.texts().select("product_id", "source_hash", *self._hashes, "text_hash")
        old, gone = F.col("old"), F.col("text_hash").isNull()
        was_gone, same_text = old["withdrawn_on"].isNotNull(), F.col("text_hash") == old["text_hash"]
        differs = (
            old.isNull()
            | ~same_text
            | ~F.col("source_hash").eqNullSafe(old["source_hash"])
            | was_gone
            | old["base_sid"].isNull()
            | old["published_sid"].isNull()
        )
        keeps = F.coalesce(gone | (same_text & old["base_sid"].isNotNull()), F.lit(False))
        return (
            now.join(current.select("product_id", F.struct(*current.columns).alias("old")), "product_id", "full_outer")
            .where(F.when(gone, ~was_gone).otherwise(differs))
            .withColumns({"gone": gone, "keeps": keeps})
        )

    def _coded(self, catalogue: Catalogue, texts: DataFrame, few: bool | None) -> DataFrame:
        """CODED and fault by text_hash, for the texts of a frame with text_hash and hash_0, ...

        Args:
            few: whether the texts fit into every worker; None: they are the greater part of the store.
        """
        from pyspark.sql import functions as F

        run = code_batches(self.codebook, list(self.weights))
        if len(self.weights) > 1:
            vectors = catalogue.with_vectors(texts.select("text_hash", *self._hashes).dropDuplicates(["text_hash"]))
            columns = ["text_hash", *[f"vector_{i}" for i in range(len(self.weights))], "fault"]
            return vectors.select(*columns).mapInArrow(run, CODED_DDL)
        needed = texts.select("text_hash").distinct()
        if catalogue.mapped is not None and few is not False:
            keys = needed.toArrow().column(0).combine_chunks() if few else None
            return catalogue.mapped(0, _numbered(run), CODED_DDL, keys)
        store = catalogue.stores[0].select(*STORED)
        if few is not None:
            store = store.join(F.broadcast(needed) if few else needed, "text_hash", "left_semi")
        return store.mapInArrow(_numbered(run), CODED_DDL)

    def _changed_rows(self, frame: DataFrame, coded: DataFrame) -> DataFrame:
        """`frame`, of `_differences`, as rows of SEMANTIC_IDS without those that stay as they were; with `waits`, of
        one that stays as it was unless its prefix has room for it now."""
        from pyspark.sql import functions as F

        keeps, gone, old = F.col("keeps"), F.col("gone"), F.col("old")
        known, was_gone = old.isNotNull(), F.col("old.withdrawn_on").isNotNull()
        frame = frame.join(coded.select("text_hash", *[F.col(n).alias(f"new_{n}") for n in (*CODED, "fault")]),
                           "text_hash", "left")  # fmt: skip
        taken = {name: F.when(keeps, F.col(f"old.{name}")).otherwise(F.col(f"new_{name}")) for name in CODED}
        missing = F.coalesce("new_fault", F.lit(NO_TEXT))
        reason = F.when(keeps, F.col("old.reason")).when(F.col("new_base_sid").isNull(), missing)
        same_source = F.coalesce(F.col("source_hash") == F.col("old.source_hash"), F.lit(False))
        same_text = F.coalesce(F.col("text_hash") == F.col("old.text_hash"), F.lit(False))
        still_missing = same_text & F.col("old.base_sid").isNull() & F.col("new_base_sid").isNull()
        still = ~gone & ~was_gone & (keeps | (still_missing & reason.eqNullSafe(F.col("old.reason"))))
        change = (
            F.when(gone, F.lit("withdrawn"))
            .when(~known, F.lit("new"))
            .when(was_gone, F.lit("returned"))
            .when(still, F.col("old.change"))
            .when(same_text, F.lit("new"))  # it had no SID until now
            .when(same_source, F.lit("recleaned"))
            .otherwise(F.lit("text_changed"))
        )
        # A changed text that keeps its base SID keeps what was published for it. Where SIDs are given out one by one,
        # a product without a vector keeps its own too, so that nobody else gets it meanwhile.
        stays = F.coalesce(keeps | (taken["base_sid"] == F.col("old.base_sid")), F.lit(False))
        if self.policy.kind != "share":
            above, own = taken["base_sid"], F.col("old.published_sid")
            above = above if self.policy.kind == "disambiguate" else prefix_of(above)
            back = F.col("old.base_sid").isNull() & (prefix_of(own) == above)
            stays = stays | taken["base_sid"].isNull() | F.coalesce(back, F.lit(False))
        same_row = known & still & same_source
        waits = same_row & ~gone & taken["base_sid"].isNotNull() & F.col("old.published_sid").isNull()
        return frame.where(~same_row | waits).select(
            "product_id",
            F.when(gone, F.col("old.source_hash")).otherwise(F.col("source_hash")).alias("source_hash"),
            F.when(gone, F.col("old.text_hash")).otherwise(F.col("text_hash")).alias("text_hash"),
            *[column.alias(name) for name, column in taken.items()],
            reason.alias("reason"),
            change.alias("change"),
            F.when(stays, F.col("old.published_sid")).alias("published_sid"),
            F.when(gone, F.lit(self.as_of_snapshot)).alias("withdrawn_on"),
            F.when(known & still, F.col("old.as_of_snapshot")).otherwise(self.as_of_snapshot).alias("as_of_snapshot"),
            waits.alias("waits"),
        )

    def _published(self, catalogue: Catalogue, rows: DataFrame, current: DataFrame | None) -> DataFrame:
        """`rows` with published_sid filled and their stamps, in the order of the table's columns."""
        from pyspark.sql import functions as F

        texts = catalogue.texts().select("product_id", *self._hashes) if len(self.weights) > 1 else None

        def candidates(wanted: DataFrame) -> DataFrame:
            if texts is None:
                vectors = wanted.withColumnRenamed("text_hash", "hash_0")
            else:
                vectors = wanted.drop("text_hash").join(texts, "product_id")
            ordered = order_batches(self.codebook, list(self.weights))
            frame = catalogue.with_vectors(vectors).drop("fault")
            return frame.mapInArrow(ordered, "product_id string, candidates binary")

        published = publish(rows, current, self.policy, candidates)
        if "waits" in published.columns:
            found = F.col("waits") & F.col("published_sid").isNotNull()
            published = published.where(~F.col("waits") | found).withColumns(
                {
                    "change": F.when(found, F.lit("new")).otherwise(F.col("change")),
                    "as_of_snapshot": F.when(found, F.lit(self.as_of_snapshot)).otherwise(F.col("as_of_snapshot")),
                }
            )
        stamped = published.withColumn("codebook_id", F.lit(self.codebook.id)).withColumn(
            "collision_policy", F.lit(str(self.policy))
        )
        return stamped.select(*[name for name in SEMANTIC_IDS.column_names if name not in SLICE])


def product_vectors(catalogue: Catalogue) -> DataFrame:
    """A snapshot's products with their vectors: every row of `products`, with vector_0, vector_1, ... and `reason`,
    null when all vectors are there; source_hash and text_hash as in `Catalogue.texts`."""
    frame = catalogue.with_vectors(catalogue.texts())
    return frame.withColumnRenamed("fault", "reason")


@contextmanager
def _kept(frame: DataFrame, keep: bool) -> Iterator[DataFrame]:
    """The frame, worked out once while the context is open where `keep` says so."""
    if not keep:
        yield frame
        return
    from pyspark import StorageLevel

    kept = frame.persist(StorageLevel.DISK_ONLY)
    try:
        yield kept
    finally:
        kept.unpersist()


def code_batches(codebook: Codebook, weights: list[float]) -> Batches:
    """The function that runs in the workers: text_hash, fault, vector_0, ... to CODED_SCHEMA, batch by batch.

    A row with a null vector has no codes, and its fault, or `NO_TEXT`, as fault.
    """
    threshold = codebook.config.get("ood_distance")

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield _code(batch, codebook, weights, threshold)

    return run


def _numbered(function: Batches) -> Batches:
    """A function of text_hash, vector_0 and fault as one of `STORED`."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return function(batch.rename_columns(["text_hash", "vector_0", "fault"]) for batch in batches)

    return run


def _code(batch: pa.RecordBatch, codebook: Codebook, weights: list[float], threshold: float | None) -> pa.RecordBatch:
    vectors = [batch.column(f"vector_{i}") for i in range(len(weights))]
    usable = np.logical_and.reduce([np.asarray(pc.is_valid(column)) for column in vectors])
    if not usable.all():
        rows = pa.array(np.flatnonzero(usable))
        vectors = [column.take(rows) for column in vectors]
    if usable.any():
        result = codebook.quantise(join([matrix(column) for column in vectors], weights))
        codes, distance, margin = result.codes, result.distance, result.margin
    else:
        codes = np.empty((0, codebook.levels), np.int32)
        distance = margin = np.empty(0, np.float32)
    offsets = pa.array(np.arange(len(codes) + 1, dtype=np.int32) * codebook.levels)
    far = pa.nulls(len(codes), pa.bool_()) if threshold is None else pa.array(distance > threshold)
    columns = {
        "base_sid": spelt(codes),
        "codes": pa.ListArray.from_arrays(offsets, pa.array(codes.ravel(), pa.int32())),
        "distance": pa.array(distance, pa.float32()),
        "margin": pa.array(margin, pa.float32()),
        "out_of_distribution": far,
    }
    if usable.all():
        fault = pa.nulls(len(batch), pa.string())
    else:
        # Where each row's result lies among the usable ones; null for the others, which `take` turns into null.
        place = pa.array(np.cumsum(usable) - 1, mask=~usable)
        columns = {name: column.take(place) for name, column in columns.items()}
        fault = pc.if_else(pa.array(usable), pa.scalar(None, pa.string()), pc.fill_null(batch.column("fault"), NO_TEXT))
    columns |= {"text_hash": batch.column("text_hash"), "fault": fault}
    return pa.RecordBatch.from_arrays([columns[name] for name in CODED_SCHEMA.names], schema=CODED_SCHEMA)


def order_batches(codebook: Codebook, weights: list[float]) -> Batches:
    """The function that runs in the workers: product_id, vector_0, ... to product_id and `candidates`, the last
    level's codewords from the nearest to the farthest, as little-endian int16."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            vectors = join([matrix(batch.column(f"vector_{i}")) for i in range(len(weights))], weights)
            order = last_codewords(codebook, vectors).astype("<i2")
            candidates = pa.array([row.tobytes() for row in order], pa.binary())
            yield pa.RecordBatch.from_arrays([batch.column("product_id"), candidates], ["product_id", "candidates"])

    return run


def last_codewords(codebook: Codebook, x: np.ndarray) -> np.ndarray:
    """The last level's codewords from the nearest to the farthest of what the levels above leave of vectors.

    Args:
        x: (N, d) float32.

    Returns:
        (N, K) integers; codewords that are equally near in order of their number.
    """
    above = codebook.quantised(codebook.encode(x)[:, : codebook.levels - 1])
    rest = codebook.latent(x, np.float64) - above
    words = codebook.arrays["codewords"][-1].astype(np.float64)
    scores = np.einsum("kd,kd->k", words, words) - 2 * rest @ words.T
    return np.argsort(scores, axis=1, kind="stable")
