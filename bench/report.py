"""The report on a million products: seconds and peak memory.

    python bench/report.py [--items 1000000] [--dimension 384] [--whole]

Synthetic products (the shared workload) with an own code table made by residual k-means. As the pipeline does it: the
vector figures on a seeded sample of 50,000, health and shared SIDs over all. `--whole` measures every figure on all.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from rqvae_common import workload

from sid_pipeline.evaluation.baselines import fit_residual_kmeans
from sid_pipeline.evaluation.page import render_html
from sid_pipeline.evaluation.report import EvaluationInput, evaluate
from sid_pipeline.settings import ReportSettings


def peak_kib() -> int:
    """The process's highest resident memory since it was last reset."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--whole", action="store_true")
    args = parser.parse_args()
    made = workload().make_workload(n=args.items, d=args.dimension)
    x = made.x
    model = fit_residual_kmeans(x, 4, 512, 7)
    codes = model.assign(x)
    rows = np.arange(args.items)
    if not args.whole:
        rows = np.sort(np.random.default_rng(0).choice(rows, min(args.items, ReportSettings().sample), replace=False))
    held = rows.tolist()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here (Linux)
    began = time.monotonic()
    report = evaluate(
        EvaluationInput(
            flavour="bench",
            release="bench",
            as_of_snapshot="-",
            product_ids=[f"p{row}" for row in held],
            texts=[f"product {row}" for row in held],
            categories=[(f"{made.dept[r]}", f"{made.aisle[r]}", f"{made.leaf[r]}") for r in held],
            vectors=x if args.whole else x[rows],
            codes=codes[rows],
            reconstruct=lambda part: model.reconstruct(codes[rows[part]]),
            all_codes=None if args.whole else codes,
            all_texts=None if args.whole else np.arange(args.items),
        )
    )
    page = render_html(report)
    seconds = time.monotonic() - began
    figures = {
        "items": args.items,
        "looked at": len(rows),
        "seconds": round(seconds, 1),
        "peak GiB, input included": round(peak_kib() / 2**20, 2),
        "input GiB": round(x.nbytes / 2**30, 2),
        "page KB": len(page.encode()) // 1000,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
