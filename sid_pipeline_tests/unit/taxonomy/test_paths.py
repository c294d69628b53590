"""Products in the tree: matrix and distances, against a tree written by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sid_pipeline.rqvae.tree import FURTHER, UNRELATED, distance, grade_pairs, shared_depth
from sid_pipeline.taxonomy.paths import path_matrix
from sid_pipeline.taxonomy.tree import Taxonomy

# Level 1: Food 0, Home 1.  Level 2: Bakery 0, Dairy 1, Lamps 2.  Level 3: Cheese 0, Milk 1.
TREE = Taxonomy.from_paths(
    [("Food", "Dairy", "Milk"), ("Food", "Dairy", "Cheese"), ("Food", "Bakery"), ("Home", "Lamps")]
)
MILK, CHEESE, DAIRY, BAKERY, LAMPS, NONE = (
    [0, 1, 1],
    [0, 1, 0],
    [0, 1, -1],
    [0, 0, -1],
    [1, 2, -1],
    [-1, -1, -1],
)


def test_each_product_stands_at_the_deepest_known_node_of_its_path() -> None:
    paths: list[Sequence[str] | None] = [
        ("Food", "Dairy", "Milk"),
        ["food", "DAIRY", "Cheese"],
        ("Food", "Bakery"),
        ("Home", "Lamps", "Floor lamps"),
        ("Garden", "Lamps"),
        None,
        [],
    ]
    matrix = path_matrix(TREE, paths)
    assert matrix.tolist() == [MILK, CHEESE, BAKERY, LAMPS, NONE, NONE, NONE]
    assert matrix.dtype == np.int32


def test_shape_does_not_depend_on_the_products() -> None:
    assert path_matrix(TREE, []).shape == (0, 3)
    assert path_matrix(TREE, [None, ("Home",)]).tolist() == [NONE, [1, -1, -1]]


@pytest.mark.parametrize(
    ("a", "b", "apart", "shared"),
    [
        (MILK, MILK, 0, 3),
        (MILK, CHEESE, 1, 2),
        (MILK, DAIRY, 1, 2),
        (MILK, BAKERY, 2, 1),
        (DAIRY, BAKERY, 1, 1),
        (MILK, LAMPS, 3, 0),
        (BAKERY, LAMPS, 2, 0),
        (MILK, NONE, 3, 0),
        (NONE, NONE, 0, 0),
    ],
)
def test_distance_by_hand(a: list[int], b: list[int], apart: int, shared: int) -> None:
    x, y = np.array(a), np.array(b)
    assert (distance(x, y), distance(y, x), shared_depth(x, y)) == (apart, apart, shared)


def test_equal_numbers_below_different_ancestors_are_not_shared() -> None:
    assert shared_depth(np.array([0, 5, 7]), np.array([1, 5, 7])) == 0


def test_all_pairs_at_once_in_numpy_and_torch() -> None:
    torch = pytest.importorskip("torch")
    rows = np.array([MILK, CHEESE, LAMPS])
    expected = [[0, 1, 3], [1, 0, 3], [3, 3, 0]]
    assert distance(rows[:, None], rows[None]).tolist() == expected
    tensor = torch.from_numpy(rows)
    assert distance(tensor[:, None], tensor[None]).tolist() == expected


def test_the_loss_goes_by_this_distance() -> None:
    rows = np.array([MILK, CHEESE, DAIRY, BAKERY, LAMPS])
    apart, shared = distance(rows[:, None], rows[None]), shared_depth(rows[:, None], rows[None])
    expected = np.where(shared == 0, UNRELATED, np.minimum(apart, FURTHER))
    assert np.array_equal(grade_pairs(rows[:, None], rows[None]), expected)


steps = st.lists(st.sampled_from("abc"), max_size=4).map(tuple)


@settings(max_examples=200, deadline=None)
@given(st.lists(steps.filter(bool), min_size=1, max_size=12), steps, steps, steps)
def test_distance_is_a_metric_that_obeys_the_tree(
    tree: list[tuple[str, ...]], a: tuple[str, ...], b: tuple[str, ...], c: tuple[str, ...]
) -> None:
    taxonomy = Taxonomy.from_paths([*tree, *(path for path in (a, b, c) if path)])
    x, y, z = path_matrix(taxonomy, [a, b, c])
    common = next((i for i, (p, q) in enumerate(zip(a, b, strict=False)) if p != q), min(len(a), len(b)))
    assert shared_depth(x, y) == common
    assert distance(x, y) == distance(y, x) == max(len(a), len(b)) - common
    assert (distance(x, y) == 0) == (a == b)
    assert distance(x, z) <= distance(x, y) + distance(y, z)
