"""The prefix tree of all published SIDs as flat arrays, so that a decoder can only ever emit SIDs that exist.

The layout is STATIC's (Su et al. 2026, "Vectorizing the Trie"): the first levels as dense tables, the rest as
compressed sparse rows (CSR), every step a gather of fixed width. States are numbered breadth first: the root is 0, and
the children of earlier states come first. So the edge number e always leads to state e + 1, and no array of targets is
needed:

    indptr (S + 1,)     the edges of state s are indptr[s] .. indptr[s + 1]; states that are whole SIDs have no row
    codes (E,)          the codeword of each edge, rising within a state
    starts (L + 1,)     number of the first state with 0, 1, ... L codes; state - starts[L] numbers the SIDs in order
    branches (L,)       the widest state of each level: the width of its gathers
    sizes (L,)          codewords per level; with the vocabulary's offsets, a code's token
    first (K,)          state after one code, -1 where no SID starts with it: `first >= 0` is the start mask
    second (K, K)       state after two codes, -1 where there is none; left out where it would be over 64 MB

`beam_search` is the reference decoder in numpy, for tests and as a model for one on an accelerator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DENSE_CELLS = 1 << 24

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Constraints:
    """The tree; arrays as in the module's docstring."""

    indptr: NDArray[np.int32]
    codes: NDArray[np.int32]
    starts: NDArray[np.int64]
    branches: NDArray[np.int32]
    sizes: NDArray[np.int32]
    first: NDArray[np.int32]
    second: NDArray[np.int32] | None = None

    @property
    def levels(self) -> int:
        """Codes per SID."""
        return len(self.sizes)

    @property
    def sids(self) -> int:
        """Distinct SIDs."""
        return len(self.codes) + 1 - int(self.starts[-1])

    @classmethod
    def build(cls, codes: NDArray[Any], sizes: Sequence[int]) -> Constraints:
        """The tree of SIDs (N, levels), in any order, with repeats.

        Needs about 40 bytes per SID beside the input.
        """
        rows = _distinct(codes, sizes)
        n, levels = rows.shape
        fresh = np.zeros(n, bool)  # where the prefix so far differs from the row above
        if n:
            fresh[0] = True
        parents = np.zeros(n, np.int64)  # each row's prefix of the level before, numbered within its level
        of_level, children = [], []
        for level in range(levels):
            fresh[1:] |= rows[1:, level] != rows[:-1, level]
            of_level.append(rows[fresh, level])
            count = int(parents[-1]) + 1 if n else 1
            children.append(np.bincount(parents[fresh], minlength=count))
            parents = np.cumsum(fresh) - 1
        widths = np.concatenate(children)
        indptr = np.concatenate([[0], np.cumsum(widths)])
        edges = np.concatenate(of_level).astype(np.int32)
        starts = np.cumsum([0, 1, *[len(found) for found in of_level]])[: levels + 1]
        first = np.full(sizes[0], -1, np.int32)
        first[of_level[0]] = 1 + np.arange(len(of_level[0]))
        second = None
        if levels > 1 and sizes[0] * sizes[1] <= DENSE_CELLS:
            second = np.full((sizes[0], sizes[1]), -1, np.int32)
            above = np.repeat(of_level[0], children[1]) if n else of_level[0]
            second[above, of_level[1]] = starts[2] + np.arange(len(of_level[1]))
        return cls(
            indptr.astype(np.int32),
            edges,
            starts.astype(np.int64),
            np.array([c.max(initial=0) for c in children], np.int32),
            np.array(sizes, np.int32),
            first,
            second,
        )

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """By name, for safetensors."""
        arrays = {name: getattr(self, name) for name in ("indptr", "codes", "starts", "branches", "sizes", "first")}
        return arrays if self.second is None else {**arrays, "second": self.second}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Constraints:
        """From what `to_arrays` gave."""
        return cls(**arrays)

    # ------------------------------------------------------------------ decoding
    def edges(self, states: Ints, level: int) -> tuple[Ints, NDArray[np.bool_]]:
        """The edges of states (B,) that have `level` codes: (B, branches[level]) edge numbers, and which are real."""
        begin = self.indptr[states].astype(np.int64)
        count = self.indptr[states + 1] - begin
        step = np.arange(int(self.branches[level]))
        real = step < count[:, None]
        return np.where(real, begin[:, None] + step, 0), real

    def allowed(self, states: Ints, level: int) -> NDArray[np.bool_]:
        """Which codes may follow: (B, sizes[level])."""
        edges, real = self.edges(states, level)
        mask = np.zeros((len(states), int(self.sizes[level])), bool)
        rows = np.broadcast_to(np.arange(len(states))[:, None], edges.shape)
        mask[rows[real], self.codes[edges[real]]] = True
        return mask

    def step(self, states: Ints, codes: Ints, level: int) -> Ints:
        """The states after one more code each; -1 where no SID goes on that way, or `states` is -1 already."""
        if level == 0:
            return np.where(states < 0, -1, self.first[codes])
        edges, real = self.edges(np.where(states < 0, self.starts[level], states), level)
        hit = real & (self.codes[edges] == np.asarray(codes)[:, None]) & (states >= 0)[:, None]
        return np.where(hit, edges + 1, -1).max(axis=1, initial=-1)

    def contains(self, codes: NDArray[Any]) -> NDArray[np.bool_]:
        """Which of the SIDs (N, levels) exist."""
        states = np.zeros(len(codes), np.int64)
        for level in range(self.levels):
            states = self.step(states, codes[:, level], level)
        return states >= 0


def beam_search(
    constraints: Constraints,
    logits: Callable[[NDArray[np.int32]], NDArray[Any]],
    batch: int,
    beams: int,
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """The `beams` likeliest SIDs for each of `batch` queries, all of them existing ones.

    A level's log-probabilities are taken over all of its codes; those that lead to no SID are then left out.

    Args:
        logits: from the codes so far (batch, beams, level) to scores of the next code (batch, beams, K).

    Returns:
        codes (batch, beams, levels) and log-probabilities (batch, beams), best first. Where there are fewer SIDs
        than beams, the rest has codes -1 and log-probability -inf.
    """
    states = np.zeros((batch, beams), np.int64)
    total = np.full((batch, beams), -np.inf)
    total[:, 0] = 0.0  # one empty prefix a query
    codes = np.zeros((batch, beams, 0), np.int32)
    every = np.arange(batch)[:, None]
    if not constraints.sids:
        return np.full((batch, beams, constraints.levels), -1, np.int32), np.full((batch, beams), -np.inf)
    for level in range(constraints.levels):
        scores = np.asarray(logits(codes), np.float64).reshape(batch * beams, -1)
        scores = scores - scores.max(axis=1, keepdims=True)
        scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
        edges, real = constraints.edges(states.ravel(), level)
        # What is not real is an edge of any level, whose code this level need not have.
        following = np.where(real, constraints.codes[edges], 0)
        gained = np.where(real, np.take_along_axis(scores, following, axis=1), -np.inf)
        candidates = (total.reshape(-1, 1) + gained).reshape(batch, -1)
        width = edges.shape[1]
        best = np.argsort(-candidates, axis=1, kind="stable")[:, :beams]
        total = np.take_along_axis(candidates, best, axis=1)
        alive = np.isfinite(total)
        chosen = edges.reshape(batch, -1)[every, best]
        codes = np.concatenate([codes[every, best // width], constraints.codes[chosen][..., None]], axis=2)
        codes[~alive] = -1
        # A dead beam stays at a state of the right level, so that its gathers stay in bounds.
        states = np.where(alive, chosen + 1, constraints.starts[level + 1])
    return codes.astype(np.int32), total


def _distinct(codes: NDArray[Any], sizes: Sequence[int]) -> NDArray[np.int32]:
    """The distinct rows of (N, levels), in order."""
    codes = np.asarray(codes)
    cells = 1
    for size in sizes:
        cells *= int(size)
    if cells < 1 << 62:  # a row fits into one integer, and sorting integers is several times quicker
        packed = np.zeros(len(codes), np.int64)
        for level, size in enumerate(sizes):
            packed *= size
            packed += codes[:, level]
        packed.sort()
        packed = packed[np.concatenate([[True], packed[1:] != packed[:-1]])] if len(packed) else packed
        rows = np.empty((len(packed), len(sizes)), np.int32)
        for level in range(len(sizes) - 1, -1, -1):
            rows[:, level] = packed % sizes[level]
            packed //= sizes[level]
        return rows
    rows = codes[np.lexsort(codes.T[::-1])].astype(np.int32)
    return rows[np.concatenate([[True], (rows[1:] != rows[:-1]).any(axis=1)])] if len(rows) else rows
