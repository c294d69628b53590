"""The Spark runner on a real standalone cluster: a master and two workers of one core each, on loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyspark
import pytest

from sid_pipeline.embedding.model import Embedder
from sid_pipeline.settings import EmbedderSettings
from sid_pipeline_tests.tiny_models import WORDS

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).resolve().parents[2]
SPARK_CLASS = str(Path(pyspark.__file__).parent / "bin" / "spark-class")
TEXTS = 400
# The driver: encodes in two partitions and says which executor process encoded what.
JOB = """
import json, os, sys
from pathlib import Path
from sid_pipeline.embedding.spark import encoded_texts
from sid_pipeline.resources.spark import spark_session
from sid_pipeline.settings import EmbedderSettings, SparkSettings

master, model, texts, out = sys.argv[1:]
conf = {"spark.executor.memory": "512m", "spark.executor.cores": "1", "spark.cores.max": "2",
        "spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1", "spark.ui.enabled": "false",
        "spark.scheduler.minRegisteredResourcesRatio": "1.0",
        "spark.scheduler.maxRegisteredResourcesWaitingTime": "120s",
        "spark.locality.wait": "0s"}
spark = spark_session(SparkSettings(master=master, conf=conf))
rows = json.loads(Path(texts).read_text())
frame = spark.createDataFrame([(f"h{i}", text) for i, text in enumerate(rows)], "text_hash string, text string")
encoded = encoded_texts(frame.repartition(2), EmbedderSettings(model=model, device="cpu"), Path("/"))
found = encoded.toArrow().to_pylist()
Path(out).write_text(json.dumps({row["text_hash"]: row["vector"].hex() for row in found}))
spark.stop()
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """Address of the master; ends what it started by its process ids."""
    started: list[subprocess.Popen] = []
    environment = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}

    def start(name: str, *command: str) -> Path:
        log = tmp_path / f"{name}.log"
        with log.open("w") as file:
            started.append(
                subprocess.Popen(
                    [SPARK_CLASS, *command], cwd=tmp_path, env=environment, stdout=file, stderr=file,
                    start_new_session=True,
                )
            )  # fmt: skip
        return log

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    try:
        master = start(
            "master", "org.apache.spark.deploy.master.Master", "--host", "127.0.0.1", "--port", port,
            "--webui-port", "0",
        )  # fmt: skip
        wait_for(lambda: "I have been elected leader" in master.read_text(), "the master")
        for n in (1, 2):
            log = start(
                f"worker{n}", "org.apache.spark.deploy.worker.Worker", "--host", "127.0.0.1", "--cores", "1",
                "--memory", "600m", "--webui-port", "0", "--work-dir", str(tmp_path / f"work{n}"),
                f"spark://127.0.0.1:{port}",
            )  # fmt: skip
            wait_for(lambda log=log: "Successfully registered" in log.read_text(), f"worker {n}")
        yield f"spark://127.0.0.1:{port}"
    finally:
        for process in started:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(true: Callable[[], bool], what: str, seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"{what} did not come up"
        time.sleep(0.2)


def test_two_workers_encode_what_one_process_encodes(tmp_path, cluster, tiny_bert):
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(WORDS, draw.integers(1, 12))) for _ in range(TEXTS)]
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    done = subprocess.run(
        [sys.executable, "-c", JOB, cluster, str(tiny_bert), str(tmp_path / "texts.json"), str(tmp_path / "out.json")],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(PROJECT)}, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "out.json").read_text())
    assert len(found) == TEXTS
    vectors = np.stack([np.frombuffer(bytes.fromhex(found[f"h{i}"]), "<f4") for i in range(TEXTS)])
    expected = Embedder.load(EmbedderSettings(model=str(tiny_bert), device="cpu"), PROJECT).encode(texts)
    assert np.allclose(vectors, expected, atol=1e-6)
    worked = [(tmp_path / f"work{n}").rglob("stderr") for n in (1, 2)]
    assert all(any("Finished task" in log.read_text() for log in logs) for logs in worked), "both workers had work"
