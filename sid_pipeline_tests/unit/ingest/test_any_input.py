"""Any bytes, any rows, any settings: a sentence or a result, never a traceback, and no good row is lost.

`SID_EXAMPLES=20000 pytest FILE` gives each property that many examples instead of its few.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sid_pipeline.ingest.columns import offer_fields, product_fields
from sid_pipeline.ingest.errors import InputError
from sid_pipeline.ingest.readers import records
from sid_pipeline.ingest.records import Record
from sid_pipeline.ingest.source_files import check_content, find_source
from sid_pipeline.relevance.labels import LabelError, read_labels
from sid_pipeline.settings import ColumnMap, OfferColumnMap, Settings, SettingsError, SourceSettings, load_settings
from sid_pipeline.taxonomy.sources import read_taxonomy
from sid_pipeline.taxonomy.tree import TaxonomyError

EXAMPLES = int(os.environ.get("SID_EXAMPLES", "0"))
MEMORY = fsspec.filesystem("memory")
FIELDS = product_fields(ColumnMap())
HEADER = "product_id,title,brand,size,description,price,category\n"


def budget(few: int) -> settings:
    """So many examples, or as many as the environment asks for."""
    return settings(
        max_examples=EXAMPLES or few,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def read(name: str, data: bytes, fields: Any = FIELDS, **source: Any) -> list[Record]:
    """The rows of a file as the nightly reader takes them, the checks of its content included."""
    MEMORY.pipe_file(f"/any/{name}", data)
    wanted = SourceSettings(products=f"memory://any/{name}", **source)
    found = find_source(wanted.products, wanted.format)
    rows: list[Record] = []
    for file in found.files:
        check_content(found, file, wanted.encoding)
        rows += records(found, file, wanted, fields, "source.columns")
    return rows


def look_sane(rows: list[Record], slots: int) -> None:
    assert [row.row for row in rows] == list(range(1, len(rows) + 1))
    for row in rows:
        assert len(row.message) > 20 if row.rule else len(row.values) == slots
        for value in row.values:
            assert value is None or value.encode("utf-8") is not None


PIECES = [
    "product_id", "title", ",", ";", "\t", '"', '""', "\n", "\r\n", "\r", "\0", "\ufeff", "a", "é", "1", " ", "\\", "{",
    "}", "[", "]", ":", "null", "true", "1e999", "\\ud800", "\\u0000", '{"product_id": "1", "title": "x"}', "\x85",
    "\u2028",
]  # fmt: skip
SOUP = st.lists(st.sampled_from(PIECES), max_size=40).map(lambda parts: "".join(parts).encode())
BYTES = st.one_of(st.binary(max_size=200), SOUP, st.tuples(SOUP, st.binary(max_size=20), SOUP).map(b"".join))
ENCODINGS = st.sampled_from(["utf-8-sig", "utf-8", "cp1252", "latin-1", "utf-16", "shift_jis", "ascii"])


@given(
    data=BYTES, head=st.booleans(), ending=st.sampled_from([".csv", ".tsv", ".jsonl", ".csv.gz", ".json.gz"]),
    packed=st.booleans(), cut=st.integers(0, 60), encoding=ENCODINGS, delimiter=st.sampled_from(",;\t|"),
)  # fmt: skip
@budget(300)
def test_any_file_is_rows_or_one_sentence(data, head, ending, packed, cut, encoding, delimiter):
    data = (HEADER.encode() if head else b"") + data
    if packed and ending.endswith(".gz"):
        data = gzip.compress(data, 1)
        data = data[: len(data) - cut] if cut < 30 else data
    try:
        rows = read(f"any{ending}", data, encoding=encoding, delimiter=delimiter)
    except InputError as error:
        assert len(str(error)) > 20
    else:
        look_sane(rows, 7)


TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12
).filter(lambda text: text.strip() and not text.startswith("\ufeff"))  # fmt: skip
GOOD = st.tuples(TEXT, st.lists(TEXT | st.just(""), min_size=5, max_size=5))
BAD_LINES = [
    b"B1,too few\n",
    b"B2,a,b,c,d,1,e,f,g\n",
    b"B3,\xff\xfe,,,,,\n",
    b"B4,nul\0,,,,,\n",
    b'B5,"t"x,,,,,\n',
    b"\xe9\n",
]


def csv_line(row: list[str]) -> bytes:
    out = io.StringIO()
    # Before Python 3.13 the writer does not quote a lone carriage return, which ends a line.
    quoting = csv.QUOTE_ALL if "\r" in "".join(row) else csv.QUOTE_MINIMAL
    csv.writer(out, lineterminator="\n", quoting=quoting).writerow(row)
    return out.getvalue().encode()


@given(st.lists(st.one_of(GOOD, st.sampled_from(BAD_LINES)), min_size=1, max_size=12))
@budget(300)
def test_no_good_row_of_csv_is_lost_to_bad_ones(rows):
    good, lines = {}, []
    for number, row in enumerate(rows):
        if isinstance(row, bytes):
            lines.append(row)
        else:
            good[f"P{number}"] = [row[0], *row[1]]
            lines.append(csv_line([f"P{number}", *good[f"P{number}"]]))
    found = read("good.csv", HEADER.encode() + b"".join(lines))
    look_sane(found, 7)
    kept = {row.values[0]: list(row.values[1:]) for row in found if not row.rule}
    # The reader's order of fields is the table's: product_id, title, brand, size, description, price, category.
    assert kept == good
    assert len(found) == len(rows)


def test_a_quotation_mark_that_is_never_closed_costs_one_row():
    lines = [csv_line([f"P{n}", "plain", "", "", "", "", ""]) for n in range(50)]
    lines.insert(7, b'B,"open,,,,,\n')
    found = read("open.csv", HEADER.encode() + b"".join(lines))
    assert sum(not row.rule for row in found) == 50 and sum(bool(row.rule) for row in found) == 1


BAD_JSON = [
    b"{",
    b"[1]\n",
    b'{"product_id": {"a": 1}, "title": "x"}\n',
    b'{"product_id": "B", "title": "\\ud800"}\n',
    b"\xff\n",
]
JSON_VALUE = st.one_of(st.none(), TEXT, st.integers(), st.floats(), st.booleans(), st.lists(TEXT, max_size=3),
                       st.dictionaries(TEXT, TEXT, max_size=2))  # fmt: skip


@given(st.lists(st.one_of(st.tuples(TEXT, JSON_VALUE, JSON_VALUE), st.sampled_from(BAD_JSON)), min_size=1, max_size=12))
@budget(300)
def test_no_good_row_of_json_lines_is_lost_to_bad_ones(rows):
    good, lines = {}, [b'{"product_id": "first", "title": "t"}\n']
    for number, row in enumerate(rows):
        if isinstance(row, bytes):
            lines.append(row.rstrip(b"\n") + b"\n")
        else:
            good[f"P{number}"] = row[0]
            record = {"product_id": f"P{number}", "title": row[0], "brand": row[1], "category": row[2]}
            lines.append(json.dumps(record, ensure_ascii=number % 2 == 0).encode() + b"\n")
    found = read("good.jsonl", b"".join(lines))
    look_sane(found, 7)
    assert {row.values[0]: row.values[1] for row in found if not row.rule} == {"first": "t", **good}
    assert len(found) == len(lines)


@given(BYTES, st.sampled_from(["offers.csv", "offers.jsonl"]))
@budget(100)
def test_any_offers_are_rows_or_one_sentence(data, name):
    try:
        look_sane(read(name, b"product_id,retailer_id\n" + data, offer_fields(OfferColumnMap())), 4)
    except InputError as error:
        assert len(str(error)) > 20


@given(
    BYTES, st.sampled_from(["", "node_id,parent_id,name\n", "path,category_id\n"]), st.sampled_from([".csv", ".txt"])
)
@budget(150)
def test_any_taxonomy_is_a_tree_or_one_sentence(data, head, ending):
    MEMORY.pipe_file(f"/any/tree{ending}", head.encode() + data)
    try:
        tree = read_taxonomy(f"memory://any/tree{ending}")
    except TaxonomyError as error:
        assert len(str(error)) > 20
    else:
        assert tree.nodes


@given(BYTES, BYTES)
@budget(100)
def test_any_labels_are_pairs_or_one_sentence(tmp_path_factory, examples, products):
    folder = tmp_path_factory.getbasetemp() / "labels"
    folder.mkdir(exist_ok=True)
    (folder / "e.csv").write_bytes(b"query,product_id,esci_label,product_locale\nmilk,1,E,us\n" + examples)
    (folder / "p.csv").write_bytes(b"product_id,product_title,product_locale\n1,Milk,us\n" + products)
    try:
        labels = read_labels(folder / "e.csv", folder / "p.csv", "us")
    except LabelError as error:
        assert len(str(error)) > 20
    else:
        assert len(labels.pairs) or labels.bad


def names(model: Any) -> list[str]:
    return sorted(model.model_fields)


VALUE = st.recursive(
    st.one_of(st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.dates(),
              st.sampled_from(["products", "csv", "r1", "3g", "UTC", "../..", "", "rules", "local[*]", "nan"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3), max_leaves=6,
)  # fmt: skip


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Settings whose names are mostly right and whose values are anything."""
    document: dict[str, Any] = {"source": {"products": "p.csv"}}
    for section in draw(st.lists(st.sampled_from(names(Settings)) | st.text(max_size=6), max_size=3)):
        kind = Settings.model_fields[section].annotation if section in Settings.model_fields else None
        inside = names(kind) if hasattr(kind, "model_fields") else ["esci", "x", "steps"]
        value = draw(
            st.one_of(VALUE, st.dictionaries(st.sampled_from(inside) | st.text(max_size=5), VALUE, max_size=3))
        )
        document[section] = value
    return document


def toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(k))} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value).replace("\\u007f", "\x7f")
    return str(value)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("settings") / "sid.toml"


VARIABLES = ["SID_REPORT__SAMPLE", "SID_X", "SID_SOURCE", "SID_A__B__C", "SID__", "SID_SPARK__CONF__A",
             "SID_ALERTS__WEBHOOK"]  # fmt: skip


@given(documents(), st.dictionaries(st.sampled_from(VARIABLES), st.text(max_size=8), max_size=2))
@budget(200)
def test_any_settings_are_settings_or_all_faults_in_one_message(file, document, env):
    file.write_text("\n".join(f"{json.dumps(k)} = {toml(v)}" for k, v in document.items()), encoding="utf-8")
    loads(file, env)


@given(st.one_of(st.binary(max_size=100), st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace"))))
@budget(200)
def test_any_bytes_as_settings_are_one_message(file, data):
    file.write_bytes(b'[source]\nproducts = "p"\n' + data)
    loads(file, {})


def loads(file: Path, env: dict[str, str]) -> None:
    try:
        load_settings(file, env=env)
    except SettingsError as error:
        assert len(str(error)) > 20
