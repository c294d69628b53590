"""A taxonomy diff in words, rows and JSON, for people and for programs.

What belongs here: how a change is told. What does not: finding changes (`diff.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sid_pipeline.taxonomy.diff import BY_PRODUCTS, MINOR, TaxonomyDiff, Touched
from sid_pipeline.taxonomy.tree import Node, Taxonomy

KINDS = ("added", "removed", "renamed", "moved", "split", "merged")


def to_dict(
    changes: TaxonomyDiff, old: Taxonomy, new: Taxonomy, reach: Touched, max_minor_share: float
) -> dict[str, Any]:
    """All of a diff, JSON-able.

    Returns:
        class: `minor` or `major`; measured_by: `products` or `nodes`; share_touched and max_minor_share: what the
        class follows from; touched and of: the share's two numbers; share_touched_per_level (by products only);
        old and new: revision and number of nodes; the lists `added`, `removed`, `renamed`, `moved`, `split`,
        `merged` (a node of a split or merge is listed there only, unless it is renamed or moved too); and
        `sentences`.
    """
    regrouped = changes.regrouped
    rows = list(_rows(changes, reach))
    lists: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for row in rows:
        if not (row["kind"] in ("added", "removed") and row["node_id"] in regrouped):
            lists[row["kind"]].append({name: value for name, value in row.items() if name not in ("kind", "sentence")})
    return {
        "class": reach.change_class(max_minor_share),
        "measured_by": reach.by,
        "share_touched": reach.share,
        "max_minor_share": max_minor_share,
        "touched": reach.count,
        "of": reach.of,
        "share_touched_per_level": list(reach.per_level) if reach.by == BY_PRODUCTS else None,
        "old": {"revision": old.revision, "nodes": len(old.nodes)},
        "new": {"revision": new.revision, "nodes": len(new.nodes)},
        **lists,
        "sentences": [
            row["sentence"] for row in rows if not (row["kind"] in ("added", "removed") and row["node_id"] in regrouped)
        ],
    }


def verdict(told: Mapping[str, Any]) -> str:
    """One sentence from what `to_dict` gives: the class and why."""
    minor = told["class"] == MINOR
    what = (
        "products changed their category's path" if told["measured_by"] == BY_PRODUCTS else "nodes changed their path"
    )
    effect = "the frozen codebooks serve on, only names change" if minor else "a new vocabulary release is due"
    return (
        f"{told['class']}: {told['touched']:,} of {told['of']:,} {what} ({told['share_touched']:.2%}, "
        f"{'not more' if minor else 'more'} than taxonomy.max_minor_share, {told['max_minor_share']:.2%}): {effect}."
    )


def _rows(changes: TaxonomyDiff, reach: Touched) -> Iterator[dict[str, Any]]:
    """One row a change: kind, ids, paths, products (None when not known) and a sentence."""
    for node in changes.added:
        yield _row("added", node, None, node, _count(reach, None, node), f"{_at(node)} is new")
    for node in changes.removed:
        yield _row("removed", node, node, None, _count(reach, node, None), f"{_at(node)} is gone")
    for pair in changes.renamed:
        told = f"{_at(pair.old)} is now named {pair.new.name!r}"
        yield _row("renamed", pair.new, pair.old, pair.new, _count(reach, pair.old, pair.new), told)
    for pair in changes.moved:
        under = " > ".join(pair.new.path[:-1]) or "the top"
        told = f"{_at(pair.old)} moved to {under}"
        yield _row("moved", pair.new, pair.old, pair.new, _count(reach, pair.old, pair.new), told)
    for group in changes.split:
        (whole,) = group.old
        count = _count(reach, whole, None)
        told = f"{_at(whole)} was split into {_listed(group.new)}"
        yield _group("split", group.old, group.new, count, told)
    for group in changes.merged:
        (target,) = group.new
        counts = [_count(reach, node, None) for node in group.old]
        count = None if None in counts else sum(c or 0 for c in counts)
        told = f"{_listed(group.old)} were merged into {_at(target)}"
        yield _group("merged", group.old, group.new, count, told)


def _row(kind: str, node: Node, old: Node | None, new: Node | None, products: int | None, told: str) -> dict[str, Any]:
    row: dict[str, Any] = {"kind": kind, "node_id": node.node_id, "name": node.name}
    if old and new:
        row |= {"old_name": old.name, "old_path": list(old.path)}
        if old.node_id != new.node_id:
            row["old_node_id"] = old.node_id
    return {**row, "path": list(node.path), "leaf": node.leaf, "products": products, "sentence": _end(told, products)}


def _group(kind: str, old: tuple[Node, ...], new: tuple[Node, ...], products: int | None, told: str) -> dict[str, Any]:
    def side(nodes: tuple[Node, ...]) -> list[dict[str, Any]]:
        return [{"node_id": node.node_id, "name": node.name, "path": list(node.path)} for node in nodes]

    before, after = side(old), side(new)
    ends: dict[str, Any] = {"from": before[0], "into": after} if kind == "split" else {"from": before, "into": after[0]}
    return {"kind": kind, **ends, "products": products, "sentence": _end(told, products)}


def _count(reach: Touched, old: Node | None, new: Node | None) -> int | None:
    """Products below a node: before the change where it was there, else after it."""
    if reach.by != BY_PRODUCTS:
        return None
    if old is not None:
        return reach.old_products.get(old.node_id, 0)
    return reach.new_products.get(new.node_id, 0) if new is not None else 0


def _at(node: Node) -> str:
    return f"{' > '.join(node.path)!r} ({node.node_id})"


def _listed(nodes: tuple[Node, ...]) -> str:
    return " and ".join(_at(node) for node in nodes)


def _end(told: str, products: int | None) -> str:
    if products is None:
        return f"{told}."
    return f"{told}: {products:,} product{'' if products == 1 else 's'}."
