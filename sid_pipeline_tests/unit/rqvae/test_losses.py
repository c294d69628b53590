from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from sid_pipeline.rqvae import losses  # noqa: E402
from sid_pipeline.rqvae.model import RQVAE  # noqa: E402
from sid_pipeline.rqvae.tree import build_tree, grade_pairs  # noqa: E402
from sid_pipeline_tests.unit.rqvae.data import quick  # noqa: E402

WEIGHTS = (1.0, 0.75, 0.25, 0.0)


@pytest.fixture
def batch():
    g = torch.Generator().manual_seed(0)
    residuals = [torch.randn(12, 5, generator=g, dtype=torch.float64) * 0.3 for _ in range(4)]
    codewords = torch.randn(4, 7, 5, generator=g, dtype=torch.float64) * 0.3
    tree = build_tree(
        [
            [0, 0, 0],
            [0, 0, 0],
            [0, 0, 1],
            [0, 0, None],
            [0, 1, 2],
            [0, 1, 2],
            [1, 0, 0],
            [1, 0, 1],
            [1, 0, 1],
            [2, 0, None],
            [2, 0, None],
            [0, 0, 0],
        ],
        12,
    )
    rows = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0])  # the last is the first product, drawn again
    return residuals, codewords, tree, rows


def slow_contrastive(residuals, codewords, tree, rows, negative_weight, sharpness=0.1) -> float:
    """The definition, pair by pair."""
    n = len(rows)
    p = []
    for r, words in zip(residuals, codewords, strict=True):
        d = ((r[:, None] - words[None]) ** 2).sum(-1).numpy()
        t = sharpness * d.min(1).mean()
        e = np.exp(np.maximum(-(d - d.min(1, keepdims=True)) / t, -16))
        p.append(e / e.sum(1, keepdims=True))
    total = 0.0
    for level, weight in enumerate(WEIGHTS):
        attract, repel = [], []
        for i in range(n):
            for j in range(n):
                if rows[i] == rows[j]:
                    continue
                a, b = tree.node[i], tree.node[j]
                grade = int(grade_pairs(a, tree.length[i], b, tree.length[j]))
                share = math.prod(float(p[m][i] @ p[m][j]) for m in range(level + 1))
                share = min(max(share, 1e-6), 1 - 1e-6)
                if grade == 0 or (grade == 1 and level == 0):
                    attract.append(-math.log(share))
                elif grade == 3 or level > 0:
                    repel.append(-math.log(1 - share))
        if weight:
            total += weight / sum(WEIGHTS) * (np.mean(attract) + negative_weight * np.mean(repel))
    return total


def grades_of(tree):
    return losses.pair_grades(torch.from_numpy(tree.node), torch.from_numpy(tree.length))


def test_contrastive_equals_a_loop_over_pairs(batch) -> None:
    residuals, codewords, tree, rows = batch
    fast = losses.contrastive(residuals, codewords, grades_of(tree), rows, WEIGHTS, 5.0)
    assert float(fast) == pytest.approx(slow_contrastive(residuals, codewords, tree, rows, 5.0), rel=1e-9)


def test_batch_grades_equal_pair_grades(batch) -> None:
    tree = batch[2]
    n, t = tree.node, tree.length
    np.testing.assert_array_equal(grades_of(tree).numpy(), grade_pairs(n[:, None], t[:, None], n[None], t[None]))


@torch.no_grad()
def numeric_gradient(f, x, eps=1e-6):
    grad = torch.zeros_like(x)
    flat, out = x.view(-1), grad.view(-1)
    for i in range(len(flat)):
        keep = float(flat[i])
        flat[i] = keep + eps
        up = float(f())
        flat[i] = keep - eps
        out[i] = (up - float(f())) / (2 * eps)
        flat[i] = keep
    return grad


def test_contrastive_gradient_at_fixed_temperature(batch, monkeypatch) -> None:
    residuals, codewords, tree, rows = batch
    # The temperature is a constant to the gradient but moves with the residuals: pin it for the comparison.
    monkeypatch.setattr(losses, "_temperature", lambda distance, sharpness: torch.tensor(0.4, dtype=torch.float64))

    def f():
        return losses.contrastive(residuals, codewords, grades_of(tree), rows, WEIGHTS, 5.0)

    leaves = [*residuals[:3], codewords]
    for leaf in leaves:
        leaf.requires_grad_(True)
    f().backward()
    for leaf in leaves:
        got = leaf.grad.clone()
        leaf.requires_grad_(False)
        torch.testing.assert_close(got, numeric_gradient(f, leaf), rtol=1e-5, atol=1e-8)


def test_reconstruction_gradient() -> None:
    g = torch.Generator().manual_seed(1)
    x, y = (torch.randn(6, 4, generator=g, dtype=torch.float64) for _ in range(2))
    weight = torch.tensor([1.0, 1, 1, 0.25, 0.25, 0.25], dtype=torch.float64)
    y.requires_grad_(True)
    losses.reconstruction(x, y, weight).backward()
    got = y.grad.clone()
    y.requires_grad_(False)
    torch.testing.assert_close(got, numeric_gradient(lambda: losses.reconstruction(x, y, weight), y))


def test_quantisation_gradient_moves_codewords_and_encoder_apart() -> None:
    g = torch.Generator().manual_seed(2)
    z = torch.randn(6, 3, generator=g, dtype=torch.float64)
    words = torch.randn(2, 4, 3, generator=g, dtype=torch.float64)
    codes = torch.tensor([[0, 1], [0, 2], [3, 1], [2, 2], [0, 0], [1, 3]])
    weight = torch.ones(6, dtype=torch.float64)
    goals = [z.clone(), z - words[0][codes[:, 0]]]
    z.requires_grad_(True)
    words.requires_grad_(True)
    losses.quantisation(z, goals, codes, words, 0.25, weight).backward()
    got_z, got_words = z.grad.clone(), words.grad.clone()
    z.requires_grad_(False)
    words.requires_grad_(False)
    fixed = sum(words[m][codes[:, m]] for m in range(2)).clone()
    # Stop-gradients: the encoder sees frozen codewords, the codewords see frozen residuals.
    commit = numeric_gradient(lambda: 0.25 * (z - fixed).square().sum(1).mean(), z)
    pull = numeric_gradient(
        lambda: sum((goals[m] - words[m][codes[:, m]]).square().sum(1).mean() for m in range(2)), words
    )
    torch.testing.assert_close(got_z, commit)
    torch.testing.assert_close(got_words, pull)


def test_contrastive_gradient_reaches_encoder_and_codewords() -> None:
    torch.manual_seed(0)
    model = RQVAE(quick(), 16, 8, 6, (1.0, 1.0, 1.0, 0.0))
    with torch.no_grad():
        for p in (model.encoder_linear, model.codewords, model.keys, model.offset):
            p.copy_(torch.randn(p.shape) * 0.3)
    x = torch.randn(12, 16)
    tree = build_tree(np.repeat(np.arange(4), 3)[:, None], 12)
    residuals, _, _ = model.quantise(model.encode(x))
    losses.contrastive(residuals, model.codewords, grades_of(tree), torch.arange(12), WEIGHTS, 5.0).backward()
    for p in (model.encoder_linear, model.codewords, model.encoder.weight[-1]):
        assert float(p.grad.abs().sum()) > 0
