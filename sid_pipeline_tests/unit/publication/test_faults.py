"""kill -9 at every step that changes a disk, a full disk, and two processes at once: publish and promote.

A worker process counts the calls that change what is on the disk (writes, renames, removals, commits) and kills itself
with SIGKILL before or after the n-th one. n runs until the worker comes to its end, so no boundary is left out.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sid_pipeline.promotion_log import promotions
from sid_pipeline.publication.folder import finished
from sid_pipeline.publication.live import read_pointer
from sid_pipeline.reader import open_live, open_release
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.settings import load_settings
from sid_pipeline_tests.publications import DAY1, DAY2

ROOT = Path(__file__).resolve().parents[3]
SIDS1 = {product: sid for product, sid in DAY1.items() if isinstance(sid, str)}
SIDS2 = {product: sid for product, sid in DAY2.items() if isinstance(sid, str)}

# One process that serves many trials: each forks after the imports, so that a trial costs milliseconds.
WORKER = """
import json, os, pathlib, shutil, signal, sys
import pyarrow.parquet as pq
import deltalake, pandas, safetensors.numpy  # what is imported on first use, before the forks
from sid_pipeline.promotion import go_live, hold, release_hold, rollback
from sid_pipeline.publication.publish import publish
from sid_pipeline.receipts import Receipt
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.settings import load_settings
from sid_pipeline_tests.publications import DAY1, DAY2, source

def counted(owner, name, kill_at, after, count=[0]):
    real = getattr(owner, name)
    def call(*args, **more):
        count[0] += 1
        mine = count[0]
        if mine == kill_at and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return real(*args, **more)
        finally:
            if mine == kill_at and after:
                os.kill(os.getpid(), signal.SIGKILL)
    setattr(owner, name, call)

def work(action, project):
    warehouse = Warehouse(load_settings(pathlib.Path(project) / "sid.toml", env={}))
    if action in ("publish", "publish first"):
        rows, day = (DAY1, "2026-01-05") if action == "publish first" else (DAY2, "2026-01-06")
        what = source(pathlib.Path(project), rows, snapshot=day)
        made = publish(warehouse.store, what, pathlib.Path(project) / "spool")
        facts = {"folder": made.folder, "as_of_snapshot": day, "codebook_id": what.pins["codebook_id"]}
        warehouse.receipts.put(Receipt("esci/publication", "r1", {}, "v", facts=facts))
    elif action == "advance":
        go_live(warehouse, "esci", "r1", by="pipeline", reason="checks passed", switch=False)
    else:
        {"rollback": rollback, "hold": hold, "release": release_hold}[action](warehouse, "esci", by="Ada", reason="x")

for line in sys.stdin:
    action, project, kill_at, after = json.loads(line)
    child = os.fork()
    if child == 0:
        for owner, name in (
            (os, "replace"), (os, "rename"), (os, "unlink"), (os, "fsync"), (os, "mkdir"), (os, "rmdir"),
            (shutil, "copytree"), (pathlib.Path, "write_text"), (pathlib.Path, "write_bytes"),
            (pq.ParquetWriter, "write_table"), (pq.ParquetWriter, "close"), (deltalake, "write_deltalake"),
        ):
            counted(owner, name, kill_at, after)
        try:
            work(action, project)
            status = 0
        except BaseException:
            import traceback
            traceback.print_exc()
            status = 1
        os._exit(status)
    print(os.waitpid(child, 0)[1], flush=True)
"""


@pytest.fixture(scope="module")
def worker():
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )

    def run(action: str, project: Path, kill_at: int = 0, after: bool = False) -> bool:
        """Whether the worker came to its end; killed at its n-th durable step otherwise."""
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps([action, str(project), kill_at, after]) + "\n")
        process.stdin.flush()
        status = int(process.stdout.readline())
        assert status == 0 or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL), status
        return status == 0

    yield run
    process.stdin.close()
    process.wait()


@pytest.fixture
def project(tmp_path):
    return new_project(tmp_path / "project")


def new_project(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "sid.toml").write_text('[source]\nproducts = "p.csv"\n[publication]\nmax_product_drop = 0.5\n')
    return folder


def warehouse_of(project: Path) -> Warehouse:
    return Warehouse(load_settings(project / "sid.toml", env={}))


def published(project: Path) -> dict[str, bytes]:
    """Everything readers can see, by path."""
    root = project / ".sid"
    paths = [path for kind in ("publications", "live") for path in (root / kind).rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths if not path.name.startswith(".")}


def folder_bytes(project: Path, folder: str) -> dict[str, bytes]:
    return {path: data for path, data in published(project).items() if path.startswith(folder)}


def steps(default: int) -> pytest.MarkDecorator:
    """A default run kills at every `default`-th step, the slow one at every step."""
    return pytest.mark.parametrize("stride", [default, pytest.param(1, marks=pytest.mark.slow)])


def boundaries(worker, action, make, stride):
    """Kill at the n-th durable step, up to the one after the last; gives the project after each kill."""
    for after in (False, True):
        number = 1 - stride + after * (stride // 2)
        while True:
            number += stride
            project = make(f"{action}-{after}-{number}")
            if worker(action, project, number, after):
                assert number > 3, "so few steps: the worker counts nothing"
                break
            yield project


@steps(11)
def test_killed_while_publishing(worker, project, tmp_path, stride):
    worker("publish first", project)
    worker("advance", project)
    whole = new_project(tmp_path / "whole")
    for action in ("publish first", "advance", "publish"):
        worker(action, whole)
    wanted = folder_bytes(whole, finished(warehouse_of(whole).store, "esci", "r1")[-1])
    before = published(project)

    def make(name):
        copy = tmp_path / name
        subprocess.run(["cp", "-r", str(project), str(copy)], check=True)
        return copy

    kills = 0
    for crashed in boundaries(worker, "publish", make, stride):
        kills += 1
        state = crashed / ".sid"
        now = published(crashed)
        assert {path: now[path] for path in before} == before, "what was published is as it was"
        assert open_live("esci", state).sids() == SIDS1
        assert open_release("esci", "r1", state).sids() in (SIDS1, SIDS2), "whole or not there"
        assert worker("publish", crashed), "a rerun completes"
        newest = finished(warehouse_of(crashed).store, "esci", "r1")
        assert len(newest) == 2 and folder_bytes(crashed, newest[-1]) == wanted, "with the same bytes"
        assert not list((state / ".scratch").rglob("*.parquet")), "nothing is left lying about"
    assert kills * stride > 60


@steps(4)
@pytest.mark.parametrize(
    ("actions", "action", "live_after", "kinds_after"),
    [
        (["publish first"], "advance", SIDS1, ["first"]),
        (["publish first", "advance", "publish"], "advance", SIDS2, ["first", "advance"]),
        (["publish first", "advance", "publish", "advance"], "rollback", SIDS1, ["first", "advance", "rollback"]),
        (["publish first", "advance"], "hold", SIDS1, ["first", "hold"]),
        (["publish first", "advance", "hold"], "release", SIDS1, ["first", "hold", "release hold"]),
    ],
)
def test_killed_while_changing_what_is_live(
    worker, project, tmp_path, actions, action, live_after, kinds_after, stride
):
    for step in actions:
        worker(step, project)
    state = project / ".sid"
    live = open_live("esci", state).sids() if "advance" in actions else None

    def make(name):
        copy = tmp_path / name
        subprocess.run(["cp", "-r", str(project), str(copy)], check=True)
        return copy

    for crashed in boundaries(worker, action, make, stride):
        warehouse = warehouse_of(crashed)
        now = open_live("esci", crashed / ".sid").sids() if read_pointer(warehouse.store, "esci") else None
        assert now in (live, live_after)
        if now != live:
            assert [row["kind"] for row in promotions(warehouse, "esci")] == kinds_after, "never live and not logged"
        if action != "rollback" or now == live:
            assert worker(action, crashed), "a rerun completes"
        assert open_live("esci", crashed / ".sid").sids() == live_after
        assert [row["kind"] for row in promotions(warehouse, "esci")] == kinds_after, "and is logged once"


def test_a_full_disk(worker, project, tmp_path):
    """A limit on the size of files stands for the disk: every write beyond it fails, as on a full one."""
    from sid_pipeline.publication.publish import publish
    from sid_pipeline_tests.publications import source

    worker("publish first", project)
    worker("advance", project)
    before = published(project)
    store = warehouse_of(project).store
    rows = {f"p{i:06d}": f"{i % 16}_{i % 7}_{i % 5}_{i % 3}" for i in range(20_000)}
    what = source(project, rows, offers=None, snapshot="2026-01-06")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, old[1]))
        with pytest.raises(OSError, match=r"(?i)file too large"):
            publish(store, what, tmp_path / "spool")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert published(project) == before
    assert not [path for path in (project / ".sid" / ".scratch").rglob("*") if path.suffix != ".lock"]
    assert open_release("esci", "r1", publish(store, what, tmp_path / "spool") and project / ".sid").sids() == rows


def test_two_processes_publish_and_promote_at_once(project):
    script = WORKER.split("for line in sys.stdin:")[0] + (
        "\nfor action in ('publish first', 'advance', 'publish', 'advance'): work(action, sys.argv[1])\n"
    )
    both = [subprocess.Popen([sys.executable, "-c", script, str(project)], cwd=ROOT) for _ in range(2)]
    assert [process.wait(timeout=300) for process in both] == [0, 0]
    warehouse = warehouse_of(project)
    folders = finished(warehouse.store, "esci", "r1")
    numbers = [folder.rsplit("/", 1)[-1][:6] for folder in folders]
    assert numbers == sorted(set(numbers)), "every number once"
    assert open_live("esci", project / ".sid").folder in folders
    rows = promotions(warehouse, "esci")
    assert rows[0]["kind"] == "first"
    assert rows[-1]["publication"] == read_pointer(warehouse.store, "esci")["publication"]
    assert all(a["publication"] == b["previous"] for a, b in itertools.pairwise(rows)), "an unbroken log"
