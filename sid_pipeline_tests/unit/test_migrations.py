"""State says which version wrote it: another one's is refused with a sentence, an older one is migrated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from sid_pipeline import cli, migrations
from sid_pipeline.assets.recording import MENDABLE
from sid_pipeline.migrations import STATE_VERSION, StateError, check, mark, migrate, version_of
from sid_pipeline.receipts import Receipt, Receipts
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.settings import load_settings


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    (tmp_path / "sid.toml").write_text('[source]\nproducts = "p.csv"\n', encoding="utf-8")
    return Warehouse(load_settings(tmp_path / "sid.toml", env={}))


def write_version(warehouse: Warehouse, version: object) -> None:
    warehouse.state.mkdir(exist_ok=True)
    (warehouse.state / "version.json").write_text(json.dumps({"state": version}))


def test_new_state_is_marked_at_the_first_materialisation(warehouse):
    check(warehouse.state)
    assert version_of(warehouse.state) is None
    warehouse.receipts.begin("products", "2026-01-05")
    assert version_of(warehouse.state) == STATE_VERSION
    check(warehouse.state)


def test_state_from_before_versions_is_the_first(warehouse):
    Receipts(warehouse.state / "receipts").put(Receipt("products", "2026-01-05", {}, "v"))
    (warehouse.state / "version.json").unlink()
    assert version_of(warehouse.state) == 1
    mark(warehouse.state)
    assert version_of(warehouse.state) == 1, "old state is never marked as new"
    with pytest.raises(StateError, match="run `sid migrate`"):
        warehouse.receipts.partitions("products")


@pytest.mark.parametrize("use", [lambda w: w.tables, lambda w: w.receipts, lambda w: w.claim()])
def test_newer_state_is_refused_before_anything_reads_it(warehouse, use):
    write_version(warehouse, STATE_VERSION + 1)
    with pytest.raises(StateError, match="newer version") as refused:
        use(warehouse)
    assert isinstance(refused.value, MENDABLE)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"state": "2"}', '{"state": true}', "\x00"])
def test_a_spoilt_version_is_no_version(warehouse, text):
    warehouse.state.mkdir()
    (warehouse.state / "version.json").write_text(text)
    with pytest.raises(StateError, match="restore it"):
        check(warehouse.state)


def test_state_older_than_every_step_is_refused(warehouse):
    write_version(warehouse, 0)
    with pytest.raises(StateError, match="older than any"):
        check(warehouse.state)
    with pytest.raises(StateError, match="older than any"):
        migrate(warehouse)


def test_steps_run_in_order_and_an_interrupted_one_runs_again(warehouse, monkeypatch):
    ran = []

    def step(number: int):
        def run(_: Warehouse) -> str:
            ran.append(number)
            if ran.count(number) == 1 and number == 2:
                raise OSError("the disk is full")
            return "done"

        return run

    monkeypatch.setattr(migrations, "STATE_VERSION", 4)
    monkeypatch.setattr(migrations, "STEPS", {number: step(number) for number in (1, 2, 3)})
    write_version(warehouse, 1)
    with pytest.raises(OSError):
        migrate(warehouse)
    assert version_of(warehouse.state) == 2
    assert migrate(warehouse) == ["2 to 3: done", "3 to 4: done"]
    assert ran == [1, 2, 2, 3] and version_of(warehouse.state) == 4
    assert migrate(warehouse) == []


def test_every_version_has_its_step():
    assert sorted(migrations.STEPS) == list(range(1, STATE_VERSION))


def test_the_command_line_says_it_in_a_sentence(warehouse, monkeypatch):
    monkeypatch.setenv("SID_SETTINGS", str(warehouse.settings.root / "sid.toml"))
    write_version(warehouse, STATE_VERSION + 1)
    done = CliRunner().invoke(cli.main, ["status"])
    assert done.exit_code == 1 and "newer version" in done.output and "Traceback" not in done.output
    write_version(warehouse, STATE_VERSION)
    assert "already" in CliRunner().invoke(cli.main, ["migrate"]).output
