"""The checker of the simulated nights finds what it is there to find: each rule broken on purpose, on a small state."""

from __future__ import annotations

import ast
import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from bench import year_check
from bench.year_check import FLAVOURS, Checker, Night, _look

DAY1, DAY2 = "2025-02-15", "2025-02-16"
TEXTS = {DAY1: {"p1": "a", "p2": "b", "p3": "c"}, DAY2: {"p1": "a", "p2": "B", "p4": "d"}}
SIDS = {DAY1: {"p1": "1_1", "p2": "1_2", "p3": "2_2"}, DAY2: {"p1": "1_1", "p2": "3_3", "p4": "4_4"}}
DELTA = [("p2", "3_3", "moved"), ("p3", None, "withdrawn"), ("p4", "4_4", "added")]


class State:
    """Two nights as the product would leave them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state = folder, folder / "state"
        self.rows: dict[str, list[dict[str, Any]]] = {
            "products": [], "rejected_products": [], "offers": [], "semantic_ids": [], "cleaning_calls": [],
            "cleaned_attributes": [], "snapshot_cleanings": [],
        }  # fmt: skip
        self.llm = [{"text": "t1", "fault": None, "tokens": [5, 5]}]
        self.rows["cleaning_calls"].append(
            {
                "call_id": "c1",
                "cleaner_id": "m",
                "outcome": "ok",
                "text_hashes": ["t1"],
                "input_tokens": 5,
                "output_tokens": 5,
            }
        )
        self.rows["cleaned_attributes"].append({"cleaner_id": "m", "text_hash": "t1"})

    def night(self, day: str) -> None:
        truth = {"day": day, "rows": len(TEXTS[day]) + 1, "bad": 1, "offers": 2, "texts": TEXTS[day]}
        put(self.folder / "truth" / f"{day}.json", json.dumps(truth))
        offers = self.folder / "catalogue" / day / "offers.csv.gz"
        offers.parent.mkdir(parents=True)
        offers.write_bytes(gzip.compress(b"h\n1\n2\n"))
        self.rows["products"] += [{"snapshot": day, "product_id": i} for i in TEXTS[day]]
        self.rows["offers"] += [{"snapshot": day, "product_id": "p1"}]
        self.rows["rejected_products"] += [
            {"snapshot": day, "source_file": f"{kind}.csv.gz", "source_row": 1} for kind in ("products", "offers")
        ]
        self.rows["snapshot_cleanings"] += [{"snapshot": day, "text_hash": "b", "fallback": False}]
        self.rows["semantic_ids"] = [
            {
                "flavour": flavour, "release": "r1", "product_id": product_id,
                "published_sid": SIDS[day][product_id],
                "reason": None, "change": "new" if day == DAY1 or product_id == "p4" else "text_changed",
                "as_of_snapshot": DAY1 if product_id == "p1" else day, "source_hash": "b", "withdrawn_on": None,
            }
            for flavour in FLAVOURS for product_id in SIDS[day]
        ]  # fmt: skip

    def publish(self, flavour: str, number: int, day: str, delta: list[tuple]) -> None:
        folder = self.state / "publications" / flavour / "r1" / f"{number:06d}-{day}-x"
        folder.mkdir(parents=True)
        table(folder / "product_sids.parquet", product_id=list(SIDS[day]), sid=list(SIDS[day].values()))
        table(folder / "unassigned.parquet", product_id=[], reason=[])
        columns = list(zip(*delta, strict=True))
        table(folder / "delta.parquet", product_id=columns[0], sid=columns[1], change=columns[2])
        parent = self.state.joinpath("publications", flavour, "r1", f"{number - 1:06d}-{DAY1}-x")
        files = sorted(path for path in folder.iterdir())
        manifest = {
            "release": "r1", "as_of_snapshot": day, "pins": {"codebook_id": "k"},
            "parent": {"folder": str(parent.relative_to(self.state))} if number > 1 else None,
            "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
            "rows": {path.name: pq.read_metadata(path).num_rows for path in files},
        }  # fmt: skip
        put(folder / "manifest.json", json.dumps(manifest))
        pointer = {
            "release": "r1", "as_of_snapshot": day, "codebook_id": "k",
            "publication": str(folder.relative_to(self.state)),
            "manifest_sha256": hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest(),
        }  # fmt: skip
        put(self.state / "live" / f"{flavour}.json", json.dumps(pointer))

    def write(self) -> None:
        for name, rows in self.rows.items():
            if rows:
                write_deltalake(str(self.state / "tables" / name), pa.Table.from_pylist(rows), mode="overwrite")
        put(self.folder / "llm.jsonl", "".join(json.dumps(line) + "\n" for line in self.llm))

    def check(self, day: str) -> list[str]:
        self.write()
        return Checker(self.folder, self.state, self.folder / "memory.json").check(Night(day))


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def table(path: Path, **columns: Any) -> None:
    pq.write_table(pa.table({name: pa.array(list(v), pa.string()) for name, v in columns.items()}), path)


@pytest.fixture
def state(tmp_path: Path) -> State:
    """The second night is over and not yet checked; the first was found sound."""
    made = State(tmp_path)
    made.night(DAY1)
    for flavour in FLAVOURS:
        made.publish(flavour, 1, DAY1, [(i, sid, "added") for i, sid in SIDS[DAY1].items()])
    assert made.check(DAY1) == []
    made.night(DAY2)
    for flavour in FLAVOURS:
        made.publish(flavour, 2, DAY2, DELTA)
    return made


def test_two_sound_nights_have_no_fault(state):
    assert state.check(DAY2) == []


def row(state: State, product_id: str) -> dict[str, Any]:
    return next(r for r in state.rows["semantic_ids"] if (r["flavour"], r["product_id"]) == ("esci", product_id))


def call(state: State, call_id: str) -> dict[str, Any]:
    return {**state.rows["cleaning_calls"][0], "call_id": call_id}


def spoil(state: State) -> None:
    folder = state.state / "publications" / "esci" / "r1" / f"000002-{DAY2}-x"
    (folder / "unassigned.parquet").write_bytes(b"PAR1")


def republish(**changes: Any) -> Callable[[State], None]:
    def act(state: State) -> None:
        import shutil

        shutil.rmtree(state.state / "publications" / "esci" / "r1" / f"000002-{DAY2}-x")
        state.publish("esci", 2, DAY2, changes["delta"])

    return act


BROKEN: dict[str, tuple[Callable[[State], Any], str]] = {
    "a product vanished": (lambda s: s.rows["products"].pop(), "products are not the shop's"),
    "a rejected row vanished": (lambda s: s.rows["rejected_products"].pop(-2), "rows of products"),
    "an offer vanished": (lambda s: s.rows["offers"].pop(), "rows of offers"),
    "a row of the table twice": (lambda s: s.rows["semantic_ids"].append(row(s, "p1")), "rows of semantic_ids"),
    "an active row too many": (
        lambda s: s.rows["semantic_ids"].append({**row(s, "p1"), "product_id": "p9"}), "active rows"),
    "table and publication differ": (lambda s: row(s, "p1").update(published_sid="9_9"), "differ"),
    "a move without its reason": (lambda s: row(s, "p2").update(change="new"), "p2 moved from 1_2 to 3_3"),
    "an old reason": (lambda s: row(s, "p2").update(as_of_snapshot=DAY1), "p2 moved"),
    "a cleaning that is none": (lambda s: row(s, "p2").update(change="recleaned"), "p2 moved"),
    "a delta that does not add up": (republish(delta=DELTA[:2]), "parent + delta is not"),
    "a delta that takes what is not there": (republish(delta=[*DELTA, ("p7", None, "withdrawn")]), "was not there"),
    "a spoilt file": (spoil, "not as its manifest"),
    "an answer not in the ledger": (
        lambda s: s.llm.append({"text": "t2", "fault": None, "tokens": [1, 1]}), "at most 0 may be missing"),
    "a call that nobody answered": (
        lambda s: s.rows["cleaning_calls"].append(call(s, "c2")), "the ledger holds 2"),
    "a text paid for twice": (
        lambda s: (s.llm.append(s.llm[0]), s.rows["cleaning_calls"].append(call(s, "c2"))),
        "asked for again"),
    "a text cleaned twice": (
        lambda s: s.rows["cleaned_attributes"].append(s.rows["cleaned_attributes"][0]), "two cleanings"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found(state, name):
    breaks, sentence = BROKEN[name]
    breaks(state)
    try:
        found = state.check(DAY2)
    except pa.ArrowInvalid as error:  # a file so spoilt that it cannot be read at all
        found = [f"not as its manifest says: {error}"]
    assert any(sentence in fault for fault in found), found


def test_a_move_of_an_unchanged_product_is_found(state):
    memory = json.loads((state.folder / "memory.json").read_text())
    memory["esci"]["texts"]["p2"] = "B"
    (state.folder / "memory.json").write_text(json.dumps(memory))
    assert any("its text did not change" in fault for fault in state.check(DAY2))


def test_live_on_another_day_than_the_night_is_found(state):
    state.write()
    pointer = json.loads((state.state / "live" / "esci.json").read_text())
    old = state.state / "publications" / "esci" / "r1" / f"000001-{DAY1}-x"
    pointer |= {
        "as_of_snapshot": DAY1, "publication": str(old.relative_to(state.state)),
        "manifest_sha256": hashlib.sha256((old / "manifest.json").read_bytes()).hexdigest(),
    }  # fmt: skip
    put(state.state / "live" / "esci.json", json.dumps(pointer))
    assert any(f"live stands on {DAY1}" in fault for fault in state.check(DAY2))


def test_the_reader_sees_a_pointer_that_goes_back_and_one_that_is_gone(state):
    last: dict[str, dict[str, Any]] = {}
    assert _look(state.state, "esci", last) == []
    last["esci"] = {**last["esci"], "as_of_snapshot": "2025-03-01"}
    assert "back to" in _look(state.state, "esci", last)[0]
    (state.state / "live" / "esci.json").unlink()
    assert "gone" in _look(state.state, "esci", last)[0]


def test_the_checker_shares_no_code_with_the_product():
    tree = ast.parse(Path(year_check.__file__).read_text(encoding="utf-8"))
    imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    imported |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert not [name for name in imported if name.startswith(("sid_pipeline", "bench"))]
