"""What changed between two code tables: from night to night, or from one release to another.

What belongs here: counting what moved, why, and where each old token went. What does not: choosing the numbers of a new
codebook (`alignment.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sid_pipeline.evaluation.metrics import agreement, prefix_ids
from sid_pipeline.evaluation.report import cell, markdown_table
from sid_pipeline.sids import codes_of, lengths


def diff(
    old: pa.Table,
    new: pa.Table,
    titles: Callable[[list[str]], Mapping[str, str]] = lambda product_ids: {},
    examples: int = 10,
    further: tuple[bool, bool] = (False, False),
) -> dict[str, Any]:
    """Compare two tables of SIDs product by product.

    Args:
        old, new: product_id, each once, and sid; the SIDs of a table are of one length.
        titles: titles by product_id; asked once, for the products that are shown.
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
        ValueError: SIDs of different length in one table.
    """
    tokens = [_tokens(table) for table in (old, new)]
    depths = [n - last if n else None for n, last in zip(tokens, further, strict=True)]
    known = [depth for depth in depths if depth is not None]
    comparable = len(set(known)) <= 1
    depth = known[0] if comparable and known else 0
    old, new = (table.select(["product_id", "sid"]).sort_by("product_id") for table in (old, new))
    place = pc.index_in(old["product_id"], value_set=new["product_id"])
    before = old.filter(pc.is_valid(place))
    after = new.take(pc.drop_null(place))
    added = new.filter(pc.invert(pc.is_in(new["product_id"], value_set=old["product_id"])))
    withdrawn = old.filter(pc.is_null(place))
    was, now = (
        codes_of(table["sid"], n)[:, :depth] if len(table) else np.empty((0, depth), np.int32)
        for table, n in zip((before, after), tokens, strict=True)
    )
    same = was == now
    kept = np.logical_and.accumulate(same, axis=1)
    first_change = kept.sum(axis=1)
    levels = []
    prefix_was, prefix_now = prefix_ids(was), prefix_ids(now)
    for level in range(depth):
        ami = agreement(prefix_was[:, level], prefix_now[:, level])["ami"] if len(before) else None
        levels.append(
            {
                "level": level + 1,
                "kept_code": float(same[:, level].mean()) if len(before) else None,
                "kept_prefix": float(kept[:, level].mean()) if len(before) else None,
                "first_changed_here": int((first_change == level).sum()),
                "grouping_ami": None if ami is None else ami.value,
            }
        )
    moved = np.flatnonzero(pc.not_equal(before["sid"], after["sid"]).to_numpy())
    shown = moved[np.argsort(first_change[moved], kind="stable")][:examples]
    pairs = zip(before.take(shown).to_pylist(), after["sid"].take(shown).to_pylist(), shown.tolist(), strict=True)
    result: dict[str, Any] = {
        "old": len(old),
        "new": len(new),
        "common": len(before),
        "added": len(added),
        "withdrawn": len(withdrawn),
        "moved": len(moved),
        "comparable": comparable,
        "levels": levels,
        "moved_examples": [
            {
                "product_id": row["product_id"],
                "title": "",
                "old": row["sid"],
                "new": sid,
                "first_changed_level": int(first_change[number]) + 1 if comparable else None,
            }
            for row, sid, number in pairs
        ],
        **{
            f"{name}_examples": [
                {"product_id": row["product_id"], "title": "", "sid": row["sid"]}
                for row in table.slice(0, examples).to_pylist()
            ]
            for name, table in (("added", added), ("withdrawn", withdrawn))
        },
    }
    told = [row for name in ("moved", "added", "withdrawn") for row in result[f"{name}_examples"]]
    known_titles = titles([row["product_id"] for row in told])
    for row in told:
        row["title"] = known_titles.get(row["product_id"], "")
    result["markdown"] = _markdown(result, depths)
    return result


def _tokens(table: pa.Table) -> int:
    """How many tokens a table's SIDs have; 0 where it is empty."""
    found = lengths(table["sid"])
    if len(found) > 1:
        raise ValueError(f"one table holds SIDs of {' and '.join(map(str, found))} tokens")
    return found[0] if found else 0


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
