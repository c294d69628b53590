"""Fine-tuning a bi-encoder on relevance labels, and the gate its result has to pass.

What belongs here: which texts are compared in training, the two losses, the loop, the decision to publish.
What does not: figures (`evaluate.py`). The loop is written out, for the library's own trainer asks for two
more packages. Pooling and similarity are those of inference: the model's own modules, then cosine.

Stage 1 pulls each query to its E products: multiple negatives ranking (Henderson et al. 2017,
arXiv:1705.00652) with the query's I and C products as hard negatives besides the other products of the batch.
Stage 2 orders the graded pairs: CoSENT (Huang et al. 2024, TASLP), comparing products of the same query only,
as nDCG does; it uses the order of the gains alone, so that their steepness does not crush S to zero.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from sid_pipeline.files import digest, sync_folder
from sid_pipeline.relevance.config import FineTuneConfig
from sid_pipeline.relevance.evaluate import Evaluation
from sid_pipeline.relevance.metrics import paired_bootstrap

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

# Below this, a percentile interval over queries means little: three lucky queries would swap the model.
MIN_QUERIES = 20
CPU_SLICE = 8
DEFAULTS = FineTuneConfig()


@dataclass(frozen=True)
class GateDecision:
    """Whether the fine-tuned model replaces the base model, in a sentence and in figures (JSON-able)."""

    publish: bool
    sentence: str
    figures: dict[str, float | int | None]


def gate(base: Evaluation, tuned: Evaluation, seed: int, min_queries: int = MIN_QUERIES) -> GateDecision:
    """Publish only if the 95 % interval of the gain in nDCG@10 on held-out queries lies above 0.

    Args:
        base, tuned: of the same pairs, held out from training.
        seed: of the paired bootstrap over queries.
        min_queries: fewer are never evidence.

    Raises:
        ValueError: the two were measured on different queries.
    """
    if base.query_ids != tuned.query_ids:
        raise ValueError("the gate compares two models on the same queries; these were measured on different ones")
    gain = paired_bootstrap(base.ndcg, tuned.ndcg, seed)
    enough = base.queries >= min_queries
    publish = enough and gain.lower > 0
    verdict = "it is published" if publish else "the base model stays"
    reason = "" if enough else f", and fewer than {min_queries} queries are no evidence"
    sentence = (
        f"On {base.queries} held-out queries the fine-tuned model changes nDCG@10 by {gain.mean:+.4f}, from "
        f"{base.mean_ndcg:.4f} to {tuned.mean_ndcg:.4f} (95 % interval of the change {gain.lower:+.4f} to "
        f"{gain.upper:+.4f}){reason}: {verdict}."
    )
    figures: dict[str, float | int | None] = {
        "gain": gain.mean,
        "gain_lower": gain.lower,
        "gain_upper": gain.upper,
        "min_queries": min_queries,
        **{f"base_{name}": value for name, value in base.figures().items()},
        **{f"tuned_{name}": value for name, value in tuned.figures().items()},
    }
    return GateDecision(publish, sentence, figures)


def fine_tune(base_model: str, pairs: pa.Table, out: Path, config: FineTuneConfig = DEFAULTS) -> Path:
    """Train a sentence-transformers bi-encoder on judged pairs and save it in the library's folder format.

    The same inputs give the same weights, bit for bit on one CPU. A killed run goes on from its last
    checkpoint, a hidden file beside `out`, and ends with the same weights; one of other inputs is not used.

    Args:
        base_model: folder or Hugging Face name.
        pairs: schema `labels.PAIRS`, those of split train.
        out: folder to make; it appears whole or not at all.
        config: how to train.

    Returns:
        `out`.

    Raises:
        FileExistsError: `out` exists.
        ValueError: the pairs have nothing to learn from.
    """
    import torch
    from sentence_transformers import SentenceTransformer

    if out.exists():
        raise FileExistsError(f"{out} exists: a trained model is never overwritten, name another folder")
    judged = Judged.of(pairs)
    draw = np.random.default_rng(config.seed)
    stages: list[Sequence[Batch]] = [
        contrastive_batches(judged, config, draw)[: config.max_steps],
        ranking_batches(judged, config, draw)[: config.max_steps],
    ]
    if not any(stages):
        raise ValueError("no E label and no query with two grades: there is nothing to learn from these pairs")
    out.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = out.with_name(f".{out.name}.checkpoint")
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        model = SentenceTransformer(
            base_model,
            revision=config.revision,
            device=None if config.device == "auto" else config.device,
            model_kwargs={"dtype": torch.float32},
        )
        own_limit = model.max_seq_length
        model.max_seq_length = min(config.max_tokens, own_limit or config.max_tokens)
        _train(model, judged, stages, config, checkpoint, _fingerprint(base_model, pairs, config))
        model.max_seq_length = own_limit
    _save(model, out)
    checkpoint.unlink(missing_ok=True)
    return out


class ContrastiveBatch(NamedTuple):
    """Stage 1: n anchors, each with its positive among m candidates.

    Attributes:
        queries: (n,) query of each anchor.
        candidates: (m,) distinct products.
        positives: (n,) the anchor's E product, as a position in `candidates`.
        excluded: (n, m) bool, other products judged E or S for the anchor's query: they are no negatives.
    """

    queries: np.ndarray
    candidates: np.ndarray
    positives: np.ndarray
    excluded: np.ndarray


class RankingBatch(NamedTuple):
    """Stage 2: (n,) query, product and gain of each pair."""

    queries: np.ndarray
    products: np.ndarray
    gains: np.ndarray


Batch = ContrastiveBatch | RankingBatch


@dataclass(frozen=True)
class Judged:
    """Judged pairs over distinct texts: products of the same text are one product.

    Attributes:
        query_texts, product_texts: distinct, sorted.
        queries, products: (n,) int, positions in them.
        grades: (n,) str. gains: (n,) float.
    """

    query_texts: list[str]
    product_texts: list[str]
    queries: np.ndarray
    products: np.ndarray
    grades: np.ndarray
    gains: np.ndarray

    @classmethod
    def of(cls, pairs: pa.Table) -> Judged:
        """Of a table with schema `labels.PAIRS`."""
        query_texts, queries = np.unique(np.array(pairs["query"].to_pylist(), object), return_inverse=True)
        product_texts, products = np.unique(np.array(pairs["text"].to_pylist(), object), return_inverse=True)
        return cls(
            query_texts.tolist(),
            product_texts.tolist(),
            queries,
            products,
            np.array(pairs["grade"].to_pylist(), "U1"),
            pairs["gain"].to_numpy(),
        )

    def by_query(self, grades: str) -> dict[int, np.ndarray]:
        """Sorted distinct products of each query that were judged one of these grades for it."""
        found: dict[int, set[int]] = defaultdict(set)
        rows = np.flatnonzero(np.isin(self.grades, list(grades)))
        for query, product in zip(self.queries[rows].tolist(), self.products[rows].tolist(), strict=True):
            found[query].add(product)
        return {query: np.array(sorted(products)) for query, products in found.items()}


def contrastive_batches(judged: Judged, config: FineTuneConfig, draw: np.random.Generator) -> list[ContrastiveBatch]:
    """Stage 1's batches: each E pair once an epoch, with hard negatives drawn anew."""
    none = np.empty(0, np.int64)
    kept = judged.by_query("ES")
    negatives = judged.by_query("IC")
    exact = np.flatnonzero(judged.grades == "E")
    batches = []
    for rows in _epochs(exact, config.contrastive_epochs, config.contrastive_batch, draw):
        queries, positives = judged.queries[rows], judged.products[rows]
        hard = [
            draw.choice(pool, min(config.hard_negatives, len(pool)), replace=False)
            for pool in (negatives.get(query, none) for query in queries.tolist())
        ]
        candidates = np.unique(np.concatenate([positives, *hard]))
        excluded = np.stack([np.isin(candidates, kept[query]) for query in queries.tolist()])
        excluded &= candidates[None, :] != positives[:, None]
        batches.append(ContrastiveBatch(queries, candidates, np.searchsorted(candidates, positives), excluded))
    return batches


def ranking_batches(judged: Judged, config: FineTuneConfig, draw: np.random.Generator) -> list[RankingBatch]:
    """Stage 2's batches: the pairs of a query stay together, up to the size of a batch."""
    order = np.argsort(judged.queries, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(judged.queries[order])) + 1)
    batches = []
    for _ in range(config.ranking_epochs):
        held: list[np.ndarray] = []
        for group in draw.permutation(len(groups)).tolist():
            rows = draw.permutation(groups[group])
            for start in range(0, len(rows), config.ranking_batch):
                part = rows[start : start + config.ranking_batch]
                if len(np.unique(judged.gains[part])) == 1:
                    continue
                if sum(map(len, held)) + len(part) > config.ranking_batch:
                    batches.append(_ranking_batch(judged, held))
                    held = []
                held.append(part)
        if held:
            batches.append(_ranking_batch(judged, held))
    return batches


def _ranking_batch(judged: Judged, parts: list[np.ndarray]) -> RankingBatch:
    rows = np.concatenate(parts)
    return RankingBatch(judged.queries[rows], judged.products[rows], judged.gains[rows])


def _epochs(rows: np.ndarray, epochs: int, size: int, draw: np.random.Generator) -> Iterator[np.ndarray]:
    for _ in range(epochs):
        shuffled = draw.permutation(rows)
        yield from (shuffled[start : start + size] for start in range(0, len(rows), size))


def contrastive_loss(
    anchors: torch.Tensor,
    candidates: torch.Tensor,
    positives: torch.Tensor,
    excluded: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """Cross-entropy of each anchor's positive among its candidates.

    Args:
        anchors: (n, d) unit rows. candidates: (m, d) unit rows.
        positives: (n,) int, positions in candidates.
        excluded: (n, m) bool, candidates that are no negatives of the anchor.
        scale: inverse temperature.
    """
    from torch.nn import functional

    logits = (scale * anchors @ candidates.T).masked_fill(excluded, float("-inf"))
    return functional.cross_entropy(logits, positives)


def ranking_loss(scores: torch.Tensor, gains: torch.Tensor, queries: torch.Tensor, scale: float) -> torch.Tensor:
    """CoSENT: log(1 + sum of exp(scale (score_j - score_i))) over pairs of one query with gain_i > gain_j.

    Args:
        scores: (n,) cosines. gains, queries: (n,).
        scale: inverse temperature.
    """
    import torch

    excess = scale * (scores[None, :] - scores[:, None])
    compared = (gains[:, None] > gains[None, :]) & (queries[:, None] == queries[None, :])
    return torch.logsumexp(torch.cat([excess.new_zeros(1), excess[compared]]), dim=0)


def _train(
    model: SentenceTransformer,
    judged: Judged,
    stages: Sequence[Sequence[Batch]],
    config: FineTuneConfig,
    checkpoint: Path,
    fingerprint: str,
) -> None:
    import torch

    optimiser = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    batches = [batch for stage in stages for batch in stage]
    rates = [rate for stage in stages for rate in _rates(len(stage), config.warmup_share)]
    done = _resume(model, optimiser, checkpoint, fingerprint)
    model.train()
    last_checkpoint = time.monotonic()
    for step in tqdm(range(done, len(batches)), desc="fine-tuning", unit=" batches"):
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * rates[step]
        optimiser.zero_grad()
        _loss(model, judged, batches[step], config).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_gradient_norm)
        optimiser.step()
        if time.monotonic() - last_checkpoint > config.checkpoint_seconds:
            _checkpoint(model, optimiser, checkpoint, fingerprint, step + 1)
            last_checkpoint = time.monotonic()
    model.eval()


def _rates(steps: int, warmup_share: float) -> list[float]:
    """Factors of the learning rate: up from nearly 0 to 1, and down again to nearly 0."""
    warmup = max(1, round(steps * warmup_share))
    return [min((step + 1) / warmup, (steps - step) / max(1, steps - warmup)) for step in range(steps)]


def _loss(
    model: SentenceTransformer,
    judged: Judged,
    batch: Batch,
    config: FineTuneConfig,
) -> torch.Tensor:
    import torch

    queries, of_pair = np.unique(batch.queries, return_inverse=True)
    # Queries and products apart: queries are short, and padding them to a product's length costs time.
    query_vectors = _embed(model, [judged.query_texts[query] for query in queries], config.prompt)
    anchors = query_vectors[torch.as_tensor(of_pair, device=query_vectors.device)]
    if isinstance(batch, ContrastiveBatch):
        candidates = _embed(model, [judged.product_texts[product] for product in batch.candidates], config.prompt)
        positives = torch.as_tensor(batch.positives, device=anchors.device)
        excluded = torch.as_tensor(batch.excluded, device=anchors.device)
        return contrastive_loss(anchors, candidates, positives, excluded, config.scale)
    products = _embed(model, [judged.product_texts[product] for product in batch.products], config.prompt)
    gains = torch.as_tensor(batch.gains, dtype=anchors.dtype, device=anchors.device)
    query_of_pair = torch.as_tensor(of_pair, device=anchors.device)
    return ranking_loss((anchors * products).sum(dim=1), gains, query_of_pair, config.scale)


def _embed(model: SentenceTransformer, texts: list[str], prompt: str) -> torch.Tensor:
    """(n, d) unit rows, with gradients, through the same modules as `model.encode`."""
    import torch
    from torch.nn import functional

    # A batch is padded to its longest text: on a CPU that is most of the work, hence slices by length.
    by_length = np.argsort([len(text) for text in texts], kind="stable")
    size = CPU_SLICE if model.device.type == "cpu" else len(texts)
    slices = [by_length[start : start + size] for start in range(0, len(texts), size)]
    vectors = torch.cat([_forward(model, [prompt + texts[row] for row in rows]) for rows in slices])
    back = torch.as_tensor(np.argsort(by_length), device=vectors.device)
    return functional.normalize(vectors[back], dim=-1)


def _forward(model: SentenceTransformer, texts: list[str]) -> torch.Tensor:
    # sentence-transformers 6 renamed tokenize.
    preprocess = model.preprocess if hasattr(model, "preprocess") else model.tokenize
    features = {
        name: value.to(model.device) if hasattr(value, "to") else value for name, value in preprocess(texts).items()
    }
    return model(features)["sentence_embedding"]


def _fingerprint(base_model: str, pairs: pa.Table, config: FineTuneConfig) -> str:
    """What a checkpoint has to share with the run that goes on from it."""
    settings = {key: value for key, value in asdict(config).items() if key != "checkpoint_seconds"}
    columns = [pairs[name].to_pylist() for name in ("query", "text", "grade", "gain")]
    return digest([base_model, settings, columns])


def _checkpoint(
    model: SentenceTransformer,
    optimiser: torch.optim.Optimizer,
    file: Path,
    fingerprint: str,
    step: int,
) -> None:
    import torch

    state = {
        "fingerprint": fingerprint,
        "step": step,
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        # Dropout draws from these.
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    scratch = file.with_name(f"{file.name}.part")
    torch.save(state, scratch)
    os.replace(scratch, file)


def _resume(model: SentenceTransformer, optimiser: torch.optim.Optimizer, file: Path, fingerprint: str) -> int:
    """Load the checkpoint of the same inputs, if there is one; returns the steps it has behind it."""
    import torch

    if not file.is_file():
        return 0
    state = torch.load(file, map_location="cpu", weights_only=True)
    if state["fingerprint"] != fingerprint:
        return 0
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    torch.set_rng_state(state["random"])
    if state["random_cuda"]:
        torch.cuda.set_rng_state_all(state["random_cuda"])
    return int(state["step"])


def _save(model: SentenceTransformer, out: Path) -> None:
    scratch = out.with_name(f".{out.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    model.save_pretrained(str(scratch), create_model_card=False, safe_serialization=True)
    os.rename(scratch, out)
    sync_folder(out.parent)
