"""The taxonomy as arrays: nodes, leaves, and how near two products stand in the tree.

Belongs here: turning category paths of any depth into dense ids, and the distance and grade of a pair, the one telling
of them in the project. Imports numpy alone; the functions of pairs take torch tensors too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

SAME, SIBLING, FURTHER, UNRELATED = 0, 1, 2, 3
GRADES = ("same leaf", "sibling leaf", "further", "unrelated")


@dataclass(frozen=True)
class Tree:
    """Category paths of N products, prefix by prefix.

    node: (N, depth) int64, id of the node at each depth, -1 below the path's end; ids are unique over the
    tree.
    length: (N,) int64, number of levels of each path, 0 for a product without category.
    leaf: (N,) int64, dense id of the node where the path ends, -1 without category.
    leaf_parent: (leaves,) int64, node id of each leaf's parent, -1 for the root.
    leaf_top: (leaves,) int64, node id of each leaf's first level.
    """

    node: NDArray[np.int64]
    length: NDArray[np.int64]
    leaf: NDArray[np.int64]
    leaf_parent: NDArray[np.int64]
    leaf_top: NDArray[np.int64]

    @property
    def leaves(self) -> int:
        return len(self.leaf_parent)


def build_tree(paths: ArrayLike | None, n: int) -> Tree:
    """Tree of N category paths: (N, depth) integers, -1 or None where there is no (further) category.

    Raises `ValueError` for a wrong shape, or for a path with a hole, naming its row.
    """
    values = _as_integers(paths, n)
    present = values >= 0
    holes = (present[:, 1:] & ~present[:, :-1]).any(axis=1)
    if holes.any():
        row = int(np.argmax(holes))
        raise ValueError(f"taxonomy_paths row {row} is {values[row].tolist()}: a level is missing above a given one.")
    node = np.full(values.shape, -1, np.int64)
    parent = np.zeros(n, np.int64)
    offset = 0
    for level in range(values.shape[1]):
        rows = np.flatnonzero(present[:, level])
        pairs, index = np.unique(np.stack([parent[rows], values[rows, level]], 1), axis=0, return_inverse=True)
        node[rows, level] = offset + index.reshape(-1)
        parent[rows] = node[rows, level]
        offset += len(pairs)
    length = present.sum(axis=1)
    categorised = np.flatnonzero(length)
    leaf = np.full(n, -1, np.int64)
    _, first, index = np.unique(node[categorised, length[categorised] - 1], return_index=True, return_inverse=True)
    leaf[categorised] = index.reshape(-1)
    rows = categorised[first]
    above = np.where(length[rows] > 1, node[rows, np.maximum(length[rows] - 2, 0)], -1)
    top = node[rows, 0] if node.size else np.empty(0, np.int64)
    return Tree(node, length, leaf, above, top)


def _as_integers(paths: ArrayLike | None, n: int) -> NDArray[np.int64]:
    if paths is None:
        return np.full((n, 0), -1, np.int64)
    values: NDArray[Any] = np.asarray(paths)
    if values.ndim == 1 and len(values) == n and values.dtype != object:
        values = values[:, None]
    if values.ndim != 2 or len(values) != n:
        raise ValueError(f"taxonomy_paths has shape {values.shape}; expected ({n}, depth), one row per embedding.")
    if values.dtype == object:
        values = np.where(np.equal(values, None), -1, values)  # type: ignore[call-overload]
    if np.issubdtype(values.dtype, np.floating):
        values = np.where(np.isnan(values), -1, values)
    try:
        whole = values.astype(np.int64)
    except (TypeError, ValueError) as e:
        raise ValueError("taxonomy_paths must hold integers, -1 or None.") from e
    if not (whole == values).all():
        raise ValueError("taxonomy_paths must hold whole numbers, -1 or None.")
    return np.maximum(whole, -1)


def shared_depth(path_a: Any, path_b: Any) -> Any:
    """Depth of the lowest common ancestor; 0 where there is none or one of the two is uncategorised.

    Args:
        path_a, path_b: rows of path matrices of one tree, (..., depth) integers with -1 below the path's end, numpy
            arrays or torch tensors that broadcast.
    """
    alike = (path_a == path_b) & (path_a >= 0)
    depth = alike[..., :0].sum(-1)
    running = depth == 0
    # Level by level in booleans: a cumulative product over the last axis costs several times as much.
    for level in range(alike.shape[-1]):
        running = running & alike[..., level]
        depth = depth + running
    return depth


def distance(path_a: Any, path_b: Any) -> Any:
    """Structural distance: the longer path's length minus the depth of the lowest common ancestor.

    0 is the same category, 1 a sibling or a parent and its child, more is further. It is a metric on categories. It
    does not tell unrelated categories of a flat tree from siblings: those have `shared_depth` 0. An uncategorised
    product counts as standing at the root above all categories.

    Args:
        path_a, path_b: as for `shared_depth`.
    """
    length_a, length_b = (path_a >= 0).sum(-1), (path_b >= 0).sum(-1)
    # The larger of two whole numbers, in operations that numpy and torch share.
    longer = (length_a + length_b + abs(length_a - length_b)) // 2
    return longer - shared_depth(path_a, path_b)


def grade_pairs(path_a: Any, path_b: Any) -> Any:
    """How near pairs of categorised products stand, 0..3 (see GRADES): what the loss and the sampler go by.

    The `distance`, at most FURTHER, and UNRELATED for pairs without a common ancestor.

    Args:
        path_a, path_b: as for `shared_depth`.
    """
    unrelated = shared_depth(path_a, path_b) == 0
    return distance(path_a, path_b).clip(max=FURTHER) * ~unrelated + UNRELATED * unrelated
