"""Everything that is computed in closed form: where training starts, and the refit after it.

Belongs here: PCA, snap prototypes, codeword k-means, the least-squares readout. Does not belong here: gradient steps.
All of it works on a bounded, seeded sample in scaled units.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sid_pipeline.rqvae.config import TrainConfig
from sid_pipeline.rqvae.kmeans import kmeans, nearest, sums
from sid_pipeline.rqvae.model import RQVAE
from sid_pipeline.rqvae.tree import Tree

_CHUNK = 8192


def principal_axes(x: Tensor, k: int) -> Tensor:
    """First k principal axes (d, k) of centred rows x (N, d), each with its largest entry positive."""
    covariance = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
    for part in x.split(_CHUNK):
        covariance += (part.T @ part).double()
    _, vectors = torch.linalg.eigh(covariance.cpu())
    axes = vectors[:, -k:].flip(1)
    sign = torch.sign(axes.gather(0, axes.abs().argmax(0, keepdim=True)))
    return (axes * sign).float().to(x.device)


def prototype_budget(config: TrainConfig, n: int, rows: int) -> int:
    """Number of prototypes aimed at for a catalogue of n products of which `rows` are at hand."""
    bound = min(4096, n // 12) if config.prototypes is None else config.prototypes
    return min(bound, rows // 2) if any(config.snap) else 0


def group_into_prototypes(
    z: Tensor, leaf: NDArray[np.int64], budget: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Prototype of each row (N,), and the coarse group of each prototype (P,), from latents z (N, D).

    A leaf with enough products is one coarse group, split by k-means into prototypes of about N / budget products;
    a leaf whose products differ widely is also split coarsely. Products without category, and those of leaves too
    small for a prototype of their own, are grouped by k-means alone.
    """
    n = len(z)
    size = n / max(budget, 1)
    label = np.full(n, -1, np.int64)
    coarse: list[int] = []
    counts = np.bincount(leaf[leaf >= 0], minlength=1)
    enough = counts >= max(4, size / 4)
    pool = np.flatnonzero((leaf < 0) | ~enough[np.maximum(leaf, 0)])
    groups = [g for g in np.split(np.argsort(leaf, kind="stable"), np.cumsum(np.bincount(leaf + 1))[:-1])[1:]]
    wholes = [(g, True) for g in groups if len(g) and enough[leaf[g[0]]]]
    if len(pool):
        wholes.append((pool, False))
    for members, is_leaf in wholes:
        rows = torch.from_numpy(members).to(z.device)
        k = max(1, round(len(members) / size))
        part = z[rows]
        code = nearest(part, kmeans(part, k, 8, generator))[0].cpu().numpy() if k > 1 else np.zeros(len(members), int)
        _, code = np.unique(code, return_inverse=True)
        first = len(coarse)
        label[members] = first + code.reshape(-1)
        spread = float((part - part.mean(0)).square().sum(1).mean())
        found = int(code.max()) + 1
        whole = is_leaf and spread <= _COMPACT
        coarse.extend([first] * found if whole else range(first, first + found))
    return torch.from_numpy(label).to(z.device), torch.tensor(coarse, device=z.device)


# A leaf with less variance than this share of the catalogue's is one thing to the coarse levels.
_COMPACT = 0.25


def set_prototypes(model: RQVAE, z: Tensor, label: Tensor, coarse: Tensor) -> None:
    """Place keys and values at the means of their members' latents z (N, D)."""
    total, count = sums(z, label, len(coarse))
    fine = total / count.clamp_min(1)[:, None]
    groups = int(coarse.max()) + 1
    wide, wide_count = sums(z, coarse[label], groups)
    model.keys.copy_(fine)
    model.values[0].copy_((wide / wide_count.clamp_min(1)[:, None])[coarse])
    model.values[1].copy_(fine)
    model.temperature.fill_(0.2 * float((z - fine[label]).square().sum(1).mean()) + 1e-6)


def category_means(t: Tensor, tree: Tree, rows: NDArray[np.int64], most: int) -> Tensor | None:
    """Means (M, D) of t (N, D) per category at the finest depth that has at most `most` / 1.25 categories."""
    for depth in reversed(range(tree.node.shape[1])):
        node = tree.node[rows, depth]
        present = np.flatnonzero(node >= 0)
        if not len(present):
            continue
        ids, index = np.unique(node[present], return_inverse=True)
        if len(ids) * 1.25 <= most:
            where = torch.from_numpy(present).to(t.device)
            total, count = sums(t[where], torch.from_numpy(index.reshape(-1)).to(t.device), len(ids))
            return total / count[:, None]
    return None


def fit_codewords(
    model: RQVAE,
    z: Tensor,
    iterations: int,
    generator: torch.Generator,
    seeds: Tensor | None = None,
    warm: bool = False,
) -> Tensor:
    """Fit the codewords level by level to latents z (N, D); returns the codes (N, levels).

    seeds: first centroids of level 1. warm: start every level from the codewords it has.
    """
    k = model.codewords.shape[1]
    taken = torch.zeros_like(z)
    codes = []
    for level, target in enumerate(model.targets(z)):
        residual = target - taken
        start = model.codewords[level].clone() if warm else (seeds if level == 0 else None)
        words = kmeans(residual, k, iterations, generator, start)
        code, _ = nearest(residual, words)
        model.codewords[level].copy_(words)
        taken += words[code]
        codes.append(code)
    return torch.stack(codes, 1)


def least_squares_readout(
    codes: Tensor, rest: Tensor, size: int, held_codes: Tensor, held_rest: Tensor
) -> tuple[Tensor, float, float]:
    """Additive correction per codeword, (levels, size, d), that best explains what the decoder left over.

    Ridge regression of rest (N, d) on the one-hot codes (N, levels); the ridge is the one of a fixed few that does
    best on the held-out rows. Returns the readout, its ridge, and the held-out squared error per row.
    """
    n, levels = codes.shape
    d = rest.shape[1]
    width = levels * size
    index = codes + torch.arange(levels, device=codes.device) * size
    gram = torch.zeros(width, width, dtype=torch.float64, device=codes.device)
    for a in range(levels):
        for b in range(a, levels):
            pairs = torch.bincount(codes[:, a] * size + codes[:, b], minlength=size * size).view(size, size).double()
            gram[a * size : (a + 1) * size, b * size : (b + 1) * size] = pairs
            gram[b * size : (b + 1) * size, a * size : (a + 1) * size] = pairs.T
    right = torch.zeros(width, d, dtype=torch.float32, device=codes.device)
    for level in range(levels):
        right.index_add_(0, index[:, level], rest)
    right = right.double()
    best: tuple[Tensor, float, float] | None = None
    for ridge in (1.0, 5.0, 25.0, 125.0, 625.0):
        factor = torch.linalg.cholesky(gram + ridge * torch.eye(width, dtype=torch.float64, device=gram.device))
        table = torch.cholesky_solve(right, factor).float().view(levels, size, d)
        error = float((held_rest - apply_readout(table, held_codes)).square().sum(1).mean())
        if best is None or error < best[2]:
            best = table, ridge, error
    assert best is not None
    return best


def apply_readout(readout: Tensor, codes: Tensor) -> Tensor:
    """Sum over levels of readout[l, codes[:, l]]: (N, d)."""
    out = readout[0][codes[:, 0]]
    for level in range(1, codes.shape[1]):
        out = out + readout[level][codes[:, level]]
    return out
