"""A drift is told before it is recorded, so that a kill in between repeats the alert and loses none."""

from __future__ import annotations

import pytest

from sid_pipeline.assets import drift as asset
from sid_pipeline.drift import drifted, nights
from sid_pipeline.evaluation.drift import Night
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.settings import load_settings


class Killed(BaseException):
    """What no handler takes."""


@pytest.fixture
def warehouse(tmp_path) -> Warehouse:
    (tmp_path / "sid.toml").write_text('[source]\nproducts = "p.csv"\n', encoding="utf-8")
    return Warehouse(load_settings(tmp_path / "sid.toml", env={}))


def test_a_kill_around_the_alert_repeats_it_and_loses_none(warehouse, monkeypatch):
    told: list[str] = []
    tonight = [Night("", {})]
    monkeypatch.setattr(asset, "figures_of", lambda *_: tonight[0])
    monkeypatch.setattr(asset, "tell", lambda settings, alert: told.append(alert.subject) or [])

    def look():
        return asset.judge_night(warehouse, "esci", "r1", {}, pytest.fail)

    for number in range(9):
        tonight[0] = Night(f"2026-01-0{number + 1}", {"mean_distance": 0.2})
        assert look().passed
    tonight[0] = Night("2026-01-10", {"mean_distance": 0.3})

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(asset, "tell", killed)
        with pytest.raises(Killed):
            look()
    with monkeypatch.context() as patch:
        patch.setattr(asset, "record", killed)
        with pytest.raises(Killed):
            look()
    assert len(nights(warehouse, "esci", "r1")) == 9 and len(told) == 1
    assert not look().passed and len(told) == 2
    assert not look().passed and len(told) == 2, "recorded, so told no more"
    assert [finding.monitor.figure for finding in drifted(warehouse, "esci", "r1")] == ["mean_distance"]
