"""Rows of a label file, CSV or Parquet, one after another.

What belongs here: formats and columns. What does not: what the values mean (`labels.py`). The catalogue's own
reader (`ingest`) is not used: it maps columns by settings and writes Spark tables.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


class LabelError(ValueError):
    """Labels that nobody can work with until a person mends them; names the file, the fault and the mend."""


def read_rows(file: Path, required: Sequence[str], optional: Sequence[str]) -> Iterator[dict[str, str] | None]:
    """Read the known columns of a CSV (.csv, .csv.gz; UTF-8) or Parquet file.

    Args:
        file: its ending names its format.
        required, optional: columns to read; others are ignored.

    Yields:
        Rows in order as trimmed text, null as empty; None for a row with the wrong number of fields. Bytes
        that are not UTF-8 come as lone surrogates, for the caller to find.

    Raises:
        LabelError: the file is missing, unreadable, of another format, or lacks a required column.
    """
    if not file.is_file():
        raise LabelError(f"the label file {file} does not exist: correct its path in the settings.")
    name = file.name.lower()
    try:
        if name.endswith((".csv", ".csv.gz")):
            yield from _read_csv(file, required, optional)
        elif name.endswith((".parquet", ".pq")):
            yield from _read_parquet(file, required, optional)
        else:
            raise LabelError(f"{file} is neither .csv, .csv.gz nor .parquet: save it as one of them.")
    except (csv.Error, zlib.error, EOFError, OSError, pa.ArrowException) as error:
        raise LabelError(f"{file} cannot be read, check it or export it again: {error}") from error


def _read_csv(file: Path, required: Sequence[str], optional: Sequence[str]) -> Iterator[dict[str, str] | None]:
    open_text = gzip.open if file.name.lower().endswith(".gz") else open
    with open_text(file, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        lines = csv.reader(stream)
        header = [name.strip() for name in next(lines, [])]
        columns = _known_columns(file, header, required, optional)
        places = [(column, header.index(column)) for column in columns]
        for fields in lines:
            if len(fields) == len(header):
                yield {column: fields[place].strip() for column, place in places}
            elif fields:
                yield None


def _read_parquet(file: Path, required: Sequence[str], optional: Sequence[str]) -> Iterator[dict[str, str]]:
    with pq.ParquetFile(file) as source:
        columns = _known_columns(file, source.schema_arrow.names, required, optional)
        for batch in source.iter_batches(columns=columns):
            texts = [column.cast(pa.string()).to_pylist() for column in batch.columns]
            for values in zip(*texts, strict=True):
                yield {column: (value or "").strip() for column, value in zip(batch.schema.names, values, strict=True)}


def _known_columns(file: Path, found: Sequence[str], required: Sequence[str], optional: Sequence[str]) -> list[str]:
    missing = [column for column in required if column not in found]
    if missing:
        raise LabelError(
            f"{file} has no column {', '.join(missing)} (it has {', '.join(found[:12]) or 'none'}): add it "
            "or rename one; the layout is that of ESCI's official files."
        )
    return [column for column in (*required, *optional) if column in found]
