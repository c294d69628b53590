"""Quality of the trained codebooks on the synthetic tree of the shared folder: bar 1.

    python bench/rqvae_quality.py [--n 100000] [--seconds 120] [--seeds 1,2,3] [--threads 2] [--set FIELD=VALUE ...]
    python bench/rqvae_quality.py --knob cells_per_group=1,2,3,4,6 --plot docs/rqvae_frontier.svg ...

With `--knob` a run for each value, and the frontier of near-duplicates that share three codes against collisions. The
workload and the metric definitions are read from the shared folder (environment variable SID_SHARED, by
default ../shared beside the project). Measures on the products it trained on, as the table of peers does. One JSON
line per run goes to standard output. Real catalogues: `rqvae_catalogues.py`.
"""

from __future__ import annotations

import argparse
import itertools
import time

import numpy as np
from rqvae_common import numbers, report, setting, workload

from sid_pipeline.rqvae import TrainConfig, train


def synthetic(args: argparse.Namespace) -> list[tuple[str, float, float]]:
    """Bar 1: all metrics at once, equal wall budget; the knob's value, collisions and share under three codes."""
    w = workload()
    knob, values = args.knob or ("", [None])
    found = []
    data = w.make_workload(n=args.n)
    pairs = w.make_pairs(data.x)
    paths = np.stack([data.dept, data.aisle, data.leaf], axis=1)
    for seed, value in itertools.product(args.seeds, values):
        budget = {"max_seconds": args.seconds} if args.seconds else {}
        turned = {knob: value} if knob else {}
        config = TrainConfig(**{**budget, "seed": seed, "threads": args.threads, **args.set, **turned})
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
            settings={**args.set, **turned},
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
        found.append((str(value), m["collision_rate"], m["share90"][2]))
    return found


def plot(file: str, knob: str, found: list[tuple[str, float, float]]) -> None:
    """Collisions against the share of near-duplicates under three codes, with the box that the bar asks for."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    axes.plot([100 * c for _, c, _ in found], [100 * s for *_, s in found], marker="o")
    for value, collisions, share in found:
        axes.annotate(value, (100 * collisions, 100 * share), textcoords="offset points", xytext=(6, -10))
    axes.axvline(5, color="grey", linestyle=":")
    axes.axhline(45, color="grey", linestyle=":")
    axes.set_xlabel("collisions, % of products")
    axes.set_ylabel("near-duplicates that share L1..L3, %")
    axes.set_title(f"{knob}; dotted: the aim", fontsize=10)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})


def knob(text: str) -> tuple[str, list[object]]:
    """FIELD=VALUE,VALUE,... of the command line."""
    name, _, values = text.partition("=")
    return name, [setting(f"{name}={value}")[1] for value in values.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=None)
    parser.add_argument("--seeds", type=numbers, default=[1])
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--set", type=setting, action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--knob", type=knob, metavar="FIELD=VALUE,VALUE")
    parser.add_argument("--plot", metavar="FILE.svg", help="of the knob's values")
    args = parser.parse_args()
    args.set = dict(args.set)
    found = synthetic(args)
    if args.plot:
        plot(args.plot, args.knob[0] if args.knob else "", found)


if __name__ == "__main__":
    main()
