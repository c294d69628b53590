"""Whether a process of this machine still runs; what it is and what it left behind is for the caller to know."""

from __future__ import annotations

import os


def is_running(pid: int) -> bool:
    """Whether a process of this number exists, also another user's."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
