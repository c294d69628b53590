"""Whose state a folder is: it may move, and another catalogue is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sid_pipeline.embedders import where_now
from sid_pipeline.ingest.errors import InputError
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.settings import load_settings


def project(folder: Path, products: str = "data/p.csv", state: str = ".sid") -> Warehouse:
    folder.mkdir(exist_ok=True)
    (folder / "sid.toml").write_text(f'state_dir = "{state}"\n[source]\nproducts = "{products}"\n', encoding="utf-8")
    return Warehouse(load_settings(folder / "sid.toml", env={}))


def test_the_state_may_move_to_another_disk(tmp_path):
    project(tmp_path / "a").claim()
    shutil.move(tmp_path / "a" / ".sid", tmp_path / "disk" / ".sid")
    project(tmp_path / "a", state="../disk/.sid").claim()
    project(tmp_path / "a", state="../disk/.sid").claim()


def test_the_settings_may_move(tmp_path):
    project(tmp_path / "a").claim()
    project(tmp_path / "b", products="../a/data/p.csv", state="../a/.sid").claim()


def test_the_whole_project_may_move_and_its_state_after_it(tmp_path):
    project(tmp_path / "a").claim()
    (tmp_path / "a").rename(tmp_path / "b")
    project(tmp_path / "b").claim()
    shutil.move(tmp_path / "b" / ".sid", tmp_path / "disk" / ".sid")
    project(tmp_path / "b", state="../disk/.sid").claim()


def test_state_that_knows_the_relative_place_only_goes_on_and_may_move_from_then_on(tmp_path):
    warehouse = project(tmp_path / "a")
    warehouse.state.mkdir()
    (warehouse.state / "catalogue.json").write_text('{"products": "../data/p.csv"}\n', encoding="utf-8")
    warehouse.claim()
    assert json.loads((warehouse.state / "catalogue.json").read_text())["at"] == str(tmp_path / "a" / "data" / "p.csv")
    shutil.move(tmp_path / "a" / ".sid", tmp_path / "disk" / ".sid")
    project(tmp_path / "a", state="../disk/.sid").claim()


def test_another_catalogue_is_refused_with_a_way_for_the_same_one_at_another_place(tmp_path):
    project(tmp_path / "a").claim()
    other = project(tmp_path / "b", state="../a/.sid")
    with pytest.raises(InputError, match=r"holds another catalogue .*remove .*catalogue\.json and run again"):
        other.claim()
    (other.state / "catalogue.json").unlink()
    other.claim()


def test_a_model_that_was_trained_here_moves_with_the_state(tmp_path):
    (tmp_path / "disk" / ".sid" / "artefacts" / "models" / "m1").mkdir(parents=True)
    moved = project(tmp_path / "a", state="../disk/.sid")
    assert where_now(moved, "./.sid/artefacts/models/m1") == "./../disk/.sid/artefacts/models/m1"
    for other in ("./.sid/artefacts/models/m2", "org/model", "../my/m1"):
        assert where_now(moved, other) == other
