"""CSV and JSON Lines record by record: one bad row costs one row, and none vanishes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sid_pipeline.ingest import records
from sid_pipeline.ingest.records import LIST_SEPARATOR, Record, csv_rows, decode, json_rows, printable

HEADER = "product_id,title,category\n"


def lines(data: str | bytes, encoding: str = "utf-8-sig") -> Iterator[str]:
    return decode(io.BytesIO(data.encode() if isinstance(data, str) else data), encoding)


def read(data: str | bytes, encoding: str = "utf-8-sig", delimiter: str = ",") -> tuple[list[Record], list[Record]]:
    """Good and faulty data rows; the header is checked to come first."""
    header, *rows = csv_rows(lines(data, encoding), delimiter, encoding)
    assert header.row == 0
    assert [row.row for row in rows] == list(range(1, len(rows) + 1))
    return [row for row in rows if not row.rule], [row for row in rows if row.rule]


def ids(rows: list[Record]) -> list[str | None]:
    return [row.values[0] for row in rows]


def test_quoting_line_breaks_and_blank_lines() -> None:
    good, bad = read(HEADER + '1,"Milk, ""whole""\nfresh",dairy\n\n   \n2,5" pipe,tools\r\n3,,\n')
    assert [list(row.values) for row in good] == [
        ["1", 'Milk, "whole"\nfresh', "dairy"],
        ["2", '5" pipe', "tools"],
        ["3", "", ""],
    ]
    assert [(row.row, row.line) for row in good] == [(1, 2), (2, 6), (3, 7)]
    assert bad == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_byte_order_mark_does_not_stick_to_the_first_column(encoding: str) -> None:
    data = ("\ufeff" if encoding in {"utf-8", "utf-16-le"} else "") + '"product_id",title\n1,Käse\n'
    header, row = csv_rows(lines(data.encode(encoding), encoding), ",", encoding)
    assert list(header.values) == ["product_id", "title"]
    assert list(row.values) == ["1", "Käse"]


def test_other_encoding_and_delimiter() -> None:
    good, bad = read("product_id;title\r1;Crème brûlée\r2;œuf\r".encode("cp1252"), "cp1252", ";")
    assert [row.values[1] for row in good] == ["Crème brûlée", "œuf"]
    assert bad == []


def test_wrong_number_of_fields_costs_that_row_alone() -> None:
    good, bad = read(HEADER + "1,Milk,dairy\n2,Salt, fine,spices\n3,Tea\n4,Rum,drinks\n")
    assert ids(good) == ["1", "4"]
    assert [(row.row, row.line, row.rule) for row in bad] == [
        (2, 3, "wrong_number_of_fields"),
        (3, 4, "wrong_number_of_fields"),
    ]
    assert "line 3 has 4 fields where the header has 3" in bad[0].message
    assert printable(bad[0].raw) == "2,Salt, fine,spices"


def test_bytes_of_another_encoding_cost_that_row_alone() -> None:
    good, bad = read(HEADER.encode() + "1,Käse,x\n".encode("cp1252") + "2,Käse,x\n".encode())
    assert ids(good) == ["2"]
    assert (bad[0].row, bad[0].rule) == (1, "bad_encoding")
    assert "line 2 holds the byte 0xE4, which is not valid utf-8-sig" in bad[0].message
    assert "[source] encoding" in bad[0].message
    assert printable(bad[0].raw) == r"1,K\xe4se,x"


def test_nul_costs_that_row_alone() -> None:
    good, bad = read(HEADER + "1,Mi\0lk,dairy\n2,Tea,drinks\n")
    assert ids(good) == ["2"]
    assert (bad[0].rule, printable(bad[0].raw)) == ("nul_character", r"1,Mi\x00lk,dairy")
    assert "line 2 holds a NUL character" in bad[0].message


@pytest.mark.parametrize(
    "rest",
    [
        pytest.param("2,Tea,drinks\n3,Rum,drinks\n", id="no further mark: up to the end of the file"),
        pytest.param('2,Tea,drinks\n3,"Rum",drinks\n', id="up to the next opening mark"),
        pytest.param('2,Tea,drinks\n3,"Rum, brown",drinks\n', id="the next mark hides a delimiter"),
        pytest.param('2,"Tea\ngreen",drinks\n3,Rum,drinks\n', id="a row over two lines comes next"),
        pytest.param('2,Tea,drinks\n3,Rum,"drinks"\n', id="the next mark ends the record"),
        pytest.param('2,Tea,drinks\n3,Rum 5",drinks,\n3,Rum,drinks\n', id="a mark that closes by chance"),
    ],
)
def test_unclosed_quote_costs_the_row_it_opens_in(rest: str) -> None:
    good, bad = read(HEADER + '0,Salt,spices\n1,"Milk,dairy\n' + rest)
    assert ids(good) == ["0", "2", "3"]
    assert (bad[0].row, bad[0].line, bad[0].rule) == (2, 3, "unclosed_quote")
    assert "line 3 opens a quotation mark that is not closed properly" in bad[0].message
    assert printable(bad[0].raw) == '1,"Milk,dairy'


def test_misquoted_text_over_several_lines_is_one_faulty_row() -> None:
    good, bad = read(HEADER + '1,"A milk\nfrom here\n and "there" too",dairy\n2,Tea,drinks\n')
    assert ids(good) == ["2"]
    assert [(row.row, row.rule) for row in bad] == [(1, "unclosed_quote")]
    assert "from here" in bad[0].raw


def test_misquoted_row_on_one_line() -> None:
    good, bad = read(HEADER + '1,"Milk" fresh,dairy\n2,Tea,drinks\n')
    assert ids(good) == ["2"]
    assert (bad[0].rule, bad[0].line) == ("unclosed_quote", 2)


def test_endless_quote_is_given_up_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_RECORD_CHARS", 1000)
    rows = "".join(f"{number},Tea {number},drinks\n" for number in range(200))
    good, bad = read(HEADER + '-1,"Milk,dairy\n' + rows)
    assert ids(good) == [str(number) for number in range(200)]
    assert len(bad) == 1


def test_a_megabyte_in_one_field_is_read() -> None:
    good, bad = read(HEADER + f'1,"{"x" * (1 << 20)}",dairy\n2,Tea,drinks\n')
    assert [len(row.values[1] or "") for row in good] == [1 << 20, 3]
    assert bad == []


def test_raw_is_cut_at_two_thousand_characters() -> None:
    assert len(printable("\udcff" * 5000)) == 2000


fields = st.text(st.sampled_from('ab,"\n é\0'), max_size=6)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(fields, min_size=2, max_size=2), min_size=1, max_size=8))
def test_what_python_writes_is_read_back_row_by_row(rows: list[list[str]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([["product_id", "title"], *rows])
    good, bad = read(text.getvalue())
    assert [list(row.values) for row in good] == [row for row in rows if "\0" not in "".join(row)]
    assert len(good) + len(bad) == len(rows)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.text(st.sampled_from('ab,," \udce4\udc00'), max_size=10), max_size=12))
@example(['"', 'a,"', "b,b", '","'])
@example(['a,"b', ' ,"a",', "a,b"])
def test_no_line_vanishes_from_a_broken_file(body: list[str]) -> None:
    """However broken, each line is in exactly one record: the records' lines are the file's, in order."""
    text = [line + "\n" for line in ["product_id,title", *body]]
    _, *rows = csv_rows(iter(text), ",")
    starts = [row.line for row in rows]
    assert starts == sorted(set(starts))
    kept = [line for line in text[1:] if line.strip(" \n")]
    assert "".join(line.strip(" \n") for line in "".join(row.raw for row in rows).split("\n")) == "".join(
        line.strip(" \n") for line in kept
    )


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 99), st.sampled_from(["tea", '"a, b"', '"say ""hi"""'])),
        min_size=1,
        max_size=8,
    ),
    st.integers(0, 8),
)
def test_good_rows_survive_one_unclosed_quote(rows: list[tuple[int, str]], at: int) -> None:
    body = [f"{number},{title}\n" for number, title in rows]
    body.insert(min(at, len(body)), 'X,"open\n')
    good, bad = read("product_id,title\n" + "".join(body))
    assert ids(good) == [str(number) for number, _ in rows]
    assert [row.rule for row in bad] == ["unclosed_quote"]


SLOTS = {"product_id": "id", "title": "name", "category": "path", "price": "cost"}


def read_json(text: str) -> tuple[list[Record], set[str]]:
    seen: set[str] = set()
    return list(json_rows(lines(text), SLOTS, seen)), seen


def test_json_values_keep_their_spelling() -> None:
    rows, seen = read_json(
        '{"id": 12345678901234567890123, "name": "Tea", "cost": 1.50, "path": ["Drinks", "Hot > Cold"]}\n'
        '\n{"id": "7", "name": ["Green", "tea"], "extra": {}}\n'
        '{"id": true, "name": null, "cost": {"eur": 1}}\n'
    )
    assert list(rows[0].values) == [
        "12345678901234567890123",
        "Tea",
        f"{LIST_SEPARATOR}Drinks{LIST_SEPARATOR}Hot > Cold",
        "1.50",
    ]
    assert (rows[1].row, rows[1].line, rows[1].rule) == (2, 3, "wrong_type")
    assert "line 3: 'name' must be text, not an object or a list" in rows[1].message
    assert list(rows[2].values) == ["true", None, None, None]
    assert seen == {"id", "name", "cost", "path", "extra"}


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ('{"id": 1, "name": "Tea"', "broken_json"),
        ('["id", 1]', "broken_json"),
        ("[" * 100_000, "broken_json"),
        ('{"id": 1, "name": "half \\ud83d"}', "bad_encoding"),
        ('{"id": 1, "name": "nul \\u0000"}', "nul_character"),
    ],
)
def test_broken_json_costs_that_row_alone(text: str, rule: str) -> None:
    rows, _ = read_json(f'{{"id": 0, "name": "Milk"}}\n{text}\n{{"id": 2, "name": "Rum"}}\n')
    assert [(row.row, row.rule) for row in rows] == [(1, ""), (2, rule), (3, "")]
    assert "line 2" in rows[1].message


def test_what_other_programs_write_for_a_missing_number_is_no_text() -> None:
    [row], _ = read_json('{"id": "1", "name": NaN, "cost": -Infinity, "path": ["Food", NaN]}\n')
    assert list(row.values) == ["1", None, f"{LIST_SEPARATOR}Food", None]
    [row], _ = read_json('{"id": "NaN", "name": "nan"}\n')
    assert list(row.values)[:2] == ["NaN", "nan"], "which is text that says so"
