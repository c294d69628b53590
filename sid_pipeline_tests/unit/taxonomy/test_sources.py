"""Reading a taxonomy from files of each layout; a failed or empty read is never an empty tree."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sid_pipeline.settings import ColumnMap, SourceSettings, TaxonomyColumns
from sid_pipeline.taxonomy.sources import read_product_paths, read_taxonomy
from sid_pipeline.taxonomy.tree import TaxonomyError

EDGES = "node_id,parent_id,name\n1,,Food\n2,1,Dairy\n3,2,Milk\n"
SHARED = Path(os.environ.get("SID_SHARED", Path(__file__).parents[3].parent / "shared")) / "data"


def write(path: Path, content: str | bytes) -> str:
    path.parent.mkdir(exist_ok=True)
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


def test_text_without_ids_is_one_path_a_line(tmp_path: Path) -> None:
    location = write(tmp_path / "t.txt", "# v2\nFood|Dairy|Milk\nFood|Bakery\n")
    assert list(names(location, "|")) == ["Food", "Food > Bakery", "Food > Dairy", "Food > Dairy > Milk"]


LEVELS = "sku,department,aisle\n1,Food,Dairy\n2,Food,\n3,missing,Missing\n4,,\n5,Food,Bakery\n"


def test_a_product_table_with_a_column_per_level(tmp_path: Path) -> None:
    """'missing' and blanks are no category but the absence of one: neither a node nor a fault."""
    location = write(tmp_path / "t.csv", LEVELS)
    columns = TaxonomyColumns(levels=["department", "aisle"])
    taxonomy = read_taxonomy(location, columns=columns)
    assert [n.path for n in taxonomy.nodes] == [("Food",), ("Food", "Bakery"), ("Food", "Dairy")]
    assert taxonomy.problems == ()
    with pytest.raises(TaxonomyError, match="has no column 'shelf' for a level; it has sku, department, aisle"):
        read_taxonomy(location, columns=TaxonomyColumns(levels=["department", "shelf"]))


def test_a_level_that_is_missing_above_a_given_one_is_a_fault(tmp_path: Path) -> None:
    location = write(tmp_path / "t.csv", "a,b,c\nFood,missing,Milk\nFood,Dairy,Milk\n")
    taxonomy = read_taxonomy(location, columns=TaxonomyColumns(levels=["a", "b", "c"]))
    assert [p.rule for p in taxonomy.problems] == ["blank_name"]
    assert len(taxonomy.nodes) == 3


def test_columns_of_other_names(tmp_path: Path) -> None:
    location = write(tmp_path / "t.csv", "id,parent,label\n1,,Food\n2,1,Dairy\n3,2,Milk\n")
    columns = TaxonomyColumns(node_id="id", parent_id="parent", name="label")
    assert {" > ".join(n.path): n.node_id for n in read_taxonomy(location, columns=columns).nodes} == EXPECTED


def test_a_delta_table(tmp_path: Path) -> None:
    from deltalake import DeltaTable, write_deltalake

    rows = {"node_id": ["1", "2", "3", "9"], "parent_id": [None, "1", "2", "1"], "name": ["Food", "Dairy", "Milk", "X"]}
    write_deltalake(tmp_path / "t", pa.table(rows))
    DeltaTable(tmp_path / "t").delete("node_id = '9'")
    assert names(str(tmp_path / "t")) == EXPECTED
    with pytest.raises(TaxonomyError, match="gives no category"):
        DeltaTable(tmp_path / "t").delete()
        read_taxonomy(str(tmp_path / "t"))


def test_several_parquet_files_are_one_source(tmp_path: Path) -> None:
    for number, path in enumerate(["Food > Dairy > Milk", "Food > Bakery"]):
        pq.write_table(pa.table({"path": [path]}), tmp_path / f"part-{number}.parquet")
    assert list(names(str(tmp_path))) == ["Food", "Food > Bakery", "Food > Dairy", "Food > Dairy > Milk"]


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
        ("t.txt", b"# only a remark\n\n", "gives no category"),
        ("t.parquet", b"node_id,parent_id,name\n", "no Parquet file"),
        ("t.parquet", b"PAR1" + b"x" * 40 + b"PAR1", "is damaged"),
        ("t.jsonl", b'{"node_id": 1}\n', "a taxonomy is one CSV or text file, Parquet files or a Delta table"),
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


@pytest.mark.skipif(not SHARED.exists(), reason="shared data is not at hand")
@pytest.mark.parametrize(
    ("file", "columns", "by_depth"),
    [
        ("google_taxonomy/taxonomy", TaxonomyColumns(), [21, 192, 1349, 2203, 1385, 397, 48]),
        ("instacart/products", TaxonomyColumns(levels=["department", "aisle"]), [20, 133]),
        ("bigbasket/products", TaxonomyColumns(levels=["category", "sub_category", "type"]), None),
        ("amazon_toys/products", TaxonomyColumns(path="category_path"), None),
    ],
)
def test_real_taxonomies_are_read_whole(file: str, columns: TaxonomyColumns, by_depth: list[int] | None) -> None:
    taxonomy = read_taxonomy(str(SHARED / f"{file}.parquet"), columns=columns)
    assert taxonomy.bad_share == 0
    found = [sum(n.depth == d for n in taxonomy.nodes) for d in range(1, taxonomy.depth + 1)]
    if by_depth is not None:
        assert (found, taxonomy.problems) == (by_depth, ())
    rows = pq.read_table(SHARED / f"{file}.parquet", columns=columns.levels or [columns.path]).to_pylist()
    paths = {
        tuple(str(row[name] or "") for name in columns.levels)
        if columns.levels
        else tuple(step.strip() for step in (row[columns.path] or "").split(">"))
        for row in rows
    }
    for path in paths:
        known = "missing" not in path and any(path)
        assert (taxonomy.find(path) is not None) == known, path


def test_ids_that_became_floats_for_a_null_among_them(tmp_path: Path) -> None:
    table = pa.table({"node_id": [1, 2, 3], "parent_id": [float("nan"), 1.0, 2.0], "name": ["Food", "Dairy", "Milk"]})
    pq.write_table(table, tmp_path / "t.parquet")
    assert names(str(tmp_path / "t.parquet")) == EXPECTED
    table = pa.table({"node_id": [1.0, 2.0, 3.0], "parent_id": [None, 1, 2], "name": ["Food", "Dairy", "Milk"]})
    pq.write_table(table, tmp_path / "u.parquet")
    assert names(str(tmp_path / "u.parquet")) == EXPECTED


def test_a_path_that_is_a_list(tmp_path: Path) -> None:
    pq.write_table(pa.table({"path": [["Food", "Dairy > Eggs"]]}), tmp_path / "t.parquet")
    assert list(names(str(tmp_path / "t.parquet"))) == ["Food", "Food > Dairy > Eggs"]


def test_products_of_all_files_of_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "p" / "1.csv", "product_id,category\n1,Food > Dairy\n2,missing\n")
    write(tmp_path / "p" / "2.csv", 'category,product_id,note\n"Food > > Milk",3,\n"Food > Missing > Milk",4,\n')
    assert read_product_paths(str(tmp_path / "p"), ColumnMap()) == {
        "1": ("Food", "Dairy"), "2": None, "3": ("Food", "Milk"), "4": ("Food",),
    }  # fmt: skip
    write(tmp_path / "p" / "3.csv", "product_id,title\n5,x\n")
    with pytest.raises(TaxonomyError, match=r"3\.csv in .* has no column category"):
        read_product_paths(str(tmp_path / "p"), ColumnMap())


def test_products_in_the_sources_own_encoding_and_delimiter(tmp_path: Path) -> None:
    location = write(tmp_path / "p.csv", "product_id;category\n1;Crème > Brûlée\n".encode("cp1252"))
    settings = SourceSettings(products=location, encoding="cp1252", delimiter=";")
    assert read_product_paths(location, ColumnMap(), settings) == {"1": ("Crème", "Brûlée")}


def test_products_of_typed_tables(tmp_path: Path) -> None:
    table = pa.table({"product_id": [1.0, 2.0], "category": [["Food", "Deli > Dairy"], None]})
    pq.write_table(table, tmp_path / "p.parquet")
    found = read_product_paths(str(tmp_path / "p.parquet"), ColumnMap())
    assert found == {"1": ("Food", "Deli > Dairy"), "2": None}
    location = write(tmp_path / "p.jsonl", '{"product_id": "1", "category": "Food"}\n')
    with pytest.raises(TaxonomyError, match=r"is JSON Lines: .* Write it as one"):
        read_product_paths(location, ColumnMap())
