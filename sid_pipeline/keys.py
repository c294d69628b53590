"""Names that become folders and SQL literals (partition keys, flavours, releases), and the letters of tokens.

Light: readers import it too.
"""

from __future__ import annotations

import re

LEVEL_LETTERS = "abcdefgh"  # a token of the first level is <a_35>
MAX_TOKENS = len(LEVEL_LETTERS)  # of a SID, a further token included
KEY_PATTERN = re.compile(r"[A-Za-z0-9._-]+")


class KeyNotAllowed(ValueError):
    """A partition key or name that could leave its folder or its SQL literal."""


def check_key(kind: str, value: str) -> str:
    """Return `value` if it may be a partition key or a path step, else raise KeyNotAllowed saying what may."""
    if not KEY_PATTERN.fullmatch(value) or value in {".", ".."}:
        raise KeyNotAllowed(f"{kind} {value!r} may hold letters, digits, '.', '_' and '-' only")
    return value
