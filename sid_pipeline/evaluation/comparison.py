"""Two code tables of the same products side by side: two flavours, or a trial release and the live one.

What belongs here: what one groups and the other does not, counted and shown. What does not: how good either
is by itself (`report.py`), and how one table changed over time (`codebook_diff.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sid_pipeline.evaluation.metrics import Path, agreement, numbered_paths, prefix_ids, shared_depth, sid_text
from sid_pipeline.evaluation.report import cell, markdown_table


@dataclass(frozen=True)
class CodeTable:
    """One side of a comparison.

    Attributes:
        name: the flavour or release.
        products: N rows of product_id, each once, title, and category (a list of strings, null or empty for
            uncategorised) where there is a taxonomy.
        codes: (N, L) int.
    """

    name: str
    products: pa.Table
    codes: np.ndarray


def compare_flavours(a: CodeTable, b: CodeTable, *, examples: int = 10, seed: int = 0) -> dict[str, Any]:
    """Compare two code tables on the products that both have. Titles and categories are taken from `a`.

    A pair is grouped at level l when its products share the prefix of l levels. The counts are of all pairs
    and exact. `same_leaf` is the share of a side's grouped pairs, of categorised products, that are of one
    leaf category: a high one means that the prefix groups substitutes, a low one that it reaches across
    categories.

    Returns:
        names, `items` in both, `levels` (level, ami, pairs grouped by both / only a / only b, jaccard,
        same_leaf of each side), `categories` by side (pairs of leaf categories of different parents whose products
        share L1 most more often than on the other side), `examples` by side (pairs that this side holds together
        deepest and the other parts at L1, at most one for each group), and `markdown`.

    Raises:
        ValueError: a product_id stands twice in a table, or the tables differ in levels.
    """
    row_a, row_b = _common_rows(a, b)
    codes_a, codes_b = np.asarray(a.codes)[row_a], np.asarray(b.codes)[row_b]
    if codes_a.shape[1] != codes_b.shape[1]:
        raise ValueError(f"{a.name} has {codes_a.shape[1]} levels and {b.name} {codes_b.shape[1]}: not comparable")
    prefix_a, prefix_b = prefix_ids(codes_a), prefix_ids(codes_b)
    products = a.products.take(row_a)
    titles = products["title"]
    leaves, tree = numbered_paths(products["category"]) if "category" in products.column_names else (None, [])
    levels = []
    for level in range(codes_a.shape[1] if len(row_a) else 0):
        x, y = prefix_a[:, level], prefix_b[:, level]
        both, in_a, in_b = _grouped(x * (y.max() + 1) + y), _grouped(x), _grouped(y)
        ami = agreement(x, y)["ami"]
        levels.append(
            {
                "level": level + 1,
                "ami": None if ami is None else ami.value,
                "both": both,
                "only_a": in_a - both,
                "only_b": in_b - both,
                "jaccard": both / (in_a + in_b - both) if in_a + in_b - both else None,
                "same_leaf_a": _same_leaf(x, leaves),
                "same_leaf_b": _same_leaf(y, leaves),
            }
        )
    sides = ((a.name, prefix_a, prefix_b), (b.name, prefix_b, prefix_a))
    shown = [
        {
            "grouped_by": name,
            "pairs": [
                {
                    "shared_levels": depth,
                    "products": [
                        {
                            "product_id": product["product_id"],
                            "text": product["title"],
                            "category": product.get("category") or [],
                            "sid_a": sid_text(codes_a[row]),
                            "sid_b": sid_text(codes_b[row]),
                        }
                        for row, product in zip((i, j), products.take([i, j]).to_pylist(), strict=True)
                    ],
                }
                for i, j, depth in _differing_pairs(together, apart, titles, examples, seed)
            ],
        }
        for name, together, apart in sides
    ]
    beside = [] if leaves is None else _categories_beside(prefix_a[:, 0], prefix_b[:, 0], leaves, tree, examples)
    result: dict[str, Any] = {
        "a": a.name,
        "b": b.name,
        "items": len(row_a),
        "levels": levels,
        "categories": [
            {"grouped_by": name, "other": other, "pairs": pairs}
            for (name, other), pairs in zip(((a.name, b.name), (b.name, a.name)), beside or [[], []], strict=True)
        ],
        "examples": shown,
    }
    result["markdown"] = _markdown(result)
    return result


def _categories_beside(
    x: np.ndarray, y: np.ndarray, leaves: np.ndarray, paths: list[Path], examples: int, least: int = 5
) -> list[list[dict[str, Any]]]:
    """For either side the pairs of leaf categories that it puts side by side at L1 and the other does not.

    A pair's share is the chance that a product of one and a product of the other have the same L1 code. Leaves of
    one parent are near anyway and are left out, as are leaves of fewer than `least` products; of the others the
    2,000 largest are looked at, and each is named twice at most.
    """
    known = leaves >= 0
    size = np.bincount(leaves[known], minlength=len(paths))
    kept = np.sort(np.argsort(-size, kind="stable")[:2_000])
    kept = kept[size[kept] >= least]
    if len(kept) < 2:
        return [[], []]
    number = np.full(len(paths), -1)
    number[kept] = np.arange(len(kept))
    rows = np.flatnonzero(known & (number[leaves] >= 0))
    shares = []
    for code in (x, y):
        spread = np.zeros((len(kept), int(code.max()) + 1))
        np.add.at(spread, (number[leaves[rows]], code[rows]), 1)
        spread /= spread.sum(axis=1, keepdims=True)
        shares.append(spread @ spread.T)
    parents = np.unique([" > ".join(paths[leaf][:-1]) for leaf in kept.tolist()], return_inverse=True)[1]
    i, j = np.triu_indices(len(kept), 1)
    apart = parents[i] != parents[j]
    i, j = i[apart], j[apart]
    found = []
    for here, there in (shares, shares[::-1]):
        gain = here[i, j] - there[i, j]
        named: dict[int, int] = {}
        pairs: list[dict[str, Any]] = []
        for place in np.argsort(-gain, kind="stable")[: 50 * examples].tolist():
            first, second = int(i[place]), int(j[place])
            if len(pairs) >= examples or gain[place] <= 0.05:
                break
            if max(named.get(first, 0), named.get(second, 0)) >= 2:
                continue
            named |= {leaf: named.get(leaf, 0) + 1 for leaf in (first, second)}
            pairs.append(
                {
                    "first": list(paths[kept[first]]),
                    "second": list(paths[kept[second]]),
                    "share": float(here[first, second]),
                    "other_share": float(there[first, second]),
                }
            )
        found.append(pairs)
    return found


def _common_rows(a: CodeTable, b: CodeTable) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the shared products in each table, in the order of product_id."""
    ids = [table.products["product_id"] for table in (a, b)]
    for table, column in zip((a, b), ids, strict=True):
        if pc.count_distinct(column).as_py() != len(column):
            raise ValueError(f"{table.name} holds a product_id more than once")
    order = pc.sort_indices(ids[0])
    place = pc.index_in(ids[0].take(order), value_set=ids[1])
    both = pc.is_valid(place)
    return order.filter(both.combine_chunks()).to_numpy(), place.filter(both).to_numpy()


def _grouped(part: np.ndarray) -> int:
    """Pairs of rows with equal values."""
    counts = np.unique(part, return_counts=True)[1].astype(object)
    return int((counts * (counts - 1) // 2).sum())


def _same_leaf(part: np.ndarray, leaves: np.ndarray | None) -> float | None:
    if leaves is None:
        return None
    known = leaves >= 0
    grouped = _grouped(part[known])
    return _grouped(part[known] * (leaves.max() + 1) + leaves[known]) / grouped if grouped else None


def _differing_pairs(
    together: np.ndarray, apart: np.ndarray, titles: pa.ChunkedArray, examples: int, seed: int
) -> list[tuple[int, int, int]]:
    """Pairs (i, j, shared levels) that `together` holds deepest and `apart` parts at the first level.

    Neighbours in a seeded shuffle inside each group are looked at, so no group gets quadratic; one pair a
    group of two levels, and pairs of different titles only.
    """
    n = len(together)
    if n < 2:
        return []
    shuffled = np.random.default_rng(seed).permutation(n)
    # Stable from the last level up: rows end next to those that they share most levels with.
    order = shuffled[np.lexsort(tuple(together[shuffled, level] for level in reversed(range(together.shape[1]))))]
    i, j = order[:-1], order[1:]
    depth = shared_depth(together, i, j)
    candidates = np.flatnonzero((depth > 0) & (apart[i, 0] != apart[j, 0]))
    candidates = candidates[np.argsort(-depth[candidates], kind="stable")]
    found: list[tuple[int, int, int]] = []
    seen: set[int] = set()
    group_level = min(1, together.shape[1] - 1)
    for position in candidates:
        if len(found) >= examples:
            break
        first, second = sorted((int(i[position]), int(j[position])))
        group = int(together[first, group_level])
        if group in seen or titles[first].as_py().casefold() == titles[second].as_py().casefold():
            continue
        seen.add(group)
        found.append((first, second, int(depth[position])))
    return found


def _markdown(result: dict[str, Any]) -> str:
    a, b = cell(result["a"]), cell(result["b"])

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f} %"

    parts = [
        f"{a} beside {b} on {result['items']:,} products.",
        markdown_table(
            [
                "level",
                "AMI",
                "pairs grouped by both",
                f"only {a}",
                f"only {b}",
                f"of one leaf, {a}",
                f"of one leaf, {b}",
            ],
            [
                [
                    f"L1{'' if row['level'] == 1 else '..L' + str(row['level'])}",
                    "-" if row["ami"] is None else f"{row['ami']:.3f}",
                    f"{row['both']:,}",
                    f"{row['only_a']:,}",
                    f"{row['only_b']:,}",
                    percent(row["same_leaf_a"]),
                    percent(row["same_leaf_b"]),
                ]
                for row in result["levels"]
            ],
        ),
    ]
    for side in result["categories"]:
        if side["pairs"]:
            parts.append(
                f"Categories that {cell(side['grouped_by'])} puts side by side (chance that two products share L1):\n\n"
                + markdown_table(
                    ["category", "and", cell(side["grouped_by"]), cell(side["other"])],
                    [
                        [
                            cell(" > ".join(pair["first"])),
                            cell(" > ".join(pair["second"])),
                            percent(pair["share"]),
                            percent(pair["other_share"]),
                        ]
                        for pair in side["pairs"]
                    ],
                )
            )
    for side in result["examples"]:
        if not side["pairs"]:
            continue
        parts.append(
            f"Held together by {cell(side['grouped_by'])} only:\n\n"
            + markdown_table(
                ["levels", "product", "and", f"{a}", f"{b}"],
                [
                    [
                        pair["shared_levels"],
                        cell(pair["products"][0]["text"], 60),
                        cell(pair["products"][1]["text"], 60),
                        " / ".join(f"`{product['sid_a']}`" for product in pair["products"]),
                        " / ".join(f"`{product['sid_b']}`" for product in pair["products"]),
                    ]
                    for pair in side["pairs"]
                ],
            )
        )
    return "\n\n".join(parts) + "\n"
