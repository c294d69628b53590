"""Quality of the trained codebooks on the synthetic tree of the shared folder: bar 1.

    python bench/rqvae_quality.py [--n 100000] [--seconds 120] [--seeds 1,2,3] [--threads 2] [--set FIELD=VALUE ...]

The workload and the metric definitions are read from the shared folder (environment variable SID_SHARED, by
default ../shared beside the project). Measures on the products it trained on, as the table of peers does. One JSON
line per run goes to standard output. Real catalogues: `rqvae_catalogues.py`.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from rqvae_common import numbers, report, setting, workload

from sid_pipeline.rqvae import TrainConfig, train


def synthetic(args: argparse.Namespace) -> None:
    """Bar 1: all metrics at once, one set of defaults, equal wall budget."""
    w = workload()
    data = w.make_workload(n=args.n)
    pairs = w.make_pairs(data.x)
    paths = np.stack([data.dept, data.aisle, data.leaf], axis=1)
    for seed in args.seeds:
        budget = {"max_seconds": args.seconds} if args.seconds else {}
        config = TrainConfig(**{**budget, "seed": seed, "threads": args.threads, **args.set})
        began, cpu = time.monotonic(), time.process_time()
        book = train(data.x, paths, config)
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
        began = time.monotonic()
        codes = book.encode(data.x)
        encoding = time.monotonic() - began
        m = w.quality(codes, data, pairs, [config.codebook_size] * config.levels, book.decode(codes))
        report(
            name="synthetic",
            n=args.n,
            seed=seed,
            settings=args.set,
            seconds=seconds,
            cpu_seconds=cpu,
            steps=book.manifest["run"]["steps"],
            chosen_step=book.manifest["run"]["chosen_step"],
            encode_items_per_second=len(codes) / encoding,
            relative_mse=m["rel_mse"],
            usage=m["usage"],
            perplexity=m["perplexity"],
            collisions=m["collision_rate"],
            rho=[m["spearman_all"], m["spearman_nn"]],
            share=m["share90"],
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=None)
    parser.add_argument("--seeds", type=numbers, default=[1])
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--set", type=setting, action="append", default=[], metavar="FIELD=VALUE")
    args = parser.parse_args()
    args.set = dict(args.set)
    synthetic(args)


if __name__ == "__main__":
    main()
