"""Code tables that always stand beside ours, made on the same products.

What belongs here: cheap tokenizers that a trained one has to beat. Residual k-means has less reconstruction
error than most RQ-VAEs, a category id groups perfectly by category and knows nothing else, random codes show
what chance gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from sid_pipeline.evaluation.metrics import Path, tree_labels
from sid_pipeline.evaluation.pairs import row_blocks

_FIT_ROWS_PER_CODE = 128


@dataclass(frozen=True)
class ResidualKMeans:
    """Residual quantisation by plain k-means in the embedding space.

    Attributes:
        codebooks: L arrays (K_l, d) float32. K_l is below the size asked for only where there were fewer
            rows.
    """

    codebooks: tuple[np.ndarray, ...]

    def assign(self, vectors: np.ndarray) -> np.ndarray:
        """(N, L) int32 nearest codeword per level of the (N, d) float32 vectors."""
        codes = np.empty((len(vectors), len(self.codebooks)), np.int32)
        for rows in row_blocks(len(vectors)):
            residual = np.array(vectors[rows], np.float32)
            for level, book in enumerate(self.codebooks):
                codes[rows, level] = _nearest(residual, book)[0]
                residual -= book[codes[rows, level]]
        return codes

    def reconstruct(self, codes: np.ndarray) -> np.ndarray:
        """(N, d) float32 sum of the codewords of (N, L) codes."""
        out: np.ndarray = np.zeros((len(codes), self.codebooks[0].shape[1]), np.float32)
        for level, book in enumerate(self.codebooks):
            out += book[codes[:, level]]
        return out


def fit_residual_kmeans(
    vectors: np.ndarray, levels: int, codebook_size: int, seed: int, iterations: int = 12
) -> ResidualKMeans:
    """Fit level after level on what the levels before leave over.

    Lloyd's algorithm with GEMM distances on at most 128 rows a code, for a fixed number of iterations; starts
    from distinct rows, and a code that lost its rows takes the row that is served worst.

    Args:
        vectors: (N, d) float32, N >= 1.
    """
    rng = np.random.default_rng(seed)
    limit = _FIT_ROWS_PER_CODE * codebook_size
    rows = np.arange(len(vectors))
    if len(rows) > limit:
        rows = np.sort(rng.choice(len(vectors), limit, replace=False))
    residual = np.array(vectors[rows], np.float32)
    books = []
    for _ in range(levels):
        book = _lloyd(residual, codebook_size, iterations, rng)
        books.append(book)
        residual -= book[_nearest(residual, book)[0]]
    return ResidualKMeans(tuple(books))


def _lloyd(x: np.ndarray, k: int, iterations: int, rng: np.random.Generator) -> np.ndarray:
    start = np.sort(np.unique(x, axis=0, return_index=True)[1])
    k = min(k, len(start))
    centres = x[rng.choice(start, k, replace=False)].copy()
    for _ in range(iterations):
        code, distance = _nearest(x, centres)
        counts = np.bincount(code, minlength=k)
        one_hot = csr_matrix((np.ones(len(x), np.float32), (code, np.arange(len(x)))), shape=(k, len(x)))
        sums = one_hot @ x
        used = counts > 0
        centres[used] = sums[used] / counts[used, None]
        empty = np.flatnonzero(~used)
        if len(empty):
            centres[empty] = x[np.argsort(-distance, kind="stable")[: len(empty)]]
    return centres


def _nearest(x: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(B,) nearest centre (the lowest number on a tie) and (B,) squared distance, by one GEMM a block."""
    half = 0.5 * np.einsum("kd,kd->k", centres, centres)
    code = np.empty(len(x), np.int64)
    distance = np.empty(len(x), np.float32)
    for rows in row_blocks(len(x), 4_096):
        score = x[rows] @ centres.T
        score -= half
        code[rows] = score.argmax(1)
        best = score[np.arange(len(score)), code[rows]]
        distance[rows] = np.einsum("bd,bd->b", x[rows], x[rows]) - 2 * best
    return code, distance


def category_prefix_codes(categories: Sequence[Path | None], levels: int, codebook_size: int) -> np.ndarray:
    """(N, L) int32: the category path as codes, then a running number inside the leaf.

    The first min(tree depth, L - 1) levels are the path's steps, numbered in lexical order among their
    siblings; what is deeper than that is folded into the last of them. The remaining levels are the product's
    number within its leaf, in base `codebook_size`, wrapping around when the leaf is larger. Products without
    category share a branch of their own.
    """
    labels, _ = tree_labels(categories)
    n, depth = labels.shape
    steps = min(depth, levels - 1)
    codes = np.zeros((n, levels), np.int32)
    parent = np.zeros(n, np.int64)
    for level in range(steps):
        # The last step takes the whole path, so that one prefix is one leaf.
        label = labels[:, depth - 1 if level == steps - 1 else level] + 1
        pair, row = np.unique(parent * (label.max() + 1) + label, return_inverse=True)
        family = pair // (label.max() + 1)
        first = np.searchsorted(family, family)
        codes[:, level] = (np.arange(len(pair)) - first)[row]
        parent = row
    order = np.argsort(parent, kind="stable")
    starts = np.searchsorted(parent[order], parent[order])
    running = np.empty(n, np.int64)
    running[order] = np.arange(n) - starts
    for level in range(levels - 1, steps - 1, -1):
        codes[:, level] = running % codebook_size
        running //= codebook_size
    return codes


def random_codes(n: int, levels: int, codebook_size: int, seed: int) -> np.ndarray:
    """(N, L) int32 codes drawn uniformly."""
    return np.random.default_rng(seed).integers(0, codebook_size, (n, levels), dtype=np.int32)
