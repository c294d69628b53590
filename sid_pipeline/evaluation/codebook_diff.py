"""What changed between two code tables: from night to night, or from one release to another.

What belongs here: counting what moved, why, and where each old token went. What does not: choosing the numbers of a new
codebook (`alignment.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sid_pipeline.evaluation.metrics import agreement, prefix_ids, sid_text
from sid_pipeline.evaluation.report import cell, markdown_table


def diff(
    old: Mapping[str, Sequence[int]],
    new: Mapping[str, Sequence[int]],
    titles: Mapping[str, str] | None = None,
    examples: int = 10,
    further: tuple[bool, bool] = (False, False),
) -> dict[str, Any]:
    """Compare two tables of SIDs product by product.

    Args:
        old, new: product_id -> codes, coarse to fine, in each table of one length.
        titles: product_id -> title, for the examples.
        examples: most moved, added and withdrawn products shown, each in the order of product_id; moved ones
            that changed at the coarsest level first.
        further: whether SIDs of old, and of new, end with a further token, which tells apart products of the same
            codes: it counts for what moved, but is no level.

    Returns:
        counts (old, new, common, added, withdrawn, moved), `levels`: per level the share of common products
        that kept the code (that level alone), that kept the prefix (all levels so far), that first changed
        here, and the adjusted mutual information of the groupings, which a mere renumbering of codes leaves
        at 1; examples; and `markdown`. Shares are None where there are no common products. `comparable` is false,
        and there are no levels, where the tables are of different depth.

    Raises:
        ValueError: rows of different length in one table.
    """
    depths = [_depth(table, last) for table, last in zip((old, new), further, strict=True)]
    known = [depth for depth in depths if depth is not None]
    comparable = len(set(known)) <= 1
    depth = known[0] if comparable and known else 0
    common = sorted(old.keys() & new.keys())
    added, withdrawn = sorted(new.keys() - old.keys()), sorted(old.keys() - new.keys())
    before = np.array([old[key][:depth] for key in common], np.int64).reshape(len(common), depth)
    after = np.array([new[key][:depth] for key in common], np.int64).reshape(len(common), depth)
    same = before == after
    kept = np.logical_and.accumulate(same, axis=1)
    first_change = kept.sum(axis=1)
    levels = []
    prefix_before, prefix_after = prefix_ids(before), prefix_ids(after)
    for level in range(depth):
        ami = agreement(prefix_before[:, level], prefix_after[:, level])["ami"] if common else None
        levels.append(
            {
                "level": level + 1,
                "kept_code": float(same[:, level].mean()) if common else None,
                "kept_prefix": float(kept[:, level].mean()) if common else None,
                "first_changed_here": int((first_change == level).sum()),
                "grouping_ami": None if ami is None else ami.value,
            }
        )

    def title(key: str) -> str:
        return (titles or {}).get(key, "")

    moved = np.flatnonzero([tuple(old[key]) != tuple(new[key]) for key in common])
    shown = moved[np.argsort(first_change[moved], kind="stable")][:examples]
    result: dict[str, Any] = {
        "old": len(old),
        "new": len(new),
        "common": len(common),
        "added": len(added),
        "withdrawn": len(withdrawn),
        "moved": len(moved),
        "comparable": comparable,
        "levels": levels,
        "moved_examples": [
            {
                "product_id": common[row],
                "title": title(common[row]),
                "old": sid_text(old[common[row]]),
                "new": sid_text(new[common[row]]),
                "first_changed_level": int(first_change[row]) + 1 if comparable else None,
            }
            for row in shown.tolist()
        ],
        "added_examples": [
            {"product_id": key, "title": title(key), "sid": sid_text(new[key])} for key in added[:examples]
        ],
        "withdrawn_examples": [
            {"product_id": key, "title": title(key), "sid": sid_text(old[key])} for key in withdrawn[:examples]
        ],
    }
    result["markdown"] = _markdown(result, depths)
    return result


def _depth(table: Mapping[str, Sequence[int]], further: bool) -> int | None:
    """Levels of a table's codes; None where it is empty."""
    lengths = {len(sid) for sid in table.values()}
    if len(lengths) > 1:
        raise ValueError(f"one table holds SIDs of {' and '.join(map(str, sorted(lengths)))} tokens")
    return lengths.pop() - further if lengths else None


CATEGORY_MOVED, TEXT_CHANGED, DRIFTED = "category moved", "text changed", "quantiser drifted"


def reasons(
    old: NDArray[Any], new: NDArray[Any], category_moved: NDArray[np.bool_], text_changed: NDArray[np.bool_]
) -> NDArray[np.object_]:
    """Why each product's SID is another one: (N,) of the constants above, '' where it is the same.

    The first that applies: its category's path of nodes changed; its embedded text did; else the codebook codes the
    same text of the same category otherwise.

    Args:
        old, new: (N, levels) codes.
        category_moved, text_changed: (N,).
    """
    moved = (old != new).any(axis=1)
    why = np.where(category_moved, CATEGORY_MOVED, np.where(text_changed, TEXT_CHANGED, DRIFTED)).astype(object)
    return np.where(moved, why, "")


def token_map(old: NDArray[Any], new: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Where each old token went: of its products, the commonest new token of the same level.

    A reader starts the embedding of token `new` from its own of token `old`; where several old tokens name one new
    token, the one with the most products is the best start.

    Args:
        old, new: (N, levels) codes of the same products.

    Returns:
        Columns of equal length, by level and old code: `level` (1 is the coarsest), `old`, `new`, `products` (of the
        old token), `share` (of them that the new token holds; 1: the token only changed its number).
    """
    columns: dict[str, list[NDArray[Any]]] = {name: [] for name in ("level", "old", "new", "products", "share")}
    for level in range(old.shape[1]):
        pairs, count = np.unique(np.stack([old[:, level], new[:, level]], 1), axis=0, return_counts=True)
        # By old code, the commonest first; of equals the lowest new code.
        order = np.lexsort((pairs[:, 1], -count, pairs[:, 0]))
        pairs, count = pairs[order], count[order]
        codes, first, group = np.unique(pairs[:, 0], return_index=True, return_inverse=True)
        total = np.bincount(group.reshape(-1), weights=count).astype(np.int64)
        columns["level"].append(np.full(len(codes), level + 1))
        columns["old"].append(codes)
        columns["new"].append(pairs[first, 1])
        columns["products"].append(total)
        columns["share"].append(count[first] / total)
    return {name: np.concatenate(parts) for name, parts in columns.items()}


def _markdown(result: Mapping[str, Any], depths: Sequence[int | None]) -> str:
    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f} %"

    parts = [
        f"{result['common']:,} products in both, {result['added']:,} added, "
        f"{result['withdrawn']:,} withdrawn, {result['moved']:,} with another SID.",
        f"Codes of {depths[0]} and of {depths[1]} levels: not comparable level by level."
        if not result["comparable"]
        else markdown_table(
            [
                "level",
                "kept the code",
                "kept the prefix",
                "first changed here",
                "agreement of the groups (AMI)",
            ],
            [
                [
                    f"L{row['level']}",
                    percent(row["kept_code"]),
                    percent(row["kept_prefix"]),
                    f"{row['first_changed_here']:,}",
                    "-" if row["grouping_ami"] is None else f"{row['grouping_ami']:.3f}",
                ]
                for row in result["levels"]
            ],
        ),
    ]
    if result["moved_examples"]:
        parts.append(
            markdown_table(
                ["product", "title", "old", "new"],
                [
                    [cell(row["product_id"]), cell(row["title"]), f"`{row['old']}`", f"`{row['new']}`"]
                    for row in result["moved_examples"]
                ],
            )
        )
    return "\n\n".join(parts) + "\n"
