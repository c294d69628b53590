from __future__ import annotations

import numpy as np
import pytest

from sid_pipeline.evaluation import pairs as p


def f32(values) -> np.ndarray:
    return np.array(values, np.float32)


def unit(rows: int, dimensions: int = 8, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((rows, dimensions)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_pairs_are_those_of_the_benchmark(workload, tmp_path):
    x = unit(400)
    i, j, cosine, near = workload.make_pairs(x, n_random=500, n_anchor=20, k=5, seed=11, cache_dir=str(tmp_path))
    rng = np.random.default_rng(11)
    norms = p.row_norms(x)
    ours_random = p.random_pairs(x, norms, 500, rng)
    ours_near = p.neighbour_pairs(x, norms, 20, 5, rng)
    np.testing.assert_array_equal(ours_random.i, i[~near])
    np.testing.assert_array_equal(ours_random.j, j[~near])
    np.testing.assert_array_equal(ours_near.i, i[near])
    # The benchmark leaves an anchor's neighbours unordered.
    np.testing.assert_array_equal(np.sort(ours_near.j.reshape(-1, 5)), np.sort(j[near].reshape(-1, 5)))
    np.testing.assert_allclose(ours_random.cosine, cosine[~near], atol=1e-6)


def test_nearest_neighbours_equal_a_full_sort_over_several_blocks(monkeypatch):
    monkeypatch.setattr(p, "row_blocks", lambda n, rows=37: _blocks(n, min(rows, 37)))
    x = unit(300) * np.linspace(0.5, 2.0, 300, dtype=np.float32)[:, None]
    norms = p.row_norms(x)
    rows = np.array([0, 5, 36, 37, 299])
    full = (x / norms[:, None]) @ (x / norms[:, None]).T
    np.fill_diagonal(full, -np.inf)
    expected = np.argsort(-full[rows], axis=1)[:, :12]
    np.testing.assert_array_equal(p.nearest_neighbours(x, norms, rows, 12), expected)


def _blocks(n: int, rows: int):
    for start in range(0, n, rows):
        yield slice(start, min(start + rows, n))


def test_equal_products_come_in_row_order():
    x = np.tile(f32([[1, 0]]), (6, 1))
    near = p.nearest_neighbours(x, p.row_norms(x), np.array([2]), 3)
    np.testing.assert_array_equal(near, [[0, 1, 3]])


def test_vectors_need_no_unit_length_and_a_zero_vector_has_cosine_zero():
    x = f32([[3, 0], [0, 0], [5, 5]])
    norms = p.row_norms(x)
    np.testing.assert_allclose(p.cosines(x, norms, np.array([0, 0]), np.array([1, 2])), [0, np.sqrt(0.5)], rtol=1e-6)


def test_bands_hold_equally_many_pairs():
    x = unit(200, dimensions=3)
    norms = p.row_norms(x)
    rng = np.random.default_rng(0)
    near = p.neighbour_pairs(x, norms, 50, 10, rng)
    banded = p.stratified_pairs(x, norms, near, 40, rng, bin_width=0.5)
    assert banded.name == "cosine_stratified"
    assert np.histogram(banded.cosine, [-1.01, -0.5, 0, 0.5, 1.01])[0].tolist() == [40, 40, 40, 40]
    assert (banded.i != banded.j).all()


@pytest.mark.parametrize("rows", [1, 2])
def test_hardly_any_products(rows):
    x = unit(rows)
    norms = p.row_norms(x)
    rng = np.random.default_rng(0)
    near = p.neighbour_pairs(x, norms, 10, 5, rng)
    assert len(near) == (0 if rows == 1 else 2)
    assert len(p.stratified_pairs(x, norms, near, 5, rng)) <= 4
    assert len(p.random_pairs(x, norms, 0, rng)) == 0


def test_same_seed_same_pairs():
    x = unit(100)
    norms = p.row_norms(x)
    draws = []
    for _ in range(2):
        rng = np.random.default_rng(5)
        near = p.neighbour_pairs(x, norms, 10, 3, rng)
        draws.append(p.stratified_pairs(x, norms, near, 10, rng))
    np.testing.assert_array_equal(draws[0].i, draws[1].i)
    np.testing.assert_array_equal(draws[0].j, draws[1].j)
