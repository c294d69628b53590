"""What a trained codebook is held against before it is let go.

Belongs here: cheap measures on bounded samples of rows that need more than codes, for the gates. The full comparison,
on any catalogue and with intervals, is the report's (`evaluation/`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sid_pipeline.rqvae.gate import NEAR_DUPLICATE_COSINE
from sid_pipeline.rqvae.kmeans import kmeans, nearest

_COMMON = 0.01
_AXES = 64
_ITERATIONS = 6
_BLOCK = 8192


@torch.no_grad()
def residual_kmeans_error(x: Tensor, held: Tensor, levels: int, codebook_size: int, seed: int) -> float:
    """Held-out squared error of residual k-means, relative to the mean square of the held-out rows.

    Plain k-means on what the levels before leave over (Jegou et al. 2010, residual vector quantisation), on the first
    principal axes of x; what lies outside them counts as error.

    Args:
        x: (N, d) rows to fit on, centred.
        held: (M, d) rows to measure on, in the same units.
        levels, codebook_size: of the codebook that is compared.
        seed: of the axes and of the first centroids.
    """
    generator = torch.Generator().manual_seed(seed)
    axes = min(_AXES, *x.shape)
    start = torch.randn(x.shape[1], axes, generator=generator).to(x)
    basis = torch.linalg.qr(start).Q
    for _ in range(4):  # subspace iteration
        basis = torch.linalg.qr(x.T @ (x @ basis)).Q
    rest, left = x @ basis, held @ basis
    outside = held.square().sum() - left.square().sum()
    for _ in range(levels):
        centroids = kmeans(rest, codebook_size, _ITERATIONS, generator)
        rest = rest - centroids[nearest(rest, centroids)[0]]
        left = left - centroids[nearest(left, centroids)[0]]
    return float((left.square().sum() + outside.clamp_min(0)) / held.square().sum())


@torch.no_grad()
def near_duplicates(x: Tensor, codes: Tensor, queries: int = 512) -> tuple[int, list[float]]:
    """Pairs of near-duplicates, and the share of them whose first 1, 2, ... codes are equal.

    Where more than one pair in a hundred is that near (vectors of few dimensions, or all in one narrow cone), nearness
    says nothing of products, and none is counted.

    Args:
        x: (N, d) vectors as they were given, in an order that means nothing.
        codes: (N, levels) of them.
        queries: the first so many rows are paired with all others.

    Returns:
        The number of pairs found and a share per level; all 0.0 where no pair was found.
    """
    unit = torch.nn.functional.normalize(x, dim=1)
    mine = codes[:queries]
    pairs, shared = 0, torch.zeros(codes.shape[1], dtype=torch.long, device=codes.device)
    for start in range(0, len(unit), _BLOCK):
        near = unit[:queries] @ unit[start : start + _BLOCK].T >= NEAR_DUPLICATE_COSINE
        row, column = torch.nonzero(near, as_tuple=True)
        column = column + start
        row, column = row[row != column], column[row != column]
        same = (mine[row] == codes[column]).long().cumprod(1)
        pairs += len(row)
        shared += same.sum(0)
    if pairs > _COMMON * len(mine) * len(x):
        return 0, [0.0] * codes.shape[1]
    return pairs, [float(count) / max(pairs, 1) for count in shared]
