"""The static site to look at a release's vocabulary, all flavours in one."""

from typing import Any

import dagster as dg

from sid_pipeline.assets.assigned import (
    Assigned,
    active_rows,
    assigned_products,
    assigned_receipts,
    codes_of,
    further_tokens,
    looked_at,
)
from sid_pipeline.assets.assignment import STAGE as SEMANTIC_IDS_STAGE
from sid_pipeline.assets.comparison import COMPARISON
from sid_pipeline.assets.flavours import Flavour
from sid_pipeline.assets.names import NAMES
from sid_pipeline.assets.recording import (
    Markdown,
    Outcome,
    materialise,
    stage_failures,
)
from sid_pipeline.assets.report import REPORT
from sid_pipeline.files import digest
from sid_pipeline.partitions import releases
from sid_pipeline.publication.live import read_pointer
from sid_pipeline.receipts import MissingInput
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import PREFIX_NAMES, SEMANTIC_IDS
from sid_pipeline.trace import assigned_sids

EXPLORER = "explorer"


def explorer_assets(flavours: list[Flavour]) -> list[dg.AssetsDefinition]:
    """`explorer` of all flavours."""

    @dg.asset(
        name=EXPLORER,
        code_version="3",
        deps=[dg.AssetKey([flavour.name, stage]) for flavour in flavours for stage in (NAMES, REPORT)]
        + [dg.AssetKey(COMPARISON)],
        description="A static site to look at the vocabulary: the tree of prefixes with names and products, search, "
        "a product's page with its SIDs in every flavour, health charts, what is fragmented or suspicious, how the "
        "flavours differ and what changed. Opens from disk, with no network.",
        group_name="comparison",
        owners=flavours[0].settings.orchestration.owners,
        kinds={"html"},
        partitions_def=releases,
    )
    def explorer(context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse]) -> dg.MaterializeResult:
        release = context.partition_key
        with stage_failures(context, warehouse, EXPLORER):
            receipts = assigned_receipts(warehouse, flavours, release)
            shown = [flavour for flavour in flavours if flavour.name in receipts]
            before = {flavour.name: _previous_publication(warehouse, flavour.name, release) for flavour in shown}
            made = {
                flavour.name: {
                    **looked_at(warehouse, receipts[flavour.name]),
                    **{
                        stage: receipt.data_version
                        for stage in (NAMES, REPORT)
                        if (receipt := warehouse.receipts.get(flavour.key(stage), release)) is not None
                    },
                    "previous": before[flavour.name],
                }
                for flavour in shown
            }
        return materialise(
            context,
            warehouse.receipts,
            EXPLORER,
            made,
            lambda: _explore(warehouse, shown, release, made, before),
            still_there=lambda receipt: (warehouse.explorer(release) / "index.html").is_file(),
        )

    return [explorer]


def _explore(
    warehouse: Warehouse,
    flavours: list[Flavour],
    release: str,
    versions: dict[str, Any],
    before: dict[str, str | None],
) -> Outcome:
    from sid_pipeline.explorer.site import ExplorerInput, write_explorer

    if not flavours:
        raise MissingInput(f"no flavour has SIDs in release {release!r}: sid run --release {release}")
    columns = ["title", "brand", "category", "description"]
    loaded = {f.name: assigned_products(warehouse, f, release, columns) for f in flavours}
    rows: dict[str, dict[str, Any]] = {}
    for assigned in loaded.values():
        for row in assigned.table.to_pylist():
            rows.setdefault(row["product_id"], row)
    ids = sorted(rows)
    compared = warehouse.receipts.get(COMPARISON, release)
    index = write_explorer(
        warehouse.explorer(release),
        ExplorerInput(
            title="Semantic IDs",
            as_of_snapshot=max(assigned.snapshot for assigned in loaded.values()),
            product_ids=ids,
            titles=[rows[i]["title"] for i in ids],
            flavours=[_view(warehouse, f, release, loaded[f.name], ids, before[f.name]) for f in flavours],
            brands=[rows[i]["brand"] for i in ids],
            categories=[tuple(rows[i]["category"]) if rows[i]["category"] else None for i in ids],
            texts=[rows[i]["description"] or "" for i in ids],
            comparison=compared.facts.get("comparison") if compared else None,
        ),
    )
    size = sum(file.stat().st_size for file in index.parent.rglob("*") if file.is_file())
    return Outcome(
        data_version=digest([versions, ids]),
        metadata={
            "open": Markdown(f"`sid explorer` opens [{index}]({index.as_uri()}) in a browser."),
            "page": index.as_uri(),
            "products": len(ids),
            "megabytes": round(size / 1e6, 1),
        },
        facts={"page": index.relative_to(warehouse.state).as_posix()},
    )


def _view(
    warehouse: Warehouse, flavour: Flavour, release: str, assigned: Assigned, ids: list[str], before: str | None
) -> Any:
    """What the explorer shows of a flavour."""
    import json

    import numpy as np

    from sid_pipeline.explorer.site import ExplorerFlavour

    place = {product_id: row for row, product_id in enumerate(ids)}
    codes = np.full((len(ids), assigned.codes.shape[1]), -1, dtype=np.int64)
    codes[[place[product_id] for product_id in assigned.column("product_id")]] = assigned.codes
    names = warehouse.tables.arrow(PREFIX_NAMES, flavour=flavour.name, release=release)
    names = names.rename_columns({"products": "count", "brands": "top_brands", "sample": "sample_product_ids"})
    report = warehouse.reports(flavour.name, release) / "report.json"
    unusual = active_rows(warehouse, flavour, release).where("out_of_distribution").orderBy("distance", ascending=False)
    return ExplorerFlavour(
        flavour.name,
        release,
        codes,
        names=names if names.num_rows else None,
        report=json.loads(report.read_text(encoding="utf-8")) if report.is_file() else None,
        unusual=[row.asDict() for row in unusual.select("product_id", "distance", "margin").limit(50).collect()],
        previous=None if before is None else _changes(warehouse, flavour, release, before, assigned),
    )


def _changes(warehouse: Warehouse, flavour: Flavour, release: str, before: str, assigned: Assigned) -> Any:
    """How the SIDs differ from a publication, and for each moved product what last touched its row."""
    from sid_pipeline.evaluation.codebook_diff import diff
    from sid_pipeline.reader import Publication

    old = Publication(warehouse.store, before, hashes=False)
    rows = warehouse.tables.arrow(SEMANTIC_IDS, columns=["product_id", "change"], flavour=flavour.name, release=release)
    now = assigned_sids(warehouse, flavour.name, release)
    sids = old.sids()
    titles = dict(zip(assigned.column("product_id"), assigned.column("title"), strict=True))
    found = diff(
        {product: codes_of(sid) for product, sid in sids.items()},
        {product: codes_of(sid) for product, sid in now.items()},
        titles,
        examples=50,
        further=further_tokens(old, warehouse.receipts.need(flavour.key(SEMANTIC_IDS_STAGE), release)),
    )
    moved = {product for product, sid in now.items() if sids.get(product, sid) != sid}
    recoded = old.manifest["release"] != release
    why = {
        row["product_id"]: "recoded" if recoded else row["change"] or "unknown"
        for row in rows.to_pylist()
        if row["product_id"] in moved
    }
    return {**found, "why": why, "against": f"{old.manifest['release']} as of {old.manifest['as_of_snapshot']}"}


def _previous_publication(warehouse: Warehouse, flavour: str, release: str) -> str | None:
    """What came before a release's SIDs: its newest publication of an earlier day, else the live one of another
    release, else None. A folder of the store."""
    from sid_pipeline.publication.folder import finished, read_manifest

    assigned = warehouse.receipts.get(f"{flavour}/{SEMANTIC_IDS_STAGE}", release)
    if assigned is None:
        return None
    store = warehouse.store
    for folder in reversed(finished(store, flavour, release)):
        if read_manifest(store, folder)["as_of_snapshot"] < assigned.facts["as_of_snapshot"]:
            return folder
    pointer = read_pointer(store, flavour)
    return None if pointer is None or pointer["release"] == release else str(pointer["publication"])
