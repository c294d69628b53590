"""Codes depend on the vector and the codebook alone: a small form of `bench/assignment_exact.py`."""

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from sid_pipeline.assignment.assign import CODED_SCHEMA, NO_TEXT, code_batches
from sid_pipeline.rqvae import Codebook, TrainConfig, train

ROWS = 8_000


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    rng = np.random.default_rng(5)
    centres = rng.standard_normal((120, 64))
    rows = centres[rng.integers(0, len(centres), ROWS)] + 0.3 * rng.standard_normal((ROWS, 64))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def codebook(x) -> Codebook:
    return train(x[:4_000], None, TrainConfig(codebook_size=64, latent_dim=32, steps=3, batch_size=256, threads=1))


@pytest.fixture(scope="module")
def codes(codebook, x) -> np.ndarray:
    return codebook.encode(x)


def batches(x, sizes):
    """Arrow batches as the workers get them."""
    for start in np.cumsum([0, *sizes])[:-1]:
        rows = x[start : start + sizes[0]]
        vectors = pa.array([row.tobytes() for row in rows], pa.binary())
        names = pa.array([str(start + i) for i in range(len(rows))])
        yield pa.RecordBatch.from_arrays(
            [names, vectors, pa.nulls(len(rows), pa.string())], ["text_hash", "vector_0", "fault"]
        )


def coded(codebook, given):
    table = pa.Table.from_batches(code_batches(codebook, [1.0])(given), schema=CODED_SCHEMA)
    found = table["codes"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
    return found[np.argsort(table["text_hash"].to_numpy(zero_copy_only=False).astype(int))]


@pytest.mark.parametrize("size", [1_000, 7, 8_000])
def test_whatever_the_batches(codebook, codes, x, size):
    rows = 700 if size == 7 else ROWS
    assert np.array_equal(coded(codebook, batches(x[:rows], [size] * (rows // size))), codes[:rows])


def test_whatever_the_order(codebook, codes, x):
    order = np.random.default_rng(0).permutation(ROWS)
    assert np.array_equal(codebook.encode(x[order]), codes[order])


def test_float64_throughout_gives_the_same(codebook, codes, x):
    double = Codebook(codebook.arrays, {**codebook.config, "margin_bound": float("inf")})
    assert np.array_equal(double.encode(x), codes)


ELSEWHERE = """
import json, sys, numpy as np
from threadpoolctl import threadpool_info
from sid_pipeline.rqvae import Codebook
np.save(sys.argv[3], Codebook.load(sys.argv[1]).encode(np.load(sys.argv[2])))
blas = [i for i in threadpool_info() if i["internal_api"] == "openblas"]
print(json.dumps([[i["architecture"], i["num_threads"]] for i in blas] + ["torch" in sys.modules]))
"""


@pytest.mark.parametrize("kernels, threads", [("Haswell", "1"), ("Nehalem", "2")])
def test_other_blas_kernels_and_threads_give_the_same(codebook, codes, x, tmp_path, kernels, threads):
    folder = codebook.save(tmp_path / codebook.id)
    np.save(tmp_path / "x.npy", x)
    told = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(folder), str(tmp_path / "x.npy"), str(tmp_path / "codes.npy")],
        env={**os.environ, "OPENBLAS_CORETYPE": kernels, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    *blas, torch_was_loaded = json.loads(told)
    if not any(architecture == kernels for architecture, _ in blas):
        pytest.skip(f"numpy's BLAS here does not take {kernels} kernels: {blas}")
    assert np.array_equal(np.load(tmp_path / "codes.npy"), codes)
    assert torch_was_loaded is False, "encoding needs numpy alone"


def test_a_batch_of_unusable_rows_keeps_their_faults(codebook):
    batch = pa.RecordBatch.from_arrays(
        [pa.array(["a", "b"]), pa.nulls(2, pa.binary()), pa.array(["the vector is zero", None])],
        ["text_hash", "vector_0", "fault"],
    )
    (found,) = code_batches(codebook, [1.0])(iter([batch]))
    assert found.column("fault").to_pylist() == ["the vector is zero", NO_TEXT]
    assert found.column("codes").to_pylist() == [None, None]
    assert found.schema == CODED_SCHEMA
