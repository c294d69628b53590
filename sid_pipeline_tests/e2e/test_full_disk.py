"""State on a disk that is full to the last byte: what `sid` says then, and that `sid retention` makes room."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sid_pipeline_tests.state import build

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def disk(tmp_path_factory) -> Iterator[Path]:
    """A small disk of its own; skipped where this user may not mount one."""
    folder = tmp_path_factory.mktemp("disk")
    (folder / "mounted").mkdir()
    with (folder / "image").open("wb") as image:
        image.truncate(100 << 20)
    try:
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(folder / "image")], check=True)
        subprocess.run(["mount", "-o", "loop", str(folder / "image"), str(folder / "mounted")], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no disk can be mounted here: {error}")
    yield folder / "mounted"
    subprocess.run(["umount", str(folder / "mounted")], check=True)


@pytest.fixture(scope="module")
def project(disk) -> Path:
    """A project as a version left it, with Dagster's history and a spool of a process that is gone."""
    folder = disk / "project"
    (newest,) = sorted(build.FOLDER.glob("version_*.tar.xz"))[-1:]
    build.unpack(newest, folder)
    assert sid(folder, "status")[0] == 0
    left = folder / ".sid" / "spool" / "catalogue-999999999"
    left.mkdir(parents=True)
    (left / "rows").write_bytes(bytes(3 << 20))
    for number, size in enumerate((1 << 20, 1 << 10, 1)):
        with pytest.raises(OSError, match="No space left"), (disk / f"full{number}").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(size))
    return folder


def sid(folder: Path, *arguments: str) -> tuple[int, str]:
    env = {k: v for k, v in os.environ.items() if k != "DAGSTER_HOME"}
    command = [sys.executable, "-m", "sid_pipeline.cli", "--settings", str(folder / "sid.toml"), *arguments]
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=900)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


def test_the_status_is_told_all_the_same(project):
    code, told = sid(project, "status")
    assert code == 0 and "esci: live r1" in told and "Dagster's history cannot be opened: A disk is full" in told


@pytest.mark.parametrize("line", [("run",), ("hold", "--by", "Ada", "--reason", "because"), ("retention", "--dry-run")])
def test_what_needs_room_says_so_and_changes_nothing(project, line):
    code, told = sid(project, *line)
    assert code == 1 and "Error: A disk is full" in told and "What is live stays" in told
    assert (project / ".sid" / "spool" / "catalogue-999999999").is_dir()


def test_retention_makes_room_first_and_goes_on(project):
    code, told = sid(project, "retention")
    assert code == 0 and "spool/catalogue-999999999" in told and "done" in told, told
    assert "Deleted " not in told
    assert "cannot be opened" not in sid(project, "status")[1]
