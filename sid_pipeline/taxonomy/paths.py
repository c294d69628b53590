"""Products in the tree: the path matrix that training takes, and counts per node.

What belongs here: arrays over products. What does not: the tree's own checks (`tree.py`), and how far two paths are
apart (`sid_pipeline.rqvae.tree.distance`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sid_pipeline.taxonomy.tree import Problem, Taxonomy


@dataclass(frozen=True)
class Placement:
    """Where N products stand in a tree.

    A product whose path goes on below a known category that the tree does not divide further (or not by that
    name) is placed at the deepest known one. A product whose first step is unknown is uncategorised.

    node: (N,) int32, place in `taxonomy.nodes`, -1 for an uncategorised product.
    matrix: (N, taxonomy.depth) int32, per level the number of the ancestor (or the node itself) among that
        level's nodes, from 0 in the order of `taxonomy.nodes`; -1 below the node, and everywhere for an
        uncategorised product.
    exact, partial, unknown, absent: how many products were placed at their whole path, at a known beginning
        of it, not at all although they have a path, and have no path; they add up to N.
    """

    node: NDArray[np.int32]
    matrix: NDArray[np.int32]
    exact: int
    partial: int
    unknown: int
    absent: int


def place(taxonomy: Taxonomy, category_paths: Iterable[Sequence[str] | None]) -> Placement:
    """Place products by their category paths: names from the root, compared normalised; None for none."""
    known: dict[tuple[str, ...], tuple[int, int]] = {(): (-1, 3)}
    found: list[tuple[int, int]] = []
    for path in category_paths:
        key = tuple(path or ())
        if key not in known:
            node, steps = taxonomy.locate(key)
            kind = 2 if node < 0 else int(steps < len(key))
            known[key] = (node, kind)
        found.append(known[key])
    pairs = np.array(found, dtype=np.int32).reshape(-1, 2)
    kinds = np.bincount(pairs[:, 1], minlength=4)
    table = level_numbers(taxonomy)
    # Row -1 of the table, the one after the last node, is that of uncategorised products.
    return Placement(pairs[:, 0].copy(), table[pairs[:, 0]], *(int(count) for count in kinds))


def path_matrix(taxonomy: Taxonomy, category_paths: Iterable[Sequence[str] | None]) -> NDArray[np.int32]:
    """`Placement.matrix` alone: (N, taxonomy.depth) int32; rows do not depend on the other products."""
    return place(taxonomy, category_paths).matrix


def level_numbers(taxonomy: Taxonomy) -> NDArray[np.int32]:
    """(nodes + 1, depth) int32: each node's row of the path matrix; the last row, all -1, is for no node."""
    table = np.full((len(taxonomy.nodes) + 1, taxonomy.depth), -1, np.int32)
    used = [0] * taxonomy.depth
    for number, (node, parent) in enumerate(zip(taxonomy.nodes, taxonomy.parents(), strict=True)):
        if parent >= 0:
            table[number] = table[parent]
        table[number, node.depth - 1] = used[node.depth - 1]
        used[node.depth - 1] += 1
    return table


def node_counts(taxonomy: Taxonomy, placement: Placement) -> NDArray[np.int64]:
    """(nodes,) int64: products placed at this very node, its descendants' not included."""
    placed = placement.node[placement.node >= 0]
    return np.bincount(placed, minlength=len(taxonomy.nodes)).astype(np.int64)


def inner_products(taxonomy: Taxonomy, counts: NDArray[np.int64]) -> tuple[Problem, ...]:
    """Nodes that have children and products of their own: listed, not wrong.

    Args:
        counts: (nodes,), as of `node_counts`.
    """
    return tuple(
        Problem(
            node.node_id,
            "products_at_inner_node",
            f"{' > '.join(node.path)!r} has children and {count:,} products of its own: they are coded as that "
            "category; give them a child category where there is one.",
        )
        for node, count in zip(taxonomy.nodes, counts.tolist(), strict=True)
        if count and not node.leaf
    )
