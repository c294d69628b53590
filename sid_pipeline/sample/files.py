"""Writes the data set's files so that the same content always gives the same bytes."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterable, Sequence
from pathlib import Path


def csv_line(fields: Sequence[object]) -> str:
    """One RFC 4180 row, quoted only where it must be, ending in ``\\n``."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(fields)
    return buffer.getvalue()


def encoded(fields: Sequence[object]) -> bytes:
    return csv_line(fields).encode("utf-8")


def write_gzip(path: Path, lines: Iterable[bytes]) -> None:
    """A gzip file without name and time in its header.

    The compressed bytes depend on the deflate library: they are equal wherever Python uses zlib itself; a
    build on zlib-ng gives other compressed bytes with the same content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        path.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=raw, mtime=0) as out,
    ):
        out.write(b"".join(lines))


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8"))
