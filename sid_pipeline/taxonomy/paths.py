"""Products in the tree: the path matrix that training takes, and inner nodes with products of their own.

What belongs here: arrays over products. What does not: the tree's own checks (`tree.py`), and how far two paths are
apart (`sid_pipeline.rqvae.tree.distance`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from sid_pipeline.taxonomy.tree import Problem, Taxonomy


def path_matrix(taxonomy: Taxonomy, category_paths: Iterable[Sequence[str] | None]) -> NDArray[np.int32]:
    """Place N products by their category paths: names from the root, compared normalised; None for none.

    A product whose path goes on below a known category that the tree does not divide further (or not by that
    name) is placed at the deepest known one. A product whose first step is unknown is uncategorised.

    Returns:
        (N, taxonomy.depth) int32: per level the number of the ancestor (or the node itself) among that level's nodes,
        from 0 in the order of `taxonomy.nodes`; -1 below the node, and everywhere for an uncategorised product. A row
        does not depend on the other products.
    """
    known: dict[tuple[str, ...], int] = {}
    places: list[int] = []
    for path in category_paths:
        key = tuple(path or ())
        if key not in known:
            known[key] = taxonomy.locate(key)[0]
        places.append(known[key])
    # Row -1 of the table, the one after the last node, is that of uncategorised products.
    return level_numbers(taxonomy)[np.array(places, dtype=np.int32)]


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


def inner_products(taxonomy: Taxonomy, counts: NDArray[np.int64]) -> tuple[Problem, ...]:
    """Nodes that have children and products of their own: listed, not wrong.

    Args:
        counts: (nodes,), products placed at the very node, its descendants' not included.
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
