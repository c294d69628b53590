"""The static site to look at a release's vocabulary, all flavours in one."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dagster as dg

from sid_pipeline.assets.assigned import assigned_receipts, base_codes, described, further_tokens, looked_at
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
from sid_pipeline.files import digest, digest_lines
from sid_pipeline.partitions import releases
from sid_pipeline.publication.live import read_pointer
from sid_pipeline.receipts import MissingInput
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import PREFIX_NAMES, SEMANTIC_IDS
from sid_pipeline.trace import assigned_sids, product_titles

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from sid_pipeline.explorer.site import ExplorerFlavour

EXPLORER = "explorer"
SHOWN = 50  # products in a list


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
    import pyarrow as pa

    from sid_pipeline.explorer.site import ExplorerInput, held_rows, write_explorer

    if not flavours:
        raise MissingInput(f"no flavour has SIDs in release {release!r}: sid run --release {release}")
    coded = {f.name: base_codes(warehouse, f, release) for f in flavours}
    every = pa.concat_tables([pa.table({"product_id": ids}) for ids, _ in coded.values()])
    every = every.group_by("product_id").aggregate([]).sort_by("product_id")["product_id"]
    held = every.take(held_rows([_of_products(every, *coded[f.name]) for f in flavours]))
    days = sorted({versions[f.name]["as_of_snapshot"] for f in flavours}, reverse=True)
    products = described(warehouse, days, held, ["title", "brand", "category", "description"])
    total = len(every) - (len(held) - len(products))
    compared = warehouse.receipts.get(COMPARISON, release)
    views = []
    for f in flavours:
        codes = _of_products(products["product_id"], *coded[f.name])
        view = _view(warehouse, f, release, codes, cut=len(held) < len(every), before=before[f.name])
        views.append(replace(view, without_sid=len(every) - len(coded[f.name][0])))
    index = write_explorer(
        warehouse.explorer(release),
        ExplorerInput(
            title="Semantic IDs",
            as_of_snapshot=days[0],
            products=products,
            flavours=views,
            total=total,
            comparison=compared.facts.get("comparison") if compared else None,
        ),
    )
    size = sum(file.stat().st_size for file in index.parent.rglob("*") if file.is_file())
    return Outcome(
        data_version=digest([versions, digest_lines(every)]),
        metadata={
            "open": Markdown(f"`sid explorer` opens [{index}]({index.as_uri()}) in a browser."),
            "page": index.as_uri(),
            "products": total,
            "products that it holds": len(products),
            "megabytes": round(size / 1e6, 1),
        },
        facts={"page": index.relative_to(warehouse.state).as_posix()},
    )


def _of_products(wanted: "pa.ChunkedArray", product_ids: "pa.ChunkedArray", codes: "np.ndarray") -> "np.ndarray":
    """The codes of the products wanted, -1 where they have none."""
    import numpy as np
    import pyarrow.compute as pc

    place = pc.fill_null(pc.index_in(wanted, value_set=product_ids), len(codes)).to_numpy()
    return np.vstack([codes, np.full((1, codes.shape[1]), -1, codes.dtype)])[place]


def _view(
    warehouse: Warehouse, flavour: Flavour, release: str, codes: "np.ndarray", *, cut: bool, before: str | None
) -> "ExplorerFlavour":
    """What the explorer shows of a flavour."""
    import json

    import pyarrow.compute as pc

    from sid_pipeline.explorer.site import LEVELS_WHEN_CUT, ExplorerFlavour

    levels = pc.field("level") <= (LEVELS_WHEN_CUT if cut else codes.shape[1])
    names = warehouse.tables.arrow(PREFIX_NAMES, filters=levels, flavour=flavour.name, release=release)
    report = warehouse.reports(flavour.name, release) / "report.json"
    odd = pc.field("out_of_distribution") & pc.field("withdrawn_on").is_null() & pc.field("base_sid").is_valid()
    columns = ["product_id", "distance", "margin"]
    unusual = warehouse.tables.arrow(SEMANTIC_IDS, columns, odd, flavour=flavour.name, release=release)
    unusual = unusual.sort_by([("distance", "descending"), ("product_id", "ascending")]).slice(0, SHOWN)
    return ExplorerFlavour(
        flavour.name,
        release,
        codes,
        names=names if len(names) else None,
        report=json.loads(report.read_text(encoding="utf-8")) if report.is_file() else None,
        unusual=unusual.to_pylist(),
        previous=None if before is None else _changes(warehouse, flavour, release, before),
    )


def _changes(warehouse: Warehouse, flavour: Flavour, release: str, before: str) -> dict[str, Any]:
    """How the SIDs differ from a publication, and what last touched the rows of the products that moved."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from sid_pipeline.evaluation.codebook_diff import diff
    from sid_pipeline.reader import Publication

    assigned = warehouse.receipts.need(flavour.key(SEMANTIC_IDS_STAGE), release)
    old = Publication(warehouse.store, before, hashes=False)
    now = assigned_sids(warehouse, flavour.name, release)
    found = diff(
        old.table,
        now,
        lambda product_ids: product_titles(warehouse, assigned.facts["as_of_snapshot"], product_ids),
        examples=SHOWN,
        further=further_tokens(old, assigned),
    )
    had = old.table["sid"].take(pc.index_in(now["product_id"], value_set=old.table["product_id"]))
    moved = now.filter(pc.fill_null(pc.not_equal(had, now["sid"]), False)).select(["product_id"])
    if old.manifest["release"] == release:
        rows = warehouse.tables.arrow(SEMANTIC_IDS, ["product_id", "change"], flavour=flavour.name, release=release)
        why = rows["change"].take(pc.index_in(moved["product_id"], value_set=rows["product_id"]))
        moved = moved.append_column("why", pc.fill_null(why, "unknown"))
    else:
        moved = moved.append_column("why", pa.repeat("recoded", len(moved)))
    reasons = {row["values"]: row["counts"] for row in moved["why"].value_counts().to_pylist()}
    examples = pa.array([row["product_id"] for row in found["moved_examples"]], pa.string())
    shown = moved.filter(pc.is_in(moved["product_id"], value_set=examples))
    told = dict(zip(shown["product_id"].to_pylist(), shown["why"].to_pylist(), strict=True))
    return {
        **found,
        "moved_examples": [{**row, "why": told.get(row["product_id"], "")} for row in found["moved_examples"]],
        "reasons": dict(sorted(reasons.items())),
        "against": f"{old.manifest['release']} as of {old.manifest['as_of_snapshot']}",
    }


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
