"""Which products make up a training step.

Belongs here: the uniform cover of all products and the hierarchical draw, seeded and stateless: batch s
depends on (seed, s) alone, so a resumed run draws what the broken one would have drawn.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sid_pipeline.rqvae.tree import GRADES, Tree, grade_pairs

_UNIFORM, _RELATED = 1, 2


class UniformSampler:
    """Epochs of seeded permutations: every row exactly once per epoch."""

    def __init__(self, rows: NDArray[np.int64], size: int, seed: int) -> None:
        self.rows, self.size, self.seed = rows, min(size, len(rows)), seed
        self._epoch, self._order = -1, rows

    def batch(self, step: int) -> NDArray[np.int64]:
        """Rows (size,) of step `step`."""
        n = len(self.rows)
        at = step * self.size
        parts = []
        left = self.size
        while left:
            epoch, offset = divmod(at, n)
            take = min(left, n - offset)
            parts.append(self._permutation(epoch)[offset : offset + take])
            at, left = at + take, left - take
        return np.concatenate(parts)

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        if epoch != self._epoch:
            self._order = np.random.default_rng([self.seed, _UNIFORM, epoch]).permutation(self.rows)
            self._epoch = epoch
        return self._order


class HierarchicalSampler:
    """Groups of related products: per group one random parent category, half of the group from its children.

    The other half comes from products that share no ancestor with the parent. Products are drawn by slot:
    `per_slot` products of one category. A parent is drawn evenly over parents, a child evenly over its
    children, a product evenly within its category, so small categories are seen as often as huge ones; the
    uniform part of the batch makes up for the products this leaves rare.

    rows: (M,) products to draw from; those without category are left out.
    size: rows per batch asked for; `self.size` is what whole groups make of it.
    """

    def __init__(
        self, tree: Tree, rows: NDArray[np.int64], size: int, per_slot: int, seed: int, group_size: int = 64
    ) -> None:
        rows = rows[tree.leaf[rows] >= 0]
        self.tree, self.per_slot, self.seed = tree, per_slot, seed
        half = max(min(group_size, size) // (2 * per_slot), 1) * per_slot
        self.slots = half // per_slot
        self.groups = size // (2 * half)
        self.size = self.groups * 2 * half
        self._products, self._leaf_start, self._leaf_count = _grouped(rows, tree.leaf[rows], tree.leaves)
        seen = np.flatnonzero(self._leaf_count)
        parents, parent_of = np.unique(tree.leaf_parent[seen], return_inverse=True)
        self._children, self._child_start, self._child_count = _grouped(seen, parent_of.reshape(-1), len(parents))
        tops, top_of = np.unique(tree.leaf_top[seen], return_inverse=True)
        leaf_top = np.full(tree.leaves, -1)
        leaf_top[seen] = top_of.reshape(-1)
        self._by_top, self._top_start, self._top_count = _grouped(rows, leaf_top[tree.leaf[rows]], len(tops))
        first_child = self._children[self._child_start]
        # Children of the root have no ancestor in common, so nothing is left out of their unrelated half.
        self._parent_top = np.where(parents >= 0, leaf_top[first_child], -1)

    def batch(self, step: int) -> NDArray[np.int64]:
        """Rows (size,) of step `step`, group after group, related half first."""
        rng = np.random.default_rng([self.seed, _RELATED, step])
        parent = rng.integers(len(self._child_count), size=self.groups)
        shape = (self.groups, self.slots)
        child = self._child_start[parent, None] + _below(rng, self._child_count[parent, None], shape)
        leaf = np.repeat(self._children[child], self.per_slot, axis=1)
        related = self._products[self._leaf_start[leaf] + _below(rng, self._leaf_count[leaf], leaf.shape)]
        slot_leaf = np.repeat(self.tree.leaf[self._unrelated(rng, parent)], self.per_slot, axis=1)
        other = self._products[self._leaf_start[slot_leaf] + _below(rng, self._leaf_count[slot_leaf], slot_leaf.shape)]
        return np.concatenate([related, other], axis=1).reshape(-1)

    def _unrelated(self, rng: np.random.Generator, parent: NDArray[np.int64]) -> NDArray[np.int64]:
        """One product per slot (groups, slots) from outside the parent's top category, all where none is
        outside."""
        n = len(self._by_top)
        top = self._parent_top[parent]
        start = np.where(top >= 0, self._top_start[top], n)
        count = np.where(top >= 0, self._top_count[top], 0)
        alone = count == n
        start, count = np.where(alone, n, start), np.where(alone, 0, count)
        draw = _below(rng, (n - count)[:, None], (len(parent), self.slots))
        return self._by_top[np.where(draw >= start[:, None], draw + count[:, None], draw)]

    def pair_mix(self, batch: NDArray[np.int64]) -> dict[str, float]:
        """Share of each grade among the distinct pairs of a batch, by grade name."""
        node = self.tree.node[batch]
        i, j = np.triu_indices(len(batch), 1)
        keep = batch[i] != batch[j]
        grades = grade_pairs(node[i[keep]], node[j[keep]])
        share = np.bincount(grades, minlength=len(GRADES)) / max(len(grades), 1)
        return dict(zip(GRADES, share.tolist(), strict=True))


def _grouped(
    items: NDArray[np.int64], group: NDArray[np.int64], groups: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Items sorted by group, with the start and the count of each group."""
    count = np.bincount(group, minlength=groups)
    return items[np.argsort(group, kind="stable")], np.cumsum(count) - count, count


def _below(rng: np.random.Generator, bound: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Even integers in [0, bound), element by element."""
    return np.minimum((rng.random(shape) * bound).astype(np.int64), bound - 1)
