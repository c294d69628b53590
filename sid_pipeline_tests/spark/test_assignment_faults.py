"""Crashes, a full disk and two processes on one slice: what was written stays, a rerun completes, nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sid_pipeline.assignment.assign import Assigner
from sid_pipeline.assignment.collisions import Policy
from sid_pipeline.assignment.refresh import refresh
from sid_pipeline.resources.tables import Tables
from sid_pipeline.rqvae import Codebook, TrainConfig, train
from sid_pipeline.schemas import SEMANTIC_IDS
from sid_pipeline_tests.spark.assign_job import SLICE, catalogue, vectors

DAY1, DAY2, DAY3 = "2026-01-05", "2026-01-06", "2026-01-07"
LOCAL = {"master": "local[1]", "driver_memory": "512m"}
PROJECT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def codebook(tmp_path_factory) -> Codebook:
    book = train(
        vectors(16, range(10_000, 10_600)), None,
        TrainConfig(codebook_size=16, latent_dim=8, steps=5, batch_size=128, threads=1),
    )  # fmt: skip
    book.save(tmp_path_factory.mktemp("codebook") / book.id)
    return book


@pytest.fixture(scope="module")
def codebook_folder(codebook, tmp_path_factory) -> Path:
    return codebook.save(tmp_path_factory.mktemp("codebooks") / codebook.id)


@pytest.fixture
def tables(spark, tmp_path):
    return Tables(tmp_path / "tables", lambda: spark)


def night(tables, codebook, rows, day):
    assigner = Assigner(codebook, [1.0], Policy(), day)
    return refresh(tables, catalogue(tables.spark, codebook.dim, rows), assigner, **SLICE)


def rows_of(tables):
    return {row["product_id"]: row for row in tables.arrow(SEMANTIC_IDS, **SLICE).to_pylist()}


def start(tmp_path, name, tables, folder, rows, day, **more) -> subprocess.Popen:
    """Run a job in a process group of its own."""
    file = tmp_path / f"{name}.json"
    job = {"root": tables.root, "codebook": str(folder), "snapshot": day, "products": [rows.start, rows.stop]}
    file.write_text(json.dumps({"spark": LOCAL, **job, **more}))
    return subprocess.Popen(
        [sys.executable, "-m", "sid_pipeline_tests.spark.assign_job", str(file)],
        cwd=PROJECT, stdout=subprocess.PIPE, stderr=(tmp_path / f"{name}.log").open("w"), text=True,
        start_new_session=True, env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )  # fmt: skip


@pytest.mark.parametrize("point", ["before", "during", "after"])
def test_a_driver_killed_at_a_commit_boundary(tables, codebook, codebook_folder, tmp_path, point):
    night(tables, codebook, range(0, 300), DAY1)
    before, version = rows_of(tables), tables.version(SEMANTIC_IDS)

    victim = start(tmp_path, point, tables, codebook_folder, range(10, 310), DAY2, die=point)
    victim.communicate(timeout=600)
    assert victim.returncode == -9, (tmp_path / f"{point}.log").read_text()
    committed = point == "after"
    assert tables.version(SEMANTIC_IDS) == version + committed
    if not committed:
        assert rows_of(tables) == before, "as it was"

    done = night(tables, codebook, range(10, 310), DAY2)
    assert done.touched == (0 if committed else 20)
    assert tables.version(SEMANTIC_IDS) == version + 1, "one commit, whatever happened on the way"
    after = rows_of(tables)
    assert {p for p, row in after.items() if row["withdrawn_on"] == DAY2} == {f"p{i}" for i in range(10)}
    assert {p for p, row in after.items() if row["change"] == "new"} == {f"p{i}" for i in range(10, 310)}
    undisturbed = Tables(tmp_path / "undisturbed", lambda: tables.spark)
    night(undisturbed, codebook, range(0, 300), DAY1)
    night(undisturbed, codebook, range(10, 310), DAY2)
    assert after == rows_of(undisturbed)


def test_two_processes_on_one_slice_lose_nothing(tables, codebook, codebook_folder, tmp_path):
    night(tables, codebook, range(0, 100), DAY1)
    version = tables.version(SEMANTIC_IDS)
    barrier = tmp_path / "barrier"
    barrier.mkdir()
    # Both work out their rows from the same version, and only then write.
    jobs = [
        start(tmp_path, f"p{end}", tables, codebook_folder, range(0, end), day, barrier=str(barrier))
        for end, day in ((120, DAY2), (140, DAY3))
    ]
    outs = [job.communicate(timeout=600)[0] for job in jobs]
    logs = [(tmp_path / f"p{end}.log").read_text()[-2000:] for end in (120, 140)]
    assert jobs[1].returncode == 0, logs
    tries = [
        json.loads(out.splitlines()[-1])["tries"] for job, out in zip(jobs, outs, strict=True) if not job.returncode
    ]
    if jobs[0].returncode:  # the newer day won, and the older one is not put on top of it
        assert f"stands on the newer snapshot {DAY3}" in logs[0] and tries == [1]
    else:
        assert sorted(tries) == [1, 2], "one wins, the other works it out again"
    rows = rows_of(tables)
    assert set(rows) == {f"p{i}" for i in range(140)}
    assert tables.version(SEMANTIC_IDS) == version + len(tries)
    expected = codebook.encode(vectors(codebook.dim, range(140))).tolist()
    assert [rows[f"p{i}"]["codes"] for i in range(140)] == expected


def test_a_full_disk(spark, codebook, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a small disk here")
    try:
        tables = Tables(disk / "tables", lambda: spark)
        night(tables, codebook, range(0, 50), DAY1)
        before, version = rows_of(tables), tables.version(SEMANTIC_IDS)
        (disk / "ballast").write_bytes(b"x" * max(0, _free(disk) - 8_192))
        with pytest.raises(Exception, match=r"(?i)no space left|job aborted|task"):
            night(tables, codebook, range(0, 2_000), DAY2)
        assert (rows_of(tables), tables.version(SEMANTIC_IDS)) == (before, version)
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        assert night(tables, codebook, range(0, 2_000), DAY2).touched == 1_950
        assert len(rows_of(tables)) == 2_000
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def _free(folder: Path) -> int:
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize
