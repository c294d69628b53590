"""Small files that must never be seen half written, and hashes of what is in files.

Used by artefacts, receipts and the live pointers. What does not belong here: what the files mean.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from pathlib import Path
from typing import Any


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, nothing between.

    Who may read it is for the process's umask to say.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")
    handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def to_json(value: Any) -> str:
    """JSON with sorted keys, the same text for the same value."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def digest(value: Any, length: int = 16) -> str:
    """A hash of a JSON-able value, as `length` hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def digest_lines(lines: Any, length: int = 16) -> str:
    """A hash of an Arrow column of strings without line breaks, however many there are."""
    found = hashlib.sha256()
    for start in range(0, len(lines), 1 << 16):
        found.update("\n".join([*lines.slice(start, 1 << 16).to_pylist(), ""]).encode())
    return found.hexdigest()[:length]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            sha.update(block)
    return sha.hexdigest()
