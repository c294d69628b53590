"""Reading a taxonomy from a file. A failed or empty read is an error, never an empty tree.

What belongs here: telling a file's layout from its columns and turning its rows into edges or paths. What
does not: checks of the tree (`tree.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from sid_pipeline.ingest.errors import InputError
from sid_pipeline.ingest.records import csv_rows, decode
from sid_pipeline.ingest.source_files import Source, check_content, find_source, is_gzip_name, open_checked
from sid_pipeline.taxonomy.tree import Problem, Taxonomy, TaxonomyError

EDGE_COLUMNS = ("node_id", "parent_id", "name")
SETTING = "[taxonomy] source"
LAYOUTS = "the columns node_id, parent_id and name, or a column path (and category_id where there are ids)"
ENCODING = "utf-8-sig"


def read_taxonomy(location: str, separator: str = ">") -> Taxonomy:
    """Read a tree from one file.

    Layouts: CSV (.csv, .csv.gz) or Parquet with node_id, parent_id and name; CSV or Parquet with path, and
        category_id where there are ids; Google's text (.txt), lines of `id - A > B > C`. Other columns are
        passed over.

    Args:
        location: a path or an address with a scheme.
        separator: between the steps of a path.

    Raises:
        TaxonomyError: nothing is there, it is another layout, or no node could be read from it.
    """
    try:
        text = _is_text(location)
        source = find_source(location, "csv" if text else "auto", SETTING)
        if len(source.files) != 1 or source.format == "jsonl":
            raise TaxonomyError(f"{location}: a taxonomy is one file, CSV, Parquet or Google's text. Mend {SETTING}.")
        check_content(source, source.files[0], ENCODING)
        taxonomy = _from_google(source, separator) if text else _from_columns(source, separator)
    except InputError as error:
        raise TaxonomyError(str(error)) from error
    if not taxonomy.nodes:
        first = f" The first fault: {taxonomy.problems[0].message}" if taxonomy.problems else ""
        raise TaxonomyError(f"{location} gives no category.{first} Mend the file or {SETTING}.")
    return taxonomy


def _is_text(location: str) -> bool:
    name = location[:-3] if is_gzip_name(location) else location
    return PurePosixPath(name).suffix.lower() == ".txt"


def _from_google(source: Source, separator: str) -> Taxonomy:
    ids, paths, problems = [], [], []
    with open_checked(source, source.files[0]) as stream:
        for number, line in enumerate(decode(stream, ENCODING), start=1):
            if not line.strip() or line.startswith("#"):
                continue
            match = re.match(r"\s*(\d+)\s+-\s+(.+)", line)
            if match:
                ids.append(match.group(1))
                paths.append(match.group(2).split(separator))
            else:
                problems.append(_unparsable(number, f"line {number} is not of the form 'id - A > B': {line.strip()!r}"))
    return _with_problems(Taxonomy.from_paths(paths, ids), problems)


def _from_columns(source: Source, separator: str) -> Taxonomy:
    problems: list[Problem] = []
    rows = _parquet_rows(source) if source.format == "parquet" else _csv_rows(source, problems)
    columns = [name or "" for name in next(rows, [])]
    if all(name in columns for name in EDGE_COLUMNS):
        places = [columns.index(name) for name in EDGE_COLUMNS]
        edges = ((row[places[0]] or "", row[places[1]], row[places[2]] or "") for row in rows)
        return _with_problems(Taxonomy.from_edges(edges), problems)
    if "path" in columns:
        paths, ids = [], []
        for row in rows:
            paths.append((row[columns.index("path")] or "").split(separator))
            ids.append(row[columns.index("category_id")] if "category_id" in columns else None)
        return _with_problems(Taxonomy.from_paths(paths, ids), problems)
    raise TaxonomyError(f"{source.location} has the columns {', '.join(columns) or 'none'}; needed are {LAYOUTS}.")


def _csv_rows(source: Source, problems: list[Problem]) -> Iterator[list[str | None]]:
    """The header, then the rows; faulty ones are added to `problems`."""
    with open_checked(source, source.files[0]) as stream:
        for record in csv_rows(decode(stream, ENCODING), ",", ENCODING):
            if record.rule:
                problems.append(_unparsable(record.line, record.message))
            elif record.row == 0:
                yield [name and name.strip() for name in record.values]
            else:
                yield list(record.values)


def _parquet_rows(source: Source) -> Iterator[list[str | None]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with source.file_system.open(source.files[0].path, "rb") as stream:
            table = pq.read_table(stream)
    except (pa.ArrowException, OSError) as error:
        raise TaxonomyError(f"{source.location} is damaged ({error}). Write or copy it again.") from error
    wanted = [name for name in table.column_names if name in (*EDGE_COLUMNS, "path", "category_id")]
    yield list(wanted)
    columns = [table[name].to_pylist() for name in wanted]
    yield from ([None if value is None else str(value) for value in row] for row in zip(*columns, strict=True))


def _unparsable(line: int, message: str) -> Problem:
    return Problem(f"line {line}", "unparsable_row", message)


def _with_problems(taxonomy: Taxonomy, problems: Sequence[Problem]) -> Taxonomy:
    return replace(taxonomy, problems=(*problems, *taxonomy.problems))
