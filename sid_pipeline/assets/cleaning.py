"""The snapshot plane's cleaning: typed attributes of every distinct text of a night's products."""

import dagster as dg

from sid_pipeline.assets.recording import Outcome, markdown_table, materialise, plain_failures, table_metadata
from sid_pipeline.cleaning.rules import RulesCleaner
from sid_pipeline.cleanings import cleanings_of
from sid_pipeline.ingest.errors import InputError
from sid_pipeline.partitions import snapshots
from sid_pipeline.resources.tables import fingerprint
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import CLEANED_ATTRIBUTES, PRODUCTS, SNAPSHOT_CLEANINGS
from sid_pipeline.settings import Settings


def cleaning_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """Cleaned attributes."""

    @dg.asset(
        name=CLEANED_ATTRIBUTES.name,
        code_version="1",
        deps=[PRODUCTS.name],
        description=CLEANED_ATTRIBUTES.description,
        group_name="snapshot",
        owners=settings.orchestration.owners,
        kinds={"spark", "deltalake"},
        metadata=table_metadata(CLEANED_ATTRIBUTES),
        partitions_def=snapshots(settings.snapshots),
    )
    def cleaned_attributes(
        context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse]
    ) -> dg.MaterializeResult:
        snapshot = context.partition_key
        with plain_failures():
            products = warehouse.receipts.need(PRODUCTS.name, snapshot)
            cleaner = _cleaner(warehouse, snapshot)
        return materialise(
            context,
            warehouse.receipts,
            CLEANED_ATTRIBUTES.name,
            {"products": products.data_version, "cleaner": cleaner.id},
            lambda: _clean(warehouse, snapshot, cleaner),
            shared=True,
        )

    return [cleaned_attributes]


def _cleaner(warehouse: Warehouse, snapshot: str) -> RulesCleaner:
    """The configured cleaner. Its lexicon is learned once, from the first snapshot cleaned, and then frozen."""
    from sid_pipeline.cleaning.lexicon import Lexicon
    from sid_pipeline.cleaning.rules import RulesCleaner

    if warehouse.settings.cleaning.lexicon and not warehouse.lexicon.is_file():
        raise InputError(f"the lexicon {warehouse.lexicon} does not exist: mend cleaning.lexicon, or leave it out")
    with warehouse.receipts.lock("lexicon"):
        if not warehouse.lexicon.is_file():
            _learn_lexicon(warehouse, snapshot)
    return RulesCleaner(Lexicon.load(warehouse.lexicon))


def _learn_lexicon(warehouse: Warehouse, snapshot: str) -> None:
    from sid_pipeline.cleaning.lexicon import Lexicon
    from sid_pipeline.cleaning.model import ProductText

    frame = warehouse.tables.read(PRODUCTS, snapshot=snapshot)
    # By text hash, so that the choice neither follows the file's order nor changes between runs.
    rows = frame.orderBy("text_hash").limit(warehouse.settings.cleaning.lexicon_rows).toArrow().to_pylist()
    texts = [ProductText(r["title"], r["brand"], r["size"], r["description"]) for r in rows]
    categories = {r["category"][-1] for r in rows if r["category"]}
    warehouse.lexicon.parent.mkdir(parents=True, exist_ok=True)
    scratch = warehouse.lexicon.with_suffix(".part")
    Lexicon.learn(texts, sorted(categories)).save(scratch)
    scratch.replace(warehouse.lexicon)


def _clean(warehouse: Warehouse, snapshot: str, cleaner: RulesCleaner) -> Outcome:
    from pyspark.sql import functions as F

    from sid_pipeline.cleaning.run import TEXT_COLUMNS, clean

    tables = warehouse.tables
    texts = tables.read(PRODUCTS, snapshot=snapshot).select(*TEXT_COLUMNS).dropDuplicates(["text_hash"])
    if tables.exists(warehouse.cleaned):
        known = tables.read(warehouse.cleaned, cleaner_id=cleaner.id).select("text_hash")
        texts = texts.join(known, "text_hash", "left_anti")
    cleaned = tables.append(warehouse.cleaned, clean(texts, cleaner, warehouse.schema), cleaner_id=cleaner.id)

    products = tables.read(PRODUCTS, snapshot=snapshot)
    used = products.select("text_hash").distinct().withColumn("cleaner_id", F.lit(cleaner.id))
    used = used.withColumn("fallback", F.lit(False)).withColumn("reason", F.lit(None).cast("string"))
    tables.replace(SNAPSHOT_CLEANINGS, used, snapshot=snapshot)
    both = products.select("text_hash", "title", "description").join(cleanings_of(warehouse, snapshot), "text_hash")
    figures = both.agg(
        F.countDistinct("text_hash").alias("texts"),
        F.avg("confidence").alias("mean confidence"),
        F.avg(F.col("product_type").isNotNull().cast("double")).alias("share with a product type"),
        F.avg((F.size("dietary_tags") > 0).cast("double")).alias("share with dietary tags"),
        F.sum(F.size("unsupported")).alias("values dropped as unsupported"),
    ).first()
    columns = [
        "title",
        "description",
        "product_type",
        "key_ingredients",
        "dietary_tags",
        "format",
        "size",
        "brand",
    ]
    examples = [row.asDict() for row in both.orderBy("text_hash").limit(12).select(*columns).collect()]
    facts = figures.asDict() if figures else {}
    texts_total = facts.get("texts") or 0
    return Outcome(
        data_version=fingerprint(both.select("text_hash", *columns[2:]).dropDuplicates(["text_hash"])),
        metadata={
            "dagster/row_count": texts_total,
            "cleaned now": cleaned,
            "cache hit share": 1 - cleaned / texts_total if texts_total else 1.0,
            **{name: value for name, value in facts.items() if value is not None and name != "texts"},
            "cleaner": cleaner.id,
            "before and after": markdown_table(examples, columns, width=60),
        },
        facts={"cleaner_id": cleaner.id, "cleaned_now": cleaned},
    )
