"""How fast is assignment? Ratios, each within one run.

    python bench/assignment.py one              one process against the bare products of the same shapes
    python bench/assignment.py spark            1,000,000 rows from Delta to Delta against two bare processes
    python bench/assignment.py scale            time per row and peak memory from 100,000 to 4,000,000 rows
    python bench/assignment.py night            a night with 1 % changed against a full assignment

Vectors of 384 dimensions, a codebook of 4 x 512 by the trainer's defaults, Spark on two cores. Tables of synthetic
products are made under --folder (4,000,000 rows: 7 GB) and removed at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
from assignment_common import DIM, ROOT, PeakMemory, catalogue, fill_tables, memory_file, seconds, trained  # noqa: E402

DAYS = ("2026-01-05", "2026-01-06")
BATCH = 10_000
QUIET_LOG = ROOT / "sid_pipeline" / "resources" / "log4j2.properties"


def report(**figures: Any) -> None:
    print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}), flush=True)


# ------------------------------------------------------------------------------------------------- one process
def one(args: argparse.Namespace) -> None:
    """Alternating rounds of encoding and of its bare products, into buffers that are there already.

    Seconds are of processor time: both are one thread that never waits.
    """
    book = trained()
    rows = args.rows or 100_000
    x = np.array(np.memmap(memory_file(rows), np.float32, "r").reshape(rows, DIM))
    shapes, bare = bare_products(book, rows)
    rounds = []
    for _ in range(args.rounds):
        limit = seconds(bare, time.process_time)
        whole = seconds(
            lambda: [book.quantise(x[start : start + BATCH]) for start in range(0, rows, BATCH)], time.process_time
        )
        rounds.append((rows / whole, rows / limit, limit / whole))
    rate, bound, share = np.median(np.array(rounds), axis=0).tolist()
    flops = sum(2 * m * n for m, n in shapes)
    report(bench="one", rows=rows, rows_per_second=rate, bare_rows_per_second=bound, share_of_bare=share,
           best_share=max(r[2] for r in rounds), mflop_per_row=flops / 1e6, products=shapes)  # fmt: skip


def bare_products(book: Any, rows: int, chunk: int = 512) -> tuple[list[tuple[int, int]], Any]:
    """Shapes of the float32 products that encoding a row takes, and a function that does just them."""
    a = book.arrays
    layers = sorted(name for name in a if name.startswith("encoder.weight."))
    front = a["encoder.linear"].shape[1] + (a[layers[0]].shape[1] if layers else 0)
    shapes = [(DIM, front), *[a[name].shape for name in layers[1:]]]
    if "prototype.keys" in a:
        shapes.append(a["prototype.keys"].shape)
    deep = book.levels - book.config.get("snapped_levels", 0)
    shapes += [(book.latent_dim, book.codebook_size)] * deep
    rng = np.random.default_rng(0)
    work = [
        (rng.standard_normal((chunk, m), dtype=np.float32), rng.standard_normal((m, n), dtype=np.float32),
         np.empty((chunk, n), np.float32))
        for m, n in shapes
    ]  # fmt: skip

    def run() -> None:
        for _ in range(-(-rows // chunk)):
            for left, right, out in work:
                np.matmul(left, right, out=out)

    return [(int(m), int(n)) for m, n in shapes], run


# ------------------------------------------------------------------------------------------------------- Spark
def tables_at(folder: Path, driver_memory: str) -> Any:
    from sid_pipeline.resources.spark import spark_session
    from sid_pipeline.resources.tables import Tables
    from sid_pipeline.settings import SparkSettings

    # Spark's workers unpickle functions of assignment_common.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "bench"), os.environ.get("PYTHONPATH", "")])
    # What docs/spark.md says to set for millions of rows on one machine.
    conf = {"spark.driver.extraJavaOptions": f"-XX:+UseParallelGC -Dlog4j2.configurationFile={QUIET_LOG.as_uri()}"}
    settings = SparkSettings(master="local[2]", driver_memory=driver_memory, shuffle_partitions=16, conf=conf)
    session = spark_session(settings)
    return Tables(folder / "tables", lambda: session)


def assign(tables: Any, book: Any, day: str, release: str = "r1") -> Any:
    from sid_pipeline.assignment.assign import Assigner
    from sid_pipeline.assignment.collisions import Policy
    from sid_pipeline.assignment.refresh import refresh

    return refresh(tables, catalogue(tables, day), Assigner(book, [1.0], Policy(), day), "esci", release)


def warm_up(tables: Any, book: Any) -> None:
    """Everything once at small scale, so that no bar is charged for the JVM's start."""
    fill_tables(tables, 20_000, DAYS[0])
    assign(tables, book, DAYS[0], "warm")
    shutil.rmtree(tables.root)


def spark(args: argparse.Namespace) -> None:
    """End to end: joins and the commit included. The two processes encode what lies in memory-mapped files."""
    rows, book = args.rows or 1_000_000, trained()
    memory_file(rows)
    tables = tables_at(args.folder, args.driver_memory)
    warm_up(tables, book)
    fill_tables(tables, rows, DAYS[0])
    ratios = []
    for number in range(args.rounds):
        two = two_processes(rows)
        with PeakMemory() as memory:
            whole = seconds(lambda number=number: assign(tables, book, DAYS[0], f"r{number}"))
        ratios.append(two / whole)
        report(bench="spark", rows=rows, spark_rows_per_second=rows / whole, two_processes_rows_per_second=rows / two,
               share_of_two=two / whole, peak_gib=memory.peak / 2**30)  # fmt: skip
    report(bench="spark", rows=rows, median_share_of_two=float(np.median(ratios)))


def two_processes(rows: int) -> float:
    """Seconds that two processes take for half of the rows each, their start and warm-up left out."""
    workers = [
        subprocess.Popen([sys.executable, __file__, "half", "--rows", str(rows), "--part", str(part)],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                         env={**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"})
        for part in (0, 1)
    ]  # fmt: skip
    for worker in workers:
        assert worker.stdout is not None
        worker.stdout.readline()  # ready
    began = time.monotonic()
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        worker.wait()
    return time.monotonic() - began


def half(args: argparse.Namespace) -> None:
    """One of two processes: waits for its start, encodes its half."""
    book, rows = trained(), args.rows
    x = np.memmap(memory_file(rows), np.float32, "r").reshape(rows, DIM)
    first, last = (0, rows // 2) if args.part == 0 else (rows // 2, rows)
    book.quantise(x[first : first + BATCH])
    print("ready", flush=True)
    sys.stdin.readline()
    for start in range(first, last, BATCH):
        book.quantise(x[start : min(start + BATCH, last)])
    os._exit(0)


def scale(args: argparse.Namespace) -> None:
    """A full assignment at each size."""
    book = trained()
    tables = tables_at(args.folder, args.driver_memory)
    warm_up(tables, book)
    for rows in args.sizes:
        fill_tables(tables, rows, DAYS[0])
        with PeakMemory() as memory:
            took = seconds(lambda: assign(tables, book, DAYS[0]))
        report(bench="scale", rows=rows, seconds=took, microseconds_per_row=1e6 * took / rows,
               peak_gib=memory.peak / 2**30)  # fmt: skip
        shutil.rmtree(tables.root)


def night(args: argparse.Namespace) -> None:
    """A full assignment, then nights of which each changes the texts of 1 % of the products."""
    rows, book = args.rows or 1_000_000, trained()
    tables = tables_at(args.folder, args.driver_memory)
    warm_up(tables, book)
    fill_tables(tables, rows, DAYS[0])
    with PeakMemory() as memory:
        full = seconds(lambda: assign(tables, book, DAYS[0]))
    fill_tables(tables, rows, DAYS[1], changed_share=0.01)
    done: list[Any] = []
    took = seconds(lambda: done.append(assign(tables, book, DAYS[1])))
    again = seconds(lambda: done.append(assign(tables, book, DAYS[1])))
    report(bench="night", rows=rows, full_seconds=full, night_seconds=took, touched=done[0].touched,
           share_of_full=took / full, unchanged_seconds=again, touched_again=done[1].touched,
           peak_gib=memory.peak / 2**30)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", choices=("one", "spark", "scale", "night", "half"))
    parser.add_argument("--rows", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--sizes", type=lambda t: [int(n) for n in t.split(",")], default=[100_000, 400_000, 1_000_000, 4_000_000]
    )
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--driver-memory", default="2g")
    parser.add_argument("--part", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.bench in ("one", "half"):
        {"one": one, "half": half}[args.bench](args)
        return
    args.folder = Path(tempfile.mkdtemp(prefix="sid-bench-", dir=args.folder))
    try:
        {"spark": spark, "scale": scale, "night": night}[args.bench](args)
    finally:
        shutil.rmtree(args.folder)


if __name__ == "__main__":
    main()
