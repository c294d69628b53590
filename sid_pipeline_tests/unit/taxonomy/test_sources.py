"""Reading a taxonomy from files of each layout; a failed or empty read is never an empty tree."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sid_pipeline.taxonomy.sources import read_taxonomy
from sid_pipeline.taxonomy.tree import TaxonomyError

EDGES = "node_id,parent_id,name\n1,,Food\n2,1,Dairy\n3,2,Milk\n"
GOOGLE = Path(__file__).parents[3].parent / "shared" / "data" / "google_taxonomy" / "taxonomy.parquet"


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def names(location: str, separator: str = ">") -> dict[str, str]:
    return {" > ".join(n.path): n.node_id for n in read_taxonomy(location, separator).nodes}


EXPECTED = {"Food": "1", "Food > Dairy": "2", "Food > Dairy > Milk": "3"}


def test_edges_in_csv_plain_and_compressed(tmp_path: Path) -> None:
    assert names(write(tmp_path / "t.csv", EDGES)) == EXPECTED
    assert names(write(tmp_path / "t.csv.gz", gzip.compress(EDGES.encode()))) == EXPECTED


def test_edges_with_a_mark_other_columns_and_another_order(tmp_path: Path) -> None:
    text = "\ufeffname,note,parent_id,node_id\nMilk,x,2,3\nDairy,,1,2\nFood,,,1\n"
    assert names(write(tmp_path / "t.csv", text)) == EXPECTED


def test_paths_in_csv_and_parquet(tmp_path: Path) -> None:
    text = "category_id,path\n1,Food\n2,Food / Dairy\n3,Food/Dairy/Milk\n"
    assert names(write(tmp_path / "t.csv", text), "/") == EXPECTED
    table = pa.table({"path": ["Food > Dairy > Milk"]})
    pq.write_table(table, tmp_path / "t.parquet")
    assert list(names(str(tmp_path / "t.parquet"))) == list(EXPECTED)
    table = pa.table({"category_id": [1, 2, 3], "path": ["Food", "Food > Dairy", "Food > Dairy > Milk"]})
    pq.write_table(table, tmp_path / "ids.parquet")
    assert names(str(tmp_path / "ids.parquet")) == EXPECTED


def test_google_text(tmp_path: Path) -> None:
    text = "# Google_Product_Taxonomy_Version: x\n1 - Food\n2 - Food > Dairy\n3 - Food > Dairy > Milk\n?\n"
    location = write(tmp_path / "t.txt", text)
    assert names(location) == EXPECTED
    problem = read_taxonomy(location).problems[0]
    assert (problem.node_id, problem.rule) == ("line 5", "unparsable_row")


def test_bad_rows_are_listed_and_good_ones_stay(tmp_path: Path) -> None:
    taxonomy = read_taxonomy(write(tmp_path / "t.csv", EDGES + "4,1\n5,9,Lost\n"))
    assert len(taxonomy.nodes) == 3
    assert [(p.node_id, p.rule) for p in taxonomy.problems] == [
        ("line 5", "unparsable_row"),
        ("5", "missing_parent"),
    ]
    assert "line 5 has 2 fields where the header has 3" in taxonomy.problems[0].message
    assert taxonomy.bad_share == 0.4


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("t.csv", b"", "is empty (0 bytes)"),
        ("t.csv", b"node_id,parent_id,name\n", "gives no category"),
        (
            "t.csv",
            b"node_id,parent_id,name\n1,1,Loop\n",
            "gives no category. The first fault: node 1 ('Loop')",
        ),
        (
            "t.csv",
            b"id,parent,label\n1,,Food\n",
            "has the columns id, parent, label; needed are the columns node_id",
        ),
        ("t.csv", b"<html>not found</html>", "looks like a web page (HTML)"),
        ("t.txt", b"just words\n", "gives no category. The first fault: line 1 is not of the form"),
        ("t.parquet", b"node_id,parent_id,name\n", "no Parquet file"),
        ("t.parquet", b"PAR1" + b"x" * 40 + b"PAR1", "is damaged"),
        ("t.jsonl", b'{"node_id": 1}\n', "a taxonomy is one file, CSV, Parquet or Google's text"),
        ("t.xml", b"<a/>", "does not say which format"),
    ],
)
def test_what_cannot_be_read_is_an_error(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    location = write(tmp_path / name, content)
    with pytest.raises(TaxonomyError) as caught:
        read_taxonomy(location)
    assert says in str(caught.value)
    assert name in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(TaxonomyError, match=r"does not exist. Put the file there or mend \[taxonomy\] source"):
        read_taxonomy(str(tmp_path / "no.csv"))


@pytest.mark.skipif(not GOOGLE.exists(), reason="shared data is not at hand")
def test_the_google_taxonomy_is_read_whole() -> None:
    taxonomy = read_taxonomy(str(GOOGLE))
    assert (len(taxonomy.nodes), taxonomy.depth, taxonomy.problems) == (5595, 7, ())
    by_depth = [sum(n.depth == d for n in taxonomy.nodes) for d in range(1, 8)]
    assert by_depth == [21, 192, 1349, 2203, 1385, 397, 48]
