"""What would change for readers: a release's SIDs against what is live."""

from typing import Any

import dagster as dg

from sid_pipeline.assets.assigned import further_tokens
from sid_pipeline.assets.assignment import STAGE as SEMANTIC_IDS_STAGE
from sid_pipeline.assets.flavours import Flavour
from sid_pipeline.assets.recording import (
    Markdown,
    Outcome,
    materialise,
    stage_failures,
)
from sid_pipeline.assets.training import CODEBOOK
from sid_pipeline.files import digest
from sid_pipeline.publication.live import read_pointer
from sid_pipeline.receipts import Receipt
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.trace import assigned_sids

DIFF = "codebook_diff"


def diff_assets(flavour: Flavour) -> list[dg.AssetsDefinition]:
    """`codebook_diff` of a flavour."""
    sids = flavour.key(SEMANTIC_IDS_STAGE)

    @flavour.asset(
        DIFF,
        [sids],
        "What would change for readers: this release's SIDs against the flavour's live publication. Against another "
        "release also why each product moved, by category, and where each token went (token_map.parquet).",
        {"numpy"},
        code_version="2",
    )
    def codebook_diff(
        context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse]
    ) -> dg.MaterializeResult:
        release = context.partition_key
        with stage_failures(context, warehouse, flavour.key(DIFF)):
            assigned = warehouse.receipts.need(sids, release)
            live = read_pointer(warehouse.published, flavour.name)
        return materialise(
            context,
            warehouse.receipts,
            flavour.key(DIFF),
            {"semantic_ids": assigned.data_version, "live": live["publication"] if live else None},
            lambda: _diff(warehouse, flavour, release, assigned),
        )

    return [codebook_diff]


def _diff(warehouse: Warehouse, flavour: Flavour, release: str, assigned: Receipt) -> Outcome:
    from sid_pipeline.evaluation.codebook_diff import diff
    from sid_pipeline.reader import open_live

    if read_pointer(warehouse.published, flavour.name) is None:
        return Outcome("nothing live", metadata={"compared with": "nothing of this flavour is live yet"})
    live = open_live(flavour.name, warehouse.published, hashes=False)
    new = assigned_sids(warehouse, flavour.name, release)
    result = diff(live.table, new, further=further_tokens(live, assigned))
    text = result.pop("markdown")
    return Outcome(
        data_version=digest(result),
        metadata={
            "compared with": live.folder,
            "diff": Markdown(text),
            "figures": result,
            **_churn(warehouse, flavour, release),
        },
    )


def _churn(warehouse: Warehouse, flavour: Flavour, release: str) -> dict[str, Any]:
    """What going over from the live release would cost its readers; nothing where this is the live one."""
    from sid_pipeline.churn import churn

    pointer = read_pointer(warehouse.published, flavour.name)
    if pointer is None or pointer["release"] == release:
        return {}
    snapshot = warehouse.receipts.need(flavour.key(SEMANTIC_IDS_STAGE), release).facts["as_of_snapshot"]
    found = churn(warehouse, flavour.name, pointer["release"], release, snapshot)
    if found is None:
        return {}
    trained = warehouse.receipts.need(flavour.key(CODEBOOK), release)
    aligned = (trained.metadata.get("manifest") or {}).get("json", {}).get("aligned", {})
    shares = {"kept as trained": aligned.get("kept_before"), "kept after alignment": aligned.get("kept")}
    return {
        **{f"kept L1..L{level}": share for level, share in enumerate(found.kept, 1)},
        **{f"moved: {reason}": count for reason, count in found.reasons.items()},
        "moved by category": Markdown(found.by_category),
        "alignment (training set)": {
            "to": aligned.get("to"),
            "warm start from": trained.inputs.get("start_from"),
            **shares,
        },
        "token map and moved products": found.save(warehouse, flavour.name, release),
    }
