"""Previous + delta = current, whatever the tables and however they are cut."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sid_pipeline.publication import delta as deltas
from sid_pipeline.publication.folder import PublicationError
from sid_pipeline.publication.rows import aligned, strictly_ascending

IDS = st.text("aéz😀0", min_size=1, max_size=3)
ROW = st.tuples(st.sampled_from(["1_2", "3_4", None]), st.booleans())


def cut(table: pa.Table, pieces: int) -> list[pa.Table]:
    step = max(1, -(-len(table) // pieces))
    return [table.slice(start, step) for start in range(0, len(table), step)]


def products(rows: dict[str, tuple[str | None, bool]]) -> pa.Table:
    ids = sorted(rows, key=str.encode)
    return pa.table(
        {
            "product_id": ids,
            "sid": [rows[i][0] for i in ids],
            "change": ["text_changed"] * len(ids),
            "reason": [None if rows[i][0] else "no text" for i in ids],
            "withdrawn_on": ["2026-01-06" if rows[i][1] else None for i in ids],
        },
        schema=deltas.PRODUCTS,
    )


def current(rows: dict[str, tuple[str | None, bool]]) -> pa.Table:
    table = products(rows)
    return table.filter(deltas.has_sid(table)).select(deltas.SIDS.names)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(IDS, ROW), st.dictionaries(IDS, ROW), st.integers(1, 9), st.integers(1, 9))
def test_previous_and_delta_give_current_exactly(old, new, left, right):
    before, after = current(old), current(new)
    found = list(deltas.difference(cut(before, left), cut(products(new), right)))
    made = {row["product_id"]: row for table in found for row in table.to_pylist()}
    old_sids = dict(zip(*before.to_pydict().values(), strict=True))
    new_sids = dict(zip(*after.to_pydict().values(), strict=True))
    assert {p for p, row in made.items() if row["change"] == "added"} == new_sids.keys() - old_sids.keys()
    assert {p for p, row in made.items() if row["change"] == "withdrawn"} == old_sids.keys() - new_sids.keys()
    moved = {p for p in old_sids.keys() & new_sids.keys() if old_sids[p] != new_sids[p]}
    assert {p for p, row in made.items() if row["change"] == "moved"} == moved
    assert all(row["previous_sid"] == old_sids.get(p) and row["sid"] == new_sids.get(p) for p, row in made.items())
    assert all(row["reason"] for row in made.values())
    deltas.require_exact(cut(before, left), found, cut(after, right))


def test_reasons():
    old = {"a": ("1_2", False), "b": ("1_2", False), "c": ("1_2", False), "d": ("1_2", False)}
    new = {"a": ("3_4", False), "b": ("1_2", True), "c": (None, False)}
    table = pa.concat_tables(deltas.difference([current(old)], [products(new)]))
    reasons = dict(zip(table["product_id"].to_pylist(), table["reason"].to_pylist(), strict=True))
    assert reasons == {
        "a": "text_changed", "b": "withdrawn on 2026-01-06", "c": "no text", "d": "no longer in the catalogue"
    }  # fmt: skip


def test_a_delta_that_does_not_fit_is_refused():
    before, after = current({"a": ("1_2", False)}), current({"a": ("3_4", False)})
    with pytest.raises(PublicationError, match="'sid': '1_2'"):
        deltas.require_exact([before], [], [after])


@settings(max_examples=100, deadline=None)
@given(st.sets(IDS), st.sets(IDS), st.integers(1, 5), st.integers(1, 5))
def test_aligned_streams_cover_both_sides_once_and_in_order(left, right, cuts_left, cuts_right):
    tables = [pa.table({"product_id": pa.array(sorted(ids, key=str.encode), pa.string())}) for ids in (left, right)]
    pairs = list(aligned(cut(tables[0], cuts_left), cut(tables[1], cuts_right)))
    for side, table in enumerate(tables):
        pieces = [pair[side]["product_id"].to_pylist() for pair in pairs if pair[side] is not None]
        assert [i for piece in pieces for i in piece] == table["product_id"].to_pylist()
    for a, b in pairs:
        assert a is None or b is None or set(a["product_id"].to_pylist()) & right <= set(b["product_id"].to_pylist())


@pytest.mark.parametrize("ids", [["a", "a"], ["b", "a"]])
def test_repeated_and_unsorted_products_are_named(ids):
    with pytest.raises(PublicationError, match=f"product_id {ids[1]!r} comes twice or out of order"):
        list(strictly_ascending([pa.table({"product_id": ids[:1]}), pa.table({"product_id": ids[1:]})], "product_id"))
