"""CSV and JSON Lines, one record after another, so that one bad row costs one row.

What belongs here: turning decoded lines into numbered records, good or faulty, in bounded memory, without
Spark. What does not: files and folders (`source_files.py`), column names and what values mean.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple

RAW_CHARS = 2000
# A quoted field that never ends is given up after so much text; a row on a single line may be longer.
MAX_RECORD_CHARS = 8 << 20
# Undecodable bytes and NUL travel through the parsers as lone surrogates, U+DC00 + byte, and are found again.
_ESCAPED = re.compile("[\udc00-\udcff]")
# A category that came as a list begins with it, so that a list of one step is told from a path.
LIST_SEPARATOR = "\x1f"
NEVER_NESTED = {"product_id", "title", "retailer_id"}


class Record(NamedTuple):
    """A data row: its number (the first is 1), the line it starts on, its text, its values or its fault."""

    row: int
    line: int
    raw: str
    values: Sequence[str | None]
    rule: str = ""
    message: str = ""


def _escape_bytes(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    bad = error.object[error.start : error.end]
    return "".join(chr(0xDC00 + byte) for byte in bad), error.end


codecs.register_error("sid_pipeline.escape", _escape_bytes)


def decode(stream: IO[bytes], encoding: str) -> Iterator[str]:
    """Lines with their endings; undecodable bytes and NUL are escaped, for `text_fault` to find."""
    text = io.TextIOWrapper(stream, encoding=encoding, errors="sid_pipeline.escape", newline="")
    first = True
    for line in text:
        if first:
            # A byte-order mark that the encoding did not take off would hide the first column's name.
            line, first = line.lstrip("\ufeff"), False
        yield line.replace("\0", "\udc00") if "\0" in line else line


def printable(text: str) -> str:
    r"""Text as it is kept in a rejected row: undecodable bytes as \xNN, at most 2,000 characters."""
    text = _ESCAPED.sub(lambda match: f"\\x{ord(match.group()) - 0xDC00:02x}", text[:RAW_CHARS])
    return text.encode("utf-8", "backslashreplace").decode()[:RAW_CHARS].rstrip("\r\n")


def text_fault(text: str, line: int, encoding: str) -> tuple[str, str] | None:
    """Rule and message where a row holds NUL, bytes not valid in the encoding, or half a character."""
    if text.isascii():
        return None
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        bad = ord(text[error.start])
        if bad == 0xDC00:
            return "nul_character", f"line {line} holds a NUL character: remove it."
        if not 0xDC00 < bad <= 0xDCFF:
            return (
                "bad_encoding",
                f"line {line} holds half a character (a lone surrogate): write it whole or remove it.",
            )
        return (
            "bad_encoding",
            f"line {line} holds the byte 0x{bad - 0xDC00:02X}, which is not valid {encoding}: save the file "
            f'in {encoding}, or set [source] encoding to the one it has (perhaps "cp1252").',
        )
    return None


class _EndlessRecord(Exception):
    """A quoted field has gone on for longer than any sensible record."""


class _Lines:
    """Feeds lines to the CSV parser, remembers the current record's and can put back all but the first."""

    def __init__(self, source: Iterator[str]) -> None:
        self._source = source
        self._ahead: deque[str] = deque()
        self.taken: list[str] = []
        self.number = 1
        self._chars = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._ahead.popleft() if self._ahead else next(self._source)
        self.taken.append(line)
        self._chars += len(line)
        if self._chars > MAX_RECORD_CHARS and len(self.taken) > 1:
            raise _EndlessRecord
        return line

    def finish(self) -> None:
        """The record is dealt with: forget its lines."""
        self.number += len(self.taken)
        self.taken, self._chars = [], 0

    def give_back(self) -> None:
        """Put back all lines of the record but the first."""
        self._ahead.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]


class _Broken:
    """A faulty row whose quotation mark swallowed lines; those that are no rows by themselves are its own."""

    def __init__(self, row: int, line: int, first: str, lines_left: int) -> None:
        self.row, self.line, self.raw, self.lines_left = row, line, first, lines_left

    def absorb(self, line: str) -> None:
        self.lines_left -= 1
        if len(self.raw) < RAW_CHARS:
            self.raw += line

    def record(self) -> Record:
        message = (
            f"line {self.line} opens a quotation mark that is not closed properly: close it, and write a "
            'quotation mark inside a quoted field twice ("").'
        )
        return Record(self.row, self.line, self.raw, (), "unclosed_quote", message)


def csv_rows(lines: Iterator[str], delimiter: str, encoding: str = "utf-8") -> Iterator[Record]:
    """Parse CSV (RFC 4180; a quotation mark inside an unquoted field is text). Row 0 is the header.

    A quotation mark that is never closed swallows the rows after it, up to the next mark or the end of the
    file. Then only the row it opened in is faulty, and parsing goes on at the next line. Swallowed lines that
    are no rows by themselves (the rest of a text with line breaks) belong to the faulty row, so that it is
    counted once. Blank lines are no rows.
    """
    # The limit is the csv module's own, for the whole process; long values are judged by later rules.
    csv.field_size_limit(max(csv.field_size_limit(), (1 << 31) - 1))
    feed = _Lines(lines)
    parser = csv.reader(feed, delimiter=delimiter, strict=True)
    width: int | None = None
    row = -1
    broken: _Broken | None = None
    while (attempt := _parse(parser, feed, delimiter, width)) is not None:
        fields, fault = attempt
        line, raw = feed.number, "".join(feed.taken)
        if fault and broken and broken.lines_left:
            feed.give_back()
            broken.absorb(feed.taken[0])
        elif fault or raw.strip(" \r\n"):
            if broken:
                yield broken.record()
                broken = None
            row += 1
            if fault in {"misquoted", "endless"} and len(feed.taken) > 1:
                broken = _Broken(row, line, feed.taken[0], 0 if fault == "endless" else len(feed.taken) - 1)
                feed.give_back()
            elif fault in {"misquoted", "endless"}:
                yield _Broken(row, line, raw, 0).record()
            elif trouble := text_fault(raw, line, encoding):
                yield Record(row, line, raw, (), *trouble)
            elif fault:
                message = (
                    f"line {line} has {len(fields)} fields where the header has {width}: quote a field that "
                    f"holds {delimiter!r} or a line break, or add the missing one."
                )
                yield Record(row, line, raw, (), "wrong_number_of_fields", message)
            else:
                width = width or len(fields)
                yield Record(row, line, raw, fields)
        feed.finish()
    if broken:
        yield broken.record()


def _parse(parser: Any, feed: _Lines, delimiter: str, width: int | None) -> tuple[list[str], str] | None:
    """The next record's fields and what is wrong with it ('' if nothing); None at the end."""
    try:
        fields = next(parser)
    except StopIteration:
        return None
    except _EndlessRecord:
        return [], "endless"
    except csv.Error as error:
        return [], "endless" if "unexpected end" in str(error) else "misquoted"
    if not fields or width is None or len(fields) == width:
        return fields, ""
    if not "".join(feed.taken).strip(" \r\n"):
        return [], ""
    # A wrong number of fields over several lines may be a quotation mark that met another one by chance.
    swallowed = any(len(part) == width for part in csv.reader(feed.taken[1:], delimiter=delimiter))
    return fields, "misquoted" if swallowed else "width"


def json_rows(
    lines: Iterator[str], fields: Mapping[str, str], seen: set[str], encoding: str = "utf-8"
) -> Iterator[Record]:
    """Parse JSON Lines into the columns `fields` (ours to the source's key), in that order. Blank lines are
    no rows.

    Numbers keep the digits they are written with. A list of plain values is text joined by a space, except a
    category, whose steps are joined by `LIST_SEPARATOR`. A missing key, null, NaN, or an object in an
    optional field is None; an object or a list as one of `NEVER_NESTED` makes the row faulty.

    Args:
        seen: filled with every key that any row has.
    """
    row = 0
    for line, raw in enumerate(lines, start=1):
        if not raw.strip():
            continue
        row += 1
        fault = text_fault(raw, line, encoding)
        values: list[str | None] = []
        if fault is None:
            found, fault = _json_object(raw, line)
            seen.update(found)
            for slot, key in fields.items():
                value = found.get(key)
                if slot in NEVER_NESTED and isinstance(value, (dict, list)):
                    fault = fault or (
                        "wrong_type",
                        f"line {line}: {key!r} must be text, not an object or a list.",
                    )
                text = _json_text(value, LIST_SEPARATOR if slot == "category" else " ")
                # JSON may escape NUL and half a character, which are no text.
                fault = fault or (text_fault(text.replace("\0", "\udc00"), line, encoding) if text else None)
                values.append(text)
        yield Record(row, line, raw, (), *fault) if fault else Record(row, line, raw, values)


def _json_object(raw: str, line: int) -> tuple[dict[str, Any], tuple[str, str] | None]:
    try:
        # Other programs write NaN for what is missing, and infinity is no value either.
        found = json.loads(raw, parse_int=str, parse_float=str, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        return {}, ("broken_json", f"line {line} is no JSON ({error}): write one whole JSON object a line.")
    if not isinstance(found, dict):
        return {}, ("broken_json", f"line {line} holds no JSON object: write one object a line, in {{...}}.")
    return found, None


def _json_text(value: Any, separator: str) -> str | None:
    if value is None or isinstance(value, (str, bool)):
        return str(value).lower() if isinstance(value, bool) else value
    if isinstance(value, list) and not any(isinstance(part, (dict, list)) for part in value):
        start = separator if separator == LIST_SEPARATOR else ""
        return start + separator.join(str(part) for part in value if part is not None)
    return str(value) if isinstance(value, (int, float)) else None
