"""The real catalogues of the evaluation benches: their products, vectors and codes, made once and cached.

Belongs here: which columns of a shared data set are title, brand and category, and training a codebook on it by the
project's defaults. What is measured on them stands in the benches that import this.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rqvae_common import CACHE, embedded, shared

from sid_pipeline.evaluation.metrics import Path, tree_labels
from sid_pipeline.files import digest
from sid_pipeline.rqvae import Codebook, TrainConfig, train

FLAVOURS = {"esci": "raw", "esci_gemma": "cleaned"}
NAMES = ("instacart", "bigbasket", "amazon_toys", "chorus_icecat", "match_walmart_amazon", "match_abt_buy")


@dataclass(frozen=True)
class Products:
    """A catalogue: N ids, titles, brands and category paths (None where a product has none)."""

    name: str
    ids: list[str]
    titles: list[str]
    brands: list[str | None]
    categories: list[Path | None]

    def vectors(self, flavour: str) -> NDArray[np.float32]:
        """(N, d) unit vectors of the flavour's text."""
        leaves = [path[-1] if path else None for path in self.categories]
        return embedded(self.name, FLAVOURS[flavour], self.titles, self.brands, leaves)


@dataclass(frozen=True)
class Pairs:
    """Labelled pairs of rows of a catalogue; `match` says whether both are one product."""

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    match: NDArray[np.bool_]


def products(name: str) -> Products:
    """A shared catalogue. Of the match sets, every distinct record of either shop is a product."""
    if name.startswith("match_"):
        return _matched(name)[0]
    table = _table(name, "items" if name == "amazon_office" else "products")
    rows = len(next(iter(table.values())))
    columns = {
        "instacart": ("product_id", "product_name", None, ("department", "aisle")),
        "bigbasket": ("index", "product", "brand", ("category", "sub_category", "type")),
        "amazon_toys": ("uniq_id", "product_name", "brand", None),
        "chorus_icecat": ("product_id", "title", "brand", ()),
        "amazon_office": ("item_id", "title", "brand", ()),
    }
    key, title, brand, steps = columns[name]
    if steps is None:
        paths = [tuple(path.split(" > ")) if path else None for path in table["category_path"]]
    else:
        paths = [_path([table[step][row] for step in steps]) for row in range(rows)]
    return Products(
        name,
        [str(value) for value in table[key]],
        [value or "" for value in table[title]],
        list(table[brand]) if brand else [None] * rows,
        paths,
    )


def labelled_pairs(name: str) -> tuple[Products, Pairs]:
    """A match set's records as a catalogue, and its labelled pairs."""
    return _matched(name)


def codebook(catalogue: Products, x: NDArray[np.float32], flavour: str, **settings: Any) -> Codebook:
    """The codebook of a catalogue by the trainer's defaults and `settings`; cached by what it is made from."""
    config = TrainConfig.from_dict({"threads": int(os.environ.get("OMP_NUM_THREADS", "1")), **settings})
    labels, _ = tree_labels(catalogue.categories)
    made_from = [catalogue.name, flavour, config.to_dict(), digest([float(x[:64].sum()), len(x)]), _trainer()]
    folder = CACHE / "codebooks" / f"{catalogue.name}-{flavour}-{digest(made_from, 12)}"
    if not folder.exists():
        train(x, labels if labels.shape[1] else None, config).save(folder)
    return Codebook.load(folder)


def _trainer() -> str:
    """A hash of the trainer's own code: a newer trainer is another codebook."""
    import sid_pipeline.rqvae as package

    folder = os.path.dirname(package.__file__)
    names = sorted(name for name in os.listdir(folder) if name.endswith(".py"))
    return digest([open(os.path.join(folder, name), encoding="utf-8").read() for name in names], 12)


def _table(name: str, part: str) -> dict[str, list[Any]]:
    import pyarrow.parquet as pq

    return pq.read_table(shared() / "data" / name / f"{part}.parquet").to_pydict()


def _path(steps: Sequence[str | None]) -> Path | None:
    """The steps up to the first that is empty or called missing, each below its parent."""
    path: list[str] = []
    for step in steps:
        if not step or step == "missing":
            break
        path.append(step)
    return tuple(path) or None


def _matched(name: str) -> tuple[Products, Pairs]:
    title = "name" if name == "match_abt_buy" else "title"
    records: dict[tuple[str, str, str], int] = {}
    left, right, match = [], [], []
    for part in ("train", "valid"):
        table = _table(name, part)
        for row in range(len(table["match"])):
            for side, rows in (("left", left), ("right", right)):
                brand = (table.get(f"{side}_brand") or [""] * (row + 1))[row] or ""
                category = (table.get(f"{side}_category") or [""] * (row + 1))[row] or ""
                record = (table[f"{side}_{title}"][row] or "", brand, category)
                rows.append(records.setdefault(record, len(records)))
            match.append(bool(table["match"][row]))
    found = list(records)
    catalogue = Products(
        name,
        [str(number) for number in range(len(found))],
        [record[0] for record in found],
        [record[1] or None for record in found],
        [(record[2],) if record[2] else None for record in found],
    )
    return catalogue, Pairs(np.array(left), np.array(right), np.array(match))
