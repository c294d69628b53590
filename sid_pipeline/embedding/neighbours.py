"""The nearest products of some sample products: what a person looks at to judge an embedding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def nearest(vectors: np.ndarray, rows: Sequence[int], k: int) -> np.ndarray:
    """Positions of the k nearest other vectors.

    Args:
        vectors: float32 (n, d), rows of unit length.
        rows: q positions whose neighbours are wanted.
        k: how many, at most n - 1.

    Returns:
        int (q, k), nearest first by cosine, ties by position.
    """
    k = min(k, len(vectors) - 1)
    scores = vectors[list(rows)] @ vectors.T
    scores[np.arange(len(rows)), list(rows)] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]
