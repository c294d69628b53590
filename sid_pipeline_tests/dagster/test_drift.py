"""The drift check over receipts as nights leave them, its alert, and the line of `sid status`. No Spark is started."""

from __future__ import annotations

from datetime import date, timedelta

import dagster as dg
import pytest

from sid_pipeline import alerts
from sid_pipeline.assets import drift as asset
from sid_pipeline.assets.recording import Check
from sid_pipeline.definitions import build_definitions
from sid_pipeline.drift import drifted, nights
from sid_pipeline.receipts import Receipt
from sid_pipeline.releases import SERVED, Release
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import NIGHTLY_FIGURES, RELEASES
from sid_pipeline.settings import load_settings
from sid_pipeline.status import show_status

warnings: list[str] = []


@pytest.fixture
def warehouse(tmp_path, monkeypatch) -> Warehouse:
    (tmp_path / "sid.toml").write_text('[source]\nproducts = "p.csv"\n[flavours.esci]\nenabled = false\n')
    monkeypatch.setattr(Warehouse, "spark", property(lambda self: pytest.fail("Spark was asked for")))
    warehouse = Warehouse(load_settings(tmp_path / "sid.toml", env={}))
    row = Release("r1", SERVED, "t", "1", "2026-01-05", {}).to_row()
    warehouse.tables.append_rows(RELEASES, [row])
    return warehouse


@pytest.fixture
def told(monkeypatch) -> list[alerts.Alert]:
    sent: list[alerts.Alert] = []
    monkeypatch.setattr(asset, "tell", lambda settings, alert: sent.append(alert) or [])
    return sent


def night(warehouse: Warehouse, number: int, distance: float, odd: int = 5, fallback: int = 0) -> str:
    """The receipts that a night leaves."""
    day = (date(2026, 1, 5) + timedelta(days=number)).isoformat()
    usage = {f"usage L{level}": 0.9 for level in range(1, 5)}
    figures = {"dagster/row_count": 1000, "out of distribution": odd, "without a SID": 0, "mean distance": distance}
    facts = {"as_of_snapshot": day, "codebook_id": "c", "rows": 1000}
    put = warehouse.receipts.put
    put(Receipt("products", day, {}, "v", metadata={"rejected share": 0.001}))
    money = {"dagster/row_count": 1000, "cost of this run, USD": 0.02}
    put(Receipt("cleaned_attributes", day, {}, "v", facts={"fallback": fallback, "cleaned_now": 100}, metadata=money))
    put(Receipt("esci_gemma/semantic_ids", "r1", {}, day, facts=facts, metadata={**figures, **usage}))
    return day


def look(warehouse: Warehouse) -> Check:
    return asset.judge_night(warehouse, "esci_gemma", "r1", {"collision_rate": 0.1}, warnings.append)


def test_the_check_belongs_to_the_report_and_blocks_nothing(warehouse):
    definitions = build_definitions(warehouse.settings)
    graph = definitions.resolve_asset_graph()
    (key,) = (key for key in graph.asset_check_keys if key.name == "drift")
    spec = graph.get_check_spec(key)
    assert spec.asset_key == dg.AssetKey(["esci_gemma", "report"]) and not spec.blocking


def test_quiet_nights_pass_and_are_remembered(warehouse, told):
    for number in range(9):
        night(warehouse, number, 0.2 + 0.001 * (number % 3))
        assert look(warehouse).passed
    known = nights(warehouse, "esci_gemma", "r1")
    assert len(known) == 9 and known[-1].figures == {
        "products": 1000, "out_of_distribution": 0.005, "without_a_sid": 0, "mean_distance": 0.202,
        **{f"usage_l{level}": 0.9 for level in range(1, 5)}, "collision_rate": 0.1, "rejected": 0.001,
        "fallback": 0, "cost_per_text": 0.0002,
    }  # fmt: skip
    rows = len(warehouse.tables.arrow(NIGHTLY_FIGURES))
    look(warehouse)
    assert len(nights(warehouse, "esci_gemma", "r1")) == 9
    assert rows == len(warehouse.tables.arrow(NIGHTLY_FIGURES))
    assert told == [] and "drift: none" in show_status(warehouse)


def test_a_drift_is_told_once_and_stays_in_the_status(warehouse, told):
    for number in range(9):
        night(warehouse, number, 0.2)
        look(warehouse)
    night(warehouse, 9, 0.3)
    found = look(warehouse)
    assert not found.passed and found.warning
    assert "mean quantisation distance 0.3" in found.sentence and "build a release" in found.sentence
    look(warehouse)
    night(warehouse, 10, 0.3)
    assert not look(warehouse).passed
    (alert,) = told
    assert alert.kind == "drift" and "esci_gemma r1 has drifted as of 2026-01-14" in alert.subject
    assert "0.3" in alert.happened and "0.2" in alert.happened and "build a release" in alert.todo
    assert "drift: esci_gemma r1: mean quantisation distance 0.3" in show_status(warehouse)
    night(warehouse, 11, 0.3, fallback=400)
    look(warehouse)
    assert len(told) == 2 and "fell back" in told[1].happened, "another figure is told of"


def test_a_second_night_of_a_cut_delivery_is_told(warehouse, told):
    night(warehouse, 0, 0.2)
    assert look(warehouse).passed
    day = night(warehouse, 1, 0.2)
    assert look(warehouse).passed
    warehouse.receipts.put(Receipt("offers", day, {}, "v", metadata={"rejected share": 0.118}))
    found = look(warehouse)
    assert found.warning and "share of offers rejected 0.118, the first night that has it" in found.sentence, (
        "of this figure"
    )
    (alert,) = told
    assert "offers rejected" in alert.happened and "Look at the delivery" in alert.todo
    assert "share of offers rejected 0.118" in show_status(warehouse)
    warehouse.receipts.put(Receipt("offers", day, {}, "whole", metadata={"rejected share": 0.0}))
    assert look(warehouse).passed and len(told) == 1 and "drift: none" in show_status(warehouse)


def test_a_webhook_that_is_down_fails_no_night(warehouse, monkeypatch):
    monkeypatch.setattr(asset, "tell", lambda settings, alert: ["webhook: URLError"])
    for number in range(9):
        night(warehouse, number, 0.2)
        look(warehouse)
    night(warehouse, 9, 0.3)
    warnings.clear()
    assert not look(warehouse).passed and drifted(warehouse, "esci_gemma", "r1")
    assert warnings == ["webhook: URLError"]
