"""What changed between two trees, what it touches, and whether that is worth a new vocabulary.

What belongs here: the changes, applying them, the share of products or nodes whose supervision they change, and the
class of a change. What does not: deciding which node is which (`matching.py`), words for people (`wording.py`).

A product's *supervision* is its category's path of nodes, level by level, as the contrastive term of the codebooks
sees it. A rename changes no node and so touches nothing; a move, a split, a merge and a removal do.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sid_pipeline.taxonomy.matching import MAJORITY, Matching, PathPairs, joint_counts, match, words
from sid_pipeline.taxonomy.tree import Node, Taxonomy, normalise_path

MINOR, MAJOR = "minor", "major"
BY_PRODUCTS, BY_NODES = "products", "nodes"
# Share of the products that a part, or a sum, of an old leaf must hold to be that leaf under another name.
HEIR = 0.8


@dataclass(frozen=True)
class Pair:
    """One node before and after."""

    old: Node
    new: Node


@dataclass(frozen=True)
class Regrouping:
    """A split (one node before) or a merge (one node after). A node that lives on stands on both sides."""

    old: tuple[Node, ...]
    new: tuple[Node, ...]


@dataclass(frozen=True)
class TaxonomyDiff:
    """The changes that turn one tree into another; `apply` does it.

    added, removed: every node that is in one tree only, those of splits and merges included.
    renamed: another name, also when only its spelling differs.
    moved: under another parent (another node, not merely a renamed one).
    renumbered: the same node by another id.
    split, merged: what became of nodes that were divided or put together; their nodes are also in `added`,
        `removed` or neither.
    matching: identity, node by node.
    follow: (old nodes,) where a product of a node stands in the new tree: in the same node, in the one it was
        merged into, else where its parent's products do; -1 for nowhere.
    """

    added: tuple[Node, ...]
    removed: tuple[Node, ...]
    renamed: tuple[Pair, ...]
    moved: tuple[Pair, ...]
    renumbered: tuple[Pair, ...]
    split: tuple[Regrouping, ...]
    merged: tuple[Regrouping, ...]
    matching: Matching = field(repr=False)
    follow: tuple[int, ...] = field(repr=False)

    @property
    def regrouped(self) -> frozenset[str]:
        """Ids of nodes of either tree that are part of a split or a merge."""
        groups = (*self.split, *self.merged)
        return frozenset(node.node_id for group in groups for node in (*group.old, *group.new))


def diff(old: Taxonomy, new: Taxonomy, products: PathPairs | None = None) -> TaxonomyDiff:
    """The changes from one tree to another.

    Args:
        old, new: the trees.
        products: category paths before and after -> number of products. Where the two differ they are evidence of
            which node is which; None and equal paths are none.
    """
    joint = joint_counts(old, new, products or {})
    matching = match(old, new, joint)
    old_parent, new_parent = old.parents(), new.parents()
    pairs = [(o, n) for o, n in enumerate(matching.new_of) if n >= 0]

    def moved(o: int, n: int) -> bool:
        above_old, above_new = old_parent[o], new_parent[n]
        if above_old < 0 or above_new < 0:
            return above_old >= 0 or above_new >= 0
        return matching.new_of[above_old] != above_new

    split, merged = _regroupings(old, new, matching, joint)
    weak = _weak_heirs(old, new, matching, joint, (*split, *merged))
    if weak:
        matching = matching.without(weak)
        split, merged = _regroupings(old, new, matching, joint)
        pairs = [(o, n) for o, n in pairs if o not in weak]
    both = [(Pair(old.nodes[o], new.nodes[n]), o, n) for o, n in pairs]
    return TaxonomyDiff(
        added=tuple(node for n, node in enumerate(new.nodes) if matching.old_of[n] < 0),
        removed=tuple(node for o, node in enumerate(old.nodes) if matching.new_of[o] < 0),
        renamed=tuple(pair for pair, _, _ in both if pair.old.name != pair.new.name),
        moved=tuple(pair for pair, o, n in both if moved(o, n)),
        renumbered=tuple(pair for pair, _, _ in both if pair.old.node_id != pair.new.node_id),
        split=split,
        merged=merged,
        matching=matching,
        follow=_follow(old, new, matching, merged),
    )


def apply(changes: TaxonomyDiff, old: Taxonomy) -> Taxonomy:
    """The new tree, made from the old one and the changes alone."""
    ids = {pair.old.node_id: pair.new.node_id for pair in changes.renumbered}
    gone = {node.node_id for node in changes.removed}
    edges = {
        ids.get(node.node_id, node.node_id): (node.parent_id and ids.get(node.parent_id, node.parent_id), node.name)
        for node in old.nodes
        if node.node_id not in gone
    }
    for pair in changes.renamed:
        edges[pair.new.node_id] = (edges[pair.new.node_id][0], pair.new.name)
    for pair in changes.moved:
        edges[pair.new.node_id] = (pair.new.parent_id, edges[pair.new.node_id][1])
    for node in changes.added:
        edges[node.node_id] = (node.parent_id, node.name)
    return Taxonomy.from_edges((node_id, parent_id, name) for node_id, (parent_id, name) in edges.items())


def former_paths(changes: TaxonomyDiff, old: Taxonomy, new: Taxonomy) -> dict[tuple[str, ...], str]:
    """Paths of the old tree, its own former ones included, that name a node of the new one under another path.

    The catalogue goes on using them until it has caught up: `Taxonomy.former` of the new tree.
    """
    named = {normalise_path(node.path): place for place, node in enumerate(old.nodes)}
    named |= {path: old.place_of(node_id) for path, node_id in old.former.items() if path not in named}
    merged = {node.node_id for group in changes.merged for node in group.old}
    kept: dict[tuple[str, ...], str] = {}
    for path, o in named.items():
        lives_on = o >= 0 and (changes.matching.new_of[o] >= 0 or old.nodes[o].node_id in merged)
        if lives_on and changes.follow[o] >= 0:
            node = new.nodes[changes.follow[o]]
            if normalise_path(node.path) != path:
                kept[path] = node.node_id
    return kept


@dataclass(frozen=True)
class Touched:
    """How much of the supervision changed.

    by: `products`, or `nodes` where no product is known.
    count, of: products (or nodes) whose path changed at any level, and all that have one.
    per_level: share whose node at that level changed, coarse to fine; by products only, else empty.
    old_products, new_products: products below each node before and after; by products only, else empty.
    """

    by: str
    count: int
    of: int
    per_level: tuple[float, ...] = ()
    old_products: Mapping[str, int] = field(default_factory=dict)
    new_products: Mapping[str, int] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """0 to 1; 0 of nothing is 0."""
        return self.count / max(self.of, 1)

    def change_class(self, max_minor_share: float) -> str:
        """`minor`: the frozen codebooks serve on; `major`: more than the share is touched, a new release is due."""
        return MAJOR if self.share > max_minor_share else MINOR


def touched(changes: TaxonomyDiff, old: Taxonomy, new: Taxonomy, products: PathPairs | None = None) -> Touched:
    """What a change touches, by products where any has a category in either tree, else by nodes.

    Args:
        products: as for `diff`. A product whose two paths are equal is listed once; a path that only one of the
            trees knows is carried over to the other by the changes (`follow`).
    """
    if products:
        found = _touched_products(changes, old, new, products)
        if found.of:
            return found
    return _touched_nodes(changes, old, new)


def changed_paths(
    changes: TaxonomyDiff, old: Taxonomy, new: Taxonomy, products: PathPairs
) -> dict[tuple[tuple[str, ...] | None, tuple[str, ...] | None], bool]:
    """Per pair of paths whether the supervision of its products changed, at any level. Args as for `touched`."""
    places = np.array([_places(changes, old, new, *pair) for pair in products], np.int64).reshape(-1, 2)
    was, now = _identities(changes, old, new, max(old.depth, new.depth))
    changed = (was[places[:, 0]] != now[places[:, 1]]).any(axis=1)
    return dict(zip(products, changed.tolist(), strict=True))


def _places(
    changes: TaxonomyDiff,
    old: Taxonomy,
    new: Taxonomy,
    old_path: tuple[str, ...] | None,
    new_path: tuple[str, ...] | None,
) -> tuple[int, int]:
    """Where products stand in either tree; a path that only one of them knows is carried over by the changes."""
    o, old_steps = old.locate(old_path or ())
    n, new_steps = new.locate(new_path or ())
    if old_path == new_path and old_path:
        if old_steps == len(old_path) != new_steps:
            n = changes.follow[o]
        elif new_steps == len(old_path) != old_steps:
            o = _back(n, new, changes.matching)
    return o, n


def _touched_products(changes: TaxonomyDiff, old: Taxonomy, new: Taxonomy, products: PathPairs) -> Touched:
    places = np.array([_places(changes, old, new, *pair) for pair in products], np.int64).reshape(-1, 2)
    weights = np.array(list(products.values()), np.int64)
    o_places, n_places = places[:, 0], places[:, 1]
    levels = max(old.depth, new.depth)
    was, now = _identities(changes, old, new, levels)
    changed = was[o_places] != now[n_places]
    of = int(weights[(o_places >= 0) | (n_places >= 0)].sum())
    return Touched(
        BY_PRODUCTS,
        int(weights[changed.any(axis=1)].sum()),
        of,
        tuple((weights @ changed / max(of, 1)).tolist()),
        _below(old, o_places, weights),
        _below(new, n_places, weights),
    )


def _touched_nodes(changes: TaxonomyDiff, old: Taxonomy, new: Taxonomy) -> Touched:
    """Nodes of both trees, each once, whose path of nodes changed. A leaf added to a known parent touches nothing."""
    levels = max(old.depth, new.depth)
    was, now = _identities(changes, old, new, levels)
    matched = np.array(changes.matching.new_of, np.int64)
    kept = np.flatnonzero(matched >= 0)
    of_kept = int((was[kept] != now[matched[kept]]).any(axis=1).sum())
    regrouped = changes.regrouped
    fresh = {node.node_id for node in changes.added}
    plain = [
        node
        for node in changes.added
        if node.leaf and node.node_id not in regrouped and node.parent_id is not None and node.parent_id not in fresh
    ]
    count = of_kept + len(changes.removed) + len(changes.added) - len(plain)
    return Touched(BY_NODES, count, len(old.nodes) + len(changes.added))


def _identities(
    changes: TaxonomyDiff, old: Taxonomy, new: Taxonomy, levels: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Per node of either tree its path of nodes, as places in the new tree: (nodes + 1, levels).

    -1 below the node and in the last row (no category), -2 for a node that is gone.
    """
    partner = [n if n >= 0 else -2 for n in changes.matching.new_of]
    tables = []
    for tree, identity in ((old, partner), (new, list(range(len(new.nodes))))):
        table = np.full((len(tree.nodes) + 1, levels), -1, np.int64)
        for place, parent in enumerate(tree.parents()):
            if parent >= 0:
                table[place] = table[parent]
            table[place, tree.nodes[place].depth - 1] = identity[place]
        tables.append(table)
    return tables[0], tables[1]


def _below(tree: Taxonomy, places: NDArray[np.int64], weights: NDArray[np.int64]) -> dict[str, int]:
    """Products of each node's subtree by node id."""
    known = places >= 0
    total = np.bincount(places[known], weights[known], minlength=len(tree.nodes)).astype(np.int64)
    parents = tree.parents()
    for place in range(len(tree.nodes) - 1, -1, -1):
        if parents[place] >= 0:
            total[parents[place]] += total[place]
    return {node.node_id: int(count) for node, count in zip(tree.nodes, total, strict=True)}


def _follow(old: Taxonomy, new: Taxonomy, matching: Matching, merged: Sequence[Regrouping]) -> tuple[int, ...]:
    into = {node.node_id: new.place_of(group.new[0].node_id) for group in merged for node in group.old}
    follow: list[int] = []
    for place, (node, parent) in enumerate(zip(old.nodes, old.parents(), strict=True)):
        above = follow[parent] if parent >= 0 else -1
        follow.append(matching.new_of[place] if matching.new_of[place] >= 0 else into.get(node.node_id, above))
    return tuple(follow)


def _back(n: int, new: Taxonomy, matching: Matching) -> int:
    """Place in the old tree of the nearest node above, or at, a node of the new tree."""
    while n >= 0 and matching.old_of[n] < 0:
        parent = new.nodes[n].parent_id
        n = -1 if parent is None else new.place_of(parent)
    return matching.old_of[n] if n >= 0 else -1


# ------------------------------------------------------------------ splits and merges


def _regroupings(
    old: Taxonomy, new: Taxonomy, matching: Matching, joint: Mapping[tuple[int, int], int]
) -> tuple[tuple[Regrouping, ...], tuple[Regrouping, ...]]:
    """Splits and merges: a merge is a split read backwards.

    By members, products or else children: a new node most of whose members come from one old node is a part of
    it. Where nothing is known of products, by words: leaves under one parent whose names all hold the old one's
    words (Coffee: Ground coffee, Instant coffee), or divide them among themselves (Tea & coffee: Tea, Coffee).
    """
    children = Counter(
        (a, b) for a, b in zip(old.parents(), _parents_of_partners(new, matching), strict=True) if a >= 0 and b >= 0
    )
    here = _Side(old, matching.new_of, {o for o, _ in joint})
    there = _Side(new, matching.old_of, {n for _, n in joint})
    splits = _splits(here, there, [joint, children])
    merges = _splits(there, here, [_turned(joint), _turned(children)])
    parts = {part for its in splits.values() for part in its}
    split = [Regrouping((old.nodes[a],), _in_order(new, its)) for a, its in sorted(splits.items())]
    merged = [
        Regrouping(_in_order(old, its), (new.nodes[b],))
        for b, its in sorted(merges.items())
        if b not in parts and not its & set(splits)
    ]
    return tuple(split), tuple(merged)


def _in_order(tree: Taxonomy, places: set[int]) -> tuple[Node, ...]:
    return tuple(tree.nodes[place] for place in sorted(places))


def _weak_heirs(
    old: Taxonomy,
    new: Taxonomy,
    matching: Matching,
    joint: Mapping[tuple[int, int], int],
    groups: Sequence[Regrouping],
) -> set[int]:
    """Old leaves of splits and merges that only their products say live on, and not nearly all of them.

    A leaf that was split 60 : 40 is gone and has two parts; one that lost a few products was renamed and lost a few.
    """
    old_total, new_total = Counter[int](), Counter[int]()
    for (o, n), count in joint.items():
        old_total[o] += count
        new_total[n] += count
    weak = set()
    for node in (node for group in groups for node in group.old):
        o = old.place_of(node.node_id)
        n = matching.new_of[o]
        if matching.why[o] == "products" and node.leaf and new.nodes[n].leaf:
            share = joint.get((o, n), 0) / max(old_total[o], new_total[n], 1)
            if share < HEIR:
                weak.add(o)
    return weak


@dataclass(frozen=True)
class _Side:
    """One of the two trees: its nodes, their partners in the other, and those whose products are known."""

    tree: Taxonomy
    partner: Sequence[int]
    seen: set[int]


def _splits(a: _Side, b: _Side, members: Sequence[Mapping[tuple[int, int], int]]) -> dict[int, set[int]]:
    """Nodes of side a -> two or more parts on side b, at least one of which has no partner."""
    found: dict[int, set[int]] = {}
    used: set[int] = set()
    a_parent, b_parent = a.tree.parents(), b.tree.parents()
    for joint in members:
        total: Counter[int] = Counter()
        for (_, part), count in joint.items():
            total[part] += count
        parts: dict[int, set[int]] = defaultdict(set)
        for (whole, part), count in joint.items():
            own = a.partner[whole] == part
            below = a.partner[whole] >= 0 and b_parent[part] == a.partner[whole]
            fresh = b.partner[part] < 0 and not below and part not in used
            if count > MAJORITY * total[part] and (own or fresh):
                parts[whole].add(part)
        for whole, its in parts.items():
            if whole not in found and len(its) > 1:
                found[whole] = its
                used |= its
    loose = _loose_leaves(b, b_parent)
    for parent, gone in _loose_leaves(a, a_parent).items():
        above = -1 if parent < 0 else a.partner[parent]
        come = loose.get(above, []) if parent < 0 or above >= 0 else []
        for whole in gone:
            its = _by_words(a.tree.nodes[whole].name, {p: b.tree.nodes[p].name for p in come if p not in used})
            if whole not in found and its:
                found[whole] = its
                used |= its
    return found


def _loose_leaves(side: _Side, parents: Sequence[int]) -> dict[int, list[int]]:
    """Leaves without a partner and without known products, by parent."""
    loose: dict[int, list[int]] = defaultdict(list)
    for place, node in enumerate(side.tree.nodes):
        if node.leaf and side.partner[place] < 0 and place not in side.seen:
            loose[parents[place]].append(place)
    return loose


def _by_words(whole: str, parts: Mapping[int, str]) -> set[int]:
    """Parts whose names hold all words of the whole's name, or divide them; empty unless there are two."""
    wanted = words(whole)
    if not wanted:
        return set()
    holding = {place for place, name in parts.items() if wanted < words(name)}
    if len(holding) > 1:
        return holding
    dividing = {place for place, name in parts.items() if words(name) and words(name) < wanted}
    covered = frozenset().union(*(words(parts[place]) for place in dividing))
    return dividing if len(dividing) > 1 and covered == wanted else set()


def _parents_of_partners(new: Taxonomy, matching: Matching) -> list[int]:
    parents = new.parents()
    return [parents[n] if n >= 0 else -1 for n in matching.new_of]


def _turned(joint: Mapping[tuple[int, int], int]) -> dict[tuple[int, int], int]:
    return {(b, a): count for (a, b), count in joint.items()}
