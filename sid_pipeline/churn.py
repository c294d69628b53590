"""What going over to another release would cost a flavour's readers, product by product; reads tables, starts no Spark.

Used by the asset `codebook_diff`. What does not belong here: the figures themselves (`evaluation.codebook_diff`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sid_pipeline.evaluation.codebook_diff import reasons, token_map
from sid_pipeline.evaluation.report import markdown_table
from sid_pipeline.releases import need_release
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import PRODUCTS, SEMANTIC_IDS
from sid_pipeline.taxonomy_source import release_tree

_STEP = "\x1f"


@dataclass(frozen=True)
class Churn:
    """The change from one release's SIDs to another's, over the products that both have.

    kept: per level, share of products with the same codes from the first level to this.
    reasons: moved products by reason.
    by_category: top-level category to [products, kept first level, moved by each reason]; markdown.
    tokens: the token map, see `evaluation.codebook_diff.token_map`.
    moved: product_id, category, old, new, reason of the products whose base SID is another one, spelt before any
        collision policy.
    """

    products: int
    kept: list[float]
    reasons: dict[str, int]
    by_category: str
    tokens: pa.Table
    moved: pa.Table

    def save(self, warehouse: Warehouse, flavour: str, release: str) -> str:
        """Write token map and moved products as Parquet and return the folder."""
        folder = warehouse.codebook_diff(flavour, release)
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(self.tokens, folder / "token_map.parquet")
        pq.write_table(self.moved, folder / "moved_products.parquet")
        return str(folder)


def churn(warehouse: Warehouse, flavour: str, old: str, new: str, snapshot: str) -> Churn | None:
    """Compare two releases; None where no product has a SID in both, or their codes have different levels.

    Args:
        flavour: the flavour.
        old, new: the releases.
        snapshot: whose categories the products have.
    """
    columns = ["product_id", "codes", "text_hash"]

    def assigned(release: str, suffix: str) -> tuple[pa.Table, pa.Table]:
        rows = warehouse.tables.arrow(SEMANTIC_IDS, columns, flavour=flavour, release=release)
        rows = rows.filter(pc.is_valid(rows["codes"]))
        # A join takes no lists: codes travel by their row.
        numbered = rows.append_column(f"row_{suffix}", pa.array(np.arange(len(rows))))
        return rows, numbered.drop_columns(["codes"]).rename_columns(["product_id", f"text_{suffix}", f"row_{suffix}"])

    (old_rows, before), (new_rows, after) = assigned(old, "old"), assigned(new, "new")
    products = warehouse.tables.arrow(PRODUCTS, ["product_id", "category"], snapshot=snapshot)
    named = products.append_column("path", pc.binary_join(products["category"], _STEP)).drop_columns(["category"])
    both = before.join(after, "product_id", join_type="inner").join(named, "product_id").sort_by("product_id")
    if not len(both):
        return None
    was, now = (
        _matrix(rows)[both[f"row_{suffix}"].to_numpy()] for rows, suffix in ((old_rows, "old"), (new_rows, "new"))
    )
    if was.shape[1] != now.shape[1]:
        return None
    paths = both["path"].to_pylist()
    category_moved = _category_moved(warehouse, old, new, paths)
    text_changed = pc.not_equal(both["text_old"], both["text_new"]).to_numpy(zero_copy_only=False)
    why = reasons(was, now, category_moved, text_changed)
    same = np.logical_and.accumulate(was == now, axis=1)
    rows = np.flatnonzero(why != "")
    spelt = [pa.array(["_".join(map(str, codes)) for codes in table[rows].tolist()]) for table in (was, now)]
    return Churn(
        products=len(both),
        kept=[float(share) for share in same.mean(axis=0)],
        reasons=dict(Counter(why[rows].tolist())),
        by_category=_by_category(paths, same, why),
        tokens=pa.table(token_map(was, now)),
        moved=pa.table(
            {
                "product_id": both["product_id"].take(rows),
                "category": pa.array([" > ".join((paths[row] or "").split(_STEP)) for row in rows.tolist()]),
                "old": spelt[0],
                "new": spelt[1],
                "reason": pa.array(why[rows].tolist(), pa.string()),
            }
        ),
    )


def _matrix(rows: pa.Table) -> np.ndarray:
    flat = rows["codes"].combine_chunks().flatten().to_numpy()
    return flat.reshape(len(rows), -1) if len(rows) else np.empty((0, 0), np.int32)


def _category_moved(warehouse: Warehouse, old: str, new: str, paths: list[str | None]) -> np.ndarray:
    """Per product whether its category's path of nodes differs between the trees that the two are trained on."""
    from sid_pipeline.taxonomy.diff import changed_paths, diff

    old_tree, new_tree = (
        release_tree(warehouse, release, release.taxonomy_revision)
        for release in (need_release(warehouse.tables, name) for name in (old, new))
    )
    split = {path: tuple(path.split(_STEP)) if path else None for path in set(paths)}
    pairs = Counter((split[path], split[path]) for path in paths)
    changed = changed_paths(diff(old_tree, new_tree, pairs), old_tree, new_tree, pairs)
    return np.array([changed[split[path], split[path]] for path in paths], bool)


def _by_category(paths: list[str | None], same: np.ndarray, why: np.ndarray) -> str:
    """The top-level categories, the most moved products first."""
    top = np.array([(path or "(none)").split(_STEP)[0] for path in paths])
    kinds = sorted(set(why.tolist()) - {""})
    rows: list[list[Any]] = []
    for name in np.unique(top):
        here = top == name
        counts = [int((why[here] == kind).sum()) for kind in kinds]
        rows.append([name, int(here.sum()), f"{same[here, 0].mean():.1%}", *counts])
    rows.sort(key=lambda row: (-sum(row[3:]), row[0]))
    return markdown_table(
        ["category", "products", "kept L1", *kinds], [[str(cell) for cell in row] for row in rows[:40]]
    )
