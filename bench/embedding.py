"""Measures what embedding a catalogue costs.

    python bench/embedding.py speed [--texts N] [--workers N] [--cpu]  against plain SentenceTransformer.encode
    python bench/embedding.py night [--products N] [--changed S]  the stage in full, and with a share changed
    python bench/embedding.py memory [--rows N N]                 peak memory of the streamed run
    python bench/embedding.py dtypes [--texts N]                  float32 against bfloat16

`speed` encodes Instacart's names (read in place from SID_SHARED, default: ../shared beside the project; skipped where
absent) by the library as it comes and by the stage's own processes, in turns of some thousand texts, so that what else
the machine does falls on both. `night` makes a sample catalogue, runs the real asset on it, changes some products and
runs it on the next day. `memory` streams many short texts through a tiny model in a fresh process for each number of
rows.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sid_pipeline.embedding.batches import padded_tokens  # noqa: E402
from sid_pipeline.embedding.model import Embedder, resolve_model  # noqa: E402
from sid_pipeline.embedding.run import CHUNK, embed  # noqa: E402
from sid_pipeline.embedding.texts import text_hash  # noqa: E402
from sid_pipeline.embedding.workers import PARALLEL_FROM, devices, encoders  # noqa: E402
from sid_pipeline.settings import EmbedderSettings  # noqa: E402

INSTACART = Path(os.environ.get("SID_SHARED") or ROOT.parent / "shared") / "data/instacart/products.parquet"
MINILM = EmbedderSettings(device="cpu")
DAY1, DAY2 = "2026-01-05", "2026-01-06"


def names(limit: int | None) -> list[str] | None:
    if not INSTACART.is_file():
        print(f"skipped: {INSTACART} is absent")
        return None
    found = pq.read_table(INSTACART, columns=["product_name"])["product_name"].to_pylist()[:limit]
    return list(dict.fromkeys(found))


def speed(arguments: argparse.Namespace) -> None:
    from sentence_transformers import SentenceTransformer

    texts = names(arguments.texts)
    if texts is None:
        return
    plain = SentenceTransformer(resolve_model(MINILM.model, ROOT), device="cpu")
    plain.max_seq_length = MINILM.max_tokens
    processes = devices(MINILM, arguments.workers, PARALLEL_FROM)
    # Processor seconds say on a busy machine what wall seconds say on an idle one; children's are not in them.
    clock = time.process_time if arguments.cpu and len(processes) == 1 else time.monotonic
    total = {"library": 0.0, "ours": 0.0}
    tokens = padded = waste = 0
    cosine = 1.0
    with encoders(MINILM, ROOT, processes) as encode:
        plain.encode(texts[:64])
        list(encode([texts[:64]] * 4))
        for part in np.array_split(np.arange(len(texts)), arguments.rounds):
            block = [texts[row] for row in part]
            chunks = [block[start : start + CHUNK] for start in range(0, len(block), CHUNK)]
            started = clock()
            expected = plain.encode(block, normalize_embeddings=True)
            between = clock()
            encoded = list(encode(chunks))
            library, ours = between - started, clock() - between
            total["library"] += library
            total["ours"] += ours
            cosine = min(cosine, float((np.concatenate([e.vectors for e in encoded]) * expected).sum(axis=1).min()))
            tokens += sum(e.tokens for e in encoded)
            padded += sum(e.padded for e in encoded)
            lengths = np.array([len(ids) for ids in plain.tokenizer(block)["input_ids"]])
            order = np.argsort([-len(text) for text in block], kind="stable")
            waste += padded_tokens(lengths, [order[start : start + 32] for start in range(0, len(block), 32)])
            print(f"{len(block)} texts: library {library:.1f} s, ours {ours:.1f} s, {library / ours:.2f}x", flush=True)
    for name, seconds, worked in (
        ("SentenceTransformer.encode", total["library"], waste),
        (f"ours, {len(processes)} process(es)", total["ours"], padded),
    ):
        print(f"{name:<28} {len(texts) / seconds:6.0f} texts/s, padding {1 - tokens / worked:.1%}")
    ratio = total["library"] / total["ours"]
    print(f"ratio {ratio:.2f}, smallest cosine {cosine:.7f}, {len(texts)} texts")


def dtypes(arguments: argparse.Namespace) -> None:
    texts = names(arguments.texts or 5000)
    if texts is None:
        return
    found = {}
    for dtype in ("float32", "bfloat16"):
        embedder = Embedder.load(MINILM.model_copy(update={"dtype": dtype}), ROOT)
        embedder.encode(texts[:256])
        started = time.monotonic()
        found[dtype] = embedder.encode(texts)
        print(f"{dtype}: {len(texts) / (time.monotonic() - started):.0f} texts/s", flush=True)
    cosine = (found["float32"] * found["bfloat16"]).sum(axis=1)
    print(f"cosine between the two: smallest {cosine.min():.6f}, mean {cosine.mean():.6f}")
    nearest = [np.argsort(-(v[:1000] @ v.T), axis=1)[:, 1:11] for v in found.values()]
    kept = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(*nearest, strict=True)])
    print(f"of the 10 nearest of 1,000 names, {kept:.1%} are the same")


def prepare(warehouse: Any, folder: Path, products: int, changed: float) -> None:
    """Two days' products: the sample catalogue as often as it takes, each time under other titles, and the same with
    some titles changed."""
    from pyspark.sql import functions as F

    from sid_pipeline.sample.build import PRODUCTS as MADE
    from sid_pipeline.sample.build import SEED
    from sid_pipeline.sample.products import catalogue, used_leaves
    from sid_pipeline.sample.taxonomy import TOUCHED_LEAVES
    from sid_pipeline.sample.vocabulary import load
    from sid_pipeline.schemas import PRODUCTS

    vocabulary = load()
    made = catalogue(vocabulary, used_leaves(vocabulary, MADE, TOUCHED_LEAVES), MADE, SEED)
    names = ["product_id", "title", "brand", "size", "description"]
    rows = {name: [getattr(product, name) or None for product in made] for name in names}
    pq.write_table(pa.table(rows), folder / "p.parquet")
    first = warehouse.spark.read.parquet(str(folder / "p.parquet"))
    times = -(-products // first.count())
    copy = F.explode(F.sequence(F.lit(1), F.lit(times))).alias("copy")
    first = first.select("*", copy).orderBy("copy").limit(products)
    first = first.withColumn("product_id", F.concat_ws("-", "product_id", "copy"))
    first = first.withColumn("title", F.concat_ws(" no. ", "title", "copy")).drop("copy")
    for column in PRODUCTS.columns:
        if column.name not in {"snapshot", *names}:
            first = first.withColumn(column.name, F.lit(None).cast(column.type))
    first = first.withColumn("text_hash", F.sha2(F.concat_ws("|", "title", "description"), 256))
    warehouse.tables.replace(PRODUCTS, first, snapshot=DAY1)
    before = warehouse.tables.read(PRODUCTS, snapshot=DAY1)
    is_changed = F.pmod(F.xxhash64("product_id"), F.lit(10_000)) < int(10_000 * changed)
    title = F.when(is_changed, F.concat("title", F.lit(" new"))).otherwise(F.col("title"))
    warehouse.tables.replace(PRODUCTS, before.withColumn("title", title), snapshot=DAY2)


def night(arguments: argparse.Namespace) -> None:
    import dagster as dg

    from sid_pipeline.assets.embeddings import embedding_assets
    from sid_pipeline.receipts import Receipt
    from sid_pipeline.resources.warehouse import Warehouse
    from sid_pipeline.schemas import EMBEDDED_PRODUCTS, EMBEDDINGS, PRODUCTS
    from sid_pipeline.settings import Settings

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(arguments.folder or scratch)
        folder.mkdir(parents=True, exist_ok=True)
        template = ["{title}", "{brand}", "{size}", "{description}"]
        settings = Settings.model_validate(
            {
                "root": folder,
                "source": {"products": "products.csv"},
                "embedders": {"esci": {"template": template, "max_tokens": arguments.max_tokens, "device": "cpu"}},
                "flavours": {"esci": {"description": "bench", "embedders": {"esci": 1.0}}},
            }
        )
        warehouse = Warehouse(settings)
        if not warehouse.tables.exists(PRODUCTS):
            prepare(warehouse, folder, arguments.products, arguments.changed)
        if arguments.prepare_only:
            return
        warehouse.spark.range(10).count()  # the session starts before the clock
        seconds = {}
        for day in (DAY1, DAY2):
            warehouse.receipts.put(Receipt("products", day, {}, day))
            started = time.monotonic()
            with dg.DagsterInstance.ephemeral() as instance:
                result = dg.materialize(
                    embedding_assets(settings), instance=instance, partition_key=day, resources={"warehouse": warehouse}
                )
            seconds[day] = time.monotonic() - started
            (event,) = result.asset_materializations_for_node("esci_embeddings")
            figures = {name: value.value for name, value in event.metadata.items()}
            print(
                f"{day}: {seconds[day]:.1f} s, {figures['dagster/row_count']} products, {figures['distinct texts']} "
                f"distinct texts, {figures['encoded now']} encoded, padding {figures['padding share']:.1%}",
                flush=True,
            )
        identity = next(iter(warehouse.receipts.need("esci_embeddings", DAY1).facts["embedder_ids"]))
        texts = []
        for day in (DAY1, DAY2):
            written = warehouse.tables.arrow(EMBEDDED_PRODUCTS, ["text_hash"], embedder_id=identity, snapshot=day)
            texts.append(set(written["text_hash"].to_pylist()))
        print(f"{len(texts[1] - texts[0])} distinct texts are new; the night took {seconds[DAY2] / seconds[DAY1]:.1%}")
        files = list((warehouse.state / "tables" / EMBEDDINGS.name).rglob("*.parquet"))
        print(f"files in the store: {len(files)}")
        warehouse.spark.stop()


def memory(arguments: argparse.Namespace) -> None:
    for rows in arguments.rows:
        command = [sys.executable, __file__, "one-memory", "--rows", str(rows)]
        subprocess.run(command, check=True)


def one_memory(arguments: argparse.Namespace) -> None:
    from sid_pipeline_tests.tiny_models import WORDS, tiny_bert

    (rows,) = arguments.rows
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = tiny_bert(folder / "model", WORDS)
        (folder / "texts").mkdir()
        draw = np.random.default_rng(0)
        schema = pa.schema([("text_hash", pa.string()), ("text", pa.string())])
        with pq.ParquetWriter(folder / "texts/part.parquet", schema) as writer:
            for start in range(0, rows, 10_000):
                texts = [" ".join(draw.choice(WORDS, 8)) + f" {start + i}" for i in range(10_000)]
                writer.write_table(pa.table({"text_hash": list(map(text_hash, texts)), "text": texts}))
        settings = EmbedderSettings(model=str(model), device="cpu")
        (folder / "spool").mkdir()
        begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        work = embed(folder / "texts", folder / "spool", settings, folder, lambda files: None, workers=1)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"{work.texts} texts: peak {peak / 1024:.0f} MB ({(peak - begin) / 1024:.0f} MB above the start)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "night", "memory", "dtypes", "one-memory"])
    parser.add_argument("--texts", type=int)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--cpu", action="store_true", help="speed, one process: processor seconds instead of wall's")
    parser.add_argument("--products", type=int, default=100_000)
    parser.add_argument("--changed", type=float, default=0.01)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--folder", help="night: where the catalogue is made and kept; default: a temporary folder")
    parser.add_argument("--prepare-only", action="store_true", help="night: make the catalogue and stop")
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 400_000])
    arguments = parser.parse_args()
    {"speed": speed, "night": night, "memory": memory, "dtypes": dtypes, "one-memory": one_memory}[arguments.what](
        arguments
    )


if __name__ == "__main__":
    main()
