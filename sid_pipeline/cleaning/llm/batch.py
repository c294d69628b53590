"""Backfills through a batch service: half the price, in the service's own time.

Texts are parted into jobs. What a job is asked, its name and its state are noted in files before and after each step,
so that a run that was killed goes on with the jobs it started and pays for none of them twice. Answers that cannot be
used are put right by single requests, as everywhere.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from sid_pipeline.cleaning.llm.calls import Stopped
from sid_pipeline.cleaning.llm.prompt import Text
from sid_pipeline.cleaning.llm.provider import (
    FATAL,
    TRANSIENT,
    Answer,
    BatchProvider,
    CallFailed,
    Failure,
    JobGone,
    JobState,
    Request,
)
from sid_pipeline.cleaning.llm.spool import Spool
from sid_pipeline.cleaning.llm.stream import Stream
from sid_pipeline.cleaning.model import ProductText
from sid_pipeline.files import to_json, write_atomically

MAX_TRIES = 3
"""A job that expires or fails is started anew, with what it did not get to, at most so many times in all."""


@dataclass(frozen=True)
class BatchPolicy:
    """Attributes:
    rows: requests in one job.
    poll_seconds: between two looks at a job.
    deadline: seconds that all jobs may take; jobs still running then are collected by the next run.
    """

    rows: int = 5_000
    poll_seconds: float = 30.0
    deadline: float = 24 * 3600.0


def jobs_in(folder: Path) -> list[Path]:
    """The notes of jobs in a folder whose results were not taken yet."""
    return sorted(folder.glob("*.job.json"))


class Batches:
    """The jobs of one cleaner.

    Args:
        folder: of the notes; kept between runs.
        provider: runs the jobs.
        stream: settles what a job left open, and records every answer.
        spool: breathes between answers.
        policy: limits.
        done: which of some text hashes are cleaned in the tables already.
    """

    def __init__(
        self,
        folder: Path,
        provider: BatchProvider,
        stream: Stream,
        spool: Spool,
        policy: BatchPolicy,
        done: Callable[[list[str]], Iterable[str]],
    ) -> None:
        self._done = done
        self._folder = folder
        self._provider = provider
        self._stream = stream
        self._spool = spool
        self._policy = policy
        self._until = time.monotonic() + policy.deadline
        self._held: dict[Path, float] = {}  # what a job that this run starts may cost at worst, by its note
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def open_jobs(self) -> list[Path]:
        """Notes of jobs whose results were not taken yet."""
        return jobs_in(self._folder)

    def waiting(self) -> set[str]:
        """Hashes of the texts that open jobs were asked for."""
        return {text.text_hash for note in self.open_jobs for text in self._texts(note)}

    async def run(self, texts: Iterable[Text]) -> None:
        """Start jobs for the texts, and collect these and any that an earlier run left open."""
        self._hold_noted()
        fitting = self._within_budget(texts)
        while chunk := list(islice(fitting, self._policy.rows)):
            self._note(chunk, tries=0)
        await self.collect()

    async def collect(self) -> None:
        """Collect all open jobs; those that were noted only are started first."""
        self._hold_noted()
        for note in self.open_jobs:
            await self._start(note)
        for note in self.open_jobs:
            await self._collect(note)

    def _within_budget(self, texts: Iterable[Text]) -> Iterator[Text]:
        """The texts that the run's budget pays for; what they may cost is held as they are taken."""
        budget = self._stream.calls.budget
        for text in texts:
            if budget.limit is not None and not budget.hold(self._worst(self._request(text))):
                self._stream.calls.note(
                    Failure.BUDGET,
                    f"the run's budget of {budget.limit:g} dollars does not pay for all texts: the rest is cleaned "
                    "another night, or raise cleaning.budget",
                )
                return
            yield text

    def _hold_noted(self) -> None:
        """Hold what jobs may cost that an earlier run noted and did not start; it had found that they fit."""
        budget = self._stream.calls.budget
        if budget.limit is None:
            return
        for note in self.open_jobs:
            if note not in self._held and json.loads(note.read_text(encoding="utf-8"))["job"] is None:
                self._held[note] = sum(self._worst(self._request(text)) for text in self._texts(note))
                budget.held += self._held[note]

    def _worst(self, request: Request) -> float:
        """What a request may cost in a job; where no limit asks, nothing is worked out."""
        budget = self._stream.calls.budget
        return budget.worst(request, "batch") if budget.limit is not None else 0.0

    def _note(self, texts: list[Text], tries: int) -> Path:
        """Write the job's requests and its note, before anything is asked for. What it may cost is held already."""
        name = hashlib.sha256("".join(text.text_hash for text in texts).encode()).hexdigest()[:24]
        requests = self._folder / f"{name}.requests.jsonl"
        held = 0.0
        with requests.open("w", encoding="utf-8") as file:
            for text in texts:
                request = self._request(text)
                held += self._worst(request)
                file.write(self._provider.batch_line(text.text_hash, request))
                file.write("\n")
        products = self._folder / f"{name}.products.jsonl"
        with products.open("w", encoding="utf-8") as file:
            for text in texts:
                file.write(json.dumps([text.text_hash, vars(text.product)], ensure_ascii=False) + "\n")
        note = self._folder / f"{name}.job.json"
        # Never the name of another try: a job is looked up by it.
        display_name = f"sid-cleaning-{uuid.uuid4().hex}"
        write_atomically(note, to_json({"job": None, "display_name": display_name, "tries": tries}))
        self._held[note] = held
        return note

    async def _start(self, note: Path) -> dict[str, Any]:
        """Start the job if it was not, and return its note."""
        state: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
        if state["job"] is None:
            # A run may have died between the start of the job and its note.
            job = await self._retried(lambda: self._provider.find(state["display_name"]))
            if job is None:
                requests = note.with_name(note.name.replace(".job.json", ".requests.jsonl"))
                job = await self._retried(lambda: self._provider.submit(requests, state["display_name"]))
            state["job"] = job
            write_atomically(note, to_json(state))
        return state

    async def _collect(self, note: Path) -> None:
        """Wait for the job and settle every text of it."""
        state = await self._start(note)
        outcome, sentence = await self._wait(state["job"])
        open_texts = {text.text_hash: text for text in self._texts(note)}
        for text_hash in self._done(list(open_texts)):
            del open_texts[text_hash]  # an earlier run took its answer, and was killed before it took all
        again: list[tuple[Text, Answer | CallFailed]] = []
        if outcome is not JobState.FAILED:
            sentence = await self._take(state["job"], note, open_texts, again) or sentence
        for text, bad in again:
            try:
                await self._settle(text, bad, state["job"])
            except Stopped as stopped:
                if stopped.failure is not Failure.BUDGET:
                    raise
                # The other jobs are paid for: they are collected all the same.
                self._stream.give_up([text], stopped.failure, str(stopped))
        self._drop(note)
        if open_texts:
            await self._again(list(open_texts.values()), state["tries"] + 1, f"batch job {state['job']}: {sentence}")

    async def _take(
        self, job: str, note: Path, open_texts: dict[str, Text], again: list[tuple[Text, Answer | CallFailed]]
    ) -> str:
        """Take the job's answers: out of `open_texts`, and into `again` what cannot be used. A sentence if any is lost.

        What fails on the way is done once more from the start, where the texts that are taken already are passed over.
        """
        mine, budget = note in self._held, self._stream.calls.budget
        lost = 0

        async def take() -> None:
            nonlocal lost
            lost = 0
            async for text_hash, answer in self._provider.results(job):
                lost += not text_hash
                text = open_texts.pop(text_hash, None)
                if text is None:
                    continue  # a key that was not asked for, or a second time
                paid = answer if isinstance(answer, Answer) else answer.answer
                if mine and paid is not None and budget.price is not None:
                    budget.take(0.0, budget.price.of(paid.input_tokens, paid.output_tokens, "batch"))
                if isinstance(answer, Answer) and not self._stream.accept(answer, text, job=job):
                    await self._spool.breathe()
                else:
                    again.append((text, answer))

        sentence = ""
        try:
            await self._retried(take)
        except JobGone as gone:
            sentence = str(gone)
        self._release(note)
        return f"{lost} lines of its results cannot be read" if lost else sentence

    def _release(self, note: Path) -> None:
        """The job's answers are taken: nothing is held for it any longer."""
        self._stream.calls.budget.take(self._held.pop(note, 0.0), 0.0)

    def _drop(self, note: Path) -> None:
        """Forget a job."""
        self._release(note)
        for part in ("requests.jsonl", "products.jsonl"):
            note.with_name(note.name.replace("job.json", part)).unlink(missing_ok=True)
        note.unlink()

    async def _again(self, texts: list[Text], tries: int, sentence: str) -> None:
        """What a job did not get to: a new job, or tonight's fallback."""
        fitting: list[Text] = []
        if tries < MAX_TRIES and time.monotonic() < self._until:
            fitting = list(self._within_budget(texts))
            if fitting:
                await self._collect(self._note(fitting, tries))
            if len(fitting) < len(texts):
                self._stream.give_up(texts[len(fitting) :], Failure.BUDGET, str(self._stream.calls.noted))
            return
        self._stream.give_up(texts, Failure.EXPIRED, sentence)

    async def _settle(self, text: Text, bad: Answer | CallFailed, job: str) -> None:
        """Put right by single requests what the job answered in vain; its answer counts as the first try."""
        request = self._request(text)
        if isinstance(bad, Answer):  # recorded by `accept` already
            await self._stream.settle(text, request.repaired(bad.text, "it does not fit the schema"), repaired=True)
            return
        if bad.answer is not None:
            self._stream.record(bad.answer, [text], bad.failure, str(bad), job=job)
        if bad.failure is Failure.MALFORMED and bad.answer is not None:
            await self._stream.settle(text, request.repaired(bad.answer.text, str(bad)), repaired=True)
        else:
            await self._stream.settle(text, request, refusals=int(bad.failure is Failure.REFUSED))

    async def _wait(self, job: str) -> tuple[JobState, str]:
        while True:
            try:
                state, sentence = await self._retried(lambda: self._provider.state(job))
            except JobGone as gone:
                return JobState.FAILED, str(gone)
            if state is not JobState.RUNNING:
                return state, sentence
            if time.monotonic() + self._policy.poll_seconds > self._until:
                raise Stopped(
                    Failure.EXPIRED,
                    f"batch job {job} did not end within {self._policy.deadline / 3600:g} hours; the next run collects "
                    "it, nothing is paid for twice",
                )
            await asyncio.sleep(self._policy.poll_seconds)
            await self._spool.breathe()

    async def _retried(self, call):  # type: ignore[no-untyped-def]
        """A call to the batch service, again after transient failures, until the outage limit."""
        delay, started = 0.5, time.monotonic()
        while True:
            try:
                return await call()
            except CallFailed as failed:
                if failed.failure in FATAL:
                    self._stream.calls.stop(failed.failure, str(failed))
                    raise Stopped(failed.failure, str(failed)) from failed
                if failed.failure not in TRANSIENT or time.monotonic() - started > self._stream.calls.policy.outage:
                    raise Stopped(Failure.OUTAGE, f"the batch service: {failed}") from failed
                await asyncio.sleep(failed.retry_after or delay)
                delay = min(30.0, 2 * delay)

    def _request(self, text: Text) -> Request:
        return self._stream.prompt.request([text], self._stream.max_output_tokens)

    def _texts(self, note: Path) -> Iterator[Text]:
        products = note.with_name(note.name.replace("job.json", "products.jsonl"))
        with products.open(encoding="utf-8") as file:
            for line in file:
                text_hash, fields = json.loads(line)
                yield Text(text_hash, ProductText(**fields))
