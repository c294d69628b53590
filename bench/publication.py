"""What publishing and reading cost: the part after Spark has sorted, and the constrained-decoding index.

    python bench/publication.py --products 4000000 --index 10000000

Synthetic: N products with skewed codes of 4 x 512, published twice (1 % new, 1 % moved, 1 % withdrawn on the second
night), then opened by the reader. Every step runs in a process of its own, so that its peak memory is its own.
Seconds are of one run on one machine: read ratios and memory.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

STEPS = ("publish", "publish again", "read", "index")
ROWS = 1 << 20


def codes(n: int, seed: int) -> np.ndarray:
    """(n, 4) codes, crowded as a catalogue's."""
    rng = np.random.default_rng(seed)
    return np.minimum(511, (512 * rng.random((n, 4)) ** 1.5).astype(np.int32))


def staged(folder: Path, n: int, night: int) -> None:
    """What `stage` would write: products and one offer each, sorted, in parts."""
    from sid_pipeline.publication.delta import PRODUCTS
    from sid_pipeline.sids import spelt

    for name in ("products", "offers"):
        (folder / name).mkdir(parents=True)
    for start in range(0, n, ROWS):
        number = np.arange(start, min(n, start + ROWS))
        drawn = codes(len(number), start)
        if night == 2:
            drawn[number % 100 == 1] = codes(int((number % 100 == 1).sum()), start + 1)
        gone = np.where((number % 100 == 2) & (night == 2), "2026-01-06", None)
        product = pc.binary_join_element_wise("P", pc.utf8_lpad(pa.array(number).cast(pa.string()), 9, "0"), "")
        new = pa.array((number % 100 == 3) & (night == 1))  # the first night does not have them yet
        nothing = pa.nulls(len(number), pa.string())
        columns = [product, spelt(drawn), pa.array(["new"] * len(number)), nothing, pa.array(gone, pa.string())]
        table = pa.table(columns, schema=PRODUCTS).filter(pc.invert(new))
        pq.write_table(table, folder / "products" / f"part-{start:012d}.parquet")
        offer = pa.table(
            {
                "retailer_id": pa.array([f"shop{start:012d}"] * table.num_rows),
                "sid": table["sid"],
                "product_id": table["product_id"],
                "popularity": pa.array(np.zeros(table.num_rows)),
            }
        )
        pq.write_table(offer.sort_by([("sid", "ascending")]), folder / "offers" / f"part-{start:012d}.parquet")


def publish_night(work: Path, n: int, night: int) -> dict[str, float]:
    """Publish a night that was staged before the clock started."""
    from sid_pipeline.publication.card import Facts
    from sid_pipeline.publication.publish import Source, publish
    from sid_pipeline.publication.store import open_store

    ready = work / f"night{night}"
    if not ready.exists():
        staged(ready, n, night)
    codebook = work / "codebook"
    codebook.mkdir(exist_ok=True)
    day = f"2026-01-0{4 + night}"
    words = np.zeros((4, 512, 64), np.float32)
    pins = {"codebook_id": "c", "embedders": {}, "night": night}
    moved = lambda folder: shutil.copytree(ready, folder, copy_function=_link)  # noqa: E731
    source = Source("esci", "r1", day, pins, moved, {}, codebook, words, False, Facts())
    started = time.perf_counter()
    made = publish(open_store(work / "state"), source, work / "spool")
    seconds = time.perf_counter() - started
    written = {f"rows {name}": rows for name, rows in made.manifest["rows"].items()}
    return {"seconds": seconds, "products/s": n / seconds, **written}


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)


def read(work: Path, n: int) -> dict[str, float]:
    """Open, then look up one by one and many at once, and list a prefix."""
    from sid_pipeline.reader import open_release

    figures = {}
    started = time.perf_counter()
    opened = open_release("esci", "r1", work / "state")
    figures["open and verify s"] = time.perf_counter() - started
    started = time.perf_counter()
    open_release("esci", "r1", work / "state", hashes=False)
    figures["open without hashes s"] = time.perf_counter() - started
    started = time.perf_counter()
    opened.sid("P000000000")
    figures["first sid s"] = time.perf_counter() - started
    asked = [f"P{i:09d}" for i in np.random.default_rng(0).integers(0, n, 100_000)]
    started = time.perf_counter()
    for product in asked[:2000]:
        opened.lookup([product])
    figures["one lookup us"] = (time.perf_counter() - started) / 2000 * 1e6
    started = time.perf_counter()
    opened.lookup(asked)
    figures["lookup of 100,000 s"] = time.perf_counter() - started
    started = time.perf_counter()
    figures["products of a retailer and prefix"] = len(opened.products("3_7", retailer=f"shop{0:012d}"))
    figures["and the time ms"] = (time.perf_counter() - started) * 1e3
    return figures


def index(n: int) -> dict[str, float]:
    """Build the constrained-decoding index of n SIDs and search it with random logits."""
    from sid_pipeline.publication.constraints import Constraints, beam_search

    drawn = codes(n, 0)
    started = time.perf_counter()
    tree = Constraints.build(drawn, [512] * 4)
    built = time.perf_counter() - started
    rng = np.random.default_rng(1)
    started = time.perf_counter()
    made, _ = beam_search(tree, lambda so_far: rng.normal(size=(*so_far.shape[:2], 512)), batch=32, beams=20)
    searched = time.perf_counter() - started
    valid = tree.contains(made.reshape(-1, 4))
    place = np.array([512**3, 512**2, 512, 1], np.int64)
    invalid = int((~np.isin(made.reshape(-1, 4) @ place, drawn @ place)).sum())
    size = sum(array.nbytes for array in tree.to_arrays().values())
    return {
        "build s": built, "distinct": tree.sids, "index MB": size / 1e6, "bytes per SID": size / tree.sids,
        "search of 32 x 20 beams s": searched, "generated": valid.size, "invalid": invalid,
    }  # fmt: skip


def main() -> None:
    """Run every step in its own process and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--products", type=int, default=1_000_000)
    parser.add_argument("--index", type=int, default=1_000_000)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        do = {
            "publish": lambda: publish_night(given.work, given.products, 1),
            "publish again": lambda: publish_night(given.work, given.products, 2),
            "read": lambda: read(given.work, given.products),
            "index": lambda: index(given.index),
        }[given.step]
        figures = do()
        status = Path("/proc/self/status").read_text()  # getrusage would count the parent's memory, too
        figures["peak MB"] = int(status.split("VmHWM:")[1].split()[0]) / 1024
        print(json.dumps(figures))
        return
    with tempfile.TemporaryDirectory() as work:
        for night in (1, 2):  # in advance, so that neither its time nor its memory counts
            staged(Path(work) / f"night{night}", given.products, night)
        for step in STEPS:
            command = [sys.executable, __file__, "--step", step, "--work", work]
            command += ["--products", str(given.products), "--index", str(given.index)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            shown = ", ".join(f"{name} {value:,.4g}" for name, value in json.loads(done.stdout).items())
            print(f"{step}: {shown}", flush=True)


if __name__ == "__main__":
    main()
