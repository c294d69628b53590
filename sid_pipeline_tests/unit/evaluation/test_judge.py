"""The judge, by the real clients against the local server of the LLM services."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import numpy as np
import pytest

from sid_pipeline.cleaning.llm.calls import Calls, Policy
from sid_pipeline.cleaning.llm.costs import Budget, Price
from sid_pipeline.evaluation.judge import judge, sample_groups, summary, to_markdown
from sid_pipeline.resources.llm import connect
from sid_pipeline.settings import CleaningSettings
from sid_pipeline_tests.llm_server import KEY, LlmServer, running

KINDS = ["tea", "soap", "bread"]
TEXTS = [f"{KINDS[row % 3]} number {row}" for row in range(60)]
CATEGORIES = [("shop", KINDS[row % 3]) for row in range(60)]
CODES = np.array([[row % 3, row % 3, row % 3, row % 6] for row in range(60)])


def by_kind(turn: str) -> str:
    """A judge that likes groups of one kind."""
    kinds = {text.split()[0] for text in json.loads(turn)["products"]}
    score = 5 if len(kinds) == 1 else 1
    return json.dumps(
        {
            "functional_coherence": score,
            "purchase_likelihood": score,
            "journey_relevance": 3,
            "why": f"{len(kinds)} kinds",
        }
    )


@pytest.fixture
def server() -> Iterator[LlmServer]:
    with running(reply=by_kind) as started:
        yield started


def calls(server: LlmServer, provider: str = "openai") -> Calls:
    cleaning = CleaningSettings(
        provider=provider,
        model="judge-model",
        base_url=f"{server.url}/v1" if provider == "openai" else server.url,
        api_key_env="KEY",
    )
    policy = Policy(in_flight=4, deadline=5, first_delay=0.01)
    return Calls(connect(cleaning, {"KEY": KEY}), policy, Budget(None, Price(1.0, 2.0)), seed=0)


def test_groups_are_whole_sids_and_random_ones_of_the_same_sizes():
    groups = sample_groups(CODES, TEXTS, CATEGORIES, groups=4, size=5)
    sids, controls = [g for g in groups if not g.control], [g for g in groups if g.control]
    assert len(sids) == len(controls) == 4
    assert [len(g.texts) for g in sids] == [len(g.texts) for g in controls] == [5] * 4
    assert len({g.label for g in sids}) == 4 and all(g.label.count("_") == 3 for g in sids)
    assert all(g.same_leaf == 1.0 for g in sids) and any(g.same_leaf < 1 for g in controls)
    assert groups == sample_groups(CODES, TEXTS, CATEGORIES, groups=4, size=5)
    # Where whole SIDs are too small, the deepest prefix with enough products speaks.
    lonely = np.column_stack([CODES[:, :3], np.arange(60)])
    assert {g.label.count("_") for g in sample_groups(lonely, TEXTS, CATEGORIES, groups=3) if not g.control} == {2}


@pytest.mark.parametrize("provider", ["openai", "gemini"])
def test_judged_once_and_compared_with_the_taxonomy(server, tmp_path, provider):
    groups = sample_groups(CODES, TEXTS, CATEGORIES, groups=4, size=5)
    first = asyncio.run(judge(groups, lambda: calls(server, provider), tmp_path, "judge-model"))
    assert first.asked == 8 and first.cached == 0 and not first.faults and first.spent > 0
    found = summary(groups, first)
    assert found["scores"]["functional_coherence"]["sids"]["mean"] == 5
    assert found["scores"]["functional_coherence"]["random"]["mean"] == 1
    assert found["taxonomy"] > 0.8
    assert "Spearman" in to_markdown(found) and "US dollars" in to_markdown(found)
    again = asyncio.run(judge(groups, lambda: pytest.fail("asked again"), tmp_path, "judge-model"))
    assert again.answers == first.answers and (again.asked, again.cached, again.spent) == (0, 8, 0.0)
    # Another model is another judge.
    with pytest.raises(pytest.fail.Exception):
        asyncio.run(judge(groups, lambda: pytest.fail("asked"), tmp_path, "other-model"))


def test_a_bad_answer_is_asked_for_again_and_a_refused_key_costs_no_answer(server, tmp_path):
    groups = sample_groups(CODES, TEXTS, CATEGORIES, groups=2, size=5)
    server.fault("malformed", times=1)
    done = asyncio.run(judge(groups, lambda: calls(server), tmp_path, "judge-model"))
    assert done.asked == 4 and not done.faults
    server.fault("401", times=50)
    more = sample_groups(CODES, TEXTS, CATEGORIES, groups=4, size=4, seed=1)
    failed = asyncio.run(judge(more, lambda: calls(server), tmp_path, "judge-model"))
    assert failed.asked == 0 and len(failed.faults) == 8
    assert summary(more, failed)["groups"] == {"sids": 0, "random": 0}
    assert "Without an answer" in to_markdown(summary(more, failed))
