"""Listing files, recognising what they are, and fingerprints."""

from __future__ import annotations

import gzip
import os
from datetime import datetime, timezone
from pathlib import Path

import pytest

from sid_pipeline.ingest.errors import InputError
from sid_pipeline.ingest.source_files import (
    Unreachable,
    check_content,
    find_source,
    fingerprint,
    is_there,
    last_change,
)

CSV = b"product_id,title\n1,Tea\n"


def write(path: Path, content: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path)


def check(location: str, format: str = "auto") -> None:
    source = find_source(location, format)
    for file in source.files:
        check_content(source, file, "utf-8-sig")


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a.csv", "csv"),
        ("a.CSV.GZ", "csv"),
        ("a.tsv", "csv"),
        ("a.jsonl", "jsonl"),
        ("a.ndjson.gz", "jsonl"),
        ("a.parquet", "parquet"),
    ],
)
def test_format_comes_from_the_name(tmp_path: Path, name: str, format: str) -> None:
    assert find_source(write(tmp_path / name, CSV)).format == format


def test_a_folder_is_searched_deeply_without_markers(tmp_path: Path) -> None:
    for name in ("b/part-1.csv", "a/part-1.csv", "_SUCCESS", "a/.part-1.csv.crc", "_temporary/0/x.csv"):
        write(tmp_path / name, CSV)
    assert [file.name for file in find_source(str(tmp_path)).files] == ["a/part-1.csv", "b/part-1.csv"]


def test_a_glob_takes_the_files_it_matches(tmp_path: Path) -> None:
    for name in ("p-1.csv", "p-2.csv", "other.csv"):
        write(tmp_path / name, CSV)
    assert [file.name for file in find_source(f"{tmp_path}/p-*.csv").files] == ["p-1.csv", "p-2.csv"]


def test_a_delta_table_is_recognised_by_its_log(tmp_path: Path) -> None:
    write(tmp_path / "_delta_log" / f"{0:020d}.json", b"{}")
    assert find_source(str(tmp_path)).format == "delta"


@pytest.mark.parametrize(
    ("files", "location", "message"),
    [
        ([], "no.csv", "no.csv does not exist. Put the file there or mend [source] products"),
        ([], "no-*.csv", "matches no file"),
        (["catalogue.xlsx"], "catalogue.xlsx", "catalogue.xlsx does not say which format"),
        (["a/x.csv", "a/y.parquet"], "a", "holds files of several formats: x.csv (CSV), y.parquet (Parquet)"),
    ],
)
def test_what_cannot_be_found_is_named(tmp_path: Path, files: list[str], location: str, message: str) -> None:
    for name in files:
        write(tmp_path / name, CSV)
    with pytest.raises(InputError) as caught:
        find_source(str(tmp_path / location))
    assert message in str(caught.value)


def test_a_folder_that_is_said_to_be_delta_must_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no Delta table: it has no _delta_log folder"):
        find_source(str(tmp_path), "delta")


PARQUET = b"PAR1" + b"\0" * 20 + b"PAR1"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", PARQUET, ["no CSV file: it looks like a Parquet file", "end in .parquet"]),
        ("a.csv", gzip.compress(CSV, mtime=0), ["no CSV file: it looks like a gzip file", "end in .gz"]),
        ("a.csv", b"\n <!DOCTYPE html><html>404", ["looks like a web page (HTML)", "fetch it again"]),
        ("a.csv", CSV.decode().encode("utf-16"), ["looks like UTF-16 text", 'encoding = "utf-16"']),
        ("a.csv", CSV.decode().encode("utf-16-le"), ["looks like UTF-16 text"]),
        ("a.csv", b'{"product_id": 1}\n', ["looks like JSON Lines", "end in .jsonl"]),
        ("a.csv", b"PK\x03\x04rest", ["looks like a ZIP archive or an Excel workbook"]),
        ("a.csv", bytes(range(256)) * 4 + b"\0" * 200, ["looks like binary data"]),
        ("a.parquet", CSV, ["no Parquet file: it looks like plain text, perhaps CSV", "end in .csv"]),
        ("a.parquet", PARQUET[:-4], ["a Parquet file that was cut off"]),
        ("a.jsonl", CSV, ["no JSON Lines file: it looks like plain text, perhaps CSV"]),
        ("a.jsonl", b'[{"product_id": 1}]', ["looks like a JSON array", "one JSON object a line"]),
        (
            "a.csv.gz",
            CSV,
            ["is no gzip file: it looks like plain text, perhaps CSV", "take .gz off its name"],
        ),
        ("a.csv.gz", gzip.compress(PARQUET, mtime=0), ["no CSV file: it looks like a Parquet file"]),
        ("a.csv.gz", gzip.compress(CSV * 99, mtime=0)[:20], ["a damaged or cut-off gzip file", "Copy it again"]),
        ("a.csv.gz", gzip.compress(b"", mtime=0), ["is empty once decompressed"]),
        ("a.csv", b"", ["is empty (0 bytes)", "Write it again"]),
        ("a.parquet", b"", ["is empty (0 bytes)"]),
    ],
)
def test_a_file_that_is_not_what_its_name_says(tmp_path: Path, name: str, content: bytes, says: list[str]) -> None:
    location = write(tmp_path / name, content)
    with pytest.raises(InputError) as caught:
        check(location)
    assert str(caught.value).startswith(location)
    for part in says:
        assert part in str(caught.value)


def test_one_bad_file_among_several_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", CSV)
    write(tmp_path / "b.csv", PARQUET)
    with pytest.raises(InputError, match=r"^b\.csv in .* is no CSV file"):
        check(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "content"), [("a.csv", CSV), ("a.csv.gz", gzip.compress(CSV, mtime=0)), ("a.csv", b"id\n")]
)
def test_what_is_as_named_passes(tmp_path: Path, name: str, content: bytes) -> None:
    check(write(tmp_path / name, content))


def test_fingerprint_follows_content_and_names(tmp_path: Path) -> None:
    first = write(tmp_path / "x" / "a.csv", CSV)
    again = write(tmp_path / "y" / "a.csv", CSV)
    assert fingerprint(first) == fingerprint(again) == fingerprint(str(tmp_path / "x"))
    assert fingerprint([first, again]) != fingerprint(first)
    write(tmp_path / "x" / "b.csv", CSV)
    assert fingerprint(str(tmp_path / "x")) != fingerprint(first)
    write(tmp_path / "y" / "a.csv", CSV + b"2,Rum\n")
    assert fingerprint(again) != fingerprint(first)


def test_fingerprint_of_delta_follows_the_newest_commit(tmp_path: Path) -> None:
    write(tmp_path / "_delta_log" / f"{9:020d}.json", b"nine")
    write(tmp_path / "_delta_log" / f"{9:020d}.checkpoint.parquet", b"checkpoint")
    write(tmp_path / "part-0.parquet", b"data")
    before = fingerprint(str(tmp_path))
    write(tmp_path / "part-1.parquet", b"not committed")
    assert fingerprint(str(tmp_path)) == before
    write(tmp_path / "_delta_log" / f"{10:020d}.json", b"ten")
    assert fingerprint(str(tmp_path)) != before


def test_fingerprint_of_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        fingerprint(str(tmp_path / "no.csv"))
    (tmp_path / "table" / "_delta_log").mkdir(parents=True)
    with pytest.raises(InputError, match=r"does not exist. Put the file there or mend \[source\] offers"):
        fingerprint(str(tmp_path / "no.csv"), setting="[source] offers")
    with pytest.raises(InputError, match="holds no commit"):
        fingerprint(str(tmp_path / "table"))


def test_whether_files_are_there_and_since_when(tmp_path: Path) -> None:
    location = str(tmp_path / "day" / "*.csv")
    assert not is_there(location) and last_change(location) is None
    first, second = write(tmp_path / "day" / "a.csv", CSV), write(tmp_path / "day" / "b.csv", CSV)
    os.utime(first, (0, 1_000)), os.utime(second, (0, 2_000))
    assert is_there(location) and is_there(first) and is_there(str(tmp_path / "day"))
    assert last_change(location) == datetime.fromtimestamp(2_000, timezone.utc)
    commit = write(tmp_path / "table" / "_delta_log" / f"{0:020}.json", b"{}")
    os.utime(commit, (0, 3_000))
    assert last_change(str(tmp_path / "table")) == datetime.fromtimestamp(3_000, timezone.utc)


def test_a_folder_that_may_not_be_read_is_not_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "day").mkdir()
    assert not is_there(str(tmp_path / "day")) and not is_there(str(tmp_path / "day" / "*.csv"))

    def refuse(*_: object) -> None:
        raise PermissionError(13, "hunter2")

    monkeypatch.setattr(os, "scandir", refuse)
    for location in (tmp_path / "day", tmp_path / "day" / "*.csv"):
        with pytest.raises(Unreachable, match=r"cannot be looked at \(PermissionError\)") as fault:
            is_there(str(location))
        assert "hunter2" not in str(fault.value)


def test_fingerprint_takes_the_format_where_a_name_says_none(tmp_path: Path) -> None:
    location = write(tmp_path / "cat.txt", CSV)
    with pytest.raises(InputError, match="does not say which format"):
        fingerprint(location)
    assert fingerprint(location, "csv") == fingerprint(location, "csv")
