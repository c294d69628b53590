"""Names of the prefixes, kept from night to night while what they name stays."""

from typing import Any

import dagster as dg

from sid_pipeline.assets.assigned import assigned_products, content
from sid_pipeline.assets.assignment import STAGE as SEMANTIC_IDS_STAGE
from sid_pipeline.assets.flavours import Flavour
from sid_pipeline.assets.recording import (
    Outcome,
    markdown_table,
    materialise,
    stage_failures,
    table_metadata,
)
from sid_pipeline.files import digest
from sid_pipeline.releases import need_release
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import PREFIX_NAMES
from sid_pipeline.settings import Settings
from sid_pipeline.taxonomy_source import TAXONOMY, release_tree

NAMES = "prefix_names"


def names_assets(flavour: Flavour) -> list[dg.AssetsDefinition]:
    """`prefix_names` of a flavour."""
    sids = flavour.key(SEMANTIC_IDS_STAGE)

    @flavour.asset(
        NAMES,
        [sids, TAXONOMY],
        PREFIX_NAMES.description,
        {"spark", "deltalake"},
        metadata=table_metadata(PREFIX_NAMES),
        code_version="2",
    )
    def prefix_names(context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse]) -> dg.MaterializeResult:
        release = context.partition_key
        with stage_failures(context, warehouse, flavour.key(NAMES)):
            assigned = warehouse.receipts.need(sids, release)
            inputs = {
                **content(warehouse, assigned),
                "taxonomy": warehouse.receipts.need(TAXONOMY, release).data_version,
                **_polish_by(warehouse.settings),
            }
        return materialise(
            context,
            warehouse.receipts,
            flavour.key(NAMES),
            inputs,
            lambda: _name_prefixes(warehouse, flavour, release),
            still_there=lambda receipt: not receipt.facts.get("unpolished"),
        )

    return [prefix_names]


def _polish_by(settings: Settings) -> dict[str, Any]:
    """What polishes prefix names, if anything does."""
    levels, cleaning = settings.report.polish_levels, settings.cleaning
    return {"polish": [levels, cleaning.provider, cleaning.model_name]} if levels else {}


def _name_prefixes(warehouse: Warehouse, flavour: Flavour, release: str) -> Outcome:
    from sid_pipeline.evaluation.names import prefix_names
    from sid_pipeline.polishing import polished_names

    assigned = assigned_products(warehouse, flavour, release, ["title", "brand", "category"])
    kept = warehouse.tables.arrow(PREFIX_NAMES, flavour=flavour.name, release=release).to_pylist()
    names = prefix_names(
        assigned.codes,
        assigned.column("product_id"),
        assigned.column("title"),
        categories=_named_today(warehouse, release, assigned.categories()),
        brands=assigned.column("brand"),
        previous={row["prefix"]: row for row in kept if row.get("content")},
    )
    named = names.to_pylist()
    titles = dict(zip(assigned.column("product_id"), assigned.column("title"), strict=True))
    polished = polished_names(warehouse, flavour.name, release, named, titles)
    rows = [
        {
            "prefix": row["prefix"],
            "level": row["level"],
            "products": row["count"],
            "name": polished.names.get(row["prefix"], row["name"]),
            "category": row["category"],
            "words": row["words"],
            "brands": row["top_brands"],
            "sample": row["sample_product_ids"],
            "content": row["content"],
        }
        for row in named
    ]
    before = {row["prefix"]: row["name"] for row in kept}
    frame = warehouse.spark.createDataFrame(rows, PREFIX_NAMES.ddl(without=("flavour", "release")))
    written = warehouse.tables.replace(PREFIX_NAMES, frame, flavour=flavour.name, release=release)
    top = sorted((row for row in rows if row["level"] == 1), key=lambda row: (-row["products"], row["prefix"]))
    return Outcome(
        data_version=digest([(row["prefix"], row["name"]) for row in rows]),
        metadata={
            "dagster/row_count": written,
            "names kept from the night before": sum(
                row["prefix"] in before and before[row["prefix"]] == row["name"] for row in rows
            ),
            **polished.told,
            "largest": markdown_table(top[:25], ["prefix", "name", "products", "words"]),
        },
        facts={"unpolished": polished.missing},  # asked for again whenever the asset is
    )


def _named_today(
    warehouse: Warehouse, release: str, categories: list[tuple[str, ...] | None]
) -> list[tuple[str, ...] | None]:
    """Category paths under the names of the release's newest tree; what it does not know stays as it is."""
    tree = release_tree(warehouse, need_release(warehouse.tables, release))
    found = {path: tree.find(path) for path in set(categories) if path}
    return [node.path if path and (node := found[path]) else path for path in categories]
