"""What the benches of the RQ-VAE share: where the data is, its vectors and categories, the figures of a code table.

Belongs here: reading the shared catalogues in place, embedding them once (cached in the temp folder), sampling
pairs, and the one definition of each figure. The metrics themselves come from `sid_pipeline.evaluation`.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sid_pipeline.evaluation.pairs import Pairs  # noqa: E402
from sid_pipeline.rqvae.gate import NEAR_DUPLICATE_COSINE  # noqa: E402

CACHE = Path(tempfile.gettempdir()) / "sid-bench-cache"
# A pair this close is the same text twice; its codes are equal whatever the codebook does.
_IDENTICAL = 0.99999


def shared() -> Path:
    """The folder with workload and catalogues."""
    folder = Path(os.environ.get("SID_SHARED", ROOT.parent / "shared"))
    if not folder.exists():
        sys.exit(f"{folder} is not there; set SID_SHARED to the folder that holds bench/ and data/.")
    return folder


def workload() -> ModuleType:
    """The shared module of the synthetic workload and its metrics."""
    path = shared() / "bench" / "workload.py"
    spec = importlib.util.spec_from_file_location("workload", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["workload"] = module
    spec.loader.exec_module(module)
    return module


# --------------------------------------------------------------------------------------------- real catalogues
@dataclass(frozen=True)
class Catalogue:
    """A catalogue ready for training.

    x: (N, d) float32 unit vectors. paths: (N, depth) int64 categories, coarse to fine, numbered over the whole
    level, -1 for none.
    """

    name: str
    x: NDArray[np.float32]
    paths: NDArray[np.int64]


# Title, brand and categories of each catalogue, by column; `missing` is the category that means none.
_COLUMNS: dict[str, tuple[str, str | None, tuple[str, ...]]] = {
    "instacart": ("product_name", None, ("department", "aisle")),
    "bigbasket": ("product", "brand", ("category", "sub_category", "type")),
}
_NO_CATEGORY = "missing"


def catalogue(name: str, text: str = "raw") -> Catalogue:
    """Vectors and categories of `instacart` or `bigbasket`.

    text: `raw` embeds the product's own text (title and brand) by the embedder of the esci flavour, `cleaned` the
    attributes that the rules cleaner finds, by that of the esci_gemma flavour; both with the embedded MiniLM.
    """
    import pyarrow.parquet as pq

    title, brand, levels = _COLUMNS[name]
    table = pq.read_table(shared() / "data" / name / "products.parquet")
    titles = [value or "" for value in table.column(title).to_pylist()]
    brands = table.column(brand).to_pylist() if brand else [None] * len(titles)
    steps = np.array([table.column(level).to_pylist() for level in levels], dtype=object).T
    x = embedded(name, text, titles, brands, [path[-1] for path in steps.tolist()])
    return Catalogue(f"{name} {text}", x, _numbered(steps))


def _numbered(steps: NDArray[Any]) -> NDArray[np.int64]:
    """Category names (N, depth) as integers; equal names under different parents differ."""
    paths = np.full(steps.shape, -1, np.int64)
    parent = np.array([""] * len(steps), dtype=object)
    present = np.ones(len(steps), bool)
    for level in range(steps.shape[1]):
        present &= np.array([bool(s) and s != _NO_CATEGORY for s in steps[:, level]])
        parent = parent + " > " + np.where(present, steps[:, level], "")
        paths[present, level] = np.unique(parent[present].astype(str), return_inverse=True)[1]
    return paths


def embedded(
    name: str, text: str, titles: Sequence[str], brands: Sequence[str | None], leaves: Sequence[str | None]
) -> NDArray[np.float32]:
    """Unit vectors (N, d) of a catalogue's `raw` or `cleaned` text, made once and cached under its name."""
    from sid_pipeline.embedding.model import Embedder, embedder_id
    from sid_pipeline.embedding.texts import render
    from sid_pipeline.settings import load_settings

    embedders = load_settings(ROOT / "bench" / "instacart.toml", env={}).embedders
    settings = embedders["esci" if text == "raw" else "gemma"]
    if text == "raw":
        fields: list[Mapping[str, Any]] = [{"title": t, "brand": b} for t, b in zip(titles, brands, strict=True)]
        made_by = ""
    else:
        fields, made_by = _cleaned(titles, brands, leaves)
    file = CACHE / f"{name}-{embedder_id(settings, ROOT)}{made_by}.npy"
    if not file.exists():
        rendered = (render(settings.template, row, settings.say_once) for row in fields)
        texts = [text or title for text, title in zip(rendered, titles, strict=True)]
        embedder = Embedder.load(settings, ROOT)
        order = np.argsort([len(t) for t in texts], kind="stable")
        vectors = embedder.encode([texts[i] for i in order])[np.argsort(order)]
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}.npy")
        np.save(part, vectors)
        os.replace(part, file)
    return np.load(file)


def _cleaned(
    titles: Sequence[str], brands: Sequence[str | None], leaves: Sequence[str | None]
) -> tuple[list[Mapping[str, Any]], str]:
    """The cleaned fields of each product, and a suffix that names the cleaner."""
    from sid_pipeline.cleaning.lexicon import Lexicon
    from sid_pipeline.cleaning.model import ProductText
    from sid_pipeline.cleaning.rules import RulesCleaner
    from sid_pipeline.files import digest

    rows = [ProductText(t, b) for t, b in zip(titles, brands, strict=True)]
    cleaner = RulesCleaner(Lexicon.learn(rows, {leaf for leaf in leaves if leaf and leaf != _NO_CATEGORY}))
    fields = [cleaning.attributes.model_dump(mode="python") for cleaning in cleaner.clean(rows)]
    return fields, f"-{digest(cleaner.id, 8)}"


def near_pairs(x: NDArray[np.float32], rows: NDArray[np.int64]) -> Pairs:
    """Every pair of one of `rows` with any row of the unit vectors x (N, d) that has cosine >= .9.

    Identical vectors are left out: they share a SID in any codebook.
    """
    found = []
    for start in range(0, len(rows), 512):
        part = rows[start : start + 512]
        cosine = x[part] @ x.T
        i, j = np.nonzero((cosine >= NEAR_DUPLICATE_COSINE) & (cosine < _IDENTICAL))
        found.append((part[i], j, cosine[i, j]))
    i, j, cosine = (np.concatenate(column) for column in zip(*found, strict=True))
    return Pairs("cosine >= .9", i, j, cosine)


# ------------------------------------------------------------------------------------------------------ output
def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table; the first row's keys are its header, numbers with a fraction have three digits."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    cells = [[f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in line] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)


def percent(values: Sequence[float | None]) -> str:
    """`95 92 29 9`."""
    return " ".join("-" if value is None else f"{100 * value:.0f}" for value in values)


def report(**figures: Any) -> None:
    """One JSON line."""
    print(json.dumps(figures, default=float, allow_nan=False), flush=True)


def setting(text: str) -> tuple[str, Any]:
    """name=value of a TrainConfig field, the value a Python literal."""
    name, _, value = text.partition("=")
    return name, ast.literal_eval(value)


def numbers(text: str) -> list[int]:
    """`1,2,3` as integers."""
    return [int(value) for value in text.split(",")]
