"""Everything that is computed in closed form: where training starts, and the refit after it.

Belongs here: PCA, prototypes and their code paths, the tables (cell means, codewords, least-squares readouts). Does not
belong here: gradient steps. Clustering works on a bounded, seeded sample; everything is in scaled units.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sid_pipeline.rqvae.config import TrainConfig
from sid_pipeline.rqvae.kmeans import kmeans, nearest, sums
from sid_pipeline.rqvae.model import RQVAE, Quantisation

_CHUNK = 8192
# A leaf with less variance than this share of the catalogue's is one thing to the coarse levels.
_COMPACT = 0.25
# How far the within-prototype covariance is drawn to a multiple of the identity.
_SHRINKAGE = 0.3
# Cells of one prototype, at most; a larger category gets several prototypes.
_MOST_CELLS = 8
_RIDGES = (1.0, 4.0, 16.0, 64.0, 256.0)


@dataclass(frozen=True)
class Plan:
    """How a sample is to be clustered, in rows of that sample.

    snapped: levels that follow prototypes (0, 2 or 3); group: rows of a prototype in a wide category; cells: of each
    prototype; smallest, largest: rows of a cell; least: rows of a category that stands on its own; paths: prototypes
    that there are code paths for; codes: cells of a prototype that there are codes for.
    """

    snapped: int
    group: float
    cells: float
    smallest: float
    largest: float
    least: float
    paths: int
    codes: int


@dataclass(frozen=True)
class Prototypes:
    """What is like what, before any codeword exists: member (N,) prototype of each row, cell (N,) its cell; cells,
    the number of cells of each prototype, in order."""

    member: Tensor
    cell: Tensor
    cells: list[int]


def principal_axes(x: Tensor, k: int) -> Tensor:
    """First k principal axes (d, k) of centred rows x (N, d), each with its largest entry positive."""
    covariance = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
    for part in x.split(_CHUNK):
        covariance += (part.T @ part).double()
    _, vectors = torch.linalg.eigh(covariance.cpu())
    axes = vectors[:, -k:].flip(1)
    sign = torch.sign(axes.gather(0, axes.abs().argmax(0, keepdim=True)))
    return (axes * sign).float().to(x.device)


def make_plan(config: TrainConfig, z: Tensor, leaf: NDArray[np.int64], n: int) -> Plan:
    """The plan for latents z (N, D), a sample of n products, with leaves (N,).

    Where most products stand in compact leaves, level 3 may split them and the last level still tells products apart;
    where leaves are wide it takes two free levels to do so. Catalogues of fewer than four products a codeword are not
    snapped.
    """
    share, size = len(z) / n, config.codebook_size
    most = min(config.prototypes, size * size)
    least = share * max(4.0, n / (2 * most))
    snapped = config.snapped_levels
    if snapped is None:
        wanted = 3 if _compact_leaves(z, leaf, least)[1] > 0.5 else 2
        snapped = min(wanted, config.levels - 1) if config.levels > 2 else 0
        snapped = snapped if n >= 4 * size else 0
    # At least two prototypes a codeword keep level 1 full and leave level 2 something to tell apart.
    group = share * max(min(config.group_products, n / (2 * size)), n / most)
    # By the birthday bound a fifth of the products of a cell this large collide in the last level alone.
    cells = config.cells_per_group if snapped == 3 else 1.0
    codes = min(size, _MOST_CELLS)
    return Plan(snapped, group, cells, config.cell_products, share * size / 2, least, size * size, codes)


def _compact_leaves(z: Tensor, leaf: NDArray[np.int64], least: float) -> tuple[NDArray[np.bool_], float]:
    """Which leaves of at least `least` rows are compact, and the share of all rows that stand in those."""
    if not (leaf >= 0).any():
        return np.zeros(0, bool), 0.0
    where = np.flatnonzero(leaf >= 0)
    rows, owner = z[torch.from_numpy(where).to(z.device)], torch.from_numpy(leaf[where]).to(z.device)
    total, count = sums(rows, owner, int(leaf.max()) + 1)
    square, _ = sums(rows.square().sum(1, keepdim=True), owner, len(count))
    spread = square[:, 0] / count - (total / count[:, None]).square().sum(1)
    compact = ((count >= least) & (spread <= _COMPACT)).cpu()
    return compact.numpy(), float(count.cpu()[compact].sum()) / len(z)


def cluster(z: Tensor, leaf: NDArray[np.int64], plan: Plan, generator: torch.Generator) -> Prototypes:
    """Prototypes and their cells for latents z (N, D): k-means within leaves.

    A compact leaf is one prototype, unless its cells would be too large; any other is cut into prototypes of about
    `plan.group` rows. Every prototype is cut into about `plan.cells` cells, whatever its size, but more where
    they would hold over `plan.largest` rows. Products without category, and those of leaves too small to stand alone,
    are clustered without their labels. Where that gives more prototypes than there are paths, the smallest are joined
    to their nearest.
    """
    counts = np.bincount(leaf[leaf >= 0], minlength=1)
    alone = counts >= plan.least
    compact, _ = _compact_leaves(z, leaf, plan.least)
    pool = np.flatnonzero((leaf < 0) | ~alone[np.maximum(leaf, 0)])
    by_leaf = np.split(np.argsort(leaf, kind="stable"), np.cumsum(np.bincount(leaf + 1))[:-1])[1:]
    wholes = [(rows, bool(compact[leaf[rows[0]]])) for rows in by_leaf if len(rows) and alone[leaf[rows[0]]]]
    if len(pool):
        wholes.append((pool, False))
    groups: list[Tensor] = []
    for rows, is_compact in wholes:
        index = torch.from_numpy(rows)
        parts = len(rows) / (plan.codes * plan.largest if is_compact else plan.group)
        groups += [index[part.cpu()] for part in _split(z[index.to(z.device)], parts, generator)]
    groups = _joined(z, groups, plan.paths)
    member, cell = (torch.zeros(len(z), dtype=torch.long) for _ in range(2))
    cells: list[int] = []
    done = 0
    for number, (group, wanted) in enumerate(zip(groups, _cell_counts(groups, plan), strict=True)):
        split = _split(z[group.to(z.device)], wanted, generator)
        for in_cell in split:
            at = group[in_cell.cpu()]
            member[at], cell[at] = number, done
            done += 1
        cells.append(len(split))
    return Prototypes(member.to(z.device), cell.to(z.device), cells)


def _joined(z: Tensor, groups: list[Tensor], most: int) -> list[Tensor]:
    """At most `most` groups of rows of z: one after the other, the smallest goes to the one whose mean is nearest."""
    groups = list(groups)
    means = torch.stack([z[rows.to(z.device)].mean(0) for rows in groups]) if len(groups) > most else z[:0]
    while len(groups) > most:
        small = min(range(len(groups)), key=lambda g: len(groups[g]))
        gap = (means - means[small]).square().sum(1)
        gap[small] = torch.inf
        near = int(gap.argmin())
        groups[near] = torch.cat([groups[near], groups[small]]).sort().values
        means[near] = z[groups[near].to(z.device)].mean(0)
        del groups[small]
        means = torch.cat([means[:small], means[small + 1 :]])
    return groups


def _cell_counts(groups: list[Tensor], plan: Plan) -> list[float]:
    """Cells wanted for each prototype; of a fraction, the larger ones get the one more."""
    if plan.cells == 1:
        return [1.0] * len(groups)
    whole, fraction = divmod(plan.cells, 1)
    more = set(sorted(range(len(groups)), key=lambda g: (-len(groups[g]), g))[: round(fraction * len(groups))])
    wanted = [min(whole + (g in more), len(rows) / plan.smallest) for g, rows in enumerate(groups)]
    return [min(max(w, len(rows) / plan.largest), plan.codes) for w, rows in zip(wanted, groups, strict=True)]


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
    total, count = sums(z, member, model.prototypes)
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


def set_means(model: RQVAE, z: Tensor, cell: Tensor) -> None:
    """Cell means of latents z (N, D) with cells (N,)."""
    total, count = sums(z, cell, len(model.means))
    model.means.copy_(total / count.clamp_min(1)[:, None])


def lay_paths(model: RQVAE, z: Tensor, node: NDArray[np.int64], iterations: int, generator: torch.Generator) -> None:
    """Code paths of prototypes and codes of cells, each path once: k-means on the means of the rows that take them,
    level by level. What no row takes gets a path that is left over.

    node: (N, depth) tree nodes of the rows of z, to seed level 1 with category means.
    """
    prototype = _prototypes(model, z)
    total, size = sums(z, prototype, model.prototypes)
    mean = total / size.clamp_min(1)[:, None]
    some_row = np.zeros(model.prototypes, np.int64)
    some_row[prototype.cpu().numpy()] = np.arange(len(z))
    seeds = _category_means(mean, size, node[some_row], model.size)
    words = kmeans(mean, model.size, iterations, generator, seeds, size)
    first = _within_capacity(mean, words, size, model.size)
    rest = mean - words[first]
    second = _apart(rest, kmeans(rest, model.size, iterations, generator, None, size), first, size)
    model.paths.copy_(torch.stack([first, second], 1))
    if model.snapped == 3:
        total, size = sums(z, _cells(model, z, prototype), len(model.means))
        owner = _owner(model)
        rest = (total / size.clamp_min(1)[:, None] - mean[owner]) * (size > 0)[:, None]
        model.cell_codes.copy_(_apart(rest, kmeans(rest, model.size, iterations, generator, None, size), owner, size))


def _owner(model: RQVAE) -> Tensor:
    """Prototype of each cell (cells,)."""
    return torch.repeat_interleave(torch.arange(model.prototypes, device=model.start.device), model.start.diff())


def _category_means(means: Tensor, weight: Tensor, node: NDArray[np.int64], most: int) -> Tensor | None:
    """Weighted means (M, D) of `means` (G, D) per category, at the finest depth with at most 4/5 `most`
    categories; node (G, depth) are the tree nodes of each group, -1 where it has none. Groups of weight 0 are left
    out."""
    for depth in reversed(range(node.shape[1])):
        present = np.flatnonzero((node[:, depth] >= 0) & (weight > 0).cpu().numpy())
        ids, index = np.unique(node[present, depth], return_inverse=True)
        if 0 < len(ids) <= 0.8 * most:
            where = torch.from_numpy(present).to(means.device)
            owner = torch.from_numpy(index.reshape(-1)).to(means.device)
            total, count = sums(means[where], owner, len(ids), weight[where])
            return total / count[:, None]
    return None


def _by_nearness(x: Tensor, words: Tensor) -> NDArray[np.int64]:
    """Codewords (N, K) of each row of x, nearest first."""
    return torch.addmm(words.square().sum(1), x, words.T, alpha=-2).argsort(dim=1, stable=True).cpu().numpy()


def _within_capacity(x: Tensor, words: Tensor, size: Tensor, capacity: int) -> Tensor:
    """Nearest codeword (N,) of each row, larger rows first, none taken more than `capacity` times, but all are used."""
    near = _by_nearness(x, words)
    code = near[:, 0].copy()
    if np.bincount(code).max() > capacity:
        left = np.full(len(words), capacity)
        for row in np.argsort(-size.cpu().numpy(), kind="stable"):
            code[row] = next(c for c in near[row] if left[c])
            left[code[row]] -= 1
    return torch.from_numpy(_all_used(code, near, size.cpu().numpy())).to(x.device)


def _all_used(code: NDArray[np.int64], near: NDArray[np.int64], size: NDArray[np.float32]) -> NDArray[np.int64]:
    """The codes (N,), each unused codeword given to the largest row that shares its own and is rather near to it."""
    words = near.shape[1]
    count = np.bincount(code, minlength=words)
    for word in np.flatnonzero(count == 0):
        free = count[code] > 1
        close = free & (near[:, : max(words // 4, 1)] == word).any(axis=1)
        if not free.any():
            break
        row = int(np.where(close if close.any() else free, size, -1).argmax())
        count[code[row]] -= 1
        code[row], count[word] = word, 1
    return code


def _apart(x: Tensor, words: Tensor, owner: Tensor, size: Tensor) -> Tensor:
    """Codeword (N,) of each row: the nearest that no larger row of the same owner holds, but all are used."""
    near, of = _by_nearness(x, words), owner.cpu().numpy()
    held: set[tuple[int, int]] = set()
    code = near[:, 0].copy()
    for row in np.argsort(-size.cpu().numpy(), kind="stable"):
        code[row] = next(c for c in near[row] if (of[row], c) not in held)
        held.add((of[row], code[row]))
    return torch.from_numpy(_all_used(code, near, size.cpu().numpy())).to(x.device)


def fit_tables(model: RQVAE, z: Tensor, iterations: int, generator: torch.Generator, warm: bool) -> Quantisation:
    """Move cell means and codewords to what the latents z (N, D) want of them; returns what z becomes.

    Cell means start from what they are; codewords of deep levels start from their own when `warm`.
    """
    prototype = cell = torch.zeros(len(z), dtype=torch.long, device=z.device)
    q = torch.zeros_like(z)
    codes = []
    if model.snapped:
        prototype = _prototypes(model, z)
        for _ in range(2 if model.most_cells > 1 else 1):
            cell = _cells(model, z, prototype)
            total, count = sums(z, cell, len(model.means))
            model.means.copy_(torch.where(count[:, None] > 0, total / count.clamp_min(1)[:, None], model.means))
        cell = _cells(model, z, prototype)
        q = model.means[cell]
        codes = list(model.paths[prototype].T)
        if model.snapped == 3:
            codes.append(model.cell_codes[cell])
        _name_prefixes(model, torch.bincount(cell, minlength=len(model.means)))
    rests = []
    for level in range(model.snapped, model.levels):
        rest = z - q
        words = kmeans(rest, model.size, iterations, generator, model.codewords[level].clone() if warm else None)
        code, _ = nearest(rest, words)
        model.codewords[level].copy_(words)
        q = q + words[code]
        rests.append(rest)
        codes.append(code)
    return Quantisation(prototype, cell, torch.stack(codes, 1), rests, q)


def _prototypes(model: RQVAE, z: Tensor) -> Tensor:
    return torch.cat([model.logits(part).argmax(1) for part in z.split(1024)])


def _cells(model: RQVAE, z: Tensor, prototype: Tensor) -> Tensor:
    parts = zip(z.split(1024), prototype.split(1024), strict=True)
    return torch.cat([model.nearest_cell(part, own) for part, own in parts])


def _name_prefixes(model: RQVAE, count: Tensor) -> None:
    """Codewords of snapped levels: the additive table that comes nearest to the cell means, weighted by rows."""
    names = model.paths[_owner(model)]
    if model.snapped == 3:
        names = torch.cat([names, model.cell_codes[:, None]], 1)
    weight = count.float()
    left = model.means.clone()
    # Backfitting (Breiman and Friedman 1985); a few rounds come within a percent of the exact solution.
    table = torch.zeros_like(model.codewords[: model.snapped])
    for _ in range(10):
        for level in range(model.snapped):
            left += table[level][names[:, level]]
            total, mass = sums(left, names[:, level], model.size, weight)
            table[level] = total / (mass + 1.0)[:, None]
            left -= table[level][names[:, level]]
    model.codewords[: model.snapped] = table


def readout_bytes(prototypes: int, size: int, deep: int) -> int:
    """Memory that `fit_readout` takes, but for the vectors: of the normal equations in float64, about six copies of
    the deep codewords' block and two of what ties them to prototypes."""
    entries = size * deep
    return 8 * entries * (6 * entries + 2 * max(prototypes, 1))


def fit_readout(
    model: RQVAE,
    found: Quantisation,
    rows: Iterable[tuple[Tensor, slice]],
    held: Tensor,
) -> tuple[float, float]:
    """Set the readouts to the least-squares correction of what the decoder leaves over.

    The ridge is the one of a fixed few that does best on the held-out x (M, d). Prototypes make a diagonal block of
    the normal equations, which is eliminated (Schur complement), so that only deep codewords need a factorisation.

    rows: the vectors behind `found` part by part, each with its slice. Returns the ridge and the held-out squared
    error per row.
    """
    p, k, deep = max(model.prototypes, 1), model.size, model.levels - model.snapped
    codes = found.codes[:, model.snapped :] + k * torch.arange(deep, device=held.device)
    double: dict[str, Any] = {"dtype": torch.float64, "device": held.device}
    own = torch.zeros(p, held.shape[1], **double)
    other = torch.zeros(k * deep, held.shape[1], **double)
    model.prototype_readout.zero_()
    model.readout.zero_()
    for x, at in rows:
        rest = (x - model.decode(found.q[at], found.prototype[at], found.codes[at])).double()
        own.index_add_(0, found.prototype[at], rest)
        for level in range(deep):
            other.index_add_(0, codes[at, level], rest)
    count = torch.bincount(found.prototype, minlength=p).double()
    gram = torch.zeros(k * deep, k * deep, **double)
    cross = torch.zeros(p, k * deep, **double)
    ones = torch.ones(len(codes), **double)
    for a in range(deep):
        cross.view(-1).index_add_(0, found.prototype * (k * deep) + codes[:, a], ones)
        for b in range(deep):
            gram.view(-1).index_add_(0, codes[:, a] * (k * deep) + codes[:, b], ones)
    eye = torch.eye(k * deep, **double)
    held_q = model.quantise(model.encode(held))
    best: tuple[float, float, Tensor, Tensor] | None = None
    for ridge in _RIDGES:
        # Without prototypes nothing is told apart by them: their block is shut off.
        inverse = 1 / (count + ridge) if model.snapped else torch.zeros_like(count)
        whole = gram + ridge * eye - cross.T @ (inverse[:, None] * cross)
        words = torch.cholesky_solve(other - cross.T @ (inverse[:, None] * own), torch.linalg.cholesky(whole))
        model.readout.copy_(words.view(deep, k, -1))
        if model.snapped:
            model.prototype_readout.copy_(inverse[:, None] * (own - cross @ words))
        error = float((held - model.decode(held_q.q, held_q.prototype, held_q.codes)).square().sum(1).mean())
        if best is not None and error > best[1]:
            break
        best = ridge, error, model.readout.clone(), model.prototype_readout.clone()
    assert best is not None
    model.readout.copy_(best[2])
    model.prototype_readout.copy_(best[3])
    return best[:2]
