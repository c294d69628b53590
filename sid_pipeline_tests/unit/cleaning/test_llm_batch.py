"""Batch jobs of the Gemini client against the local server: results, leftovers, expiry, kills between any two steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from aiohttp import web

from sid_pipeline.cleaning.llm.batch import BatchPolicy
from sid_pipeline.cleaning.llm.cleaner import LlmCleaner, LlmOptions, Report, text_hash
from sid_pipeline.cleaning.llm.costs import Budget, Price
from sid_pipeline.cleaning.llm.gemini import Gemini
from sid_pipeline.cleaning.llm.prompt import Prompt, Text
from sid_pipeline.cleaning.llm.provider import Failure
from sid_pipeline.cleaning.llm.spool import Spool, records
from sid_pipeline.cleaning.model import NotCleaned
from sid_pipeline.cleaning.schema import Schema
from sid_pipeline_tests.llm_server import KEY, LlmServer, running
from sid_pipeline_tests.unit.cleaning.test_llm import FAST, ROOT, products

QUICK = BatchPolicy(rows=20, poll_seconds=0.01, deadline=20.0)


@pytest.fixture
def server():
    with running() as started:
        yield started


class Night:
    """A run with a spool folder that outlives it, and a table that its commits fill."""

    def __init__(self, folder: Path, server: LlmServer) -> None:
        self.folder, self.server = folder, server
        self.table: dict[str, dict] = {}
        self.calls: dict[str, dict] = {}
        self.failed: dict[str, NotCleaned] = {}

    def commit(self, segment: Path, recovered: bool) -> None:
        for record in records(segment):
            self.calls[record["call"]["call_id"]] = record["call"]
            for row in record["cleaned"]:
                self.table[row["text_hash"]] = row

    def run(self, number: int, *, policy: BatchPolicy = QUICK, batch: str = "always", **options) -> Report:
        prompt = Prompt.load("grocery_1", Schema.load("grocery_1", ROOT), ROOT)
        subject = LlmCleaner(
            prompt,
            lambda: Gemini("gemini-test", KEY, base_url=self.server.url, timeout=10.0),
            LlmOptions("gemini", "m", policy=FAST, batch=batch, batch_policy=policy, **options),
        )
        spool = Spool(self.folder, self.commit)
        spool.recover()
        texts = [Text(text_hash(text), text) for text in products(number)]
        missing = [text for text in texts if text.text_hash not in self.table]
        return subject.run(
            missing,
            outcome=lambda text, result: (
                self.failed.update({text.text_hash: result}) if isinstance(result, NotCleaned) else None
            ),
            spool=spool,
            number=len(missing),
            done=lambda hashes: [key for key in hashes if key in self.table],
        )

    @property
    def paid(self) -> int:
        """How often the model was asked for a product."""
        return sum(self.server.asked.values())


@pytest.fixture
def night(tmp_path, server) -> Night:
    return Night(tmp_path / "spool", server)


def test_jobs_clean_everything_at_the_batch_price(night, server):
    report = night.run(50, price=Price(input=1.0, output=2.0))
    assert len(night.table) == 50 and night.paid == 50 and report.stopped is None
    assert server.calls["batch"] == 3 and server.calls["upload"] == 3 and server.calls["generate"] == 0
    for call in night.calls.values():
        assert call["mode"] == "batch"
        assert call["cost"] == pytest.approx((call["input_tokens"] + 2 * call["output_tokens"]) / 2e6)
    assert not list((night.folder / "jobs").iterdir()), "no note is left"


def test_the_size_of_the_night_decides(night, server):
    night.run(10, batch="auto", batch_from=11)
    assert server.calls["batch"] == 0 and server.calls["generate"] == 10
    night.run(40, batch="auto", batch_from=11)
    assert server.calls["batch"] == 2 and len(night.table) == 40 and night.paid == 40


def test_what_a_job_answered_in_vain_is_put_right_one_by_one(night, server):
    server.fault("malformed", times=1, match="Oat 1 ")
    server.fault("truncated", times=1, match="Oat 2 ")
    server.fault("500", times=1, match="Oat 3 ")
    server.fault("refused", times=99, match="Oat 4 ")
    report = night.run(8)
    assert len(night.table) == 7 and report.counts.repaired == 2
    [failed] = night.failed.values()
    assert failed.failure == Failure.REFUSED.value
    assert server.asked["Oat 4 Biscuits"] == 2 and server.asked["Oat 1 Biscuits"] == 2


def test_an_expired_job_is_started_anew_with_what_it_did_not_get_to(night, server):
    server.batch_end, server.batch_share = "BATCH_STATE_EXPIRED", 0.5
    report = night.run(16)
    assert server.calls["batch"] == 3, "16, then 8, then 4 texts"
    assert len(night.table) == 14 and night.paid == 14
    assert [failed.failure for failed in night.failed.values()] == [Failure.EXPIRED.value] * 2
    assert report.stopped is None


def test_a_failed_job_costs_no_text_its_night(night, server):
    server.batch_end = "BATCH_STATE_FAILED"
    night.run(5)
    assert night.table == {} and len(night.failed) == 5
    server.batch_end = "BATCH_STATE_SUCCEEDED"
    night.run(5)
    assert len(night.table) == 5


def test_a_job_that_outlives_the_night_is_collected_by_the_next(night, server):
    server.batch_polls = 10**6
    report = night.run(20, policy=BatchPolicy(rows=20, poll_seconds=0.01, deadline=0.05))
    assert report.stopped is not None and "the next run collects it" in str(report.stopped)
    assert night.table == {}
    server.batch_polls = 0
    night.run(30)
    assert len(night.table) == 30 and night.paid == 30, "the first 20 were not asked for again"
    assert server.calls["batch"] == 2


def test_open_jobs_are_collected_where_no_new_ones_are_wanted(night, server):
    server.batch_polls = 10**6
    night.run(20, policy=BatchPolicy(rows=20, poll_seconds=0.01, deadline=0.05))
    server.batch_polls = 0
    night.run(30, batch="never")
    assert len(night.table) == 30 and night.paid == 30
    assert server.calls["batch"] == 1 and server.calls["generate"] == 10


@pytest.mark.parametrize("step", ["submit", "state", "results"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_death_at_any_step_pays_for_nothing_twice(night, server, monkeypatch, step, when):
    """The run dies just before or after a step of the service; the next one goes on where it was."""
    real = getattr(Gemini, step)

    class Killed(BaseException):
        pass

    async def deadly(self, *arguments):
        if when == "after":
            await real(self, *arguments)
        raise Killed

    async def deadly_results(self, job):
        if when == "after":
            taken = 0
            async for item in real(self, job):
                yield item
                taken += 1
                if taken == 7:
                    break
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Gemini, step, deadly_results if step == "results" else deadly)
        with pytest.raises(Killed):
            night.run(20)
    night.run(20)
    assert len(night.table) == 20 and night.paid == 20
    assert server.calls["batch"] == 1
    assert len(night.calls) == 20, "and no answer stands in the ledger twice"


def test_a_budget_keeps_jobs_within_it(night, server):
    report = night.run(60, price=Price(input=1.0, output=2.0), budget=0.02)
    assert report.stopped is not None and report.stopped.failure is Failure.BUDGET
    assert 0 < len(night.table) < 60 and 0 < report.counts.cost <= 0.02


class Forgetful(LlmServer):
    """A server of which some answers to looks at jobs and to downloads are scripted: a status, or a changed file."""

    def __init__(self) -> None:
        super().__init__()
        self.looks: list[int | None] = []
        self.downloads: list[int | None] = []
        self.lines = lambda lines: lines

    async def _get_batch(self, request: web.Request) -> web.Response:
        return _refusal(self.looks) or await super()._get_batch(request)

    async def _download(self, request: web.Request) -> web.Response:
        refusal = _refusal(self.downloads)
        if refusal is not None:
            return refusal
        self.calls["download"] += 1
        lines = self.files[request.match_info["file"]].splitlines()
        return web.Response(body=b"\n".join(self.lines(lines)))


def _refusal(script: list[int | None]) -> web.Response | None:
    status = script.pop(0) if script else None
    error = {"code": status, "message": "you have no right to it, or it does not exist"}
    return web.json_response({"error": error}, status=status) if status else None


@pytest.fixture
def forgetful(monkeypatch, tmp_path):
    monkeypatch.setattr("sid_pipeline_tests.llm_server.LlmServer", Forgetful)
    with running() as server:
        yield Night(tmp_path / "spool", server)


@pytest.mark.parametrize("status", [403, 404])
@pytest.mark.parametrize("what", ["looks", "downloads"])
def test_a_job_that_the_service_no_longer_knows_is_asked_for_anew(forgetful, status, what):
    getattr(forgetful.server, what).append(status)
    report = forgetful.run(5)
    assert report.stopped is None and len(forgetful.table) == 5
    assert forgetful.server.calls["batch"] == 2 and not list((forgetful.folder / "jobs").iterdir())


def test_a_key_that_is_refused_is_no_lost_job(forgetful):
    forgetful.server.looks += [401]
    report = forgetful.run(5)
    assert report.stopped is not None and report.stopped.failure is Failure.AUTHENTICATION
    assert len(list((forgetful.folder / "jobs").glob("*.job.json"))) == 1
    forgetful.run(5)
    assert len(forgetful.table) == 5 and forgetful.server.calls["batch"] == 1


def test_a_download_that_fails_for_now_is_tried_again(forgetful):
    forgetful.server.downloads += [503, 429]
    report = forgetful.run(5)
    assert report.stopped is None and len(forgetful.table) == 5 and forgetful.paid == 5


def test_lines_of_results_that_cannot_be_read_cost_their_own_texts_one_more_call(forgetful):
    def spoilt(lines: list[bytes]) -> list[bytes]:
        if len(lines) < 6:
            return lines
        keys = [json.loads(line)["key"] for line in lines]
        error = {"key": keys[1], "error": {"code": "INTERNAL", "message": "no luck"}}
        odd = {"key": keys[2], "response": {"candidates": 7}}
        word = {"key": keys[3], "error": "no luck"}
        return [lines[0][:100], *(json.dumps(line).encode() for line in (error, odd, word)), b"{", *lines[5:]]

    forgetful.server.lines = spoilt
    report = forgetful.run(6)
    assert report.stopped is None and len(forgetful.table) == 6
    assert forgetful.server.calls["generate"] == 4, "those whose key can be read"
    assert forgetful.server.calls["batch"] == 2, "and a job for the one whose key cannot"


def test_jobs_and_the_repairs_of_their_answers_have_one_budget(night, server):
    server.fault("malformed", times=12)
    price, one = Price(input=1.0, output=2.0), products(1)[0]
    prompt = Prompt.load("grocery_1", Schema.load("grocery_1", ROOT), ROOT)
    request = prompt.request([Text(text_hash(one), one)], 64)
    budget = 12.1 * Budget(None, price).worst(request, "batch")
    report = night.run(12, price=price, budget=budget, max_output_tokens=64)
    assert server.calls["batch"] == 1 and server.calls["generate"] > 0
    assert report.stopped is not None and report.stopped.failure is Failure.BUDGET
    assert 0.5 * budget < report.counts.cost <= budget
    assert len(night.table) + len(night.failed) == 12


def test_what_an_earlier_job_did_not_get_to_must_fit_into_what_this_run_has_left(night, server):
    server.batch_end, server.batch_share, server.batch_polls = "BATCH_STATE_EXPIRED", 0.5, 10**6
    price, one = Price(input=1.0, output=2.0), products(1)[0]
    prompt = Prompt.load("grocery_1", Schema.load("grocery_1", ROOT), ROOT)
    worst = Budget(None, price).worst(prompt.request([Text(text_hash(one), one)], 64), "batch")
    options = {"price": price, "max_output_tokens": 64, "budget": 12.3 * worst}
    night.run(12, policy=BatchPolicy(12, 0.01, 0.05), **options)
    assert server.calls["batch"] == 1 and night.table == {}
    server.batch_polls = 0
    report = night.run(24, policy=BatchPolicy(12, 0.01, 20.0), **options)
    assert report.stopped is not None and report.stopped.failure is Failure.BUDGET
    assert Failure.BUDGET.value in {failed.failure for failed in night.failed.values()}
    assert len(night.table) + len(night.failed) == 24
    assert night.paid < 6 + 12, "half of the earlier run's job, which comes first, and no more than fits beside"
