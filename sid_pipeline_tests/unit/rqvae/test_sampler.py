from __future__ import annotations

import numpy as np
import pytest

from sid_pipeline.rqvae.sampler import HierarchicalSampler, UniformSampler
from sid_pipeline.rqvae.tree import build_tree
from sid_pipeline_tests.unit.rqvae.data import catalogue


def test_uniform_batches_show_every_row_once_per_epoch() -> None:
    rows = np.arange(100, 207)
    sampler = UniformSampler(rows, 20, seed=1)
    seen = np.concatenate([sampler.batch(s) for s in range(107)])  # 107 x 20 rows are 20 epochs
    assert (np.bincount(seen - 100) == 20).all()


def test_batches_depend_on_seed_and_step_alone() -> None:
    _, paths = catalogue()
    tree, rows = build_tree(paths, 500), np.arange(500)
    one, other = (HierarchicalSampler(tree, rows, 128, 4, seed=3) for _ in range(2))
    one.batch(0)
    np.testing.assert_array_equal(one.batch(7), other.batch(7))
    assert (one.batch(7) != HierarchicalSampler(tree, rows, 128, 4, seed=4).batch(7)).any()
    uniform = UniformSampler(rows, 64, seed=3)
    late = uniform.batch(20)
    uniform.batch(0)
    np.testing.assert_array_equal(uniform.batch(20), late)


def test_half_of_a_group_shares_a_parent_and_the_other_half_no_ancestor_with_it() -> None:
    _, paths = catalogue(2000)
    paths[:, :2] = np.where(paths[:, :2] < 0, 0, paths[:, :2])
    paths[:, 1] = paths[:, 0] * 3 + paths[:, 1] % 3
    tree = build_tree(paths, 2000)
    sampler = HierarchicalSampler(tree, np.arange(2000), 256, 4, seed=0, group_size=64)
    for step in range(20):
        for group in sampler.batch(step).reshape(4, 64):
            parents = tree.leaf_parent[tree.leaf[group]]
            tops = tree.leaf_top[tree.leaf[group]]
            assert len(set(parents[:32])) == 1
            assert tops[0] not in tops[32:]
            slots = tree.leaf[group].reshape(-1, 4)
            assert (slots == slots[:, :1]).all()


def test_parents_and_children_are_drawn_evenly_whatever_their_size() -> None:
    # Parent 0 holds leaves of 900 and 10 products, parent 1 a single leaf of 90.
    leaf = np.repeat([0, 1, 2], [900, 10, 90])
    tree = build_tree(np.stack([leaf // 2, leaf], 1), 1000)
    sampler = HierarchicalSampler(tree, np.arange(1000), 64, 4, seed=0, group_size=64)
    related = np.stack([sampler.batch(s)[:32] for s in range(2000)])
    share = np.bincount(tree.leaf[related].ravel(), minlength=3) / related.size
    np.testing.assert_allclose(share, [0.25, 0.25, 0.5], atol=0.04)


def test_pair_mix_is_counted_by_hand() -> None:
    tree = build_tree([[0, 0], [0, 0], [0, 1], [1, 0]], 4)
    sampler = HierarchicalSampler(tree, np.arange(4), 16, 2, seed=0, group_size=16)
    mix = sampler.pair_mix(np.array([0, 0, 1, 2, 3]))  # 9 distinct pairs: the repeated product is no pair
    assert mix == pytest.approx({"same leaf": 2 / 9, "sibling leaf": 3 / 9, "further": 0, "unrelated": 4 / 9})


@pytest.mark.parametrize(
    "paths",
    [
        np.zeros((40, 2), int),  # one category for all
        np.arange(40)[:, None],  # categories of one product, depth 1
        np.stack([np.zeros(40, int), np.arange(40)], 1),  # one top category
        np.where(np.arange(40)[:, None] < 3, 0, -1),  # hardly any category
    ],
)
def test_odd_taxonomies_still_give_full_batches(paths: np.ndarray) -> None:
    tree = build_tree(paths, 40)
    sampler = HierarchicalSampler(tree, np.arange(40), 64, 4, seed=0)
    batch = sampler.batch(0)
    assert batch.shape == (64,)
    assert (tree.leaf[batch] >= 0).all()
