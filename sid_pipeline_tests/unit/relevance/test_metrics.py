"""The figures against hand-computed values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sid_pipeline.relevance.metrics import ndcg, paired_bootstrap, pairs_in_order, recall


def test_ndcg_by_hand() -> None:
    # Ranked I, E, S: 0/log2(2) + 1/log2(3) + .1/log2(4) over the ideal 1/log2(2) + .1/log2(3).
    gains, scores = np.array([1.0, 0.0, 0.1]), np.array([0.5, 0.9, 0.1])
    expected = (1 / math.log2(3) + 0.1 / 2) / (1 + 0.1 / math.log2(3))
    assert ndcg(gains, scores) == pytest.approx(expected)
    assert ndcg(gains, np.array([3.0, 1.0, 2.0])) == 1.0


def test_ndcg_looks_at_k_products_of_the_ideal_too() -> None:
    # At 1, the best product in second place counts nothing, and the ideal is that product alone.
    assert ndcg(np.array([1.0, 0.1]), np.array([0.1, 0.9]), k=1) == pytest.approx(0.1)
    assert ndcg(np.array([1.0, 1.0, 0.0]), np.array([0.9, 0.1, 0.5]), k=2) == pytest.approx(1 / (1 + 1 / math.log2(3)))


def test_ndcg_of_tied_products_is_the_mean_over_their_orders() -> None:
    gains = np.array([1.0, 0.0])
    either_order = (1 + 1 / math.log2(3)) / 2
    assert ndcg(gains, np.zeros(2)) == pytest.approx(either_order)
    assert ndcg(gains[::-1], np.zeros(2)) == pytest.approx(either_order)


def test_ndcg_without_any_gain_is_undefined() -> None:
    assert math.isnan(ndcg(np.zeros(3), np.arange(3.0)))
    assert math.isnan(ndcg(np.array([]), np.array([])))


def test_recall_by_hand() -> None:
    relevant = np.array([True, False, True, False])
    scores = np.array([0.9, 0.8, 0.1, 0.2])
    assert recall(relevant, scores, k=2) == 0.5
    assert recall(relevant, scores, k=10) == 1.0
    assert math.isnan(recall(np.zeros(4, bool), scores, k=2))


def test_recall_of_products_tied_at_the_cut_is_their_chance_of_getting_in() -> None:
    # One place is left for three tied products, one of them relevant; the other relevant one is in.
    relevant = np.array([True, True, False, False])
    assert recall(relevant, np.array([0.9, 0.5, 0.5, 0.5]), k=2) == pytest.approx((1 + 1 / 3) / 2)


def test_pairs_in_order_counts_a_tie_for_half() -> None:
    # 0.9 beats both, 0.5 ties one and beats none.
    assert pairs_in_order(np.array([0.9, 0.5]), np.array([0.5, 0.6])) == (2.5, 4)
    assert pairs_in_order(np.array([]), np.array([0.5])) == (0.0, 0)


def test_bootstrap_of_a_constant_gain_is_that_gain() -> None:
    base = np.linspace(0, 0.8, 50)
    gain = paired_bootstrap(base, base + 0.1, seed=0)
    assert gain == pytest.approx((0.1, 0.1, 0.1))


def test_bootstrap_interval_is_close_to_the_normal_one_and_seeded() -> None:
    noise = np.random.default_rng(1).normal(0.02, 0.1, 400)
    base = np.full(400, 0.5)
    gain = paired_bootstrap(base, base + noise, seed=0)
    half = 1.96 * noise.std() / math.sqrt(400)
    assert gain.mean == pytest.approx(noise.mean())
    assert gain.lower == pytest.approx(noise.mean() - half, abs=0.001)
    assert gain.upper == pytest.approx(noise.mean() + half, abs=0.001)
    assert gain == paired_bootstrap(base, base + noise, seed=0)
    assert gain != paired_bootstrap(base, base + noise, seed=1)


def test_bootstrap_in_blocks_makes_every_resample() -> None:
    # 70,000 queries are resampled in more than one block.
    gain = paired_bootstrap(np.zeros(70_000), np.ones(70_000), seed=0, resamples=100)
    assert gain == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(("a", "b"), [(np.zeros(2), np.zeros(3)), (np.zeros(0), np.zeros(0))])
def test_bootstrap_refuses_arrays_that_do_not_pair(a: np.ndarray, b: np.ndarray) -> None:
    with pytest.raises(ValueError, match="equally long"):
        paired_bootstrap(a, b, seed=0)
