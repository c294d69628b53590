"""Reading labels: good ones go on, bad ones are listed by rule, and no query lies in two splits."""

from __future__ import annotations

import csv
import gzip
import io
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sid_pipeline.relevance.label_files import LabelError
from sid_pipeline.relevance.labels import PAIRS, Labels, product_text, query_hash, read_labels

SHARED = Path(os.environ.get("SID_SHARED") or Path(__file__).resolve().parents[4] / "shared")
MINI = SHARED / "data" / "esci_mini"
CHORUS = SHARED / "data" / "chorus_icecat"


def example(number: int, product: str, label: str = "E", **changes: Any) -> dict[str, Any]:
    query_id = changes.pop("query_id", 1)
    return {
        "example_id": number,
        "query": f"query {query_id}",
        "query_id": query_id,
        "product_id": product,
        "product_locale": "us",
        "esci_label": label,
        "small_version": 1,
        "large_version": 1,
        "split": "train",
        **changes,
    }


def product(key: str, **changes: Any) -> dict[str, Any]:
    return {
        "product_id": key,
        "product_title": f"title {key}",
        "product_description": "",
        "product_bullet_point": "",
        "product_brand": "",
        "product_color": "",
        "product_locale": "us",
        **changes,
    }


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read(folder: Path, examples: Sequence[dict[str, Any]], products: Sequence[dict[str, Any]], **more: Any) -> Labels:
    (folder / "examples.csv").write_text(csv_text(examples), encoding="utf-8")
    (folder / "products.csv").write_text(csv_text(products), encoding="utf-8")
    return read_labels(folder / "examples.csv", folder / "products.csv", "us", **more)


def bad_rows(labels: Labels) -> list[tuple[int, str]]:
    return [(bad.row, bad.rule) for bad in labels.bad]


def test_pairs_carry_text_grade_gain_and_split_in_order(tmp_path: Path) -> None:
    labels = read(
        tmp_path,
        [
            example(0, "B2", "I", query_id=2, split="test"),
            example(1, "A1", "S"),
            example(2, "B2", "C"),
            example(3, "007", "E"),
        ],
        [
            product("A1", product_title="Basil pesto", product_brand="Hollin", product_description="Jar."),
            product("B2", product_bullet_point="wins", product_description="loses"),
            product("007"),
            product("unjudged"),
        ],
    )
    assert labels.bad == []
    assert labels.pairs.schema == PAIRS
    assert labels.pairs.to_pylist() == [
        dict(zip(PAIRS.names, row, strict=True))
        for row in [
            ("1", "query 1", "007", "title 007", "E", 1.0, "train"),
            ("1", "query 1", "A1", "Basil pesto. Hollin. Jar", "S", 0.1, "train"),
            ("1", "query 1", "B2", "title B2. wins", "C", 0.01, "train"),
            ("2", "query 2", "B2", "title B2. wins", "I", 0.0, "test"),
        ]
    ]
    assert labels.part("test")["query_id"].to_pylist() == ["2"]


def test_text_follows_the_template() -> None:
    row = {"product_title": "Pesto", "product_brand": "Hollin"}
    assert product_text(row, ["{brand}", "{title}", "{size}"]) == "Hollin. Pesto"
    assert product_text({"product_title": ""}) == ""


def test_every_bad_label_is_listed_with_its_rule_and_the_others_go_on(tmp_path: Path) -> None:
    labels = read(
        tmp_path,
        [
            example(1, "A", "E"),
            example(2, "A", "X", query_id=2),
            example(3, "gone"),
            example(4, "spanish"),
            example(5, "twice"),
            example(6, "blank"),
            example(7, "A", query="  ", query_id=3),
            example(8, "A", query_id=""),
            example(9, "B", query="another text"),
            example(10, "A", query_id=4, split="dev"),
            example(11, "B", "S"),
        ],
        [
            product("A"),
            product("B"),
            product("spanish", product_locale="es"),
            product("twice", product_title="one"),
            product("twice", product_title="two"),
            product("blank", product_title=" "),
        ],
    )
    assert bad_rows(labels) == [
        (2, "unknown_grade"),
        (3, "missing_product"),
        (4, "other_locale"),
        (5, "ambiguous_product"),
        (6, "empty_product"),
        (7, "blank_query"),
        (8, "blank_query_id"),
        (9, "two_queries"),
        (10, "unknown_split"),
    ]
    assert labels.bad[0].message == (
        "the grade 'X' is none of E, S, C, I: correct it, or say what it means in relevance.grades."
    )
    assert "'gone' is not in products.csv for locale 'us'" in labels.bad[1].message
    assert "'es'" in labels.bad[2].message
    assert labels.pairs["product_id"].to_pylist() == ["A", "B"]


def test_a_pair_graded_in_two_ways_is_left_out_whole(tmp_path: Path) -> None:
    labels = read(
        tmp_path,
        [example(1, "A", "E"), example(2, "B", "S"), example(3, "A", "I"), example(4, "A", "E")],
        [product("A"), product("B")],
    )
    assert bad_rows(labels) == [(1, "two_grades"), (3, "two_grades"), (4, "two_grades")]
    assert labels.bad[0].message == "rows 1, 3, 4 grade this pair E and I: keep the right one."
    assert labels.pairs["product_id"].to_pylist() == ["B"]


def test_a_judgement_said_twice_counts_once(tmp_path: Path) -> None:
    labels = read(tmp_path, [example(1, "A", "E"), example(2, "A", "exact")], [product("A")])
    assert (len(labels.pairs), labels.repeated, labels.bad) == (1, 1, [])


def test_other_locales_are_not_asked_for(tmp_path: Path) -> None:
    labels = read(
        tmp_path,
        [example(1, "A"), example(2, "A", "nonsense", product_locale="jp")],
        [product("A"), product("A", product_title="otro", product_locale="es")],
    )
    assert labels.bad == []
    assert labels.pairs["text"].to_pylist() == ["title A"]


def test_a_row_with_too_many_fields_costs_one_row(tmp_path: Path) -> None:
    lines = csv_text([example(1, "A"), example(2, "B"), example(3, "C")]).splitlines()
    lines[2] += ",more"
    (tmp_path / "examples.csv").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "products.csv").write_text(csv_text([product("A"), product("C")]), encoding="utf-8")
    labels = read_labels(tmp_path / "examples.csv", tmp_path / "products.csv", "us")
    assert bad_rows(labels) == [(2, "wrong_fields")]
    assert labels.pairs["product_id"].to_pylist() == ["A", "C"]


def test_a_quotation_mark_that_is_never_closed_costs_one_row(tmp_path: Path) -> None:
    lines = csv_text([example(number, key) for number, key in enumerate("ABCDE", start=1)]).splitlines()
    lines[2] = lines[2].replace("query 1", '"query 1')
    (tmp_path / "examples.csv").write_text("\n".join(lines), encoding="utf-8")
    lines = csv_text([product(key) for key in "ABCDE"]).splitlines()
    lines[4] = lines[4].replace("title D", '"title D')
    (tmp_path / "products.csv").write_text("\n".join(lines), encoding="utf-8")
    labels = read_labels(tmp_path / "examples.csv", tmp_path / "products.csv", "us")
    assert bad_rows(labels) == [(2, "wrong_fields"), (4, "missing_product")]
    assert labels.pairs["product_id"].to_pylist() == ["A", "C", "E"]
    (tmp_path / "examples.csv").write_text('"query,query_id\n1,2\n', encoding="utf-8")
    with pytest.raises(LabelError, match=r"the header of .*examples\.csv cannot be read: .*close it"):
        read_labels(tmp_path / "examples.csv", tmp_path / "products.csv", "us")


def test_bytes_that_are_not_utf8_cost_their_rows(tmp_path: Path) -> None:
    text = csv_text([example(1, "A"), example(2, "A", query="café", query_id=2), example(3, "B", query_id=3)])
    (tmp_path / "examples.csv").write_bytes(text.encode("cp1252"))
    products = csv_text([product("A"), product("B", product_title="naïve")])
    (tmp_path / "products.csv").write_bytes(products.encode("cp1252"))
    labels = read_labels(tmp_path / "examples.csv", tmp_path / "products.csv", "us")
    assert bad_rows(labels) == [(2, "bad_encoding"), (3, "bad_encoding")]
    assert labels.bad[0].query == "caf?"
    assert len(labels.pairs) == 1


def test_queries_are_split_whole_and_the_same_every_time(tmp_path: Path) -> None:
    examples = [
        example(1, "A", query_id=1, split="train"),
        example(2, "B", query_id=1, split="test"),
        example(3, "A", query_id=2, split=""),
        example(4, "B", query_id=2, split="train"),
        *[example(5, key, query_id=number, split="") for number in range(3, 203) for key in "AB"],
    ]
    labels = read(tmp_path, examples, [product("A"), product("B")])
    splits = defaultdict(set)
    for row in labels.pairs.to_pylist():
        splits[row["query_id"]].add(row["split"])
    assert all(len(values) == 1 for values in splits.values())
    assert splits["1"] == {"test"}
    assert splits["2"] == {"train"}
    drawn = [query_id for query_id in map(str, range(3, 203)) if splits[query_id] == {"test"}]
    assert 20 <= len(drawn) <= 60
    assert drawn == [str(number) for number in range(3, 203) if query_hash(str(number), 0) < 0.2]
    again = read(tmp_path, list(reversed(examples)), [product("A"), product("B")])
    assert again.pairs.equals(labels.pairs)
    other = read(tmp_path, examples, [product("A"), product("B")], seed=1)
    assert not other.pairs.equals(labels.pairs)


def test_two_ids_of_one_text_are_one_query(tmp_path: Path) -> None:
    # Else "Green tea" could be trained on and "green  tea" tested.
    labels = read(
        tmp_path,
        [
            example(1, "A", query_id=1, query="Green tea"),
            example(2, "B", query_id=2, query="green  tea", split="test"),
        ],
        [product("A"), product("B")],
    )
    assert (
        labels.pairs.select(["query_id", "query", "split"]).to_pylist()
        == [{"query_id": "1", "query": "Green tea", "split": "test"}] * 2
    )


def test_small_version_is_a_choice(tmp_path: Path) -> None:
    examples = [example(1, "A"), example(2, "B", small_version=0)]
    products = [product("A"), product("B")]
    assert len(read(tmp_path, examples, products).pairs) == 2
    assert read(tmp_path, examples, products, small_only=True).pairs["product_id"].to_pylist() == ["A"]


def test_csv_gzip_and_parquet_say_the_same(tmp_path: Path) -> None:
    examples = [example(1, "A"), example(2, "B", "C", query_id=2)]
    products = [product("A", product_description='two\nlines, "quoted"'), product("B")]
    plain = read(tmp_path, examples, products)
    with gzip.open(tmp_path / "e.csv.gz", "wt", encoding="utf-8-sig", newline="") as stream:
        stream.write(csv_text(examples))
    pq.write_table(
        pa.Table.from_pylist([{k: v or None for k, v in row.items()} for row in products]),
        tmp_path / "p.parquet",
    )
    other = read_labels(str(tmp_path / "e.csv.gz"), str(tmp_path / "p.parquet"), "US")
    assert other.pairs.equals(plain.pairs)
    assert plain.pairs["text"][0].as_py() == 'title A. two lines, "quoted"'


def test_a_missing_file_column_or_locale_is_one_sentence(tmp_path: Path) -> None:
    good = [product("A")]
    with pytest.raises(LabelError, match=r"nowhere\.csv does not exist"):
        read_labels(tmp_path / "nowhere.csv", tmp_path / "products.csv", "us")
    without = [{k: v for k, v in example(1, "A").items() if k != "esci_label"}]
    with pytest.raises(LabelError, match=r"examples\.csv has no column esci_label \(it has example_id"):
        read(tmp_path, without, good)
    with pytest.raises(LabelError, match=r"products\.csv has no column product_title, product_locale"):
        read(tmp_path, [example(1, "A")], [{"product_id": "A"}])
    with pytest.raises(LabelError, match=r"no row of product_locale 'us' \(locales found: es, jp\)"):
        read(tmp_path, [example(1, "A", product_locale=locale) for locale in ("es", "jp")], good)
    with pytest.raises(LabelError, match="no column small_version"):
        without = [{k: v for k, v in example(1, "A").items() if k != "small_version"}]
        read(tmp_path, without, good, small_only=True)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("examples.xlsx", b"PK", "save it as one of them"),
        ("examples.csv.gz", b"query,query_id", "cannot be read"),
        ("examples.parquet", b"query,query_id", "cannot be read"),
        ("examples.csv", b"", r"it has none"),
    ],
)
def test_a_file_that_is_not_what_its_name_says(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LabelError, match=message):
        read_labels(tmp_path / name, tmp_path / "products.csv", "us")


@pytest.mark.skipif(not MINI.exists(), reason="../shared/data/esci_mini is absent")
def test_real_rows(tmp_path: Path) -> None:
    table = pq.read_table(MINI / "examples.parquet")
    pq.write_table(table, tmp_path / "examples.parquet")
    labels = read_labels(tmp_path / "examples.parquet", MINI / "examples.parquet", "us")
    rows = sum(locale == "us" for locale in table["product_locale"].to_pylist())
    assert len(labels.pairs) + len(labels.bad) + labels.repeated == rows
    assert len(labels.pairs) > 50


def test_any_table_of_query_product_and_grade(tmp_path: Path) -> None:
    """Numbers as grades, other column names, no locale, no query ids, no split."""
    pq.write_table(
        pa.table({"q": ["rye", "rye", "milk", "milk"], "sku": [1, 2, 1, 3], "rating": [3.0, 0.0, 1.0, 7.0]}),
        tmp_path / "ratings.parquet",
    )
    pq.write_table(pa.table({"sku": [1, 2, 3], "name": ["rye bread", "milk", "tea"]}), tmp_path / "products.parquet")
    none = dict.fromkeys(
        ["query_id", "product_locale", "split", "small_version", "product_brand", "product_description",
         "product_bullet_point"]
    )  # fmt: skip
    labels = read_labels(
        tmp_path / "ratings.parquet",
        tmp_path / "products.parquet",
        "any",
        columns={"query": "q", "product_id": "sku", "esci_label": "rating", "product_title": "name", **none},
        grades={"3": "E", "2": "S", "1": "C", "0": "I"},
    )
    found = [(row["query_id"], row["text"], row["grade"]) for row in labels.pairs.to_pylist()]
    assert found == [("milk", "rye bread", "C"), ("rye", "rye bread", "E"), ("rye", "milk", "I")]
    assert [(bad.row, bad.rule) for bad in labels.bad] == [(4, "unknown_grade")]


def test_a_missing_column_of_another_layout_names_the_setting(tmp_path: Path) -> None:
    pq.write_table(pa.table({"q": ["rye"], "sku": ["1"]}), tmp_path / "ratings.parquet")
    with pytest.raises(LabelError, match=r"no column query_id, product_locale, esci_label.*relevance\.columns"):
        read_labels(
            tmp_path / "ratings.parquet", tmp_path / "p.parquet", "us", columns={"query": "q", "product_id": "sku"}
        )


@pytest.mark.skipif(not CHORUS.exists(), reason="../shared/data/chorus_icecat is absent")
def test_real_ratings_in_another_layout() -> None:
    none = dict.fromkeys(["query_id", "product_locale", "split", "small_version", "product_bullet_point"])
    labels = read_labels(
        CHORUS / "judgements.parquet",
        CHORUS / "products.parquet",
        "any",
        columns={
            "esci_label": "rating", "product_title": "title", "product_brand": "brand",
            "product_description": "short_description", **none,
        },
        grades={"3": "E", "2": "S", "1": "C", "0": "I"},
    )  # fmt: skip
    assert len(labels.pairs) + labels.repeated + len(labels.bad) == 1801
    assert len(labels.pairs) > 1790 and all(bad.message for bad in labels.bad)
    assert set(labels.pairs["split"].to_pylist()) == {"train", "test"}
