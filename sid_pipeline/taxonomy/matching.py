"""Which node of a new tree is which node of an old one, and ids that live through a rename.

What belongs here: deciding identity. What does not: telling what changed (`diff.py`).

How identity is decided, the first that applies:

1. the same id, where both sources have ids of their own;
2. the same name (compared normalised) under the same parent;
3. evidence, where at least one of the two ids is no source's (two ids of one source are two nodes):
   products: more than half of the products of each stand in the other (subtrees, products known by their id);
   children: more than half of the children of each are the other's, by identity or by name;
   name: the only vanished and the only new node of that name: it moved;
   sibling: under one parent, the only vanished and the only new leaf whose names share their words (one holds
   the other's), when nothing is known of their products.

The strongest evidence goes first, and whatever it settles is carried down by rule 2 before weaker evidence is heard.
(A leaf that was split or merged has no heir among its parts, see `diff.HEIR`.)
"""

from __future__ import annotations

import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sid_pipeline.taxonomy.tree import Node, Taxonomy, normalise_step, path_id

# Products by their category before and after: (old path, new path) -> how many.
PathPairs = Mapping[tuple[tuple[str, ...] | None, tuple[str, ...] | None], int]
MAJORITY = 0.5
# A name that so many nodes have says nothing about which is which.
_COMMON_NAME = 50
_SMALL_WORDS = frozenset({"and", "of", "for", "the", "with", "und", "et", "y"})


@dataclass(frozen=True)
class Matching:
    """Identity between two trees.

    new_of: per old node the place of the same node in the new tree, -1 where it is gone.
    old_of: per new node the place of the same node in the old tree, -1 where it is new.
    why: per old node the rule that matched it: id, place, products, children, name, sibling or ''.
    """

    new_of: tuple[int, ...]
    old_of: tuple[int, ...]
    why: tuple[str, ...]

    def without(self, olds: set[int]) -> Matching:
        """The same, but that these old nodes are gone and their partners new."""
        new_of = [-1 if o in olds else n for o, n in enumerate(self.new_of)]
        old_of = [-1 if o in olds else o for o in self.old_of]
        why = ["" if o in olds else rule for o, rule in enumerate(self.why)]
        return Matching(tuple(new_of), tuple(old_of), tuple(why))


def match(old: Taxonomy, new: Taxonomy, joint: Mapping[tuple[int, int], int] | None = None) -> Matching:
    """Match the nodes of two trees.

    Args:
        old, new: the trees.
        joint: (place in old, place in new) -> products that stand at these very nodes; what `joint_counts` gives.
            None: nothing is known of products.
    """
    matcher = _Matcher(old, new)
    matcher.by_id()
    matcher.by_place()
    joint = joint or {}
    matcher.settle(_products(matcher, joint))
    matcher.settle(_children(matcher))
    matcher.settle(_names(matcher, joint))
    matcher.settle(_siblings(matcher, joint))
    return Matching(tuple(matcher.new_of), tuple(matcher.old_of), tuple(matcher.why))


def joint_counts(old: Taxonomy, new: Taxonomy, products: PathPairs) -> dict[tuple[int, int], int]:
    """(place in old, place in new) -> products whose old and new path both end at these very nodes."""
    joint: Counter[tuple[int, int]] = Counter()
    for (before, after), count in products.items():
        (o, old_steps), (n, new_steps) = old.locate(before or ()), new.locate(after or ())
        if before and after and old_steps == len(before) and new_steps == len(after):
            joint[o, n] += count
    return dict(joint)


def inherit_ids(old: Taxonomy, new: Taxonomy, matching: Matching) -> Taxonomy:
    """The new tree, where nodes without an id of the source keep the id that they had in the old tree.

    A node that is new but whose path once belonged to a node that lives on elsewhere gets an id of its own. An id
    that was kept is as good as a source's from then on; `derived` holds those of new nodes.
    """
    taken = {node.node_id for node in new.nodes if node.node_id not in new.derived}
    ids: dict[str, str] = {}
    for place, node in enumerate(new.nodes):
        before = matching.old_of[place]
        if node.node_id in new.derived and before >= 0 and old.nodes[before].node_id not in taken:
            ids[node.node_id] = old.nodes[before].node_id
            taken.add(ids[node.node_id])
    kept = set(ids)
    # What the old tree calls by that id is another node, also when it is gone.
    taken |= {node.node_id for node in old.nodes}
    for node in new.nodes:
        if node.node_id in new.derived and node.node_id not in ids:
            fresh, number = node.node_id, 2
            while fresh in taken:
                fresh, number = path_id((*node.path, str(number))), number + 1
            ids[node.node_id] = fresh
            taken.add(fresh)
    nodes = tuple(
        replace(
            node,
            node_id=ids.get(node.node_id, node.node_id),
            parent_id=ids.get(node.parent_id, node.parent_id) if node.parent_id else None,
        )
        for node in new.nodes
    )
    derived = frozenset(ids[node_id] for node_id in new.derived - kept)
    return Taxonomy(nodes, new.problems, derived, {path: ids.get(i, i) for path, i in new.former.items()})


def words(name: str) -> frozenset[str]:
    """The words of a name that tell categories apart."""
    return frozenset(re.findall(r"\w+", normalise_step(name))) - _SMALL_WORDS


class _Matcher:
    """The state of matching: who is matched to whom, and the children of each node."""

    def __init__(self, old: Taxonomy, new: Taxonomy) -> None:
        self.old, self.new = old, new
        self.new_of, self.old_of = [-1] * len(old.nodes), [-1] * len(new.nodes)
        self.why = [""] * len(old.nodes)
        self.old_parent, self.new_parent = old.parents(), new.parents()
        self.old_children, self.new_children = _children_of(self.old_parent), _children_of(self.new_parent)
        self.old_name = [normalise_step(node.name) for node in old.nodes]
        self.new_name = [normalise_step(node.name) for node in new.nodes]
        old_ids = {node.node_id for node in old.nodes} - old.derived
        new_ids = {node.node_id for node in new.nodes} - new.derived
        self._same_ids = old_ids & new_ids

    def by_id(self) -> None:
        for node_id in self._same_ids:
            self.pair(self.old.place_of(node_id), self.new.place_of(node_id), "id")

    def by_place(self) -> None:
        self._carry_down([(-1, -1), *((o, n) for o, n in enumerate(self.new_of) if n >= 0)])

    def open(self, o: int, n: int) -> bool:
        """Whether these two may still be found to be one node."""
        return self.new_of[o] < 0 and self.old_of[n] < 0 and self.may_differ(o, n)

    def may_differ(self, o: int, n: int) -> bool:
        """Whether two different ids can be one node: not when both are of one source."""
        given = self.old.nodes[o].node_id not in self.old.derived and self.new.nodes[n].node_id not in self.new.derived
        return not (given and self._same_ids)

    def pair(self, o: int, n: int, why: str) -> None:
        self.new_of[o], self.old_of[n], self.why[o] = n, o, why

    def settle(self, evidence: Iterable[tuple[float, int, int, str]]) -> None:
        """Take evidence (strength, old, new, rule), the strongest first, and carry each down the tree."""
        queue = [(-strength, self._unlike(o, n), o, n, why) for strength, o, n, why in evidence]
        heapq.heapify(queue)
        while queue:
            *_, o, n, why = heapq.heappop(queue)
            if self.open(o, n):
                self.pair(o, n, why)
                self._carry_down([(o, n)])

    def _unlike(self, o: int, n: int) -> tuple[bool, bool, int]:
        """Of equal evidence, such as a parent and its only child give, the more alike pair goes first."""
        apart = abs(self.old.nodes[o].depth - self.new.nodes[n].depth)
        return self.old_name[o] != self.new_name[n], self.old.nodes[o].leaf != self.new.nodes[n].leaf, apart

    def _carry_down(self, pairs: list[tuple[int, int]]) -> None:
        """Match same-named children of matched nodes; (-1, -1) stands for the roots' common parent."""
        while pairs:
            above_old, above_new = pairs.pop()
            there = {self.new_name[n]: n for n in self.new_children.get(above_new, ()) if self.old_of[n] < 0}
            for o in self.old_children.get(above_old, ()):
                n = there.get(self.old_name[o], -1)
                if n >= 0 and self.new_of[o] < 0:
                    self.pair(o, n, "place")
                    pairs.append((o, n))


def _children_of(parents: Sequence[int]) -> dict[int, list[int]]:
    children: dict[int, list[int]] = defaultdict(list)
    for node, parent in enumerate(parents):
        children[parent].append(node)
    return dict(children)


def _products(m: _Matcher, joint: Mapping[tuple[int, int], int]) -> Iterator[tuple[float, int, int, str]]:
    """Open pairs whose subtrees hold, each, more than half of the other's products."""
    old_total, new_total = [0] * len(m.old.nodes), [0] * len(m.new.nodes)
    both: Counter[tuple[int, int]] = Counter()
    for (o, n), count in joint.items():
        above_old, above_new = list(_upwards(o, m.old_parent)), list(_upwards(n, m.new_parent))
        for place in above_old:
            old_total[place] += count
        for place in above_new:
            new_total[place] += count
        for a in above_old:
            if m.new_of[a] < 0:
                for b in above_new:
                    if m.old_of[b] < 0:
                        both[a, b] += count
    for (a, b), count in both.items():
        strength = count / max(old_total[a], new_total[b])
        if strength > MAJORITY:
            yield strength, a, b, "products"


def _children(m: _Matcher) -> Iterator[tuple[float, int, int, str]]:
    """Open pairs more than half of whose children, on either side, are the other's."""
    common: Counter[tuple[int, int]] = Counter()
    by_name: dict[str, list[int]] = defaultdict(list)
    for n, name in enumerate(m.new_name):
        if m.old_of[n] < 0 and m.new_parent[n] >= 0 and m.old_of[m.new_parent[n]] < 0:
            by_name[name].append(m.new_parent[n])
    for o, parent in enumerate(m.old_parent):
        if parent < 0 or m.new_of[parent] >= 0:
            continue
        partner = m.new_of[o]
        candidates = [m.new_parent[partner]] if partner >= 0 else by_name.get(m.old_name[o], [])
        if len(candidates) <= _COMMON_NAME:
            common.update((parent, n) for n in candidates if n >= 0)
    for (o, n), count in common.items():
        strength = count / max(len(m.old_children[o]), len(m.new_children[n]))
        if strength > MAJORITY and m.open(o, n):
            yield strength, o, n, "children"


def _names(m: _Matcher, joint: Mapping[tuple[int, int], int]) -> Iterator[tuple[float, int, int, str]]:
    """Open pairs that alone have their name, unless their products or children say otherwise."""
    seen_old, seen_new = _seen(joint)
    old_named, new_named = _open_names(m.new_of, m.old_name), _open_names(m.old_of, m.new_name)
    for name, olds in old_named.items():
        news = new_named.get(name, [])
        if len(olds) == len(news) == 1:
            (o,), (n,) = olds, news
            strangers = o in seen_old and n in seen_new and (o, n) not in joint
            if not strangers and _may_have_children(m, o, n):
                yield 1.0, o, n, "name"


def _may_have_children(m: _Matcher, o: int, n: int) -> bool:
    """Whether one of the two is a leaf, or some child of one is a child of the other, by identity or by name."""
    olds, news = m.old_children.get(o, []), m.new_children.get(n, [])
    shared = {m.old_name[c] for c in olds} & {m.new_name[c] for c in news}
    return not olds or not news or bool(shared) or any(m.new_of[c] in news for c in olds)


def _siblings(m: _Matcher, joint: Mapping[tuple[int, int], int]) -> Iterator[tuple[float, int, int, str]]:
    """Open leaves without known products under one parent, the only two that share their words."""
    seen_old, seen_new = _seen(joint)
    for above_old, children in m.old_children.items():
        above_new = -1 if above_old < 0 else m.new_of[above_old]
        if above_old >= 0 and above_new < 0:
            continue
        beside = m.new_children.get(above_new, ())
        gone = [o for o in children if m.new_of[o] < 0 and m.old.nodes[o].leaf and o not in seen_old]
        come = [n for n in beside if m.old_of[n] < 0 and m.new.nodes[n].leaf and n not in seen_new]
        alike = [(o, n) for o in gone for n in come if _share_words(m.old.nodes[o], m.new.nodes[n])]
        olds, news = Counter(o for o, _ in alike), Counter(n for _, n in alike)
        yield from ((1.0, o, n, "sibling") for o, n in alike if olds[o] == news[n] == 1)


def _seen(joint: Mapping[tuple[int, int], int]) -> tuple[set[int], set[int]]:
    """Nodes of either tree whose products are known in both."""
    return {o for o, _ in joint}, {n for _, n in joint}


def _share_words(one: Node, other: Node) -> bool:
    a, b = words(one.name), words(other.name)
    return bool(a and b) and (a <= b or b <= a)


def _open_names(partner: Sequence[int], names: Sequence[str]) -> dict[str, list[int]]:
    named: dict[str, list[int]] = defaultdict(list)
    for place, name in enumerate(names):
        if partner[place] < 0:
            named[name].append(place)
    return named


def _upwards(place: int, parents: Sequence[int]) -> Iterator[int]:
    while place >= 0:
        yield place
        place = parents[place]
