"""The report as one HTML page that needs nothing besides itself: no network, no script, light and dark.

What belongs here: how the report's figures are laid out. What does not: the figures (`report.py`). Texts from
the catalogue pass through Jinja's autoescape only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from sid_pipeline.evaluation.report import OURS, TABLE_LABELS, Figure, Report, figures, interval, shown, value_of

_CARDS = (
    "share90_l1",
    "share90_l2",
    "spearman_random_and_neighbour",
    "neighbour_overlap_10",
    "distinct_share",
    "reconstruction_cosine",
    "ami_l1_top",
    "error_propagation_top",
)
_GRID_COLUMNS = 32


def render_html(report: Report, names: Mapping[str, str] | None = None) -> str:
    """The report as one page.

    Args:
        report: from `evaluate`.
        names: prefix ("35_7") to readable name, shown beside SIDs where there is one.
    """
    data = report.to_dict()
    rows = figures(data)
    tables = data["tables"]
    by_key = {figure.key: figure for figure in rows}
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = lambda value, digits=1: "-" if value is None else f"{100 * value:.{digits}f} %"
    template = environment.from_string(
        files("sid_pipeline.evaluation").joinpath("report.html.j2").read_text(encoding="utf-8")
    )
    return template.render(
        data=data,
        ours=tables[OURS],
        labels={name: TABLE_LABELS.get(name, name) for name in tables},
        cards=[_card(by_key[key], tables) for key in _CARDS if key in by_key],
        groups=[
            (group, [_row(figure, tables) for figure in rows if figure.group == group])
            for group in dict.fromkeys(figure.group for figure in rows)
        ],
        near_duplicates=[
            [(name, value_of(table["share90"][level])) for name, table in tables.items()]
            for level in range(data["levels"])
        ],
        code_grids=[_code_grid(counts) for counts in data["code_counts"]],
        name_of=lambda sid: _name_of(sid, names or {}),
    )


def _card(figure: Figure, tables: dict[str, Any]) -> dict[str, str]:
    picked = figure.pick(tables[OURS])
    beside = figure.pick(tables["residual_kmeans"])
    return {
        "label": figure.label,
        "value": shown(figure, picked),
        "interval": interval(figure, picked).strip(" ()"),
        "beside": shown(figure, beside),
        "meaning": figure.meaning,
    }


def _row(figure: Figure, tables: dict[str, Any]) -> dict[str, Any]:
    cells = []
    for table in tables.values():
        picked = figure.pick(table)
        value = value_of(picked)
        bar = 100 * min(1.0, max(0.0, value)) if figure.percent and value is not None else None
        cells.append({"shown": shown(figure, picked), "interval": interval(figure, picked).strip(" ()"), "bar": bar})
    return {"label": figure.label, "meaning": figure.meaning, "better": figure.better, "cells": cells}


def _code_grid(counts: list[int]) -> dict[str, Any]:
    """One square per code, shaded by the logarithm of its products."""
    top = math.log1p(max(counts))
    squares = [
        {
            "x": number % _GRID_COLUMNS,
            "y": number // _GRID_COLUMNS,
            "code": number,
            "count": count,
            "shade": round(0.15 + 0.85 * math.log1p(count) / top, 3) if count else 0,
        }
        for number, count in enumerate(counts)
    ]
    return {"squares": squares, "width": _GRID_COLUMNS, "height": math.ceil(len(counts) / _GRID_COLUMNS)}


def _name_of(sid: str, names: Mapping[str, str]) -> str:
    """The name of the longest prefix of a SID that has one, or nothing."""
    codes = sid.split("_")
    return next((names[part] for end in range(len(codes), 0, -1) if (part := "_".join(codes[:end])) in names), "")
