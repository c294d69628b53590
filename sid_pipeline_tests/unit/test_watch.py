"""What is asked of sources and stores that do not answer, and what a night waits for. No Spark is started."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from sid_pipeline import watch
from sid_pipeline.ingest.source_files import Unreachable
from sid_pipeline.publication.folder import PublicationError
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.settings import load_settings
from sid_pipeline.watch import (
    has_arrived,
    last_delivery,
    late_places,
    stale_flavours,
    still_missing,
    waiting_nights,
    what_is_served,
)

DAY = "2026-01-05"
OWN = """
[source]
products = "catalogue/{snapshot}.csv"
offers = "offers/{snapshot}.csv"
[embedders.own]
vectors = "vectors/{snapshot}.parquet"
dimension = 4
revision = "1"
[embedders.fixed]
vectors = "fixed.parquet"
dimension = 4
revision = "2"
[embedders.unused]
vectors = "unused/{snapshot}.parquet"
dimension = 4
revision = "3"
[flavours.esci]
embedders = {own = 1.0, fixed = 1.0}
[flavours.esci_gemma]
enabled = false
embedders = {unused = 1.0}
"""


class Down(MemoryFileSystem):
    """An object store that cannot be reached; its own error says more than is meant to be shown."""

    protocol = "down"
    cachable = False

    def info(self, path, **_):
        raise PermissionError("the key AKIA-hunter2 has expired")

    ls = info


fsspec.register_implementation("down", Down, clobber=True)


def opened(tmp_path, text: str) -> Warehouse:
    (tmp_path / "sid.toml").write_text(text, encoding="utf-8")
    return Warehouse(load_settings(tmp_path / "sid.toml", env={}))


def arrive(warehouse: Warehouse, name: str) -> None:
    file = warehouse.settings.root / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"x")


def test_a_night_waits_for_catalogue_offers_and_the_vectors_of_enabled_flavours(tmp_path):
    warehouse = opened(tmp_path, OWN)
    names = [f"catalogue/{DAY}.csv", f"offers/{DAY}.csv", f"vectors/{DAY}.parquet"]
    for number, name in enumerate(names):
        assert still_missing(warehouse, DAY) == [str(tmp_path / missing) for missing in names[number:]]
        assert not has_arrived(warehouse, DAY) and waiting_nights(warehouse, date(2026, 1, 6)) == []
        arrive(warehouse, name)
    assert has_arrived(warehouse, DAY) and waiting_nights(warehouse, date(2026, 1, 6)) == [DAY]
    delivered = last_delivery(warehouse, DAY)
    assert delivered is not None and abs(delivered - datetime.now(timezone.utc)) < timedelta(minutes=10)


@pytest.mark.parametrize("place", ["down://shop/{snapshot}.csv", "down://shop/{snapshot}/*.csv", "nope://x/{snapshot}"])
def test_a_place_that_cannot_be_looked_at_is_not_one_where_nothing_lies(tmp_path, place):
    warehouse = opened(tmp_path, f'[source]\nproducts = "{place}"\n')
    due = datetime(2026, 1, 5, 2, 30, tzinfo=timezone.utc)
    for ask in (
        lambda: has_arrived(warehouse, DAY),
        lambda: waiting_nights(warehouse, date(2026, 1, 6)),
        lambda: late_places(warehouse, due + timedelta(hours=4), due),
    ):
        with pytest.raises(Unreachable, match=r"\[source\] products") as fault:
            ask()
        assert "hunter2" not in str(fault.value) and fault.value.__suppress_context__
    assert last_delivery(warehouse, DAY) is None


def test_a_store_that_does_not_answer_is_told_by_the_kind_of_its_error(tmp_path, monkeypatch):
    warehouse = opened(tmp_path, '[source]\nproducts = "p.csv"\n')
    pointers = {
        "esci": ConnectionError("http://key:hunter2@store"),
        "esci_gemma": {"release": "r1", "as_of_snapshot": DAY},
    }

    def read(_, flavour):
        if isinstance(pointers[flavour], Exception):
            raise pointers[flavour]
        return pointers[flavour]

    monkeypatch.setattr(watch, "live_pointer", read)
    assert what_is_served(warehouse) == (f"esci: cannot be read (ConnectionError); esci_gemma: release r1 as of {DAY}")
    assert [stale.flavour for stale in stale_flavours(warehouse, date(2026, 1, 20))] == ["esci_gemma"]
    pointers["esci"] = PublicationError("esci.json is broken: promote a release again")
    assert what_is_served(warehouse).startswith("esci: esci.json is broken: promote a release again; ")
