"""What each part of the RQ-VAE's loss and recipe contributes, on the synthetic tree.

    OMP_NUM_THREADS=1 nice python bench/rqvae_ablation.py run [--results FILE] [--steps 120] [--only GROUP]
    python bench/rqvae_ablation.py write [--results FILE]

`run` trains every variant and appends one JSON line per finished run; started again it does what is missing. A line
counts only for the trainer's source and the step count that it was made with. `write` puts means and spread over the
seeds into docs/rqvae_ablation.md, between its markers, and draws docs/rqvae_ablation.svg.

Runs are judged after their last step (and the refit that ends every training), not at the step that validation would
choose: otherwise a term that costs reconstruction would be undone by the choice and seem harmless. The gates are off.
What the trainer has no switch for is patched here, and only here.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from rqvae_common import CACHE, ROOT, percent, setting, table, workload
from torch import Tensor

from sid_pipeline.rqvae import TrainConfig, initialise, losses
from sid_pipeline.rqvae.trainer import _Run

N = 30_000
LAMBDAS = (0.0, 0.001, 0.01, 0.1, 1.0)
DOCUMENT, PLOT = ROOT / "docs" / "rqvae_ablation.md", ROOT / "docs" / "rqvae_ablation.svg"
BEGIN, END = "<!-- begin: written by bench/rqvae_ablation.py -->", "<!-- end -->"


# ------------------------------------------------------------------------------------------------------ variants
@dataclass(frozen=True)
class Variant:
    """One row of the table. patched: a context within which training differs in what no setting reaches."""

    group: str
    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (1, 2, 3)
    times_the_steps: int = 1
    patched: Callable[[], Any] = nullcontext


def mean_over_dimensions() -> Any:
    """Reconstruction and quantisation divided by d = 768: a mean over dimensions where the default sums."""
    summed, quantised = losses.reconstruction, losses.quantisation
    return _patched(
        reconstruction=lambda *a, **k: summed(*a, **k) / 768, quantisation=lambda *a, **k: quantised(*a, **k) / 768
    )


def cosine_reconstruction() -> Any:
    """1 - cosine of input and output (both centred) instead of the squared error."""

    def loss(x: Tensor, output: Tensor, weight: Tensor) -> Tensor:
        return ((1 - torch.nn.functional.cosine_similarity(x, output, dim=1)) * weight).sum() / weight.sum()

    return _patched(reconstruction=loss)


@contextmanager
def random_directions() -> Iterator[None]:
    """Encoder and decoder start from random orthonormal axes instead of the principal ones."""

    def axes(x: Tensor, k: int) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.linalg.qr(torch.randn(x.shape[1], k, generator=generator)).Q

    with patch.object(initialise, "principal_axes", axes):
        yield


@contextmanager
def _patched(**functions: Callable[..., Tensor]) -> Iterator[None]:
    with patch.multiple(losses, **functions):
        yield


def variants() -> list[Variant]:
    """All of them, what is wanted most first."""
    grid = [
        Variant(
            "lambda x sampler",
            f"lambda {lam:g}, sampler {'on' if sampler else 'off'}",
            {"lambda_contrastive": lam, **({} if sampler else {"hierarchical_fraction": 0.0})},
        )
        for lam in LAMBDAS
        for sampler in (True, False)
    ]
    plain = {"snapped_levels": 0, "taxonomy_init": False}
    no_prototypes = [
        Variant("no prototypes", f"lambda {lam:g}", {**plain, "lambda_contrastive": lam}, (1, 2)) for lam in LAMBDAS
    ]
    long = [
        Variant("10x the steps", f"lambda {lam:g}", {"lambda_contrastive": lam}, (1,), 10) for lam in (0.0, 0.01, 1.0)
    ]
    long_plain = [
        Variant("10x the steps", f"no prototypes, lambda {lam:g}", {**plain, "lambda_contrastive": lam}, (1,), 10)
        for lam in (0.0, 0.01, 1.0)
    ]
    switched = [
        Variant("switched once", "level weights 1 0 0 0", {"level_weights": (1.0, 0.0, 0.0, 0.0)}, (1, 2)),
        Variant("switched once", "level weights 1 1 1 1", {"level_weights": (1.0, 1.0, 1.0, 1.0)}, (1, 2)),
        Variant("switched once", "no labels in the initialisation", {"taxonomy_init": False}, (1, 2)),
        Variant("switched once", "random axes, not principal", {}, (1, 2), patched=random_directions),
        Variant("switched once", "latent size 32", {"latent_dim": 32}, (1, 2)),
        Variant("switched once", "latent size 64", {"latent_dim": 64}, (1, 2)),
        Variant("switched once", "latent size 256", {"latent_dim": 256}, (1, 2)),
        Variant("switched once", "mean over dimensions", {}, (1, 2), patched=mean_over_dimensions),
        Variant("switched once", "cosine reconstruction", {}, (1, 2), patched=cosine_reconstruction),
    ]
    return [*grid, *long, *switched, *no_prototypes, *long_plain]


# --------------------------------------------------------------------------------------------------------- runs
def source() -> str:
    """Hash of the trainer's source: figures of another one are not mixed with these."""
    files = sorted((ROOT / "sid_pipeline" / "rqvae").glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def finished(results: Path) -> list[dict[str, Any]]:
    """The finished runs; a last line cut short by a kill is left out."""
    lines = results.read_text().splitlines() if results.exists() else []
    runs = []
    for line in lines:
        try:
            runs.append(json.loads(line))
        except ValueError:
            print(f"{results}: a line that is no JSON is left out; its run is done again.")
    return runs


def run(args: argparse.Namespace) -> None:
    w = workload()
    data = w.make_workload(n=N)
    pairs = w.make_pairs(data.x)
    paths = np.stack([data.dept, data.aisle, data.leaf], axis=1)
    made_by = {"source": source(), "steps": args.steps, "base": args.set}
    done = {_key(r) for r in finished(args.results) if _key(r)[:1] == (_made(made_by),)}
    wanted = [v for v in variants() if not args.only or v.group in args.only]
    # Seed after seed, so that a run that is cut short has every variant.
    todo = [(v, v.seeds[i]) for i in range(3) for v in wanted if i < len(v.seeds)]
    args.results.parent.mkdir(parents=True, exist_ok=True)
    for number, (variant, seed) in enumerate(todo, start=1):
        record: dict[str, Any] = {**made_by, "group": variant.group, "name": variant.name, "seed": seed}
        if _key(record) in done:
            continue
        settings = {
            **args.set,
            **variant.settings,
            "seed": seed,
            "threads": 1,
            "device": "cpu",
            "steps": args.steps * variant.times_the_steps,
            "patience": 10**6,
            "validate_every": 10**6,
            "min_usage": 0.0,
            "max_relative_error": math.inf,
        }
        cpu = time.process_time()
        with variant.patched(), torch.random.fork_rng():
            trained = _Run(data.x, paths, TrainConfig(**settings), None, None)
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            trained.start()
            trained.loop()
            # The last state is the one that is frozen.
            trained.state.best_score = math.inf
            trained._validate()
            book = trained.finish({})
            torch.set_num_threads(threads)
        codes = book.encode(data.x)
        m = w.quality(codes, data, pairs, [book.codebook_size] * book.levels, book.decode(codes))
        record |= {
            "settings": variant.settings,
            "cpu_seconds": time.process_time() - cpu,
            "relative_mse": m["rel_mse"],
            "usage": m["usage"],
            "perplexity": m["perplexity"],
            "collisions": m["collision_rate"],
            "rho_all": m["spearman_all"],
            "rho_nn": m["spearman_nn"],
            "share": m["share90"],
        }
        with open(args.results, "a") as file:
            file.write(json.dumps(record, default=float) + "\n")
        print(
            f"{number}/{len(todo)} {variant.group}: {variant.name}, seed {seed}: {record['cpu_seconds']:.0f} s",
            flush=True,
        )


def _made(record: Mapping[str, Any]) -> str:
    return json.dumps([record["source"], record["steps"], record["base"]], sort_keys=True)


def _key(record: Mapping[str, Any]) -> tuple[str, str, str, int]:
    return _made(record), record["group"], record["name"], record["seed"]


# ------------------------------------------------------------------------------------------------------ document
def write(args: argparse.Namespace) -> None:
    runs = finished(args.results)
    newest = _made(runs[-1])
    runs = [r for r in runs if _made(r) == newest]
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for r in runs:
        grouped.setdefault((r["group"], r["name"]), []).append(r)
    parts = []
    for group in dict.fromkeys(v.group for v in variants()):
        rows = [_row(name, found) for (of, name), found in grouped.items() if of == group]
        if rows:
            parts.append(f"**{group}**\n\n{table(rows)}")
    head, _, rest = DOCUMENT.read_text().partition(BEGIN)
    tail = rest.partition(END)[2]
    minutes = sum(r["cpu_seconds"] for r in runs) / 60
    note = f"{len(runs)} runs of {runs[-1]['steps']} steps (10x where it says so), {minutes:.0f} minutes of one core."
    DOCUMENT.write_text(head + "\n".join([BEGIN, "", note, "", *"\n\n".join(parts).splitlines(), "", END]) + tail)
    draw(grouped)


def _row(name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    def spread(pick: Callable[[dict[str, Any]], float], digits: int) -> str:
        values = [pick(r) for r in runs]
        around = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
        return f"{statistics.mean(values):.{digits}f}{around}"

    def each(key: str) -> list[float]:
        return [statistics.mean(values) for values in zip(*(r[key] for r in runs), strict=True)]

    return {
        "": name,
        "seeds": len(runs),
        "relMSE": spread(lambda r: r["relative_mse"], 4),
        "collisions %": spread(lambda r: 100 * r["collisions"], 2),
        "rho all": spread(lambda r: r["rho_all"], 3),
        "rho nn": spread(lambda r: r["rho_nn"], 3),
        "share L1 %": spread(lambda r: 100 * r["share"][0], 1),
        "L2": spread(lambda r: 100 * r["share"][1], 1),
        "L3": spread(lambda r: 100 * r["share"][2], 1),
        "usage %": percent(each("usage")),
        "perplexity": " ".join(f"{value:.0f}" for value in each("perplexity")),
    }


def draw(grouped: Mapping[tuple[str, str], list[dict[str, Any]]]) -> None:
    """Four figures over lambda: with and without the sampler, without prototypes, and after ten times the steps."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "rqvae"
    from matplotlib import pyplot

    lines = {
        "sampler on": ("lambda x sampler", "lambda {:g}, sampler on"),
        "sampler off": ("lambda x sampler", "lambda {:g}, sampler off"),
        "10x the steps": ("10x the steps", "lambda {:g}"),
        "no prototypes": ("no prototypes", "lambda {:g}"),
        "no prototypes, 10x the steps": ("10x the steps", "no prototypes, lambda {:g}"),
    }
    shown: dict[str, Callable[[dict[str, Any]], float]] = {
        "relMSE": lambda r: r["relative_mse"],
        "collisions, %": lambda r: 100 * r["collisions"],
        "Spearman, neighbour pairs": lambda r: r["rho_nn"],
        "near-duplicates that share L1-L3, %": lambda r: 100 * r["share"][2],
    }
    figure, axes = pyplot.subplots(2, 2, figsize=(9, 6.5), layout="constrained")
    place = {lam: i for i, lam in enumerate(LAMBDAS)}
    for axis, (title, pick) in zip(axes.flat, shown.items(), strict=True):
        for label, (group, name) in lines.items():
            points = [(lam, [pick(r) for r in grouped.get((group, name.format(lam)), [])]) for lam in LAMBDAS]
            points = [(lam, values) for lam, values in points if values]
            if points:
                axis.errorbar(
                    [place[lam] for lam, _ in points],
                    [statistics.mean(values) for _, values in points],
                    [statistics.stdev(values) if len(values) > 1 else 0 for _, values in points],
                    marker="o",
                    markersize=4,
                    linestyle="--" if "10x" in label else "-",
                    capsize=3,
                    label=label,
                )
        axis.set_title(title, fontsize=10)
        axis.set_xticks(range(len(LAMBDAS)), [f"{lam:g}" for lam in LAMBDAS])
        axis.set_xlabel("lambda")
        axis.grid(alpha=0.3)
    axes[0, 0].legend(fontsize=8)
    figure.savefig(PLOT, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", choices=["run", "write"])
    parser.add_argument("--results", type=Path, default=CACHE / "rqvae_ablation.jsonl")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--only", action="append", help="run this group only")
    parser.add_argument("--set", type=setting, action="append", default=[], metavar="FIELD=VALUE", help="in every run")
    args = parser.parse_args()
    args.set = dict(args.set)
    {"run": run, "write": write}[args.bench](args)


if __name__ == "__main__":
    main()
