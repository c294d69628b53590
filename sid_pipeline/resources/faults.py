"""What to tell a person when the machine gave way: a full disk, a Spark that died or ran out of memory.

What belongs here: telling such faults by the exceptions that they leave, and what to do about each. What does not:
faults of the input or the settings, which say their own sentence where they are found.
"""

from __future__ import annotations

import errno
import re
import traceback
from collections.abc import Iterator

AGAIN = "What is live stays; run the same day again afterwards, and what is done is not done twice."
# What Java and SQLite say of a full disk; Python has a number for it.
_FULL = re.compile(r"[^\n]*(?:No space left on device|Disk quota exceeded|database or disk is full)[^\n]*")
# What SQLite says where it cannot even open its files: a full disk mostly, else one that fails.
_BROKEN = re.compile(r"[^\n]*(?:disk I/O error|unable to open database file)[^\n]*")
_MAKE_ROOM = "free some of it; `sid retention --dry-run` says what of ours may go"


def machine_fault(error: BaseException, then: str = AGAIN) -> str | None:
    """A sentence for a fault of the machine, with the mend; None for any other fault.

    Args:
        error: as it was raised; what it was raised from and while handling is looked at too.
        then: what to do after the mend, and what is served meanwhile.
    """
    full = disk_fault(error, then)
    if full is not None:
        return full
    chain = list(_chain(error))
    told = "\n".join(map(str, chain))
    if "java.lang.OutOfMemoryError" in told and "native thread" not in told:
        return (
            "Spark's JVM ran out of memory: raise spark.driver_memory (on a cluster, spark.executor.memory in "
            f"[spark.conf]). {then}"
        )
    if "Python worker exited unexpectedly" in told:
        return (
            "A Python worker of Spark died, mostly killed by the system for want of memory: give the machine more, or "
            f"have fewer tasks at once (spark.master). {then}"
        )
    if any(map(_jvm_gone, chain)):
        return (
            "Spark's JVM died in the middle of the work, mostly killed by the system for want of memory: give the "
            f"machine more, or lower spark.driver_memory so that it fits. {then}"
        )
    return None


def disk_fault(error: BaseException, then: str = AGAIN) -> str | None:
    """As `machine_fault`, for a disk that is full or fails alone."""
    for fault in _chain(error):
        if isinstance(fault, OSError) and fault.errno in {errno.ENOSPC, errno.EDQUOT}:
            return f"A disk is full ({fault}): {_MAKE_ROOM}. {then}"
        if found := _FULL.search(str(fault)):
            return f"A disk is full ({found.group().strip()}): {_MAKE_ROOM}. {then}"
        if found := _BROKEN.search(str(fault)):
            return f"A disk is full or fails ({found.group().strip()}): look at it, and {_MAKE_ROOM}. {then}"
    return None


def _jvm_gone(fault: BaseException) -> bool:
    """Whether the JVM gave no answer; what it answers with, a fault too, comes with Java's own words."""
    kind = type(fault).__name__
    if kind == "Py4JError":
        return re.fullmatch(r"An error occurred while calling \S+", str(fault).strip()) is not None
    return kind == "Py4JNetworkError" or (isinstance(fault, (ConnectionError, EOFError)) and _raised_by_py4j(fault))


def _raised_by_py4j(fault: BaseException) -> bool:
    frames = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(fault.__traceback__)]
    return bool(frames) and frames[-1].startswith("py4j.")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and those behind it, each once."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        fault = waiting.pop()
        if fault is not None and id(fault) not in seen:
            seen.add(id(fault))
            yield fault
            waiting += [fault.__context__, fault.__cause__]
