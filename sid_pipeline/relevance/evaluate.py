"""How well an embedding ranks judged products: one pass over queries, by cosine.

What belongs here: from texts to the figures of one embedding. What does not: the figures' definitions
(`metrics.py`) and whether one embedding is better than another (`gate` in `finetune.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sid_pipeline.embedding.vectors import unit
from sid_pipeline.relevance.label_files import LabelError
from sid_pipeline.relevance.metrics import ndcg, pairs_in_order, recall

Encode = Callable[[list[str]], np.ndarray]

K = 10
# Scores held at a time: 64 MB of float32.
_BLOCK_SCORES = 16_000_000


@dataclass(frozen=True)
class Evaluation:
    """Figures of one embedding over judged queries.

    Attributes:
        query_ids: queries with at least one gain above 0, sorted; n of them.
        ndcg: (n,) float64, nDCG@10 over each query's judged products.
        recall: mean share of a query's E products among the 10 best of all products in the table, whether
            they were judged for this query or not; over queries with an E product, None without one.
        e_over_s: share of (E, S) pairs of one query with E first, over all such pairs; None without one.
        e_s_pairs: number of those pairs.
        unscored: queries left out because none of their products has a gain.
        products: size of the pool that recall is looked for in.
    """

    query_ids: tuple[str, ...]
    ndcg: np.ndarray
    recall: float | None
    e_over_s: float | None
    e_s_pairs: int
    unscored: int
    products: int

    @property
    def queries(self) -> int:
        """Queries that the mean rests on."""
        return len(self.query_ids)

    @property
    def mean_ndcg(self) -> float:
        """Mean nDCG@10 over queries."""
        return float(self.ndcg.mean())

    def figures(self) -> dict[str, float | int | None]:
        """JSON-able figures, for metadata and tables."""
        return {
            f"ndcg_at_{K}": self.mean_ndcg,
            f"recall_at_{K}": self.recall,
            "e_over_s": self.e_over_s,
            "queries": self.queries,
            "queries_without_a_gain": self.unscored,
            "e_s_pairs": self.e_s_pairs,
            "products": self.products,
        }


def evaluate(encode: Encode, pairs: pa.Table) -> Evaluation:
    """Rank each query's products by cosine and measure the order.

    Args:
        encode: n texts to a float (n, d) matrix; the rows' lengths do not matter. Called once, with each
            distinct text once, queries and products alike.
        pairs: schema `labels.PAIRS`; for a held-out figure, the pairs of split test.

    Raises:
        LabelError: no query has a product with a gain.
        ValueError: `encode` gave NaN, infinite or misshapen vectors.
    """
    if not np.any(pairs["gain"].to_numpy() > 0):
        raise LabelError(
            f"no query has a product with a gain above 0 among the {len(pairs)} labels that are held out: there is "
            "nothing to rank. Give queries of split test labels of grade E, S or C, or say in relevance.grades what "
            "the grades mean."
        )
    # Sorted, so that neither the result nor the encoder's batches depend on the table's order.
    pairs = pairs.sort_by([("query_id", "ascending"), ("product_id", "ascending")])
    texts = sorted({*pairs["query"].to_pylist(), *pairs["text"].to_pylist()})
    position = {text: row for row, text in enumerate(texts)}
    vectors = _unit(encode(texts), texts)

    queries, products = _codes(pairs["query_id"]), _codes(pairs["product_id"])
    _, first_of_product = np.unique(products, return_index=True)
    product_rows = _rows(pairs["text"], position)[first_of_product]
    # Products of the same text share one score, bit for bit, and so are tied.
    text_rows, text_of_product = np.unique(product_rows, return_inverse=True)
    pool = vectors[text_rows]

    starts = np.flatnonzero(np.diff(queries, prepend=-1))
    ends = np.append(starts[1:], len(queries))
    query_rows = _rows(pairs["query"].take(pa.array(starts)), position)
    query_ids = pairs["query_id"].take(pa.array(starts)).to_pylist()
    gains = pairs["gain"].to_numpy()
    grades = np.array(pairs["grade"].to_pylist())

    per_query = np.full(len(starts), np.nan)
    recalls = np.full(len(starts), np.nan)
    in_order, e_s_pairs = 0.0, 0
    block = max(1, _BLOCK_SCORES // max(1, len(pool)))
    for begin in range(0, len(starts), block):
        scores_of_texts = vectors[query_rows[begin : begin + block]] @ pool.T
        for offset, text_scores in enumerate(scores_of_texts):
            query = begin + offset
            rows = slice(starts[query], ends[query])
            scores = text_scores[text_of_product]
            judged, grade = products[rows], grades[rows]
            relevant = np.zeros(len(scores), bool)
            relevant[judged[grade == "E"]] = True
            per_query[query] = ndcg(gains[rows], scores[judged], K)
            recalls[query] = recall(relevant, scores, K)
            ordered, compared = pairs_in_order(scores[judged[grade == "E"]], scores[judged[grade == "S"]])
            in_order, e_s_pairs = in_order + ordered, e_s_pairs + compared

    scored = ~np.isnan(per_query)
    with_e = ~np.isnan(recalls)
    return Evaluation(
        query_ids=tuple(query_id for query_id, ok in zip(query_ids, scored.tolist(), strict=True) if ok),
        ndcg=per_query[scored],
        recall=float(recalls[with_e].mean()) if with_e.any() else None,
        e_over_s=in_order / e_s_pairs if e_s_pairs else None,
        e_s_pairs=e_s_pairs,
        unscored=int((~scored).sum()),
        products=len(product_rows),
    )


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    """(n,) number of each value among the sorted distinct ones."""
    distinct = pc.unique(column).sort()
    return pc.index_in(column, distinct).to_numpy().astype(np.int64)


def _rows(column: Any, position: dict[str, int]) -> np.ndarray:
    return np.array([position[text] for text in column.to_pylist()], np.int64)


def _unit(vectors: np.ndarray, texts: list[str]) -> np.ndarray:
    vectors = np.asarray(vectors, np.float32)
    if vectors.ndim != 2 or len(vectors) != len(texts):
        raise ValueError(f"encode gave vectors of shape {vectors.shape} for {len(texts)} texts")
    broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if broken.size:
        raise ValueError(f"encode gave NaN or infinite values for the text {texts[broken[0]]!r}")
    return unit(vectors)
