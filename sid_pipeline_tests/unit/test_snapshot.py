"""What the catalogue's asset takes for its inputs, and what it tells of values that were left out."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sid_pipeline.assets import snapshot
from sid_pipeline.ingest.errors import InputError
from sid_pipeline.settings import load_settings

DAY = "2026-01-05"


def inputs(folder: Path, source: str) -> dict[str, object]:
    (folder / "sid.toml").write_text(f"[source]\n{source}\n")
    settings: Any = load_settings(folder / "sid.toml", env={})
    warehouse: Any = SimpleNamespace(settings=settings, claim=lambda: None)
    return snapshot._source_fingerprints(warehouse, DAY)


def test_the_format_is_what_the_settings_say(tmp_path: Path) -> None:
    (tmp_path / "cat.txt").write_text("product_id,title\n1,Tea\n")
    found = inputs(tmp_path, "products = 'cat.txt'\noffers = 'cat.txt'\nformat = 'csv'")
    assert found["products"] == found["offers"] and found["products"]


@pytest.mark.parametrize("missing", ["products", "offers"])
def test_what_is_missing_is_named_by_its_own_setting(tmp_path: Path, missing: str) -> None:
    (tmp_path / "there.csv").write_text("product_id,title\n1,Tea\n")
    places = {"products": "there.csv", "offers": "there.csv", missing: "no.csv"}
    with pytest.raises(InputError, match=rf"no\.csv does not exist.* mend \[source\] {missing}"):
        inputs(tmp_path, "\n".join(f"{name} = '{place}'" for name, place in places.items()))


class Frame:
    """As much of a data frame as is asked of the values left out."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def limit(self, number: int) -> Frame:
        return Frame(min(number, self.rows))

    def count(self) -> int:
        return self.rows

    def collect(self) -> list[Any]:
        row = {"source_row": 1, "product_id": "P", "column": "available", "value": "perhaps", "message": "is neither"}
        return [SimpleNamespace(asDict=lambda: row)] * self.rows


@pytest.mark.parametrize("rows", [0, 3, 20, 500])
def test_values_left_out_are_counted_and_the_first_are_shown(rows: int) -> None:
    told = snapshot._left_out(Frame(rows))
    assert told["values left out in all"] == rows
    assert told["values left out"].count("perhaps") == min(rows, 20)
