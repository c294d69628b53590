"""The training set: an immutable, hashed folder between the tables and the trainer.

    vectors.npy       float32 (N, d), unit-length rows, memory-mappable
    paths.npy         int32 (N, depth), dense category numbers per level, -1 where there is none
    products.parquet  product_id, text, category, in the rows' order
    manifest.json     what it was made from and the files' hashes, written last

It is what makes a rebuild repeatable and what a GPU machine without Spark needs. Needs numpy and pyarrow only.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sid_pipeline.embedding.vectors import join, matrix
from sid_pipeline.files import digest, file_sha256, sync_folder, to_json, write_atomically

DATA_FILES = ("vectors.npy", "paths.npy", "products.parquet")


class TrainingSetError(RuntimeError):
    """A training set that is missing, damaged or not what its manifest says."""


@dataclass(frozen=True)
class TrainingSet:
    """A loaded training set; the matrices are memory-mapped."""

    folder: Path
    manifest: dict[str, Any]
    vectors: np.ndarray
    paths: np.ndarray

    def products(self) -> pa.Table:
        """product_id, text and category of every row."""
        return pq.read_table(self.folder / "products.parquet")


def write_training_set(
    folder: Path,
    tables: Iterable[pa.Table],
    rows: int,
    weights: list[float],
    number_paths: Callable[[list[list[str] | None]], np.ndarray],
    pins: dict[str, Any],
) -> dict[str, Any]:
    """Write a training set and return its manifest.

    Args:
        folder: where; replaced when it exists (its manifest goes first, so a crash leaves no valid half).
        tables: product_id, text, category and one BINARY column vector_0, vector_1, ... per embedder, in a
            repeatable order.
        rows: their number.
        weights: one per embedder, see `embedding.vectors.join`.
        number_paths: category paths to int32 (n, depth).
        pins: what it is made from; goes into the manifest and the id.

    Raises:
        TrainingSetError: there are no rows, or not as many as said.
    """
    if rows == 0:
        raise TrainingSetError("there is no product with a vector to train on")
    if folder.exists():
        (folder / "manifest.json").unlink(missing_ok=True)
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    vectors = paths = None
    writer = None
    done = 0
    for table in tables:
        part = join([matrix(table[f"vector_{i}"]) for i in range(len(weights))], weights)
        numbered = number_paths(table["category"].to_pylist())
        described = table.select(["product_id", "text", "category"])
        if vectors is None or paths is None or writer is None:
            vectors = _create(folder / "vectors.npy", np.float32, (rows, part.shape[1]))
            paths = _create(folder / "paths.npy", np.int32, (rows, numbered.shape[1]))
            writer = pq.ParquetWriter(folder / "products.parquet", described.schema, compression="zstd")
        if done + len(part) > rows:
            raise TrainingSetError(f"more than the {rows} rows that were counted: the tables changed meanwhile")
        vectors[done : done + len(part)] = part
        paths[done : done + len(part)] = numbered
        writer.write_table(described)
        done += len(part)
    if done != rows or vectors is None or paths is None or writer is None:
        raise TrainingSetError(f"{done} rows came where {rows} were counted: the tables changed meanwhile")
    writer.close()
    vectors.flush()
    paths.flush()
    manifest = {
        "format": 1,
        "rows": rows,
        "dimension": int(vectors.shape[1]),
        "depth": int(paths.shape[1]),
        "categorised": int((np.asarray(paths) >= 0).any(axis=1).sum()),
        "pins": pins,
        "files": {name: file_sha256(folder / name) for name in DATA_FILES},
    }
    manifest["id"] = digest({"pins": pins, "files": manifest["files"]})
    write_atomically(folder / "manifest.json", to_json(manifest))
    sync_folder(folder)
    return manifest


def load_training_set(folder: Path, *, verify: bool = True) -> TrainingSet:
    """Open a training set.

    Args:
        folder: where it lies.
        verify: hash the files against the manifest; a hash reads them once.

    Raises:
        TrainingSetError: a file is missing or does not match; names it.
    """
    manifest_file = folder / "manifest.json"
    if not manifest_file.is_file():
        raise TrainingSetError(f"{folder} is no finished training set: it has no manifest.json")
    manifest = json.loads(manifest_file.read_text(encoding="utf-8"))
    for name, sha in manifest["files"].items():
        path = folder / os.path.basename(name)
        if not path.is_file():
            raise TrainingSetError(f"{path} is missing: materialise the training set again")
        if verify and file_sha256(path) != sha:
            raise TrainingSetError(f"{path} does not match its manifest: materialise the training set again")
    return TrainingSet(
        folder,
        manifest,
        np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False),
        np.load(folder / "paths.npy", mmap_mode="r", allow_pickle=False),
    )


def _create(path: Path, dtype: type, shape: tuple[int, int]) -> np.memmap:
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
