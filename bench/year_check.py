"""What must hold after every night, checked by code that shares nothing with the product.

Reads Delta (with delta-rs), Parquet and JSON files, and the truth that the shop wrote down; imports nothing of
sid_pipeline. Each violation is a sentence. `python bench/year_check.py read STATE OUT` is the reader: it follows the
live pointers without rest, as a consumer does, and writes down whatever it should not have seen.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, QueryBuilder

FLAVOURS = ("esci", "esci_gemma")
CLEANED = {"esci_gemma"}  # flavours that stand on cleaned text, which another cleaning may move


@dataclass
class Night:
    """What the checker is told of a night that is over.

    Attributes:
        day: of the catalogue.
        up_to_date: whether everything had its chance, so that what is live must stand on this very day.
        switched: flavours that a person moved to another release.
    """

    day: str
    up_to_date: bool = True
    switched: bool = False


@dataclass
class Checker:
    """Keeps in `memory` what was live after the last night that it looked at."""

    folder: Path
    state: Path
    memory: Path
    faults: list[str] = field(default_factory=list)
    seen: dict[str, Any] = field(default_factory=dict)

    def check(self, night: Night) -> list[str]:
        """Every rule; the sentences of those that are broken."""
        self.faults, self.seen = [], {}
        before = json.loads(self.memory.read_text()) if self.memory.is_file() else {}
        self._rows_in_are_rows_out(night)
        after = {flavour: self._flavour(flavour, night, before.get(flavour)) for flavour in FLAVOURS}
        self._money()
        if not self.faults:
            self.memory.write_text(json.dumps(after))
        return self.faults

    def truth(self, day: str) -> dict[str, Any]:
        """What the shop says of a day."""
        return json.loads((self.folder / "truth" / f"{day}.json").read_text())

    def table(self, name: str, columns: str = "*", where: str = "true") -> list[dict[str, Any]]:
        """Rows of a Delta table, deletion vectors heeded."""
        path = self.state / "tables" / name
        if not DeltaTable.is_deltatable(str(path)):
            return []
        found = QueryBuilder().register("t", DeltaTable(str(path))).execute(f"select {columns} from t where {where}")
        return pa.table(found).to_pylist()

    # Rows in = rows out + rejected

    def _rows_in_are_rows_out(self, night: Night) -> None:
        if not night.up_to_date:
            return
        truth, slice = self.truth(night.day), f"snapshot = '{night.day}'"
        products = [row["product_id"] for row in self.table("products", "product_id", slice)]
        rejected = self.table("rejected_products", "source_file, source_row", slice)
        offers = len(self.table("offers", "product_id", slice))
        of_products = sum(row["source_file"].startswith("products") for row in rejected)
        of_offers = len(rejected) - of_products
        self._say(sorted(products) != sorted(truth["texts"]), f"{night.day}: products are not the shop's")
        self._equal(f"{night.day}: rows of products", truth["rows"], len(products) + of_products)
        self._equal(f"{night.day}: rejected products", truth["bad"], of_products)
        self._equal(f"{night.day}: rows of offers", truth["offers"], offers + of_offers)
        self._equal(
            f"{night.day}: rejected rows listed once", len(rejected), len({tuple(r.values()) for r in rejected})
        )
        with gzip.open(self.folder / "catalogue" / night.day / "offers.csv.gz") as file:
            self._equal(f"{night.day}: lines of offers", truth["offers"], sum(1 for _ in file) - 1)

    # What is live

    def _flavour(self, flavour: str, night: Night, before: dict[str, Any] | None) -> dict[str, Any] | None:
        pointer = read_json(self.state / "live" / f"{flavour}.json")
        if pointer is None:
            self._say(night.up_to_date, f"{flavour}: nothing is live")
            return before
        folder, day = self.state / pointer["publication"], pointer["as_of_snapshot"]
        self.faults += sound(folder, pointer)
        self._say(night.up_to_date and day != night.day, f"{flavour}: live stands on {day} after the night {night.day}")
        sids = column_pairs(folder / "product_sids.parquet", "product_id", "sid")
        without = column_pairs(folder / "unassigned.parquet", "product_id", "reason")
        texts = self.truth(day)["texts"]
        listed = Counter([*sids, *without])
        self._say(set(listed) != set(texts), f"{flavour} {day}: published products are not the shop's")
        self._say(max(listed.values()) > 1, f"{flavour} {day}: a product is published twice")
        self._say(not all(without.values()), f"{flavour} {day}: a product has neither SID nor reason")
        rows = self._table_agrees(flavour, pointer, sids, without, texts)
        self._deltas_add_up(flavour, pointer["release"])
        if before is not None and before["release"] == pointer["release"]:
            self._unmoved(flavour, before, {"day": day, "sids": sids, "texts": texts}, rows)
        elif before is not None:
            self._say(not night.switched, f"{flavour}: release {pointer['release']} is live and nobody asked for it")
        self.seen[flavour] = {"live": pointer["release"], "as_of": day, "sids": len(sids), "without": len(without)}
        return {"release": pointer["release"], "day": day, "sids": sids, "texts": texts}

    def _table_agrees(
        self, flavour: str, pointer: dict[str, Any], sids: dict, without: dict, texts: dict
    ) -> dict[str, dict[str, Any]]:
        """The table of the live release: one row a product, and what is published."""
        where = f"flavour = '{flavour}' and release = '{pointer['release']}'"
        found = self.table("semantic_ids", "product_id, published_sid, reason, change, as_of_snapshot, source_hash, "
                           "withdrawn_on", where)  # fmt: skip
        rows = {row["product_id"]: row for row in found}
        self._equal(f"{flavour}: rows of semantic_ids a product", len(found), len(rows))
        active = {product_id for product_id, row in rows.items() if row["withdrawn_on"] is None}
        self._say(active != set(texts), f"{flavour}: active rows of semantic_ids are not the shop's products")
        wrong = [i for i in active if rows[i]["published_sid"] != sids.get(i) or (i in without) == (i in sids)]
        self._say(bool(wrong), f"{flavour}: semantic_ids and what is live differ, e.g. {wrong[:3]}")
        return rows

    def _unmoved(self, flavour: str, before: dict, after: dict, rows: dict[str, dict[str, Any]]) -> None:
        """A SID that moved has its reason in the table, and the reason is true."""
        moved = [i for i, sid in before["sids"].items() if i in after["sids"] and after["sids"][i] != sid]
        fallback = {}
        if flavour in CLEANED and moved:
            fallback = {
                row["text_hash"]: row["fallback"]
                for row in self.table("snapshot_cleanings", "text_hash, fallback", f"snapshot = '{before['day']}'")
            }
        reasons: Counter[str] = Counter()
        for product_id in moved:
            row, same = rows[product_id], before["texts"].get(product_id) == after["texts"][product_id]
            reasons[row["change"]] += 1
            fresh = before["day"] < row["as_of_snapshot"] <= after["day"]
            truthful = (
                (row["change"] == "text_changed" and not same)
                or (row["change"] == "returned" and not same)
                or (row["change"] == "recleaned" and flavour in CLEANED and fallback.get(row["source_hash"], False))
            )
            self._say(
                not (fresh and truthful),
                f"{flavour}: {product_id} moved from {before['sids'][product_id]} to {after['sids'][product_id]} after "
                f"{before['day']}, by {after['day']}; its text {'did not change' if same else 'changed'}, the reason "
                f"on record is {row['change']!r} as of {row['as_of_snapshot']}",
            )
        self.seen.setdefault("moved", {})[flavour] = dict(reasons)

    def _deltas_add_up(self, flavour: str, release: str) -> None:
        """Parent + delta = publication, for every publication of the release that still has its parent."""
        root = self.state / "publications" / flavour / release
        done = set(self.seen.setdefault("proved", []))
        known = self.memory.with_suffix(".proved")
        done |= set(known.read_text().split()) if known.is_file() else set()
        made = sorted(folder for folder in root.glob("0*") if (folder / "manifest.json").is_file())
        numbers = [int(folder.name[:6]) for folder in made]
        self._say(numbers != list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True,
                  f"{flavour} {release}: publications are numbered {numbers}")  # fmt: skip
        for folder in made:
            if str(folder) in done:
                continue
            manifest = json.loads((folder / "manifest.json").read_text())
            parent = manifest["parent"]
            if parent and not (self.state / parent["folder"]).is_dir():
                continue  # retention took it
            table = (
                column_pairs(self.state / parent["folder"] / "product_sids.parquet", "product_id", "sid")
                if parent
                else {}
            )
            for row in pq.read_table(folder / "delta.parquet").to_pylist():
                if row["change"] == "withdrawn":
                    self._say(
                        table.pop(row["product_id"], None) is None, f"{folder.name}: withdraws what was not there"
                    )
                else:
                    table[row["product_id"]] = row["sid"]
            now = column_pairs(folder / "product_sids.parquet", "product_id", "sid")
            self._say(table != now, f"{flavour} {folder.name}: parent + delta is not the publication")
            done.add(str(folder))
        known.write_text("\n".join(sorted(done)))

    # Money

    def _money(self) -> None:
        """Nothing is in the ledger that was not answered, nothing that was answered is missing but for what a kill
        caught in flight, and no text was cleaned twice by one cleaner."""
        answered = [json.loads(line) for line in self._lines("llm.jsonl")]
        lost = sum(json.loads(line)["in_flight"] for line in self._lines("interruptions.jsonl"))
        calls = self.table("cleaning_calls", "call_id, cleaner_id, outcome, text_hashes, input_tokens, output_tokens")
        self._equal("call ids of the ledger", len(calls), len({row["call_id"] for row in calls}))
        paid = [entry for entry in answered if entry["fault"] != "slow"]  # nobody was there any more to read those
        self._say(
            len(calls) > len(answered), f"the ledger holds {len(calls)} calls, the model answered {len(answered)}"
        )
        self._say(
            len(paid) - len(calls) > lost,
            f"the model answered {len(paid)} calls, the ledger holds {len(calls)}: at most {lost} may be missing",
        )
        spent = sum(entry["tokens"][0] + entry["tokens"][1] for entry in answered)
        booked = sum(row["input_tokens"] + row["output_tokens"] for row in calls)
        self._say(booked > spent, f"{booked} tokens are booked, {spent} were spent")
        good = Counter(entry["text"] for entry in paid if not entry["fault"])
        again = sum(times - 1 for times in good.values())
        self._say(again > lost, f"{again} good answers were asked for again, at most {lost} were lost in flight")
        once = Counter((r["cleaner_id"], text) for r in calls if r["outcome"] == "ok" for text in r["text_hashes"])
        twice = [key for key, times in once.items() if times > 1]
        self._say(bool(twice), f"{len(twice)} texts have several good answers in the ledger, e.g. {twice[:1]}")
        cleaned = Counter(
            (r["cleaner_id"], r["text_hash"]) for r in self.table("cleaned_attributes", "cleaner_id, text_hash")
        )
        self._say(any(times > 1 for times in cleaned.values()), "a text has two cleanings by one cleaner")
        self.seen["money"] = {"answers": len(answered), "ledger": len(calls), "asked again": again, "allowance": lost}

    def _lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.is_file() else []

    def _equal(self, what: str, wanted: int, found: int) -> None:
        self._say(wanted != found, f"{what}: {wanted} expected, {found} found")

    def _say(self, broken: bool, sentence: str) -> None:
        if broken:
            self.faults.append(sentence)


def read_json(path: Path) -> Any:
    """A JSON file, or None where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def column_pairs(path: Path, key: str, value: str) -> dict[str, Any]:
    """Two columns of a Parquet file as a mapping; a key that comes twice is an error."""
    table = pq.read_table(path, columns=[key, value])
    pairs = dict(zip(table[key].to_pylist(), table[value].to_pylist(), strict=True))
    if len(pairs) != len(table):
        raise ValueError(f"{path} holds a {key} twice")
    return pairs


def sound(folder: Path, pointer: dict[str, Any]) -> list[str]:
    """What is wrong with a publication that a pointer names: every file as its manifest has it, all of one codebook."""
    text = (folder / "manifest.json").read_bytes()
    manifest, faults = json.loads(text), []
    if hashlib.sha256(text).hexdigest() != pointer["manifest_sha256"]:
        faults.append(f"{folder.name}: the manifest is not the one that was made live")
    for name, wanted in manifest["files"].items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != wanted:
            faults.append(f"{folder.name}/{name} is not as its manifest has it")
    here = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if here != {*manifest["files"], "manifest.json"}:
        faults.append(f"{folder.name} holds other files than its manifest names")
    for name, rows in manifest["rows"].items():
        if pq.read_metadata(folder / name).num_rows != rows:
            faults.append(f"{folder.name}/{name} has other rows than its manifest says")
    for name in ("release", "as_of_snapshot"):
        if manifest[name] != pointer[name]:
            faults.append(f"{folder.name} is of {name} {manifest[name]}, the pointer says {pointer[name]}")
    if manifest["pins"]["codebook_id"] != pointer["codebook_id"]:
        faults.append(f"{folder.name} is of another codebook than the pointer says")
    return faults


def read(state: Path, out: Path) -> None:
    """Follow what is live for ever: each pointer whole, its publication sound, and no day older than the last."""
    last: dict[str, dict[str, Any]] = {}
    looks = 0
    while True:
        for flavour in FLAVOURS:
            try:
                faults = _look(state, flavour, last)
            except Exception as error:
                faults = [f"{flavour}: {type(error).__name__}: {error}"]
            for fault in faults:
                with out.open("a") as file:
                    file.write(json.dumps({"at": time.time(), "fault": fault}) + "\n")
        looks += 1
        part = out.with_suffix(".looks.part")
        part.write_text(str(looks))
        part.replace(out.with_suffix(".looks"))
        time.sleep(0.2)


def _look(state: Path, flavour: str, last: dict[str, dict[str, Any]]) -> list[str]:
    pointer, before = read_json(state / "live" / f"{flavour}.json"), last.get(flavour)
    if pointer is None:
        return [f"{flavour}: what was live is gone"] if before else []
    if pointer == before:
        whole = (state / pointer["publication"] / "product_sids.parquet").is_file()
        return [] if whole else [f"{flavour}: the live publication is gone"]
    faults = sound(state / pointer["publication"], pointer)
    if before and before["release"] == pointer["release"] and before["as_of_snapshot"] > pointer["as_of_snapshot"]:
        faults.append(f"{flavour}: went from {before['as_of_snapshot']} back to {pointer['as_of_snapshot']}")
    last[flavour] = pointer
    return faults


if __name__ == "__main__":
    assert sys.argv[1] == "read"
    read(Path(sys.argv[2]), Path(sys.argv[3]))
