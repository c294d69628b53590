"""Seeded, bounded k-means on torch tensors.

Belongs here: Lloyd's algorithm with a fixed iteration limit, distances by matrix product, empty clusters
refilled.
"""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK = 16_384


def nearest(x: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Index (N,) of the nearest centroid and squared distance (N,) for x (N, D), centroids (K, D)."""
    norm = centroids.square().sum(1)
    codes, distance = [], []
    for part in x.split(_CHUNK):
        score = torch.addmm(norm, part, centroids.T, alpha=-2)
        best, code = score.min(dim=1)
        codes.append(code)
        distance.append((best + part.square().sum(1)).clamp_min(0))
    return torch.cat(codes), torch.cat(distance)


def sums(x: Tensor, group: Tensor, groups: int, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Sum (groups, D) and total weight (groups,) of the rows of x per group."""
    if weight is None:
        weight = torch.ones(len(x), dtype=x.dtype, device=x.device)
    total = torch.zeros(groups, x.shape[1], dtype=x.dtype, device=x.device)
    total.index_add_(0, group, x * weight[:, None])
    count = torch.zeros(groups, dtype=x.dtype, device=x.device).index_add_(0, group, weight)
    return total, count


def kmeans(
    x: Tensor,
    k: int,
    iterations: int,
    generator: torch.Generator,
    start: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Centroids (k, D) of x (N, D) after at most `iterations` Lloyd steps.

    start: (M, D) first centroids, M <= k; the missing ones are rows drawn with probability proportional to their
    squared distance from those (k-means|| in one round), or evenly where there is no start. A cluster left empty
    is moved to one of the rows farthest from their centroid. With fewer distinct rows than k, some centroids repeat.
    weight: (N,) weight of each row, 1 if not given.
    """
    n = len(x)
    if start is None:
        index = torch.randperm(n, generator=generator)[:k]
        centroids = x[index.to(x.device)]
    else:
        centroids = start[:k]
    missing = k - len(centroids)
    if missing:
        chance = nearest(x, centroids)[1].double().cpu() + 1e-12
        few = int((chance > 1e-12).sum()) < missing
        index = torch.multinomial(chance, missing, replacement=few or missing > n, generator=generator)
        centroids = torch.cat([centroids, x[index.to(x.device)]])
    for _ in range(iterations):
        code, distance = nearest(x, centroids)
        total, count = sums(x, code, k, weight)
        moved = torch.where(count[:, None] > 0, total / count.clamp_min(1)[:, None], centroids)
        empty = torch.nonzero(count == 0)[:, 0]
        if len(empty):
            far = distance.topk(min(len(empty), n)).indices
            moved[empty[: len(far)]] = x[far]
        if torch.equal(moved, centroids):
            break
        centroids = moved
    return centroids
