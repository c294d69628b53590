"""Assignment on a real standalone cluster and through a real Spark Connect server, on loopback.

The executors run a Python that has numpy, pyarrow and safetensors but not this project, which is shipped to them.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyspark
import pytest

from sid_pipeline.resources.jars import delta_jars
from sid_pipeline.resources.tables import Tables
from sid_pipeline.rqvae import Codebook, TrainConfig, train
from sid_pipeline.schemas import SEMANTIC_IDS
from sid_pipeline_tests.spark.assign_job import SLICE, vectors

SPARK_HOME = Path(pyspark.__file__).parent
PROJECT = Path(__file__).resolve().parents[2]
ROWS = 3_000

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def codebook(tmp_path_factory) -> tuple[Codebook, Path]:
    book = train(
        vectors(16, range(10_000, 10_600)), None,
        TrainConfig(codebook_size=16, latent_dim=8, steps=5, batch_size=128, threads=1),
    )  # fmt: skip
    return book, book.save(tmp_path_factory.mktemp("codebooks") / book.id)


@pytest.fixture(scope="module")
def foreign_python(tmp_path_factory) -> Path:
    """This interpreter and its packages, but no editable install: the project cannot be imported."""
    wrapper = tmp_path_factory.mktemp("python") / "python"
    packages = sysconfig.get_paths()["purelib"]
    wrapper.write_text(
        f'#!/bin/sh\nPYTHONPATH="$PYTHONPATH:{packages}"\nexport PYTHONPATH\nexec {sys.executable} -S "$@"\n'
    )
    wrapper.chmod(0o755)
    probe = "import numpy, pyarrow, safetensors, importlib.util as u; print(u.find_spec('sid_pipeline'))"
    environment = {"PATH": os.environ["PATH"]}
    found = subprocess.run([str(wrapper), "-c", probe], cwd="/", env=environment, capture_output=True, text=True)
    assert found.stdout.strip() == "None", found
    return wrapper


@pytest.fixture
def spawn(tmp_path, foreign_python) -> Iterator[Callable]:
    """Starts Spark's own processes, each in a group of its own, and ends them by their ids."""
    started: list[subprocess.Popen] = []
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "SPARK_HOME": str(SPARK_HOME),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_PYTHON": str(foreign_python),
        "OPENBLAS_NUM_THREADS": "1",
        **{name: os.environ[name] for name in ("JAVA_HOME",) if name in os.environ},
    }

    def run(name: str, *command: str) -> subprocess.Popen:
        log = (tmp_path / f"{name}.log").open("w")
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        started.append(process)
        return process

    yield run
    for process in started:
        kill(process)


def kill(process: subprocess.Popen) -> None:
    """kill -9 of a process and all that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(true: Callable[[], bool], what: str, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"{what} did not come up"
        time.sleep(0.1)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def start_job(tmp_path, foreign_python, folder, spark, **more) -> subprocess.Popen:
    file = tmp_path / "job.json"
    job = {"root": str(tmp_path / "tables"), "codebook": str(folder), "snapshot": "2026-01-05", "products": [0, ROWS]}
    file.write_text(json.dumps({**job, "spark": spark, **more}))
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "PYSPARK_PYTHON": str(foreign_python)}
    return subprocess.Popen(
        [sys.executable, "-m", "sid_pipeline_tests.spark.assign_job", str(file)],
        cwd=PROJECT, env=environment, stdout=subprocess.PIPE, stderr=(tmp_path / "job.log").open("w"), text=True,
        start_new_session=True,
    )  # fmt: skip


def check_result(job, tmp_path, book) -> dict:
    out, _ = job.communicate(timeout=600)
    assert job.returncode == 0, (tmp_path / "job.log").read_text()[-4000:]
    tables = Tables(tmp_path / "tables", lambda: pytest.fail("Spark was asked for"))
    rows = tables.arrow(SEMANTIC_IDS, **SLICE).to_pylist()
    assert len(rows) == len({row["product_id"] for row in rows}) == ROWS, "every row once"
    found = {row["product_id"]: row["codes"] for row in rows}
    assert [found[f"p{i}"] for i in range(ROWS)] == book.encode(vectors(book.dim, range(ROWS))).tolist()
    return json.loads(out.splitlines()[-1])


def test_a_cluster_without_the_project_that_loses_a_worker(tmp_path, spawn, foreign_python, codebook):
    book, folder = codebook
    port, spark_class = free_port(), str(SPARK_HOME / "bin" / "spark-class")
    spawn("master", spark_class, "org.apache.spark.deploy.master.Master", "--host", "127.0.0.1",
          "--port", str(port), "--webui-port", "0")  # fmt: skip
    wait_for(lambda: listens(port), "the master")
    workers = [
        spawn(f"worker{n}", spark_class, "org.apache.spark.deploy.worker.Worker", "--host", "127.0.0.1", "--cores", "1",
              "--memory", "700m", "--webui-port", "0", "--work-dir", str(tmp_path / f"work{n}"),
              f"spark://127.0.0.1:{port}")
        for n in (1, 2)
    ]  # fmt: skip
    for n in (1, 2):
        wait_for(lambda n=n: "Successfully registered" in (tmp_path / f"worker{n}.log").read_text(), f"worker {n}")
    marks = tmp_path / "marks"
    marks.mkdir()
    conf = {
        "spark.executor.memory": "600m",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.sql.adaptive.coalescePartitions.enabled": "false",
    }
    cluster = {"master": f"spark://127.0.0.1:{port}", "driver_memory": "700m", "conf": conf}
    job = start_job(tmp_path, foreign_python, folder, cluster, slow=str(marks), partitions=24)
    # Both executors have had work and more is to come.
    wait_for(lambda: len(list(marks.iterdir())) >= 6 or job.poll() is not None, "the job's first batches", 300)
    assert all(list((tmp_path / f"work{n}").glob("app-*/*")) for n in (1, 2)), "both workers run an executor"
    kill(workers[0])
    killed_after = len(list(marks.iterdir()))
    check_result(job, tmp_path, book)
    assert len(list(marks.iterdir())) > killed_after, "the job was in the middle of its work"


def test_spark_connect(tmp_path, spawn, foreign_python, codebook):
    pytest.importorskip("grpc_status")
    book, folder = codebook
    port = free_port()
    conf = {
        "spark.jars": ",".join(delta_jars()),
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": str(port),
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.shuffle.partitions": "2",
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.ui.enabled": "false",
        "spark.driver.memory": "1g",
    }
    spawn("connect", str(SPARK_HOME / "bin" / "spark-submit"), "--master", "local[2]",
          *[part for name, value in conf.items() for part in ("--conf", f"{name}={value}")],
          "--class", "org.apache.spark.sql.connect.service.SparkConnectServer", "spark-internal")  # fmt: skip
    wait_for(lambda: listens(port), "the Connect server")
    remote = {"remote": f"sc://127.0.0.1:{port}"}
    job = start_job(tmp_path, foreign_python, folder, remote)
    told = check_result(job, tmp_path, book)
    assert told == {"touched": ROWS, "whole": True, "tries": 1, "same": True}

    # A second night through MERGE: 10 withdrawn, 10 new, in capacity or not.
    job = start_job(tmp_path, foreign_python, folder, remote, products=[10, ROWS + 10], snapshot="2026-01-06")
    out, _ = job.communicate(timeout=600)
    assert job.returncode == 0, (tmp_path / "job.log").read_text()[-4000:]
    assert json.loads(out.splitlines()[-1]) == {"touched": 20, "whole": False, "tries": 1, "same": True}
