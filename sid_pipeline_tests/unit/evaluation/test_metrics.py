from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score

from sid_pipeline.evaluation import metrics as m
from sid_pipeline.evaluation.pairs import Pairs


def f32(values) -> np.ndarray:
    return np.array(values, np.float32)


def known(figure) -> Any:
    """The figure, which must not be None."""
    assert figure is not None
    return figure


def pairs(cosine, i=None, j=None) -> Pairs:
    n = len(cosine)
    i = np.arange(n) if i is None else np.asarray(i)
    j = np.arange(n) + n if j is None else np.asarray(j)
    return Pairs("test", i, j, np.asarray(cosine, np.float32))


def test_prefix_ids_number_prefixes_not_codes():
    codes = np.array([[1, 5], [0, 5], [1, 5], [1, 4]])
    assert m.prefix_ids(codes).tolist() == [[1, 2], [0, 0], [1, 2], [1, 1]]


def test_prefix_ids_do_not_overflow_on_many_levels():
    codes = np.array([[65535] * 8, [65535] * 7 + [65534]])
    assert m.prefix_ids(codes)[:, -1].tolist() == [1, 0]


def test_level_health_by_hand():
    # Codes 0 and 1 hold two products each, 2 and 3 none.
    (level,) = m.level_health(np.array([[0], [0], [1], [1]]), [4])
    assert level["used"] == 2
    assert level["usage"] == 0.5
    assert level["entropy"] == pytest.approx(np.log(2))
    assert level["perplexity"] == pytest.approx(2)
    assert level["gini"] == pytest.approx(0.5)


def test_gini_ends():
    assert m.gini(np.array([3, 3, 3])) == pytest.approx(0)
    assert m.gini(np.array([0, 0, 0, 9])) == pytest.approx(0.75)
    assert m.gini(np.zeros(4)) == 0


def test_sid_health_by_hand():
    prefix = m.prefix_ids(np.array([[0, 0], [0, 0], [0, 0], [1, 2], [1, 3]]))
    assert m.sid_health(prefix) == {
        "distinct_sids": 3,
        "distinct_share": pytest.approx(0.6),
        "collision_rate": pytest.approx(0.4),
        "largest_bucket": 3,
    }


def test_collisions_count_only_different_texts_and_rank_the_least_alike_first():
    codes = np.array([[0], [0], [1], [1], [2], [2], [2], [3]])
    texts = ["Tea", " tea ", "cup", "mug", "nail", "oil", "OIL", "alone"]
    vectors = f32([[1, 0], [1, 0], [1, 0], [1, 0], [1, 0], [0, 1], [0, 1], [1, 0]])
    ids = [f"p{row}" for row in range(8)]
    found = m.collisions_of_different_texts(m.prefix_ids(codes), codes, texts, ids, vectors, np.ones(8, np.float32))
    assert (found["items"], found["sids"]) == (5, 2)
    assert [entry["sid"] for entry in found["worst"]] == ["2", "1"]
    # Three pairs with the cosines 0, 0 and 1.
    assert found["worst"][0]["mean_cosine"] == pytest.approx(1 / 3)
    assert found["worst"][0]["distinct_texts"] == 2
    assert [product["product_id"] for product in found["worst"][0]["products"]] == ["p4", "p5"]


def test_faithfulness_by_hand():
    x, back = f32([[0], [2]]), f32([[0], [1]])
    found = m.faithfulness(x, lambda rows: back[rows])
    assert {name: estimate.value for name, estimate in found.items()} == {
        "rel_mse": pytest.approx(0.5),
        "cosine": pytest.approx(0.5),
    }


def test_rel_mse_is_unknown_where_all_vectors_are_equal():
    x = np.full((5, 3), 0.1, np.float32)
    found = m.faithfulness(x, lambda rows: x[rows])
    assert found["rel_mse"] is None
    assert found["cosine"].value == pytest.approx(1)


def test_shared_depth_stops_at_the_first_difference():
    prefix = m.prefix_ids(np.array([[0, 1, 2], [0, 9, 2], [0, 1, 3], [0, 1, 2]]))
    assert m.shared_depth(prefix, np.array([0, 0, 0]), np.array([1, 2, 3])).tolist() == [1, 2, 3]


def test_spearman_equals_scipy_and_its_interval_holds_the_value():
    rng = np.random.default_rng(0)
    depth = rng.integers(0, 5, 2_000)
    cosine = np.round(depth + 2 * rng.standard_normal(2_000), 1)
    found = known(m.spearman(pairs(cosine), depth))
    assert found.value == pytest.approx(spearmanr(cosine, depth).statistic)
    assert found.low < found.value < found.high
    # The large-sample standard error of a correlation of .5 on 2,000 pairs is near .02.
    assert 0.02 < found.high - found.low < 0.15
    assert found.n == 2_000


def test_spearman_interval_widens_where_pairs_share_anchors():
    rng = np.random.default_rng(1)
    anchors = np.repeat(np.arange(50), 40)
    effect = rng.standard_normal(50)[anchors]
    cosine = effect + 0.1 * rng.standard_normal(2_000)
    depth = np.clip(np.round(2 + rng.standard_normal(50)[anchors]), 0, 4).astype(int)
    clustered = known(m.spearman(pairs(cosine, i=anchors), depth))
    apart = known(m.spearman(pairs(cosine), depth))
    assert clustered.high - clustered.low > 3 * (apart.high - apart.low)


@pytest.mark.parametrize(("cosine", "depth"), [([], []), ([0.1, 0.2, 0.3], [1, 1, 1]), ([0.5] * 3, [0, 1, 2])])
def test_spearman_of_nothing_is_none(cosine, depth):
    assert m.spearman(pairs(cosine), np.array(depth, int)) is None


def test_share_by_level_with_wilsons_interval():
    # Newcombe's worked figures for 8 of 10: .490 to .943.
    depth = np.array([1] * 8 + [0] * 2)
    first, second = map(known, m.share_by_level(pairs([0.95] * 10), depth, 2))
    assert (first.value, first.n) == (0.8, 10)
    assert (first.low, first.high) == (pytest.approx(0.490, abs=5e-4), pytest.approx(0.943, abs=5e-4))
    assert second.value == second.low == 0
    assert second.high == pytest.approx(0.278, abs=5e-4)


def test_share_interval_counts_anchors_not_pairs():
    depth = np.array([1] * 8 + [0] * 2)
    (shared,) = map(known, m.share_by_level(pairs([0.95] * 10, i=[0] * 5 + [1] * 5), depth, 1))
    (apart,) = map(known, m.share_by_level(pairs([0.95] * 10), depth, 1))
    assert shared.low < apart.low
    assert shared.high > apart.high


def test_no_near_duplicates_give_none():
    hot = m.near_duplicates(pairs([0.2, 0.899]))
    assert m.share_by_level(hot, np.zeros(0, int), 4) == [None] * 4


def test_neighbour_overlap_by_hand():
    # Product 1 shares a level with 0, products 2 to 4 none: of two places one goes to 1 and the other to one
    # of three, so the expectation is (1 + 1/3) / 2.
    prefix = m.prefix_ids(np.array([[0, 0], [0, 1], [1, 0], [2, 0], [3, 0]]))
    near = Pairs("neighbour", np.array([0, 0]), np.array([1, 2]), f32([0.9, 0.8]))
    assert known(m.neighbour_overlap(prefix, near, 2)).value == pytest.approx(2 / 3)
    assert known(m.neighbour_overlap(prefix, near, 1)).value == 1
    assert m.neighbour_overlap(prefix, near, 3) is None


def test_neighbour_overlap_is_the_mean_over_random_tie_breaks():
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 3, (40, 3))
    prefix = m.prefix_ids(codes)
    j = np.stack([rng.permutation(np.delete(np.arange(40), a))[:6] for a in range(10)])
    near = Pairs("neighbour", np.repeat(np.arange(10), 6), j.ravel(), np.zeros(60, np.float32))
    draws = []
    for _ in range(400):
        for anchor in range(10):
            others = np.delete(np.arange(40), anchor)
            depth = m.shared_depth(prefix, np.full(39, anchor), others)
            ranked = others[np.lexsort((rng.random(39), -depth))][:6]
            draws.append(len(np.intersect1d(ranked, j[anchor])) / 6)
    assert known(m.neighbour_overlap(prefix, near, 6)).value == pytest.approx(np.mean(draws), abs=0.01)


@pytest.mark.parametrize(("groups", "classes", "n"), [(3, 4, 50), (40, 12, 500), (900, 7, 1_000), (2, 300, 400)])
def test_agreement_equals_sklearn(groups, classes, n):
    rng = np.random.default_rng(groups)
    b = rng.integers(0, classes, n)
    a = np.where(rng.random(n) < 0.5, b % groups, rng.integers(0, groups, n))
    found = m.agreement(a, b)
    assert found["ami"].value == pytest.approx(adjusted_mutual_info_score(a, b), abs=1e-9)
    assert found["nmi"] == pytest.approx(normalized_mutual_info_score(a, b), abs=1e-9)
    assert found["ami"].low == found["ami"].high == found["ami"].value


def test_agreement_ends():
    a = np.repeat(np.arange(5), 20)
    assert m.agreement(a, (a + 2) % 5)["ami"].value == pytest.approx(1)
    assert m.agreement(np.arange(9), np.arange(9))["ami"].value == 1
    alone = m.agreement(np.zeros(9, int), np.zeros(9, int))
    assert alone["ami"] is None
    assert alone["purity"].value == 1


def test_purity_by_hand():
    # Group 0 holds a, a, b; group 1 holds b: three of four are in their group's commonest.
    found = m.agreement(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]))
    assert found["purity"].value == 0.75


def test_sampled_agreement_interval_covers_the_full_figure():
    rng = np.random.default_rng(4)
    # Uneven classes, so that each group has one clear majority.
    b = rng.choice(20, 20_000, p=np.tile([0.07, 0.03], 10))
    a = np.where(rng.random(20_000) < 0.6, b // 2, rng.integers(0, 10, 20_000))
    full = m.agreement(a, b)
    covered = {"ami": 0, "purity": 0}
    for _ in range(60):
        rows = rng.choice(20_000, 2_000, replace=False)
        part = m.agreement(a[rows], b[rows], population=20_000)
        for key in covered:
            covered[key] += part[key].low <= full[key].value <= part[key].high
    # 95 % of 60 are 57; fewer than 52 would be a wrong interval and not bad luck.
    assert min(covered.values()) >= 52, covered


def test_tree_labels_of_uneven_paths():
    labels, paths = m.tree_labels([("b", "x"), ("a",), None, ("b", "y"), ()])
    assert labels.tolist() == [[1, 1], [0, 0], [-1, -1], [1, 2], [-1, -1]]
    assert paths == [[("a",), ("b",)], [("a",), ("b", "x"), ("b", "y")]]


def test_taxonomy_agreement_leaves_out_the_uncategorised_and_names_its_levels():
    labels, _ = m.tree_labels([("a", "x"), ("a", "y"), ("b", "z"), None])
    prefix = m.prefix_ids(np.array([[0, 0], [0, 1], [1, 0], [0, 0]]))
    rows = m.taxonomy_agreement(prefix, labels)
    assert [(row["prefix_level"], row["tree_level"]) for row in rows] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert all(row["n"] == 3 for row in rows)
    assert rows[0]["ami"].value == pytest.approx(1)
    assert m.taxonomy_agreement(prefix, m.tree_labels([None] * 4)[0]) == []


def test_fragmentation_by_hand():
    # Leaf x: three products under one prefix and one under another; leaf y: two under one.
    leaves = np.array([0, 0, 0, 0, 1, 1, -1])
    prefix = np.array([[0], [0], [0], [1], [2], [2], [3]])
    found = m.fragmentation(prefix, leaves, [("x",), ("y",)], levels=(1,))
    assert (found["items"], found["leaves"]) == (6, 2)
    (level,) = found["levels"]
    effective = np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert level["prefixes_per_leaf"] == 1.5
    assert level["prefixes_weighted"] == pytest.approx((4 * 2 + 2 * 1) / 6)
    assert level["effective_weighted"].value == pytest.approx((4 * effective + 2) / 6)
    assert level["outside_main"] == pytest.approx(1 / 6)
    assert level["worst"][0] == {
        "leaf": ["x"],
        "items": 4,
        "prefixes": 2,
        "effective": pytest.approx(effective),
        "outside_main": 0.25,
    }


def test_error_propagation_by_hand():
    categories = [("food", "tea")] * 4 + [("home", "soap"), ("food", "jam"), None, ("home", "mop")]
    labels, paths = m.tree_labels(categories)
    # The first seven share a prefix; the last is alone.
    codes = np.array([[0, 0, row] for row in range(7)] + [[1, 0, 0]])
    ids = [f"p{row}" for row in range(8)]
    texts = [f"text {row}" for row in range(8)]
    found = m.error_propagation(m.prefix_ids(codes), labels, paths, texts, ids, codes)
    assert found["items"] == 6
    # Soap stands among food; jam is food too, but stands among tea at the leaf.
    assert [(row["tree_level"], row["items"]) for row in found["levels"]] == [(1, 1), (2, 2)]
    assert [row["share"].value for row in found["levels"]] == [pytest.approx(1 / 6), pytest.approx(2 / 6)]
    assert [entry["product_id"] for entry in found["worst"]] == ["p4", "p5"]
    assert found["worst"][0] == {
        "product_id": "p4",
        "text": "text 4",
        "sid": "0_0_4",
        "category": ["home", "soap"],
        "majority": ["food"],
        "majority_items": 5,
        "other_items": 5,
        "tree_level": 1,
    }


def test_no_majority_is_no_disagreement():
    labels, paths = m.tree_labels([("a",), ("b",), ("c",), ("d",)])
    codes = np.zeros((4, 2), int)
    found = m.error_propagation(m.prefix_ids(codes), labels, paths, ["t"] * 4, list("wxyz"), codes)
    assert found["levels"][0]["items"] == 0


def test_products_without_company_cannot_disagree():
    labels, paths = m.tree_labels([("a",), ("b",)])
    codes = np.array([[0, 0], [1, 0]])
    found = m.error_propagation(m.prefix_ids(codes), labels, paths, ["s", "t"], ["p", "q"], codes)
    assert found["levels"] == [{"tree_level": 1, "items": 0, "share": None}]
