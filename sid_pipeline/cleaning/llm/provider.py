"""What a language-model service must offer, and the classes into which its failures fall.

Belongs here: the interface and its plain types. What to do about a failure belongs to `calls`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Protocol


class Failure(str, Enum):
    """Why a text was not cleaned."""

    RATE_LIMITED = "rate limited"
    TIMEOUT = "timeout"
    SERVER = "server error"
    EXPIRED = "batch expired"
    REFUSED = "refused"
    MALFORMED = "malformed answer"
    AUTHENTICATION = "authentication"
    QUOTA = "quota exhausted"
    CONFIGURATION = "configuration"
    OUTAGE = "outage"
    UNUSABLE = "most answers unusable"
    BUDGET = "budget spent"
    TIME = "time is up"
    ABORTED = "run failed"


TRANSIENT = frozenset({Failure.RATE_LIMITED, Failure.TIMEOUT, Failure.SERVER, Failure.EXPIRED})
"""Retried with backoff until the deadline."""
FATAL = frozenset({Failure.AUTHENTICATION, Failure.QUOTA, Failure.CONFIGURATION})
"""No further call is made: a person must mend something."""


@dataclass(frozen=True)
class Request:
    """One call: the instruction, and the turns of the conversation (user, model, user ...), the last the user's."""

    system: str
    turns: tuple[str, ...]
    schema: Mapping[str, Any]
    max_output_tokens: int

    def repaired(self, answer: str, fault: str) -> Request:
        """The same call with the unusable answer and what was wrong with it."""
        turn = f"That answer cannot be used: {fault}. Answer again, with the whole JSON object and nothing else."
        # An answer that was cut off needs more room, not only another try.
        return Request(self.system, (*self.turns, answer, turn), self.schema, 2 * self.max_output_tokens)


@dataclass(frozen=True)
class Answer:
    """What came back: the text as it came, the tokens that are paid for, and the model that the service names."""

    text: str
    input_tokens: int
    output_tokens: int
    model: str


class CallFailed(Exception):
    """A call without a usable answer.

    Attributes:
        failure: its class.
        retry_after: seconds that the service asks to wait, if it says so.
        answer: what was paid for all the same (a refusal, a truncated text).
    """

    def __init__(
        self, failure: Failure, sentence: str, *, retry_after: float | None = None, answer: Answer | None = None
    ) -> None:
        super().__init__(sentence)
        self.failure = failure
        self.retry_after = retry_after
        self.answer = answer


class JobGone(Exception):
    """The service no longer knows a batch job, or the file of its results; the sentence is the service's."""


class Provider(Protocol):
    """A service that answers one request at a time; any number may be in flight."""

    @property
    def name(self) -> str: ...

    @property
    def model(self) -> str: ...

    async def ask(self, request: Request) -> Answer:
        """Answer a request, or raise CallFailed."""
        ...

    async def close(self) -> None: ...


class JobState(Enum):
    """Where a batch job stands, as far as the pipeline cares."""

    RUNNING = "running"
    DONE = "done"
    EXPIRED = "expired"
    FAILED = "failed"


class BatchProvider(Provider, Protocol):
    """A service that also runs jobs of many requests, at a lower price and in its own time."""

    def batch_line(self, key: str, request: Request) -> str:
        """One line of the job's JSON Lines file."""
        ...

    async def submit(self, requests: Path, display_name: str) -> str:
        """Upload the file, start a job and return its name."""
        ...

    async def find(self, display_name: str) -> str | None:
        """The name of a job by the name that was displayed for it: for a crash between start and note."""
        ...

    async def state(self, job: str) -> tuple[JobState, str]:
        """Where the job stands, with a sentence. Raises JobGone."""
        ...

    def results(self, job: str) -> AsyncIterator[tuple[str, Answer | CallFailed]]:
        """Key and answer of every request that the job got to; the key is empty where it cannot be read.

        Raises JobGone; CallFailed where the results cannot be had now.
        """
        ...
