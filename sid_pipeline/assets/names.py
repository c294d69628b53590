"""Names of the prefixes, kept from night to night while what they name stays."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

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
from sid_pipeline.files import digest_lines
from sid_pipeline.releases import need_release
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import PREFIX_NAMES
from sid_pipeline.settings import Settings
from sid_pipeline.taxonomy_source import TAXONOMY, release_tree

if TYPE_CHECKING:
    import pyarrow as pa

    from sid_pipeline.polishing import Polished

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
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from sid_pipeline.evaluation.names import prefix_names

    assigned = assigned_products(warehouse, flavour, release, ["title", "brand", "category"])
    products = _under_todays_names(warehouse, release, assigned.products)
    kept = warehouse.tables.arrow(PREFIX_NAMES, flavour=flavour.name, release=release)
    rows = prefix_names(assigned.codes, products, previous=kept)
    polished = _polished(warehouse, flavour, release, rows, products)
    rows = _replaced(rows, "name", pc.coalesce(_of_prefixes(rows, polished.names), rows["name"]))
    with warehouse.spool(f"names-{flavour.name}-{release}") as spool:  # millions of rows are no frame to send
        pq.write_table(rows, spool / "names.parquet")
        frame = warehouse.spark.read.parquet(str(spool / "names.parquet"))
        written = warehouse.tables.replace(PREFIX_NAMES, frame, flavour=flavour.name, release=release)
    before = kept["name"].take(pc.index_in(rows["prefix"], value_set=kept["prefix"]))
    largest = rows.filter(pc.equal(rows["level"], 1)).sort_by([("products", "descending"), ("prefix", "ascending")])
    return Outcome(
        data_version=digest_lines(pc.binary_join_element_wise(rows["prefix"], rows["name"], " ")),
        metadata={
            "dagster/row_count": written,
            "names kept from the night before": pc.sum(pc.equal(before, rows["name"])).as_py() or 0,
            **polished.told,
            "largest": markdown_table(largest.slice(0, 25).to_pylist(), ["prefix", "name", "products", "words"]),
        },
        facts={"unpolished": polished.missing},  # asked for again whenever the asset is
    )


def _under_todays_names(warehouse: Warehouse, release: str, products: "pa.Table") -> "pa.Table":
    """The products with category paths under the names of the release's newest tree; what it does not know stays."""
    import pyarrow as pa

    from sid_pipeline.evaluation.metrics import numbered_paths

    tree = release_tree(warehouse, need_release(warehouse.tables, release))
    number, paths = numbered_paths(products["category"])
    today = [list(node.path) if (node := tree.find(path)) else list(path) for path in paths]
    found = pa.array([*today, None], pa.list_(pa.string())).take(pa.array(number % (len(paths) + 1)))
    return _replaced(products, "category", found)


def _polished(
    warehouse: Warehouse, flavour: Flavour, release: str, rows: "pa.Table", products: "pa.Table"
) -> "Polished":
    import pyarrow.compute as pc

    from sid_pipeline.polishing import polished_names

    wanted = rows.filter(pc.less_equal(rows["level"], warehouse.settings.report.polish_levels))
    shown = products.filter(pc.is_in(products["product_id"], value_set=pc.list_flatten(wanted["sample"])))
    titles = dict(zip(shown["product_id"].to_pylist(), shown["title"].to_pylist(), strict=True))
    return polished_names(warehouse, flavour.name, release, wanted.to_pylist(), titles)


def _of_prefixes(rows: "pa.Table", values: Mapping[str, str]) -> "pa.ChunkedArray":
    """The value of each row's prefix, null where there is none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    place = pc.index_in(rows["prefix"], value_set=pa.array(list(values), pa.string()))
    return pa.chunked_array([pa.array(list(values.values()), pa.string())]).take(place)


def _replaced(table: "pa.Table", name: str, values: Any) -> "pa.Table":
    return table.set_column(table.column_names.index(name), name, values)
