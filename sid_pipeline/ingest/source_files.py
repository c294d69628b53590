"""Which files a source is made of, in which format, and whether they are what their names say.

What belongs here: listing files (local paths, globs, folders and every address that fsspec can open), whether any are
there and since when, guessing the format from the name, opening a file, recognising content by its first bytes, and the
content fingerprint. What does not: reading rows.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import PurePosixPath
from typing import IO, Any

from sid_pipeline.ingest.errors import InputError

HEAD_BYTES = 4096
ENDINGS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
FORMAT_NAMES = {"csv": "CSV", "jsonl": "JSON Lines", "parquet": "Parquet", "delta": "Delta"}
MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"PAR1", "a Parquet file"),
    (b"\x1f\x8b", "a gzip file"),
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
    (b"%PDF", "a PDF"),
    (b"\x28\xb5\x2f\xfd", "a zstd file"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ", "an xz file"),
    (b"ORC", "an ORC file"),
    (b"Obj\x01", "an Avro file"),
    (b"SQLite format 3", "an SQLite database"),
)
MENDS = {
    "a Parquet file": 'rename it to end in .parquet or set [source] format = "parquet"',
    "a gzip file": "rename it to end in .gz",
    "UTF-16 text": 'save it as UTF-8 or set [source] encoding = "utf-16"',
    "JSON Lines": 'rename it to end in .jsonl or set [source] format = "jsonl"',
    "plain text, perhaps CSV": 'rename it to end in .csv or set [source] format = "csv"',
    "a JSON array": "write one JSON object a line (JSON Lines)",
    "a web page (HTML)": "the download probably failed: fetch it again",
}


class Unreachable(RuntimeError):
    """A place that cannot be looked at, so nobody knows what lies there; the message names it and the kind of error."""


@dataclass(frozen=True)
class SourceFile:
    """`name` is unique within the source, and rows carry it; `path` is for the file system."""

    name: str
    path: str


@dataclass(frozen=True)
class Source:
    """Files of one format. `base` is the folder that the files' names are relative to."""

    location: str
    format: str
    base: str
    files: tuple[SourceFile, ...]
    file_system: Any

    def open(self, file: SourceFile) -> IO[bytes]:
        """The file's bytes, decompressed where its name ends in .gz."""
        stream: IO[bytes] = self.file_system.open(file.path, "rb")
        return gzip.open(stream, "rb") if is_gzip_name(file.path) else stream  # type: ignore[return-value]

    def where(self, file: SourceFile) -> str:
        """How messages name the file."""
        return self.location if len(self.files) == 1 else f"{file.name} in {self.location}"

    def spark_path(self, file: SourceFile) -> str:
        """The file's path as Spark takes it: with the location's own scheme, glob characters escaped."""
        scheme = re.match(r"^[a-z][a-z0-9+.-]+://", self.location)
        return (scheme.group() if scheme else "") + re.sub(r"([\\{}\[\]*?])", r"\\\1", file.path)


def is_gzip_name(path: str) -> bool:
    """Whether the name says that the file is gzip-compressed."""
    return path.lower().endswith(".gz")


def find_source(location: str, format: str = "auto", setting: str = "[source] products") -> Source:
    """List the files at `location`: a file, a folder (searched deeply), a glob, or a Delta table's folder.

    Args:
        location: local path or an address with a scheme.
        format: csv, jsonl, parquet, delta, or auto, which takes it from the names' endings.
        setting: the setting that holds the location, for messages.

    Raises:
        InputError: nothing is there, the format cannot be told, or the files are of several formats.
    """
    file_system, path = _file_system(location)
    if file_system.isdir(path):
        if format == "delta" or (format == "auto" and file_system.isdir(f"{path}/_delta_log")):
            if not file_system.isdir(f"{path}/_delta_log"):
                raise InputError(
                    f"{location} is no Delta table: it has no _delta_log folder. Mend {setting} or [source] format."
                )
            return Source(location, "delta", path, (), file_system)
        base, found = path.rstrip("/"), sorted(file_system.find(path))
    elif file_system.isfile(path):
        base, found = path.rpartition("/")[0], [path]
    elif re.search(r"[*?\[]", path):
        base = re.split(r"[*?\[]", path, maxsplit=1)[0].rpartition("/")[0]
        found = sorted(match for match in file_system.glob(path) if file_system.isfile(match))
    else:
        raise InputError(f"{location} does not exist. Put the file there or mend {setting}.")
    files = tuple(
        SourceFile(name=file[len(base) + 1 :], path=file) for file in found if not _is_hidden(file[len(base) + 1 :])
    )
    if not files:
        raise InputError(f"{location} matches no file. Put the files there or mend {setting}.")
    return Source(location, format if format != "auto" else _format_of(files, location), base, files, file_system)


def is_there(location: str, format: str = "auto", setting: str = "[source] products") -> bool:
    """Whether `find_source` finds files at a location.

    Raises:
        Unreachable: the place cannot be looked at: a store that does not answer or refuses, a folder without the right.
    """
    try:
        file_system, path = _file_system(location)
        file_system.invalidate_cache()  # object stores remember listings, and with them that a file was not there
        try:
            find_source(location, format, setting)
        except InputError:
            _look_at(file_system, path)  # of some file systems it takes a refusal for an absence
            return False
    except InputError as error:  # an address that nothing here can open
        raise Unreachable(f"{setting}: {error}") from None
    except Exception as error:  # of whatever client; its text may hold more of the address than is meant to be shown
        raise Unreachable(f"{location} ({setting}) cannot be looked at ({type(error).__name__})") from None
    return True


def _look_at(file_system: Any, path: str) -> None:
    """Raise what keeps one from looking at a path, or at the folder that a glob begins in; absence is nothing."""
    if re.search(r"[*?\[]", path):
        path = re.split(r"[*?\[]", path, maxsplit=1)[0].rpartition("/")[0]
    try:
        if file_system.info(path)["type"] == "directory":
            file_system.ls(path)
    except (FileNotFoundError, NotADirectoryError):
        return


def last_change(location: str, format: str = "auto") -> datetime | None:
    """When the newest file of a source was written, with a zone; None where nothing is there or nobody can tell."""
    try:
        source = find_source(location, format)
        paths = [file.path for file in source.files] or source.file_system.find(f"{source.base}/_delta_log")
        times = [source.file_system.modified(path) for path in paths]
    except Exception:  # not every file system knows, and each says so in its own way
        return None
    aware = [time if time.tzinfo else time.replace(tzinfo=timezone.utc) for time in times]
    return max(aware, default=None)


def _file_system(location: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    try:
        file_system, path = url_to_fs(location)
    except (ImportError, ValueError) as error:
        raise InputError(f"{location} cannot be opened: {error}") from error
    return file_system, path


def _is_hidden(name: str) -> bool:
    """Markers and checksums that engines leave beside data files, such as _SUCCESS and .part-0.crc."""
    return any(step.startswith(("_", ".")) for step in name.split("/"))


def _format_of(files: Sequence[SourceFile], location: str) -> str:
    formats: dict[str, str] = {}
    for file in files:
        name = file.path[:-3] if is_gzip_name(file.path) else file.path
        ending = PurePosixPath(name).suffix.lower()
        if ending not in ENDINGS:
            raise InputError(
                f"the name {file.name} does not say which format the file has. Name it .csv, .csv.gz, .jsonl "
                "or .parquet, or set [source] format."
            )
        formats.setdefault(ENDINGS[ending], file.name)
    if len(formats) > 1:
        examples = ", ".join(f"{name} ({FORMAT_NAMES[kind]})" for kind, name in formats.items())
        raise InputError(f"{location} holds files of several formats: {examples}. Keep one format per source.")
    return next(iter(formats))


def looks_like(head: bytes, encoding: str = "utf-8") -> str:
    """What a file's first bytes are, in words; 'plain text, perhaps CSV' when nothing else is recognised."""
    for magic, label in MAGIC:
        if head.startswith(magic):
            return label
    wide = encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32"))
    if not wide and (head.startswith((b"\xff\xfe", b"\xfe\xff")) or _alternating_nul(head)):
        return "UTF-16 text"
    if not wide and head.count(0) > len(head) // 20:
        return "binary data"
    text = head.decode(encoding, errors="replace").lstrip("\ufeff").lstrip()
    start = text[:200].lower()
    if re.match(r"<(!doctype html|html|head|body|!--)", start):
        return "a web page (HTML)"
    if start.startswith("<?xml"):
        return "XML"
    if re.match(r"\[\s*[\[{\"]", text):
        return "a JSON array"
    if re.match(r"\{\s*[\"}]", text):
        return "JSON Lines"
    return "plain text, perhaps CSV"


def _alternating_nul(head: bytes) -> bool:
    """Mostly ASCII text in UTF-16 without a byte-order mark: every other byte is NUL."""
    pairs = len(head) // 2
    return pairs >= 8 and max(head[0::2].count(0), head[1::2].count(0)) > 0.6 * pairs


def check_content(source: Source, file: SourceFile, encoding: str) -> None:
    """Check by a file's first (and Parquet's last) bytes that it is what its name or the settings say.

    Raises:
        InputError: the file is empty or is something else; the message says what it looks like.
    """
    expected = FORMAT_NAMES[source.format]
    with source.file_system.open(file.path, "rb") as stream:
        head = stream.read(HEAD_BYTES)
        if not head:
            raise InputError(f"{source.where(file)} is empty (0 bytes). Write it again, with a header and rows.")
        if source.format == "parquet" and head.startswith(b"PAR1"):
            stream.seek(-4, 2)
            if stream.read() != b"PAR1":
                raise InputError(
                    f"{source.where(file)} is a Parquet file that was cut off: its end is missing. Copy it again."
                )
            return
    if source.format in {"csv", "jsonl"} and is_gzip_name(file.path):
        if not head.startswith(b"\x1f\x8b"):
            raise InputError(
                f"{source.where(file)} is no gzip file: it looks like {looks_like(head, encoding)}. "
                "Compress it, or take .gz off its name."
            )
        with open_checked(source, file) as stream:
            head = stream.read(HEAD_BYTES)
        if not head:
            raise InputError(f"{source.where(file)} is empty once decompressed. Write it again.")
    label = looks_like(head, encoding)
    fits = {"csv": "plain text, perhaps CSV", "jsonl": "JSON Lines", "parquet": "a Parquet file"}[source.format]
    if label != fits:
        mend = MENDS.get(label, "export it again in that format")
        raise InputError(f"{source.where(file)} is no {expected} file: it looks like {label}. Mend: {mend}.")


class open_checked:
    """Context manager over `Source.open` that turns a damaged gzip stream into an InputError."""

    def __init__(self, source: Source, file: SourceFile) -> None:
        self._source, self._file = source, file

    def __enter__(self) -> IO[bytes]:
        self._stream = self._source.open(self._file)
        return self._stream

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        import zlib

        self._stream.close()
        if isinstance(error, (EOFError, gzip.BadGzipFile, zlib.error)):
            raise InputError(
                f"{self._source.where(self._file)} is a damaged or cut-off gzip file ({error}). Copy it again."
            ) from error


def fingerprint(
    locations: str | Sequence[str], format: str = "auto", setting: str = "the setting that names it"
) -> str:
    """SHA-256 (hex) that changes when the content of a source changes; reads no row and needs no Spark.

    Files: their names within the source and their bytes. Delta: the newest commit of its log. Of several
    locations the order counts.

    Args:
        locations: of one source, or of several.
        format, setting: as in `find_source`.

    Raises:
        InputError: as `find_source`.
    """
    digest = hashlib.sha256()
    for location in [locations] if isinstance(locations, str) else locations:
        source = find_source(location, format, setting)
        digest.update(f"{source.format}\x1e".encode())
        if source.format == "delta":
            commits = [
                path
                for path in source.file_system.find(f"{source.base}/_delta_log", maxdepth=1)
                if re.search(r"/\d{20}\.json$", path)
            ]
            if not commits:
                raise InputError(f"{location} is no Delta table: its _delta_log holds no commit.")
            _hash_file(source.file_system, max(commits), max(commits).rpartition("/")[2], digest)
        for file in source.files:
            _hash_file(source.file_system, file.path, file.name, digest)
    return digest.hexdigest()


def _hash_file(file_system: Any, path: str, name: str, digest: Any) -> None:
    inner = hashlib.sha256()
    with file_system.open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            inner.update(block)
    # JSON keeps name and content apart whatever characters a name holds.
    digest.update(json.dumps([name, inner.hexdigest()]).encode())
