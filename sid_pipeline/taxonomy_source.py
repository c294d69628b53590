"""The configured taxonomy source, read and set against what a release stands on: nothing, minor or major?

Used by the `taxonomy` asset, its sensor, and `sid taxonomy plan`. Reads tables without Spark. What does not belong
here: the domain of trees (`taxonomy/`), and writing anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sid_pipeline.files import digest
from sid_pipeline.receipts import MissingInput, complete_snapshots
from sid_pipeline.releases import Release, need_release
from sid_pipeline.schemas import PRODUCTS, TAXONOMY_NODES
from sid_pipeline.settings import Settings
from sid_pipeline.taxonomy.tree import Taxonomy, TaxonomyError

if TYPE_CHECKING:
    from sid_pipeline.resources.warehouse import Warehouse
    from sid_pipeline.taxonomy.diff import TaxonomyDiff
    from sid_pipeline.taxonomy.matching import PathPairs

TAXONOMY = "taxonomy"
FROM_PRODUCTS = "products"
SAME = "same"
_STEP = "\x1f"


@dataclass(frozen=True)
class Change:
    """What a tree is to a release.

    kind: `same` (the release has this very revision already), else `minor` or `major`.
    tree: the tree, with ids and former paths that it has from the release's newest revision.
    trained, newest: the release's trees: the one its codebooks are trained on, and the one it serves now.
    changes: from `trained` to `tree`, so that many small steps add up.
    told: the changes as `taxonomy.wording.to_dict` gives them.
    """

    kind: str
    tree: Taxonomy
    trained: Taxonomy
    newest: Taxonomy
    changes: TaxonomyDiff
    told: dict[str, Any]


def source_fingerprint(warehouse: Warehouse, source: str, snapshot: str) -> str:
    """A hash that changes when the content of the source does; reads no tree.

    Args:
        source: a location, or `products`.
        snapshot: whose products name the categories, where the source is `products`.

    Raises:
        TaxonomyError: the source is not there.
    """
    from sid_pipeline.ingest.errors import InputError
    from sid_pipeline.ingest.source_files import fingerprint
    from sid_pipeline.taxonomy.sources import is_text

    settings = warehouse.settings.taxonomy
    how = {"separator": settings.separator, "columns": settings.columns.model_dump()}
    if source == FROM_PRODUCTS:
        return digest([how, sorted(map(str, category_counts(warehouse, snapshot)))])
    location = warehouse.settings.location(source)
    try:
        return digest([how, fingerprint(location, "csv" if is_text(location) else "auto", "[taxonomy] source")])
    except InputError as error:
        raise TaxonomyError(str(error)) from error


def read_source(settings: Settings, source: str, category_paths: Sequence[tuple[str, ...]]) -> Taxonomy:
    """The source's tree, with the ids it has there.

    Args:
        source: a location, or `products`.
        category_paths: of the catalogue, one per product or distinct; the tree where the source is `products`.

    Raises:
        TaxonomyError: the source cannot be read, is empty, or more of it is broken than `taxonomy.max_bad_share`.
    """
    from sid_pipeline.taxonomy.sources import read_taxonomy

    if source != FROM_PRODUCTS:
        tree = read_taxonomy(settings.location(source), settings.taxonomy.separator, settings.taxonomy.columns)
    elif category_paths:
        tree = Taxonomy.from_paths(category_paths)
    else:
        raise TaxonomyError("taxonomy.source is 'products', but no product of the snapshot has a category")
    if tree.bad_share > settings.taxonomy.max_bad_share:
        raise TaxonomyError(
            f"{len(tree.problems)} problems in taxonomy {source} ({tree.bad_share:.1%} of its nodes), more than "
            f"taxonomy.max_bad_share; the first: {tree.problems[0].message}"
        )
    return tree


def against(warehouse: Warehouse, tree: Taxonomy, release: str, snapshot: str) -> Change:
    """Set a tree that was read from a source against a release.

    Args:
        tree: as `read_source` gives it.
        release: a pinned release.
        snapshot: whose products measure the change.
    """
    from sid_pipeline.taxonomy.diff import diff, former_paths, touched
    from sid_pipeline.taxonomy.matching import inherit_ids
    from sid_pipeline.taxonomy.wording import to_dict

    pinned = need_release(warehouse.tables, release)
    newest = release_tree(warehouse, pinned)
    trained = newest
    if newest.revision != pinned.taxonomy_revision:
        trained = release_tree(warehouse, pinned, pinned.taxonomy_revision)
    products = product_paths(warehouse, pinned.training_snapshot, snapshot)
    step = diff(newest, tree, products)
    tree = inherit_ids(newest, tree, step.matching)
    tree = replace(tree, former=former_paths(step, newest, tree))
    changes = diff(trained, tree, products)
    reach = touched(changes, trained, tree, products)
    limit = warehouse.settings.taxonomy.max_minor_share
    kind = SAME if tree.revision == newest.revision else reach.change_class(limit)
    return Change(kind, tree, trained, newest, changes, to_dict(changes, trained, tree, reach, limit))


def release_tree(warehouse: Warehouse, release: Release, revision: str | None = None) -> Taxonomy:
    """A release's exported tree.

    Args:
        revision: None takes the newest; the table keeps that one and the one the codebooks are trained on.

    Raises:
        MissingInput: the release has no such tree.
    """
    columns = ["node_id", "parent_id", "name", "former", "revision"]
    rows = warehouse.tables.arrow(TAXONOMY_NODES, columns=columns, release=release.release).to_pylist()
    if revision is None:
        later = {row["revision"] for row in rows} - {release.taxonomy_revision}
        revision = next(iter(later), release.taxonomy_revision)
    rows = [row for row in rows if row["revision"] == revision]
    if not rows:
        raise MissingInput(
            f"release {release.release!r} has no taxonomy of revision {revision}: materialise taxonomy for it first "
            f"(sid run --release {release.release})"
        )
    tree = Taxonomy.from_edges((row["node_id"], row["parent_id"], row["name"]) for row in rows)
    former = {tuple(path.split(_STEP)): row["node_id"] for row in rows for path in row["former"] or ()}
    return replace(tree, former=former)


def node_rows(tree: Taxonomy, products: dict[str, int]) -> list[dict[str, Any]]:
    """Rows of `taxonomy_nodes` without the release.

    Args:
        products: node id to products placed at this very node.
    """
    former: dict[str, list[str]] = {}
    for path, node_id in tree.former.items():
        former.setdefault(node_id, []).append(_STEP.join(path))
    return [
        {
            "revision": tree.revision,
            "node_id": node.node_id,
            "parent_id": node.parent_id,
            "name": node.name,
            "path": list(node.path),
            "depth": node.depth,
            "leaf": node.leaf,
            "products": products.get(node.node_id, 0),
            "former": sorted(former.get(node.node_id, [])),
        }
        for node in tree.nodes
    ]


def category_counts(warehouse: Warehouse, snapshot: str) -> dict[tuple[str, ...] | None, int]:
    """A snapshot's products by category path; None for those without one."""
    return {after: count for (_, after), count in product_paths(warehouse, snapshot, snapshot).items()}


def product_paths(warehouse: Warehouse, before: str, after: str) -> PathPairs:
    """Products by category path in two snapshots, joined by product id; of one snapshot both paths are the same."""
    import pyarrow.compute as pc

    def read(snapshot: str, name: str) -> Any:
        columns = ["product_id", "category"] if before != after else ["category"]
        rows = warehouse.tables.arrow(PRODUCTS, columns=columns, snapshot=snapshot)
        joined = pc.binary_join(rows["category"], _STEP)
        return rows.drop_columns(["category"]).append_column(name, joined)

    if before == after:
        counted = read(after, "after").group_by("after").aggregate([([], "count_all")]).to_pylist()
        pairs = [(row["after"], row["after"], row["count_all"]) for row in counted]
    else:
        both = read(before, "before").join(read(after, "after"), "product_id", join_type="inner")
        counted = both.group_by(["before", "after"]).aggregate([([], "count_all")]).to_pylist()
        pairs = [(row["before"], row["after"], row["count_all"]) for row in counted]
    products: Counter[Any] = Counter()
    for old, new, count in pairs:
        products[_path(old), _path(new)] += count
    return products


def _path(joined: str | None) -> tuple[str, ...] | None:
    return tuple(joined.split(_STEP)) if joined else None


def newest_snapshot(warehouse: Warehouse) -> str:
    """The newest snapshot complete for every flavour, else the newest complete for any: none waits for another.

    Raises:
        MissingInput: no snapshot is complete.
    """
    complete = [
        set(complete_snapshots(warehouse.receipts, warehouse.settings, flavour))
        for flavour in warehouse.settings.active_flavours
    ]
    candidates = set.intersection(*complete) or set.union(*complete)
    if not candidates:
        raise MissingInput("no snapshot is complete: take a day first (sid run --snapshot DAY)")
    return max(candidates)
