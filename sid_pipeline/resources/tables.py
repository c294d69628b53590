"""Reading and writing the Delta tables of `schemas`.

Writes go through Spark, one commit each: `replace` swaps a partition slice, `append` adds rows. `arrow` reads a
slice without Spark, for the command line and small look-ups. What does not belong here: what a table means.

On a local disk Delta does not exclude two writers in two processes, so every write there holds one OS lock per
table; object stores have Delta's own log store.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from filelock import FileLock

from sid_pipeline.schemas import TableSpec
from sid_pipeline.settings import check_key

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

COMMIT_TRIES = 5


class MissingSlice(LookupError):
    """A table or slice that is needed does not exist."""


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

    def read(self, spec: TableSpec, **slice: str) -> DataFrame:
        """A slice as a Spark DataFrame, its slice columns dropped.

        Raises:
            MissingSlice: the table was never written.
        """
        if not self.exists(spec):
            raise MissingSlice(f"table {spec.name!r} does not exist yet")
        frame = self.spark.read.format("delta").load(self.location(spec))
        for column, value in slice.items():
            frame = frame.where(frame[column] == value)
        return frame.drop(*slice)

    def replace(self, spec: TableSpec, frame: DataFrame, **slice: str) -> int:
        """Replace one slice in one commit and return its number of rows.

        `frame` holds the table's columns without the slice's; `slice` names every partition column.
        """
        if set(slice) != set(spec.partition_by):
            raise ValueError(f"a slice of {spec.name!r} needs exactly {spec.partition_by}, not {tuple(slice)}")
        condition = " AND ".join(f"{column} = '{check_key(column, value)}'" for column, value in slice.items())
        options = {"replaceWhere": condition} if condition else {}
        return self._write(spec, frame, "overwrite", slice, options)

    def append(self, spec: TableSpec, frame: DataFrame, **slice: str) -> int:
        """Append rows in one commit and return their number."""
        return self._write(spec, frame, "append", slice, {})

    def create(self, spec: TableSpec) -> None:
        """Create a table with its comments and constraints; an existing one is left alone."""
        columns = ", ".join(
            f"`{c.name}` {c.type}{'' if c.nullable else ' NOT NULL'} COMMENT {_quote(c.description)}"
            for c in spec.columns
        )
        partition = f"PARTITIONED BY ({', '.join(spec.partition_by)})" if spec.partition_by else ""
        self.spark.sql(
            f"CREATE TABLE IF NOT EXISTS delta.`{self.location(spec)}` ({columns}) USING delta {partition} "
            f"COMMENT {_quote(spec.description)}"
        )

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
            self.spark.sql(f"ALTER TABLE delta.`{self.location(spec)}` ADD COLUMNS ({columns})")

    def fingerprint(self, spec: TableSpec, columns: list[str], **slice: str) -> str:
        """A content hash of some columns of a slice, whatever the order of its rows."""
        return fingerprint(self.read(spec, **slice).select(*columns))

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
        log = pa.table(DeltaTable(self._rust_location(spec)).get_add_actions())
        paths = [f"{root}/{unquote(path)}" for path in log["path"].to_pylist()]
        if not paths:
            return schema.empty_table().select(columns or spec.column_names)
        keys = pa.schema([schema.field(name) for name in spec.partition_by])
        dataset = ds.dataset(
            paths,
            schema=schema,
            format="parquet",
            filesystem=filesystem,
            partitioning=ds.partitioning(keys, flavor="hive"),
            partition_base_dir=root,
        )
        for column, value in slice.items():
            wanted = ds.field(column) == value
            filters = wanted if filters is None else filters & wanted
        return dataset.to_table(columns=columns or spec.column_names, filter=filters)

    def version(self, spec: TableSpec) -> int:
        """The table's newest version, -1 when it does not exist."""
        from deltalake import DeltaTable

        return DeltaTable(self._rust_location(spec)).version() if self.exists(spec) else -1

    def _rust_location(self, spec: TableSpec) -> str:
        return self.location(spec).replace("s3a://", "s3://", 1)

    def _write(
        self, spec: TableSpec, frame: DataFrame, mode: str, slice: dict[str, str], options: dict[str, str]
    ) -> int:
        from pyspark.sql import functions as F

        for column, value in slice.items():
            frame = frame.withColumn(column, F.lit(value))
        missing = set(spec.column_names) - set(frame.columns)
        extra = set(frame.columns) - set(spec.column_names)
        if missing or extra:
            raise ValueError(f"a frame for {spec.name!r} lacks {sorted(missing)} and has unknown {sorted(extra)}")
        frame = frame.select([F.col(c.name).cast(c.type) for c in spec.columns])
        with self._lock(spec):
            self._prepare(spec)
            before = self.version(spec)
            writer = frame.write.format("delta").mode(mode).options(**options)
            _commit(lambda: writer.save(self.location(spec)))
            return self._rows_written(spec, before)

    def _rows_written(self, spec: TableSpec, before: int) -> int:
        """Rows of the newest commit; 0 when the write made none."""
        from deltalake import DeltaTable

        table = DeltaTable(self._rust_location(spec))
        if table.version() == before:
            return 0
        metrics = table.history(1)[0].get("operationMetrics", {})
        return int(metrics.get("numOutputRows", 0))

    @contextmanager
    def _lock(self, spec: TableSpec) -> Iterator[None]:
        if not self.is_local:
            yield
            return
        folder = Path(self.root.removeprefix("file://")) / ".locks"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{spec.name}.lock"):
            yield


def fingerprint(frame: DataFrame) -> str:
    """A content hash of a frame, whatever the order of its rows.

    Row count and the xor of 64-bit row hashes: rows are unique by their table's key, so none cancel out.
    """
    from pyspark.sql import functions as F

    hashed = F.xxhash64(*[F.col(column) for column in frame.columns])
    row = frame.agg(F.count("*").alias("n"), F.bit_xor(hashed).alias("x")).collect()[0]
    return f"{row['n']}-{(row['x'] or 0) & (2**64 - 1):016x}"


def _commit(write: Callable[[], Any]) -> None:
    """Run a Delta write, again after a conflict with another writer."""
    # They share no public base class; importing the module is what makes PySpark raise them.
    import delta.exceptions as conflicts

    retryable = (
        conflicts.ConcurrentAppendException,
        conflicts.ConcurrentDeleteReadException,
        conflicts.ConcurrentDeleteDeleteException,
        conflicts.ConcurrentWriteException,
        conflicts.ConcurrentTransactionException,
        conflicts.MetadataChangedException,
        conflicts.ProtocolChangedException,
    )
    for attempt in range(1, COMMIT_TRIES + 1):
        try:
            write()
            return
        except retryable:
            if attempt == COMMIT_TRIES:
                raise
            time.sleep(random.uniform(0, 2**attempt))


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def spool_dir(state: Path, name: str) -> Path:
    """An empty scratch folder under the state folder, for data on its way into a table."""
    import shutil

    folder = state / "spool" / f"{name}-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
