"""Ranking metrics over judged products, as pure functions over arrays.

What belongs here: the definition of every figure. What does not: embedding and going through queries
(`evaluate.py`). Where scores are equal the order of the rows never decides: each metric gives its expected
value over all orders of the tied products.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_BOOTSTRAP_BLOCK = 4_000_000


class Gain(NamedTuple):
    """A mean difference with its 95 % interval."""

    mean: float
    lower: float
    upper: float


def ndcg(gains: np.ndarray, scores: np.ndarray, k: int = 10) -> float:
    """Normalised discounted cumulative gain at k of one query.

    Linear gains and a 1 / log2(rank + 1) discount (Järvelin and Kekäläinen 2002); ties by the mean gain of
    the tied products (McSherry and Najork 2008).

    Args:
        gains: (n,) float, 0 or above.
        scores: (n,) float, higher ranks first.

    Returns:
        0 to 1; NaN where no product has a gain, since no order is then better than another.
    """
    ideal = np.sort(gains)[::-1]
    if not len(gains) or ideal[0] <= 0:
        return float("nan")
    _, group, sizes = np.unique(-scores, return_inverse=True, return_counts=True)
    mean_gain = np.bincount(group, weights=gains) / sizes
    expected = np.repeat(mean_gain, sizes)
    discount = 1 / np.log2(np.arange(2, min(k, len(gains)) + 2))
    return float(expected[:k] @ discount / (ideal[:k] @ discount))


def recall(relevant: np.ndarray, scores: np.ndarray, k: int = 10) -> float:
    """Share of one query's relevant products among the k best.

    Args:
        relevant: (n,) bool.
        scores: (n,) float.

    Returns:
        0 to 1; NaN where nothing is relevant.
    """
    if not relevant.any():
        return float("nan")
    if k >= len(scores):
        return 1.0
    threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
    above, tied = scores > threshold, scores == threshold
    chance = (k - above.sum()) / tied.sum()
    return float((relevant[above].sum() + relevant[tied].sum() * chance) / relevant.sum())


def pairs_in_order(better: np.ndarray, worse: np.ndarray) -> tuple[float, int]:
    """Over all pairs (one of `better`, one of `worse`): how many rank the better one first, a tie for a half.

    Args:
        better: (n,) scores of one query's products of the better grade.
        worse: (m,) scores of those of the worse grade.

    Returns:
        Pairs in order, and pairs, n * m.
    """
    difference = better[:, None] - worse[None, :]
    return float((difference > 0).sum() + 0.5 * (difference == 0).sum()), difference.size


def paired_bootstrap(a: np.ndarray, b: np.ndarray, seed: int, resamples: int = 10_000) -> Gain:
    """Mean gain of `b` over `a` with its 95 % interval, by resampling queries with replacement.

    The percentile bootstrap on paired differences (Efron 1979; Sakai 2006 for retrieval).

    Args:
        a, b: (n,) one figure per query, the same queries in the same order.
        seed: of the resampling.

    Raises:
        ValueError: the arrays differ in length or are empty.
    """
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"a paired bootstrap needs two equally long arrays, got {a.shape} and {b.shape}")
    difference = np.asarray(b, np.float64) - np.asarray(a, np.float64)
    draw = np.random.default_rng(seed)
    block = max(1, _BOOTSTRAP_BLOCK // len(difference))
    means = np.concatenate(
        [
            difference[draw.integers(0, len(difference), (min(block, resamples - start), len(difference)))].mean(1)
            for start in range(0, resamples, block)
        ]
    )
    lower, upper = np.quantile(means, [0.025, 0.975])
    return Gain(float(difference.mean()), float(lower), float(upper))
