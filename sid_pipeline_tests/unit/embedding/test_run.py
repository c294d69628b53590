"""The streamed run: what is committed when, a real kill in its middle, and several processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sid_pipeline.embedding import run, workers
from sid_pipeline.embedding.model import Embedder, ModelError
from sid_pipeline.embedding.vectors import matrix
from sid_pipeline.settings import EmbedderSettings
from sid_pipeline_tests.tiny_models import WORDS

KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from sid_pipeline.embedding import run
from sid_pipeline.settings import EmbedderSettings

texts, spool, store, model = map(Path, sys.argv[1:])
run.CHUNK = 16

def commit(files):
    for file in files:
        shutil.copy(file, store / file.name)
    if len(list(store.iterdir())) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

run.embed(texts, spool, EmbedderSettings(model=str(model), device="cpu"), Path("."), commit, commit_seconds=0)
"""


def texts(folder: Path, number: int) -> dict[str, str]:
    """Distinct texts by hash, and as a Parquet folder."""
    draw = np.random.default_rng(0)
    made = {f"h{i:04d}": f"{i} " + " ".join(draw.choice(WORDS, draw.integers(1, 12))) for i in range(number)}
    folder.mkdir()
    table = pa.table({"text_hash": list(made), "text": list(made.values()), "faulty": [False] * number})
    pq.write_table(table, folder / "part.parquet", row_group_size=37)
    return made


def stored(files: list[Path]) -> dict[str, bytes]:
    tables = [pq.read_table(file) for file in files]
    hashes = [h for table in tables for h in table["text_hash"].to_pylist()]
    assert len(hashes) == len(set(hashes)), "a text is encoded once"
    return dict(zip(hashes, [v for table in tables for v in table["vector"].to_pylist()], strict=True))


def test_every_text_gets_its_vector_and_committed_files_go(tmp_path, tiny_bert, monkeypatch):
    monkeypatch.setattr(run, "CHUNK", 16)
    made = texts(tmp_path / "texts", 100)
    (tmp_path / "spool").mkdir()
    seen: list[pa.Table] = []
    settings = EmbedderSettings(model=str(tiny_bert), device="cpu")
    work = run.embed(
        tmp_path / "texts", tmp_path / "spool", settings, tmp_path, lambda files: seen.extend(map(pq.read_table, files))
    )
    assert (work.texts, work.faulty) == (100, 0) and 0 < work.padding < 1 and work.seconds > 0
    table = pa.concat_tables(seen)
    expected = Embedder.load(settings, tmp_path).encode([made[h] for h in table["text_hash"].to_pylist()])
    assert sorted(table["text_hash"].to_pylist()) == sorted(made)
    assert np.allclose(matrix(table["vector"]), expected, atol=1e-6)
    assert not list((tmp_path / "spool").iterdir())


def test_no_text_loads_no_model(tmp_path):
    texts(tmp_path / "texts", 0)
    nobody = EmbedderSettings(model="./absent", device="cpu")
    assert run.embed(tmp_path / "texts", tmp_path, nobody, tmp_path, lambda files: None).texts == 0


def test_a_killed_run_keeps_what_was_committed(tmp_path, tiny_bert):
    made = texts(tmp_path / "texts", 100)
    for name in ("spool", "store"):
        (tmp_path / name).mkdir()
    paths = [str(tmp_path / name) for name in ("texts", "spool", "store")]
    command = [sys.executable, "-c", KILLED, *paths, str(tiny_bert)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(Path.cwd())}, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-500:]
    kept = stored(sorted((tmp_path / "store").iterdir()))
    assert len(kept) == 48 and set(kept) < set(made) and all(kept.values())


def test_the_machine_decides_how_many_processes(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    cpu = EmbedderSettings(device="cpu")
    many = workers.PARALLEL_FROM
    assert workers.devices(cpu, None, many) == ["cpu"] * 4
    assert workers.devices(cpu, None, many - 1) == ["cpu"], "few texts do not repay a second process"
    assert workers.devices(cpu, 3, many) == ["cpu"] * 3
    assert workers.devices(EmbedderSettings(device="cuda:1"), 4, many) == ["cuda:1"]
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    auto = EmbedderSettings()
    assert workers.devices(auto, None, many) == ["cuda:0", "cuda:1", "cuda:2"]
    assert workers.devices(auto, 2, many) == ["cuda:0", "cuda:1"]


@pytest.mark.slow
def test_several_processes_give_the_vectors_of_one_in_order(tmp_path, tiny_bert):
    made = list(texts(tmp_path / "texts", 200).values())
    settings = EmbedderSettings(model=str(tiny_bert), device="cpu")
    chunks = [made[start : start + 16] for start in range(0, 200, 16)]
    with workers.encoders(settings, tmp_path, ["cpu", "cpu"]) as encode:
        encoded = list(encode(iter(chunks)))
    assert [len(part.vectors) for part in encoded] == [len(chunk) for chunk in chunks]
    expected = Embedder.load(settings, tmp_path).encode(made)
    assert np.allclose(np.concatenate([part.vectors for part in encoded]), expected, atol=1e-6)


@pytest.mark.slow
def test_a_process_that_dies_is_one_sentence(tmp_path, tiny_bert):
    def chunks():
        yield ["rye bread"]
        yield ["white bread"]
        for child in multiprocessing.active_children():
            child.kill()
        while True:
            yield ["milk"]

    settings = EmbedderSettings(model=str(tiny_bert), device="cpu")
    died = pytest.raises(ModelError, match=r"died.*embedding\.workers")
    with died, workers.encoders(settings, tmp_path, ["cpu", "cpu"]) as encode:
        list(encode(chunks()))
