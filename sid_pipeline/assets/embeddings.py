"""One asset per embedder: the text of every product of a snapshot, and vectors for the texts that are new."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from sid_pipeline.assets.recording import Outcome, markdown_table, materialise, plain_failures, table_metadata
from sid_pipeline.assets.relevance import ESCI_MODEL
from sid_pipeline.cleanings import cleanings_of
from sid_pipeline.embedding.model import embedder_id
from sid_pipeline.partitions import snapshots
from sid_pipeline.receipts import MissingInput
from sid_pipeline.resources.tables import fingerprint
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import CLEANED_ATTRIBUTES, EMBEDDED_PRODUCTS, EMBEDDINGS, PRODUCTS
from sid_pipeline.settings import EmbedderSettings, Settings


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

    @dg.asset(
        name=embeddings_key(name),
        code_version="1",
        deps=deps,
        description=f"Vectors of the {embedder.text} text of every product, by {embedder.model}. "
        "Each distinct text is encoded once, whatever snapshot, flavour or release asks for it.",
        group_name="snapshot",
        owners=settings.orchestration.owners,
        kinds={"huggingface", "pytorch", "deltalake"},
        metadata=table_metadata(EMBEDDINGS),
        partitions_def=snapshots(settings.snapshots),
    )
    def embeddings(context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse]) -> dg.MaterializeResult:
        snapshot = context.partition_key
        with plain_failures():
            products = warehouse.receipts.need(PRODUCTS.name, snapshot)
            inputs = {
                "products": products.data_version,
                "embedder_id": embedder_id(embedder, warehouse.settings.root),
            }
            if embedder.text == "cleaned":
                cleaned = warehouse.receipts.need(CLEANED_ATTRIBUTES.name, snapshot)
                if cleaned.inputs["products"] != products.data_version:
                    raise MissingInput(
                        f"{CLEANED_ATTRIBUTES.name} of {snapshot} is older than its products: materialise it again"
                    )
                inputs |= {"cleaned": cleaned.data_version, "cleaner_id": cleaned.facts["cleaner_id"]}
        return materialise(
            context,
            warehouse.receipts,
            embeddings_key(name),
            inputs,
            lambda: _embed(warehouse, name, embedder, snapshot, inputs),
            shared=True,
        )

    return embeddings


def _embed(
    warehouse: Warehouse, name: str, embedder: EmbedderSettings, snapshot: str, inputs: dict[str, str]
) -> Outcome:
    from pyspark.sql import functions as F

    from sid_pipeline.embedding.model import Embedder
    from sid_pipeline.embedding.run import embed
    from sid_pipeline.embedding.spark import embedded_texts

    tables, identity = warehouse.tables, inputs["embedder_id"]
    products = tables.read(PRODUCTS, snapshot=snapshot)
    if embedder.text == "cleaned":
        # What cleaning found stands in for the source's own brand and size.
        cleaned = cleanings_of(warehouse, snapshot)
        products = products.select("product_id", "title", "text_hash").join(cleaned, "text_hash", "left")
    texts = embedded_texts(products, embedder).withColumn("embedder_id", F.lit(identity))
    rows = tables.replace(EMBEDDED_PRODUCTS, texts, embedder=name, snapshot=snapshot)

    written = tables.read(EMBEDDED_PRODUCTS, embedder=name, snapshot=snapshot)
    fresh = written.select("text_hash", "text").dropDuplicates(["text_hash"])
    if tables.exists(EMBEDDINGS):
        known = tables.read(EMBEDDINGS, embedder_id=identity).select("text_hash")
        fresh = fresh.join(known, "text_hash", "left_anti")

    def commit(files: list[Path]) -> None:
        frame = warehouse.spark.read.parquet(*map(str, files))
        tables.append(EMBEDDINGS, frame, embedder_id=identity)

    with warehouse.spool(f"{name}-embeddings") as spool:
        waiting, done = spool / "texts", spool / "vectors"
        done.mkdir()
        fresh.write.parquet(str(waiting))
        encoded = 0
        if any(_rows(waiting)):
            encoded = embed(waiting, done, Embedder.load(embedder, warehouse.settings.root), commit)

    lost = written.join(tables.read(EMBEDDINGS, embedder_id=identity), "text_hash", "left_anti").count()
    if lost:
        raise MissingInput(
            f"{lost} texts of {snapshot} were not embedded: the spool under {warehouse.state} must lie on a disk that "
            "the driver and all executors share"
        )
    vectors = tables.read(EMBEDDINGS, embedder_id=identity)
    faulty = (
        written.join(vectors.where(F.col("vector").isNull()), "text_hash")
        .select("product_id", "text", "fault")
        .orderBy("product_id")
        .limit(20)
        .collect()
    )
    distinct = written.select("text_hash").distinct().count()
    sample = written.join(products.select("product_id", "title"), "product_id").orderBy("text_hash").limit(8)
    return Outcome(
        data_version=fingerprint(written.select("product_id", "embedder_id", "text_hash")),
        metadata={
            "dagster/row_count": rows,
            "distinct texts": distinct,
            "encoded now": encoded,
            "embedder": identity,
            "texts without a usable vector": markdown_table([row.asDict() for row in faulty]),
            "what is embedded": markdown_table(
                [row.asDict() for row in sample.collect()], ["product_id", "title", "text"], width=160
            ),
        },
        facts={"embedder_id": identity, "encoded_now": encoded},
    )


def _rows(folder: Path) -> Iterator[int]:
    """Row counts of a folder's Parquet files."""
    import pyarrow.parquet as pq

    for file in sorted(folder.glob("*.parquet")):
        yield pq.read_metadata(file).num_rows
