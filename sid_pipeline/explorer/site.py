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
# Under a cut the tree keeps its first levels whole, and deeper ones only as far as products are held.
_LEVELS_WHEN_CUT = 2
_TEXT_LIMIT = 240


@dataclass(frozen=True)
class ExplorerFlavour:
    """One flavour's code table, and what was found out about it.

    Attributes:
        name, release: shown, and used in addresses inside the site.
        codes: (N, L) int; a row with a negative code has no SID in this flavour.
        names: table with the columns prefix, level, count, name, words, top_brands of `prefix_names`; None: it
            is computed.
        report: `Report.to_dict()`, for the health charts and the lists of fragmented and suspicious products; or
            None.
        unusual: products farther from their codewords than the training set ever was: rows of product_id,
            distance, margin; the worst first.
        previous: how the table differs from the one before: `against` (its name), what `codebook_diff.diff`
            returns, and `why`, from product_id to what changed the SID; or None where there is none.
    """

    name: str
    release: str
    codes: np.ndarray
    names: pa.Table | None = None
    report: Mapping[str, Any] | None = None
    unusual: Sequence[Mapping[str, Any]] = ()
    previous: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class ExplorerInput:
    """What the explorer shows.

    Attributes:
        title, as_of_snapshot: of the whole site.
        product_ids, titles: N strings, each product_id once.
        flavours: code tables of these N products, row by row.
        brands, categories, texts: N each, or None where there are none. `texts` is shown below the
            title, cut.
        comparison: what `compare_flavours` returns, or None.
        max_products: most products held. All are held up to this number.
        products_per_prefix: above it, most products held of one prefix of two levels.
    """

    title: str
    as_of_snapshot: str
    product_ids: Sequence[str]
    titles: Sequence[str]
    flavours: Sequence[ExplorerFlavour]
    brands: Sequence[str | None] | None = None
    categories: Sequence[tuple[str, ...] | None] | None = None
    texts: Sequence[str | None] | None = None
    comparison: Mapping[str, Any] | None = None
    max_products: int = 20_000
    products_per_prefix: int = 30


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
    held = _held_rows(given)
    cut = len(held) < len(given.product_ids)
    scripts = []
    for number, flavour in enumerate(given.flavours):
        script = f"data/flavour_{number}.js"
        scripts.append(script)
        _write_script(target / script, f"flavours[{number}]", _flavour_data(given, flavour, held, cut))
    _write_script(target / "data/products.js", "products", _products(given, held))
    catalogue = {
        "title": given.title,
        "as_of_snapshot": given.as_of_snapshot,
        "total": len(given.product_ids),
        "held": len(held),
        "products_per_prefix": given.products_per_prefix,
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
    n = len(given.product_ids)
    lengths = {
        "titles": given.titles,
        "brands": given.brands,
        "categories": given.categories,
        "texts": given.texts,
        **{f"codes of {flavour.name}": flavour.codes for flavour in given.flavours},
    }
    for name, values in lengths.items():
        if values is not None and len(values) != n:
            raise ValueError(f"{name} has {len(values)} rows and product_ids {n}: give one for every product")
    names = [flavour.name for flavour in given.flavours]
    if len(set(names)) < len(names):
        raise ValueError(f"two flavours have one name: {', '.join(names)}")


def _held_rows(given: ExplorerInput) -> np.ndarray:
    """Rows whose products go into the data: all, or the first few of each prefix of two levels."""
    n = len(given.product_ids)
    if n <= given.max_products:
        return np.arange(n)
    rank = np.full(n, n, np.int64)
    for flavour in given.flavours:
        codes = np.asarray(flavour.codes)
        rows = np.flatnonzero((codes >= 0).all(axis=1))
        part = prefix_ids(codes[rows])[:, min(_LEVELS_WHEN_CUT, codes.shape[1]) - 1]
        order = np.argsort(part, kind="stable")
        place = np.arange(len(rows)) - np.searchsorted(part[order], part[order])
        rank[rows[order]] = np.minimum(rank[rows[order]], place)
    chosen = np.argsort(rank, kind="stable")[: given.max_products]
    return np.sort(chosen[rank[chosen] < given.products_per_prefix])


def _products(given: ExplorerInput, held: np.ndarray) -> list[list[str]]:
    """Rows of id, title, brand, category, text; a text that only repeats the title is left out."""
    rows = []
    for row in held.tolist():
        title = given.titles[row]
        text = (given.texts[row] or "") if given.texts is not None else ""
        path = (given.categories[row] or ()) if given.categories is not None else ()
        brand = (given.brands[row] or "") if given.brands is not None else ""
        shown = text if len(text) <= _TEXT_LIMIT else text[: _TEXT_LIMIT - 1] + "…"
        rows.append([given.product_ids[row], title, brand, " > ".join(path), "" if shown == title else shown])
    return rows


def _flavour_data(given: ExplorerInput, flavour: ExplorerFlavour, held: np.ndarray, cut: bool) -> dict[str, Any]:
    """Codes of the held products, and rows of prefix, count, name, words, brands in the order of the tree."""
    codes = np.asarray(flavour.codes)
    assigned: np.ndarray = np.asarray((codes >= 0).all(axis=1))
    levels = _LEVELS_WHEN_CUT if cut else codes.shape[1]
    names = flavour.names
    if names is None:
        rows = np.flatnonzero(assigned).tolist()
        names = prefix_names(
            codes[assigned],
            [given.product_ids[row] for row in rows],
            [given.titles[row] for row in rows],
            [given.categories[row] for row in rows] if given.categories is not None else None,
            [given.brands[row] for row in rows] if given.brands is not None else None,
            levels=levels,
        )
    prefixes = [
        [row["prefix"], row["count"], row["name"], " ".join(row["words"]), ", ".join(row["top_brands"])]
        for row in names.select(["prefix", "level", "count", "name", "words", "top_brands"]).to_pylist()
        if row["level"] <= levels
    ]
    prefixes.sort(key=lambda row: [int(code) for code in row[0].split("_")])
    return {
        "name": flavour.name,
        "release": flavour.release,
        "levels": int(codes.shape[1]),
        "without_sid": int((~assigned).sum()),
        "report": None if flavour.report is None else _report(flavour.report),
        "unusual": [dict(row) for row in flavour.unusual],
        "previous": None if flavour.previous is None else _previous(flavour.previous),
        "codes": [codes[row].tolist() if assigned[row] else None for row in held.tolist()],
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


def _previous(previous: Mapping[str, Any]) -> dict[str, Any]:
    why = previous["why"]
    reasons: dict[str, int] = {}
    for reason in why.values():
        reasons[reason] = reasons.get(reason, 0) + 1
    return {
        **{key: value for key, value in previous.items() if key not in {"markdown", "why"}},
        "moved_examples": [{**row, "why": why.get(row["product_id"], "")} for row in previous["moved_examples"]],
        "reasons": dict(sorted(reasons.items())),
    }


def _write_script(path: Path, slot: str, value: Any) -> None:
    """A script that puts `value` into `window.SID_DATA`; ASCII only, so no encoding can go wrong."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    path.write_text(f"window.SID_DATA.{slot} = {text};\n", encoding="ascii")
