"""Answers on their way into the tables: one line a call, written as it comes, so that a kill loses none.

A segment is a file of JSON lines. It is closed and handed to `commit` about once a minute, and removed when that has
returned. Segments that a killed run left behind are committed by the next one, before it asks for anything. What a
record holds is made in `stream` and read in `assets/cleaning.py`; the format is here.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any

from sid_pipeline.cleaning.llm.provider import Answer

COMMIT_SECONDS = 60.0


class Spool:
    """The spool of one cleaner. One process at a time.

    Args:
        folder: kept between runs; on a disk that outlives the process.
        commit: takes a closed segment into the tables; `recovered` says that parts of it may be there already.
        seconds: between commits.
    """

    def __init__(self, folder: Path, commit: Callable[[Path, bool], None], *, seconds: float = COMMIT_SECONDS) -> None:
        self.folder = folder
        self._commit = commit
        self._seconds = seconds
        self._file: IO[str] | None = None
        self._opened = 0.0
        self._committing: asyncio.Task[None] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def recover(self) -> int:
        """Commit what earlier runs left behind and return the number of segments."""
        left = sorted(self.folder.glob("segment-*.jsonl"))
        for segment in left:
            self._take(segment, True)
        return len(left)

    def write(self, record: dict[str, Any]) -> None:
        """Add a record. It is with the operating system when this returns, so it outlives the process."""
        if self._file is None:
            name = f"segment-{time.time_ns():020d}-{os.getpid()}.jsonl"
            self._file = (self.folder / name).open("w", encoding="utf-8")
            self._opened = time.monotonic()
        self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
        self._file.flush()

    async def breathe(self) -> None:
        """Start a commit when one is due, beside the calls; raise what the last one raised."""
        if self._committing is not None and self._committing.done():
            task, self._committing = self._committing, None
            task.result()
        if self._committing is None and self._file is not None and time.monotonic() - self._opened > self._seconds:
            self._committing = asyncio.create_task(asyncio.to_thread(self._take, self._close(), False))

    async def finish(self) -> None:
        """Commit all that is left."""
        if self._committing is not None:
            task, self._committing = self._committing, None
            await task
        if self._file is not None:
            await asyncio.to_thread(self._take, self._close(), False)

    def _close(self) -> Path:
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        path = Path(self._file.name)
        self._file = None
        return path

    def _take(self, segment: Path, recovered: bool) -> None:
        self._commit(segment, recovered)
        segment.unlink()


def records(segment: Path) -> Iterator[dict[str, Any]]:
    """The records of a segment. A last line that a kill cut off is no record."""
    with segment.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if not line.endswith("\n"):
                return
            yield json.loads(line)


def call_rows(held: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the ledger, without their cleaner_id."""
    return [{**record["call"], "at": datetime.fromisoformat(record["call"]["at"])} for record in held]


def call_record(
    answer: Answer,
    *,
    run_id: str,
    provider: str,
    mode: str,
    job: str | None,
    text_hashes: list[str],
    outcome: str,
    detail: str,
    cost: float | None,
    cleaned: list[dict[str, Any]],
) -> dict[str, Any]:
    """One answered call: a row of the ledger, and the rows that were cleaned by it.

    The answer of a batch job keeps its call_id however often it is collected.
    """
    now = datetime.now(timezone.utc)
    name = f"{job}/{text_hashes[0]}" if job else uuid.uuid4().hex
    return {
        "call": {
            "call_id": hashlib.sha256(name.encode()).hexdigest()[:32],
            "run_id": run_id,
            "at": now.isoformat(),
            "day": now.date().isoformat(),
            "provider": provider,
            "model": answer.model,
            "mode": mode,
            "text_hashes": text_hashes,
            "outcome": outcome,
            "detail": detail,
            "raw": answer.text,
            "input_tokens": answer.input_tokens,
            "output_tokens": answer.output_tokens,
            "cost": cost,
        },
        "cleaned": cleaned,
    }
