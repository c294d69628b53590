"""Whether a process of this machine still runs; what it is and what it left behind is for the caller to know.

A number is not enough to know a process by: it is given again, after a restart of a machine or container even soon.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

SLACK = 5.0  # seconds: clocks are compared


def is_running(pid: int) -> bool:
    """Whether a process of this number exists, also another user's."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def identity(pid: int | None = None) -> str:
    """What tells a process, by default this one, from any that has its number before or after it: the number, when it
    began, and which start of the machine that was. Where that cannot be read (no Linux) it is the number alone."""
    pid = os.getpid() if pid is None else pid
    stat = _stat(pid)
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip().replace("-", "")
    except OSError:
        return str(pid)
    return str(pid) if stat is None else f"{pid}.{stat[1]}.{boot}"


def is_there(noted: str) -> bool:
    """Whether the process whose `identity` was noted on this machine still runs."""
    pid = int(noted.partition(".")[0])
    if not is_running(pid):
        return False
    stat = _stat(pid)
    if stat is None:  # no Linux, or another user's that is hidden
        return True
    return not _has_ended(stat) and identity(pid) == noted


def ran_at(pid: int, when: float) -> bool:
    """Whether the process that has this number now had it already at a moment, in seconds since the epoch.

    Where it cannot be told when the process began, it is taken for the one that had the number then.
    """
    if not is_running(pid):
        return False
    stat = _stat(pid)
    if stat is None or sys.platform != "linux":
        return True
    # Not by /proc/uptime, which a container may see changed.
    began = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + stat[1] / os.sysconf("SC_CLK_TCK")
    return not _has_ended(stat) and began <= when + SLACK


def _has_ended(stat: tuple[str, int]) -> bool:
    """Whether a process that still has its number only waits for its parent to ask how it ended."""
    return stat[0] in "ZX"


def _stat(pid: int) -> tuple[str, int] | None:
    """A process's state, and when it began in clock ticks since the machine started; None where neither can be read."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *fields = told.rpartition(")")[2].split()  # the name before it may hold anything
    return state, int(fields[18])
