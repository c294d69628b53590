"""The shop whose nights `year.py` simulates: what its catalogue holds on each day, and the truth about it.

A catalogue of the sample's generator, and then days of trade drawn from a seed: texts change, products come, go and
come back, a season brings a range of its own and takes it away, a few rows of each file are broken. Beside each day's
files lies `truth/DAY.json`, which the checker believes. What does not belong here: faults of machines, and the product.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sid_pipeline.sample import offers, taxonomy
from sid_pipeline.sample.files import encoded
from sid_pipeline.sample.products import HEADER, catalogue, leaf_products, used_leaves
from sid_pipeline.sample.vocabulary import load

START = date(2025, 2, 15)  # in Europe/Berlin the clocks change on 30 March and 26 October
CHANGED, NEW, WITHDRAWN, RETURNED = 0.006, 0.006, 0.005, 0.04  # a day, of the products; the last of those withdrawn
FORGOTTEN = 40  # days after which nothing comes back: what the product remembers it must not pay for again
SEASON_EVERY, SEASON_LASTS, SEASON_SHARE = 20, 12, 0.03
TEXT = ("title", "brand", "size", "description")


def day_of(night: int) -> str:
    """The day of a night, counted from 0."""
    return (START + timedelta(days=night)).isoformat()


@dataclass
class Shop:
    """What is for sale, by product id, and what is remembered. Rows are in the sample's columns without the id."""

    seed: int
    night: int
    rows: dict[str, list[str]]
    gone: dict[str, list[str]] = field(default_factory=dict)
    gone_on: dict[str, int] = field(default_factory=dict)
    season: list[str] = field(default_factory=list)
    nodes: list[list[str]] = field(default_factory=list)
    next_id: int = 500_001

    @classmethod
    def open(cls, seed: int, products: int) -> Shop:
        """The shop on its first day."""
        vocabulary = load()
        leaves = used_leaves(vocabulary, products, taxonomy.TOUCHED_LEAVES)
        rows = {p.product_id: p.row()[1:] for p in catalogue(vocabulary, leaves, products, seed)}
        nodes = [[n.node_id, n.parent_id, n.name] for n in taxonomy.first(vocabulary)]
        return cls(seed, 0, rows, nodes=nodes)

    def next_day(self, quiet: bool) -> None:
        """A day of trade; a quiet one changes nothing."""
        self.night += 1
        draw = random.Random(f"{self.seed}/{self.night}")
        if quiet:
            return
        count = len(self.rows)
        ids = sorted(self.rows)
        draw.shuffle(ids)
        withdrawn, changed = ids[: round(WITHDRAWN * count)], ids[round(WITHDRAWN * count) :][: round(CHANGED * count)]
        for product_id in sorted(self.gone):
            if self.night - self.gone_on[product_id] > FORGOTTEN:
                del self.gone[product_id], self.gone_on[product_id]
            elif draw.random() < RETURNED:
                self.rows[product_id] = self.gone.pop(product_id)
        for product_id in withdrawn:
            self.gone[product_id], self.gone_on[product_id] = self.rows.pop(product_id), self.night
        for place, product_id in enumerate(changed):
            row = self.rows[product_id]
            if place % 4 == 0:
                row[0] = f"{row[0]} No. {self.night}"
            elif place % 4 == 1:
                row[3] = f"{row[3]} New recipe of day {self.night}."
            elif place % 4 == 2:
                row[5] = f"{draw.uniform(0.5, 20):.2f}"  # the price is no text: nothing may move
            else:
                row[2] = f"{row[2]} ({self.night})".strip()
        self._add(round(NEW * count), f"new/{self.night}", draw)
        if self.night % SEASON_EVERY == SEASON_EVERY // 2:
            self.season = self._add(round(SEASON_SHARE * count), f"season/{self.night}", draw, "Winter edition")
        elif self.night % SEASON_EVERY == (SEASON_EVERY // 2 + SEASON_LASTS) % SEASON_EVERY and self.season:
            for product_id in self.season:
                self.rows.pop(product_id, None)
                self.gone.pop(product_id, None)
            self.season = []

    def _add(self, count: int, stream: str, draw: random.Random, words: str = "") -> list[str]:
        vocabulary = load()
        made = []
        for number in range(count):
            leaf = vocabulary.leaves[draw.randrange(len(vocabulary.leaves))]
            row = leaf_products(vocabulary, leaf, 1, f"{self.seed}/{stream}/{number}")[0].row()[1:]
            row[0] = f"{row[0]} {words}".strip()
            made.append(f"P{self.next_id}")
            self.rows[made[-1]] = row
            self.next_id += 1
        return made

    def rename_a_leaf(self) -> None:
        """A minor change of the taxonomy: a leaf's name, and a leaf that is new."""
        parents = {node[1] for node in self.nodes}
        leaf = next(node for node in self.nodes if node[0] not in parents and "range" not in node[2])
        leaf[2] = f"{leaf[2]} range"
        self.nodes.append([f"n{self.night}", leaf[1], f"Novelties of day {self.night}"])

    def regroup(self) -> None:
        """A major one: a whole department moves below another."""
        roots = [node for node in self.nodes if not node[1]]
        roots[0][1] = roots[-1][0]

    def write(self, folder: Path) -> Path:
        """Write the day's catalogue into `folder`/incoming and its truth; the files are moved when they arrive."""
        day = day_of(self.night)
        incoming = folder / "incoming" / day
        incoming.mkdir(parents=True, exist_ok=True)
        draw = random.Random(f"{self.seed}/rows/{self.night}")
        good = [encoded([product_id, *row]) for product_id, row in self.rows.items()]
        bad = self._bad_rows(draw)
        lines = list(good)
        for row in bad:
            lines.insert(draw.randrange(1, len(lines)), row)
        # A repeat must come after the row that it repeats.
        lines.append(good[0])
        _gzip(incoming / "products.csv.gz", [encoded(HEADER), *lines])
        sold = [SimpleNamespace(product_id=product_id) for product_id in self.rows]
        offered = offers.lines(sold, self.seed, bad=True)  # type: ignore[arg-type]
        _gzip(incoming / "offers.csv.gz", offered)
        truth: dict[str, Any] = {
            "day": day,
            "rows": len(lines),
            "bad": len(bad) + 1,
            "offers": len(offered) - 1,
            "texts": {product_id: text_of(row) for product_id, row in self.rows.items()},
        }
        _replace(folder / "truth" / f"{day}.json", json.dumps(truth))
        return incoming

    def write_taxonomy(self, folder: Path) -> None:
        """The tree as it stands, replaced whole."""
        lines = [encoded(row) for row in (taxonomy.HEADER, *self.nodes)]
        _replace(folder / "taxonomy.csv", b"".join(lines).decode())

    def _bad_rows(self, draw: random.Random) -> list[bytes]:
        ids = sorted(self.rows)
        some = [self.rows[ids[draw.randrange(len(ids))]] for _ in range(4)]
        return [
            encoded(["", *some[0]]),
            encoded([f"B{self.night}", "", *some[1][1:]]),
            encoded([f"C{self.night}", *some[2][:3]]),
            encoded([f"D{self.night}", *some[3]])[:-1] + b"\xe9\n",
        ]

    def save(self, path: Path) -> None:
        """Keep the shop, so that a later process goes on with it."""
        _replace(path, json.dumps(vars(self)))

    @classmethod
    def load(cls, path: Path) -> Shop:
        """The shop as it was kept."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def text_of(row: list[str]) -> str:
    """A hash of what a product says of itself: title, brand, size, description."""
    return hashlib.sha256("\x1f".join(row[:4]).encode()).hexdigest()[:16]


def _gzip(path: Path, lines: list[bytes]) -> None:
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 1, raw, mtime=0) as out:
        out.write(b"".join(lines))


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
