"""The terms of L = L_recon + L_rq + lambda * L_contrastive.

Belongs here: each term as a pure function of tensors. All are in units of the catalogue's variance: squared
errors are summed over dimensions and averaged over rows, so that "predict the mean" costs 1 and lambda means
the same for any width or scale of the embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sid_pipeline.rqvae.model import bounded_softmax
from sid_pipeline.rqvae.tree import FURTHER, SAME, SIBLING, UNRELATED

_FLOOR = 1e-6


def reconstruction(x: Tensor, output: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean over rows of |x - output|^2; x, output (B, d), weight (B,)."""
    return ((x - output).square().sum(1) * weight).sum() / weight.sum()


def quantisation(
    z: Tensor, goals: Sequence[Tensor], codes: Tensor, codewords: Tensor, commitment: float, weight: Tensor
) -> Tensor:
    """Codewords move to what they stand for, the encoder to the sum of its codewords.

    sum_l |sg(g_l) - q_l|^2 + commitment * |z - sg(q_1 + ... + q_L)|^2 with q_l = C_l[c_l] and goals g_l (B,
    D), weighted mean over rows. Commitment acts on the whole sum, not level by level: drawing the encoder to
    coarse codewords would rub out what tells near-duplicates apart.
    """
    chosen = [codewords[level][codes[:, level]] for level in range(codes.shape[1])]
    pull = torch.stack([(g.detach() - q).square().sum(1) for g, q in zip(goals, chosen, strict=True)]).sum(0)
    total = torch.stack(chosen).sum(0).detach()
    per_row = pull + commitment * (z - total).square().sum(1)
    return (per_row * weight).sum() / weight.sum()


def pair_grades(node: Tensor, length: Tensor) -> Tensor:
    """Grades (B, B) of `tree.grade_pairs` for node (B, depth), length (B,)."""
    common = torch.zeros(len(length), len(length), dtype=length.dtype, device=length.device)
    for level in range(node.shape[1]):
        column = node[:, level]
        common += (column[:, None] == column[None, :]) & (column[:, None] >= 0)
    distance = torch.maximum(length[:, None], length[None, :]) - common
    return torch.where(common == 0, UNRELATED, distance.clamp_max(FURTHER))


def contrastive(
    residuals: Sequence[Tensor],
    codewords: Tensor,
    grades: Tensor,
    rows: Tensor,
    level_weights: Sequence[float],
    negative_weight: float,
    sharpness: float = 0.1,
) -> Tensor:
    """Taxonomy-graded term on the probability that two products share a prefix.

    p_l(x) = softmax_c(-|r_l - C_l[c]|^2 / T) with T = sharpness x the batch's mean smallest distance;
    S_l(i, j) = prod_{m <= l} p_m(i) . p_m(j). Targets by grade: the same leaf 1 at every level; a sibling leaf 1 at
    level 1 and 0 below; further 0 below level 1 (free at level 1); unrelated 0. Cross-entropy, targets of 1
    and of 0 averaged apart, weighted per level. Pairs of a product with itself (also drawn twice) are
    masked. Every matrix is B x B or B x K.

    residuals: per level (B, D); codewords (levels, K, D); grades (B, B); rows (B,) product ids.
    """
    distinct = rows[:, None] != rows[None, :]
    same = distinct & (grades == SAME)
    related = same | (distinct & (grades == SIBLING))
    unrelated = distinct & (grades == UNRELATED)
    apart = distinct & (grades != SAME)
    share: Tensor | None = None
    loss = residuals[0].new_zeros(())
    norm = sum(level_weights)
    for level, level_weight in enumerate(level_weights):
        if level_weight == 0:
            break
        r, words = residuals[level], codewords[level]
        distance = torch.addmm(words.square().sum(1), r, words.T, alpha=-2) + r.square().sum(1, keepdim=True)
        p = bounded_softmax(-distance / _temperature(distance, sharpness), floor=-16.0)
        together = p @ p.T
        share = together if share is None else share * together
        bounded = share.clamp(_FLOOR, 1 - _FLOOR)
        attract, repel = (related, unrelated) if level == 0 else (same, apart)
        loss = loss + level_weight / norm * (
            _mean(-bounded.log(), attract) + negative_weight * _mean(-torch.log1p(-bounded), repel)
        )
    return loss


def _temperature(distance: Tensor, sharpness: float) -> Tensor:
    """Softmax temperature of a level, a constant to the gradient."""
    return (sharpness * distance.detach().min(dim=1).values.mean()).clamp_min(_FLOOR)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    weight = mask.to(values.dtype)
    return (values * weight).sum() / weight.sum().clamp_min(1)
