"""Placing the products of one prefix, and what a policy is called."""

import numpy as np
import pyarrow as pa
import pytest

from sid_pipeline.assignment.collisions import Policy, fill_prefix
from sid_pipeline.settings import load_settings

CODES = 6


def waiting(*orders):
    return pa.table(
        {
            "prefix": ["1_2_3"] * len(orders),
            "product_id": [f"p{i}" for i in range(len(orders))],
            "turn": list(range(len(orders))),
            "candidates": [np.array(order, "<i2").tobytes() for order in orders],
        }
    )


def occupied(**held):
    return pa.table(
        {
            "prefix": ["1_2_3"] * len(held),
            "code": pa.array([int(code.removeprefix("c")) for code in held], pa.int32()),
            "held": pa.array(list(held.values()), pa.int64()),
        }
    )


def place(capacity, table, held):
    found = fill_prefix(capacity)(table, held).to_pylist()
    return {row["product_id"]: row["placed"] for row in found}


def test_each_takes_the_nearest_codeword_with_room():
    table = waiting([4, 1, 2, 0, 3, 5], [4, 1, 2, 0, 3, 5], [1, 4, 2, 0, 3, 5])
    assert place(2, table, occupied(c4=2, c1=1)) == {"p0": "1_2_3_1", "p1": "1_2_3_2", "p2": "1_2_3_2"}


def test_turns_decide_not_the_order_of_rows():
    table = waiting(*[[4, 1, 2, 0, 3, 5]] * 5)
    shuffled = table.take(pa.array([3, 0, 4, 2, 1]))
    held = occupied(c4=1)
    assert place(1, shuffled, held) == place(1, table, held)


def test_a_full_prefix_places_no_more():
    found = place(1, waiting(*[list(range(CODES))] * 3), occupied(c0=1, c1=1, c2=1, c3=5))
    assert found == {"p0": "1_2_3_4", "p1": "1_2_3_5", "p2": None}


def test_a_prefix_where_nobody_waits():
    assert place(1, waiting(), occupied(c0=1)) == {}


def test_policies_come_from_the_settings(monkeypatch, tmp_path):
    file = tmp_path / "sid.toml"
    start = '[source]\nproducts = "x.csv"\n'
    file.write_text(f'{start}[flavours.esci]\ncollision = "capacity"\ncapacity = 5\n')
    spec = load_settings(file, {}).flavours["esci"]
    assert str(Policy(spec.collision, spec.capacity)) == "capacity=5"
    assert str(Policy()) == "share"
    for wrong in (
        'collision = "capacity"',
        "capacity = 5",
        'collision = "drop"',
        'collision = "capacity"\ncapacity = 0',
    ):
        file.write_text(f"{start}[flavours.esci]\n{wrong}\n")
        with pytest.raises(ValueError, match=r"flavours\.esci"):
            load_settings(file, {})
