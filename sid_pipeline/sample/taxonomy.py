"""The two taxonomies: the vocabulary's tree with stable ids, and that tree after a merchandiser's edits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sid_pipeline.sample.vocabulary import Vocabulary

HEADER = ("node_id", "parent_id", "name")

# The edits that turn the first taxonomy into the second.
RENAMED = ("Grilling cheese", "Halloumi & grilling cheese")
ADDED = ("Kombucha & kefir", "Soft Drinks & Water")  # (new leaf, its parent)
SPLIT = ("Ground coffee", ("Filter ground coffee", "Espresso ground coffee"))
MOVED = ("Poppadoms & naan", "Bread")  # (leaf, its new parent); it was under "World Foods"
TOUCHED_LEAVES = (RENAMED[0], SPLIT[0], MOVED[0])


@dataclass(frozen=True)
class Node:
    node_id: str
    parent_id: str  # empty for a root
    name: str


def first(vocabulary: Vocabulary) -> list[Node]:
    """All nodes, each after its parent, numbered in the vocabulary's order."""
    ids: dict[tuple[str, ...], str] = {}
    nodes = []
    for leaf in vocabulary.leaves:
        for depth in range(1, len(leaf.path) + 1):
            path = leaf.path[:depth]
            if path not in ids:
                ids[path] = _node_id(len(ids) + 1)
                nodes.append(Node(ids[path], ids.get(path[:-1], ""), path[-1]))
    return nodes


def second(nodes: Sequence[Node]) -> list[Node]:
    """The tree after one rename, one move, one split and one added leaf; untouched nodes keep their ids.

    The split leaf's id disappears; its two successors and the added leaf get new ids.
    """
    out = []
    fresh = len(nodes)
    for node in nodes:
        if node.name == RENAMED[0]:
            out.append(replace(node, name=RENAMED[1]))
        elif node.name == MOVED[0]:
            out.append(replace(node, parent_id=_id_of(MOVED[1], nodes)))
        elif node.name == SPLIT[0]:
            for name in SPLIT[1]:
                fresh += 1
                out.append(Node(_node_id(fresh), node.parent_id, name))
        else:
            out.append(node)
    out.append(Node(_node_id(fresh + 1), _id_of(ADDED[1], nodes), ADDED[0]))
    return out


def _node_id(number: int) -> str:
    return f"c{number:04d}"


def _id_of(name: str, nodes: Sequence[Node]) -> str:
    (found,) = (node.node_id for node in nodes if node.name == name)
    return found
