from __future__ import annotations

import numpy as np
import pytest

from sid_pipeline.rqvae.tree import FURTHER, SAME, SIBLING, UNRELATED, build_tree, grade_pairs


def grade(tree, i: int, j: int) -> int:
    return int(grade_pairs(tree.node[i], tree.node[j]))


def test_grades_follow_the_distance_in_the_tree() -> None:
    paths = [[0, 0, 0], [0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]]
    tree = build_tree(paths, 5)
    assert [grade(tree, 0, j) for j in (1, 2, 3, 4)] == [SAME, SIBLING, FURTHER, UNRELATED]


def test_equal_numbers_under_different_parents_are_different_categories() -> None:
    tree = build_tree(np.array([[0, 5], [1, 5]]), 2)
    assert tree.leaves == 2
    assert grade(tree, 0, 1) == UNRELATED


def test_ragged_paths_and_products_without_category() -> None:
    tree = build_tree([[0, 1, 2], [0, 1, None], [None, None, None], [0, 2, None]], 4)
    assert tree.length.tolist() == [3, 2, 0, 2]
    assert tree.leaf[2] == -1
    assert grade(tree, 0, 1) == SIBLING  # parent and child stand one step apart
    assert grade(tree, 1, 3) == SIBLING
    assert grade(tree, 0, 3) == FURTHER


def test_depth_one_knows_only_same_and_unrelated() -> None:
    tree = build_tree(np.array([3, 3, 4]), 3)
    assert [grade(tree, 0, j) for j in (1, 2)] == [SAME, UNRELATED]
    assert tree.leaf_parent.tolist() == [-1, -1]


def test_no_taxonomy() -> None:
    tree = build_tree(None, 3)
    assert tree.leaves == 0
    assert tree.leaf.tolist() == [-1, -1, -1]


def test_a_hole_in_a_path_is_named_by_row() -> None:
    with pytest.raises(ValueError, match=r"row 1 is \[0, -1, 3\]: a level is missing"):
        build_tree([[0, 1, 2], [0, None, 3]], 2)


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        (np.zeros((3, 2)), r"expected \(2, depth\)"),
        (np.array([["a"], ["b"]], dtype=object), "integers, -1 or None"),
        (np.array([[0.5], [1.0]]), "whole numbers"),
    ],
)
def test_unusable_paths_are_refused(paths: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build_tree(paths, 2)
