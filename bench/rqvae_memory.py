"""Memory of the trainer on a catalogue that does not fit into it.

    OMP_NUM_THREADS=2 python bench/rqvae_memory.py FOLDER [--rows 10000000]

Writes rows x 768 float32 (10,000,000: 30.7 GB) under FOLDER, trains for 20 steps from a memory map of them, and tells
the peaks of the process's own memory (RssAnon) and of what was resident, pages of the mapped file included (VmRSS).
"""

from __future__ import annotations

import argparse
import math
import threading
import time
from pathlib import Path

import numpy as np
from rqvae_common import report

from sid_pipeline.rqvae import TrainConfig, train

DIM, BLOCK = 768, 100_000


def write(file: Path, rows: int) -> None:
    """Clustered vectors, a block of them again and again, each time moved a little."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((2000, DIM), dtype=np.float32)
    block = centres[rng.integers(2000, size=BLOCK)] + 0.5 * rng.standard_normal((BLOCK, DIM), dtype=np.float32)
    with file.open("wb") as out:
        for _ in range(rows // BLOCK):
            out.write((block + np.float32(0.01) * rng.standard_normal(DIM, dtype=np.float32)).tobytes())


def watch(peak: dict[str, int]) -> None:
    """Keep the largest of each figure of the process's status, in kB, as long as it lives."""
    while True:
        for line in Path("/proc/self/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in peak:
                peak[name] = max(peak[name], int(value.split()[0]))
        time.sleep(0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=10_000_000, help=f"a multiple of {BLOCK}")
    args = parser.parse_args()
    file = args.folder / "vectors.f32"
    write(file, args.rows)
    peak = {"RssAnon": 0, "VmRSS": 0}
    threading.Thread(target=watch, args=(peak,), daemon=True).start()
    gates_off = {"max_collisions": 1.0, "min_usage": 0.0, "max_relative_error": math.inf, "min_near_share": 0.0}
    config = TrainConfig(
        steps=20, kmeans_iterations=3, threads=2, seed=1, max_error_against_kmeans=math.inf, **gates_off
    )
    began = time.monotonic()
    train(np.memmap(file, np.float32, "r", shape=(args.rows, DIM)), None, config)
    gib = {name: value / 2**20 for name, value in peak.items()}
    report(bench="memory", rows=args.rows, seconds=time.monotonic() - began, peak_gib=gib)
    file.unlink()


if __name__ == "__main__":
    main()
