from __future__ import annotations

import numpy as np

from sid_pipeline.evaluation import baselines as b


def f32(values) -> np.ndarray:
    return np.array(values, np.float32)


def test_as_many_codes_as_rows_leave_no_error():
    x = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    model = b.fit_residual_kmeans(x, levels=2, codebook_size=6, seed=0)
    codes = model.assign(x)
    assert len(set(codes[:, 0].tolist())) == 6
    np.testing.assert_allclose(model.reconstruct(codes), x, atol=1e-5)


def test_two_levels_find_a_sum_of_two_grids():
    coarse = f32([[0, 0], [100, 0], [0, 100], [100, 100]])
    fine = f32([[0, 0], [1, 0], [0, 1], [1, 1]])
    x = np.repeat((coarse[:, None] + fine[None]).reshape(-1, 2), 4, axis=0)
    model = b.fit_residual_kmeans(x, levels=2, codebook_size=4, seed=1)
    codes = model.assign(x)
    assert np.square(x - model.reconstruct(codes)).sum() < 1e-3
    assert len(np.unique(codes, axis=0)) == 16


def test_repeated_rows_end_and_use_one_code_each():
    x = np.repeat(f32([[1, 0], [0, 1]]), 50, axis=0)
    model = b.fit_residual_kmeans(x, levels=2, codebook_size=8, seed=0)
    assert [len(book) for book in model.codebooks] == [2, 1]
    np.testing.assert_allclose(model.reconstruct(model.assign(x)), x, atol=1e-6)


def test_an_empty_code_takes_the_worst_served_row():
    # Both starts fall into one heap; without revival the far row would share a centre.
    x = f32([[0.0, 0], [0.1, 0], [0.2, 0], [50, 0]])

    class FirstRows(np.random.Generator):
        def choice(self, a, size=None, replace=True, p=None, axis=0, shuffle=True):
            return a[:size]

    centres = b._lloyd(x, 2, 8, FirstRows(np.random.PCG64(0)))
    np.testing.assert_allclose(np.sort(centres[:, 0]), [0.1, 50])


def test_same_seed_same_codes():
    x = np.random.default_rng(1).standard_normal((500, 8)).astype(np.float32)
    first, second = (b.fit_residual_kmeans(x, 3, 16, seed=4).assign(x) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_category_codes_by_hand():
    categories = [("food", "tea"), ("home", "mop"), ("food", "jam"), ("food", "tea"), None]
    codes = b.category_prefix_codes(categories, levels=4, codebook_size=512)
    # Branches in the order none, food, home; leaves in lexical order inside; then the number inside the leaf.
    assert codes.tolist() == [[1, 1, 0, 0], [2, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 1], [0, 0, 0, 0]]


def test_category_codes_fold_deep_trees_and_count_in_the_base():
    deep = [("a", "b", "c", "d"), ("a", "b", "c", "e"), ("a", "b", "c", "d")]
    codes = b.category_prefix_codes(deep, levels=3, codebook_size=4)
    assert codes.tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 1]]
    flat = b.category_prefix_codes([("a",)] * 6, levels=3, codebook_size=4)
    assert flat.tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 0, 3], [0, 1, 0], [0, 1, 1]]


def test_random_codes_are_seeded_and_in_range():
    codes = b.random_codes(1_000, 4, 8, seed=0)
    assert codes.min() == 0
    assert codes.max() == 7
    np.testing.assert_array_equal(codes, b.random_codes(1_000, 4, 8, seed=0))
    assert (codes != b.random_codes(1_000, 4, 8, seed=1)).any()
