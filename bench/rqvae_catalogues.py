"""Codebooks on real catalogues, beside residual k-means and lambda = 0.

    python bench/rqvae_catalogues.py frontier [--part choose|report] [--knob cells_per_group=1,2,4,8]
    python bench/rqvae_catalogues.py unseen
    python bench/rqvae_catalogues.py published

`frontier`: instacart; a fifth of the products is held out of training, one half of it to choose settings by, the
other to report. Everything but `distinct`, which counts the whole catalogue, is measured on that half.
`unseen`: bigbasket without a fifth of its leaf categories in training; is what is gained over residual k-means
gained there too?
`published`: instacart in both flavours, trained on all of it as a served codebook is, on named samples of pairs,
beside the published ranges.

Shares are of pairs with cosine >= .9, not of identical vectors. Each run is one JSON line, the table follows.
Options of all: --seeds 1,2,3, --threads 1, --set FIELD=VALUE (of TrainConfig).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rqvae_common import Catalogue, catalogue, near_pairs, numbers, percent, report, setting, table

from sid_pipeline.evaluation import metrics
from sid_pipeline.evaluation.pairs import Pairs, neighbour_pairs, random_pairs, row_norms, stratified_pairs
from sid_pipeline.rqvae import TrainConfig, train
from sid_pipeline.rqvae.kmeans import kmeans, nearest

KMEANS, NO_TERM, OURS = "residual k-means", "lambda 0", "default"


def coded(
    name: str, c: Catalogue, rows: NDArray[np.int64], config: TrainConfig
) -> tuple[NDArray[np.int32], NDArray[np.float32], dict[str, Any]]:
    """Codes (N, levels) and reconstruction (N, d) of a catalogue by a codebook trained on `rows`; how it was made."""
    if name == KMEANS:
        return *residual_kmeans(c.x, rows, config), {}
    trained = train(c.x[rows], c.paths[rows], config)
    codes = trained.encode(c.x)
    run = trained.manifest["run"]
    return codes, trained.decode(codes), {key: run[key] for key in ("steps", "chosen_step", "snapped_levels")}


def residual_kmeans(
    x: NDArray[np.float32], rows: NDArray[np.int64], config: TrainConfig
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Codes and reconstruction of x (N, d) by k-means on all of `rows`, level after level: the strongest baseline.

    (The baseline of `evaluation`, beside every report, fits on a bounded sample.)
    """
    generator = torch.Generator().manual_seed(config.seed)
    centre = x[rows].mean(axis=0)
    rest = torch.from_numpy(x - centre)
    at = torch.from_numpy(rows)
    codes = []
    for _ in range(config.levels):
        words = kmeans(rest[at], config.codebook_size, 12, generator)
        code, _ = nearest(rest, words)
        rest = rest - words[code]
        codes.append(code.numpy().astype(np.int32))
    return np.stack(codes, axis=1), x - rest.numpy()


def figures(
    c: Catalogue,
    codes: NDArray[np.int32],
    decoded: NDArray[np.float32],
    rows: NDArray[np.int64],
    pairs: Pairs,
    centre: NDArray[np.float32],
) -> dict[str, Any]:
    """Figures of the products `rows`; `pairs` are theirs with any product."""
    prefix = metrics.prefix_ids(codes)
    depth = metrics.shared_depth(prefix, pairs.i, pairs.j)
    own = c.paths[rows]
    rng = np.random.default_rng(0)
    i, j = rows[rng.integers(len(rows), size=(2, 200_000))]
    cosine = np.einsum("nd,nd->n", c.x[i], c.x[j])
    random = Pairs("random", i, j, cosine)
    out = {
        "products": len(rows),
        "pairs": len(pairs),
        "share": [float((depth > level).mean()) for level in range(codes.shape[1])],
        "distinct": metrics.sid_health(prefix)["distinct_share"],
        "usage": [level["usage"] for level in metrics.level_health(codes, [512] * codes.shape[1])],
        "relative_mse": float(((c.x[rows] - decoded[rows]) ** 2).sum() / ((c.x[rows] - centre) ** 2).sum()),
    }
    rho = metrics.spearman(random, metrics.shared_depth(prefix, i, j))
    out["rho_random"] = rho.value if rho else None
    for depth_of_tree in range(own.shape[1]):
        has = own[:, depth_of_tree] >= 0
        ami = metrics.agreement(prefix[rows[has], depth_of_tree], own[has, depth_of_tree])["ami"]
        out[f"ami_prefix{depth_of_tree + 1}"] = ami.value if ami else None
    return out


def recipes(base: TrainConfig, settings: dict[str, Any], names: Sequence[str]) -> Iterator[tuple[str, TrainConfig]]:
    for name in names:
        extra = {"lambda_contrastive": 0.0} if name == NO_TERM else {}
        yield name, TrainConfig(**{**base.to_dict(), **settings, **extra})


def frontier(args: argparse.Namespace) -> None:
    """Bar 4 on instacart: coherence against uniqueness as the knob turns."""
    c = catalogue("instacart")
    order = np.random.default_rng(args.split).permutation(len(c.x))
    fifth = len(order) // 5
    half = {"choose": order[: fifth // 2], "report": order[fifth // 2 : fifth]}[args.part]
    kept = np.sort(order[fifth:])
    pairs = near_pairs(c.x, np.sort(half))
    knob, values = args.knob or ("", [None])
    rows = []
    for seed in args.seeds:
        for value in values:
            settings = {**args.set, "seed": seed, "threads": args.threads, **({knob: value} if knob else {})}
            names = args.only or ([KMEANS, NO_TERM, OURS] if value is values[0] else [OURS])
            for name, config in recipes(TrainConfig(), settings, names):
                codes, decoded, made = coded(name, c, kept, config)
                m = figures(c, codes, decoded, np.sort(half), pairs, c.x[kept].mean(axis=0))
                report(bench="frontier", part=args.part, recipe=name, settings=settings, **made, **m)
                shown = f"{name}, {knob} {value}" if knob and name == OURS else name
                rows.append(
                    {
                        "recipe": shown,
                        "seed": seed,
                        "share L1..L4 %": percent(m["share"]),
                        "distinct": m["distinct"],
                        "AMI L1 department": m["ami_prefix1"],
                        "AMI L1-L2 aisle": m["ami_prefix2"],
                        "relMSE": m["relative_mse"],
                        "rho, random pairs": m["rho_random"],
                    }
                )
    print(table(rows))


def unseen(args: argparse.Namespace) -> None:
    """Bar 4 on bigbasket: the gain over residual k-means on leaves that training never saw."""
    c = catalogue("bigbasket")
    leaf = c.paths[:, -1]
    rng = np.random.default_rng(args.split)
    leaves = np.unique(leaf[leaf >= 0])
    away = rng.choice(leaves, len(leaves) // 5, replace=False)
    is_away = np.isin(leaf, away)
    others = rng.permutation(np.flatnonzero(~is_away))
    groups = {"unseen leaves": np.flatnonzero(is_away), "seen leaves": np.sort(others[: len(others) // 10])}
    kept = np.sort(others[len(others) // 10 :])
    pairs = {name: near_pairs(c.x, rows) for name, rows in groups.items()}
    centre = c.x[kept].mean(axis=0)
    rows = []
    for seed in args.seeds:
        settings = {**args.set, "seed": seed, "threads": args.threads}
        for name, config in recipes(TrainConfig(), settings, args.only or [KMEANS, NO_TERM, OURS]):
            codes, decoded, made = coded(name, c, kept, config)
            for group, members in groups.items():
                m = figures(c, codes, decoded, members, pairs[group], centre)
                report(bench="unseen", recipe=name, group=group, settings=settings, **made, **m)
                rows.append(
                    {
                        "recipe": name,
                        "seed": seed,
                        "held out of": group,
                        "products": m["products"],
                        "pairs": m["pairs"],
                        "share L1..L4 %": percent(m["share"]),
                        "distinct": m["distinct"],
                        "AMI L1 category": m["ami_prefix1"],
                        "L1-L2 sub-category": m["ami_prefix2"],
                        "L1-L3 type": m["ami_prefix3"],
                        "relMSE": m["relative_mse"],
                    }
                )
    print(table(rows))


def published(args: argparse.Namespace) -> None:
    """Bar 5: Spearman and shares over named samples of pairs, both flavours."""
    rows = []
    for text in ("raw", "cleaned"):
        c = catalogue("instacart", text)
        everything = np.arange(len(c.x))
        norms, rng = row_norms(c.x), np.random.default_rng(args.split)
        random = random_pairs(c.x, norms, 100_000, rng)
        near = neighbour_pairs(c.x, norms, 2_000, 50, rng)
        samples = [random, near, stratified_pairs(c.x, norms, near, 2_000, rng)]
        for seed in args.seeds:
            settings = {**args.set, "seed": seed, "threads": args.threads}
            for name, config in recipes(TrainConfig(), settings, args.only or [KMEANS, NO_TERM, OURS]):
                codes, _, made = coded(name, c, everything, config)
                prefix = metrics.prefix_ids(codes)
                distinct = metrics.sid_health(prefix)["distinct_share"]
                for pairs in samples:
                    depth = metrics.shared_depth(prefix, pairs.i, pairs.j)
                    rho = metrics.spearman(pairs, depth)
                    close = metrics.near_duplicates(pairs)
                    close_depth = metrics.shared_depth(prefix, close.i, close.j)
                    share = metrics.share_by_level(close, close_depth, codes.shape[1])
                    row = {
                        "text": text,
                        "recipe": name,
                        "seed": seed,
                        "pairs": f"{pairs.name} ({len(pairs):,})",
                        "rho": rho.value if rho else None,
                        "highest possible": ceiling(pairs, depth),
                        "share L1..L4 %": percent([s.value if s else None for s in share]),
                        "of pairs >= .9": len(close),
                        "distinct": distinct,
                    }
                    report(bench="published", settings=settings, **made, **row)
                    rows.append(row)
    print(table(rows))


def ceiling(pairs: Pairs, depth: NDArray[np.int64]) -> float | None:
    """Spearman's correlation if the same depths were dealt out in the order of the cosines.

    Of random pairs few share any level, and so many ties keep the correlation low however good the codes are.
    """
    dealt = np.empty_like(depth)
    dealt[np.argsort(pairs.cosine, kind="stable")] = np.sort(depth)
    best = metrics.spearman(pairs, dealt)
    return best.value if best else None


def knob(text: str) -> tuple[str, list[Any]]:
    """FIELD=v1,v2,... of TrainConfig."""
    name, values = setting(f"{text},")
    return name, list(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", choices=["frontier", "unseen", "published"])
    parser.add_argument("--part", choices=["choose", "report"], default="choose")
    parser.add_argument("--knob", type=knob)
    parser.add_argument("--seeds", type=numbers, default=[1])
    parser.add_argument("--split", type=int, default=0, help="seed of what is held out and which pairs are drawn")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", action="append", choices=[KMEANS, NO_TERM, OURS])
    parser.add_argument("--set", type=setting, action="append", default=[], metavar="FIELD=VALUE")
    args = parser.parse_args()
    args.set = dict(args.set)
    {"frontier": frontier, "unseen": unseen, "published": published}[args.bench](args)


if __name__ == "__main__":
    main()
