"""Reading and writing the Delta tables of `schemas`.

Writes go through Spark, one commit each: `replace` swaps a partition slice, `merge` changes rows of one, `append`
adds rows. `arrow` reads a slice without Spark, for the command line and small look-ups. What does not belong here:
what a table means.

On a local disk Delta does not exclude two writers in two processes, so every write there holds one OS lock per
table; object stores have Delta's own log store.
"""

from __future__ import annotations

import json
import random
import re
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from filelock import FileLock

from sid_pipeline.keys import check_key
from sid_pipeline.processes import identity, is_running, is_there
from sid_pipeline.schemas import TableSpec

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable
    from pyspark.sql import Column, DataFrame, Row, SparkSession

    from sid_pipeline.resources.parquet import Batches, File

COMMIT_TRIES = 5
USER_METADATA = "spark.databricks.delta.commitInfo.userMetadata"
# <name>-<host>-<identity of the process>-<id>, see `spool_dir`; until then <name>-<number of the process>.
_SPOOL = re.compile(r".+-(?P<host>[A-Za-z0-9_]+)-(?P<process>\d+(\.\d+\.[0-9a-f]+)?)-[0-9a-f]{8}")
_FORMER_SPOOL = re.compile(r".+-(?P<pid>\d+)")


class MissingSlice(LookupError):
    """A table or slice that is needed does not exist."""


class SliceMoved(RuntimeError):
    """Another process wrote a slice after it was read: what was worked out from it must be worked out again."""


class Tables:
    """The tables under one root folder or address.

    Args:
        root: a folder, or an address that Spark and delta-rs both understand (s3a://... is read as s3://...).
        spark: gives the session; called on the first write or Spark read only.
    """

    def __init__(self, root: str | Path, spark: Callable[[], SparkSession]) -> None:
        self.root = str(root).rstrip("/")
        self._spark = spark

    @property
    def spark(self) -> SparkSession:
        """The session, started on first use."""
        return self._spark()

    @property
    def is_local(self) -> bool:
        """Whether the tables lie on a file system of this machine."""
        return re.match(r"^(?!file:)[a-z][a-z0-9+.-]+://", self.root) is None

    def location(self, spec: TableSpec) -> str:
        """Where a table lies."""
        return f"{self.root}/{spec.name}"

    def _sql_name(self, spec: TableSpec) -> str:
        """The table's name in SQL, whatever characters its folder has."""
        quoted = self.location(spec).replace("`", "``")
        return f"delta.`{quoted}`"

    def read(self, spec: TableSpec, *, version: int | None = None, **slice: str) -> DataFrame:
        """A slice as a Spark DataFrame, its slice columns dropped.

        Args:
            version: read this version of the table, whatever is written meanwhile; None reads the newest whenever
                the frame is worked out.
            slice: values of partition columns.

        Raises:
            MissingSlice: the table was never written.
        """
        if not self.exists(spec):
            raise MissingSlice(f"table {spec.name!r} does not exist yet")
        reader = self.spark.read.format("delta")
        if version is not None:
            reader = reader.option("versionAsOf", version)
        frame = reader.load(self.location(spec))
        for column, value in slice.items():
            frame = frame.where(frame[column] == value)
        return frame.drop(*slice)

    def map_batches(
        self, spec: TableSpec, columns: Sequence[str], function: Batches, ddl: str, keys: pa.Array | None, **slice: str
    ) -> DataFrame:
        """What `function` makes of a slice's rows in the workers, as `mapInArrow` does, without the JVM where possible.

        On a disk that all workers see they read the files themselves; elsewhere, or where rows are marked as deleted,
        Spark reads them.

        Args:
            columns: the columns that the function is given, in this order.
            function: Arrow batches to Arrow batches, see `DataFrame.mapInArrow`.
            ddl: what it gives.
            keys: only rows whose first of `columns` is among these, which every worker holds.
            slice: values of partition columns.
        """
        import pyarrow as pa

        from sid_pipeline.resources.parquet import map_files

        files = self._plain_files(spec, slice)
        if files is not None:
            schema = spec.arrow()
            return map_files(self.spark, files, pa.schema([schema.field(c) for c in columns]), function, ddl, keys)
        frame = self.read(spec, version=None, **slice).select(*columns)
        if keys is not None:
            wanted = self.spark.createDataFrame(pa.table({columns[0]: keys}))
            frame = frame.join(wanted.hint("broadcast"), columns[0], "left_semi")
        return frame.mapInArrow(function, ddl)

    def _plain_files(self, spec: TableSpec, slice: Mapping[str, str]) -> list[File] | None:
        """A slice's files; None where a worker cannot read them as they are."""
        import pyarrow as pa
        from deltalake import DeltaTable

        from sid_pipeline.resources.parquet import File

        if not self.is_local:
            return None
        table = DeltaTable(self._rust_location(spec))
        if len(pa.table(table.deletion_vectors())):
            return None
        root = Path(self.root.removeprefix("file://")).resolve() / spec.name
        return [
            File(str(root / unquote(file["path"])), file["size_bytes"], file["num_records"] or 0)
            for file in _files(table, slice)
        ]

    def the_only(self, spec: TableSpec, columns: Sequence[str], version: int, **slice: str) -> dict[str, str] | None:
        """The values of text columns that all rows of a slice share, as the log's statistics tell them, without Spark.

        None where they do not tell: there are no rows, rows differ, or a value is missing, or long and so cut off.
        """
        from deltalake import DeltaTable

        told = set()
        for file in _files(DeltaTable(self._rust_location(spec), version=version), slice):
            for name in columns:
                least, most = file.get(f"min.{name}"), file.get(f"max.{name}")
                if file.get(f"null_count.{name}") != 0 or least is None or least != most:
                    return None
            told.add(tuple(file[f"min.{name}"] for name in columns))
        return dict(zip(columns, told.pop(), strict=True)) if len(told) == 1 else None

    def replace(
        self,
        spec: TableSpec,
        frame: DataFrame,
        *,
        metadata: Mapping[str, Any] | None = None,
        since: int | None = None,
        **slice: str,
    ) -> int:
        """Replace one slice in one commit and return its number of rows.

        Args:
            frame: the table's columns without the slice's.
            metadata: JSON-able, recorded in the commit beside the slice.
            since: the version that `frame` was worked out from.
            slice: a value of every partition column.

        Raises:
            SliceMoved: the slice was written, with metadata, after `since`.
        """
        condition = _condition(spec, slice)
        options = {"replaceWhere": condition} if condition else {}
        if metadata is not None:
            options["userMetadata"] = _user_metadata(slice, metadata)
        frame = _conform(spec, frame, slice)

        def write() -> None:
            frame.write.format("delta").mode("overwrite").options(**options).save(self.location(spec))

        return self._commit(spec, write, slice, since)

    def merge(self, spec: TableSpec, frame: DataFrame, *, metadata: Mapping[str, Any], since: int, **slice: str) -> int:
        """Update the rows of a slice whose key is in `frame` and insert the others, in one commit; rows touched.

        `frame` is read more than once, so it must give the same rows each time: persist it. Arguments and faults
        as for `replace`.
        """
        keys = " AND ".join(f"t.`{column}` = s.`{column}`" for column in spec.key)
        # Literal partition values, or a merge conflicts with writers of every other slice.
        where = _condition(spec, slice, "t.")
        source = f"merge_{uuid.uuid4().hex}"
        statement = (
            f"MERGE INTO {self._sql_name(spec)} t USING {source} s ON {where} AND {keys} "
            "WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *"
        )

        def write() -> None:
            self.spark.conf.set(USER_METADATA, _user_metadata(slice, metadata))
            try:
                self.spark.sql(statement)
            finally:
                self.spark.conf.unset(USER_METADATA)

        _conform(spec, frame, slice).createOrReplaceTempView(source)
        try:
            return self._commit(spec, write, slice, since)
        finally:
            self.spark.catalog.dropTempView(source)

    def append(self, spec: TableSpec, frame: DataFrame, **slice: str) -> int:
        """Append rows in one commit and return their number."""
        frame = _conform(spec, frame, slice)
        return self._commit(
            spec, lambda: frame.write.format("delta").mode("append").save(self.location(spec)), slice, None
        )

    def append_rows(self, spec: TableSpec, rows: list[dict[str, Any]]) -> None:
        """Append a few rows in one commit, without Spark; for ledgers and logs."""
        import pyarrow as pa
        from deltalake import write_deltalake

        fields = [
            pa.field(field.name, field.type, column.nullable, {"comment": column.description})
            for field, column in zip(spec.arrow(), spec.columns, strict=True)
        ]
        with self._lock(spec):
            write_deltalake(
                self._rust_location(spec),
                pa.Table.from_pylist(rows, pa.schema(fields)),
                mode="append",
                partition_by=list(spec.partition_by) or None,
                description=None if self.exists(spec) else spec.description,
            )

    def remove(self, spec: TableSpec, keys: DataFrame, condition: str = "true", **slice: str) -> None:
        """Remove the rows of a slice whose key is in `keys` and that meet a SQL condition on `t`, in one commit."""
        view = f"removed_{uuid.uuid4().hex}"
        same = " AND ".join(f"t.`{name}` = k.`{name}`" for name in spec.key)
        statement = (
            f"MERGE INTO {self._sql_name(spec)} t USING {view} k ON {_condition(spec, slice, 't.')} AND {same} "
            f"WHEN MATCHED AND ({condition}) THEN DELETE"
        )
        keys.select(*spec.key).distinct().createOrReplaceTempView(view)
        try:
            self._commit(spec, lambda: self.spark.sql(statement), slice, None)
        finally:
            self.spark.catalog.dropTempView(view)

    def delete(self, spec: TableSpec, slices: Sequence[Mapping[str, str]]) -> None:
        """Remove slices in one commit; a value of every partition column each."""
        if slices:
            condition = " OR ".join(f"({_condition(spec, slice)})" for slice in slices)
            statement = f"DELETE FROM {self._sql_name(spec)} WHERE {condition}"
            self._commit(spec, lambda: self.spark.sql(statement), {}, None)

    def delete_before(self, spec: TableSpec, column: str, day: str) -> None:
        """Remove the rows whose text column, a day (YYYY-MM-DD), lies before another day, in one commit."""
        first = date.fromisoformat(day).isoformat()
        statement = f"DELETE FROM {self._sql_name(spec)} WHERE `{column}` < '{first}'"
        self._commit(spec, lambda: self.spark.sql(statement), {}, None)

    def slices(self, spec: TableSpec) -> list[tuple[str, ...]]:
        """The values of the partition columns that the table holds rows of, sorted; needs no Spark."""
        from deltalake import DeltaTable

        if not self.exists(spec):
            return []
        found = DeltaTable(self._rust_location(spec)).partitions()
        return sorted({tuple(part[column] for column in spec.partition_by) for part in found})

    def vacuum(self, spec: TableSpec, history_hours: float = 168) -> None:
        """Remove files that no version of the last `history_hours` needs; works on a full disk.

        Whoever reads an older version than that, or began to read one longer ago, finds its files gone.
        """
        conf = {
            "spark.databricks.delta.retentionDurationCheck.enabled": str(history_hours >= 168).lower(),  # under a week
            "spark.databricks.delta.vacuum.logging.enabled": "false",  # two commits, for which there may be no room
        }
        with self._lock(spec):
            for name, value in conf.items():
                self.spark.conf.set(name, value)
            try:
                self.spark.sql(f"VACUUM {self._sql_name(spec)} RETAIN {history_hours:g} HOURS")
            finally:
                for name in conf:
                    self.spark.conf.unset(name)

    def compact(self, spec: TableSpec) -> None:
        """Join small files; what they were joined from goes with a later `vacuum`. Needs room."""
        with self._lock(spec):
            _retried(lambda: self.spark.sql(f"OPTIMIZE {self._sql_name(spec)}"))

    def create(self, spec: TableSpec) -> None:
        """Create a table with its comments and constraints; an existing one is left alone."""
        columns = ", ".join(
            f"`{c.name}` {c.type}{'' if c.nullable else ' NOT NULL'} COMMENT {_quote(c.description)}"
            for c in spec.columns
        )
        properties = ", ".join(f"'{name}' = '{value}'" for name, value in spec.properties)
        partition = f"PARTITIONED BY ({', '.join(spec.partition_by)})" if spec.partition_by else ""
        self.spark.sql(
            f"CREATE TABLE IF NOT EXISTS {self._sql_name(spec)} ({columns}) USING delta {partition} "
            f"COMMENT {_quote(spec.description)}" + (f" TBLPROPERTIES ({properties})" if spec.properties else "")
        )

    def ensure(self, spec: TableSpec) -> int:
        """Make sure that a table exists and has all columns, as every write does; its version."""
        with self._lock(spec):
            self._prepare(spec)
            return self.version(spec)

    def _prepare(self, spec: TableSpec) -> None:
        """Create a table, or give one that an earlier version of the project made the columns it lacks."""
        from deltalake import DeltaTable

        if not self.exists(spec):
            self.create(spec)
            return
        there = {field.name for field in DeltaTable(self._rust_location(spec)).schema().fields}
        added = [c for c in spec.columns if c.name not in there]
        if added:
            columns = ", ".join(f"`{c.name}` {c.type} COMMENT {_quote(c.description)}" for c in added)
            self.spark.sql(f"ALTER TABLE {self._sql_name(spec)} ADD COLUMNS ({columns})")

    def fingerprint(self, spec: TableSpec, columns: list[str], **slice: str) -> str:
        """A content hash of some columns of a slice, whatever the order of its rows."""
        return fingerprint(self.read(spec, version=None, **slice).select(*columns))

    def exists(self, spec: TableSpec) -> bool:
        """Whether the table was ever written; needs no Spark."""
        from deltalake import DeltaTable

        return DeltaTable.is_deltatable(self._rust_location(spec))

    def arrow(self, spec: TableSpec, columns: list[str] | None = None, filters: Any = None, **slice: str) -> pa.Table:
        """A slice as an Arrow table, read without Spark; empty when there is none.

        Args:
            columns: the columns to read; None reads all.
            filters: a pyarrow dataset expression.
            slice: values of partition columns.
        """
        import pyarrow as pa
        import pyarrow.dataset as ds
        from deltalake import DeltaTable
        from pyarrow import fs

        if not self.exists(spec):
            return spec.arrow().empty_table().select(columns or spec.column_names)
        schema = spec.arrow()
        # The log says which files (paths relative to the table, percent-encoded as Delta has it); Arrow's own file
        # system reads them. (Reading through delta-rs' Python file system now and then aborts the interpreter at
        # exit, while a read-ahead thread still holds it.)
        filesystem, root = fs.FileSystem.from_uri(self._rust_location(spec))
        table = DeltaTable(self._rust_location(spec))
        paths = [f"{root}/{unquote(file['path'])}" for file in _files(table, slice)]
        if not paths:
            return schema.empty_table().select(columns or spec.column_names)
        # Rows that are marked as deleted still lie in their files.
        deleted = pa.table(table.deletion_vectors())
        kept = {
            f"{root}/{unquote(uri)[len(unquote(table.table_uri)) :].lstrip('/')}": mask
            for uri, mask in zip(
                deleted["filepath"].to_pylist(), deleted["selection_vector"].combine_chunks(), strict=True
            )
        }
        keys = pa.schema([schema.field(name) for name in spec.partition_by])

        def dataset(files: list[str]) -> ds.Dataset:
            return ds.dataset(
                files,
                schema=schema,
                format="parquet",
                filesystem=filesystem,
                partitioning=ds.partitioning(keys, flavor="hive"),
                partition_base_dir=root,
            )

        for column, value in slice.items():
            wanted = ds.field(column) == value
            filters = wanted if filters is None else filters & wanted
        names = columns or spec.column_names
        parts = [dataset([path for path in paths if path not in kept]).to_table(columns=names, filter=filters)]
        for path in (path for path in paths if path in kept):
            mask, place = kept[path].values, 0
            for batch in dataset([path]).to_batches():  # in the order of the file
                keep = mask.slice(place, len(batch))  # it ends with the last deleted row
                keep = pa.concat_arrays([keep, pa.repeat(True, len(batch) - len(keep))])
                place += len(batch)
                parts.append(
                    ds.dataset(pa.Table.from_batches([batch.filter(keep)])).to_table(columns=names, filter=filters)
                )
        return pa.concat_tables(parts)

    def last_commit(self, spec: TableSpec, **slice: str) -> dict[str, Any] | None:
        """What the newest commit to a slice recorded with it; None where none did."""
        from deltalake import DeltaTable

        if not self.exists(spec):
            return None
        commits = DeltaTable(self._rust_location(spec)).history()
        return next((found for commit in commits if (found := _recorded(commit, slice)) is not None), None)

    def version(self, spec: TableSpec) -> int:
        """The table's newest version, -1 when it does not exist."""
        from deltalake import DeltaTable

        return DeltaTable(self._rust_location(spec)).version() if self.exists(spec) else -1

    def _rust_location(self, spec: TableSpec) -> str:
        return self.location(spec).replace("s3a://", "s3://", 1)

    def _commit(self, spec: TableSpec, write: Callable[[], Any], slice: dict[str, str], since: int | None) -> int:
        """Run a write of one commit under the table's lock, and return the rows it wrote."""
        with self._lock(spec):
            self._prepare(spec)
            before = self.version(spec)
            if since is None:
                _retried(write)
            else:
                # The rows were worked out from what was read: a conflict is no reason to write them once more.
                self._refuse_moved(spec, slice, since)
                try:
                    write()
                except _conflicts() as conflict:
                    raise SliceMoved(f"{spec.name} {slice} was written by another process meanwhile") from conflict
            return self._rows_written(spec, before)

    def _refuse_moved(self, spec: TableSpec, slice: dict[str, str], since: int) -> None:
        from deltalake import DeltaTable

        table = DeltaTable(self._rust_location(spec))
        for commit in table.history(max(table.version() - since, 0) or None):
            if commit["version"] > since and _recorded(commit, slice) is not None:
                raise SliceMoved(
                    f"{spec.name} {slice} was written by another process (version {commit['version']}) after it was "
                    f"read at version {since}"
                )

    def _rows_written(self, spec: TableSpec, before: int) -> int:
        """Rows of the newest commit; 0 when the write made none."""
        from deltalake import DeltaTable

        table = DeltaTable(self._rust_location(spec))
        if table.version() == before:
            return 0
        metrics = table.history(1)[0].get("operationMetrics", {})
        merged = ("numTargetRowsInserted", "numTargetRowsUpdated")
        return sum(int(metrics.get(name, 0)) for name in (("numOutputRows",) if "numOutputRows" in metrics else merged))

    @contextmanager
    def _lock(self, spec: TableSpec) -> Iterator[None]:
        if not self.is_local:
            yield
            return
        folder = Path(self.root.removeprefix("file://")) / ".locks"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{spec.name}.lock"):
            yield


def _files(table: DeltaTable, slice: Mapping[str, str]) -> list[dict[str, Any]]:
    """What the log says of a slice's files."""
    import pyarrow as pa

    return [
        file
        for file in pa.table(table.get_add_actions(flatten=True)).to_pylist()
        if all(file[f"partition.{column}"] == value for column, value in slice.items())
    ]


def fingerprint(frame: DataFrame) -> str:
    """A content hash of a frame, whatever the order of its rows.

    Row count and the xor of 64-bit row hashes: rows are unique by their table's key, so none cancel out.
    """
    return fingerprint_of(frame.agg(*fingerprint_figures(*frame.columns)).collect()[0])


def fingerprint_figures(*columns: Column | str) -> list[Column]:
    """What `fingerprint` works out of a frame's rows, to be aggregated together with other figures."""
    from pyspark.sql import functions as F

    return [F.count("*").alias("rows"), F.bit_xor(F.xxhash64(*columns)).alias("xor")]


def fingerprint_of(figures: Row) -> str:
    """The content hash of a row that has the `fingerprint_figures`."""
    return f"{figures['rows']}-{(figures['xor'] or 0) & (2**64 - 1):016x}"


def _conflicts() -> tuple[type[Exception], ...]:
    """What Delta raises when another writer was quicker."""
    # They share no public base class; importing the module is what makes PySpark raise them.
    import delta.exceptions as conflicts

    return (
        conflicts.ConcurrentAppendException,
        conflicts.ConcurrentDeleteReadException,
        conflicts.ConcurrentDeleteDeleteException,
        conflicts.ConcurrentWriteException,
        conflicts.ConcurrentTransactionException,
        conflicts.MetadataChangedException,
        conflicts.ProtocolChangedException,
    )


def _retried(write: Callable[[], Any]) -> None:
    """Run a Delta write, again after a conflict with another writer."""
    retryable = _conflicts()
    for attempt in range(1, COMMIT_TRIES + 1):
        try:
            write()
            return
        except retryable:
            if attempt == COMMIT_TRIES:
                raise
            time.sleep(random.uniform(0, 2**attempt))


def _conform(spec: TableSpec, frame: DataFrame, slice: Mapping[str, str]) -> DataFrame:
    """A frame with exactly the table's columns in their order, the slice's values filled in."""
    from pyspark.sql import functions as F

    for column, value in slice.items():
        frame = frame.withColumn(column, F.lit(value))
    missing = set(spec.column_names) - set(frame.columns)
    extra = set(frame.columns) - set(spec.column_names)
    if missing or extra:
        raise ValueError(f"a frame for {spec.name!r} lacks {sorted(missing)} and has unknown {sorted(extra)}")
    return frame.select([F.col(c.name).cast(c.type) for c in spec.columns])


def _condition(spec: TableSpec, slice: Mapping[str, str], prefix: str = "") -> str:
    """SQL that picks a slice; its values are checked to be plain keys, or ids made of such joined by '+'."""
    if set(slice) != set(spec.partition_by):
        raise ValueError(f"a slice of {spec.name!r} needs exactly {spec.partition_by}, not {tuple(slice)}")
    for column, value in slice.items():
        for part in value.split("+"):
            check_key(column, part)
    return " AND ".join(f"{prefix}{column} = '{value}'" for column, value in slice.items())


def _user_metadata(slice: Mapping[str, str], metadata: Mapping[str, Any]) -> str:
    return json.dumps({"slice": dict(slice), **metadata}, sort_keys=True)


def _recorded(commit: Mapping[str, Any], slice: Mapping[str, str]) -> dict[str, Any] | None:
    """The metadata of a commit if it was to this slice."""
    try:
        found = json.loads(commit.get("userMetadata") or "null")
    except ValueError:  # somebody else's
        return None
    return found if isinstance(found, dict) and found.get("slice") == dict(slice) else None


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def spool_dir(state: Path, name: str) -> Path:
    """An empty scratch folder of this process alone under the state folder, for data on its way into a table.

    What processes of this machine that were killed left behind under the same name is taken away.
    """
    import shutil

    root = state / "spool"
    for left in root.glob(f"{name}-{_host()}-*"):
        if is_left_behind(left):
            shutil.rmtree(left, ignore_errors=True)
    folder = root / f"{name}-{_host()}-{identity()}-{uuid.uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    return folder


def is_left_behind(folder: Path) -> bool | None:
    """Whether a scratch folder is of a process that was killed; None where another machine alone can tell.

    A folder of a former version does not name its machine: it is taken for one of this.
    """
    if named := _SPOOL.fullmatch(folder.name):
        return not is_there(named["process"]) if named["host"] == _host() else None
    former = _FORMER_SPOOL.fullmatch(folder.name)
    return former is not None and not is_running(int(former["pid"]))


def _host() -> str:
    """This machine's name, as part of a file name that '-' divides."""
    return re.sub(r"[^A-Za-z0-9]", "_", socket.gethostname())
