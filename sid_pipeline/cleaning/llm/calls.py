"""What a failed call means: wait and try again, give the text up, or stop the whole run.

Transient failures are retried with backoff and jitter until the text's deadline. A fatal one (a refused key, an empty
account) stops every further call. A circuit breaker keeps calls away from a service that fails, and lets one through
now and then to see whether it is well again; it starts that way, so a bad key costs one call.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass

from sid_pipeline.cleaning.llm.costs import Budget
from sid_pipeline.cleaning.llm.provider import FATAL, TRANSIENT, Answer, CallFailed, Failure, Provider, Request

WINDOW = 20
UNUSABLE_WINDOW = 100
FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0


@dataclass(frozen=True)
class Policy:
    """Limits of one run.

    Attributes:
        in_flight: requests at once.
        deadline: seconds for one text, its retries included.
        outage: seconds of asking without any success after which the service counts as down for this run.
        longest: seconds that the run's calls may take in all; None is no limit.
        first_delay: seconds before a second try, at most; later ones double it.
    """

    in_flight: int = 32
    deadline: float = 120.0
    outage: float = 300.0
    longest: float | None = None
    first_delay: float = FIRST_DELAY


class Stopped(Exception):
    """The run makes no further call; the sentence says why, and what a person can do."""

    def __init__(self, failure: Failure, sentence: str) -> None:
        super().__init__(sentence)
        self.failure = failure


class Calls:
    """The calls of one run to one service. Lives in one event loop."""

    def __init__(self, provider: Provider, policy: Policy, budget: Budget, *, seed: int | None = None) -> None:
        self.provider = provider
        self.budget = budget
        self.failures: Counter[Failure] = Counter()
        self.made = 0
        self.stopped: Stopped | None = None
        self.noted: Stopped | None = None
        self.policy = policy
        self._random = random.Random(seed)
        self._breaker = _Breaker(2 * policy.first_delay)
        self._started = self._idle_since = time.monotonic()
        self._under_way = 0
        self._usable: deque[bool] = deque(maxlen=UNUSABLE_WINDOW)

    async def ask(self, request: Request) -> Answer:
        """Make a call, again after transient failures.

        Raises:
            CallFailed: refused, cut off, or still failing at the text's deadline.
            Stopped: the run makes no further call.
        """
        self._begin()
        try:
            return await self._ask(request)
        finally:
            self._end()

    def _begin(self) -> None:
        """Leave the time since the last call, in which none was wanted, out of all clocks: a batch job takes hours."""
        if self._under_way == 0:
            idle = time.monotonic() - self._idle_since
            self._started += idle
            self._breaker.leave_out(idle)
        self._under_way += 1

    def _end(self) -> None:
        self._under_way -= 1
        self._idle_since = time.monotonic()

    async def _ask(self, request: Request) -> Answer:
        deadline = time.monotonic() + self.policy.deadline
        attempt = 0
        while True:
            probe = await self._enter()
            try:
                answer = await self._once(request)
            except CallFailed as failed:
                self._breaker.leave(probe, ok=failed.failure not in TRANSIENT)
                self.failures[failed.failure] += 1
                if failed.failure in FATAL:
                    self.stop(failed.failure, f"{failed}. {_MEND[failed.failure]}")
                    raise self._reason() from failed
                if failed.failure not in TRANSIENT:
                    raise
                self._check_outage(failed)
                delay = self._delay(attempt, failed.retry_after)
                attempt += 1
                if time.monotonic() + delay > deadline:
                    raise
                await asyncio.sleep(delay)
            except BaseException:
                self._breaker.leave(probe, ok=False)
                raise
            else:
                self._breaker.leave(probe, ok=True)
                return answer

    def judge(self, usable: bool) -> None:
        """Count whether an answer could be used; stop where most cannot, because they are paid for."""
        self._usable.append(usable)
        if len(self._usable) >= UNUSABLE_WINDOW // 2 and sum(self._usable) < len(self._usable) / 2:
            self.stop(
                Failure.UNUSABLE,
                f"most of the last {len(self._usable)} answers of {self.provider.model} could not be used, and they "
                "are paid for: look at cleaning_calls, then change the model, the prompt or the schema",
            )

    def stop(self, failure: Failure, sentence: str) -> None:
        """Make no further call. The first reason counts."""
        if self.stopped is None:
            self.stopped = Stopped(failure, sentence)
            self._breaker.wake()

    def note(self, failure: Failure, sentence: str) -> None:
        """Remember why texts are left out, while the calls that are under way go on."""
        self.noted = self.noted or Stopped(failure, sentence)

    async def _once(self, request: Request) -> Answer:
        reserved = await self.budget.reserve(request)
        if reserved is None:
            self.stop(
                Failure.BUDGET,
                f"the run's budget of {self.budget.limit:g} dollars is spent ({self.budget.spent:.4f}): the rest is "
                "cleaned another night, or raise cleaning.budget",
            )
        if self.stopped is not None:
            await self.budget.settle(reserved or 0.0, None)
            raise self._reason()
        paid: Answer | None = None
        self.made += 1
        try:
            paid = await self.provider.ask(request)
            return paid
        except CallFailed as failed:
            paid = failed.answer
            raise
        finally:
            await self.budget.settle(reserved or 0.0, paid)

    async def _enter(self) -> bool:
        """Wait until a call may be made. True when it is the one that probes a failing service."""
        while True:
            longest = self.policy.longest
            if longest is not None and time.monotonic() - self._started > longest:
                self.stop(Failure.TIME, f"cleaning may call for {longest / 60:g} minutes a run (cleaning.max_minutes)")
            if self.stopped is not None:
                raise self._reason()
            entered = await self._breaker.enter()
            if entered is not None:
                return entered

    def _check_outage(self, failed: CallFailed) -> None:
        silent = self._breaker.silent_for()
        if silent > self.policy.outage:
            self.stop(
                Failure.OUTAGE,
                f"no call to {self.provider.name} succeeded for {silent:.0f} s, the last: {failed}. Nothing to mend "
                "here: the texts are tried again the next night",
            )

    def _delay(self, attempt: int, retry_after: float | None) -> float:
        """Full jitter below a doubling bound; at least what the service asks for."""
        bound = min(LONGEST_DELAY, self.policy.first_delay * 2**attempt)
        return (retry_after or 0.0) + self._random.uniform(0, bound)

    def _reason(self) -> Stopped:
        assert self.stopped is not None
        return Stopped(self.stopped.failure, str(self.stopped))


_MEND = {
    Failure.AUTHENTICATION: "No further call was made. Set the variable that cleaning.api_key_env names to a valid key",
    Failure.QUOTA: "No further call was made. Raise the account's quota or wait for its renewal",
    Failure.CONFIGURATION: "No further call was made. Mend cleaning.model, cleaning.base_url or the schema",
}


class _Breaker:
    """Closed: calls pass. Open: none does for a while. Then one probes, and its outcome decides."""

    def __init__(self, cooldown: float) -> None:
        self._closed = False
        self._probing = False
        self._open_until = 0.0
        self._cooldown = self._first = cooldown
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self._last_success = time.monotonic()
        self._changed = asyncio.Event()

    async def enter(self) -> bool | None:
        """True to probe, False to pass, None to ask again (something changed, or a while has passed)."""
        if self._closed:
            return False
        wait = self._open_until - time.monotonic()
        if wait <= 0 and not self._probing:
            self._probing = True
            return True
        self._changed.clear()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._changed.wait(), max(0.01, min(wait, 1.0)) if wait > 0 else 1.0)
        return None

    def leave(self, probe: bool, ok: bool) -> None:
        """Tell how a call ended."""
        if probe:
            self._probing = False
        self._recent.append(ok)
        if ok:
            self._last_success = time.monotonic()
            if not self._closed:
                self._closed, self._cooldown = True, self._first
                self._recent.clear()
                self.wake()
        elif probe or (self._closed and self._recent.count(False) >= WINDOW // 2):
            self._closed = False
            self._open_until = time.monotonic() + self._cooldown
            self._cooldown = min(60.0, 2 * self._cooldown)
            self.wake()

    def leave_out(self, seconds: float) -> None:
        """Do not count some seconds in which nothing was asked."""
        self._last_success += seconds

    def silent_for(self) -> float:
        """Seconds of asking since the last success."""
        return time.monotonic() - self._last_success

    def wake(self) -> None:
        """Let those that wait look again."""
        self._changed.set()
