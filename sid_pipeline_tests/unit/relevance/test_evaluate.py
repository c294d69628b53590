"""One pass over queries, against a ranking worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest

from sid_pipeline.relevance.evaluate import evaluate
from sid_pipeline.relevance.label_files import LabelError
from sid_pipeline.relevance.labels import pairs_table

# Angles in degrees; queries point to 0.
ANGLES = {"q1": 0, "q2": 0, "q3": 0, "near": 10, "middle": 40, "far": 80, "twin": 10}


def encode(texts: list[str]) -> np.ndarray:
    angles = np.radians([ANGLES[text] for text in texts])
    # By dot product the far one would win; cosine must not see lengths.
    lengths = np.array([[100.0 if text == "far" else 1.0] for text in texts])
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * lengths


def pairs(*rows: tuple[str, str, str]) -> pa.Table:
    return pairs_table(
        {"query_id": query, "query": query, "product_id": text, "text": text, "grade": grade, "split": "test"}
        for query, text, grade in rows
    )


def test_figures_by_hand() -> None:
    result = evaluate(
        encode,
        pairs(
            ("q1", "near", "S"),
            ("q1", "middle", "E"),
            ("q1", "far", "S"),
            ("q2", "near", "E"),
            ("q2", "far", "I"),
            ("q3", "far", "I"),
        ),
    )
    first = (0.1 + 1 / math.log2(3) + 0.1 / 2) / (1 + 0.1 / math.log2(3) + 0.1 / 2)
    assert result.query_ids == ("q1", "q2")
    assert result.ndcg == pytest.approx([first, 1.0])
    assert result.mean_ndcg == pytest.approx((first + 1) / 2)
    assert (result.e_over_s, result.e_s_pairs) == (0.5, 2)
    assert (result.queries, result.unscored, result.products) == (2, 1, 3)
    assert result.recall == 1.0


def test_recall_looks_among_all_products_of_the_table() -> None:
    # Ten products nearer than q1's own E push it out of the best ten, though q1 was never judged on them.
    crowd = {f"crowd {number}": number for number in range(1, 11)}
    angles = {**ANGLES, **crowd}

    def crowded(texts: list[str]) -> np.ndarray:
        radians = np.radians([angles[text] for text in texts])
        return np.stack([np.cos(radians), np.sin(radians)], axis=1)

    rows = [("q1", "far", "E"), *[("q2", text, "E") for text in crowd]]
    assert evaluate(crowded, pairs(*rows)).recall == 0.5


def test_each_distinct_text_is_encoded_once_whatever_the_order() -> None:
    seen: list[str] = []

    def counting(texts: list[str]) -> np.ndarray:
        seen.extend(texts)
        return encode(texts)

    table = pairs(("q1", "near", "E"), ("q1", "far", "S"), ("q2", "near", "I"), ("q2", "middle", "E"))
    result = evaluate(counting, table)
    assert sorted(seen) == ["far", "middle", "near", "q1", "q2"]
    again = evaluate(encode, table.take([3, 1, 0, 2]))
    assert again.figures() == result.figures()


def test_products_of_the_same_text_are_tied() -> None:
    rows = [
        {"query_id": "q1", "query": "q1", "product_id": key, "text": "near", "grade": grade, "split": "test"}
        for key, grade in [("a", "E"), ("b", "S")]
    ]
    result = evaluate(encode, pairs_table(rows))
    assert result.e_over_s == 0.5
    assert result.mean_ndcg == pytest.approx((0.55 + 0.55 / math.log2(3)) / (1 + 0.1 / math.log2(3)))


def test_many_queries_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pairs(("q1", "near", "E"), ("q1", "far", "S"), ("q2", "near", "C"), ("q2", "middle", "E"))
    whole = evaluate(encode, table).figures()
    monkeypatch.setattr("sid_pipeline.relevance.evaluate._BLOCK_SCORES", 1)
    assert evaluate(encode, table).figures() == pytest.approx(whole)


def test_nothing_to_rank_and_broken_vectors_are_said() -> None:
    with pytest.raises(LabelError, match=r"no query has a product with a gain.* labels of grade E, S or C"):
        evaluate(encode, pairs(("q1", "near", "I")))
    with pytest.raises(ValueError, match="no query has a product with a gain"):
        evaluate(encode, pairs(("q1", "near", "I")).slice(0, 0))
    with pytest.raises(ValueError, match="NaN or infinite values for the text 'near'"):
        evaluate(
            lambda texts: np.where(np.array(texts)[:, None] == "near", np.nan, encode(texts)),
            pairs(("q1", "near", "E")),
        )
    with pytest.raises(ValueError, match=r"shape \(1, 2\) for 2 texts"):
        evaluate(lambda texts: np.ones((1, 2)), pairs(("q1", "near", "E")))
