"""Rows of a label file, CSV or Parquet, one after another.

What belongs here: formats and columns. What does not: what the values mean (`labels.py`). The catalogue's own
reader (`ingest.readers`) is not used: it maps columns by settings and writes Spark tables; its way of telling one
CSV row from the next is.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sid_pipeline.ingest.records import Record, csv_rows, decode


class LabelError(ValueError):
    """Labels that nobody can work with until a person mends them; names the file, the fault and the mend."""


def read_rows(
    file: Path, required: Sequence[str], optional: Sequence[str], columns: Mapping[str, str | None]
) -> Iterator[dict[str, str] | None]:
    """Read the known columns of a CSV (.csv, .csv.gz; UTF-8) or Parquet file.

    Args:
        file: its ending names its format.
        required, optional: what to read; other columns are ignored.
        columns: the file's column for each of them where it is named otherwise; None where it has none.

    Yields:
        Rows in order as trimmed text, null as empty; None for a row with the wrong number of fields or an unclosed
        quotation mark, which costs that row alone. Bytes that are not UTF-8 come as lone surrogates, for the caller to
        find.

    Raises:
        LabelError: the file is missing, unreadable, of another format, or lacks a required column.
    """
    if not file.is_file():
        raise LabelError(f"the label file {file} does not exist: correct its path in the settings.")
    name = file.name.lower()
    try:
        if name.endswith((".csv", ".csv.gz")):
            yield from _read_csv(file, lambda found: _known_columns(file, found, required, optional, columns))
        elif name.endswith((".parquet", ".pq")):
            yield from _read_parquet(file, lambda found: _known_columns(file, found, required, optional, columns))
        else:
            raise LabelError(f"{file} is neither .csv, .csv.gz nor .parquet: save it as one of them.")
    except (csv.Error, zlib.error, EOFError, OSError, pa.ArrowException) as error:
        raise LabelError(f"{file} cannot be read, check it or export it again: {error}") from error


def _read_csv(file: Path, choose: Callable[[list[str]], dict[str, str]]) -> Iterator[dict[str, str] | None]:
    open_bytes = gzip.open if file.name.lower().endswith(".gz") else open
    with open_bytes(file, "rb") as stream:
        rows = csv_rows(decode(stream, "utf-8-sig"), ",")  # type: ignore[arg-type]
        first = next(rows, None)
        if first is not None and first.rule:
            raise LabelError(f"the header of {file} cannot be read: {first.message}")
        header = [(name or "").strip() for name in first.values] if first is not None else []
        places = [(name, header.index(column)) for name, column in choose(header).items()]
        for record in rows:
            fields = _fields(record)
            yield {name: fields[place].strip() for name, place in places} if len(fields) == len(header) else None


def _fields(record: Record) -> list[str]:
    """A row's fields. Of one with bytes that are no text they come all the same: the caller names what is wrong."""
    if record.rule in {"bad_encoding", "nul_character"}:
        return next(csv.reader(record.raw.splitlines(keepends=True)), [])
    return [value or "" for value in record.values]


def _read_parquet(file: Path, choose: Callable[[list[str]], dict[str, str]]) -> Iterator[dict[str, str]]:
    with pq.ParquetFile(file) as source:
        chosen = choose(source.schema_arrow.names)
        # One column may carry two things, such as the query's text and its id.
        for batch in source.iter_batches(columns=sorted(set(chosen.values()))):
            texts = [batch.column(column).cast(pa.string()).to_pylist() for column in chosen.values()]
            for values in zip(*texts, strict=True):
                yield {name: (value or "").strip() for name, value in zip(chosen, values, strict=True)}


def _known_columns(
    file: Path, found: list[str], required: Sequence[str], optional: Sequence[str], columns: Mapping[str, str | None]
) -> dict[str, str]:
    """The file's column for each thing that it has."""
    wanted = {name: columns.get(name, name) for name in (*required, *optional)}
    missing = [column or name for name, column in wanted.items() if name in required and column not in found]
    if missing:
        raise LabelError(
            f"{file} has no column {', '.join(missing)} (it has {', '.join(found[:12]) or 'none'}): add it, "
            "or name the column that it has in relevance.columns; the default is the layout of ESCI's official files."
        )
    return {name: column for name, column in wanted.items() if column in found and column is not None}
