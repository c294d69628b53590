"""Seeded random draws that give the same values on every platform and Python version.

Only ``random.Random(str).random()`` is used, which Python documents as reproducible; the higher-level
methods (``choice``, ``shuffle``, ``sample``) are free to change between versions, so they are rebuilt here.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Draw:
    """One independent stream of random draws, named by a string such as ``"20260105/offers"``."""

    def __init__(self, name: str) -> None:
        self._uniform = random.Random(name).random

    def uniform(self) -> float:
        """A float in [0, 1)."""
        return self._uniform()

    def below(self, n: int) -> int:
        """An integer in [0, n)."""
        return int(self._uniform() * n)

    def chance(self, probability: float) -> bool:
        return self._uniform() < probability

    def choice(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """A Fisher-Yates shuffled copy."""
        out = list(items)
        for i in range(len(out) - 1, 0, -1):
            j = self.below(i + 1)
            out[i], out[j] = out[j], out[i]
        return out

    def sample(self, items: Sequence[T], k: int) -> list[T]:
        """``min(k, len(items))`` distinct positions of ``items``, in random order."""
        return self.shuffled(items)[:k]
