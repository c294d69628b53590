"""Writes the explorer: `index.html`, its style and script, and the data as script files.

What belongs here: which data the pages hold and in what shape. What does not: how they look and behave
(`static/`). A page opened from disk may not fetch, so data comes as scripts that fill `window.SID_DATA`.
Texts from the catalogue are JSON strings here and reach the page as text nodes only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sid_pipeline.evaluation.metrics import prefix_ids
from sid_pipeline.evaluation.names import prefix_names
from sid_pipeline.evaluation.report import OURS, TABLE_LABELS, figures, interval, shown, value_of

_STATIC = (
    "style.css",
    "explorer.js",
    "vendor/htm-preact.js",
    "vendor/d3.js",
    "vendor/plot.js",
    "vendor/LICENSES.txt",
    "index.html",
)
# A site holds at most so many products, and above that at most so many of one prefix of two levels; the tree then keeps
# its first levels whole, and deeper ones only as far as products are held.
MAX_PRODUCTS, OF_A_PREFIX, LEVELS_WHEN_CUT = 20_000, 30, 2
_TEXT_LIMIT = 240


@dataclass(frozen=True)
class ExplorerFlavour:
    """One flavour's code table, and what was found out about it.

    Attributes:
        name, release: shown, and used in addresses inside the site.
        codes: (N, L) int; a row with a negative code has no SID in this flavour.
        without_sid: products of the catalogue that have none; None: as the codes say.
        names: rows of `prefix_names`, of all levels or, under a cut, of the first `LEVELS_WHEN_CUT`; None: they are
            made from the products given.
        report: `Report.to_dict()`, for the health charts and the lists of fragmented and suspicious products; or
            None.
        unusual: products farther from their codewords than the training set ever was: rows of product_id,
            distance, margin; the worst first.
        previous: how the table differs from the one before: `against` (its name), what `codebook_diff.diff`
            returns with `why` in each row of `moved_examples`, and `reasons`, products by what changed their SID; or
            None where there is none.
    """

    name: str
    release: str
    codes: np.ndarray
    without_sid: int | None = None
    names: pa.Table | None = None
    report: Mapping[str, Any] | None = None
    unusual: Sequence[Mapping[str, Any]] = ()
    previous: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class ExplorerInput:
    """What the explorer shows.

    Attributes:
        title, as_of_snapshot: of the whole site.
        products: the N products that the site holds: product_id, each once, title and, where there are any, brand,
            category (lists of strings) and description, shown below the title, cut.
        flavours: code tables of these products, row by row.
        total: products of the catalogue; None: all are held.
        comparison: what `compare_flavours` returns, or None.
    """

    title: str
    as_of_snapshot: str
    products: pa.Table
    flavours: Sequence[ExplorerFlavour]
    total: int | None = None
    comparison: Mapping[str, Any] | None = None


def held_rows(tables: Sequence[np.ndarray], most: int = MAX_PRODUCTS, of_a_prefix: int = OF_A_PREFIX) -> np.ndarray:
    """The rows of products that a site holds: all up to `most`, else the first few of each prefix of two levels.

    Args:
        tables: codes (N, L) of the same N products, one table a flavour; a negative code is no SID.

    Returns:
        row numbers, ascending.
    """
    n = len(tables[0])
    if n <= most:
        return np.arange(n)
    rank = np.full(n, n, np.int64)
    for codes in tables:
        rows = np.flatnonzero((codes >= 0).all(axis=1))
        part = prefix_ids(codes[rows])[:, min(LEVELS_WHEN_CUT, codes.shape[1]) - 1]
        order = np.argsort(part, kind="stable")
        place = np.arange(len(rows)) - np.searchsorted(part[order], part[order])
        rank[rows[order]] = np.minimum(rank[rows[order]], place)
    chosen = np.argsort(rank, kind="stable")[:most]
    return np.sort(chosen[rank[chosen] < of_a_prefix])


def write_explorer(folder: str | Path, given: ExplorerInput) -> Path:
    """Write the site and return the path of its `index.html`, which is written last.

    Args:
        folder: made if it is not there; files of the same names are replaced.

    Raises:
        ValueError: parts of the input differ in length, or two flavours have one name.
    """
    _validate(given)
    target = Path(folder)
    for part in ("data", "vendor"):
        (target / part).mkdir(parents=True, exist_ok=True)
    held = len(given.products)
    total = held if given.total is None else given.total
    scripts = []
    for number, flavour in enumerate(given.flavours):
        script = f"data/flavour_{number}.js"
        scripts.append(script)
        _write_script(target / script, f"flavours[{number}]", _flavour_data(given.products, flavour, cut=held < total))
    _write_script(target / "data/products.js", "products", _products(given.products))
    catalogue = {
        "title": given.title,
        "as_of_snapshot": given.as_of_snapshot,
        "total": total,
        "held": held,
        "products_per_prefix": OF_A_PREFIX,
        "comparison": {key: value for key, value in (given.comparison or {}).items() if key != "markdown"} or None,
    }
    _write_script(target / "data/catalogue.js", "catalogue", catalogue)
    static = files("sid_pipeline.explorer").joinpath("static")
    for name in _STATIC:  # the index last
        text = static.joinpath(name).read_text(encoding="utf-8")
        if name == "index.html":
            tags = "\n".join(f'<script src="{script}"></script>' for script in scripts)
            text = text.replace("<!-- flavours -->", tags)
        (target / name).write_text(text, encoding="utf-8")
    return target / "index.html"


def _validate(given: ExplorerInput) -> None:
    n = len(given.products)
    for flavour in given.flavours:
        if len(flavour.codes) != n:
            raise ValueError(f"codes of {flavour.name} has {len(flavour.codes)} rows and products {n}: give one each")
    names = [flavour.name for flavour in given.flavours]
    if len(set(names)) < len(names):
        raise ValueError(f"two flavours have one name: {', '.join(names)}")


def _products(products: pa.Table) -> list[list[str]]:
    """Rows of id, title, brand, category, text; a text that only repeats the title is left out."""
    rows = []
    for row in products.to_pylist():
        text = row.get("description") or ""
        shown = text if len(text) <= _TEXT_LIMIT else text[: _TEXT_LIMIT - 1] + "…"
        category, brand = " > ".join(row.get("category") or ()), row.get("brand") or ""
        rows.append([row["product_id"], row["title"], brand, category, "" if shown == row["title"] else shown])
    return rows


def _flavour_data(products: pa.Table, flavour: ExplorerFlavour, cut: bool) -> dict[str, Any]:
    """Codes of the products, and rows of prefix, count, name, words, brands in the order of the tree."""
    codes = np.asarray(flavour.codes)
    assigned: np.ndarray = np.asarray((codes >= 0).all(axis=1))
    levels = LEVELS_WHEN_CUT if cut else codes.shape[1]
    names = flavour.names
    if names is None:
        names = prefix_names(codes[assigned], products.filter(pa.array(assigned)), levels=levels)
    names = names.filter(pc.less_equal(names["level"], levels))
    prefixes = [
        [row["prefix"], row["products"], row["name"], " ".join(row["words"]), ", ".join(row["brands"])]
        for row in names.select(["prefix", "products", "name", "words", "brands"]).to_pylist()
    ]
    prefixes.sort(key=lambda row: [int(code) for code in row[0].split("_")])
    without = int((~assigned).sum()) if flavour.without_sid is None else flavour.without_sid
    return {
        "name": flavour.name,
        "release": flavour.release,
        "levels": int(codes.shape[1]),
        "without_sid": without,
        "report": None if flavour.report is None else _report(flavour.report),
        "unusual": [dict(row) for row in flavour.unusual],
        "previous": None
        if flavour.previous is None
        else {k: v for k, v in flavour.previous.items() if k != "markdown"},
        "codes": [row if has else None for row, has in zip(codes.tolist(), assigned.tolist(), strict=True)],
        "prefixes": prefixes,
    }


def _report(report: Mapping[str, Any]) -> dict[str, Any]:
    """What the pages show of a report: figures as they are read, shares and counts for the charts, the lists."""
    order = [OURS, *(name for name in report["tables"] if name not in TABLE_LABELS), *list(TABLE_LABELS)[1:]]
    tables = {name: report["tables"][name] for name in order if name in report["tables"]}  # a file's keys are sorted
    return {
        "items": report["items"],
        "population": (report["population"] or {}).get("items"),
        "tables": [TABLE_LABELS.get(name, name) for name in tables],
        "figures": [
            {
                "key": figure.key,
                "group": figure.group,
                "label": figure.label,
                "meaning": figure.meaning,
                "better": figure.better,
                "cells": [
                    {
                        "shown": shown(figure, picked),
                        "interval": interval(figure, picked).strip(" ()"),
                        "value": value_of(picked),
                    }
                    for picked in (figure.pick(table) for table in tables.values())
                ],
            }
            for figure in figures(report)
        ],
        "pairs90": tables[OURS]["pairs90"],
        "share90": [
            {"table": TABLE_LABELS.get(name, name), "level": level, "share": value_of(share)}
            for name, table in tables.items()
            for level, share in enumerate(table["share90"], 1)
            if share is not None
        ],
        "agreement": [
            {"prefix": row["prefix_level"], "tree": row["tree_level"], "ami": value_of(row["ami"])}
            for row in tables[OURS]["taxonomy"]
            if row["ami"] is not None
        ],
        "code_counts": report["code_counts"],
        "fragmented": tables[OURS]["fragmentation"]["levels"],
        "misplaced": report["error_propagation_examples"],
        "misplaced_level": tables[OURS]["error_propagation"]["prefix_level"],
        "different_texts": report["different_texts"],
    }


def _write_script(path: Path, slot: str, value: Any) -> None:
    """A script that puts `value` into `window.SID_DATA`; ASCII only, so no encoding can go wrong."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    path.write_text(f"window.SID_DATA.{slot} = {text};\n", encoding="ascii")
