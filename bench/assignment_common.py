"""What the benches of assignment share: seeded vectors at any scale, a codebook trained on them, tables, memory.

Vectors come in blocks, each a function of its number alone, so that any process makes the same ones and nothing
has to be stored. They hang on a tree of 20 x 15 x 10 leaves, in a spectrum that falls as text embeddings' does.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sid_pipeline.rqvae import Codebook  # noqa: E402

DIM = 384
BLOCK = 10_000
CACHE = Path(tempfile.gettempdir()) / "sid-bench-assignment"
TREE = (20, 15, 10)


class Vectors:
    """Unit vectors by block. Cheap to pickle: centres are made again from the seed."""

    def __init__(self, seed: int = 17) -> None:
        self.seed = seed
        self._centres: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"seed": self.seed, "_centres": None}

    @property
    def spectrum(self) -> np.ndarray:
        """Standard deviation per dimension."""
        power = np.arange(1, DIM + 1, dtype=np.float64) ** -1.1
        return np.sqrt(power / power.sum()).astype(np.float32)

    def block(self, number: int, rows: int = BLOCK) -> tuple[np.ndarray, np.ndarray]:
        """Vectors (rows, DIM) float32 and their leaves (rows,) of a block."""
        if self._centres is None:
            rng = np.random.default_rng(self.seed)
            departments, aisles, leaves = (
                rng.standard_normal((count, DIM), dtype=np.float32) * self.spectrum * np.float32(scale)
                for count, scale in zip(np.cumprod(TREE), (1.0, 0.75, 0.55), strict=True)
            )
            self._centres = leaves + np.repeat(aisles, 10, 0) + np.repeat(departments, 150, 0)
        rng = np.random.default_rng([self.seed, number + 1])
        leaf = np.minimum((len(self._centres) * rng.random(rows) ** 1.5).astype(np.int64), len(self._centres) - 1)
        x = self._centres[leaf] + rng.standard_normal((rows, DIM), dtype=np.float32) * self.spectrum * np.float32(0.4)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        return x, leaf


def trained() -> Codebook:
    """A codebook of 4 x 512 with the trainer's defaults, on blocks that no bench encodes; made once and kept.

    Trained by a process of its own, lest torch count as memory of what is measured.
    """
    folder = CACHE / "codebook"
    if not (folder / "manifest.json").is_file():
        subprocess.run([sys.executable, __file__], check=True)
    return Codebook.load(folder)


def _train(seconds: float = 60.0, rows: int = 60_000) -> None:
    from sid_pipeline.rqvae import TrainConfig, train

    source = Vectors()
    blocks = [source.block(10_000_000 + number) for number in range(rows // BLOCK)]
    x = np.concatenate([vectors for vectors, _ in blocks])
    leaf = np.concatenate([leaf for _, leaf in blocks])
    paths = np.stack([leaf // 150, leaf // 10, leaf], axis=1)
    book = train(x, paths, TrainConfig(max_seconds=seconds, threads=1))
    book.save(CACHE / "codebook")


def memory_file(rows: int) -> Path:
    """Vectors as one raw float32 file of (rows, DIM), written once."""
    path = CACHE / f"vectors-{rows}.f32"
    if not path.is_file():
        CACHE.mkdir(parents=True, exist_ok=True)
        source, scratch = Vectors(), path.with_suffix(".part")
        with scratch.open("wb") as file:
            for number in range(rows // BLOCK):
                file.write(source.block(number)[0].tobytes())
        scratch.rename(path)
    return path


def fill_tables(tables: Any, rows: int, snapshot: str, changed_share: float = 0.0) -> None:
    """Products, embedded texts and vectors of a snapshot, made by Spark from nothing but their numbers.

    With `changed_share`, that share of the products has another text than before, whose vector is added to the store.
    """
    from pyspark.sql import functions as F

    from sid_pipeline.schemas import EMBEDDED_PRODUCTS, EMBEDDINGS, PRODUCTS

    spark = tables.spark
    number = F.col("id")
    every = round(1 / changed_share) if changed_share else 0
    version = F.when(number % every == 0, F.lit(snapshot)).otherwise(F.lit("")) if every else F.lit("")
    base = spark.range(0, rows, 1, max(2, rows // 100_000)).select(
        "id", F.format_string("p%09d", number).alias("product_id"),
        F.sha2(F.concat(F.lit("text"), number.cast("string"), version), 256).alias("text_hash"),
    )  # fmt: skip
    products = base.select(
        "product_id", "text_hash", F.col("product_id").alias("title"),
        *[F.lit(None).cast(c.type).alias(c.name) for c in PRODUCTS.columns
          if c.name not in ("snapshot", "product_id", "text_hash", "title")],
    )  # fmt: skip
    tables.replace(PRODUCTS, products, snapshot=snapshot)
    texts = base.select("product_id", "text_hash", F.lit("").alias("text"))
    tables.replace(EMBEDDED_PRODUCTS, texts, embedder_id="e1", snapshot=snapshot)
    source, shift = Vectors(), 0 if not every else 1_000_000

    def vectors(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            x, _ = source.block(shift + batch.column("id")[0].as_py() // BLOCK, len(batch))
            offsets = pa.py_buffer(np.arange(len(x) + 1, dtype=np.int32) * (4 * DIM))
            packed = pa.Array.from_buffers(pa.binary(), len(x), [None, offsets, pa.py_buffer(x.tobytes())])
            columns = [batch.column("text_hash"), packed, pa.nulls(len(x), pa.string())]
            yield pa.RecordBatch.from_arrays(columns, ["text_hash", "vector", "fault"])

    fresh = base.where(number % every == 0) if every else base
    store = fresh.select("id", "text_hash").mapInArrow(vectors, "text_hash string, vector binary, fault string")
    tables.append(EMBEDDINGS, store, embedder_id="e1")


def catalogue(tables: Any, snapshot: str) -> Any:
    """The snapshot as the pipeline hands it to assignment."""
    from sid_pipeline.assignment.assign import STORED, Catalogue
    from sid_pipeline.schemas import EMBEDDED_PRODUCTS, EMBEDDINGS, PRODUCTS

    return Catalogue(
        tables.read(PRODUCTS, snapshot=snapshot).select("product_id", "text_hash"),
        [tables.read(EMBEDDED_PRODUCTS, embedder_id="e1", snapshot=snapshot)],
        [tables.read(EMBEDDINGS, embedder_id="e1")],
        lambda _, run, ddl, keys: tables.map_batches(EMBEDDINGS, STORED, run, ddl, keys, embedder_id="e1"),
    )


class PeakMemory:
    """Highest resident memory (bytes) of this process and all it started, sampled while the context is open."""

    def __enter__(self) -> PeakMemory:
        self.peak, self._stop = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.25):
            self.peak = max(self.peak, sum(_private_memory(pid) for pid in _family(os.getpid())))


def _family(root: int) -> set[int]:
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:  # it ended meanwhile
            continue
        parents[int(stat.parent.name)] = int(text.rpartition(")")[2].split()[1])
    family, grew = {root}, True
    while grew:
        more = {child for child, parent in parents.items() if parent in family} - family
        family, grew = family | more, bool(more)
    return family


def _private_memory(pid: int) -> int:
    """Proportional set size: pages that forked workers share are counted once."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:")), 0)


def seconds(work: Any, clock: Callable[[], float] = time.monotonic) -> float:
    """Time of a call, by default on the wall."""
    began = clock()
    work()
    return clock() - began


if __name__ == "__main__":
    _train()
