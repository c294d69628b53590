"""What a taxonomy change costs the readers: instacart's tree, edited as a merchandiser would, and rebuilt.

    python bench/taxonomy_churn.py [--seeds 1,2,3] [--threads 2] [--rows N] [--set FIELD=VALUE ...]

The edits: two aisles merged (body lotions soap, soap), one split by a word in the title (candy chocolate), three moved
to another department (frozen juice, ice cream toppings, tortillas flat bread). The project's own diff finds them and
says minor or major. Then, per seed: a codebook on the old tree, and on the new one
    cold, another seed      what a rebuild costs that does not care
    cold                    the same seed and settings
    warm                    trained on from the old codebook (`train(start_from=...)`)
each before and after alignment (`evaluation.alignment.align`). `kept` is the share of the products outside the touched
categories whose codes are the old ones, from the first level to the one named. AMI is of L1 with the new departments
and of L1-L2 with the new aisles, relMSE the squared error over the variance, both over all products.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rqvae_common import catalogue, numbers, report, setting, shared, table
from sklearn.metrics import adjusted_mutual_info_score

from sid_pipeline.evaluation.alignment import align
from sid_pipeline.rqvae import Codebook, TrainConfig, train
from sid_pipeline.taxonomy.diff import diff, touched
from sid_pipeline.taxonomy.paths import path_matrix
from sid_pipeline.taxonomy.tree import Taxonomy
from sid_pipeline.taxonomy.wording import to_dict, verdict

Path = tuple[str, ...]
MERGED = {("personal care", "body lotions soap"), ("personal care", "soap")}
INTO = ("personal care", "soap & body care")
SPLIT, WORD = ("snacks", "candy chocolate"), "chocolate"
PARTS = {True: ("snacks", "chocolate bars & sweets"), False: ("snacks", "candies & gums")}
MOVED = {
    ("frozen", "frozen juice"): ("beverages", "frozen juice"),
    ("snacks", "ice cream toppings"): ("frozen", "ice cream toppings"),
    ("bakery", "tortillas flat bread"): ("international", "tortillas flat bread"),
}
MAX_MINOR_SHARE = 0.01


def edited(path: Path | None, title: str) -> Path | None:
    """A product's category after the edits."""
    if path in MERGED:
        return INTO
    if path == SPLIT:
        return PARTS[WORD in title.lower()]
    return MOVED.get(path, path) if path else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=numbers, default=[1, 2, 3])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, help="only so many products, drawn at random: to try the script")
    parser.add_argument("--set", type=setting, action="append", default=[], help="a field of TrainConfig")
    args = parser.parse_args()

    x, before, titles = products(args.rows)
    after = [edited(path, title) for path, title in zip(before, titles, strict=True)]
    old_tree, new_tree = (Taxonomy.from_paths([path for path in paths if path]) for paths in (before, after))
    pairs = Counter(zip(before, after, strict=True))
    changes = diff(old_tree, new_tree, pairs)
    told = to_dict(changes, old_tree, new_tree, touched(changes, old_tree, new_tree, pairs), MAX_MINOR_SHARE)
    print(verdict(told), *told["sentences"], sep="\n")

    untouched = np.array([a == b for a, b in zip(before, after, strict=True)])
    old_paths, new_paths = path_matrix(old_tree, before), path_matrix(new_tree, after)
    rows = []
    for seed in args.seeds:
        config = TrainConfig(**{"seed": seed, "threads": args.threads, **dict(args.set)})
        other = TrainConfig(**{**config.to_dict(), "seed": seed + 100})
        old = train(x, old_paths, config)
        codes = old.encode(x)
        made = {
            "cold, another seed": lambda other=other: train(x, new_paths, other),
            "cold": lambda config=config: train(x, new_paths, config),
            "warm": lambda config=config, old=old: train(x, new_paths, config, start_from=old),
        }
        for name, build in made.items():
            began = time.monotonic()
            book = build()
            seconds = time.monotonic() - began
            rows += compared(f"{name}, seed {seed}", book, old, x, codes, new_paths, untouched, seconds)
    print(table(rows))


def products(limit: int | None) -> tuple[NDArray[np.float32], list[Path | None], list[str]]:
    """Vectors, category paths (None for `missing`) and titles."""
    import pyarrow.parquet as pq

    found = pq.read_table(shared() / "data" / "instacart" / "products.parquet").to_pylist()
    paths = [None if row["aisle"] == "missing" else (row["department"], row["aisle"]) for row in found]
    x, titles = catalogue("instacart").x, [row["product_name"] for row in found]
    if limit is not None:
        rows = np.sort(np.random.default_rng(0).permutation(len(x))[:limit])
        return np.ascontiguousarray(x[rows]), [paths[row] for row in rows], [titles[row] for row in rows]
    return x, paths, titles


def compared(
    name: str,
    book: Codebook,
    old: Codebook,
    x: NDArray[np.float32],
    old_codes: NDArray[np.int32],
    paths: NDArray[np.int32],
    untouched: NDArray[np.bool_],
    seconds: float,
) -> list[dict[str, Any]]:
    """The figures of a codebook, before and after alignment."""
    codes = book.encode(x)
    aligned = align(book, old_codes, codes, old.id)
    assert np.array_equal(aligned.book.encode(x[:2000]), aligned.codes[:2000])
    assert np.array_equal(aligned.book.decode(aligned.codes), book.decode(codes)), "the same vectors, bit for bit"
    error = ((x - book.decode(codes)) ** 2).sum() / ((x - x.mean(axis=0)) ** 2).sum()
    known = paths[:, 0] >= 0
    leaf = np.unique(paths[known], axis=0, return_inverse=True)[1].reshape(-1)
    prefix = np.unique(codes[known, :2], axis=0, return_inverse=True)[1].reshape(-1)
    quality = {
        "AMI L1 department": float(adjusted_mutual_info_score(paths[known, 0], codes[known, 0])),
        "AMI L1-L2 aisle": float(adjusted_mutual_info_score(leaf, prefix)),
        "relMSE": float(error),
        "distinct": len(np.unique(codes, axis=0)) / len(codes),
    }
    rows = []
    for how, numbered in (("as trained", codes), ("aligned", aligned.codes)):
        same = np.logical_and.accumulate(numbered == old_codes, axis=1)
        kept = {f"kept L1-L{level + 1} %": 100 * float(same[untouched, level].mean()) for level in range(book.levels)}
        rows.append({"rebuild": f"{name}, {how}", **kept, **quality, "training s": round(seconds)})
        report(**rows[-1], touched_kept_l1=float(same[~untouched, 0].mean()))
    return rows


if __name__ == "__main__":
    main()
