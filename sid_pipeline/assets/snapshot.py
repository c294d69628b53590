"""The snapshot plane's first stage: a night's products, offers and rejected rows."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import dagster as dg

from sid_pipeline.assets.recording import (
    Outcome,
    markdown_table,
    materialise_many,
    stage_failures,
    table_metadata,
)
from sid_pipeline.partitions import snapshots
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import OFFERS, PRODUCTS, REJECTED_PRODUCTS, TableSpec
from sid_pipeline.settings import Settings

GROUP = "snapshot"
LEFT_OUT_SHOWN = 20
CATALOGUE = [PRODUCTS.name, OFFERS.name, REJECTED_PRODUCTS.name]


def snapshot_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """Products, offers and rejected rows."""
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
        with stage_failures(context, warehouse, PRODUCTS.name):
            inputs = _source_fingerprints(warehouse, snapshot)
        yield from materialise_many(
            context, warehouse.receipts, CATALOGUE, inputs, lambda: _read_catalogue(warehouse, snapshot)
        )

    return [catalogue]


def _source_fingerprints(warehouse: Warehouse, snapshot: str) -> dict[str, object]:
    from sid_pipeline.ingest.source_files import fingerprint as source_fingerprint

    source = warehouse.settings.source

    def of(name: str, template: str) -> str:
        return source_fingerprint(warehouse.settings.place(template, snapshot), source.format, f"[source] {name}")

    warehouse.claim()
    return {
        "settings": source.model_dump(mode="json"),
        "products": of("products", source.products),
        "offers": of("offers", source.offers) if source.offers else None,
    }


def _read_catalogue(warehouse: Warehouse, snapshot: str) -> dict[str, Outcome]:
    from pyspark.sql import functions as F

    from sid_pipeline.ingest.offers import read_offers
    from sid_pipeline.ingest.products import read_products
    from sid_pipeline.ingest.rejections import check_rejections

    tables, source = warehouse.tables, warehouse.settings.source
    with warehouse.spool(f"catalogue-{snapshot}") as spool:
        location = warehouse.settings.place(source.products, snapshot)
        products = read_products(warehouse.spark, source, location, spool / "products")
        rejected_products = tables.replace(REJECTED_PRODUCTS, products.rejected, snapshot=snapshot)
        # The rejected rows are written first, so that they can be looked at when they stop the run here.
        rules = _rules(warehouse, snapshot)
        share = check_rejections(location, products.source_rows, rules, source.max_rejected_share)
        accepted = tables.replace(PRODUCTS, products.accepted, snapshot=snapshot)
        told_of_products = _left_out(products.ignored)
        if source.offers:
            product_ids = tables.read(PRODUCTS, snapshot=snapshot).select("product_id")
            offers_location = warehouse.settings.place(source.offers, snapshot)
            offers = read_offers(warehouse.spark, source, offers_location, spool / "offers", product_ids)
            offer_rows = tables.replace(OFFERS, offers.accepted, snapshot=snapshot)
            rejected_offers = tables.append(REJECTED_PRODUCTS, offers.rejected, snapshot=snapshot)
            of_offers = Counter(_rules(warehouse, snapshot)) - Counter(rules)
            # Offers of products that were rejected go with them, so that only a file without a usable one is refused.
            check_rejections(offers_location, offers.source_rows, of_offers, limit=1.0)
            told_of_offers = {
                "source rows": offers.source_rows,
                "rejected rows": rejected_offers,
                "rejected share": rejected_offers / offers.source_rows,
                **_left_out(offers.ignored),
            }
        else:
            empty = warehouse.spark.createDataFrame([], OFFERS.ddl(without=("snapshot",)))
            offer_rows, rejected_offers = tables.replace(OFFERS, empty, snapshot=snapshot), 0
            told_of_offers = {}

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
                **told_of_products,
                "first products": markdown_table(
                    sample, ["product_id", "title", "brand", "size", "category", "description"]
                ),
            },
            facts={"rows": accepted},
        ),
        OFFERS.name: Outcome(versions[OFFERS.name], metadata={"dagster/row_count": offer_rows, **told_of_offers}),
        REJECTED_PRODUCTS.name: Outcome(
            versions[REJECTED_PRODUCTS.name],
            metadata={
                "dagster/row_count": rejected_products + rejected_offers,
                "reasons": markdown_table(_rejected(warehouse, snapshot), ["rule", "rows", "example"], width=160),
            },
        ),
    }


def _left_out(ignored: Any) -> dict[str, Any]:
    """How many values of accepted rows could not be used, and the first of them."""
    first = [row.asDict() for row in ignored.limit(LEFT_OUT_SHOWN).collect()]
    return {
        "values left out in all": len(first) if len(first) < LEFT_OUT_SHOWN else ignored.count(),
        "values left out": markdown_table(first, ["source_row", "product_id", "column", "value", "message"]),
    }


def _rules(warehouse: Warehouse, snapshot: str) -> dict[str, int]:
    """Rejected rows by rule."""
    return {str(row["rule"]): int(row["rows"]) for row in _rejected(warehouse, snapshot)}


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
