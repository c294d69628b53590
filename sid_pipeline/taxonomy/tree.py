"""A checked category tree, whatever it was made from.

What belongs here: the tree, its checks, its ids and revision. What does not: reading files (`sources.py`) and
products (`paths.py`).

What happens to bad nodes. A node without a clean way to a root is left out: its name is blank, its parent
is missing or left out itself, it lies on a cycle, or deeper than `MAX_DEPTH`. Where a node can be kept it is
kept, and the fault is listed all the same: a node with two parents stays under the first listed; of several
nodes with one name under one parent (also when only case, accents or white space differ) the first listed
stays and takes over the others' children.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import repeat

# Rules whose node is missing from the tree; the others are faults of nodes that stay.
LEFT_OUT = frozenset(
    {"missing_id", "blank_name", "missing_parent", "cycle", "parent_left_out", "too_deep", "unparsable_row"}
)
# Latin, Greek and Cyrillic accents. Marks of other scripts are letters in all but name and are kept.
_ACCENTS = dict.fromkeys(range(0x0300, 0x0370))
REVISION_DIGITS = 16
# Real trees have 2 to 7 levels; a broken file can hold a chain of any length.
MAX_DEPTH = 32


class TaxonomyError(ValueError):
    """A taxonomy that cannot be read or used; the message names the file or node and the mend."""


@dataclass(frozen=True)
class Node:
    """A category. `path` are the names from the root, this node's included; `depth` is its length."""

    node_id: str
    parent_id: str | None
    name: str
    path: tuple[str, ...]
    depth: int
    leaf: bool


@dataclass(frozen=True)
class Problem:
    """A fault of the source: the node's id as given, the short name of the rule, and what to mend."""

    node_id: str
    rule: str
    message: str


@lru_cache(maxsize=1 << 18)
def normalise_step(step: str) -> str:
    """A name as it is compared: case folded, accents removed, white space folded."""
    plain = unicodedata.normalize("NFKD", step.casefold()).translate(_ACCENTS)
    return " ".join(unicodedata.normalize("NFC", plain.casefold()).split())


def normalise_path(path: Iterable[str]) -> tuple[str, ...]:
    """A path as it is compared."""
    return tuple(normalise_step(step) for step in path)


def path_id(path: Iterable[str]) -> str:
    """Id of a node whose source has none: a hash of its normalised path, so it survives changes elsewhere."""
    return hashlib.sha256("\x1f".join(normalise_path(path)).encode()).hexdigest()[:REVISION_DIGITS]


@dataclass(frozen=True)
class Taxonomy:
    """A tree (several roots allowed) without faults, and the faults that were found on the way.

    nodes: parents before children, ordered by normalised path, so the order is the content's own.
    problems: in the order in which they were found.
    derived: ids that the source does not have, made from the path (`path_id`).
    former: normalised paths that a node had in earlier revisions, to its id: a catalogue goes on naming them for
        a while. A path of the tree itself wins over a former one.
    revision: content hash of ids, parents and names.
    """

    nodes: tuple[Node, ...]
    problems: tuple[Problem, ...] = ()
    derived: frozenset[str] = field(default=frozenset(), compare=False)
    former: Mapping[tuple[str, ...], str] = field(default_factory=dict, compare=False)
    _index: Mapping[tuple[str, ...], int] = field(init=False, repr=False, compare=False)
    _places: Mapping[str, int] = field(init=False, repr=False, compare=False)
    revision: str = field(init=False)

    def __post_init__(self) -> None:
        index = {normalise_path(node.path): place for place, node in enumerate(self.nodes)}
        digest = hashlib.sha256()
        for node in sorted(self.nodes, key=lambda node: node.node_id):
            digest.update("\x1f".join((node.node_id, node.parent_id or "", node.name)).encode() + b"\x1e")
        places = {node.node_id: place for place, node in enumerate(self.nodes)}
        known = {path: places[node_id] for path, node_id in self.former.items() if node_id in places}
        object.__setattr__(self, "_index", {**known, **index})
        object.__setattr__(self, "_places", places)
        object.__setattr__(self, "revision", digest.hexdigest()[:REVISION_DIGITS])

    @classmethod
    def from_edges(cls, rows: Iterable[tuple[str, str | None, str]]) -> Taxonomy:
        """A tree from (node_id, parent_id, name) in any order; a root's parent is None or blank."""
        builder = _Builder()
        for node_id, parent_id, name in rows:
            builder.add((node_id or "").strip(), (parent_id or "").strip() or None, " ".join((name or "").split()))
        return builder.build()

    @classmethod
    def from_paths(cls, paths: Iterable[Sequence[str]], ids: Iterable[str | None] | None = None) -> Taxonomy:
        """A tree from paths from the root; every beginning of a path is a node too.

        Of several spellings of a node the commonest is its name, so the order of the paths does not matter.

        Args:
            ids: the source's id of each path's last node; None where it has none. Nodes without one get
                `path_id`.
        """
        return _from_paths(paths, ids)

    @property
    def depth(self) -> int:
        """Number of levels; 0 for a tree without nodes."""
        return max((node.depth for node in self.nodes), default=0)

    @property
    def bad_share(self) -> float:
        """Share of the source's nodes that were left out, 0 to 1."""
        left_out = sum(problem.rule in LEFT_OUT for problem in self.problems)
        return left_out / max(left_out + len(self.nodes), 1)

    def place_of(self, node_id: str) -> int:
        """Place in `nodes` of a node's id; -1 when there is none."""
        return self._places.get(node_id, -1)

    def parents(self) -> list[int]:
        """Per node the place of its parent, -1 for a root."""
        return [-1 if node.parent_id is None else self._places[node.parent_id] for node in self.nodes]

    def find(self, path: Sequence[str]) -> Node | None:
        """The node at exactly this path, or that formerly was; without regard to case, accents and white space."""
        place = self._index.get(normalise_path(path))
        return None if place is None else self.nodes[place]

    def locate(self, path: Sequence[str]) -> tuple[int, int]:
        """Place in `nodes` of the deepest node on this path, and how many steps led to it; (-1, 0) for none."""
        steps = normalise_path(path)
        for length in range(len(steps), 0, -1):
            place = self._index.get(steps[:length])
            if place is not None:
                return place, length
        return -1, 0


class _Builder:
    """Collects edges and turns them into a tree."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._parent: dict[str, str | None] = {}
        self._name: dict[str, str] = {}

    def add(self, node_id: str, parent_id: str | None, name: str) -> None:
        if not node_id:
            self._problem(node_id, "missing_id", f"the node named {name!r} has no id: give it one.")
        elif node_id not in self._parent:
            self._parent[node_id], self._name[node_id] = parent_id, name
        elif self._parent[node_id] != parent_id:
            kept = self._parent[node_id]
            self._problem(
                node_id,
                "two_parents",
                f"node {node_id} ({name!r}) has the parents {kept!r} and {parent_id!r}: it stays under "
                f"{kept!r}; remove one of the two rows.",
            )
        elif self._name[node_id] != name:
            self._problem(
                node_id,
                "two_names",
                f"node {node_id} is named {self._name[node_id]!r} and {name!r}: the first stays; remove one "
                "of the two rows.",
            )

    def build(self) -> Taxonomy:
        self._drop_blank_names()
        children: dict[str | None, list[str]] = {None: []}
        for node_id, parent_id in self._parent.items():
            children.setdefault(parent_id, []).append(node_id)
        nodes: list[Node] = []
        keys: list[tuple[str, ...]] = []
        reached: set[str] = set()
        # Each entry: the children of a node and of those merged into it, the node, and its normalised path.
        families: list[tuple[list[str], Node | None, tuple[str, ...]]] = [(children[None], None, ())]
        while families:
            members, parent, above = families.pop()
            reached.update(members)
            for key, same in self._by_name(members, parent).items():
                first = same[0]
                path = (*(parent.path if parent else ()), self._name[first])
                below = [child for node_id in same for child in children.get(node_id, ())]
                node = Node(first, parent.node_id if parent else None, path[-1], path, len(path), not below)
                nodes.append(node)
                keys.append((*above, key))
                if below and node.depth < MAX_DEPTH:
                    families.append((below, node, keys[-1]))
        self._list_unreached(reached)
        order = sorted(range(len(nodes)), key=keys.__getitem__)
        return Taxonomy(tuple(nodes[place] for place in order), tuple(self.problems))

    def _drop_blank_names(self) -> None:
        self._blank = {node_id for node_id, name in self._name.items() if not normalise_step(name)}
        for node_id in [node_id for node_id in self._parent if node_id in self._blank]:
            self._problem(node_id, "blank_name", f"node {node_id} has no name: give it one.")
            del self._parent[node_id]

    def _by_name(self, members: Sequence[str], parent: Node | None) -> dict[str, list[str]]:
        """Ids of one family by normalised name, first listed first; several of one name are a problem."""
        groups: dict[str, list[str]] = {}
        for node_id in members:
            groups.setdefault(normalise_step(self._name[node_id]), []).append(node_id)
        under = f"under {' > '.join(parent.path)}" if parent else "among the roots"
        for first, *others in groups.values():
            for other in others:
                variant = self._name[other] != self._name[first]
                spelling = f" (written {self._name[other]!r})" if variant else ""
                self._problem(
                    other,
                    "name_variant" if variant else "duplicate_name",
                    f"node {other}{spelling} has the name {self._name[first]!r} of node {first} {under}: its "
                    f"children now hang under {first}; rename one or merge them.",
                )
        return groups

    def _list_unreached(self, reached: set[str]) -> None:
        """Say of each node that was not reached from a root why not."""
        explained = set(reached)
        for start in self._parent:
            trail: dict[str, int] = {}
            at = start
            while at not in explained and at not in trail and at in self._parent:
                trail[at] = len(trail)
                at = self._parent[at] or ""
            if not trail:
                continue
            walked = list(trail)
            cycle = walked[trail[at] :] if at in trail else []
            on_cycle = set(cycle)
            for node_id in walked:
                name, parent_id = self._name[node_id], self._parent[node_id]
                if node_id in on_cycle:
                    loop = " > ".join(reversed([*cycle[:10], *(["..."] if len(cycle) > 10 else []), cycle[0]]))
                    message = f"node {node_id} ({name!r}) lies on a cycle ({loop}): mend one parent_id of it."
                    self._problem(node_id, "cycle", message)
                elif parent_id in reached:
                    message = f"node {node_id} ({name!r}) lies deeper than {MAX_DEPTH} levels: flatten the tree."
                    self._problem(node_id, "too_deep", message)
                elif parent_id in self._parent or parent_id in self._blank:
                    message = f"node {node_id} ({name!r}) is left out with its parent {parent_id}: mend that one."
                    self._problem(node_id, "parent_left_out", message)
                else:
                    message = f"node {node_id} ({name!r}) has the parent {parent_id}, which is no node: mend one."
                    self._problem(node_id, "missing_parent", message)
            explained.update(walked)

    def _problem(self, node_id: str, rule: str, message: str) -> None:
        self.problems.append(Problem(node_id, rule, message))


def _from_paths(paths: Iterable[Sequence[str]], ids: Iterable[str | None] | None) -> Taxonomy:
    problems: list[Problem] = []
    spellings: dict[tuple[str, ...], Counter[str]] = {}
    id_of: dict[tuple[str, ...], str] = {}
    key_of: dict[str, tuple[str, ...]] = {}
    for path, given in zip(paths, repeat(None) if ids is None else ids, strict=ids is not None):
        steps = [" ".join(step.split()) for step in path]
        key = normalise_path(steps)
        if not all(key) or not key:
            shown, good = " > ".join(steps), key.index("") if key else 0
            mend = f"the path {shown!r} has a blank step: only what is above it was taken; fill it or remove it."
            problems.append(Problem(given or path_id(steps), "blank_name", mend))
            steps, key, given = steps[:good], key[:good], None
        if len(steps) > MAX_DEPTH:
            start = " > ".join(steps[:3])
            mend = f"the path that begins {start!r} has {len(steps)} steps: only {MAX_DEPTH} were taken."
            problems.append(Problem(given or path_id(steps), "too_deep", mend))
            steps, key, given = steps[:MAX_DEPTH], key[:MAX_DEPTH], None
        for depth, step in enumerate(steps, start=1):
            spellings.setdefault(key[:depth], Counter())[step] += 1
        if given:
            if id_of.setdefault(key, given) != given:
                mend = f"the path {' > '.join(steps)!r} has the ids {id_of[key]} and {given}: the first stays."
                problems.append(Problem(given, "two_ids", mend))
            elif key_of.setdefault(given, key) != key:
                mend = f"the id {given} has two paths: {' > '.join(steps)!r} gets an id of its own; mend one."
                problems.append(Problem(given, "duplicate_id", mend))
                del id_of[key]
    parents = {key[:-1] for key in spellings}
    nodes: dict[tuple[str, ...], Node] = {}
    for key in sorted(spellings):
        counted = spellings[key]
        name = min(counted, key=lambda spelling: (-counted[spelling], spelling))
        above = nodes.get(key[:-1])
        path = (*(above.path if above else ()), name)
        node_id = id_of.get(key) or path_id(key)
        nodes[key] = Node(node_id, above.node_id if above else None, name, path, len(path), key not in parents)
        for other in sorted(set(counted) - {name}):
            mend = f"{' > '.join(path)!r} is also written {other!r}: they are one node; write them alike."
            problems.append(Problem(node_id, "name_variant", mend))
    derived = frozenset(node.node_id for key, node in nodes.items() if key not in id_of)
    return Taxonomy(tuple(nodes.values()), tuple(problems), derived)
