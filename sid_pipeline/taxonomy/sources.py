"""Reading a taxonomy from a file or table. A failed or empty read is an error, never an empty tree.

What belongs here: telling a source's layout from its columns and turning its rows into edges or paths. What does
not: checks of the tree (`tree.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from sid_pipeline.ingest.errors import InputError
from sid_pipeline.ingest.readers import delimiter
from sid_pipeline.ingest.records import LIST_SEPARATOR, csv_rows, decode, text_fault
from sid_pipeline.ingest.source_files import (
    Source,
    SourceFile,
    check_content,
    find_source,
    is_gzip_name,
    open_checked,
)
from sid_pipeline.ingest.text import category_steps, value_text
from sid_pipeline.settings import ColumnMap, SourceSettings, TaxonomyColumns
from sid_pipeline.taxonomy.tree import Problem, Taxonomy, TaxonomyError, normalise_step

SETTING = "[taxonomy] source"
ENCODING = "utf-8-sig"
_WITH_ID = re.compile(r"\s*(\d+)\s+-\s+(.+)")


def read_taxonomy(location: str, separator: str = ">", columns: TaxonomyColumns | None = None) -> Taxonomy:
    """Read a tree from one source.

    Layouts, the first whose columns are all there: a column per level (where `columns.levels` names them); edges
    (node_id, parent_id, name); paths (path, and category_id where there are ids). CSV (.csv, .csv.gz), Parquet
    and Delta take any of them, other columns are passed over, and a row without a category is none: a product
    table is a source too. Text (.txt, .txt.gz) has one path a line, or Google's `id - A > B > C`.

    Args:
        location: a path or an address with a scheme.
        separator: between the steps of a path.
        columns: the columns' names; None takes the usual ones.

    Raises:
        TaxonomyError: nothing is there, it is another layout, or no node could be read from it.
    """
    columns = columns or TaxonomyColumns()
    try:
        text = is_text(location)
        source = find_source(location, "csv" if text else "auto", SETTING)
        if source.format == "jsonl" or (source.format == "csv" and len(source.files) != 1):
            raise TaxonomyError(
                f"{location}: a taxonomy is one CSV or text file, Parquet files or a Delta table. Mend {SETTING}."
            )
        for file in source.files:
            check_content(source, file, ENCODING)
        taxonomy = _from_text(source, separator, columns) if text else _from_columns(source, separator, columns)
    except InputError as error:
        raise TaxonomyError(str(error)) from error
    except UnicodeError as error:  # of a Parquet file whose text is none
        raise TaxonomyError(f"{location} holds text that is not valid UTF-8 ({error}). Write it again.") from error
    if not taxonomy.nodes:
        first = f" The first fault: {taxonomy.problems[0].message}" if taxonomy.problems else ""
        raise TaxonomyError(f"{location} gives no category.{first} Mend the file or {SETTING}.")
    return taxonomy


def read_product_paths(
    location: str, columns: ColumnMap, settings: SourceSettings | None = None
) -> dict[str, tuple[str, ...] | None]:
    """Category paths of a product table by product id, as a night's products have them; None for one without.

    Args:
        location: CSV or Parquet files, or a Delta table.
        columns: names of its columns. Without a product id column, rows are counted by their number.
        settings: encoding and delimiter of CSV; None takes the usual ones.

    Raises:
        TaxonomyError: it cannot be read, has no such category column, or no row.
    """
    settings = settings or SourceSettings(products=location)
    levels = [columns.category] if isinstance(columns.category, str) else list(columns.category or [])
    try:
        source = find_source(location, setting="the products' location")
        if source.format == "jsonl":
            raise TaxonomyError(
                f"{location} is JSON Lines: categories are compared of CSV, Parquet or a Delta table. Write it as one."
            )
        for file in source.files:
            check_content(source, file, settings.encoding)
        rows = _rows(source, [columns.product_id, *levels], [], settings)
        there = [name or "" for name in next(rows, [])]
        absent = [name for name in levels if name not in there]
        if absent or not levels:
            raise TaxonomyError(
                f"{location} has no column {absent[0] if absent else 'category'!r} for the category; it has "
                f"{', '.join(there) or 'none'}. Name it (--category, or [source.columns] category)."
            )
        places = [there.index(name) for name in levels]
        key = there.index(columns.product_id) if columns.product_id in there else None
        found: dict[str, tuple[str, ...] | None] = {}
        for number, row in enumerate(rows):
            steps = [row[place] for place in places]
            product = str(number) if key is None else (row[key] or "").strip()
            found.setdefault(product, category_steps(steps, columns.category_separator, columns.category_missing))
    except InputError as error:
        raise TaxonomyError(str(error)) from error
    if not found:
        raise TaxonomyError(f"{location} holds no product. Mend its location.")
    return found


def is_text(location: str) -> bool:
    name = location[:-3] if is_gzip_name(location) else location
    return PurePosixPath(name).suffix.lower() == ".txt"


def _from_text(source: Source, separator: str, columns: TaxonomyColumns) -> Taxonomy:
    with open_checked(source, source.files[0]) as stream:
        given = [
            (number, line.strip())
            for number, line in enumerate(decode(stream, ENCODING), start=1)
            if line.strip() and not line.startswith("#")
        ]
    faults = {number: text_fault(line, number, ENCODING) for number, line in given}
    lines = [(number, line) for number, line in given if faults[number] is None]
    problems = [_unparsable(number, fault[1]) for number, fault in faults.items() if fault is not None]
    missing = _missing(columns)
    if not any(_WITH_ID.match(line) for _, line in lines):
        found = Taxonomy.from_paths(filter(None, (_steps(line.split(separator), missing) for _, line in lines)))
        return _with_problems(found, problems)
    ids, paths = [], []
    for number, line in lines:
        if match := _WITH_ID.match(line):
            ids.append(match.group(1))
            paths.append(match.group(2).split(separator))
        else:
            problems.append(_unparsable(number, f"line {number} is not of the form 'id - A > B': {line!r}"))
    return _with_problems(Taxonomy.from_paths(paths, ids), problems)


def _from_columns(source: Source, separator: str, columns: TaxonomyColumns) -> Taxonomy:
    problems: list[Problem] = []
    known = [columns.node_id, columns.parent_id, columns.name, columns.path, columns.category_id, *columns.levels]
    rows = _rows(source, known, problems)
    there = [name or "" for name in next(rows, [])]
    edges = [columns.node_id, columns.parent_id, columns.name]
    if columns.levels:
        absent = [name for name in columns.levels if name not in there]
        if absent:
            raise TaxonomyError(
                f"{source.location} has no column {absent[0]!r} for a level; it has {', '.join(there) or 'none'}. "
                "Mend [taxonomy.columns] levels."
            )
        places = [there.index(name) for name in columns.levels]
        taxonomy = _from_rows(([row[place] or "" for place in places] for row in rows), None, columns)
    elif all(name in there for name in edges):
        node, parent, name = (there.index(column) for column in edges)
        taxonomy = Taxonomy.from_edges((row[node] or "", row[parent], row[name] or "") for row in rows)
    elif columns.path in there:
        place = there.index(columns.path)
        found = list(rows)
        given = [row[there.index(columns.category_id)] for row in found] if columns.category_id in there else None
        taxonomy = _from_rows((_split(row[place] or "", separator) for row in found), given, columns)
    else:
        raise TaxonomyError(
            f"{source.location} has the columns {', '.join(there) or 'none'}; needed are the columns "
            f"{', '.join(edges[:2])} and {edges[2]}, or a column {columns.path} (and {columns.category_id} where there "
            "are ids), or the columns that [taxonomy.columns] levels names."
        )
    return _with_problems(taxonomy, problems)


def _from_rows(rows: Iterator[list[str]], ids: Sequence[str | None] | None, columns: TaxonomyColumns) -> Taxonomy:
    missing = _missing(columns)
    paths, given = [], []
    for number, row in enumerate(rows):
        steps = _steps(row, missing)
        if steps:
            paths.append(steps)
            # The id is the whole path's; one that was cut short at a missing step has none.
            given.append(ids[number] if ids is not None and len(steps) == len(row) else None)
    return Taxonomy.from_paths(paths, given)


def _split(path: str, separator: str) -> list[str]:
    """The steps of a path, which a typed table may hold as a list."""
    if path.startswith(LIST_SEPARATOR):
        return path[len(LIST_SEPARATOR) :].split(LIST_SEPARATOR)
    return path.split(separator)


def _missing(columns: TaxonomyColumns) -> frozenset[str]:
    return frozenset({"", *map(normalise_step, columns.missing)})


def _steps(row: list[str], missing: frozenset[str]) -> list[str]:
    """A row's path without the missing steps at its end; one that is missing above a given one stays, as a fault."""
    steps = ["" if normalise_step(step) in missing else step for step in row]
    while steps and not steps[-1]:
        steps.pop()
    return steps


def _csv_rows(source: Source, problems: list[Problem], settings: SourceSettings) -> Iterator[list[str | None]]:
    """The first file's header, then the rows of all files in its order; faulty ones are added to `problems`."""
    header: list[str | None] = []
    for file in source.files:
        places: list[int] = []
        with open_checked(source, file) as stream:
            for record in csv_rows(decode(stream, settings.encoding), delimiter(settings, file), settings.encoding):
                if record.rule:
                    problems.append(_unparsable(record.line, record.message))
                elif record.row == 0:
                    names = [name and name.strip() for name in record.values]
                    if not header:
                        header = names
                        yield header
                    if set(header) - set(names):
                        lacking = ", ".join(sorted(str(name) for name in set(header) - set(names)))
                        raise TaxonomyError(f"{source.where(file)} has no column {lacking}. Write it again.")
                    places = [names.index(name) for name in header] if names != header else []
                else:
                    yield [record.values[place] for place in places] if places else list(record.values)


def _rows(
    source: Source, known: Sequence[str], problems: list[Problem], settings: SourceSettings | None = None
) -> Iterator[list[str | None]]:
    """The header, then the rows; of Parquet and Delta only the known columns are read."""
    if source.format == "csv":
        return _csv_rows(source, problems, settings or SourceSettings(products=source.location))
    return _table_rows(source, known)


def _table_rows(source: Source, known: Sequence[str]) -> Iterator[list[str | None]]:
    tables = [_delta(source)] if source.format == "delta" else [_parquet(source, file) for file in source.files]
    wanted = [name for name in tables[0].column_names if name in known]
    yield list(wanted) or list(tables[0].column_names)
    for table in tables:
        for name in wanted:
            if name not in table.column_names:
                raise TaxonomyError(f"{source.location}: a file has no column {name!r}. Write it again.")
        values = [table[name].to_pylist() for name in wanted]
        yield from ([value_text(value) for value in row] for row in zip(*values, strict=True))


def _parquet(source: Source, file: SourceFile):  # type: ignore[no-untyped-def]
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with source.file_system.open(file.path, "rb") as stream:
            return pq.read_table(stream)
    except (pa.ArrowException, OSError) as error:
        raise TaxonomyError(f"{source.where(file)} is damaged ({error}). Write or copy it again.") from error


def _delta(source: Source):  # type: ignore[no-untyped-def]
    import pyarrow as pa
    from deltalake import DeltaTable, QueryBuilder
    from deltalake.exceptions import DeltaError

    try:
        rows = QueryBuilder().register("taxonomy", DeltaTable(source.location)).execute("select * from taxonomy")
        return pa.table(rows.read_all())
    except DeltaError as error:
        raise TaxonomyError(f"{source.location} cannot be read as a Delta table ({error}).") from error


def _unparsable(line: int, message: str) -> Problem:
    return Problem(f"line {line}", "unparsable_row", message)


def _with_problems(taxonomy: Taxonomy, problems: Sequence[Problem]) -> Taxonomy:
    return replace(taxonomy, problems=(*problems, *taxonomy.problems))
