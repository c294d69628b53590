"""The terms of L = L_recon + L_rq + lambda * L_contrastive.

Belongs here: each term as a pure function of tensors. All are in units of the catalogue's variance: squared
errors are summed over dimensions and averaged over rows, so that "predict the mean" costs 1 and lambda means
the same for any width or scale of the embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sid_pipeline.rqvae.model import RQVAE, Quantisation
from sid_pipeline.rqvae.tree import SAME, SIBLING, UNRELATED

_FLOOR = 1e-6


def reconstruction(x: Tensor, output: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean over rows of |x - output|^2; x, output (B, d), weight (B,)."""
    return ((output - x).square().sum(1) * weight).sum() / weight.sum()


def quantisation(z: Tensor, q: Tensor, commitment: float, weight: Tensor) -> Tensor:
    """(1 + commitment) |z - q|^2, weighted mean over rows; z (B, D), q (B, D) without gradient.

    The gradient is that of commitment * |z - sg(q)|^2, which draws the encoder to what the codes stand for. The 1 is
    the codebook's own term: its minimum is the moving average, by which the trainer moves the tables. Commitment acts
    on the whole sum, not level by level: drawing the encoder to coarse codewords would rub out what tells
    near-duplicates apart.
    """
    per_row = (z - q).square().sum(1)
    return ((commitment * per_row + per_row.detach()) * weight).sum() / weight.sum()


def contrastive(
    memberships: Sequence[Tensor],
    whole: int,
    grades: Tensor,
    rows: Tensor,
    level_weights: Sequence[float],
    negative_weight: float,
) -> Tensor:
    """Taxonomy-graded term on the probability that two products share a prefix.

    p_l(x) is the distribution of x over what level l may take (see `memberships`), and S_l(i, j) the probability
    that both take the same up to level l: p_l(i) . p_l(j) for the first `whole` levels, whose p_l is of the whole
    prefix; below them S_{l-1}(i, j) * p_l(i) . p_l(j). Targets by grade: the same leaf 1 at every level; a sibling leaf
    1 at level 1 and 0 below; further 0 below level 1 (free at level 1); unrelated 0. Cross-entropy, targets of 1 and of
    0 averaged apart, weighted per level. Pairs of a product with itself (also drawn twice) are masked. Every
    matrix is B x B or B x choices.

    memberships: per level (B, choices); grades (B, B) of `tree.grade_pairs`; rows (B,) product ids.
    """
    distinct = rows[:, None] != rows[None, :]
    same = distinct & (grades == SAME)
    related = same | (distinct & (grades == SIBLING))
    unrelated = distinct & (grades == UNRELATED)
    apart = distinct & (grades != SAME)
    share = torch.ones((), device=rows.device)
    loss = memberships[0].new_zeros(())
    norm = sum(level_weights)
    for level, (p, level_weight) in enumerate(zip(memberships, level_weights, strict=False)):
        if not any(level_weights[level:]):
            break
        share = _Gram.apply(p) if level < whole else share * _Gram.apply(p)
        bounded = share.clamp(_FLOOR, 1 - _FLOOR)
        attract, repel = (related, unrelated) if level == 0 else (same, apart)
        loss = loss + level_weight / norm * (
            _mean(-bounded.log(), attract) + negative_weight * _mean(-torch.log1p(-bounded), repel)
        )
    return loss


def memberships(model: RQVAE, z: Tensor, found: Quantisation) -> tuple[list[Tensor], int]:
    """Distributions of latents z (B, D) per level for `contrastive`, and how many of them are of whole prefixes.

    Of a snapped model, levels 1 and 2: the posterior of the prototypes, summed by first code, and itself (each
    prototype has a path of its own). A third snapped level: the cells of the prototype that was taken, by code. Any
    other: softmax_c(-|r_l - C_l[c]|^2 / T), T = a tenth of the batch's mean smallest distance.
    """
    out = []
    if model.snapped:
        posterior = torch.softmax(model.logits(z), 1)
        first = torch.zeros(len(z), model.size, dtype=z.dtype, device=z.device)
        out = [first.index_add(1, model.paths[:, 0], posterior), posterior]
    if model.snapped == 3:
        near = _near(model.cell_distances(z, found.prototype))
        nth = torch.arange(model.most_cells, device=z.device)
        cell = (model.start[found.prototype][:, None] + nth).clamp_max(len(model.means) - 1)
        codes = model.cell_codes[cell]
        out.append(torch.zeros(len(z), model.size, dtype=z.dtype, device=z.device).scatter_add(1, codes, near))
    moved = z - z.detach()
    for level in range(model.snapped, model.levels):
        words = model.codewords[level]
        rest = found.rests[level - model.snapped] + moved
        distance = torch.addmm(words.square().sum(1), rest, words.T, alpha=-2) + rest.square().sum(1, keepdim=True)
        out.append(_near(distance))
    return out, 2 if model.snapped else 1


class _Gram(torch.autograd.Function):
    """p p^T with half the work of autograd's backward: both factors are one."""

    @staticmethod
    def forward(ctx: Any, p: Tensor) -> Tensor:
        ctx.save_for_backward(p)
        return p @ p.T

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (p,) = ctx.saved_tensors
        return (grad + grad.T) @ p


def _near(distance: Tensor) -> Tensor:
    """softmax(-distance / T) over the last axis; T is a constant to the gradient."""
    return torch.softmax(-distance / _temperature(distance), dim=1)


def _temperature(distance: Tensor, sharpness: float = 0.1) -> Tensor:
    return (sharpness * distance.detach().min(dim=1).values.mean()).clamp_min(_FLOOR)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    weight = mask.to(values.dtype)
    return (values * weight).sum() / weight.sum().clamp_min(1)
