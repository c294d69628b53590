"""The LLM cleaner: a prompt, a service and its limits behind the interface of every cleaner."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sid_pipeline.cleaning.llm.batch import Batches, BatchPolicy, jobs_in
from sid_pipeline.cleaning.llm.calls import Calls, Policy, Stopped
from sid_pipeline.cleaning.llm.costs import Budget, Estimate, Price, estimate
from sid_pipeline.cleaning.llm.prompt import Prompt, Text
from sid_pipeline.cleaning.llm.provider import CallFailed, Provider
from sid_pipeline.cleaning.llm.spool import Spool
from sid_pipeline.cleaning.llm.stream import Counts, Outcome, Stream, grouped
from sid_pipeline.cleaning.model import Cleaning, NotCleaned, ProductText

JOBS = "jobs"  # the folder in the spool that holds the notes of batch jobs


@dataclass(frozen=True)
class LlmOptions:
    """How a model is asked.

    Attributes:
        provider: name of the service.
        model: as the service names it.
        per_prompt: products in one request.
        max_output_tokens: of an answer, for each product.
        policy: limits of the single requests.
        price: of the model, where it is known.
        budget: dollars a run may spend.
        batch: whether many texts go through the batch service.
        batch_from: texts from which `auto` takes it.
        batch_policy: limits of its jobs.
    """

    provider: str
    model: str
    per_prompt: int = 1
    max_output_tokens: int = 512
    policy: Policy = field(default_factory=Policy)
    price: Price | None = None
    budget: float | None = None
    batch: Literal["auto", "always", "never"] = "never"
    batch_from: int = 5_000
    batch_policy: BatchPolicy = field(default_factory=BatchPolicy)


@dataclass(frozen=True)
class Report:
    """What a run did, and why it stopped early if it did."""

    counts: Counts
    failures: dict[str, int]
    calls: int
    stopped: Stopped | None


class LlmCleaner:
    """Cleans by a language model.

    Args:
        prompt: with its schema.
        connect: opens the service, inside the event loop; raises CallFailed where that cannot be done.
        options: how to ask.
    """

    def __init__(self, prompt: Prompt, connect: Callable[[], Provider], options: LlmOptions) -> None:
        self.prompt = prompt
        self.options = options
        self._connect = connect

    @property
    def id(self) -> str:
        """Service, model, and the versions of prompt and schema; several products in a prompt are another prompt."""
        model = re.sub(r"[^A-Za-z0-9._-]", "_", self.options.model)
        several = f"+{self.options.per_prompt}-a-prompt" if self.options.per_prompt > 1 else ""
        return f"{self.options.provider}-{model}+{self.prompt.id}{several}+{self.prompt.schema.id}"

    def clean(self, texts: Sequence[ProductText]) -> list[Cleaning | NotCleaned]:
        """Clean a few texts at once, keeping nothing. Bulk goes through `run`."""
        keyed = [Text(text_hash(text), text) for text in texts]
        results: dict[str, Cleaning | NotCleaned] = {}

        def outcome(text: Text, result: Cleaning | NotCleaned) -> None:
            results[text.text_hash] = result

        report = self.run({text.text_hash: text for text in keyed}.values(), outcome=outcome)
        rest = NotCleaned("not asked", str(report.stopped or "the text was not asked for"))
        return [results.get(text.text_hash, rest) for text in keyed]

    def run(
        self,
        texts: Iterable[Text],
        *,
        outcome: Outcome,
        run_id: str = "",
        spool: Spool | None = None,
        number: int = 0,
        done: Callable[[list[str]], Iterable[str]] = lambda hashes: (),
    ) -> Report:
        """Clean many texts, in memory that does not grow with them.

        Args:
            texts: each hash once; read as they are needed.
            outcome: told of every text that was asked for.
            run_id: of the ledger.
            spool: takes the answers; its folder also keeps the notes of batch jobs.
            number: of the texts; decides whether they go through the batch service.
            done: which of some hashes are cleaned already.
        """
        return asyncio.run(self._run(texts, outcome, run_id, spool, number, done))

    def estimate(self, texts: Iterable[Text]) -> Estimate:
        """What cleaning the texts would take."""
        return estimate(grouped(texts, self.options.per_prompt), self.prompt)

    def mode(self, number: int) -> Literal["batch", "sync"]:
        """How so many texts are asked for."""
        batch = self.options.batch
        return "batch" if batch == "always" or (batch == "auto" and number >= self.options.batch_from) else "sync"

    async def _run(
        self,
        texts: Iterable[Text],
        outcome: Outcome,
        run_id: str,
        spool: Spool | None,
        number: int,
        done: Callable[[list[str]], Iterable[str]],
    ) -> Report:
        options = self.options
        try:
            provider = self._connect()
        except CallFailed as failed:
            return Report(Counts(), {failed.failure.value: 1}, 0, Stopped(failed.failure, str(failed)))
        calls = Calls(provider, options.policy, Budget(options.budget, options.price))
        stream = Stream(
            self.prompt,
            calls,
            per_prompt=options.per_prompt,
            max_output_tokens=options.max_output_tokens,
            run_id=run_id,
            spool=spool,
            outcome=outcome,
        )
        try:
            # Jobs that are open are paid for: they are collected even where no new ones are wanted.
            if spool is not None and (options.batch != "never" or jobs_in(spool.folder / JOBS)):
                await self._batches(stream, spool, texts, number, done)
            else:
                await stream.run(texts, options.policy.in_flight)
        except Stopped as stopped:
            calls.stop(stopped.failure, str(stopped))
        finally:
            await provider.close()
            if spool is not None:
                await spool.finish()
        failures = {failure.value: count for failure, count in calls.failures.items()}
        return Report(stream.counts, failures, calls.made, calls.stopped or calls.noted)

    async def _batches(
        self,
        stream: Stream,
        spool: Spool,
        texts: Iterable[Text],
        number: int,
        done: Callable[[list[str]], Iterable[str]],
    ) -> None:
        """Collect the jobs that a killed run left open; then the new texts, by jobs or by single requests."""
        provider = stream.calls.provider
        assert hasattr(provider, "submit"), "settings allow batches for services that have them"
        batches = Batches(spool.folder / JOBS, provider, stream, spool, self.options.batch_policy, done)  # type: ignore[arg-type]
        waiting = batches.waiting()
        fresh: Iterator[Text] = (text for text in texts if text.text_hash not in waiting)
        if self.mode(number) == "batch":
            await batches.run(fresh)
        else:
            await batches.collect()
            await stream.run(fresh, self.options.policy.in_flight)


def text_hash(text: ProductText) -> str:
    """A hash of a text, for texts that no catalogue has hashed."""
    parts = (text.title, text.brand or "", text.size or "", text.description or "")
    return hashlib.sha256("\x00".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
