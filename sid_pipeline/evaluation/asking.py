"""Questions to a language model whose answers are kept, so that each is paid for once.

Belongs here: asking many at once, reading the answers, the folder that keeps them. What is asked belongs to whoever
asks (`judge.py`, `polish.py`); which service, and its key, to `resources/llm.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from sid_pipeline.cleaning.llm.answer import unfenced
from sid_pipeline.files import digest, to_json, write_atomically

if TYPE_CHECKING:
    from sid_pipeline.cleaning.llm.calls import Calls
    from sid_pipeline.cleaning.llm.provider import Request

REFUSED = ".refused"  # beside where the answer would be: in how many rounds it was none that can be used
AnswerT = TypeVar("AnswerT", bound=BaseModel)


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        label: what it is about, for people.
        version: of the question; another one makes old answers answers to something else.
        about: JSON-able; with version, instruction and model all that an answer is kept by, so that no two questions
            of a round are about the same.
        request: what the service is asked.
        context: for the validators of the answer's model; None when a kept answer is read again.
    """

    label: str
    version: str
    about: Any
    request: Request
    context: Any = None


@dataclass(frozen=True)
class Answers(Generic[AnswerT]):
    """What came of asking, and what was paid for.

    Attributes:
        answers: one per question, in their order; None where there is none.
        asked, cached: questions that cost a call now, and that were answered before.
        spent: US dollars; None where the model has no price.
        faults: sentences of the questions without an answer.
        given_up: of these, how many are not asked any more.
    """

    answers: list[AnswerT | None]
    asked: int
    cached: int
    spent: float | None
    faults: list[str]
    given_up: int = 0


async def ask(
    questions: Sequence[Question],
    form: type[AnswerT],
    connect: Callable[[], Calls],
    cache: Path,
    model: str,
    rounds: int | None = None,
) -> Answers[AnswerT]:
    """Ask every question that was not asked before.

    Args:
        form: an answer; what cannot be read as one is asked for once more.
        connect: opens the calls; not called when every answer is in the cache.
        cache: folder of one file an answer; a file that cannot be read as one is asked for again.
        model: as the service names it.
        rounds: a question that had no usable answer so often is not asked again; None: it always is.
    """
    files = [cache / f"{digest([q.version, q.request.system, model, q.about], 24)}.json" for q in questions]
    answers = [_kept(file, form) for file in files]
    open_ones = [place for place, answer in enumerate(answers) if answer is None]
    cached = len(questions) - len(open_ones)
    over = {place for place in open_ones if rounds is not None and _refused(files[place]) >= rounds}
    missing = [place for place in open_ones if place not in over]
    faults = [
        f"{questions[place].label}: no usable answer in {rounds} rounds; it is not asked again"
        for place in sorted(over)
    ]
    given_up = len(over)
    if not missing:
        return Answers(answers, 0, cached, 0.0, faults, given_up)
    try:
        calls = connect()
    except Exception as error:
        if not _expected(error):
            raise
        faults += [f"{questions[place].label}: {error}" for place in missing]
        return Answers(answers, 0, cached, 0.0, faults, given_up)
    # A few at a time; `Calls` waits, retries and keeps the budget.
    gate = asyncio.Semaphore(calls.policy.in_flight)

    async def one(place: int) -> None:
        async with gate:
            try:
                found = await _ask(calls, questions[place], form)
            except Exception as error:
                if not _expected(error):
                    raise
                faults.append(f"{questions[place].label}: {error}")
                if isinstance(error, ValidationError):
                    write_atomically(files[place].with_suffix(REFUSED), str(_refused(files[place]) + 1))
                return
        answers[place] = found
        write_atomically(files[place], to_json(found.model_dump()))

    try:
        await asyncio.gather(*map(one, missing))
    finally:
        await calls.provider.close()
    spent = calls.budget.spent if calls.budget.price is not None else None
    answered = len(missing) - (len(faults) - given_up)
    return Answers(answers, answered, cached, spent, sorted(faults), given_up)


def _refused(file: Path) -> int:
    """In how many rounds a question's answer was none that can be used."""
    try:
        return int(file.with_suffix(REFUSED).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return 0


def _kept(file: Path, form: type[AnswerT]) -> AnswerT | None:
    try:
        return form.model_validate_json(file.read_text(encoding="utf-8")) if file.is_file() else None
    except ValidationError:
        return None


async def _ask(calls: Calls, question: Question, form: type[AnswerT]) -> AnswerT:
    answer = await calls.ask(question.request)
    try:
        return form.model_validate_json(unfenced(answer.text), context=question.context)
    except ValidationError as error:
        first = error.errors()[0]
        fault = f"{'.'.join(map(str, first['loc']))} {first['msg']}".strip()
        repaired = await calls.ask(question.request.repaired(answer.text, fault))
        return form.model_validate_json(unfenced(repaired.text), context=question.context)


def _expected(error: Exception) -> bool:
    from sid_pipeline.cleaning.llm.calls import Stopped
    from sid_pipeline.cleaning.llm.provider import CallFailed

    return isinstance(error, (CallFailed, Stopped, ValidationError))
