"""Fine-tuning a tiny random BERT: what is compared, the losses by hand, resuming, and the gate."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sid_pipeline.relevance import finetune
from sid_pipeline.relevance.evaluate import Evaluation, evaluate
from sid_pipeline.relevance.finetune import (
    FineTuneConfig,
    Judged,
    contrastive_batches,
    contrastive_loss,
    fine_tune,
    gate,
    ranking_batches,
    ranking_loss,
)
from sid_pipeline.relevance.labels import pairs_table
from sid_pipeline_tests.tiny_models import COLOURS, THINGS, TRANSLATED, judgements, tiny_bert

CONFIG = FineTuneConfig(
    contrastive_epochs=6,
    ranking_epochs=6,
    contrastive_batch=8,
    ranking_batch=12,
    learning_rate=3e-3,
    device="cpu",
)


def pair(query: str, text: str, grade: str) -> dict[str, str]:
    return {
        "query_id": query,
        "query": query,
        "product_id": text,
        "text": text,
        "grade": grade,
        "split": "train",
    }


def learnable_pairs() -> pa.Table:
    return pairs_table(pair(row["query"], row["text"], row["grade"]) for row in judgements(COLOURS, THINGS))


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("tiny"), TRANSLATED, spread=0.02)


def load(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu")


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_it_learns_and_saves_a_folder_that_loads(tiny_model: Path, tmp_path: Path) -> None:
    pairs = learnable_pairs()
    out = fine_tune(str(tiny_model), pairs, tmp_path / "models" / "tuned", CONFIG)
    base, tuned = evaluate(load(tiny_model).encode, pairs), evaluate(load(out).encode, pairs)
    assert tuned.mean_ndcg > base.mean_ndcg + 0.1
    assert tuned.mean_ndcg > 0.95
    assert tuned.e_over_s is not None and tuned.e_over_s > 0.9
    assert load(out).max_seq_length == load(tiny_model).max_seq_length
    assert [entry.name for entry in out.parent.iterdir()] == ["tuned"]
    assert not list(out.rglob("*.bin"))


@pytest.mark.parametrize("stage", ["contrastive_epochs", "ranking_epochs"])
def test_each_stage_learns_by_itself(tiny_model: Path, tmp_path: Path, stage: str) -> None:
    pairs = learnable_pairs()
    other = {"contrastive_epochs": "ranking_epochs", "ranking_epochs": "contrastive_epochs"}[stage]
    config = FineTuneConfig(**{**vars(CONFIG), other: 0})
    out = fine_tune(str(tiny_model), pairs, tmp_path / "tuned", config)
    gain = evaluate(load(out).encode, pairs).mean_ndcg - evaluate(load(tiny_model).encode, pairs).mean_ndcg
    assert gain > 0.05


class _Killed(Exception):
    pass


def test_a_killed_run_goes_on_and_ends_with_the_same_weights(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = FineTuneConfig(**{**vars(CONFIG), "checkpoint_seconds": 0.0, "max_steps": 5})
    steps: list[int] = []
    real = finetune._loss

    def counted(*args: Any) -> Any:
        if len(steps) == 7:
            raise _Killed
        steps.append(1)
        return real(*args)

    pairs = learnable_pairs()
    whole = fine_tune(str(tiny_model), pairs, tmp_path / "whole", config)
    monkeypatch.setattr(finetune, "_loss", counted)
    with pytest.raises(_Killed):
        fine_tune(str(tiny_model), pairs, tmp_path / "killed", config)
    assert not (tmp_path / "killed").exists()
    steps.clear()
    resumed = fine_tune(str(tiny_model), pairs, tmp_path / "killed", config)
    assert len(steps) == 10 - 7
    assert weights(resumed) == weights(whole)


def test_a_checkpoint_of_other_pairs_is_not_used(tiny_model: Path, tmp_path: Path) -> None:
    config = FineTuneConfig(**{**vars(CONFIG), "checkpoint_seconds": 0.0, "max_steps": 2})
    pairs = learnable_pairs()
    whole = fine_tune(str(tiny_model), pairs, tmp_path / "whole", config)
    (tmp_path / "other").mkdir()
    checkpoint = tmp_path / "other" / ".tuned.checkpoint"
    other = fine_tune_to_checkpoint(tiny_model, pairs.slice(0, 40), tmp_path / "fewer", config)
    os.replace(other, checkpoint)
    again = fine_tune(str(tiny_model), pairs, tmp_path / "other" / "tuned", config)
    assert weights(again) == weights(whole)


def fine_tune_to_checkpoint(model: Path, pairs: pa.Table, out: Path, config: FineTuneConfig) -> Path:
    """Train, but fail at saving, so that the last checkpoint stays."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune, "_save", lambda model, out: (_ for _ in ()).throw(_Killed))
        with pytest.raises(_Killed):
            fine_tune(str(model), pairs, out, config)
    return out.with_name(f".{out.name}.checkpoint")


def test_what_cannot_be_trained_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="never overwritten"):
        fine_tune("unused", learnable_pairs(), tmp_path)
    with pytest.raises(ValueError, match="nothing to learn"):
        fine_tune("unused", pairs_table([pair("q", "a", "S"), pair("r", "b", "I")]), tmp_path / "out")


def names(judged: Judged, products: np.ndarray) -> list[str]:
    return [judged.product_texts[product] for product in products]


def test_substitutes_and_other_exact_products_are_never_negatives() -> None:
    judged = Judged.of(
        pairs_table(
            [
                pair("q", "e1", "E"),
                pair("q", "e2", "E"),
                pair("q", "s", "S"),
                pair("q", "i", "I"),
                pair("r", "s", "E"),
                pair("r", "c", "C"),
            ]
        )
    )
    config = FineTuneConfig(hard_negatives=5, contrastive_batch=10)
    (batch,) = contrastive_batches(judged, config, np.random.default_rng(0))
    # All E pairs in one batch; q's S product is there as r's positive.
    assert names(judged, batch.candidates) == ["c", "e1", "e2", "i", "s"]
    seen = {
        (judged.query_texts[query], judged.product_texts[batch.candidates[positive]]): {
            judged.product_texts[product] for product, out in zip(batch.candidates, excluded, strict=True) if not out
        }
        for query, positive, excluded in zip(batch.queries, batch.positives, batch.excluded, strict=True)
    }
    assert seen == {
        ("q", "e1"): {"c", "e1", "i"},
        ("q", "e2"): {"c", "e2", "i"},
        ("r", "s"): {"c", "e1", "e2", "i", "s"},
    }


def test_a_text_judged_e_and_i_under_two_ids_is_no_negative() -> None:
    rows = [pair("q", "same", "E"), {**pair("q", "same", "I"), "product_id": "other"}]
    (batch,) = contrastive_batches(Judged.of(pairs_table(rows)), FineTuneConfig(), np.random.default_rng(0))
    assert batch.candidates.tolist() == [0]


def test_ranking_batches_keep_queries_together_and_leave_out_what_has_no_order() -> None:
    rows = [pair(query, f"{query}{number}", grade) for query in "ab" for number, grade in enumerate("ESCI")]
    rows += [pair("flat", "x", "I"), pair("flat", "y", "I")]
    judged = Judged.of(pairs_table(rows))
    batches = ranking_batches(judged, FineTuneConfig(ranking_batch=6), np.random.default_rng(0))
    assert sorted(sorted(names(judged, batch.products)) for batch in batches) == [
        ["a0", "a1", "a2", "a3"],
        ["b0", "b1", "b2", "b3"],
    ]
    together = ranking_batches(judged, FineTuneConfig(ranking_batch=8), np.random.default_rng(0))
    assert [len(batch.products) for batch in together] == [8]


def test_contrastive_loss_by_hand() -> None:
    import torch

    anchors = torch.tensor([[1.0, 0.0]])
    candidates = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    positives = torch.tensor([0])
    nothing, third = torch.tensor([[False, False, False]]), torch.tensor([[False, False, True]])
    # Logits 2 * (1, 0, .6).
    expected = math.log(math.exp(2) + 1 + math.exp(1.2)) - 2
    assert contrastive_loss(anchors, candidates, positives, nothing, 2.0).item() == pytest.approx(expected)
    without = math.log(math.exp(2) + 1) - 2
    assert contrastive_loss(anchors, candidates, positives, third, 2.0).item() == pytest.approx(without)


def test_ranking_loss_by_hand() -> None:
    import torch

    # Query 0 has its order wrong by .3; query 1's product is compared with nothing.
    scores = torch.tensor([0.2, 0.5, 0.9])
    gains, queries = torch.tensor([1.0, 0.1, 0.0]), torch.tensor([0, 0, 1])
    assert ranking_loss(scores, gains, queries, 10.0).item() == pytest.approx(math.log(1 + math.exp(3)))
    assert ranking_loss(scores, torch.ones(3), queries, 10.0).item() == 0.0


def evaluation(ndcg: np.ndarray) -> Evaluation:
    ids = tuple(f"{number:03}" for number in range(len(ndcg)))
    return Evaluation(ids, ndcg, recall=0.5, e_over_s=0.5, e_s_pairs=4, unscored=0, products=9)


@pytest.fixture
def noise() -> Iterator[np.ndarray]:
    yield np.random.default_rng(0).normal(0, 0.05, 60)


def test_gate_publishes_a_clear_gain_only(noise: np.ndarray) -> None:
    base = evaluation(np.full(60, 0.7))
    clear = gate(base, evaluation(0.75 + noise), seed=0)
    assert clear.publish
    assert clear.sentence.startswith("On 60 held-out queries the fine-tuned model changes nDCG@10 by +0.05")
    assert clear.sentence.endswith(": it is published.")
    assert clear.figures["gain_lower"] > 0  # type: ignore[operator]
    assert clear.figures["base_ndcg_at_10"] == pytest.approx(0.7)
    unclear = gate(base, evaluation(0.7 + noise - noise.mean() + 0.005), seed=0)
    assert not unclear.publish
    assert unclear.figures["gain"] == pytest.approx(0.005)
    assert unclear.sentence.endswith(": the base model stays.")


def test_gate_holds_when_nothing_changed_or_queries_are_few() -> None:
    same = evaluation(np.full(60, 0.7))
    assert not gate(same, same, seed=0).publish
    few = gate(evaluation(np.full(19, 0.5)), evaluation(np.full(19, 0.9)), seed=0)
    assert not few.publish
    assert "fewer than 20 queries are no evidence" in few.sentence


def test_gate_compares_the_same_queries_only() -> None:
    with pytest.raises(ValueError, match="same queries"):
        gate(evaluation(np.zeros(30)), evaluation(np.zeros(31)), seed=0)
