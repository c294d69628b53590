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
    memberships = [torch.softmax(torch.randn(12, k, generator=g, dtype=torch.float64), 1) for k in (3, 9, 5, 4)]
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
    return memberships, tree, rows


def slow_contrastive(memberships, whole, tree, rows, negative_weight) -> float:
    """The definition, pair by pair: p_l is of the whole prefix on the first `whole` levels."""
    n = len(rows)
    p = [m.detach().numpy() for m in memberships]
    total = 0.0
    for level, weight in enumerate(WEIGHTS):
        attract, repel = [], []
        for i in range(n):
            for j in range(n):
                if rows[i] == rows[j]:
                    continue
                grade = int(grade_pairs(tree.node[i], tree.node[j]))
                first = min(level, whole - 1)
                share = math.prod(float(p[m][i] @ p[m][j]) for m in range(first, level + 1))
                share = min(max(share, 1e-6), 1 - 1e-6)
                if grade == 0 or (grade == 1 and level == 0):
                    attract.append(-math.log(share))
                elif grade == 3 or level > 0:
                    repel.append(-math.log(1 - share))
        if weight:
            total += weight / sum(WEIGHTS) * (np.mean(attract) + negative_weight * np.mean(repel))
    return total


def grades_of(tree):
    node = torch.from_numpy(tree.node)
    return grade_pairs(node[:, None], node[None])


@pytest.mark.parametrize("whole", [1, 2])
def test_contrastive_equals_a_loop_over_pairs(batch, whole) -> None:
    memberships, tree, rows = batch
    fast = losses.contrastive(memberships, whole, grades_of(tree), rows, WEIGHTS, 5.0)
    assert float(fast) == pytest.approx(slow_contrastive(memberships, whole, tree, rows, 5.0), rel=1e-9)


def test_grades_of_tensors_equal_those_of_arrays(batch) -> None:
    node = batch[1].node
    np.testing.assert_array_equal(grades_of(batch[1]).numpy(), grade_pairs(node[:, None], node[None]))


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


@pytest.mark.parametrize("whole", [1, 2])
def test_contrastive_gradient(batch, whole) -> None:
    memberships, tree, rows = batch

    def f():
        return losses.contrastive(memberships, whole, grades_of(tree), rows, WEIGHTS, 5.0)

    leaves = memberships[:3]
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


def test_quantisation_gradient_is_that_of_the_commitment() -> None:
    g = torch.Generator().manual_seed(2)
    z, q = (torch.randn(6, 3, generator=g, dtype=torch.float64) for _ in range(2))
    weight = torch.tensor([1.0, 1, 1, 0.25, 0.25, 0.25], dtype=torch.float64)
    z.requires_grad_(True)
    value = losses.quantisation(z, q, 0.25, weight)
    value.backward()
    got = z.grad.clone()
    z.requires_grad_(False)
    per_row = (z - q).square().sum(1)
    assert float(value.detach()) == pytest.approx(1.25 * float((per_row * weight).sum() / weight.sum()))
    commit = numeric_gradient(lambda: 0.25 * ((z - q).square().sum(1) * weight).sum() / weight.sum(), z)
    torch.testing.assert_close(got, commit)


@pytest.mark.parametrize("snapped", [0, 2, 3])
def test_memberships_are_distributions_and_their_gradient_reaches_encoder_and_keys(snapped) -> None:
    torch.manual_seed(0)
    model = RQVAE(quick(), 16, 8, snapped, [2, 1, 3] if snapped else [])
    with torch.no_grad():
        for p in (model.encoder_linear, model.codewords, model.keys, model.offset, model.means):
            p.copy_(torch.randn(p.shape) * 0.3)
        if snapped:
            model.paths.copy_(torch.tensor([[0, 3], [4, 3], [0, 1]]))
            model.cell_codes.copy_(torch.tensor([0, 4, 2, 1, 3, 0]))
    x = torch.randn(12, 16)
    tree = build_tree(np.repeat(np.arange(4), 3)[:, None], 12)
    z = model.encode(x)
    found = model.quantise(z.detach())
    memberships, whole = losses.memberships(model, z, found)
    assert len(memberships) == 4 and whole == (2 if snapped else 1)
    for level, p in enumerate(memberships):
        torch.testing.assert_close(p.sum(1), torch.ones(12), rtol=1e-4, atol=1e-4)
        if level != 1 or not snapped:  # level 2 of a snapped model is over prototypes
            assert (p.gather(1, found.codes[:, level : level + 1])[:, 0] > 0).all()
    losses.contrastive(memberships, whole, grades_of(tree), torch.arange(12), WEIGHTS, 5.0).backward()
    for p in (model.encoder_linear, model.encoder.weight[-1], *((model.keys, model.offset) if snapped else ())):
        assert float(p.grad.abs().sum()) > 0
