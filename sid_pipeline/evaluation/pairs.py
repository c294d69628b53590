"""Seeded sampling of product pairs, on which the similarity metrics are measured.

What belongs here: which pairs are looked at, and their exact cosines. What does not: what the codes say about
them (`metrics.py`). Spearman and share figures depend on how pairs are drawn, so each set carries its name.

With equal generator state and sizes, `random_pairs` followed by `neighbour_pairs` draws the very pairs of the
project's synthetic benchmark, so that figures stay comparable with its table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

RANDOM = "random"
NEIGHBOUR = "neighbour"
STRATIFIED = "cosine_stratified"

_BLOCK_ROWS = 16_384


@dataclass(frozen=True)
class Pairs:
    """A named sample of pairs.

    Attributes:
        name: how the pairs were drawn.
        i, j: (P,) int64 row numbers, i != j. `i` is the anchor: pairs of one anchor are not independent, and
            the confidence intervals treat them as one cluster.
        cosine: (P,) float32 cosine of the two vectors.
    """

    name: str
    i: np.ndarray
    j: np.ndarray
    cosine: np.ndarray

    def __len__(self) -> int:
        return len(self.i)


def row_blocks(n: int, rows: int = _BLOCK_ROWS) -> Iterator[slice]:
    """Slices that cover range(n) in steps of at most `rows`, so that temporaries stay small."""
    for start in range(0, n, rows):
        yield slice(start, min(start + rows, n))


def row_norms(vectors: np.ndarray) -> np.ndarray:
    """(N,) float32 L2 norms of (N, d) vectors; 1 for a zero vector, so that its cosines are 0 and not NaN."""
    norms = np.empty(len(vectors), np.float32)
    for rows in row_blocks(len(vectors)):
        norms[rows] = np.sqrt(np.einsum("nd,nd->n", vectors[rows], vectors[rows]))
    norms[norms == 0] = 1.0
    return norms


def cosines(vectors: np.ndarray, norms: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """(P,) float32 cosines of the rows `i` with the rows `j` of (N, d) vectors."""
    out = np.empty(len(i), np.float32)
    for rows in row_blocks(len(i)):
        a, b = i[rows], j[rows]
        out[rows] = np.einsum("nd,nd->n", vectors[a], vectors[b]) / (norms[a] * norms[b])
    return out


def random_pairs(vectors: np.ndarray, norms: np.ndarray, count: int, rng: np.random.Generator) -> Pairs:
    """Up to `count` pairs drawn uniformly with replacement; a product with itself is left out."""
    n = len(vectors)
    if n < 2 or count < 1:
        return _pairs(RANDOM, vectors, norms, np.empty(0, np.int64), np.empty(0, np.int64))
    i, j = rng.integers(0, n, count), rng.integers(0, n, count)
    keep = i != j
    return _pairs(RANDOM, vectors, norms, i[keep], j[keep])


def neighbour_pairs(vectors: np.ndarray, norms: np.ndarray, anchors: int, k: int, rng: np.random.Generator) -> Pairs:
    """Each of `anchors` sampled products with its `k` exact nearest neighbours, nearest first.

    `anchors` and `k` are cut to what N allows. The pairs of one anchor are contiguous, so `j.reshape(-1, k)`
    gives the neighbour lists.
    """
    n = len(vectors)
    anchors, k = min(anchors, n), min(k, n - 1)
    if k < 1 or anchors < 1:
        return _pairs(NEIGHBOUR, vectors, norms, np.empty(0, np.int64), np.empty(0, np.int64))
    rows = rng.choice(n, anchors, replace=False)
    near = nearest_neighbours(vectors, norms, rows, k)
    return _pairs(NEIGHBOUR, vectors, norms, np.repeat(rows, k), near.ravel())


def nearest_neighbours(vectors: np.ndarray, norms: np.ndarray, rows: np.ndarray, k: int) -> np.ndarray:
    """Exact k nearest neighbours by cosine of the given rows, without themselves.

    The scan is a chunked GEMM. A row's candidates of a block are those above its k-th best so far, so after a
    few blocks little is left to sort. Ties go to the lower row number.

    Args:
        vectors: (N, d) float32.
        norms: (N,) from `row_norms`.
        rows: (A,) int64 row numbers.
        k: 1 <= k <= N - 1.

    Returns:
        (A, k) int64, nearest first.
    """
    out = np.empty((len(rows), k), np.int64)
    for part in row_blocks(len(rows), 1024):
        out[part] = _nearest_block(vectors, norms, rows[part], k)
    return out


def _nearest_block(vectors: np.ndarray, norms: np.ndarray, rows: np.ndarray, k: int) -> np.ndarray:
    anchors = vectors[rows] / norms[rows, None]
    count = len(rows)
    best = np.full((count, k), -np.inf, np.float32)
    index = np.full((count, k), len(vectors), np.int64)
    for block in row_blocks(len(vectors)):
        similarity = anchors @ vectors[block].T
        similarity /= norms[block]
        inside = (rows >= block.start) & (rows < block.stop)
        similarity[np.flatnonzero(inside), rows[inside] - block.start] = -np.inf
        # `>` drops ties with the k-th best, which has the lower row number: blocks come in row order.
        candidate = similarity > best[:, -1:]
        if candidate.sum() > 4 * k * count and similarity.shape[1] > k:
            candidate &= similarity >= np.partition(similarity, -k, axis=1)[:, -k, None]
        who, what = np.nonzero(candidate)
        values = np.concatenate([best.ravel(), similarity[who, what]])
        owner = np.concatenate([np.repeat(np.arange(count), k), who])
        target = np.concatenate([index.ravel(), what + block.start])
        order = np.lexsort((target, -values, owner))
        first = np.searchsorted(owner[order], np.arange(count))
        kept = order[first[:, None] + np.arange(k)]
        best, index = values[kept], target[kept]
    return index


def stratified_pairs(
    vectors: np.ndarray,
    norms: np.ndarray,
    neighbours: Pairs,
    per_bin: int,
    rng: np.random.Generator,
    bin_width: float = 0.1,
) -> Pairs:
    """Equally many pairs from each band of cosine, as far as there are enough.

    The pool is 512 anchors against up to 8,192 products (nearly all of the low and middle cosines) and the
    neighbour pairs (the high ones).

    Args:
        per_bin: most pairs taken from one band of `bin_width`.
    """
    n = len(vectors)
    if n < 2 or per_bin < 1:
        return _pairs(STRATIFIED, vectors, norms, np.empty(0, np.int64), np.empty(0, np.int64))
    a = rng.choice(n, min(n, 512), replace=False)
    b = np.sort(rng.choice(n, min(n, 8_192), replace=False))
    similarity = (vectors[a] / norms[a, None]) @ (vectors[b] / norms[b, None]).T
    i, j = np.repeat(a, len(b)), np.tile(b, len(a))
    apart = i != j
    i = np.concatenate([i[apart], neighbours.i])
    j = np.concatenate([j[apart], neighbours.j])
    cosine = np.concatenate([similarity.ravel()[apart], neighbours.cosine])
    band = np.clip(np.floor(cosine / bin_width), -1 / bin_width, 1 / bin_width - 1).astype(np.int64)
    chosen = []
    for value in np.unique(band):
        members = np.flatnonzero(band == value)
        take = min(per_bin, len(members))
        chosen.append(members[rng.choice(len(members), take, replace=False)])
    keep = np.concatenate(chosen)
    return _pairs(STRATIFIED, vectors, norms, i[keep], j[keep])


def restrict(pairs: Pairs, present: np.ndarray, whole_anchors: bool = False) -> Pairs:
    """The pairs of rows that are present, numbered among those.

    Args:
        present: (N,) bool.
        whole_anchors: drop an anchor with all its pairs where one of them is not present, so that the pairs of
            each anchor stay equally many and in order.
    """
    keep = present[pairs.i] & present[pairs.j]
    if whole_anchors and len(pairs):
        keep = keep.reshape(len(np.unique(pairs.i)), -1)
        keep = np.repeat(keep.all(axis=1), keep.shape[1])
    number = np.cumsum(present) - 1
    return Pairs(pairs.name, number[pairs.i[keep]], number[pairs.j[keep]], pairs.cosine[keep])


def concatenate(name: str, *sets: Pairs) -> Pairs:
    """One set from several, in the order given."""
    return Pairs(
        name,
        np.concatenate([s.i for s in sets]),
        np.concatenate([s.j for s in sets]),
        np.concatenate([s.cosine for s in sets]),
    )


def _pairs(name: str, vectors: np.ndarray, norms: np.ndarray, i: np.ndarray, j: np.ndarray) -> Pairs:
    return Pairs(name, i, j, cosines(vectors, norms, i, j))
