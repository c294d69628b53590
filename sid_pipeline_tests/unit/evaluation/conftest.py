"""A small catalogue with three kinds of products, and the project's benchmark module where it is at hand."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pytest

SHARED = Path(os.environ.get("SID_SHARED") or Path(__file__).resolve().parents[4] / "shared")


@dataclass(frozen=True)
class Catalogue:
    """60 products: 2 departments x 3 leaves x 10, close together inside a leaf."""

    ids: list[str]
    titles: list[str]
    categories: list[tuple[str, ...] | None]
    vectors: np.ndarray
    codes: np.ndarray

    @property
    def products(self) -> pa.Table:
        """The products as a table, without categories."""
        return products(self.ids, self.titles)


def products(ids, titles, categories=None, brands=None) -> pa.Table:
    """Rows of product_id, title and, where given, category and brand."""
    columns = {"product_id": pa.array(ids, pa.string()), "title": pa.array(titles, pa.string())}
    if categories is not None:
        columns["category"] = pa.array(categories, pa.list_(pa.string()))
    if brands is not None:
        columns["brand"] = pa.array(brands, pa.string())
    return pa.table(columns)


@pytest.fixture
def catalogue() -> Catalogue:
    rng = np.random.default_rng(3)
    words = ["apple", "banana", "carrot", "soap", "sponge", "candle"]
    centres = rng.standard_normal((2, 1, 16)) + 0.6 * rng.standard_normal((2, 3, 16))
    leaf = np.repeat(np.arange(6), 10)
    vectors = (centres.reshape(6, 16)[leaf] + 0.1 * rng.standard_normal((60, 16))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    codes = np.stack([leaf // 3, leaf % 3, np.tile(np.arange(5), 12), np.zeros(60)], axis=1).astype(np.int32)
    return Catalogue(
        ids=[f"p{row:02d}" for row in range(60)],
        titles=[f"{words[kind]} number {row % 5}" for row, kind in enumerate(leaf.tolist())],
        categories=[("food" if kind < 3 else "home", words[kind]) for kind in leaf.tolist()],
        vectors=vectors,
        codes=codes,
    )


@pytest.fixture(scope="session")
def workload() -> ModuleType:
    """The module with the metric definitions that the project's comparison table rests on."""
    file = SHARED / "bench" / "workload.py"
    if not file.exists():
        pytest.skip(f"{file.name} is not beside the project")
    spec = importlib.util.spec_from_file_location("sid_bench_workload", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # The module's dataclasses look their own module up.
    import sys

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
