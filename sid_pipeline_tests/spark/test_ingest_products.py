"""Products from files of every format: each kind of bad input costs what it must and no more."""

from __future__ import annotations

import gzip
import hashlib
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sid_pipeline.ingest.errors import InputError
from sid_pipeline.ingest.judging import Ingested
from sid_pipeline.ingest.products import read_products
from sid_pipeline.ingest.source_files import fingerprint
from sid_pipeline.schemas import PRODUCTS, REJECTED_PRODUCTS
from sid_pipeline.settings import ColumnMap, SourceSettings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass
class Read:
    """What was read, collected; rows by their number."""

    ingested: Ingested
    accepted: dict[int, Any]
    rejected: dict[int, Any]

    def check_that_no_row_vanished(self) -> None:
        assert sorted([*self.accepted, *self.rejected]) == list(range(1, self.ingested.source_rows + 1))


def read(spark: SparkSession, location: Path, spool: Path, **options: Any) -> Read:
    settings = SourceSettings(products=str(location), **options)
    ingested = read_products(spark, settings, str(location), spool)
    accepted, rejected = ingested.accepted.collect(), ingested.rejected.collect()
    result = Read(ingested, {r.source_row: r for r in accepted}, {r.source_row: r for r in rejected})
    assert len(result.accepted) + len(result.rejected) == len(accepted) + len(rejected)
    return result


# Each line is a row; the names say what is special about it.
ROWS: dict[str, bytes] = {
    "good": b'p1,"  Whole \t Milk",Acme, 1 l ,"Fresh\nmilk",1.50,Food > Dairy > Milk',
    "no id": b" ,Tea,,,,,",
    "again": b"p1,Milk again,,,,,",
    "blank title": b"p2, \xc2\xa0\xe2\x80\x8b ,,,,,",
    "good after bad": b'p2,"Tea, green",,,,"2,75",Food > > Tea',
    "unclosed quote": b'p3,"Rum,,,,,',
    "emoji and accents": "p4,👨‍👩‍👧 Crème cafe\u0301 🍼,,,,£1'299,missing".encode(),
    "control characters": b"p5,\x01Sa\x7flt\x0b \xc2\xadfine,,,,EUR 3.20,Food > MISSING > Salt",
    "too few fields": b"p6,Bread",
    "megabyte": b"p7," + b"x" * (1 << 20) + b",,,,,",
    "other encoding": b"p8,K\xe4se,,,,,",
    "nul": b"p9,Nu\0ts,,,,,",
    "control character in id": b"p\x0110,Nuts,,,,,",
    "line break in id": b'"p\n11",Nuts,,,,,',
    "longest title": b"p12," + b"y" * 2000 + b',,,,"1,234.5",',
    "missing title": b"p13,,,,,,",
    "last": b"p14,Last,,,,nan,> >",
}
NUMBER = {name: number for number, name in enumerate(ROWS, start=1)}


@pytest.fixture(scope="module")
def messy(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Read:
    folder = tmp_path_factory.mktemp("messy")
    header = b"\xef\xbb\xbfproduct_id,title,brand,size,description,price,category\r\n"
    (folder / "products.csv.gz").write_bytes(gzip.compress(header + b"\n".join(ROWS.values())))
    return read(spark, folder / "products.csv.gz", folder / "spool")


def test_no_row_of_a_messy_file_vanishes(messy: Read) -> None:
    messy.check_that_no_row_vanished()
    assert messy.ingested.source_rows == len(ROWS)
    assert {name for name in ROWS if NUMBER[name] in messy.accepted} == {
        "good", "good after bad", "emoji and accents", "control characters", "longest title", "last",
    }  # fmt: skip


def test_columns_are_those_of_the_tables(messy: Read) -> None:
    assert messy.ingested.accepted.columns == PRODUCTS.column_names[1:]
    assert messy.ingested.rejected.columns == REJECTED_PRODUCTS.column_names[1:]
    types = dict(messy.ingested.accepted.dtypes)
    assert types == {column.name: column.type for column in PRODUCTS.columns[1:]}


def test_a_good_row_is_read_whole(messy: Read) -> None:
    row = messy.accepted[NUMBER["good"]]
    assert row.asDict() == {
        "product_id": "p1",
        "title": "Whole Milk",
        "brand": "Acme",
        "size": "1 l",
        "description": "Fresh\nmilk",
        "price": 1.5,
        "category": ["Food", "Dairy", "Milk"],
        "text_hash": hashlib.sha256(b"Whole Milk\x1fAcme\x1f1 l\x1fFresh\nmilk").hexdigest(),
        "source_file": "products.csv.gz",
        "source_row": 1,
    }


def test_emoji_and_accents_stay_and_control_characters_go(messy: Read) -> None:
    assert messy.accepted[NUMBER["emoji and accents"]].title == "👨‍👩‍👧 Crème café 🍼"
    assert messy.accepted[NUMBER["control characters"]].title == "Salt fine"


def test_categories_are_cut_at_missing_steps(messy: Read) -> None:
    categories = {name: messy.accepted[NUMBER[name]].category for name in ROWS if NUMBER[name] in messy.accepted}
    assert categories == {
        "good": ["Food", "Dairy", "Milk"],
        "good after bad": ["Food", "Tea"],
        "emoji and accents": None,
        "control characters": ["Food"],
        "longest title": None,
        "last": None,
    }


def test_a_price_that_is_no_number_is_left_out_and_listed(messy: Read) -> None:
    prices = {name: messy.accepted[NUMBER[name]].price for name in ROWS if NUMBER[name] in messy.accepted}
    assert prices == {
        "good": 1.5,
        "good after bad": 2.75,
        "emoji and accents": None,
        "control characters": 3.2,
        "longest title": 1234.5,
        "last": None,
    }
    ignored = {row.source_row: row for row in messy.ingested.ignored.collect()}
    assert set(ignored) == {NUMBER["emoji and accents"], NUMBER["last"]}
    row = ignored[NUMBER["last"]]
    assert (row.product_id, row.column, row.value) == ("p14", "price", "nan")
    assert row.message == "the price is no number: it was left out."


@pytest.mark.parametrize(
    ("name", "product_id", "rule", "message"),
    [
        ("no id", None, "missing_product_id", "the product_id is missing or blank"),
        ("again", "p1", "duplicate_product_id", "'p1' was already given by row 1 of products.csv.gz: remove"),
        ("blank title", "p2", "blank_title", "the title is missing or blank: give the product a name"),
        ("missing title", "p13", "blank_title", "the title is missing or blank"),
        ("unclosed quote", None, "unclosed_quote", "line 8 opens a quotation mark that is not closed"),
        ("too few fields", None, "wrong_number_of_fields", "has 2 fields where the header has 7"),
        ("megabyte", "p7", "title_too_long", "has 1048576 characters, allowed are 2000: shorten it"),
        ("other encoding", None, "bad_encoding", "byte 0xE4, which is not valid utf-8-sig: save the file"),
        ("nul", None, "nul_character", "holds a NUL character: remove it"),
        (
            "control character in id",
            "p\x0110",
            "control_character_in_product_id",
            "holds a control character",
        ),
        ("line break in id", "p\n11", "control_character_in_product_id", "perhaps a tab or a line break"),
    ],
)
def test_each_bad_row_says_what_to_mend(
    messy: Read, name: str, product_id: str | None, rule: str, message: str
) -> None:
    row = messy.rejected[NUMBER[name]]
    assert (row.rule, row.product_id, row.source_file) == (rule, product_id, "products.csv.gz")
    assert message in row.message
    assert len(row.raw) <= 2000
    assert row.raw[:2] == ROWS[name].decode("latin-1").lstrip("\x00")[:2]


def test_the_second_of_two_ids_is_good_when_the_first_row_is_bad(messy: Read) -> None:
    assert messy.accepted[NUMBER["good after bad"]].product_id == "p2"


def test_json_lines(spark: SparkSession, tmp_path: Path) -> None:
    text = (
        '{"id": 1, "name": "Tea", "path": ["Drinks", "Hot > cold"], "cost": 1.5, "maker": {"x": 1}}\n'
        '{"id": "1", "name": "Tea again"}\n'
        '{"id": 2, "name": "Rum", "path": ["Drinks > x"], "cost": "free"}\n'
        '{"id": 3, "name": {"en": "Gin"}}\n'
        '{"id": 4, "name": null}\n'
        "{broken\n"
    )
    location = tmp_path / "p.jsonl"
    location.write_text(text, encoding="utf-8")
    columns = ColumnMap(product_id="id", title="name", brand="maker", price="cost", category="path")
    result = read(spark, location, tmp_path / "spool", columns=columns)
    result.check_that_no_row_vanished()
    assert {n: (r.product_id, r.title, r.brand, r.category, r.price) for n, r in result.accepted.items()} == {
        1: ("1", "Tea", None, ["Drinks", "Hot > cold"], 1.5),
        3: ("2", "Rum", None, ["Drinks > x"], None),
    }
    assert {n: r.rule for n, r in result.rejected.items()} == {
        2: "duplicate_product_id",
        4: "wrong_type",
        5: "blank_title",
        6: "broken_json",
    }
    assert result.rejected[6].raw == "{broken"


def test_parquet_files_of_several_types_in_one_folder(spark: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "odd [na]me {1} +%20"
    (folder / "b").mkdir(parents=True)
    first = pa.table(
        {
            "id": pa.array([1.0, 2.0, None, 2.5]),
            "na.me": ["cafe\u0301", "Tea", "Rum", "Gin"],
            "top": ["Food", "Food", None, "missing"],
            "sub": ["Coffee", " ", "x", "y"],
            "cost": pa.array([1, 2, 3, 4]),
        }
    )
    second = pa.table(
        {
            "id": ["1", "9", "10"],
            "na.me": pa.array([b"again", b"K\xe4se", b"Salt"], pa.binary()),
            "sub": ["a", "b", "c"],
            "top": ["A", "B", "C"],
            "size": [["1 kg", "bag"], [], None],
        }
    )
    pq.write_table(first, folder / "part 1.parquet")
    pq.write_table(second, folder / "b" / "part 2.parquet")
    settings = SourceSettings(
        products="x", columns=ColumnMap(product_id="id", title="na.me", category=["top", "sub"], price="")
    )
    result = read_products(spark, settings, str(folder), tmp_path / "spool")
    accepted = {(r.source_file, r.source_row): r for r in result.accepted.collect()}
    assert {place: (r.product_id, r.title, r.category) for place, r in accepted.items()} == {
        ("b/part 2.parquet", 1): ("1", "again", ["A", "a"]),
        ("b/part 2.parquet", 3): ("10", "Salt", ["C", "c"]),
        ("part 1.parquet", 2): ("2", "Tea", ["Food"]),
        ("part 1.parquet", 4): ("2.5", "Gin", None),
    }
    assert accepted["part 1.parquet", 2].price is None
    rejected = {(r.source_file, r.source_row): r for r in result.rejected.collect()}
    assert {place: (r.product_id, r.rule) for place, r in rejected.items()} == {
        ("part 1.parquet", 1): ("1", "duplicate_product_id"),
        ("part 1.parquet", 3): (None, "missing_product_id"),
        ("b/part 2.parquet", 2): ("9", "bad_encoding"),
    }
    assert rejected["part 1.parquet", 1].raw == '{"id":"1","na.me":"cafe\u0301","top":"Food","sub":"Coffee"}'
    assert "not valid UTF-8 in: na.me" in rejected["b/part 2.parquet", 2].message
    assert result.source_rows == len(accepted) + len(rejected) == 7


def test_delta(spark: SparkSession, tmp_path: Path) -> None:
    location = str(tmp_path / "table")
    rows = [(7, "Cafe\u0301", ["Food", "Coffee"]), (8, " ", None), (7, "Cafe\u0301", None)]
    frame = spark.createDataFrame(rows, "product_id long, title string, category array<string>")
    frame.coalesce(1).write.format("delta").save(location)
    result = read(spark, Path(location), tmp_path / "spool")
    before = fingerprint(location)
    result.check_that_no_row_vanished()
    assert [(r.product_id, r.title, r.category) for r in result.accepted.values()] == [
        ("7", "Caf\u00e9", ["Food", "Coffee"])
    ]
    assert sorted(r.rule for r in result.rejected.values()) == ["blank_title", "duplicate_product_id"]
    frame.limit(1).write.format("delta").mode("append").save(location)
    assert fingerprint(location) != before


def test_rows_in_are_rows_out_for_a_file_broken_at_random(spark: SparkSession, tmp_path: Path) -> None:
    rng = random.Random(7)
    rows = [f"{rng.randrange(1500)},Title {rng.randrange(9)},brand {i}" for i in range(2000)]
    for at in rng.sample(range(2000), 200):
        cut = rng.randrange(len(rows[at]))
        rows[at] = rows[at][:cut] + rng.choice(['"', ",", "\n", "", "\x00", "\udcff", "   "]) + rows[at][cut:]
    text = "product_id,title,brand\n" + "\n".join(rows)
    location = tmp_path / "p.csv"
    location.write_bytes(text.encode("utf-8", "surrogateescape"))
    result = read(spark, location, tmp_path / "spool")
    result.check_that_no_row_vanished()
    ids = [row.product_id for row in result.accepted.values()]
    assert len(set(ids)) == len(ids) > 1000
    assert len({row.rule for row in result.rejected.values()}) >= 5


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("p.csv", b"product_id,title\n", ["p.csv holds no rows, at most a header", "mend [source] products"]),
        ("p.csv", b"product_id,title\n1\n2\n", ["No rows left: none of the 2 rows", "line 2 has 1 fields"]),
        (
            "p.csv",
            b"id,title\n1,Tea\n",
            ["p.csv has no column 'product_id'", '[source.columns] product_id = "id"'],
        ),
        ("p.csv", b'"product_id,title\n1,Tea\n', ["The header of", "line 1 opens a quotation mark"]),
        ("p.csv", b"K\xe4se,title\n1,Tea\n", ["The header of", "byte 0xE4"]),
        ("p.csv", b"", ["p.csv is empty (0 bytes)"]),
        ("p.csv", b"PAR1 and so on", ["p.csv is no CSV file: it looks like a Parquet file"]),
        ("p.jsonl", b'{"product_id": 1, "name": "Tea"}\n', ["p.jsonl has no column 'title'", '"name"']),
        ("p.jsonl", b"{1}\n{2}\n", ["it looks like plain text"]),
        ("p.jsonl", b'{"a"}\n', ["No rows left: none of the 1 rows", "line 1 is no JSON"]),
        (
            "p.parquet",
            b"product_id,title\n1,Tea\n",
            ["p.parquet is no Parquet file", "plain text, perhaps CSV"],
        ),
        ("p.parquet", b"PAR1" + b"x" * 40 + b"PAR1", ["p.parquet is damaged"]),
        (None, b"", ["p.csv does not exist"]),
    ],
)
def test_a_source_that_cannot_be_used(
    spark: SparkSession, tmp_path: Path, name: str | None, content: bytes, says: list[str]
) -> None:
    location = tmp_path / (name or "p.csv")
    if name:
        location.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_products(spark, SourceSettings(products="x"), str(location), tmp_path / "spool")
    for part in says:
        assert part in str(caught.value)


def test_columns_of_parquet_that_cannot_be_used(spark: SparkSession, tmp_path: Path) -> None:
    location = str(tmp_path / "p.parquet")
    nested = pa.array([{"en": "Tea"}])

    def error(table: dict[str, Any], columns: ColumnMap) -> str:
        pq.write_table(pa.table(table), location)
        with pytest.raises(InputError) as caught:
            read_products(spark, SourceSettings(products="x", columns=columns), location, tmp_path / "spool")
        return str(caught.value)

    message = error({"product_id": [1], "title": nested}, ColumnMap())
    assert "p.parquet: the column 'title' for the title is of type struct<en:string>, which is no text" in message
    message = error({"product_id": [1], "title": [["Tea"]]}, ColumnMap())
    assert "the column 'title' for the title is of type array<string>" in message
    message = error({"product_id": [1], "title": ["Tea"], "brand": nested}, ColumnMap())
    assert "the column 'brand' for the brand" in message and "Map a column of text" in message
    message = error({"product_id": [1], "name": ["Tea"]}, ColumnMap())
    assert "p.parquet has no column 'title'" in message and 'title = "name"' in message
    message = error({"product_id": [1], "title": ["Tea"]}, ColumnMap(price="cost"))
    assert "p.parquet has no column 'cost' for the price" in message
    message = error({"product_id": pa.array([], pa.int64()), "title": pa.array([], pa.string())}, ColumnMap())
    assert "holds no rows" in message
