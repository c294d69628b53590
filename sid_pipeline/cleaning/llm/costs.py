"""Money: what tokens cost, what a catalogue would cost, and the budget of one run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sid_pipeline.cleaning.llm.prompt import Prompt, Text
from sid_pipeline.cleaning.llm.provider import Answer, Request

# Rough on purpose: an estimate before any token is counted by the service.
BYTES_PER_TOKEN = 4.0
BYTES_PER_TOKEN_AT_WORST = 2.0
OUTPUT_TOKENS_PER_PRODUCT = 130


@dataclass(frozen=True)
class Price:
    """US dollars per million tokens; `batch` is the share of it that a batch job costs."""

    input: float
    output: float
    batch: float = 0.5

    def of(self, input_tokens: int, output_tokens: int, mode: str = "sync") -> float:
        """The price of some tokens, in dollars."""
        share = self.batch if mode == "batch" else 1.0
        return share * (input_tokens * self.input + output_tokens * self.output) / 1e6


@dataclass(frozen=True)
class Estimate:
    """What cleaning some texts would take."""

    texts: int
    requests: int
    input_tokens: int
    output_tokens: int

    def price(self, price: Price, mode: str = "sync") -> float:
        """In dollars."""
        return price.of(self.input_tokens, self.output_tokens, mode)


def estimate(texts: Iterable[Sequence[Text]], prompt: Prompt) -> Estimate:
    """The tokens of some groups of texts, one request a group. Counts bytes; no call is made."""
    products = requests = input_bytes = 0
    for group in texts:
        request = prompt.request(group, 1)
        products += len(group)
        requests += 1
        input_bytes += _bytes(request)
    return Estimate(products, requests, round(input_bytes / BYTES_PER_TOKEN), products * OUTPUT_TOKENS_PER_PRODUCT)


class Budget:
    """What a run may spend. Every call reserves what it may cost at worst, so the limit is never passed.

    A batch job cannot be stopped halfway: what it may cost is held from before its start until its answers are taken.
    It counts for the run that starts it, whichever run collects it.

    Args:
        limit: dollars; None is no limit.
        price: of the model; None where it has none (then nothing counts).
    """

    def __init__(self, limit: float | None, price: Price | None) -> None:
        self.limit = limit
        self.price = price
        self.spent = 0.0
        self.held = 0.0
        self._reserved = 0.0
        self._settled = asyncio.Condition()

    async def reserve(self, request: Request) -> float | None:
        """What the call may cost at worst, set aside; waits for calls in flight. None when it does not fit."""
        if self.limit is None or self.price is None:
            return 0.0
        worst = self.worst(request)
        async with self._settled:
            while not self._fits(worst):
                if self._reserved <= 0:
                    return None
                await self._settled.wait()
            self._reserved += worst
        return worst

    def hold(self, amount: float) -> bool:
        """Set an amount aside for a batch job. False where it does not fit, and nothing is set aside."""
        if not self._fits(amount):
            return False
        self.held += amount
        return True

    def _fits(self, amount: float) -> bool:
        return self.limit is None or self.spent + self.held + self._reserved + amount <= self.limit

    def take(self, held: float, spent: float) -> None:
        """Give back what was held for a batch job, and count what it cost."""
        self.held = max(0.0, self.held - held)
        self.spent += spent

    def worst(self, request: Request, mode: str = "sync") -> float:
        """What a call may cost at worst, in dollars; 0 without a price."""
        tokens = round(_bytes(request) / BYTES_PER_TOKEN_AT_WORST)
        return self.price.of(tokens, request.max_output_tokens, mode) if self.price else 0.0

    async def settle(self, reserved: float, answer: Answer | None) -> None:
        """Give a reservation back and count what was spent."""
        if answer is not None and self.price is not None:
            self.spent += self.price.of(answer.input_tokens, answer.output_tokens)
        async with self._settled:
            self._reserved = max(0.0, self._reserved - reserved)
            if self._reserved < 1e-12:
                self._reserved = 0.0
            self._settled.notify_all()


def _bytes(request: Request) -> int:
    """Bytes of a request. The response schema counts too: services put it into the prompt."""
    return len(request.system.encode()) + sum(len(turn.encode()) for turn in request.turns) + _SCHEMA_BYTES


_SCHEMA_BYTES = 1600
