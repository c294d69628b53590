"""Which texts share a batch: by length, up to a number of tokens, so that little of the work is padding.

A model pads each batch to its longest text. Sorted by tokens and cut by a budget of tokens instead of a number of
texts, batches of short texts are large, batches of long ones small, and both fit the processor's caches alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def token_batches(lengths: np.ndarray, budget: int) -> list[np.ndarray]:
    """Cut texts into batches whose padded size stays within a budget.

    Args:
        lengths: (n,) int, tokens of each text, above 0.
        budget: tokens of a batch, padding included; a longer text is a batch by itself.

    Returns:
        Positions of the texts of each batch, longest texts first; each position once.
    """
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        size = max(1, budget // int(lengths[order[start]]))
        batches.append(order[start : start + size])
        start += size
    return batches


def padded_tokens(lengths: np.ndarray, batches: Sequence[np.ndarray]) -> int:
    """Tokens that a model works through: every text as long as the longest of its batch."""
    return int(sum(len(rows) * lengths[rows].max() for rows in batches))
