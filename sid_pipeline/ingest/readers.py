"""From a location to one raw Spark frame of text columns, whatever the format.

CSV and JSON Lines are read by Python on the driver, because only there a bad row can be told from its
neighbours and named by its number; what is good goes in batches into a Parquet spool that Spark reads.
Parquet and Delta are read by Spark itself. What does not belong here: rules about products or offers.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sid_pipeline.ingest.columns import Field, resolve
from sid_pipeline.ingest.errors import InputError
from sid_pipeline.ingest.records import (
    LIST_SEPARATOR,
    NEVER_NESTED,
    RAW_CHARS,
    Record,
    csv_rows,
    decode,
    json_rows,
    printable,
)
from sid_pipeline.ingest.source_files import Source, SourceFile, check_content, find_source, open_checked
from sid_pipeline.ingest.text import float_text
from sid_pipeline.settings import SourceSettings

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame, SparkSession
    from pyspark.sql.types import DataType

log = logging.getLogger(__name__)

BATCH_ROWS = 50_000
BATCH_CHARS = 64 << 20
LOG_ROWS = 500_000
IDS = {"product_id", "retailer_id"}


@dataclass(frozen=True)
class RawFrame:
    """A source's rows as text, before any rule about their meaning.

    frame: source_file, source_row, raw (the row as it came, at most 2,000 characters), bad_text (names of
        columns whose bytes are no text; null or empty where all are), and one text column per slot of the
        fields that the source has.
    unparsable: source_file, source_row, product_id, rule, message, raw of rows that could not be read at all.
    rows: data rows of the source, both kinds together.
    """

    frame: DataFrame
    unparsable: DataFrame
    rows: int


def read_raw(
    spark: SparkSession,
    source: SourceSettings,
    location: str,
    fields: Sequence[Field],
    spool: Path,
    kind: str,
) -> RawFrame:
    """Read `location` into a raw frame.

    Args:
        fields: what is wanted of it.
        spool: folder that `kind`/ is written under for CSV and JSON Lines; Spark must be able to read it, and
            it must stay until the frame has been used.
        kind: `products` or `offers`, which names the settings in messages.

    Raises:
        InputError: see the package's docstring.
    """
    section = "source.columns" if kind == "products" else "source.offer_columns"
    found = find_source(location, source.format, f"[source] {kind}")
    for file in found.files:
        check_content(found, file, source.encoding)
    if found.format == "delta":
        raw = _read_delta(spark, found, fields, section)
    elif found.format == "parquet":
        raw = _read_parquet(spark, found, fields, section)
    else:
        rows = _spool(found, source, fields, spool / kind, section)
        folder = str(spool / kind)
        raw = RawFrame(spark.read.parquet(f"{folder}/rows"), spark.read.parquet(f"{folder}/unparsable"), rows)
    if not raw.rows:
        raise InputError(f"{location} holds no rows, at most a header. Write it again, or mend [source] {kind}.")
    return raw


# --- CSV and JSON Lines: Python on the driver ---


class SpoolWriter:
    """Rows of text into one Parquet file, a row group per batch, in bounded memory."""

    def __init__(self, folder: Path, schema: pa.Schema, normalise: Sequence[str] = ()) -> None:
        import pyarrow.parquet as pq

        folder.mkdir(parents=True)
        self._schema, self._normalise = schema, set(normalise)
        self._writer = pq.ParquetWriter(folder / "part-0.parquet", schema, compression="zstd", compression_level=1)
        self._rows: list[tuple[Any, ...]] = []
        self._chars = 0

    def add(self, row: tuple[Any, ...], chars: int) -> None:
        """Add a row of about `chars` characters."""
        self._rows.append(row)
        self._chars += chars
        if len(self._rows) >= BATCH_ROWS or self._chars >= BATCH_CHARS:
            self._flush()

    def close(self) -> None:
        """Write what is left; an empty spool is a file with a schema and no rows."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        if not self._rows:
            return
        arrays = []
        for field, values in zip(self._schema, zip(*self._rows, strict=True), strict=True):
            array = pa.array(values, field.type)
            arrays.append(pc.utf8_normalize(array, form="NFC") if field.name in self._normalise else array)
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._rows, self._chars = [], 0


def _spool(source: Source, settings: SourceSettings, fields: Sequence[Field], folder: Path, section: str) -> int:
    """Write good rows to folder/rows, faulty ones to folder/unparsable; return the number of both."""
    import pyarrow as pa

    shutil.rmtree(folder, ignore_errors=True)
    slots = _slots(fields)
    start = [pa.field("source_file", pa.string()), pa.field("source_row", pa.int64())]
    texts = [pa.field(name, pa.string()) for name in ("raw", "bad_text", *slots)]
    faults = [pa.field(name, pa.string()) for name in ("product_id", "rule", "message", "raw")]
    good = SpoolWriter(folder / "rows", pa.schema(start + texts), [slot for slot in slots if slot not in IDS])
    bad = SpoolWriter(folder / "unparsable", pa.schema(start + faults))
    total, faulty, first_fault = 0, 0, ""
    try:
        for file in source.files:
            for record in records(source, file, settings, fields, section):
                total += 1
                if total % LOG_ROWS == 0:
                    log.info("%s: %d rows read", source.location, total)
                raw = printable(record.raw)
                if record.rule:
                    faulty += 1
                    first_fault = first_fault or record.message
                    bad.add((file.name, record.row, None, record.rule, record.message, raw), len(raw))
                else:
                    good.add((file.name, record.row, raw, None, *record.values), len(record.raw) + len(raw))
    finally:
        good.close()
        bad.close()
    if faulty and faulty == total:
        raise InputError(f"No rows left: none of the {total} rows of {source.location} can be read. {first_fault}")
    return total


def _slots(fields: Sequence[Field]) -> list[str]:
    return [slot for field in fields for slot in field.slots]


def records(
    source: Source, file: SourceFile, settings: SourceSettings, fields: Sequence[Field], section: str
) -> Iterator[Record]:
    """The data rows of one CSV or JSON Lines file; a good row's values are the fields' slots, in order.

    Raises:
        InputError: a needed column is missing, or the header or the compression is broken.
    """
    where = source.where(file)
    with open_checked(source, file) as stream:
        lines = decode(stream, settings.encoding)
        try:
            if source.format == "jsonl":
                yield from _json_records(lines, settings, fields, where, section)
            else:
                yield from _csv_records(lines, delimiter(settings, file), settings, fields, where, section)
        except UnicodeError as error:  # of the encoding as a whole: what is wrong with one line is that row's fault
            raise InputError(
                f"{where} is not written in {settings.encoding} ({error}): set [source] encoding to the one it has."
            ) from error


def delimiter(settings: SourceSettings, file: SourceFile) -> str:
    """The mark between a file's fields: a tab where its name ends in .tsv and no setting says otherwise."""
    tabs = file.path.lower().removesuffix(".gz").endswith(".tsv") and "delimiter" not in settings.model_fields_set
    return "\t" if tabs else settings.delimiter


def _csv_records(
    lines: Iterator[str],
    delimiter: str,
    settings: SourceSettings,
    fields: Sequence[Field],
    where: str,
    section: str,
) -> Iterator[Record]:
    rows = csv_rows(lines, delimiter, settings.encoding)
    header = next(rows, None)
    if header is None:
        return
    if header.rule:
        raise InputError(f"The header of {where} cannot be read: {header.message}")
    available = [name.strip() for name in header.values if name is not None]
    found = resolve(fields, available, where, section)
    slots = _slots(fields)
    places = [available.index(found[slot]) if slot in found else None for slot in slots]
    for record in rows:
        if record.rule:
            yield record
        else:
            values = record.values
            yield record._replace(values=[None if place is None else values[place] for place in places])


def _json_records(
    lines: Iterator[str], settings: SourceSettings, fields: Sequence[Field], where: str, section: str
) -> Iterator[Record]:
    wanted = {slot: name for field in fields for slot, name in zip(field.slots, field.columns, strict=True)}
    seen: set[str] = set()
    yield from json_rows(lines, wanted, seen, settings.encoding)
    if seen:
        resolve(fields, sorted(seen), where, section)


# --- Parquet and Delta: Spark ---


def _read_parquet(spark: SparkSession, source: Source, fields: Sequence[Field], section: str) -> RawFrame:
    """One read per schema among the files, so that files whose columns changed type can lie in one folder."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyspark.sql import functions as F

    rows = 0
    groups: dict[tuple[tuple[str, str], ...], list[SourceFile]] = {}
    for file in source.files:
        try:
            with source.file_system.open(file.path, "rb") as stream:
                footer = pq.read_metadata(stream)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{source.where(file)} is damaged ({error}). Write or copy it again.") from error
        schema = footer.schema.to_arrow_schema()
        found = resolve(fields, schema.names, source.where(file), section)
        rows += footer.num_rows
        key = tuple((slot, str(schema.field(name).type)) for slot, name in found.items())
        groups.setdefault(key, []).append(file)
    base = source.base.rstrip("/") + "/"
    path = F.expr("url_decode(replace(_metadata.file_path, '+', '%2B'))")
    name = F.substr(path, F.instr(path, base) + F.lit(len(base)))
    frames = []
    for files in groups.values():
        frame = spark.read.parquet(*(source.spark_path(file) for file in files))
        found = resolve(fields, frame.columns, source.location, section)
        frames.append(_text_frame(frame, fields, found, name, F.col("_metadata.row_index") + 1, source.location))
    union = reduce(lambda left, right: left.unionByName(right, allowMissingColumns=True), frames)
    return RawFrame(union, _no_faults(spark), rows)


def _read_delta(spark: SparkSession, source: Source, fields: Sequence[Field], section: str) -> RawFrame:
    from pyspark.errors import AnalysisException
    from pyspark.sql import functions as F

    try:
        # The frame stays at the version that is newest now, whatever is written meanwhile.
        frame = spark.read.format("delta").load(source.location)
    except AnalysisException as error:
        raise InputError(f"{source.location} cannot be read as a Delta table: {error.getMessage()}") from error
    found = resolve(fields, frame.columns, source.location, section)
    name = F.expr("url_decode(replace(_metadata.file_name, '+', '%2B'))")
    text = _text_frame(frame, fields, found, name, F.monotonically_increasing_id() + 1, source.location)
    return RawFrame(text, _no_faults(spark), frame.count())


def _no_faults(spark: SparkSession) -> DataFrame:
    columns = "product_id string, rule string, message string, raw string"
    return spark.createDataFrame([], f"source_file string, source_row bigint, {columns}")


def _text_frame(
    frame: DataFrame, fields: Sequence[Field], found: Mapping[str, str], name: Column, row: Column, where: str
) -> DataFrame:
    """The raw frame of a typed one: each mapped column cast to text and put into Unicode's NFC."""
    from pyspark.sql import functions as F

    nfc = _nfc()
    texts: dict[str, Column] = {}
    raw: dict[str, Column] = {}
    faults = []
    for field in fields:
        for slot in field.slots:
            if slot in found:
                source = found[slot]
                text = _as_text(frame, source, slot, where)
                faults.append(F.when(~F.is_valid_utf8(text), F.lit(source)))
                raw[source] = F.try_validate_utf8(text)
                texts[slot] = raw[source] if slot in IDS else nfc(raw[source])
    return frame.select(
        name.alias("source_file"),
        row.alias("source_row"),
        F.substring(F.to_json(F.struct(*(text.alias(source) for source, text in raw.items()))), 1, RAW_CHARS).alias(
            "raw"
        ),
        F.concat_ws(", ", *faults).alias("bad_text"),
        *(text.alias(slot) for slot, text in texts.items()),
    )


def _nfc() -> Any:
    import pyarrow as pa
    from pyspark.sql import functions as F

    # Nested, so that it is pickled whole and executors need not have the project installed.
    def normalise(text: Any) -> Any:
        import pyarrow.compute as pc

        return pc.utf8_normalize(text, form="NFC")

    # The types tell Spark which kind of function it is; as text they could not be found at run time.
    normalise.__annotations__ = {"text": pa.Array, "return": pa.Array}
    return F.arrow_udf(normalise, "string")  # type: ignore[call-overload]


def _as_text(frame: DataFrame, name: str, slot: str, where: str) -> Column:
    """A typed column as text.

    Raises:
        InputError: it is nested; only a list of plain values is text, and not for an id or a title.
    """
    from pyspark.sql import functions as F
    from pyspark.sql import types as T

    kind = frame.schema[name].dataType
    column = F.col(f"`{name.replace('`', '``')}`")
    if isinstance(kind, T.ArrayType) and slot not in NEVER_NESTED and not _is_nested(kind.elementType):
        if slot == "category":
            return F.concat(F.lit(LIST_SEPARATOR), F.array_join(column.cast("array<string>"), LIST_SEPARATOR))
        return F.array_join(column.cast("array<string>"), " ")
    if _is_nested(kind):
        raise InputError(
            f"{where}: the column {name!r} for the {slot} is of type {kind.simpleString()}, which is no "
            "text. Map a column of text, or write it as text."
        )
    if isinstance(kind, (T.FloatType, T.DoubleType)):
        return float_text(column)
    return column.cast("string")


def _is_nested(kind: DataType) -> bool:
    from pyspark.sql import types as T

    return isinstance(kind, (T.ArrayType, T.MapType, T.StructType, T.VariantType))
