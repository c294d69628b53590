"""Are codes exact? One million rows through a trained codebook in different ways; differing codes are counted.

    python bench/assignment_exact.py [--rows 1000000] [--only NAME,NAME]

Each variant is a process of its own, because BLAS chooses its kernels and threads when it is loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from assignment_common import CACHE, DIM, ROOT, memory_file, trained

from sid_pipeline.rqvae import Codebook

ONE = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
TWO = {name: "2" for name in ONE}
VARIANTS: dict[str, dict[str, str]] = {
    "batches of 10,000": ONE,
    "batches of 1 to 3,000": ONE,
    "another order": ONE,
    "two BLAS threads": TWO,
    "AVX2 kernels (Haswell)": {**ONE, "OPENBLAS_CORETYPE": "Haswell"},
    "products by torch": ONE,
    "float64 throughout": ONE,
    "Spark, 7 partitions by hash": ONE,
    "Spark, 3 partitions, batches of 777": ONE,
    "SSE kernels (Nehalem)": {**ONE, "OPENBLAS_CORETYPE": "Nehalem"},
}


class TorchMatrix(np.ndarray):
    """A matrix whose product with what stands left of it is made by torch."""

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, left: Any, right: Any, out: Any) -> np.ndarray:
        import torch

        assert ufunc is np.matmul and right is self, ufunc
        made = torch.matmul(torch.from_numpy(np.ascontiguousarray(left)), torch.from_numpy(self.view(np.ndarray)))
        out[0][:] = made.numpy()
        return out[0]


def with_torch(book: Codebook) -> Codebook:
    """A codebook whose float32 products are torch's; the float64 recheck stays numpy's."""
    engine = book._engine(np.float32)
    engine.front, engine.keys = engine.front.view(TorchMatrix), engine.keys.view(TorchMatrix)
    engine.word_scores = [words.view(TorchMatrix) for words in engine.word_scores]
    engine.deeper = [weight.view(TorchMatrix) for weight in engine.deeper]
    return book


def in_batches(book: Codebook, x: np.ndarray, ends: np.ndarray) -> np.ndarray:
    return np.concatenate([book.encode(part) for part in np.split(x, ends) if len(part)])


def by_spark(book: Codebook, x: np.ndarray, partitions: int, batch: int) -> np.ndarray:
    """Through the very function that the pipeline's workers run."""
    from sid_pipeline.assignment.assign import CODED_DDL, code_batches
    from sid_pipeline.resources.spark import spark_session
    from sid_pipeline.settings import SparkSettings

    path = CACHE / f"vectors-{len(x)}.parquet"
    if not path.is_file():
        with pq.ParquetWriter(path, pa.schema([("text_hash", pa.string()), ("vector_0", pa.binary())])) as writer:
            for start in range(0, len(x), 50_000):
                rows = [row.tobytes() for row in x[start : start + 50_000]]
                names = [str(start + i) for i in range(len(rows))]
                writer.write_table(pa.table({"text_hash": names, "vector_0": pa.array(rows, pa.binary())}))
    conf = {"spark.sql.execution.arrow.maxRecordsPerBatch": str(batch)}
    spark = spark_session(SparkSettings(master="local[2]", driver_memory="2g", conf=conf))
    frame = spark.read.parquet(str(path)).selectExpr("text_hash", "vector_0", "CAST(NULL AS string) AS fault")
    coded = frame.repartition(partitions, "text_hash").mapInArrow(code_batches(book, [1.0]), CODED_DDL)
    found = coded.select("text_hash", "codes").toArrow()
    spark.stop()
    codes = found["codes"].combine_chunks().flatten().to_numpy().reshape(len(found), -1)
    return codes[np.argsort(found["text_hash"].to_numpy(zero_copy_only=False).astype(np.int64))]


def run(name: str, rows: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Codes of one variant in the rows' order, and what it says of itself."""
    book = trained()
    x = np.memmap(memory_file(rows), np.float32, "r").reshape(rows, DIM)
    rng = np.random.default_rng(1)
    facts: dict[str, Any] = {}
    if name == "batches of 10,000":
        result = [book.quantise(x[start : start + 10_000]) for start in range(0, rows, 10_000)]
        margin = np.concatenate([part.margin for part in result])
        bound = book.config["margin_bound"]
        facts = {"margin_bound": bound, "share of rows within the bound": float((margin <= bound).mean())}
        codes = np.concatenate([part.codes for part in result])
    elif name == "batches of 1 to 3,000":
        codes = in_batches(book, x, np.cumsum(rng.integers(1, 3_000, rows // 500)))
    elif name == "another order":
        order = rng.permutation(rows)
        codes = np.empty((rows, book.levels), np.int32)
        for part in np.array_split(order, rows // 10_000):
            codes[part] = book.encode(x[part])
    elif name == "products by torch":
        codes = in_batches(with_torch(book), x, np.arange(10_000, rows, 10_000))
    elif name == "float64 throughout":
        double = Codebook(book.arrays, {**book.config, "margin_bound": float("inf")})
        codes = in_batches(double, x, np.arange(10_000, rows, 10_000))
    elif name.startswith("Spark, 7"):
        codes = by_spark(book, x, 7, 10_000)
    elif name.startswith("Spark, 3"):
        codes = by_spark(book, x, 3, 777)
    else:
        codes = in_batches(book, x, np.arange(10_000, rows, 10_000))
    from threadpoolctl import threadpool_info

    blas = [f"{i['architecture']} x{i['num_threads']}" for i in threadpool_info() if i["internal_api"] == "openblas"]
    return codes, {**facts, "numpy's BLAS": blas}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--only", type=lambda text: text.split("; "), default=list(VARIANTS))
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.variant:
        codes, facts = run(args.variant, args.rows)
        np.save(CACHE / "codes.npy", codes)
        print(json.dumps(facts))
        return
    trained()
    memory_file(args.rows)
    reference = None
    for name in args.only:
        command = [sys.executable, __file__, "--rows", str(args.rows), "--variant", name]
        environment = {**os.environ, **VARIANTS[name], "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
        told = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
        codes = np.load(CACHE / "codes.npy")
        reference = codes if reference is None else reference
        differing = int((codes != reference).any(axis=1).sum())
        facts = json.loads(told.splitlines()[-1])
        print(
            json.dumps({"variant": name, "rows": len(codes), "rows with other codes": differing, **facts}), flush=True
        )


if __name__ == "__main__":
    main()
