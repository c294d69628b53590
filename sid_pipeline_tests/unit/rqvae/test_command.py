"""`python -m sid_pipeline.rqvae`: from a copied training set to a codebook, without Spark and Dagster."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from sid_pipeline.rqvae import Codebook, train
from sid_pipeline.rqvae.__main__ import main
from sid_pipeline_tests.unit.rqvae.data import catalogue, quick

SETTINGS = [f"{k}={v}" for k, v in quick(steps=10).to_dict().items() if v is not None and k != "device"]
ARGUMENTS = [word for setting in [*SETTINGS, "device=cpu"] for word in ("--set", setting)]

# Every package that the pipeline has and a training machine need not have.
BLOCKED = """
import runpy, sys
for name in ("pyspark", "dagster", "deltalake", "pandas", "pydantic", "sentence_transformers"):
    sys.modules[name] = None
sys.argv[0] = "sid_pipeline.rqvae"
runpy.run_module("sid_pipeline.rqvae", run_name="__main__")
"""


@pytest.fixture
def training_set(tmp_path: Path) -> Path:
    folder = tmp_path / "training_set"
    folder.mkdir()
    x, paths = catalogue()
    np.save(folder / "vectors.npy", x)
    np.save(folder / "paths.npy", paths.astype(np.int32))
    names = ("vectors.npy", "paths.npy")
    files = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    manifest = {"id": "t1", "pins": {"release": "r1"}, "categorised": 400, "files": files}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_it_trains_without_spark_and_dagster_what_a_call_would(training_set: Path, tmp_path: Path) -> None:
    out = tmp_path / "codebooks"
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, str(training_set), str(out), *ARGUMENTS],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert done.returncode == 0, done.stderr
    book = Codebook.load(done.stdout.strip())
    x, paths = catalogue()
    assert book.id == train(x, paths, quick(steps=10)).id
    assert book.manifest["provenance"] == {"training_set": "t1", "pins": {"release": "r1"}}
    assert [p.name for p in out.iterdir()] == [book.id]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: (f / "manifest.json").unlink(), "no finished training set"),
        (lambda f: (f / "paths.npy").unlink(), "paths.npy cannot be read"),
        (lambda f: np.save(f / "vectors.npy", np.ones((500, 16), np.float32)), "vectors.npy differs from what"),
    ],
)
def test_a_spoilt_folder_is_named(training_set: Path, tmp_path: Path, capsys, spoil, words: str) -> None:
    spoil(training_set)
    assert main([str(training_set), str(tmp_path / "out"), *ARGUMENTS]) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_wrong_setting_is_named(training_set: Path, tmp_path: Path, capsys) -> None:
    assert main([str(training_set), str(tmp_path / "out"), "--set", "lamda=1"]) == 1
    assert "no field 'lamda'" in capsys.readouterr().err
