"""How long reading, checking and comparing large trees takes.

    python bench/taxonomy_size.py [--nodes 100000]

A random tree of 7 levels as edges (CSV) and as paths (Parquet); then a tree with a tenth of its nodes renamed, moved or
gone, with ids and without.
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sid_pipeline.taxonomy.diff import apply, diff, touched
from sid_pipeline.taxonomy.sources import read_taxonomy
from sid_pipeline.taxonomy.tree import Taxonomy

T = TypeVar("T")
DEPTH = 7


def timed(what: str, work: Callable[[], T]) -> T:
    began = time.perf_counter()
    result = work()
    print(f"{what}: {time.perf_counter() - began:.2f} s", flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=100_000)
    args = parser.parse_args()
    rng = random.Random(0)
    depth = {0: 1}
    rows: list[tuple[str, str | None, str]] = [("0", None, "name 0")]
    inner = [0]
    for node in range(1, args.nodes):
        parent = rng.choice(inner)
        depth[node] = depth[parent] + 1
        rows.append((str(node), str(parent), f"name {rng.randrange(args.nodes // 2)}"))
        if depth[node] < DEPTH:
            inner.append(node)
    with tempfile.TemporaryDirectory() as folder:
        edges, paths = Path(folder) / "edges.csv", Path(folder) / "paths.parquet"
        with edges.open("w", newline="") as file:
            csv.writer(file).writerows([("node_id", "parent_id", "name"), *rows])
        old = timed("read edges, CSV", lambda: read_taxonomy(str(edges)))
        pq.write_table(pa.table({"path": [" > ".join(node.path) for node in old.nodes]}), paths)
        bare = timed("read paths, Parquet", lambda: read_taxonomy(str(paths)))
    print(f"{len(old.nodes):,} nodes, {old.depth} levels, {len(old.problems):,} problems listed")
    changed = []
    for node in old.nodes:
        chance = rng.random()
        if node.leaf and chance < 0.03:
            continue
        parent = (
            rng.choice(old.nodes[: len(old.nodes) // 50]).node_id if node.leaf and chance < 0.06 else node.parent_id
        )
        changed.append((node.node_id, parent, f"{node.name} again" if chance > 0.96 else node.name))
    new = Taxonomy.from_edges(changed)
    for how, before, after in (
        ("with ids", old, new),
        ("without ids", bare, Taxonomy.from_paths([node.path for node in new.nodes])),
    ):
        changes = timed(f"diff {how}", lambda before=before, after=after: diff(before, after))
        reach = timed(f"touched {how}", lambda b=before, a=after, c=changes: touched(c, b, a))
        assert apply(changes, before).nodes == after.nodes
        print(
            f"  {len(changes.added):,} added, {len(changes.removed):,} removed, {len(changes.renamed):,} renamed, "
            f"{len(changes.moved):,} moved; {reach.share:.1%} of the nodes touched"
        )


if __name__ == "__main__":
    main()
