"""Semantic IDs of the full catalogue: a snapshot's vectors through the release's frozen codebook, in Spark."""

import dagster as dg
from pydantic import Field

from sid_pipeline.assets.flavours import Flavour, check_joined, choose_snapshot, embedding_receipts
from sid_pipeline.assets.recording import (
    Check,
    Outcome,
    markdown_table,
    materialise,
    plain_failures,
    table_metadata,
)
from sid_pipeline.assets.training import CODEBOOK, TRAINING_SET, snapshot_vectors
from sid_pipeline.ingest.errors import InputError
from sid_pipeline.receipts import Receipt
from sid_pipeline.releases import Release, need_release
from sid_pipeline.resources.tables import fingerprint
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import PRODUCTS, SEMANTIC_IDS

STAGE = "semantic_ids"


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
        with plain_failures():
            release = need_release(warehouse.tables, context.partition_key)
            snapshot = choose_snapshot(warehouse, flavour, config.as_of_snapshot)
            _refuse_going_back(warehouse.receipts.get(key, release.release), snapshot, config.force)
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
                "max_missing_share": warehouse.settings.assignment.max_missing_share,
            },
            lambda: _assign(warehouse, flavour, release, snapshot, codebook),
        )

    return [semantic_ids]


def _refuse_going_back(last: Receipt | None, snapshot: str, force: bool) -> None:
    if last is not None and snapshot < last.facts["as_of_snapshot"] and not force:
        raise InputError(
            f"snapshot {snapshot} is older than {last.facts['as_of_snapshot']}, which the SIDs of this release stand "
            "on: set force to go back"
        )


def _assign(warehouse: Warehouse, flavour: Flavour, release: Release, snapshot: str, trained: Receipt) -> Outcome:
    from pyspark.sql import functions as F

    from sid_pipeline.assignment.assign import assign
    from sid_pipeline.rqvae import Codebook

    tables = warehouse.tables
    codebook = Codebook.load(warehouse.state / trained.facts["folder"])
    vectors = snapshot_vectors(warehouse, flavour, release, snapshot, ["product_id"])
    rows = tables.replace(
        SEMANTIC_IDS,
        assign(vectors, codebook, flavour.weights, snapshot),
        flavour=flavour.name,
        release=release.release,
    )

    written = tables.read(SEMANTIC_IDS, flavour=flavour.name, release=release.release)
    products = tables.read(PRODUCTS, snapshot=snapshot).select("product_id", "title")
    code = F.col("codes")
    spelt = F.array_join(F.transform(code, lambda c: c.cast("string")), "_")
    out_of_range = F.exists(code, lambda c: (c < 0) | (c >= codebook.codebook_size))
    counts = (
        written.agg(
            F.countDistinct("product_id").alias("products"),
            F.count("base_sid").alias("assigned"),
            F.countDistinct("base_sid").alias("distinct"),
            F.sum((F.col("base_sid").isNull() & F.col("reason").isNull()).cast("long")).alias("unexplained"),
            F.sum((out_of_range | (spelt != F.col("base_sid"))).cast("long")).alias("bad_codes"),
            F.avg("distance").alias("mean_distance"),
            *[F.countDistinct(code[level]).alias(f"used_{level}") for level in range(codebook.levels)],
        )
        .collect()[0]
        .asDict()
    )
    active = products.count()
    absent = products.join(written, "product_id", "left_anti").count()
    missing = active - counts["assigned"]
    allowed = warehouse.settings.assignment.max_missing_share
    one_each = rows == counts["products"] == active and not absent and not counts["unexplained"]
    share = missing / max(active, 1)
    checks = (
        Check(
            "every_product_has_one_sid",
            one_each and share <= allowed,
            f"{active} products, {rows} rows for {counts['products']} of them, {missing} without a SID ({share:.2%}, "
            f"allowed {allowed:.2%}), {counts['unexplained'] or 0} without a reason.",
            {"products": active, "rows": rows, "without a SID": missing},
        ),
        Check(
            "codes_in_range",
            not counts["bad_codes"],
            f"{counts['bad_codes'] or 0} rows have a code outside 0..{codebook.codebook_size - 1} or a SID that does "
            "not spell its codes.",
            {"bad rows": counts["bad_codes"] or 0},
        ),
    )
    sample = written.join(products, "product_id").where("base_sid is not null").orderBy("base_sid", "product_id")
    unassigned = written.where("base_sid is null").select("product_id", "reason").orderBy("product_id").limit(20)
    return Outcome(
        data_version=fingerprint(written.select("product_id", "published_sid", "codebook_id")),
        metadata={
            "dagster/row_count": rows,
            "as of snapshot": snapshot,
            "assigned": counts["assigned"],
            "without a SID": missing,
            "distinct SIDs": counts["distinct"],
            **{
                f"usage L{level + 1}": counts[f"used_{level}"] / codebook.codebook_size
                for level in range(codebook.levels)
            },
            "mean distance": counts["mean_distance"] or 0.0,
            "codebook": codebook.id,
            "some SIDs": markdown_table(
                [row.asDict() for row in sample.limit(20).collect()], ["base_sid", "product_id", "title"]
            ),
            "unassigned": markdown_table([row.asDict() for row in unassigned.collect()]),
        },
        facts={"as_of_snapshot": snapshot, "codebook_id": codebook.id, "rows": rows},
        checks=checks,
    )
