"""Asking the language model of `cleaning` for plainer names of a release's prefixes; starts no Spark."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sid_pipeline.evaluation.polish import PolishedName, polishing
from sid_pipeline.resources.warehouse import Warehouse

ROUNDS = 3  # in which a name may get no usable answer; the same model says the same of the same words


@dataclass(frozen=True)
class Polished:
    """Names by prefix, of those that have one; how many more are asked for the next time; what it took, for people."""

    names: Mapping[str, str]
    missing: int
    told: Mapping[str, Any]


def polished_names(
    warehouse: Warehouse, flavour: str, release: str, rows: Sequence[Mapping[str, Any]], titles: Mapping[str, str]
) -> Polished:
    """Plainer names for the prefixes of the first `report.polish_levels` levels.

    A service that cannot be asked, or gives no usable answer, leaves the names as they are and is told of. The budget
    and the limits are cleaning's, for each flavour and release anew.

    Args:
        rows: of `names.NAMES_SCHEMA`.
        titles: of the sampled products, by product_id.
    """
    from sid_pipeline.evaluation.asking import ask
    from sid_pipeline.resources.llm import connect, llm_calls

    levels, cleaning = warehouse.settings.report.polish_levels, warehouse.settings.cleaning
    if not levels:
        return Polished({}, 0, {})
    if cleaning.provider == "rules":
        return Polished({}, 0, {"names polished": "no: cleaning.provider names no language model"})
    wanted = [row for row in rows if row["level"] <= levels]
    questions = [polishing(row, [titles[key] for key in row["sample"]], cleaning.max_output_tokens) for row in wanted]
    found = asyncio.run(
        ask(
            questions,
            PolishedName,
            lambda: llm_calls(cleaning, connect(cleaning)),
            warehouse.polished_names(flavour, release),
            cleaning.model_name,
            rounds=ROUNDS,
        )
    )
    named = {row["prefix"]: a.name for row, a in zip(wanted, found.answers, strict=True) if a is not None}
    told: dict[str, Any] = {"names polished": len(named), "names asked for now": found.asked}
    if found.spent is not None:
        told["cost of names, USD"] = round(found.spent, 6)
    if found.faults:
        told["names not polished"] = f"{len(found.faults)}, for instance {found.faults[0]}"
    return Polished(named, len(wanted) - len(named) - found.given_up, told)
