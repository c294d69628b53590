"""`sid taxonomy diff` on sources of any layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from sid_pipeline import cli
from sid_pipeline.settings import PROJECT_ROOT

SAMPLE, SAMPLE_V2 = (str(PROJECT_ROOT / "data" / name) for name in ("taxonomy.csv", "taxonomy_v2.csv"))
LISTS = ("added", "removed", "renamed", "moved", "split", "merged")


def run(*arguments: str) -> dict:
    done = CliRunner().invoke(cli.main, ["taxonomy", "diff", *arguments, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_the_edits_of_the_sample_are_named_each_once() -> None:
    found = run(SAMPLE, SAMPLE_V2)
    assert (found["class"], found["measured_by"], found["touched"], found["of"]) == ("major", "nodes", 4, 351)
    assert {kind: len(found[kind]) for kind in LISTS} == {
        "added": 1, "removed": 0, "renamed": 1, "moved": 1, "split": 1, "merged": 0,
    }  # fmt: skip
    assert found["renamed"][0]["old_name"] == "Grilling cheese"
    assert found["moved"][0]["old_path"][:2] == ["Pantry", "World Foods"]
    assert found["split"][0]["from"]["node_id"] == "c0201"
    assert [part["node_id"] for part in found["split"][0]["into"]] == ["c0350", "c0349"]
    assert len(found["sentences"]) == 4


def test_with_products_the_share_of_products_decides() -> None:
    catalogue = str(PROJECT_ROOT / "data" / "catalogue" / "2026-01-06" / "products.csv.gz")
    found = run(SAMPLE, SAMPLE_V2, "--products", catalogue)
    assert (found["class"], found["measured_by"]) == ("minor", "products")
    assert found["touched"] == found["moved"][0]["products"] + found["split"][0]["products"]
    assert 0 < found["share_touched"] < 0.01
    assert run(SAMPLE, SAMPLE_V2, "--products", catalogue, "--max-minor-share", "0.004")["class"] == "major"


def test_a_source_does_not_differ_from_itself() -> None:
    found = run(SAMPLE, SAMPLE)
    assert found["class"] == "minor" and not any(found[kind] for kind in LISTS)


def test_sources_of_two_layouts(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_text("Food/Dairy/Milk\nFood/Dairy/Cheese\nFood/Bakery\n")
    (tmp_path / "new.csv").write_text(
        "id,dept,aisle,shelf\n1,Food,Chilled,Milk\n2,Food,Chilled,Cheese\n3,Food,Bakery,\n"
    )
    levels = [part for level in ("dept", "aisle", "shelf") for part in ("--level", level)]
    found = run(str(tmp_path / "old.txt"), str(tmp_path / "new.csv"), "--separator", "/", *levels)
    assert [row["path"] for row in found["renamed"]] == [["Food", "Chilled"]]
    assert (found["class"], found["touched"]) == ("minor", 0)


def test_two_product_tables_are_evidence(tmp_path: Path) -> None:
    old, new = tmp_path / "old.csv", tmp_path / "new.csv"
    old.write_text("sku,c\n1,A > Herbs\n2,A > Greens\n3,B > Soap\n")
    new.write_text("sku,c\n1,A > Fresh\n2,A > Fresh\n3,B > Body wash\n")
    options = ["--path", "c", "--category", "c", "--product-id", "sku", "--products", str(old), "--products", str(new)]
    found = run(str(old), str(new), *options)
    assert [group["into"]["name"] for group in found["merged"]] == ["Fresh"]
    assert [(row["old_name"], row["name"]) for row in found["renamed"]] == [("Soap", "Body wash")]
    assert (found["touched"], found["of"], found["share_touched_per_level"]) == (2, 3, [0.0, pytest.approx(2 / 3)])


def test_words_for_people() -> None:
    done = CliRunner().invoke(cli.main, ["taxonomy", "diff", SAMPLE, SAMPLE_V2])
    assert "No products were given, so nodes were counted" in done.output and "sid taxonomy plan" in done.output
    assert done.exit_code == 0
    assert "major: 4 of 351 nodes changed their path (1.14%" in done.output
    assert "'Drinks > Coffee > Ground coffee' (c0201) was split into" in done.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([SAMPLE, "no.csv"], "no.csv does not exist"),
        ([SAMPLE, SAMPLE_V2, "--products", SAMPLE], "has no column 'category' for the category; it has node_id"),
        ([SAMPLE, SAMPLE_V2, *["--products", SAMPLE] * 3], "at most twice"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(arguments: list[str], says: str) -> None:
    done = CliRunner().invoke(cli.main, ["taxonomy", "diff", *arguments])
    assert done.exit_code == 1 and says in done.output and "Traceback" not in done.output
