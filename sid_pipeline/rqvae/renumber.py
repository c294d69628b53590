"""The same codebook with its codewords named otherwise.

Belongs here: changing the numbers that codes are, and nothing else about a codebook. Does not belong here: which
numbers are wanted (`evaluation.alignment`). Numpy only.

Where a codebook has cells, a code of a snapped level is a name: prototypes and cells carry theirs, and inference reads
them off, so a code may be renamed under each prefix apart. In every other level a code is a place in the level's one
table of codewords, so there one permutation holds under every prefix. Either way each product falls to the same
codewords as before, and decoding its new codes gives the same vector bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sid_pipeline.rqvae.codebook import Codebook, CodebookError

_ROUNDS = 10


def cell_names(book: Codebook) -> NDArray[np.int64]:
    """Codes of the levels that are names, by cell: (cells, levels), (0, 0) in a codebook without cells."""
    a = book.arrays
    if "cell.start" not in a:
        return np.empty((0, 0), np.int64)
    owner = np.repeat(np.arange(len(a["cell.start"]) - 1), np.diff(a["cell.start"]))
    names = a["prototype.paths"][owner].astype(np.int64)
    return np.column_stack([names, a["cell.codes"]]) if "cell.codes" in a else names


def renumber(
    book: Codebook,
    names: NDArray[np.int64],
    permutations: Sequence[NDArray[np.int64]],
    manifest: Mapping[str, Any] | None = None,
) -> Codebook:
    """The codebook under other numbers.

    Args:
        book: the codebook.
        names: the new codes of each cell, of the shape and in the order of `cell_names`: unlike one another, and
            alike in the levels of a prototype for all its cells.
        permutations: one per further level, (K,): the new number of each old code.
        manifest: facts to add to the manifest.

    Raises:
        CodebookError: the numbers are no renaming.
    """
    size, arrays = book.codebook_size, dict(book.arrays)
    named = names.shape[1]
    _check(book, names, permutations)
    words = arrays["codewords"].copy()
    if named:
        paths = names[arrays["cell.start"][:-1], : arrays["prototype.paths"].shape[1]]
        arrays["prototype.paths"] = paths.astype(np.int32)
        if "cell.codes" in arrays:
            arrays["cell.codes"] = names[:, 2].astype(np.int32)
        if not np.array_equal(names, cell_names(book)):
            words[:named] = _additive(arrays["cell.means"], names, size)
    elif "prototype.paths" in arrays:
        # Without cells a prototype's path is made of places in the tables.
        places = arrays["prototype.paths"]
        moved = [permutations[level][places[:, level]] for level in range(places.shape[1])]
        arrays["prototype.paths"] = np.stack(moved, axis=1).astype(np.int32)
    if len(permutations):
        readout = arrays["readout"].copy()
        for level, new in enumerate(permutations):
            words[named + level][new] = arrays["codewords"][named + level]
            readout[level][new] = arrays["readout"][level]
        arrays["readout"] = readout
    arrays["codewords"] = words
    kept = {name: value for name, value in book.manifest.items() if name not in ("id", "files", "format")}
    config = {name: value for name, value in book.config.items() if name != "format"}
    return Codebook(arrays, config, {**kept, **(manifest or {})}, book.history)


def one_of_equals(book: Codebook, level: int) -> NDArray[np.int64]:
    """(K,) for a level that is no name: the lowest code with the very same codeword, which is the one that is used."""
    words = book.arrays["codewords"][level]
    _, first, index = np.unique(words, axis=0, return_index=True, return_inverse=True)
    return first[index.reshape(-1)]


def _check(book: Codebook, names: NDArray[np.int64], permutations: Sequence[NDArray[np.int64]]) -> None:
    size, before = book.codebook_size, cell_names(book)
    named = before.shape[1]
    if names.shape != before.shape or (names.size and not (names.min() >= 0 and names.max() < size)):
        raise CodebookError(f"New names of the cells are {before.shape} codes in 0..{size - 1}; got {names.shape}.")
    for depth in range(1, named + 1):
        pairs = np.unique(np.hstack([before[:, :depth], names[:, :depth]]), axis=0)
        if not (len(pairs) == len(np.unique(before[:, :depth], axis=0)) == len(np.unique(names[:, :depth], axis=0))):
            raise CodebookError(f"The new names of the first {depth} levels put prefixes together or take them apart.")
    if len(permutations) != book.levels - named:
        raise CodebookError(f"{book.levels - named} levels are numbered by permutations; got {len(permutations)}.")
    for level, new in enumerate(permutations, start=named):
        if not np.array_equal(np.sort(new), np.arange(size)):
            raise CodebookError(f"The numbers of level {level + 1} are no permutation of 0..{size - 1}.")
        # Of equal codewords inference takes the lowest number: it must stay the one that is taken.
        if (new < new[one_of_equals(book, level)]).any():
            raise CodebookError(f"Level {level + 1} has equal codewords, and the numbers change which one is taken.")


def _additive(means: NDArray[np.float32], names: NDArray[np.int64], size: int) -> NDArray[np.float32]:
    """(snapped, K, D): the additive table nearest to the cells' means, by backfitting (Breiman and Friedman 1985)."""
    table = np.zeros((names.shape[1], size, means.shape[1]), np.float32)
    left = means.copy()
    for _ in range(_ROUNDS):
        for level in range(names.shape[1]):
            code = names[:, level]
            left += table[level][code]
            total = np.zeros_like(table[level])
            np.add.at(total, code, left)
            table[level] = total / (np.bincount(code, minlength=size) + 1.0)[:, None]
            left -= table[level][code]
    return table
