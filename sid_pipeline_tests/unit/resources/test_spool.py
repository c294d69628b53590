"""Scratch folders: of one process each, and taken away only where it is known that nobody writes there."""

from __future__ import annotations

import os
import socket
import subprocess

import pytest

from sid_pipeline.processes import identity
from sid_pipeline.resources.tables import is_left_behind, spool_dir

GONE = "999999999"


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "shop-1.example")
    return "shop_1_example"


def test_a_folder_is_of_one_process_and_one_use(tmp_path, here):
    first, second = (spool_dir(tmp_path, "catalogue-2026-01-05") for _ in range(2))
    assert first != second and first.is_dir() and second.is_dir()
    assert first.parent == tmp_path / "spool" and here in first.name and is_left_behind(first) is False


def test_what_a_killed_process_of_this_machine_left_is_taken_away(tmp_path, here):
    left = tmp_path / "spool" / f"cleaning-{here}-{GONE}-0a1b2c3d"
    other = tmp_path / "spool" / f"publication-{here}-{GONE}-0a1b2c3d"
    for folder in (left, other):
        folder.mkdir(parents=True)
    spool_dir(tmp_path, "cleaning")
    assert not left.exists() and other.is_dir(), "of other work: retention looks at it"


def test_a_number_that_is_given_again_does_not_keep_what_another_process_left(tmp_path, here):
    with subprocess.Popen(["sleep", "60"]) as process:
        noted = identity(process.pid)
        if "." not in noted:
            pytest.skip("the start of a process cannot be read here")
        pid, began, boot = noted.split(".")
        assert is_left_behind(tmp_path / f"cleaning-{here}-{noted}-0a1b2c3d") is False
        assert is_left_behind(tmp_path / f"cleaning-{here}-{pid}.{int(began) - 1}.{boot}-0a1b2c3d") is True
        process.kill()


def test_another_machines_folder_is_not_judged_by_a_number(tmp_path, here):
    folder = tmp_path / "spool" / f"cleaning-shop_2-{GONE}-0a1b2c3d"
    folder.mkdir(parents=True)
    spool_dir(tmp_path, "cleaning")
    assert folder.is_dir() and is_left_behind(folder) is None


def test_a_former_versions_folder_is_left_to_retention(tmp_path, here):
    folder = tmp_path / "spool" / f"catalogue-2026-01-05-{GONE}"
    folder.mkdir(parents=True)
    spool_dir(tmp_path, "catalogue-2026-01-05")
    assert folder.is_dir() and is_left_behind(folder) is True
    assert is_left_behind(tmp_path / f"catalogue-{os.getpid()}") is False
    assert is_left_behind(tmp_path / "notes") is False
