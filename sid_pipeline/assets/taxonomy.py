"""The first stage of the release plane: pin the release, and export its category tree."""

import json
from datetime import datetime, timezone

import dagster as dg
from pydantic import Field

from sid_pipeline.assets.recording import (
    Outcome,
    markdown_table,
    materialise,
    plain_failures,
    table_metadata,
)
from sid_pipeline.embedding.model import embedder_id
from sid_pipeline.files import digest
from sid_pipeline.partitions import from_snapshots, releases
from sid_pipeline.receipts import MissingInput, complete_snapshots
from sid_pipeline.releases import SERVED, Release, find_release, need_release
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import CLEANED_ATTRIBUTES, PRODUCTS, RELEASES, TAXONOMY_NODES
from sid_pipeline.settings import Settings
from sid_pipeline.taxonomy.tree import Taxonomy, TaxonomyError

TAXONOMY = "taxonomy"
FROM_PRODUCTS = "products"


class ReleaseConfig(dg.Config):
    """What a new release is pinned to; a release that exists keeps its pins."""

    taxonomy_source: str | None = Field(
        None, description="Taxonomy file, or 'products'. Default: taxonomy.source of the settings."
    )
    training_snapshot: str | None = Field(
        None,
        description="Snapshot that the codebooks train on (YYYY-MM-DD). Default: the newest complete one.",
    )
    asked_by: str = Field("", description="Who asks for the release.")
    reason: str = Field("", description="Why.")


def taxonomy_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """The taxonomy of a release."""

    @dg.asset(
        name=TAXONOMY,
        code_version="1",
        deps=[from_snapshots(PRODUCTS.name)],
        description=f"{TAXONOMY_NODES.description} Materialising it pins the release in the ledger.",
        group_name="release",
        owners=settings.orchestration.owners,
        kinds={"spark", "deltalake"},
        metadata=table_metadata(TAXONOMY_NODES),
        partitions_def=releases,
    )
    def taxonomy(
        context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse], config: ReleaseConfig
    ) -> dg.MaterializeResult:
        with plain_failures():
            pins = _pins(warehouse, context.partition_key, config)
        return materialise(
            context,
            warehouse.receipts,
            TAXONOMY,
            pins,
            lambda: _export(warehouse, context.partition_key, pins, config),
        )

    return [taxonomy]


def _pins(warehouse: Warehouse, release: str, config: ReleaseConfig) -> dict[str, object]:
    """What the release stands on: its pins in the ledger, or those that a new one takes."""
    settings = warehouse.settings
    pinned = find_release(warehouse.tables, release)
    if pinned is None:
        return {
            "taxonomy_source": config.taxonomy_source or settings.taxonomy.source,
            "training_snapshot": config.training_snapshot or _training_snapshot(warehouse),
            "embedder_ids": {
                name: embedder_id(settings.embedders[name], settings.root)
                for name in sorted({e for f in settings.active_flavours.values() for e in f.embedders})
            },
        }
    for name in ("taxonomy_source", "training_snapshot"):
        asked, has = getattr(config, name), getattr(pinned, name)
        if asked is not None and asked != has:
            raise MissingInput(
                f"release {release!r} is pinned to {name} {has!r} and cannot take {asked!r}: add a new release"
            )
    return {
        "taxonomy_source": pinned.taxonomy_source,
        "training_snapshot": pinned.training_snapshot,
        "embedder_ids": pinned.embedder_ids,
    }


def _training_snapshot(warehouse: Warehouse) -> str:
    """The newest snapshot complete for every flavour, else the newest complete for any: none waits for another."""
    complete = [
        set(complete_snapshots(warehouse.receipts, warehouse.settings, flavour))
        for flavour in warehouse.settings.active_flavours
    ]
    candidates = set.intersection(*complete) or set.union(*complete)
    if not candidates:
        raise MissingInput("no snapshot is complete: materialise products and the embeddings of a day first")
    return max(candidates)


def _export(warehouse: Warehouse, release: str, pins: dict, config: ReleaseConfig) -> Outcome:
    from pyspark.sql import functions as F

    tables, settings = warehouse.tables, warehouse.settings
    source, snapshot = pins["taxonomy_source"], pins["training_snapshot"]
    warehouse.receipts.need(PRODUCTS.name, snapshot)
    counted = (
        tables.read(PRODUCTS, snapshot=snapshot)
        .groupBy("category")
        .agg(F.count("*").alias("products"))
        .toArrow()
        .to_pylist()
    )
    tree = _read_tree(settings, source, [row["category"] for row in counted if row["category"]])
    if tree.bad_share > settings.taxonomy.max_bad_share:
        raise TaxonomyError(
            f"{len(tree.problems)} problems in taxonomy {source} ({tree.bad_share:.1%} of its nodes), more than "
            f"taxonomy.max_bad_share; the first: {tree.problems[0].message}"
        )

    placed: dict[str, int] = {}
    uncategorised = unknown = 0
    for row in counted:
        node = tree.find(row["category"]) if row["category"] else None
        if node is not None:
            placed[node.node_id] = placed.get(node.node_id, 0) + row["products"]
        elif row["category"]:
            unknown += row["products"]
        else:
            uncategorised += row["products"]
    nodes = [
        {
            "revision": tree.revision,
            "node_id": node.node_id,
            "parent_id": node.parent_id,
            "name": node.name,
            "path": list(node.path),
            "depth": node.depth,
            "leaf": node.leaf,
            "products": placed.get(node.node_id, 0),
        }
        for node in tree.nodes
    ]
    frame = warehouse.spark.createDataFrame(nodes, TAXONOMY_NODES.ddl(without=("release",)))
    rows = tables.replace(TAXONOMY_NODES, frame, release=release)
    if find_release(tables, release) is None:
        _pin(warehouse, pins, tree.revision, release, config)
    roots = [
        {
            "category": node.name,
            "nodes below": sum(1 for n in tree.nodes if n.path[0] == node.name) - 1,
            "products": sum(placed.get(n.node_id, 0) for n in tree.nodes if n.path[0] == node.name),
        }
        for node in tree.nodes
        if node.depth == 1
    ]
    return Outcome(
        data_version=digest([tree.revision, sorted(placed.items())]),
        metadata={
            "dagster/row_count": rows,
            "leaves": sum(node.leaf for node in tree.nodes),
            "depth": max(node.depth for node in tree.nodes),
            "training snapshot": snapshot,
            "source": source,
            "products without a category": uncategorised,
            "products of an unknown category": unknown,
            "problems": markdown_table(
                [{"node": p.node_id, "rule": p.rule, "message": p.message} for p in tree.problems[:50]],
                width=160,
            ),
            "top level": markdown_table(roots),
        },
        facts={"revision": tree.revision},
    )


def _read_tree(settings: Settings, source: str, catalogue_paths: list[list[str]]) -> Taxonomy:
    from sid_pipeline.taxonomy.sources import read_taxonomy

    if source != FROM_PRODUCTS:
        return read_taxonomy(settings.location(source))
    if not catalogue_paths:
        raise TaxonomyError("taxonomy.source is 'products', but no product of the snapshot has a category")
    return Taxonomy.from_paths(catalogue_paths)


def _pin(warehouse: Warehouse, pins: dict, revision: str, release: str, config: ReleaseConfig) -> None:
    cleaned = warehouse.receipts.get(CLEANED_ATTRIBUTES.name, pins["training_snapshot"])
    row = {
        "state": SERVED,
        "taxonomy_source": pins["taxonomy_source"],
        "taxonomy_revision": revision,
        "training_snapshot": pins["training_snapshot"],
        "embedder_ids": json.dumps(pins["embedder_ids"], sort_keys=True),
        "cleaner_id": cleaned.facts["cleaner_id"] if cleaned else None,
        "asked_by": config.asked_by or None,
        "reason": config.reason or None,
        "created_at": datetime.now(timezone.utc),
    }
    frame = warehouse.spark.createDataFrame([row], RELEASES.ddl(without=("release",)))
    warehouse.tables.replace(RELEASES, frame, release=release)


def release_tree(warehouse: Warehouse, release: str) -> tuple[Release, Taxonomy]:
    """A pinned release and its exported tree, read without Spark.

    Raises:
        MissingInput: the release has no exported taxonomy.
    """
    pinned = need_release(warehouse.tables, release)
    rows = warehouse.tables.arrow(TAXONOMY_NODES, columns=["node_id", "parent_id", "name"], release=release).to_pylist()
    if not rows:
        raise MissingInput(f"release {release!r} has no taxonomy: materialise taxonomy for it first")
    return pinned, Taxonomy.from_edges((row["node_id"], row["parent_id"], row["name"]) for row in rows)
