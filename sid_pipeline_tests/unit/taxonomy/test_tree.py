"""The tree and its checks, against trees written by hand."""

from __future__ import annotations

import random

import pytest

from sid_pipeline.taxonomy.tree import MAX_DEPTH, Taxonomy, normalise_step

Edge = tuple[str, str | None, str]

FOOD: list[Edge] = [("1", None, "Food"), ("2", "1", "Dairy"), ("3", "2", "Milk"), ("4", "1", "Bakery")]


def problems(taxonomy: Taxonomy) -> list[tuple[str, str]]:
    return sorted((problem.node_id, problem.rule) for problem in taxonomy.problems)


def names(taxonomy: Taxonomy) -> list[str]:
    return [" > ".join(node.path) for node in taxonomy.nodes]


def test_nodes_of_a_clean_tree() -> None:
    tree = Taxonomy.from_edges(FOOD)
    assert [(n.node_id, n.parent_id, n.path, n.depth, n.leaf) for n in tree.nodes] == [
        ("1", None, ("Food",), 1, False),
        ("4", "1", ("Food", "Bakery"), 2, True),
        ("2", "1", ("Food", "Dairy"), 2, False),
        ("3", "2", ("Food", "Dairy", "Milk"), 3, True),
    ]
    assert (tree.problems, tree.bad_share, tree.depth) == ((), 0.0, 3)


def test_rows_come_in_any_order_and_blank_parents_are_roots() -> None:
    tree = Taxonomy.from_edges([(i, p or " ", f" {n} ") for i, p, n in reversed(FOOD)])
    assert tree == Taxonomy.from_edges(FOOD)
    assert tree.revision == Taxonomy.from_edges(FOOD).revision


@pytest.mark.parametrize(
    "changed",
    [
        [*FOOD[:3], ("4", "1", "Breads")],
        [*FOOD[:3], ("4", "2", "Bakery")],
        [*FOOD[:3], ("5", "1", "Bakery")],
        FOOD[:3],
    ],
)
def test_revision_changes_with_name_parent_id_and_nodes(changed: list[Edge]) -> None:
    assert Taxonomy.from_edges(changed).revision != Taxonomy.from_edges(FOOD).revision


def test_cycle_is_left_out_with_what_hangs_on_it() -> None:
    tree = Taxonomy.from_edges([*FOOD, ("a", "b", "A"), ("b", "a", "B"), ("c", "b", "C"), ("d", "d", "D")])
    assert names(tree) == names(Taxonomy.from_edges(FOOD))
    assert problems(tree) == [("a", "cycle"), ("b", "cycle"), ("c", "parent_left_out"), ("d", "cycle")]
    assert "(a > b > a)" in tree.problems[0].message
    assert tree.bad_share == 0.5


def test_missing_parent_is_left_out_with_its_descendants() -> None:
    tree = Taxonomy.from_edges([*FOOD, ("6", "5", "Cups"), ("7", "9", "Home"), ("5", "7", "Kitchen")])
    assert len(tree.nodes) == 4
    assert problems(tree) == [("5", "parent_left_out"), ("6", "parent_left_out"), ("7", "missing_parent")]
    assert any("node 7 ('Home') has the parent 9, which is no node" in p.message for p in tree.problems)


@pytest.mark.parametrize("name", ["", "  ", "\t"])
def test_blank_name_is_left_out_with_its_descendants(name: str) -> None:
    tree = Taxonomy.from_edges([*FOOD, ("5", "1", name), ("6", "5", "Deli")])
    assert len(tree.nodes) == 4
    assert problems(tree) == [("5", "blank_name"), ("6", "parent_left_out")]


def test_missing_id() -> None:
    assert problems(Taxonomy.from_edges([*FOOD, (" ", "1", "Deli")])) == [("", "missing_id")]


def test_two_parents_stay_under_the_first() -> None:
    tree = Taxonomy.from_edges([*FOOD, ("3", "4", "Milk"), ("3", "2", "Milk")])
    assert tree.nodes == Taxonomy.from_edges(FOOD).nodes
    assert problems(tree) == [("3", "two_parents")]
    assert "has the parents '2' and '4': it stays under '2'" in tree.problems[0].message


def test_two_names_keep_the_first() -> None:
    tree = Taxonomy.from_edges([*FOOD, ("3", "2", "Milch")])
    assert tree.nodes == Taxonomy.from_edges(FOOD).nodes
    assert problems(tree) == [("3", "two_names")]


@pytest.mark.parametrize(
    ("name", "rule"), [("Dairy", "duplicate_name"), ("DAÍRY", "name_variant"), (" dairy", "name_variant")]
)
def test_one_name_twice_under_a_parent_is_one_node(name: str, rule: str) -> None:
    tree = Taxonomy.from_edges([*FOOD, ("5", "1", name), ("6", "5", "Cheese"), ("7", "5", "Milk")])
    assert names(tree) == [
        "Food",
        "Food > Bakery",
        "Food > Dairy",
        "Food > Dairy > Cheese",
        "Food > Dairy > Milk",
    ]
    assert problems(tree) == [("5", rule), ("7", "duplicate_name")]
    cheese = tree.find(["Food", "Dairy", "Cheese"])
    assert cheese is not None and (cheese.node_id, cheese.parent_id) == ("6", "2")


def test_one_name_under_two_parents_is_two_nodes() -> None:
    tree = Taxonomy.from_edges([*FOOD, ("5", "4", "Milk")])
    assert (len(tree.nodes), tree.problems) == (5, ())


def test_a_chain_without_end_is_cut() -> None:
    tree = Taxonomy.from_edges([(str(i), str(i - 1) if i else None, f"level {i}") for i in range(2000)])
    assert tree.depth == len(tree.nodes) == MAX_DEPTH
    assert [p.rule for p in tree.problems].count("too_deep") == 1
    assert [p.rule for p in tree.problems].count("parent_left_out") == 2000 - MAX_DEPTH - 1
    long = Taxonomy.from_paths([[f"level {i}" for i in range(2000)]])
    assert len(long.nodes) == MAX_DEPTH
    assert [p.rule for p in long.problems] == ["too_deep"]


def test_a_tree_without_any_good_node() -> None:
    tree = Taxonomy.from_edges([("a", "a", "A")])
    assert (tree.nodes, tree.depth, tree.bad_share) == ((), 0, 1.0)


PATHS = [("Food", "Dairy", "Milk"), ("Food", "Bakery")]


def test_paths_make_a_node_of_every_beginning() -> None:
    tree = Taxonomy.from_paths(PATHS)
    assert [(n.path, n.leaf) for n in tree.nodes] == [
        (("Food",), False),
        (("Food", "Bakery"), True),
        (("Food", "Dairy"), False),
        (("Food", "Dairy", "Milk"), True),
    ]
    by_id = {n.node_id: n for n in tree.nodes}
    assert [n.parent_id and by_id[n.parent_id].path for n in tree.nodes] == [
        None,
        *(n.path[:-1] for n in tree.nodes[1:]),
    ]


def test_ids_from_paths_do_not_depend_on_the_rest_of_the_tree() -> None:
    small, large = Taxonomy.from_paths(PATHS), Taxonomy.from_paths([("Art",), ("food", "Tea"), *PATHS])
    assert {n.node_id for n in small.nodes} < {n.node_id for n in large.nodes}


def test_spellings_of_a_path_are_one_node_named_by_the_commonest() -> None:
    paths = [("Food", "Café"), ("food", "CAFE"), ("Food", " Café ")]
    trees = [Taxonomy.from_paths(order) for order in (paths, paths[::-1], paths[1:] + paths[:1])]
    assert names(trees[0]) == ["Food", "Food > Café"]
    assert {tree.revision for tree in trees} == {trees[0].revision}
    assert [(p.rule, p.message) for p in trees[0].problems] == [
        ("name_variant", "'Food' is also written 'food': they are one node; write them alike."),
        ("name_variant", "'Food > Café' is also written 'CAFE': they are one node; write them alike."),
    ]
    assert trees[0].bad_share == 0.0


def test_a_blank_step_ends_its_path() -> None:
    tree = Taxonomy.from_paths([("Food", " ", "Milk"), ("",), ("Food", "Tea")])
    assert names(tree) == ["Food", "Food > Tea"]
    assert [p.rule for p in tree.problems] == ["blank_name", "blank_name"]
    assert "'Food >  > Milk' has a blank step" in tree.problems[0].message


def test_ids_of_the_source_are_kept() -> None:
    tree = Taxonomy.from_paths([("A",), ("A", "B"), ("C", "D"), ("A", "B")], ["1", "2", "1", "9"])
    ids = {" > ".join(n.path): n.node_id for n in tree.nodes}
    assert (ids["A"], ids["A > B"]) == ("1", "2")
    assert ids["C > D"] == next(n.node_id for n in Taxonomy.from_paths([("C", "D")]).nodes if n.depth == 2)
    assert problems(tree) == [("1", "duplicate_id"), ("9", "two_ids")]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Straße", "STRASSE"),
        ("Crème  brûlée", "creme brulee"),
        ("cafe\u0301", "Café"),
        ("\uff34\uff45\uff41", "tea"),
    ],
)
def test_spellings_that_are_one(one: str, other: str) -> None:
    assert normalise_step(one) == normalise_step(other)


@pytest.mark.parametrize(("one", "other"), [("は", "ば"), ("कि", "क"), ("Tea", "Teas"), ("C", "C++")])
def test_letters_that_differ_stay_apart(one: str, other: str) -> None:
    assert normalise_step(one) != normalise_step(other)


def test_find_and_locate() -> None:
    tree = Taxonomy.from_edges(FOOD)
    milk = tree.find(["FOOD", "dairy", "Mílk"])
    assert milk is not None and milk.node_id == "3"
    assert tree.find(["Food", "Dairy", "Milk", "Oat"]) is None
    assert tree.find([]) is None
    assert tree.nodes[tree.locate(["Food", "Dairy", "Oat", "Milk"])[0]].node_id == "2"
    assert tree.locate(["Drinks", "Milk"]) == (-1, 0)


def test_a_hundred_thousand_nodes_come_out_whole() -> None:
    rows = [(str(i), str(i // 7) if i >= 7 else None, f"name {i}") for i in range(1, 100_001)]
    random.Random(0).shuffle(rows)
    tree = Taxonomy.from_edges(rows)
    assert (len(tree.nodes), tree.problems) == (100_000, ())
