"""One asset per embedder: what is embedded of every product of a snapshot, and vectors for what is new of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from sid_pipeline.assets.recording import (
    Earlier,
    Markdown,
    Outcome,
    markdown_table,
    materialise,
    stage_failures,
    table_metadata,
)
from sid_pipeline.assets.relevance import ESCI_MODEL
from sid_pipeline.cleanings import cleanings_of
from sid_pipeline.embedders import record, wanted_embedders
from sid_pipeline.files import digest
from sid_pipeline.ingest.errors import InputError
from sid_pipeline.partitions import snapshots
from sid_pipeline.receipts import MissingInput, Receipt
from sid_pipeline.resources.parquet import count_rows
from sid_pipeline.resources.tables import fingerprint_figures, fingerprint_of
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import CLEANED_ATTRIBUTES, EMBEDDED_PRODUCTS, EMBEDDINGS, PRODUCTS
from sid_pipeline.settings import EmbedderSettings, Settings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from sid_pipeline.embedding.run import Work

# Products among which the neighbours of the shown ones are looked for.
NEIGHBOUR_POOL, SHOWN, NEIGHBOURS = 5_000, 6, 3
# Texts of one commit where Spark encodes: what a killed driver loses.
SPARK_SLICE = 50_000
ALSO_ENCODED, LOST = "also encoded for releases in use", "embedders that are gone"


def embeddings_key(embedder: str) -> str:
    """Asset key of an embedder's vectors."""
    return f"{embedder}_embeddings"


def embedding_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """`<embedder>_embeddings` for every embedder that an enabled flavour uses."""
    used = {name for flavour in settings.active_flavours.values() for name in flavour.embedders}
    return [_embedding_asset(settings, name) for name in sorted(used)]


def _embedding_asset(settings: Settings, name: str) -> dg.AssetsDefinition:
    embedder = settings.embedders[name]
    deps = [CLEANED_ATTRIBUTES.name if embedder.text == "cleaned" else PRODUCTS.name]
    if settings.relevance.embedder == name:
        deps.append(ESCI_MODEL)
    made = f"by {embedder.model}" if embedder.vectors is None else f"supplied at {embedder.vectors}"

    @dg.asset(
        name=embeddings_key(name),
        code_version="2",
        deps=deps,
        description=f"Vectors of the {embedder.text} text of every product, {made}, and by every other embedder that a "
        "release in use pins under this name. Each distinct text is encoded once, whatever snapshot, flavour or "
        "release asks for it.",
        group_name="snapshot",
        owners=settings.orchestration.owners,
        kinds={"huggingface", "pytorch", "deltalake"},
        metadata=table_metadata(EMBEDDINGS),
        partitions_def=snapshots(settings.snapshots),
    )
    def embeddings(context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse]) -> dg.MaterializeResult:
        snapshot = context.partition_key
        with stage_failures(context, warehouse, embeddings_key(name)):
            products = warehouse.receipts.need(PRODUCTS.name, snapshot)
            wanted, lost = wanted_embedders(warehouse, name)
            supplied, missing = _supplied(warehouse, name, wanted, snapshot)
            wanted = {identity: e for identity, e in wanted.items() if identity not in missing}
            lost += missing.values()
            inputs: dict[str, Any] = {
                "products": products.data_version,
                "embedder": next(iter(wanted)),
                "embedder_ids": sorted(wanted),
            }
            if supplied:
                inputs["vectors"] = supplied
            if any(e.text == "cleaned" for e in wanted.values()):
                cleaned = warehouse.receipts.need(CLEANED_ATTRIBUTES.name, snapshot)
                if cleaned.inputs["products"] != products.data_version:
                    raise MissingInput(
                        f"{CLEANED_ATTRIBUTES.name} of {snapshot} is older than its products: materialise it again"
                    )
                inputs |= {"cleaned": cleaned.data_version, "cleaner_id": cleaned.facts["cleaner_id"]}
        for sentence in lost:
            context.log.warning(sentence)

        def before() -> Receipt | None:
            receipt = warehouse.receipts.before(embeddings_key(name), snapshot)
            if receipt is None or lost or LOST in receipt.metadata:
                return None
            # Texts without a usable vector are tried again with each snapshot; old receipts do not say if there were.
            whole = receipt.facts.get("faulty") == 0
            return receipt if whole and warehouse.receipts.still_of(receipt, PRODUCTS.name) else None

        return materialise(
            context,
            warehouse.receipts,
            embeddings_key(name),
            inputs,
            lambda: _embed_all(warehouse, name, wanted, lost, snapshot),
            earlier=Earlier(before, lambda receipt: _embed_as_before(warehouse, receipt, snapshot)),
            shared=True,
        )

    return embeddings


def _supplied(
    warehouse: Warehouse, name: str, wanted: dict[str, EmbedderSettings], snapshot: str
) -> tuple[list[str], dict[str, str]]:
    """Fingerprints of a day's own vectors, and a sentence for each embedder, by id, whose vectors are not delivered any
    more. Without those of today's embedder there is no night.

    Raises:
        InputError: today's vectors cannot be used.
    """
    from sid_pipeline.ingest.source_files import fingerprint

    found: list[str] = []
    missing: dict[str, str] = {}
    for number, (identity, embedder) in enumerate(wanted.items()):
        if embedder.vectors is None:
            continue
        try:
            location = warehouse.settings.place(embedder.vectors, snapshot)
            found.append(fingerprint(location, setting=f"embedders.{name}.vectors"))
        except InputError as error:
            if number == 0:
                raise
            missing[identity] = (
                f"the vectors of {identity} cannot be had for {snapshot}: deliver them, or retire the release that is "
                f"pinned to it ({error})"
            )
    return found, missing


def _embed_all(
    warehouse: Warehouse,
    name: str,
    wanted: dict[str, EmbedderSettings],
    lost: list[str],
    snapshot: str,
) -> Outcome:
    """Embed the snapshot by every wanted embedder; the first is today's, whose figures stand first."""
    embedded = {
        identity: _embed(warehouse, name, identity, embedder, snapshot) for identity, embedder in wanted.items()
    }
    current, *pinned = embedded
    versions = {identity: slice.data_version for identity, slice in embedded.items()}
    metadata = dict(embedded[current].metadata)
    if pinned:
        metadata[ALSO_ENCODED] = _also_encoded({identity: embedded[identity].encoded for identity in pinned})
    if lost:
        metadata[LOST] = markdown_table([{"release": s} for s in lost], width=300)
    return Outcome(
        data_version=digest(versions),
        metadata=metadata,
        facts={
            "embedder_ids": versions,
            "encoded_now": sum(slice.encoded for slice in embedded.values()),
            "faulty": sum(slice.faulty for slice in embedded.values()),
        },
    )


def _also_encoded(encoded: dict[str, int]) -> Markdown:
    return markdown_table([{"embedder": identity, "encoded now": texts} for identity, texts in encoded.items()])


def _embed_as_before(warehouse: Warehouse, before: Receipt, snapshot: str) -> Outcome | None:
    """Take over the texts of an earlier snapshot of the same products; their vectors are in the store."""
    tables, rows = warehouse.tables, before.metadata["dagster/row_count"]
    for identity in before.facts["embedder_ids"]:
        texts = tables.read(EMBEDDED_PRODUCTS, embedder_id=identity, snapshot=before.partition)
        if tables.replace(EMBEDDED_PRODUCTS, texts, embedder_id=identity, snapshot=snapshot) != rows:
            return None
        store = tables.read(EMBEDDINGS, embedder_id=identity).where("fault IS NULL").select("text_hash")
        written = tables.read(EMBEDDED_PRODUCTS, embedder_id=identity, snapshot=snapshot)
        if not written.join(store, "text_hash", "left_anti").isEmpty():
            return None
    metadata: dict[str, Any] = {"encoded now": 0, "texts a second": 0.0, "padding share": 0.0}
    if ALSO_ENCODED in before.metadata:
        _, *pinned = before.facts["embedder_ids"]
        metadata[ALSO_ENCODED] = _also_encoded(dict.fromkeys(pinned, 0))
    return Outcome.again(before, metadata, {"encoded_now": 0})


@dataclass(frozen=True)
class Embedded:
    """A snapshot embedded by one embedder.

    Attributes:
        data_version: hash of what readers see.
        encoded: texts encoded now.
        faulty: products without a usable vector.
        metadata: figures for people.
    """

    data_version: str
    encoded: int
    faulty: int
    metadata: dict[str, Any]


def _embed(
    warehouse: Warehouse,
    name: str,
    identity: str,
    embedder: EmbedderSettings,
    snapshot: str,
) -> Embedded:
    from pyspark.sql import functions as F

    tables = warehouse.tables
    record(warehouse, identity, embedder)
    products = tables.read(PRODUCTS, snapshot=snapshot)
    with warehouse.spool(f"{name}-embeddings") as spool:
        if embedder.vectors is None:
            rows, work = _encode_new(warehouse, identity, embedder, products, snapshot, spool)
        else:
            rows, work = _take_supplied(warehouse, identity, embedder, products, snapshot, spool)
    written = tables.read(EMBEDDED_PRODUCTS, embedder_id=identity, snapshot=snapshot)
    store = tables.read(EMBEDDINGS, embedder_id=identity)
    # By the fault, which stands where a vector does not: vectors are large, and are not read to be counted.
    found = written.join(store.select("text_hash", "fault", F.lit(True).alias("held")), "text_hash", "left")
    lost = F.col("held").isNull()
    fault = lost | F.col("fault").isNotNull()
    counts = found.agg(
        F.countDistinct("text_hash").alias("texts"),
        F.sum(lost.cast("long")).alias("lost"),
        F.sum(fault.cast("long")).alias("faulty"),
        *fingerprint_figures("product_id", "text_hash", fault),
    ).collect()[0]
    if counts["lost"]:
        raise MissingInput(
            f"{counts['lost']} products of {snapshot} were not embedded: the spool under {warehouse.state} must lie on "
            "a disk that the driver and all executors share"
        )
    faulty = found.where(fault).select("product_id", "text", "fault").orderBy("product_id").limit(20)
    return Embedded(
        data_version=fingerprint_of(counts),
        encoded=work.texts,
        faulty=counts["faulty"] or 0,
        metadata={
            "dagster/row_count": rows,
            "embedder": identity,
            "distinct texts": counts["texts"] or 0,
            "encoded now": work.texts,
            "texts a second": round(work.texts / work.seconds, 1) if work.seconds else 0.0,
            "padding share": round(work.padding, 4),
            "products without a usable vector": counts["faulty"] or 0,
            "without a usable vector (tried again with the next snapshot)": markdown_table(
                [row.asDict() for row in faulty.collect()] if counts["faulty"] else [], width=160
            ),
            f"texts and nearest products (among {NEIGHBOUR_POOL:,})": _neighbours(written, store, products, embedder),
        },
    )


def _encode_new(
    warehouse: Warehouse,
    identity: str,
    embedder: EmbedderSettings,
    products: "DataFrame",
    snapshot: str,
    spool: Path,
) -> tuple[int, "Work"]:
    """Write down the texts of the snapshot, and encode those that have no usable vector yet."""
    from pyspark.sql import functions as F

    from sid_pipeline.embedding.spark import embedded_texts, encoded_texts

    tables = warehouse.tables
    if embedder.text == "cleaned":
        # What cleaning found stands in for the source's own brand and size.
        cleaned = cleanings_of(warehouse, snapshot)
        products = products.select("product_id", "title", "text_hash").join(cleaned, "text_hash", "left")
    texts = embedded_texts(products, embedder)
    rows = tables.replace(EMBEDDED_PRODUCTS, texts, embedder_id=identity, snapshot=snapshot)

    needed = tables.read(EMBEDDED_PRODUCTS, embedder_id=identity, snapshot=snapshot)
    needed = needed.select("text_hash", "text")
    _new(warehouse, needed, identity).write.parquet(str(spool / "new"))
    _forget_faults(warehouse, spool / "new", identity)

    def commit(files: list[Path]) -> None:
        frame = warehouse.spark.read.parquet(*map(str, files)).coalesce(1)
        tables.append(EMBEDDINGS, frame, embedder_id=identity)

    if warehouse.settings.embedding.runner == "spark":
        partitions = warehouse.settings.spark.shuffle_partitions
        new = warehouse.spark.read.parquet(str(spool / "new"))
        bucket = F.xxhash64("text_hash")

        def write(number: int, slices: int) -> None:
            frame = new.where(F.pmod(bucket, F.lit(slices)) == number).repartition(partitions)
            encoded = encoded_texts(frame, embedder, warehouse.settings.root)
            tables.append(EMBEDDINGS, encoded, embedder_id=identity)

        return rows, _in_slices(count_rows(spool / "new"), write)
    from sid_pipeline.embedding.run import embed

    (spool / "vectors").mkdir()
    workers = warehouse.settings.embedding.workers
    return rows, embed(spool / "new", spool / "vectors", embedder, warehouse.settings.root, commit, workers=workers)


def _take_supplied(
    warehouse: Warehouse,
    identity: str,
    embedder: EmbedderSettings,
    products: "DataFrame",
    snapshot: str,
    spool: Path,
) -> tuple[int, "Work"]:
    """Take a user's own vectors into the store."""
    from sid_pipeline.embedding.run import Work
    from sid_pipeline.embedding.supplied import supplied_vectors

    tables = warehouse.tables
    location = warehouse.settings.place(str(embedder.vectors), snapshot)
    judged = supplied_vectors(warehouse.spark, location, embedder.dimension or 0, products.select("product_id"))
    judged.write.parquet(str(spool / "judged"))
    judged = warehouse.spark.read.parquet(str(spool / "judged"))
    titles = products.select("product_id", products["title"].alias("text"))
    texts = judged.select("product_id", "text_hash").join(titles, "product_id")
    rows = tables.replace(EMBEDDED_PRODUCTS, texts, embedder_id=identity, snapshot=snapshot)
    needed = judged.select("text_hash", "vector", "fault")
    _new(warehouse, needed, identity).write.parquet(str(spool / "new"))
    _forget_faults(warehouse, spool / "new", identity)
    new = warehouse.spark.read.parquet(str(spool / "new")).drop("faulty")
    tables.append(EMBEDDINGS, new, embedder_id=identity)
    return rows, Work(texts=count_rows(spool / "new"))


def _new(warehouse: Warehouse, needed: "DataFrame", identity: str) -> "DataFrame":
    """One row of `needed` for each text_hash without a usable vector; `faulty` says that a fault is on record."""
    from pyspark.sql import functions as F

    if not warehouse.tables.exists(EMBEDDINGS):
        new = needed.withColumn("faulty", F.lit(False))
    else:
        store = warehouse.tables.read(EMBEDDINGS, embedder_id=identity)
        known = store.select("text_hash", F.col("fault").isNotNull().alias("faulty"))
        new = needed.join(known, "text_hash", "left").where("faulty IS NULL OR faulty").fillna(False, ["faulty"])
    return new.dropDuplicates(["text_hash"])


def _forget_faults(warehouse: Warehouse, new: Path, identity: str) -> None:
    """Take back the faults of texts that are tried again: each key stays in the store once."""
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    if ds.dataset(new, format="parquet").count_rows(filter=pc.field("faulty")):
        again = warehouse.spark.read.parquet(str(new)).where("faulty")
        warehouse.tables.remove(EMBEDDINGS, again, "t.vector IS NULL", embedder_id=identity)


def _in_slices(texts: int, write: Callable[[int, int], None]) -> "Work":
    """Encode in Spark slice by slice, each a commit of its own, and show how far it is."""
    import time

    from tqdm import tqdm

    from sid_pipeline.embedding.run import Work

    started, slices = time.monotonic(), -(-texts // SPARK_SLICE)
    for number in tqdm(range(slices), desc="embedding in Spark", unit=" slices", disable=slices == 0):
        write(number, slices)
    return Work(texts=texts, seconds=time.monotonic() - started)


def _neighbours(written: "DataFrame", store: "DataFrame", products: "DataFrame", embedder: EmbedderSettings) -> Any:
    """Some products with their own text, the text that is embedded, and the products nearest by this embedder.

    The products are chosen by a hash of their ids, so every embedder shows the same ones; only their vectors are moved.
    """
    from pyspark.sql import functions as F

    from sid_pipeline.embedding.neighbours import nearest
    from sid_pipeline.embedding.vectors import matrix

    raw = F.concat_ws(". ", "title", "brand", "size", "description").alias("raw")
    place = F.xxhash64("product_id")
    chosen = written.select("product_id", "text", "text_hash").orderBy(place).limit(NEIGHBOUR_POOL)
    titled = products.select("product_id", "title", raw).join(F.broadcast(chosen), "product_id")
    vectors = store.where("vector IS NOT NULL").select("text_hash", "vector")
    pool = vectors.join(F.broadcast(titled), "text_hash").orderBy(place).toArrow()
    if len(pool) < 2:
        return markdown_table([])
    shown = range(min(SHOWN, len(pool)))
    titles = pool["title"].to_pylist()
    rows = []
    neighbours = nearest(matrix(pool["vector"]), shown, NEIGHBOURS)
    for row, others in zip(pool.slice(0, SHOWN).to_pylist(), neighbours, strict=True):
        texts = {"raw text": row["raw"]}
        if embedder.vectors is None:
            texts[f"embedded ({embedder.text} text)"] = row["text"]
        rows.append({"product_id": row["product_id"], **texts, "nearest": "; ".join(titles[i] for i in others)})
    return markdown_table(rows, width=240)
