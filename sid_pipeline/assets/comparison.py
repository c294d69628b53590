"""Which products each flavour groups: the flavours of a release side by side."""

import dagster as dg

from sid_pipeline.assets.assigned import assigned_products, assigned_receipts, content
from sid_pipeline.assets.assignment import STAGE as SEMANTIC_IDS_STAGE
from sid_pipeline.assets.flavours import Flavour
from sid_pipeline.assets.recording import (
    Markdown,
    Outcome,
    materialise,
    stage_failures,
)
from sid_pipeline.files import digest
from sid_pipeline.partitions import releases
from sid_pipeline.resources.warehouse import Warehouse

COMPARISON = "flavour_comparison"


def comparison_assets(flavours: list[Flavour]) -> list[dg.AssetsDefinition]:
    """`flavour_comparison` of all flavours."""
    sids = [flavour.key(SEMANTIC_IDS_STAGE) for flavour in flavours]

    @dg.asset(
        name=COMPARISON,
        code_version="2",
        deps=[dg.AssetKey(key.split("/")) for key in sids],
        description="Which products each flavour groups: agreement of the flavours, and examples where they differ.",
        group_name="comparison",
        owners=flavours[0].settings.orchestration.owners,
        kinds={"numpy"},
        partitions_def=releases,
    )
    def flavour_comparison(
        context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse]
    ) -> dg.MaterializeResult:
        release = context.partition_key
        with stage_failures(context, warehouse, COMPARISON):
            receipts = assigned_receipts(warehouse, flavours, release)
            inputs = {name: content(warehouse, receipt) for name, receipt in receipts.items()}
        return materialise(
            context,
            warehouse.receipts,
            COMPARISON,
            inputs,
            lambda: _compare(warehouse, [f for f in flavours if f.name in receipts], release),
        )

    return [flavour_comparison]


def _compare(warehouse: Warehouse, flavours: list[Flavour], release: str) -> Outcome:
    from sid_pipeline.evaluation.comparison import CodeTable, compare_flavours

    if len(flavours) < 2:
        return Outcome("one flavour", metadata={"compared": "fewer than two flavours have SIDs in this release"})
    columns = ["title", "category"]
    loaded = [(f, assigned_products(warehouse, f, release, columns)) for f in flavours[:2]]
    first, second = (CodeTable(f.name, a.products, a.codes) for f, a in loaded)
    result = compare_flavours(first, second)
    text = result.pop("markdown")
    return Outcome(
        data_version=digest(result),
        metadata={"comparison": Markdown(text), "figures": {key: result[key] for key in ("items", "levels")}},
        facts={"comparison": result},
    )
