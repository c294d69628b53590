"""A driver of its own for the tests of crashes, races, clusters and Connect: one refresh of a slice.

    python -m sid_pipeline_tests.spark.assign_job JOB.json

JOB.json: root, codebook, snapshot, products (from, to), spark (settings), and optionally
    die       'before', 'during' or 'after' the commit: kill -9 of the driver and its JVM at that point
    barrier   a folder where this process leaves a file and waits until there are two, before it writes
    slow      a folder where every batch leaves a file, half a second each
Prints one JSON line: touched, whole, tries.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import uuid
from pathlib import Path

import numpy as np

from sid_pipeline.assignment import refresh as module
from sid_pipeline.assignment.assign import Assigner, Catalogue
from sid_pipeline.assignment.collisions import Policy
from sid_pipeline.resources.spark import spark_session
from sid_pipeline.resources.tables import Tables
from sid_pipeline.rqvae import Codebook
from sid_pipeline.schemas import SEMANTIC_IDS
from sid_pipeline.settings import SparkSettings

SLICE = {"flavour": "esci", "release": "r1"}


class SlowCodebook(Codebook):
    """Takes its time over each batch and leaves a mark."""

    marks: str

    def quantise(self, x):
        Path(self.marks, uuid.uuid4().hex).touch()
        time.sleep(0.5)
        return super().quantise(x)


def vectors(dim: int, rows: range) -> np.ndarray:
    """(len(rows), dim) float32 unit vectors, each a function of its number alone."""
    x = np.stack([np.random.default_rng(row).standard_normal(dim) for row in rows])
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def catalogue(spark, dim: int, rows: range, partitions: int = 2) -> Catalogue:
    """Products p0, p1, ... with one text each."""
    products = spark.createDataFrame([(f"p{i}", f"s{i}") for i in rows], "product_id string, text_hash string")
    texts = spark.createDataFrame([(f"p{i}", f"t{i}") for i in rows], "product_id string, text_hash string")
    store = [(f"t{i}", bytearray(x.tobytes()), None) for i, x in zip(rows, vectors(dim, rows), strict=True)]
    frame = spark.createDataFrame(store, "text_hash string, vector binary, fault string")
    return Catalogue(products, [texts], [frame.repartition(partitions, "text_hash")])


def die() -> None:
    """kill -9 of this driver and the JVM that it started."""
    os.killpg(os.getpgid(0), signal.SIGKILL)


def die_while_writing(folder: Path, before: set[Path]) -> None:
    """Wait for a data file that no commit names yet, then die."""
    while not set(folder.rglob("*.parquet")) - before:
        time.sleep(0.001)
    die()


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    spark = spark_session(SparkSettings(**job["spark"]))
    tables = Tables(job["root"], lambda: spark)
    codebook = Codebook.load(job["codebook"])
    if job.get("slow"):
        codebook.__class__ = SlowCodebook
        codebook.marks = job["slow"]
    commit, tries = tables._commit, 0

    def commit_at_a_bad_time(spec, write, slice, since):
        nonlocal tries
        tries += 1
        if job.get("die") == "before":
            die()
        if job.get("die") == "during":
            folder = Path(tables.location(spec))
            watcher = (folder, set(folder.rglob("*.parquet")))
            threading.Thread(target=die_while_writing, args=watcher, daemon=True).start()
        if job.get("barrier") and tries == 1:
            barrier = Path(job["barrier"])
            (barrier / uuid.uuid4().hex).touch()
            while len(list(barrier.iterdir())) < 2:
                time.sleep(0.05)
        rows = commit(spec, write, slice, since)
        if job.get("die") == "after":
            die()
        return rows

    tables._commit = commit_at_a_bad_time  # type: ignore[method-assign]
    assigner = Assigner(codebook, [1.0], Policy(*job.get("policy", ["share"])), job["snapshot"])
    rows = range(*job["products"])
    done = module.refresh(tables, catalogue(spark, codebook.dim, rows, job.get("partitions", 2)), assigner, **SLICE)
    # Read back through this very session too: a cluster and a Connect service must give the same.
    slice = tables.read(SEMANTIC_IDS, **SLICE)
    seen = module.inspect(
        slice, tables.spark.createDataFrame([(f"p{i}",) for i in rows], "product_id string"),
        codebook.levels, codebook.codebook_size, job["snapshot"],
    )  # fmt: skip
    print(json.dumps({"touched": done.touched, "whole": done.whole, "tries": tries, "same": seen.same_products}))
    spark.stop()


if __name__ == "__main__":
    main()
