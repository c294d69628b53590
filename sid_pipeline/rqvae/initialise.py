"""Everything that is computed in closed form: where training starts, and the refit after it.

Belongs here: PCA, prototypes and their code paths, codeword k-means, the least-squares readout. Does not
belong
here: gradient steps. All of it works on a bounded, seeded sample in scaled units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sid_pipeline.rqvae.config import TrainConfig
from sid_pipeline.rqvae.kmeans import kmeans, nearest, sums
from sid_pipeline.rqvae.model import RQVAE

_CHUNK = 8192
# A leaf with less variance than this share of the catalogue's is one thing to the coarse levels.
_COMPACT = 0.25
# How far the within-prototype covariance is drawn to a multiple of the identity.
_SHRINKAGE = 0.3
_GROUP_LEVELS = 2


@dataclass(frozen=True)
class Prototypes:
    """What is like what, before any codeword exists.

    member: (N,) prototype of each row of the sample.
    cell: (P,) cell of each prototype: what one prefix of all snapped levels should hold.
    group: (cells,) group of each cell: what the levels before the last snapped one should hold.
    compact: share of the products that stand in compact leaves.
    """

    member: Tensor
    cell: Tensor
    group: Tensor
    compact: float


def principal_axes(x: Tensor, k: int) -> Tensor:
    """First k principal axes (d, k) of centred rows x (N, d), each with its largest entry positive."""
    covariance = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
    for part in x.split(_CHUNK):
        covariance += (part.T @ part).double()
    _, vectors = torch.linalg.eigh(covariance.cpu())
    axes = vectors[:, -k:].flip(1)
    sign = torch.sign(axes.gather(0, axes.abs().argmax(0, keepdim=True)))
    return (axes * sign).float().to(x.device)


def group_size(config: TrainConfig, n: int) -> float:
    """Products per group in a wide leaf, for a catalogue of n: as asked, or less where codewords would lie
    idle.

    At least two groups per codeword keep level 1 full and leave level 2 something to tell apart.
    """
    return min(config.group_products, n / (2 * config.codebook_size))


def prototype_size(config: TrainConfig, n: int) -> float:
    """Products per prototype for a catalogue of n; 0 where it is too small to snap, or snapping is off."""
    unsnapped = config.snap is not None and not any(config.snap)
    if unsnapped or config.prototypes == 0 or n < 4 * config.codebook_size:
        return 0.0
    return max(12.0, n / (config.prototypes or 4096))


def group_products(
    z: Tensor,
    leaf: NDArray[np.int64],
    size: float,
    group: float,
    cells: float,
    largest: float,
    generator: torch.Generator,
) -> Prototypes:
    """Nested clusters of the latents z (N, D): prototypes within cells within groups, by k-means within
    leaves.

    A compact leaf is one group, however large; in any other a group holds about `group` rows. Every group is
    split into about `cells` cells, whatever its size, but more where they would hold over `largest` rows,
    and a cell of more than `size` rows into prototypes.
    Products without category, and those of leaves too small to stand alone, are clustered without their
    labels.
    """
    n = len(z)
    counts = np.bincount(leaf[leaf >= 0], minlength=1)
    enough = counts >= max(4, size / 4)
    pool = np.flatnonzero((leaf < 0) | ~enough[np.maximum(leaf, 0)])
    by_leaf = np.split(np.argsort(leaf, kind="stable"), np.cumsum(np.bincount(leaf + 1))[:-1])[1:]
    wholes = [(rows, True) for rows in by_leaf if len(rows) and enough[leaf[rows[0]]]]
    if len(pool):
        wholes.append((pool, False))
    member = torch.zeros(n, dtype=torch.long)
    owner: list[int] = []
    in_compact = 0
    groups: list[int] = []
    for rows, is_leaf in wholes:
        part = z[torch.from_numpy(rows).to(z.device)]
        compact = is_leaf and float((part - part.mean(0)).square().sum(1).mean()) <= _COMPACT
        in_compact += len(rows) if compact else 0
        for in_group in _split(part, 1.0 if compact else len(part) / group, generator):
            number = groups[-1] + 1 if groups else 0
            parts = max(min(cells, len(in_group) / 2), len(in_group) / largest)
            for in_cell in _split(part[in_group], parts, generator):
                for in_prototype in _split(part[in_group[in_cell]], len(in_cell) / size, generator):
                    member[torch.from_numpy(rows)[in_group[in_cell[in_prototype]].cpu()]] = len(owner)
                    owner.append(len(groups))
                groups.append(number)
    device = z.device
    cell, group_of = torch.tensor(owner, device=device), torch.tensor(groups, device=device)
    return Prototypes(member.to(device), cell, group_of, in_compact / n)


def snap_strengths(config: TrainConfig, compact: float) -> tuple[float, ...]:
    """Snap per level: as asked, or by the share of products in compact leaves.

    Where leaves are compact, level 3 may split them evenly and the last level still tells their products
    apart; where they are wide it takes two free levels to do so.
    """
    if config.snap is not None:
        return config.snap
    snapped = min(3 if compact > 0.5 else 2, config.levels - 1)
    return (1.0,) * snapped + (0.0,) * (config.levels - snapped)


def _split(x: Tensor, parts: float, generator: torch.Generator) -> list[Tensor]:
    """Row indices of each of about `parts` clusters of x (N, D)."""
    k = round(parts)
    if k <= 1:
        return [torch.arange(len(x), device=x.device)]
    code = nearest(x, kmeans(x, k, 8, generator))[0]
    count = torch.bincount(code, minlength=k)
    return list(torch.argsort(code, stable=True).split(count[count > 0].tolist()))


def set_keys(model: RQVAE, z: Tensor, member: Tensor) -> None:
    """Prototype logits as a linear discriminant: z K + b is the log posterior up to a constant.

    Prototypes are Gaussians with one covariance, the pooled one within prototypes, shrunk (Friedman 1989).
    """
    total, count = sums(z, member, len(model.offset))
    mean = total / count.clamp_min(1)[:, None]
    covariance = torch.zeros(z.shape[1], z.shape[1], dtype=torch.float64, device=z.device)
    for part, own in zip(z.split(_CHUNK), member.split(_CHUNK), strict=True):
        within = part - mean[own]
        covariance += (within.T @ within).double()
    covariance /= len(z)
    ridge = float(covariance.trace()) / len(covariance)
    eye = torch.eye(len(covariance), dtype=torch.float64, device=z.device)
    covariance = (1 - _SHRINKAGE) * covariance + (_SHRINKAGE * ridge + 1e-9) * eye
    keys = torch.linalg.solve(covariance, mean.double().T).float()
    model.keys.copy_(keys)
    model.offset.copy_(-0.5 * (mean * keys.T).sum(1))


def category_means(means: Tensor, weight: Tensor, node: NDArray[np.int64], most: int) -> Tensor | None:
    """Weighted means (M, D) of `means` (G, D) per category, at the finest depth with at most 4/5 `most`
    categories.

    node: (G, depth) tree nodes of each group, -1 where it has none.
    """
    for depth in reversed(range(node.shape[1])):
        present = np.flatnonzero(node[:, depth] >= 0)
        ids, index = np.unique(node[present, depth], return_inverse=True)
        if 0 < len(ids) <= 0.8 * most:
            where = torch.from_numpy(present).to(means.device)
            owner = torch.from_numpy(index.reshape(-1)).to(means.device)
            total, count = sums(means[where], owner, len(ids), weight[where])
            return total / count[:, None]
    return None


def lay_paths(
    model: RQVAE,
    z: Tensor,
    prototypes: Prototypes,
    node: NDArray[np.int64],
    iterations: int,
    generator: torch.Generator,
) -> None:
    """Codewords of the snapped levels and the code path of every prototype.

    Levels 1 and 2 code the groups, a third snapped one the cells: k-means on their means, less the
    codewords before. Cells of one prefix take different last codewords.

    node: (N, depth) tree nodes of the rows of z, to seed level 1 with category means.
    """
    k = model.codewords.shape[1]
    cell_of = prototypes.cell[prototypes.member]
    cell_sum, cell_size = sums(z, cell_of, len(prototypes.group))
    group_count = int(prototypes.group.max()) + 1
    group_sum, _ = sums(cell_sum, prototypes.group, group_count)
    _, group_size = sums(cell_sum[:, :1], prototypes.group, group_count, cell_size)
    group_mean = group_sum / group_size[:, None]
    cell_mean = cell_sum / cell_size[:, None]
    first_row = np.zeros(group_count, np.int64)
    first_row[prototypes.group[cell_of].cpu().numpy()] = np.arange(len(z))
    seeds = category_means(group_mean, group_size, node[first_row], k)
    paths = []
    taken = torch.zeros_like(group_mean)
    for level in model.snapped[:_GROUP_LEVELS]:
        residual = group_mean - taken
        words = kmeans(residual, k, iterations, generator, seeds if level == 0 else None, group_size)
        code, _ = nearest(residual, words)
        model.codewords[level].copy_(words)
        taken = taken + words[code]
        paths.append(code[prototypes.group])
    for level in model.snapped[_GROUP_LEVELS:]:
        residual = cell_mean - taken[prototypes.group]
        words = kmeans(residual, k, iterations, generator, None, cell_size)
        model.codewords[level].copy_(words)
        prefix = paths[0] * k + paths[1]
        paths.append(_apart(residual, words, prefix, cell_size))
    whole = torch.stack(paths, 1)
    model.paths.copy_(whole[prototypes.cell])
    table = AdditiveFit(whole, cell_mean, k, cell_size).solve(1.0)
    for level, words in zip(model.snapped, table, strict=True):
        model.codewords[level].copy_(words)


def _apart(residual: Tensor, words: Tensor, prefix: Tensor, size: Tensor) -> Tensor:
    """Codeword (C,) of each cell: the nearest that no larger cell of its prefix holds, as far as there are
    any."""
    near = torch.addmm(words.square().sum(1), residual, words.T, alpha=-2).topk(min(32, len(words)), largest=False)
    choices, owner = near.indices.cpu().numpy(), prefix.cpu().numpy()
    held: set[tuple[int, int]] = set()
    code = choices[:, 0].copy()
    for cell in np.argsort(-size.cpu().numpy(), kind="stable"):
        free = (c for c in choices[cell] if (owner[cell], c) not in held)
        code[cell] = next(free, code[cell])
        held.add((owner[cell], code[cell]))
    return torch.from_numpy(code).to(residual.device)


def set_rests(model: RQVAE, z: Tensor, member: Tensor, share: float) -> None:
    """What each prototype's path leaves of its mean, times `share`: the deepest levels need not code it."""
    total, count = sums(z, member, len(model.offset))
    words = model.codewords[model.snapped]
    model.rests.copy_(share * (total / count.clamp_min(1)[:, None] - apply_table(words, model.paths)))


def fit_codewords(model: RQVAE, z: Tensor, iterations: int, generator: torch.Generator, warm: bool = False) -> Tensor:
    """Fit codewords to latents z (N, D), level by level; returns the codes (N, levels).

    Snapped levels keep who belongs to whom; `warm` moves their codewords, together, to where they explain z
    best. Any other level runs k-means, from its own codewords when `warm`.
    """
    k = model.codewords.shape[1]
    targets = model.targets(z)
    codes = []
    taken = torch.zeros_like(z)
    for level in model.snapped:
        code, _ = nearest(targets[level] - taken, model.codewords[level])
        taken = taken + model.codewords[level][code]
        codes.append(code)
    if codes and warm:
        snapped = torch.stack(codes, 1)
        table = AdditiveFit(snapped, z, k).solve(1.0)
        for level, words in zip(model.snapped, table, strict=True):
            model.codewords[level].copy_(words)
        taken = apply_table(table, snapped)
    for level in range(len(model.snapped), model.levels):
        rest = targets[level] - taken
        words = kmeans(rest, k, iterations, generator, model.codewords[level].clone() if warm else None)
        code, _ = nearest(rest, words)
        model.codewords[level].copy_(words)
        taken = taken + words[code]
        codes.append(code)
    return torch.stack(codes, 1)


class AdditiveFit:
    """Ridge regression of targets (N, d) on one-hot codes (N, levels): an additive table (levels, size,
    d)."""

    def __init__(self, codes: Tensor, target: Tensor, size: int, weight: Tensor | None = None) -> None:
        levels = codes.shape[1]
        width = levels * size
        self.shape = (levels, size, target.shape[1])
        weight = torch.ones(len(codes), device=codes.device) if weight is None else weight
        self.gram = torch.zeros(width, width, dtype=torch.float64, device=codes.device)
        for a in range(levels):
            for b in range(a, levels):
                pairs = torch.zeros(size * size, dtype=torch.float64, device=codes.device)
                pairs.index_add_(0, codes[:, a] * size + codes[:, b], weight.double())
                block = pairs.view(size, size)
                self.gram[a * size : (a + 1) * size, b * size : (b + 1) * size] = block
                self.gram[b * size : (b + 1) * size, a * size : (a + 1) * size] = block.T
        self.right = torch.cat([sums(target, codes[:, level], size, weight)[0] for level in range(levels)]).double()

    def solve(self, ridge: float) -> Tensor:
        """The table for one ridge, in units of rows."""
        eye = torch.eye(len(self.gram), dtype=torch.float64, device=self.gram.device)
        return torch.cholesky_solve(self.right, torch.linalg.cholesky(self.gram + ridge * eye)).float().view(self.shape)


def least_squares_readout(
    codes: Tensor, rest: Tensor, size: int, held_codes: Tensor, held_rest: Tensor
) -> tuple[Tensor, float, float]:
    """Additive correction per codeword, (levels, size, d), that best explains what the decoder left over.

    The ridge is the one of a fixed few that does best on the held-out rows. Returns the readout, its ridge,
    and the held-out squared error per row.
    """
    fit = AdditiveFit(codes, rest, size)
    best: tuple[Tensor, float, float] | None = None
    for ridge in (1.0, 8.0, 64.0, 512.0):
        table = fit.solve(ridge)
        error = float((held_rest - apply_table(table, held_codes)).square().sum(1).mean())
        if best is not None and error > best[2]:
            break
        best = table, ridge, error
    assert best is not None
    return best


def apply_table(table: Tensor, codes: Tensor) -> Tensor:
    """Sum over levels of table[l, codes[:, l]]: (N, d)."""
    out = table[0][codes[:, 0]]
    for level in range(1, codes.shape[1]):
        out = out + table[level][codes[:, level]]
    return out
