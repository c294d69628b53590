"""The snapshot plane's first stages: a night's products, offers and rejected rows, and their cleaned attributes."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from sid_pipeline.assets.recording import (
    Outcome,
    markdown_table,
    materialise,
    materialise_many,
    plain_failures,
    table_metadata,
)
from sid_pipeline.cleaning.cleaner import Cleaner
from sid_pipeline.ingest.errors import InputError
from sid_pipeline.partitions import snapshots
from sid_pipeline.resources.tables import fingerprint
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import CLEANED_ATTRIBUTES, OFFERS, PRODUCTS, REJECTED_PRODUCTS, TableSpec
from sid_pipeline.settings import Settings

GROUP = "snapshot"
CATALOGUE = [PRODUCTS.name, OFFERS.name, REJECTED_PRODUCTS.name]


def snapshot_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """Products, offers, rejected rows and cleaned attributes."""
    days = snapshots(settings.snapshots)
    owners = settings.orchestration.owners

    def spec(table: TableSpec) -> dg.AssetSpec:
        return dg.AssetSpec(
            table.name,
            code_version="1",
            description=table.description,
            group_name=GROUP,
            owners=owners,
            kinds={"spark", "deltalake"},
            metadata=table_metadata(table),
            partitions_def=days,
        )

    @dg.multi_asset(name="catalogue", specs=[spec(table) for table in (PRODUCTS, OFFERS, REJECTED_PRODUCTS)])
    def catalogue(
        context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse]
    ) -> Iterator[dg.MaterializeResult]:
        snapshot = context.partition_key
        with plain_failures():
            inputs = _source_fingerprints(warehouse, snapshot)
        yield from materialise_many(
            context, warehouse.receipts, CATALOGUE, inputs, lambda: _read_catalogue(warehouse, snapshot)
        )

    @dg.asset(
        name=CLEANED_ATTRIBUTES.name,
        code_version="1",
        deps=[PRODUCTS.name],
        description=CLEANED_ATTRIBUTES.description,
        group_name=GROUP,
        owners=owners,
        kinds={"spark", "deltalake"},
        metadata=table_metadata(CLEANED_ATTRIBUTES),
        partitions_def=days,
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

    return [catalogue, cleaned_attributes]


def _location(warehouse: Warehouse, template: str, snapshot: str) -> str:
    return warehouse.settings.location(template.replace("{snapshot}", snapshot))


def _source_fingerprints(warehouse: Warehouse, snapshot: str) -> dict[str, object]:
    from sid_pipeline.ingest.source_files import fingerprint as source_fingerprint

    source = warehouse.settings.source
    warehouse.claim()
    return {
        "settings": source.model_dump(mode="json"),
        "products": source_fingerprint(_location(warehouse, source.products, snapshot)),
        "offers": source_fingerprint(_location(warehouse, source.offers, snapshot)) if source.offers else None,
    }


def _read_catalogue(warehouse: Warehouse, snapshot: str) -> dict[str, Outcome]:
    from pyspark.sql import functions as F

    from sid_pipeline.ingest.offers import read_offers
    from sid_pipeline.ingest.products import read_products
    from sid_pipeline.ingest.rejections import check_rejections

    tables, source = warehouse.tables, warehouse.settings.source
    with warehouse.spool(f"catalogue-{snapshot}") as spool:
        location = _location(warehouse, source.products, snapshot)
        products = read_products(warehouse.spark, source, location, spool / "products")
        rejected_products = tables.replace(REJECTED_PRODUCTS, products.rejected, snapshot=snapshot)
        # The rejected rows are written first, so that they can be looked at when they stop the run here.
        rules = {str(row["rule"]): int(row["rows"]) for row in _rejected(warehouse, snapshot)}
        share = check_rejections(location, products.source_rows, rules, source.max_rejected_share)
        accepted = tables.replace(PRODUCTS, products.accepted, snapshot=snapshot)
        ignored = [row.asDict() for row in products.ignored.limit(20).collect()]
        if source.offers:
            product_ids = tables.read(PRODUCTS, snapshot=snapshot).select("product_id")
            offers_location = _location(warehouse, source.offers, snapshot)
            offers = read_offers(warehouse.spark, source, offers_location, spool / "offers", product_ids)
            offer_rows = tables.replace(OFFERS, offers.accepted, snapshot=snapshot)
            rejected_offers = tables.append(REJECTED_PRODUCTS, offers.rejected, snapshot=snapshot)
        else:
            empty = warehouse.spark.createDataFrame([], OFFERS.ddl(without=("snapshot",)))
            offer_rows, rejected_offers = tables.replace(OFFERS, empty, snapshot=snapshot), 0

    frame = tables.read(PRODUCTS, snapshot=snapshot)
    counts = frame.agg(
        F.count("category").alias("with a category"),
        F.count("description").alias("with a description"),
        F.count("brand").alias("with a brand"),
        F.countDistinct("text_hash").alias("distinct texts"),
    ).first()
    sample = [row.asDict() for row in frame.orderBy("product_id").limit(8).collect()]
    versions = {
        table.name: tables.fingerprint(table, columns, snapshot=snapshot)
        for table, columns in (
            (PRODUCTS, ["product_id", "text_hash", "category"]),
            (OFFERS, ["product_id", "retailer_id", "available", "popularity"]),
            (REJECTED_PRODUCTS, ["source_file", "source_row", "rule"]),
        )
    }
    return {
        PRODUCTS.name: Outcome(
            versions[PRODUCTS.name],
            metadata={
                "dagster/row_count": accepted,
                "source rows": products.source_rows,
                "rejected rows": rejected_products,
                "rejected share": share,
                **(counts.asDict() if counts else {}),
                "values left out": markdown_table(ignored, ["source_row", "product_id", "column", "value", "message"]),
                "first products": markdown_table(
                    sample, ["product_id", "title", "brand", "size", "category", "description"]
                ),
            },
            facts={"rows": accepted},
        ),
        OFFERS.name: Outcome(versions[OFFERS.name], metadata={"dagster/row_count": offer_rows}),
        REJECTED_PRODUCTS.name: Outcome(
            versions[REJECTED_PRODUCTS.name],
            metadata={
                "dagster/row_count": rejected_products + rejected_offers,
                "reasons": markdown_table(_rejected(warehouse, snapshot), ["rule", "rows", "example"], width=160),
            },
        ),
    }


def _rejected(warehouse: Warehouse, snapshot: str) -> list[dict[str, Any]]:
    """Rejected rows by rule, the commonest first, with one message each."""
    from pyspark.sql import functions as F

    counted = (
        warehouse.tables.read(REJECTED_PRODUCTS, snapshot=snapshot)
        .groupBy("rule")
        .agg(F.count("*").alias("rows"), F.min("message").alias("example"))
        .orderBy(F.desc("rows"), "rule")
    )
    return [row.asDict() for row in counted.collect()]


def _cleaner(warehouse: Warehouse, snapshot: str) -> Cleaner:
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


def _clean(warehouse: Warehouse, snapshot: str, cleaner: Cleaner) -> Outcome:
    from pyspark.sql import functions as F

    from sid_pipeline.cleaning.run import TEXT_COLUMNS, clean

    tables = warehouse.tables
    texts = tables.read(PRODUCTS, snapshot=snapshot).select(*TEXT_COLUMNS).dropDuplicates(["text_hash"])
    if tables.exists(CLEANED_ATTRIBUTES):
        known = tables.read(CLEANED_ATTRIBUTES, cleaner_id=cleaner.id).select("text_hash")
        texts = texts.join(known, "text_hash", "left_anti")
    cleaned = tables.append(CLEANED_ATTRIBUTES, clean(texts, cleaner), cleaner_id=cleaner.id)

    products = tables.read(PRODUCTS, snapshot=snapshot)
    cleanings = tables.read(CLEANED_ATTRIBUTES, cleaner_id=cleaner.id)
    both = products.select("text_hash", "title", "description").join(cleanings, "text_hash")
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
