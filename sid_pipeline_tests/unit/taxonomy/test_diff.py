"""What changed between two trees: by hand, by property, and on real trees with planted edits."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sid_pipeline.settings import TaxonomyColumns
from sid_pipeline.taxonomy.diff import MAJOR, MINOR, TaxonomyDiff, apply, diff, former_paths, touched
from sid_pipeline.taxonomy.matching import inherit_ids
from sid_pipeline.taxonomy.sources import read_taxonomy
from sid_pipeline.taxonomy.tree import Taxonomy
from sid_pipeline.taxonomy.wording import to_dict

SHARED = Path(os.environ.get("SID_SHARED", Path(__file__).parents[3].parent / "shared")) / "data"

EDGES = [
    ("1", None, "Food"), ("2", "1", "Dairy"), ("3", "2", "Milk"), ("4", "2", "Cheese"), ("5", "1", "Bakery"),
    ("6", "5", "Bread"), ("7", "5", "Cakes"), ("8", None, "Home"), ("9", "8", "Lamps"), ("10", "8", "Candles"),
]  # fmt: skip


def edges(**changes: tuple[str | None, str] | None) -> Taxonomy:
    """EDGES with some nodes (n3 for 3) changed, taken out (None) or added."""
    rows = {node_id: (parent, name) for node_id, parent, name in EDGES}
    for key, value in changes.items():
        if value is None:
            del rows[key[1:]]
        else:
            rows[key[1:]] = value
    return Taxonomy.from_edges((node_id, parent, name) for node_id, (parent, name) in rows.items())


def paths(*texts: str) -> Taxonomy:
    return Taxonomy.from_paths([text.split(" > ") for text in texts])


def told(old: Taxonomy, new: Taxonomy, products=None) -> dict[str, list[str]]:
    """The lists of a diff, each change in one short text."""
    changes = diff(old, new, products)
    assert apply(changes, old) == new
    found = to_dict(changes, old, new, touched(changes, old, new, products), 0.01)
    short: dict[str, list[str]] = {}
    for kind in ("added", "removed", "renamed", "moved"):
        short[kind] = [" > ".join(row["path"]) for row in found[kind]]
    short["split"] = [f"{g['from']['name']} -> {', '.join(p['name'] for p in g['into'])}" for g in found["split"]]
    short["merged"] = [f"{', '.join(p['name'] for p in g['from'])} -> {g['into']['name']}" for g in found["merged"]]
    return {kind: changed for kind, changed in short.items() if changed}


def listing(**counts: int):
    """Products by path: words joined by '__'; both paths are equal, as in one catalogue."""
    pairs = ((tuple(key.split("__")), count) for key, count in counts.items())
    return {(path, path): count for path, count in pairs}


OLD = edges()


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        (edges(), {}),
        (edges(n3=("2", "Fresh milk")), {"renamed": ["Food > Dairy > Fresh milk"]}),
        (edges(n2=("1", "Chilled")), {"renamed": ["Food > Chilled"]}),
        (edges(n3=("2", "MILK")), {"renamed": ["Food > Dairy > MILK"]}),
        (edges(n10=("5", "Candles")), {"moved": ["Food > Bakery > Candles"]}),
        (edges(n5=(None, "Bakery")), {"moved": ["Bakery"]}),
        (
            edges(n9=("5", "Wall lamps")),
            {"renamed": ["Food > Bakery > Wall lamps"], "moved": ["Food > Bakery > Wall lamps"]},
        ),
        (edges(n11=("2", "Butter")), {"added": ["Food > Dairy > Butter"]}),
        (edges(n7=None), {"removed": ["Food > Bakery > Cakes"]}),
        (
            edges(n6=None, n11=("5", "White bread"), n12=("5", "Rye bread")),
            {"split": ["Bread -> Rye bread, White bread"]},
        ),
        (
            edges(n3=None, n4=None, n11=("2", "Milk & cheese")),
            {"merged": ["Cheese, Milk -> Milk & cheese"]},
        ),
    ],
)  # fmt: skip
def test_changes_of_a_tree_with_ids(new: Taxonomy, expected: dict[str, list[str]]) -> None:
    assert told(OLD, new) == expected


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        # Children say that it is the same node, however deep the names below it change their paths.
        (["A > B > x", "A > B > y", "C"], ["A > D > x", "A > D > y", "C"], {"renamed": ["A > D"]}),
        (["A > B > x", "A > C > y"], ["Z > B > x", "Z > C > y"], {"renamed": ["Z"]}),
        (["A > B > x", "A > B > y", "A > B > z"], ["A > D > x", "A > D > p", "A > D > q"],
         {"added": ["A > D", "A > D > p", "A > D > q"], "removed": ["A > B", "A > B > y", "A > B > z"],
          "moved": ["A > D > x"]}),
        # The only node of its name moved; two of one name could be either.
        (["A > x", "B > y"], ["A > x", "A > y", "B"], {"moved": ["A > y"]}),
        (["A > x", "B > y", "C > y"], ["A > x", "A > y", "B", "C"],
         {"added": ["A > y"], "removed": ["B > y", "C > y"]}),
        # A leaf whose words live on in exactly one new sibling.
        (["A > Grilling cheese", "A > z"], ["A > Halloumi & grilling cheese", "A > z"],
         {"renamed": ["A > Halloumi & grilling cheese"]}),
        (["A > Tea", "A > z"], ["A > Soap", "A > z"], {"added": ["A > Soap"], "removed": ["A > Tea"]}),
        (["A > Tea & coffee"], ["A > Tea", "A > Coffee"], {"split": ["Tea & coffee -> Coffee, Tea"]}),
        (["A > Ground coffee", "A > Bean coffee"], ["A > Coffee"],
         {"merged": ["Bean coffee, Ground coffee -> Coffee"]}),
        # Children divided between two new nodes.
        (["A > B > w", "A > B > x", "A > B > y", "A > B > z"], ["A > C > w", "A > C > x", "A > D > y", "A > D > z"],
         {"moved": ["A > C > w", "A > C > x", "A > D > y", "A > D > z"], "split": ["B -> C, D"]}),
        # A level put in between.
        (["A > x", "A > y"], ["A > M > x", "A > M > y"], {"added": ["A > M"], "moved": ["A > M > x", "A > M > y"]}),
    ],
)  # fmt: skip
def test_changes_of_a_tree_without_ids(old: list[str], new: list[str], expected: dict[str, list[str]]) -> None:
    assert told(paths(*old), paths(*new)) == expected


def test_products_say_which_node_is_which() -> None:
    old, new = paths("A > Tea", "A > Soap", "A > Jam"), paths("A > Infusions", "A > Body", "A > Hand", "A > Jam")
    products = {
        (("A", "Tea"), ("A", "Infusions")): 9,
        (("A", "Tea"), ("A", "Jam")): 1,
        (("A", "Soap"), ("A", "Body")): 5,
        (("A", "Soap"), ("A", "Hand")): 5,
        (("A", "Jam"), ("A", "Jam")): 5,
    }
    assert told(old, new, products) == {"renamed": ["A > Infusions"], "split": ["Soap -> Body, Hand"]}
    back = {(after, before): count for (before, after), count in products.items()}
    assert told(new, old, back) == {"renamed": ["A > Tea"], "merged": ["Body, Hand -> Soap"]}


def test_a_split_whose_first_part_keeps_the_node() -> None:
    products = {(("Home", "Lamps"), ("Home", "Lamps")): 8, (("Home", "Lamps"), ("Home", "Torches")): 2}
    assert told(OLD, edges(n11=("8", "Torches")), products) == {"split": ["Lamps -> Lamps, Torches"]}


@pytest.mark.parametrize(
    ("chocolate", "expected"),
    [
        (60, {"split": ["Sweets -> Candy, Chocolate"]}),
        (95, {"renamed": ["A > Chocolate"], "split": ["Sweets -> Candy, Chocolate"]}),
    ],
)
def test_a_split_leaf_has_an_heir_only_where_nearly_all_went(chocolate: int, expected: dict[str, list[str]]) -> None:
    old, new = paths("A > Sweets", "A > Jam"), paths("A > Chocolate", "A > Candy", "A > Jam")
    products = {
        (("A", "Sweets"), ("A", "Chocolate")): chocolate,
        (("A", "Sweets"), ("A", "Candy")): 100 - chocolate,
        (("A", "Jam"), ("A", "Jam")): 100,
    }
    assert told(old, new, products) == expected
    reach = touched(diff(old, new, products), old, new, products)
    assert reach.count == (100 if chocolate == 60 else 5)
    # Read backwards it is a merge.
    back = {(after, before): count for (before, after), count in products.items()}
    merged = {"merged": ["Candy, Chocolate -> Sweets"]}
    assert told(new, old, back) == merged | ({"renamed": ["A > Sweets"]} if chocolate == 95 else {})


def test_two_ids_of_one_source_are_two_nodes() -> None:
    """Whatever products or names suggest: the source says that 3 is gone and 11 is new."""
    products = {(("Food", "Dairy", "Milk"), ("Food", "Dairy", "Fresh milk")): 9}
    found = told(OLD, edges(n3=None, n11=("2", "Fresh milk")), products)
    assert found == {"added": ["Food > Dairy > Fresh milk"], "removed": ["Food > Dairy > Milk"]}


def test_sources_of_other_ids_are_matched_by_place() -> None:
    other = Taxonomy.from_edges((f"x{i}", p and f"x{p}", n) for i, p, n in EDGES)
    changes = diff(OLD, other)
    assert (changes.added, changes.removed, len(changes.renumbered)) == ((), (), len(EDGES))
    assert apply(changes, OLD) == other


# ------------------------------------------------------------------ ids


def test_an_id_lives_through_a_rename_and_is_not_given_again() -> None:
    first = paths("A > B > x", "A > B > y")
    b = first.find(["A", "B"])
    assert b is not None
    second = _next(first, paths("A > C > x", "A > C > y"))
    renamed = second.find(["A", "C"])
    assert renamed is not None and renamed.node_id == b.node_id
    x = second.find(["A", "C", "x"])
    before = first.find(["A", "B", "x"])
    assert x is not None and before is not None and x.node_id == before.node_id
    assert x.parent_id == b.node_id
    # A new B comes: its path once made the id that C lives under.
    third = _next(second, paths("A > C > x", "A > C > y", "A > B"))
    fresh = third.find(["A", "B"])
    assert fresh is not None and fresh.node_id not in {node.node_id for node in second.nodes}
    assert third.find(["A", "C"]) == renamed
    # The same source again gives the same ids.
    again = _next(third, paths("A > C > x", "A > C > y", "A > B"))
    assert again == third


def _next(old: Taxonomy, new: Taxonomy) -> Taxonomy:
    stored = Taxonomy.from_edges((n.node_id, n.parent_id, n.name) for n in old.nodes)
    return inherit_ids(stored, new, diff(stored, new).matching)


# ------------------------------------------------------------------ what is touched


@pytest.mark.parametrize(
    ("new", "share", "kind"),
    [
        (edges(n3=("2", "Fresh milk")), 0, MINOR),
        (edges(n11=("2", "Butter")), 0, MINOR),
        (edges(n10=("5", "Candles")), 1 / 10, MAJOR),
        (edges(n8=("1", "Home")), 3 / 10, MAJOR),
        (edges(n7=None), 1 / 10, MAJOR),
        (edges(n11=(None, "Pets"), n12=("11", "Cats")), 2 / 12, MAJOR),
        (edges(n6=None, n11=("5", "White bread"), n12=("5", "Rye bread")), 3 / 12, MAJOR),
    ],
)
def test_the_share_of_nodes(new: Taxonomy, share: float, kind: str) -> None:
    reach = touched(diff(OLD, new), OLD, new)
    assert (reach.by, reach.share, reach.change_class(0.01)) == ("nodes", pytest.approx(share), kind)


def test_the_share_of_products_per_level() -> None:
    """The catalogue still names the old tree: its products go where their node went."""
    products = listing(Food__Dairy__Milk=50, Food__Bakery__Bread=20, Home__Lamps=20, Home__Candles=9, Nowhere=7)
    products[None, None] = 5
    new = edges(n10=("5", "Candles"), n2=("1", "Chilled"), n6=None, n11=("5", "White bread"), n12=("5", "Rye bread"))
    reach = touched(diff(OLD, new, products), OLD, new, products)
    # Candles left Home on every level; Bread ends at Bakery; Milk is only called otherwise; two have no category.
    assert (reach.by, reach.count, reach.of) == ("products", 29, 99)
    assert reach.per_level == pytest.approx((9 / 99, 9 / 99, 29 / 99))
    assert (reach.old_products["8"], reach.old_products["5"]) == (29, 20)
    assert (reach.new_products["8"], reach.new_products["5"]) == (20, 29)


def test_a_catalogue_ahead_of_the_tree_is_carried_back() -> None:
    products = listing(Food__Chilled__Milk=5, Food__Bakery__Candles=5)
    new = edges(n2=("1", "Chilled"), n10=("5", "Candles"))
    reach = touched(diff(OLD, new, products), OLD, new, products)
    assert (reach.count, reach.of) == (5, 10)


def test_no_known_product_falls_back_to_nodes() -> None:
    new = edges(n10=("5", "Candles"))
    assert touched(diff(OLD, new), OLD, new, listing(Nowhere=3)).by == "nodes"


def test_former_paths_lead_to_the_node_of_today() -> None:
    new = edges(n2=("1", "Chilled"), n10=("5", "Candles"), n3=None, n4=None, n11=("2", "Milk & cheese"))
    former = former_paths(diff(OLD, new), OLD, new)
    today = Taxonomy(new.nodes, former=former)
    for path, node_id in [("Food > Dairy > Milk", "11"), ("food > dairy", "2"), ("Home > Candles", "10")]:
        node = today.find(path.split(" > "))
        assert node is not None and node.node_id == node_id
    assert today.nodes[today.locate(["Food", "Dairy", "Butter"])[0]].node_id == "2"
    # And over two changes.
    last = edges(n2=("1", "Cold"), n10=("5", "Candles"), n3=None, n4=None, n11=("2", "Milk & cheese"))
    former = former_paths(diff(today, last), today, last)
    assert former["food", "dairy", "milk"] == "11" and former["food", "chilled"] == "2"


# ------------------------------------------------------------------ properties

names = st.sampled_from(["Tea", "Green tea", "Jam", "Soap", "Lamps", "tea", "Tea & jam"])
tree_paths = st.lists(st.lists(names, min_size=1, max_size=4).map(tuple), min_size=1, max_size=14)


@st.composite
def forests(draw, ids: str = "abcdefghij") -> Taxonomy:
    """Trees with ids of a source: parents come before their children, names repeat."""
    rows: list[tuple[str, str | None, str]] = []
    for node_id in draw(st.lists(st.sampled_from(ids), min_size=1, max_size=len(ids), unique=True)):
        parent = draw(st.sampled_from([None, *(row[0] for row in rows)]))
        rows.append((node_id, parent, draw(names)))
    return Taxonomy.from_edges(rows)


any_tree = st.one_of(tree_paths.map(Taxonomy.from_paths), forests(), forests("abcdklmno"))


def nodes_of(changes: TaxonomyDiff) -> tuple[Sequence[object], ...]:
    """All that a diff says of single nodes, names and ids included."""
    return changes.added, changes.removed, changes.renamed, changes.moved, changes.renumbered


@settings(max_examples=150, deadline=None)
@given(any_tree)
def test_a_tree_does_not_differ_from_itself(tree: Taxonomy) -> None:
    changes = diff(tree, tree)
    assert not any((*nodes_of(changes), changes.split, changes.merged))
    assert touched(changes, tree, tree).count == 0


@settings(max_examples=400, deadline=None)
@given(any_tree, any_tree, st.data())
def test_applying_a_diff_gives_the_other_tree(a: Taxonomy, b: Taxonomy, data: st.DataObject) -> None:
    pairs = st.tuples(st.sampled_from([n.path for n in a.nodes]), st.sampled_from([n.path for n in b.nodes]))
    products = Counter(data.draw(st.lists(pairs, max_size=12)))
    changes = diff(a, b, products)
    made = apply(changes, a)
    assert made.nodes == b.nodes and made.revision == b.revision
    matched = [n for n in changes.matching.new_of if n >= 0]
    assert len(matched) == len(set(matched)), "no node becomes two"
    reach = touched(changes, a, b, products)
    assert 0 <= reach.count <= reach.of
    for group in (*changes.split, *changes.merged):
        assert len(group.old) + len(group.new) >= 3
    inherited = inherit_ids(a, b, changes.matching)
    assert [n.path for n in inherited.nodes] == [n.path for n in b.nodes]
    assert len({n.node_id for n in inherited.nodes}) == len(b.nodes)


# ------------------------------------------------------------------ real trees

REAL = {
    "google_taxonomy/taxonomy": TaxonomyColumns(),
    "instacart/products": TaxonomyColumns(levels=["department", "aisle"]),
    "bigbasket/products": TaxonomyColumns(levels=["category", "sub_category", "type"]),
    "amazon_toys/products": TaxonomyColumns(path="category_path"),
}


@pytest.mark.skipif(not SHARED.exists(), reason="shared data is not at hand")
@pytest.mark.parametrize("file", REAL)
def test_planted_edits_of_real_trees_are_found(file: str) -> None:
    old = read_taxonomy(str(SHARED / f"{file}.parquet"), columns=REAL[file])
    assert not any(nodes_of(diff(old, old)))
    rng = random.Random(5)
    unique = Counter(node.name for node in old.nodes)
    leaves = [n for n in old.nodes if n.leaf and n.depth > 1 and unique[n.name] == 1]
    inner = [n for n in old.nodes if not n.leaf]
    gone, moved = rng.sample(leaves, 2)
    renamed = rng.choice([n for n in inner if sum(c.parent_id == n.node_id for c in old.nodes) > 2])
    target = rng.choice([n for n in inner if n.node_id not in (moved.parent_id, renamed.node_id)])
    edited = []
    for node in old.nodes:
        if node is gone:
            continue
        parent = target.node_id if node is moved else node.parent_id
        edited.append((node.node_id, parent, "Something else" if node is renamed else node.name))
    edited.append(("new", renamed.node_id, "A new leaf"))
    new = Taxonomy.from_edges(edited)
    rebuilt = Taxonomy.from_paths([n.path for n in new.nodes])
    source = old if not old.derived else Taxonomy.from_paths([n.path for n in old.nodes])
    for before, after in ((old, new), (source, rebuilt)):
        changes = diff(before, after)
        assert apply(changes, before) == after
        assert [p.old.path for p in changes.renamed] == [renamed.path]
        assert [p.old.path for p in changes.moved] == [moved.path]
        assert [n.path for n in changes.removed] == [gone.path]
        assert [n.name for n in changes.added] == ["A new leaf"]
