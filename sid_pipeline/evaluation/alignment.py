"""Numbering a new codebook's codes as an old one's, so that as many products as possible keep theirs.

What belongs here: choosing the numbers. What does not: changing a codebook (`rqvae.renumber`), telling what moved
(`codebook_diff.py`).

Level by level, from coarse to fine, by linear assignment (Kuhn 1955; SciPy's `linear_sum_assignment`) on the
co-occurrence of old and new codes, counting only products whose prefix has been matched so far:

- where codes are names under a prefix (see `rqvae.renumber`), one assignment per prefix: the children of a new prefix
  are named as the children of the old prefix that it was matched to;
- in a level whose codewords all prefixes share, one permutation. Products that lost their prefix count there too, but
  only decide what the others leave open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sid_pipeline.rqvae.codebook import Codebook
from sid_pipeline.rqvae.renumber import cell_names, one_of_equals, renumber

# What a product that has lost its prefix weighs against one that has kept it.
_LOST = 1e-4


@dataclass(frozen=True)
class Aligned:
    """An aligned codebook and what it was worth.

    book: the new codebook, renumbered.
    codes: (N, levels) int32, the products' new codes under the new numbers.
    kept_before, kept: per level, share of products whose codes are the old ones from the first level to this, before
        and after.
    """

    book: Codebook
    codes: NDArray[np.int32]
    kept_before: tuple[float, ...]
    kept: tuple[float, ...]


def align(book: Codebook, old: NDArray[Any], new: NDArray[Any], old_id: str) -> Aligned:
    """Renumber a codebook after the codes that an old one gave to the same products.

    Args:
        book: the new codebook.
        old: (N, levels of the old codebook) its codes.
        new: (N, levels) what `book.encode` gives. Levels that only one of the two has are left as they are.
        old_id: id of the old codebook, for the manifest.

    Raises:
        ValueError: not one row of each per product.
    """
    if len(old) != len(new) or not len(new):
        raise ValueError(f"align needs one row of old and of new codes per product; got {len(old)} and {len(new)}")
    old, codes = old.astype(np.int64), new.astype(np.int64).copy()
    size, before = book.codebook_size, cell_names(book)
    names = before.copy()
    kept = np.ones(len(new), bool)
    permutations = []
    for level in range(book.levels):
        known = level < old.shape[1]
        if level < names.shape[1]:
            if known:
                _name_children(before, names, new, codes, old, kept, level, size)
        else:
            numbers = np.arange(size)
            if known:
                numbers = _permute(new[:, level], old[:, level], kept, size)
                numbers = lowest_of_equals(numbers, one_of_equals(book, level))
            permutations.append(numbers)
            codes[:, level] = numbers[new[:, level]]
        kept &= codes[:, level] == old[:, level] if known else False
    shares = [_kept(numbered, old) for numbered in (new, codes)]
    facts = {"aligned": {"to": old_id, "products": len(new), "kept_before": shares[0], "kept": shares[1]}}
    return Aligned(renumber(book, names, permutations, facts), codes.astype(np.int32), *map(tuple, shares))


def _name_children(
    before: NDArray[np.int64],
    names: NDArray[np.int64],
    new: NDArray[Any],
    codes: NDArray[np.int64],
    old: NDArray[np.int64],
    kept: NDArray[np.bool_],
    level: int,
    size: int,
) -> None:
    """Name a level under each prefix apart; fills `names` and `codes` at this level."""
    prefixes, of_cell = np.unique(_key(before[:, :level], size), return_inverse=True)
    of_row = np.searchsorted(prefixes, _key(new[:, :level], size))
    groups = zip(_groups(of_cell.reshape(-1), len(prefixes)), _groups(of_row, len(prefixes)), strict=True)
    for cells, rows in groups:
        children, child = np.unique(before[cells, level], return_inverse=True)
        rows = rows[kept[rows] & (old[rows, level] < size)]
        joint = np.zeros((len(children), size))
        np.add.at(joint, (np.searchsorted(children, new[rows, level]), old[rows, level]), 1.0)
        names[cells, level] = _assign(joint, children)[child.reshape(-1)]
    keys, some_cell = np.unique(_key(before[:, : level + 1], size), return_index=True)
    codes[:, level] = names[some_cell[np.searchsorted(keys, _key(new[:, : level + 1], size))], level]


def _key(codes: NDArray[Any], size: int) -> NDArray[np.int64]:
    """One integer per row of codes (N, any number of levels)."""
    key = np.zeros(len(codes), np.int64)
    for level in range(codes.shape[1]):
        key = key * size + codes[:, level]
    return key


def _permute(new: NDArray[Any], old: NDArray[Any], kept: NDArray[np.bool_], size: int) -> NDArray[np.int64]:
    joint = np.zeros((size, size))
    labelled = old < size
    np.add.at(joint, (new[labelled], old[labelled]), np.where(kept[labelled], 1.0, _LOST))
    return _assign(joint, np.arange(size))


def _assign(joint: NDArray[np.float64], codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """A different number for each row of counts (codes, K) so that most counts are met; else the code's own number.

    A code with nothing to meet keeps its number where that is free, so that what has no old name is not moved about.
    """
    from scipy.optimize import linear_sum_assignment

    wish = joint.copy()
    wish[np.arange(len(codes)), codes] += _LOST * _LOST
    rows, numbers = linear_sum_assignment(wish, maximize=True)
    return numbers[np.argsort(rows)]


def lowest_of_equals(numbers: NDArray[np.int64], first: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers where, of equal codewords, the one in use has the lowest: its number and a lower one change places."""
    numbers = numbers.copy()
    for used in np.unique(first):
        same = np.flatnonzero(first == used)
        if len(same) > 1:
            lowest = same[numbers[same].argmin()]
            numbers[[used, lowest]] = numbers[[lowest, used]]
    return numbers


def _groups(of: NDArray[np.int64], count: int) -> list[NDArray[np.int64]]:
    order = np.argsort(of, kind="stable")
    return np.split(order, np.searchsorted(of[order], np.arange(1, count)))


def _kept(new: NDArray[Any], old: NDArray[np.int64]) -> list[float]:
    levels = min(new.shape[1], old.shape[1])
    same = np.logical_and.accumulate(new[:, :levels] == old[:, :levels], axis=1)
    return [float(share) for share in same.mean(axis=0)]
