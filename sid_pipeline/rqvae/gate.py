"""The verdict on a trained codebook: healthy, or collapsed and why.

Belongs here: health figures computed from codes, and the refusal. Numpy only.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sid_pipeline.rqvae.config import TrainConfig

NEAR_DUPLICATE_COSINE = 0.9
"""Products whose vectors are at least so alike are near-duplicates, here and in the report."""
LEAST_PAIRS = 100
"""Fewer pairs of near-duplicates say too little to refuse a codebook."""
LEAST_ERROR = 0.005
"""Errors relative to the variance that are as good as none."""


class CollapsedCodebookError(RuntimeError):
    """Training ended in a codebook that must not be used; the message says which level, why, and what to
    change."""


@dataclass(frozen=True)
class Health:
    """Figures of a codebook.

    Attributes:
        usage, perplexity: per level, share of codewords in use and exp(entropy).
        attainable: per level, most codewords that the data could use.
        distinct: distinct code sequences.
        rows, distinct_rows: products, and different vectors among them.
        collisions: 1 - distinct / rows.
        relative_error: held-out squared error / variance.
        kmeans_error: the same of residual k-means (`yardsticks.residual_kmeans_error`).
        near_pairs: pairs of near-duplicates looked at; near_share: share of them with equal first 1, 2, ... codes.
    """

    usage: list[float]
    perplexity: list[float]
    attainable: list[int]
    distinct: int
    rows: int
    distinct_rows: int
    collisions: float
    relative_error: float
    kmeans_error: float
    near_pairs: int
    near_share: list[float]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready figures."""
        return asdict(self)


def measure(
    codes: NDArray[np.int32],
    codebook_size: int,
    distinct_rows: int,
    relative_error: float,
    kmeans_error: float,
    near: tuple[int, list[float]],
) -> Health:
    """Health of codes (N, levels); `near` as `yardsticks.near_duplicates` gives it."""
    n, levels = codes.shape
    usage, perplexity = [], []
    for level in range(levels):
        p = np.bincount(codes[:, level], minlength=codebook_size) / n
        used = p[p > 0]
        usage.append(len(used) / codebook_size)
        perplexity.append(float(np.exp(-(used * np.log(used)).sum())))
    distinct = len(np.unique(codes, axis=0))
    return Health(
        usage,
        perplexity,
        [min(codebook_size, distinct_rows)] * levels,
        distinct,
        n,
        distinct_rows,
        1 - distinct / n,
        relative_error,
        kmeans_error,
        *near,
    )


def refuse_collapse(health: Health, config: TrainConfig, lambda_contrastive: float) -> None:
    """Raise `CollapsedCodebookError` with the diagnosis if a gate of the config is missed."""
    found = []
    for level, share in enumerate(health.usage):
        used, possible = round(share * config.codebook_size), health.attainable[level]
        # Deeper levels of few or repeated products have little left to say; only level 1 can always fill up.
        if used < config.min_usage * possible and (level == 0 or health.distinct < 0.5 * health.distinct_rows):
            found.append(
                f"level {level + 1} uses {used} of {possible} usable codewords "
                f"(perplexity {health.perplexity[level]:.1f}, gate {config.min_usage:.0%}): "
                f"{_cure(level, lambda_contrastive)}"
            )
    colliding = 1 - health.distinct / health.distinct_rows
    if colliding > config.max_collisions:
        weakest = int(np.argmin(health.perplexity)) + 1
        found.append(
            f"{colliding:.0%} of {health.distinct_rows} different products collide (gate {config.max_collisions:.0%}; "
            f"the level that tells least apart is {weakest}, perplexity {health.perplexity[weakest - 1]:.1f}): lower "
            "group_products, raise cells_per_group or codebook_size, or lower lambda_contrastive"
        )
    if not health.relative_error <= config.max_relative_error:
        found.append(
            f"held-out reconstruction error is {health.relative_error:.2f} of the variance (gate "
            f"{config.max_relative_error:g}), as if every product were the mean: train longer, lower learning_rate, or "
            "check that the embeddings differ"
        )
    # Where next to nothing is left over, as on a few repeated vectors, a ratio says nothing.
    if health.relative_error > config.max_error_against_kmeans * max(health.kmeans_error, LEAST_ERROR):
        found.append(
            f"held-out reconstruction error is {health.relative_error:.3f} of the variance, residual k-means of the "
            f"same size makes {health.kmeans_error:.3f} (gate: {config.max_error_against_kmeans:g} times that): train "
            "longer, lower group_products, or lower lambda_contrastive"
        )
    if health.near_pairs >= LEAST_PAIRS and health.near_share[0] < config.min_near_share:
        found.append(
            f"only {health.near_share[0]:.0%} of {health.near_pairs} pairs of near-duplicates share their first "
            f"codeword (gate {config.min_near_share:.0%}), so prefixes mean little: raise group_products or "
            "snapped_levels, lower cells_per_group, or look whether the categories contradict the embeddings"
        )
    if found:
        raise CollapsedCodebookError("The codebook collapsed: " + "; ".join(found) + ".")


def _cure(level: int, lambda_contrastive: float) -> str:
    advice = "set reset_every > 0"
    if lambda_contrastive > 0.05:
        return f"lambda_contrastive {lambda_contrastive:g} outweighs reconstruction, lower it towards 0.01; or {advice}"
    return advice + (", or set snapped_levels to 0" if level else ", or give more varied products")
