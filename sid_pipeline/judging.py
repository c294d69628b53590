"""Running the judge of `evaluation.judge` over a release's SIDs; reads tables, starts no Spark."""

from __future__ import annotations

import asyncio

import numpy as np
import pyarrow.compute as pc

from sid_pipeline.evaluation.judge import judge, sample_groups, summary, to_markdown
from sid_pipeline.files import to_json, write_atomically
from sid_pipeline.receipts import MissingInput
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import PRODUCTS, SEMANTIC_IDS


class NoJudge(RuntimeError):
    """No language model can be asked; the message says what to set."""


def judge_release(warehouse: Warehouse, flavour: str, release: str, groups: int, seed: int) -> str:
    """Judge a sample of a flavour's groups, keep the result beside its report, and return it as text.

    Raises:
        NoJudge: the settings name no language model, or the environment holds no key for it.
        MissingInput: the release has no SIDs in this flavour.
    """
    from sid_pipeline.cleaning.llm.provider import CallFailed
    from sid_pipeline.resources.llm import connect, llm_calls

    cleaning = warehouse.settings.cleaning
    if cleaning.provider == "rules":
        raise NoJudge("no language model is set: set cleaning.provider to gemini or openai, and its key")
    try:
        provider = connect(cleaning)
    except CallFailed as error:
        raise NoJudge(str(error)) from error
    assigned = warehouse.receipts.need(f"{flavour}/semantic_ids", release)
    rows = warehouse.tables.arrow(
        SEMANTIC_IDS,
        ["product_id", "codes"],
        filters=pc.field("base_sid").is_valid() & pc.field("withdrawn_on").is_null(),
        flavour=flavour,
        release=release,
    ).sort_by("product_id")
    if not rows.num_rows:
        raise MissingInput(f"{flavour} {release!r} holds no SID to judge")
    products = {
        row["product_id"]: row
        for row in warehouse.tables.arrow(
            PRODUCTS, ["product_id", "title", "brand", "category"], snapshot=assigned.facts["as_of_snapshot"]
        ).to_pylist()
    }
    found = [products[key] for key in rows["product_id"].to_pylist()]
    sampled = sample_groups(
        np.array(rows["codes"].to_pylist()),
        [" ".join(filter(None, (row["title"], row["brand"]))) for row in found],
        [tuple(row["category"]) if row["category"] else None for row in found],
        groups=groups,
        seed=seed,
    )
    cache = warehouse.state / "artefacts" / "judgements"
    judged = asyncio.run(judge(sampled, lambda: llm_calls(cleaning, provider), cache, cleaning.model_name))
    result = summary(sampled, judged)
    write_atomically(warehouse.reports(flavour, release) / "judge.json", to_json(result))
    return to_markdown(result)
