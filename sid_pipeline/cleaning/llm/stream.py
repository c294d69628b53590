"""Many texts through a model, N requests in flight, in memory that does not grow with their number.

Belongs here: what happens to one group of texts, from the first request to its last repair. When a call may be made at
all is decided by `calls`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from sid_pipeline.cleaning.llm.answer import MalformedAnswer, misses_the_plain, read_answer
from sid_pipeline.cleaning.llm.calls import Calls, Stopped
from sid_pipeline.cleaning.llm.prompt import Prompt, Text
from sid_pipeline.cleaning.llm.provider import Answer, CallFailed, Failure, Request
from sid_pipeline.cleaning.llm.spool import Spool, call_record
from sid_pipeline.cleaning.markup import instructs
from sid_pipeline.cleaning.model import Cleaning, NotCleaned
from sid_pipeline.cleaning.run import cleaned_row

MAX_REFUSALS = 2

Outcome = Callable[[Text, Cleaning | NotCleaned], None]


@dataclass
class Counts:
    """What a run did."""

    cleaned: int = 0
    not_cleaned: Counter[str] = field(default_factory=Counter)
    repaired: int = 0
    asked_alone: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0


class Stream:
    """One run of a prompt over many texts.

    Args:
        prompt: with its schema.
        calls: to the service.
        per_prompt: products in one request.
        max_output_tokens: of the answer, for each product.
        run_id: of the ledger.
        spool: takes every answer as it comes; None keeps nothing (a look at a single text).
        outcome: told of every text, cleaned or not.
    """

    def __init__(
        self,
        prompt: Prompt,
        calls: Calls,
        *,
        per_prompt: int,
        max_output_tokens: int,
        run_id: str,
        spool: Spool | None,
        outcome: Outcome,
    ) -> None:
        self.prompt = prompt
        self.calls = calls
        self.counts = Counts()
        self._per_prompt = per_prompt
        self.max_output_tokens = max_output_tokens
        self._run_id = run_id
        self._spool = spool
        self._outcome = outcome

    async def run(self, texts: Iterable[Text], in_flight: int) -> None:
        """Clean the texts. Where the run is stopped, the texts not yet asked for are left alone.

        When something of our own fails (a commit, the disk), requests in flight still end: they are paid for.
        """
        groups = grouped(texts, self._per_prompt)
        ended = await asyncio.gather(*(self._work(groups) for _ in range(in_flight)), return_exceptions=True)
        for error in ended:
            if isinstance(error, BaseException):
                raise error

    async def _work(self, groups: Iterator[list[Text]]) -> None:
        for group in groups:
            if self.calls.stopped is not None:
                return
            try:
                await self.clean(group)
                if self._spool is not None:
                    await self._spool.breathe()
            except Stopped as stopped:
                self.give_up(group, stopped.failure, str(stopped))
                return
            except Exception as error:
                self.calls.stop(Failure.ABORTED, f"{type(error).__name__}: {error}")
                raise

    async def clean(self, group: Sequence[Text]) -> None:
        """Clean the texts of one request; those that fail in company are asked again alone.

        Raises:
            Stopped: no further call is made.
        """
        if len(group) > 1:
            for text in await self._together(group):
                self.counts.asked_alone += 1
                try:
                    await self._alone(text)
                except Stopped as stopped:
                    self.give_up([text], stopped.failure, str(stopped))
        else:
            await self._alone(group[0])

    async def _together(self, group: Sequence[Text]) -> list[Text]:
        """One request for several texts; those to ask again alone."""
        try:
            answer = await self.calls.ask(self._request(group))
        except CallFailed as failed:
            if failed.answer is None and failed.failure is not Failure.MALFORMED:
                self.give_up(group, failed.failure, str(failed))
                return []
            if failed.answer is None:
                return list(group)  # the service would not read it; one of the texts may be why
            self.record(failed.answer, group, failed.failure, str(failed))
            return list(group)
        try:
            cleaned, faults = read_answer(answer.text, group, self.prompt.schema, self.calls.provider.name)
        except MalformedAnswer as error:
            self.record(answer, group, Failure.MALFORMED, str(error))
            return list(group)
        for text in group:
            if text.text_hash in cleaned and misses_the_plain(cleaned[text.text_hash], text):
                del cleaned[text.text_hash]
        detail = "; ".join(faults.values()) or ("" if cleaned else "it leaves out what the texts plainly state")
        self.record(answer, group, None if cleaned else Failure.MALFORMED, detail, cleaned)
        return [text for text in group if text.text_hash not in cleaned]

    async def _alone(self, text: Text) -> None:
        await self.settle(text, self._request([text]))

    async def settle(self, text: Text, request: Request, *, refusals: int = 0, repaired: bool = False) -> None:
        """Ask for one text until it is cleaned, refused twice, or still malformed after one repair."""
        while True:
            try:
                answer = await self.calls.ask(request)
            except CallFailed as failed:
                if failed.answer is not None:
                    self.record(failed.answer, [text], failed.failure, str(failed))
                elif failed.failure is Failure.MALFORMED:
                    self.calls.judge(False)  # not paid for, but where all fail like this the run should end
                if failed.failure is Failure.REFUSED and refusals + 1 < MAX_REFUSALS:
                    refusals += 1
                    continue
                if failed.failure is not Failure.MALFORMED or failed.answer is None or repaired:
                    self.give_up([text], failed.failure, str(failed))
                    return
                answer, fault = failed.answer, str(failed)
            else:
                fault = self.accept(answer, text)
                if not fault:
                    self.counts.repaired += repaired
                    return
                if repaired:
                    self.give_up([text], Failure.MALFORMED, fault)
                    return
            request, repaired = request.repaired(answer.text, fault), True

    def accept(self, answer: Answer, text: Text, job: str | None = None) -> str:
        """Read an answer for one text. Empty when it was cleaned, else what is wrong with the answer.

        Args:
            job: the batch job that it came from.
        """
        try:
            cleaned, faults = read_answer(answer.text, [text], self.prompt.schema, self.calls.provider.name)
        except MalformedAnswer as error:
            cleaned, faults = {}, {text.text_hash: str(error)}
        fault = faults.get(text.text_hash, "")
        self.record(answer, [text], Failure.MALFORMED if fault else None, fault, cleaned, job)
        return fault

    def record(
        self,
        answer: Answer,
        group: Sequence[Text],
        failure: Failure | None,
        detail: str,
        cleaned: dict[str, Cleaning] | None = None,
        job: str | None = None,
    ) -> None:
        """Keep an answer, whatever came of it: it is paid for."""
        cleaned = cleaned or {}
        mode = "batch" if job else "sync"
        price = self.calls.budget.price
        cost = price.of(answer.input_tokens, answer.output_tokens, mode) if price else None
        if self._spool is not None:
            fields = self.prompt.schema.fields
            self._spool.write(
                call_record(
                    answer,
                    run_id=self._run_id,
                    provider=self.calls.provider.name,
                    mode=mode,
                    job=job,
                    text_hashes=[text.text_hash for text in group],
                    outcome=failure.value if failure else "ok",
                    detail=detail,
                    cost=cost,
                    cleaned=[cleaned_row(text_hash, cleaning, fields) for text_hash, cleaning in cleaned.items()],
                )
            )
        counts = self.counts
        counts.input_tokens += answer.input_tokens
        counts.output_tokens += answer.output_tokens
        counts.cost += cost or 0.0
        counts.cleaned += len(cleaned)
        for text in group:
            if text.text_hash in cleaned:
                self._outcome(text, cleaned[text.text_hash])
        self.calls.judge(failure is None)

    def give_up(self, group: Iterable[Text], failure: Failure, sentence: str) -> None:
        """Tell that some texts are not cleaned this time."""
        for text in group:
            self.counts.not_cleaned[failure.value] += 1
            self._outcome(text, NotCleaned(failure.value, sentence))

    def _request(self, group: Sequence[Text]) -> Request:
        return self.prompt.request(group, self.max_output_tokens)


def grouped(texts: Iterable[Text], per_prompt: int) -> Iterator[list[Text]]:
    """Groups for one request each. A text that talks to a machine never shares a request."""
    group: list[Text] = []
    for text in texts:
        product = text.product
        if per_prompt > 1 and instructs(f"{product.title}\n{product.brand}\n{product.size}\n{product.description}"):
            yield [text]
            continue
        group.append(text)
        if len(group) == per_prompt:
            yield group
            group = []
    if group:
        yield group
