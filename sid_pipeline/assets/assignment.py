"""Semantic IDs of the full catalogue: a snapshot's vectors through the release's frozen codebook, in Spark."""

from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from sid_pipeline.assets.flavours import Flavour, check_joined, choose_snapshot, embedding_receipts
from sid_pipeline.assets.recording import (
    Check,
    Earlier,
    Markdown,
    Outcome,
    markdown_table,
    materialise,
    stage_failures,
    table_metadata,
)
from sid_pipeline.assets.training import CODEBOOK, TRAINING_SET, flavour_catalogue
from sid_pipeline.ingest.errors import InputError
from sid_pipeline.receipts import Receipt
from sid_pipeline.releases import Release, release_to_build
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import ACTIVE, ASSIGNED, PRODUCTS, SEMANTIC_IDS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from sid_pipeline.assignment.refresh import Inspection

STAGE = "semantic_ids"
TOUCHED = "changed: "  # figures of what a night touched


class SnapshotConfig(dg.Config):
    """Which day the SIDs stand on."""

    as_of_snapshot: str | None = Field(
        None, description="Snapshot to assign (YYYY-MM-DD). Default: the newest complete one."
    )
    force: bool = Field(False, description="Accept a snapshot older than the one the SIDs stand on now.")


def assignment_assets(flavour: Flavour) -> list[dg.AssetsDefinition]:
    """`semantic_ids` of a flavour."""
    key = flavour.key(STAGE)

    @flavour.asset(
        STAGE,
        [flavour.key(CODEBOOK)],
        SEMANTIC_IDS.description,
        {"spark", "deltalake", "numpy"},
        snapshot_deps=[f"{name}_embeddings" for name in flavour.embedders],
        metadata=table_metadata(SEMANTIC_IDS),
        check_specs=[
            dg.AssetCheckSpec(
                "every_product_has_one_sid",
                asset=dg.AssetKey([flavour.name, STAGE]),
                blocking=True,
                description="Every product of the snapshot has exactly one row, with a SID or a listed reason, "
                "and products without a SID stay under assignment.max_missing_share.",
            ),
            dg.AssetCheckSpec(
                "codes_in_range",
                asset=dg.AssetKey([flavour.name, STAGE]),
                blocking=True,
                description="Every code lies within its codebook and every SID spells its codes.",
            ),
        ],
        pool="spark",
    )
    def semantic_ids(
        context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse], config: SnapshotConfig
    ) -> dg.MaterializeResult:
        with stage_failures(context, warehouse, key):
            release = release_to_build(warehouse.tables, context.partition_key)
            snapshot = choose_snapshot(warehouse, flavour, config.as_of_snapshot)
            if (last := warehouse.receipts.get(key, release.release)) is not None:
                _refuse_going_back(snapshot, config, last.facts["as_of_snapshot"])
            check_joined(flavour, warehouse.receipts.need(flavour.key(TRAINING_SET), release.release))
            codebook = warehouse.receipts.need(flavour.key(CODEBOOK), release.release)
            embeddings = embedding_receipts(warehouse, flavour, release, snapshot)
        return materialise(
            context,
            warehouse.receipts,
            key,
            {
                "as_of_snapshot": snapshot,
                "products": warehouse.receipts.need(PRODUCTS.name, snapshot).data_version,
                "embeddings": [receipt.data_version for receipt in embeddings],
                "embedders": flavour.joined,
                "codebook": codebook.facts["codebook_id"],
                "collision_policy": str(flavour.policy),
                "max_missing_share": warehouse.settings.assignment.max_missing_share,
            },
            lambda: _assign(warehouse, flavour, release, snapshot, codebook, config),
            earlier=Earlier(
                lambda: warehouse.receipts.get(key, release.release),
                lambda receipt: _stand(receipt, snapshot, config),
                but_for=frozenset({"as_of_snapshot"}),
            ),
        )

    return [semantic_ids]


def _refuse_going_back(snapshot: str, config: SnapshotConfig, standing: str) -> None:
    """Refuse an older snapshot than the one the SIDs stand on. One that nobody named is the newest complete one."""
    if snapshot < standing and not config.force:
        if config.as_of_snapshot is None:
            raise InputError(
                f"the SIDs of this release stand on {standing}, which was to be made anew and did "
                f"not come to its end (the newest complete snapshot is {snapshot}): mend that day and materialise it "
                "again; what is live stays"
            )
        raise InputError(
            f"snapshot {snapshot} is older than {standing}, which the SIDs of this release stand "
            "on: set force to go back"
        )


def _stand(receipt: Receipt, snapshot: str, config: SnapshotConfig) -> Outcome:
    """The SIDs as they are, standing on another day with the same products, vectors and codebook."""
    _refuse_going_back(snapshot, config, receipt.facts["as_of_snapshot"])
    told: dict[str, object] = {name: 0 for name in receipt.metadata if name.startswith(TOUCHED)}
    told |= {"as of snapshot": snapshot, "rows written": 0, "whole slice": False}
    return Outcome.again(receipt, told, {"as_of_snapshot": snapshot})


def _assign(
    warehouse: Warehouse,
    flavour: Flavour,
    release: Release,
    snapshot: str,
    trained: Receipt,
    config: SnapshotConfig,
) -> Outcome:
    from pyspark.sql import functions as F

    from sid_pipeline.assignment.assign import Assigner
    from sid_pipeline.assignment.refresh import OlderSnapshot, inspect, refresh
    from sid_pipeline.rqvae import Codebook

    tables = warehouse.tables
    codebook = Codebook.load(warehouse.state / trained.facts["folder"])
    catalogue = flavour_catalogue(warehouse, flavour, release, snapshot, ["product_id"])
    assigner = Assigner(codebook, flavour.weights, flavour.policy, snapshot)
    try:
        done = refresh(tables, catalogue, assigner, flavour.name, release.release, force=config.force)
    except OlderSnapshot as older:  # written since this run looked, or by one that was killed before its receipt
        _refuse_going_back(snapshot, config, older.standing)
        raise

    written = tables.read(SEMANTIC_IDS, flavour=flavour.name, release=release.release)
    products = tables.read(PRODUCTS, snapshot=snapshot).select("product_id", "title")
    seen = inspect(written, products, codebook.levels, codebook.codebook_size, snapshot)
    here = written.where(ACTIVE)
    sample = here.where(ASSIGNED).orderBy("base_sid", "product_id").limit(20)
    unassigned = here.where(~F.expr(ASSIGNED)).select("product_id", "reason").orderBy("product_id").limit(20)
    odd = here.where("out_of_distribution").orderBy(F.desc("distance"), "product_id").limit(20)
    return Outcome(
        data_version=seen.fingerprint,
        metadata={
            "dagster/row_count": seen.active,
            "as of snapshot": snapshot,
            "rows written": done.touched,
            "whole slice": done.whole,
            **{f"{TOUCHED}{name}": number for name, number in seen.changes.items()},
            "assigned": seen.assigned,
            "without a SID": seen.active - seen.assigned,
            "withdrawn, kept as tombstones": seen.withdrawn,
            "out of distribution": seen.out_of_distribution,
            "distinct SIDs": seen.distinct,
            **{f"usage L{level}": used / codebook.codebook_size for level, used in enumerate(seen.used, 1)},
            "mean distance": seen.mean_distance,
            "codebook": codebook.id,
            "some SIDs": _titled(sample, products, ["published_sid", "product_id", "title"]),
            "farthest from what the codebook knows": _titled(odd, products, ["distance", "product_id", "title"]),
            "unassigned": markdown_table([row.asDict() for row in unassigned.collect()]),
        },
        facts={"as_of_snapshot": snapshot, "codebook_id": codebook.id, "rows": seen.active},
        checks=_checks(seen, codebook.codebook_size, warehouse.settings.assignment.max_missing_share),
    )


def _titled(rows: "DataFrame", products: "DataFrame", columns: list[str]) -> Markdown:
    """A few rows with their products' titles, in the rows' order."""
    from pyspark.sql import functions as F

    found = [row.asDict() for row in rows.select(*[c for c in columns if c != "title"]).collect()]
    wanted = products.where(F.col("product_id").isin([row["product_id"] for row in found]))
    titles = {row["product_id"]: row["title"] for row in wanted.collect()}
    return markdown_table([{**row, "title": titles.get(row["product_id"])} for row in found], columns)


def _checks(seen: "Inspection", codebook_size: int, allowed: float) -> tuple[Check, ...]:
    missing = seen.active - seen.assigned
    share = missing / max(seen.active, 1)
    return (
        Check(
            "every_product_has_one_sid",
            seen.same_products and not seen.unexplained and share <= allowed,
            f"{seen.active} rows of active products, {'each' if seen.same_products else 'NOT each'} product of the "
            f"snapshot once; {missing} without a SID ({share:.2%}, allowed {allowed:.2%}), {seen.unexplained} without "
            "a reason.",
            {"rows": seen.active, "without a SID": missing},
        ),
        Check(
            "codes_in_range",
            not seen.bad_codes,
            f"{seen.bad_codes} rows have a code outside 0..{codebook_size - 1} or a SID that does not spell its codes.",
            {"bad rows": seen.bad_codes},
        ),
    )
