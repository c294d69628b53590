from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from sid_pipeline.evaluation.names import prefix_names
from sid_pipeline.explorer.site import ExplorerFlavour, ExplorerInput, write_explorer

NASTY = '<script>alert(1)</script> & "tea" \u2028 </script>'
IDS = ["p1", "p2", "p3", "p4", "a/b ü"]
TITLES = ["Green tea", "Crème tea", "Soap", NASTY, "Green soap"]
CATEGORIES = [("food", "tea"), ("food", "tea"), ("home", "soap"), None, ("home", "soap")]
ESCI = np.array([[0, 0, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [-1, -1, -1, -1]])
GEMMA = np.array([[3, 0, 0, 0], [3, 0, 0, 0], [3, 1, 0, 0], [4, 0, 0, 0], [4, 0, 0, 1]])


def given(**changes) -> ExplorerInput:
    parts = {
        "title": "Sample catalogue",
        "as_of_snapshot": "2026-01-05",
        "product_ids": IDS,
        "titles": TITLES,
        "flavours": [
            ExplorerFlavour("esci", "r1", ESCI, headline={"distinct_share": 0.75}),
            ExplorerFlavour("esci_gemma", "r2", GEMMA),
        ],
        "brands": ["Ayla", None, "Fernwood", "", None],
        "categories": CATEGORIES,
        "texts": ["Green tea", "a fine one", None, NASTY, "x" * 5_000],
    }
    return ExplorerInput(**{**parts, **changes})


def data_of(file: Path):
    """The value that a data script assigns."""
    text = file.read_text(encoding="ascii")
    start, _, value = text.partition(" = ")
    assert re.fullmatch(r"window\.SID_DATA\.(catalogue|products|flavours\[\d\])", start)
    return json.loads(value.removesuffix(";\n"))


def pages(folder: Path, *addresses: str) -> dict[str, dict]:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed, so the explorer's script cannot be run")
    script = Path(__file__).with_name("browser.js")
    done = subprocess.run(
        [node, str(script), str(folder), json.dumps(addresses)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_data_holds_all_products_with_their_sids_and_names(tmp_path):
    index = write_explorer(tmp_path / "site", given())
    assert index == tmp_path / "site" / "index.html"
    assert data_of(tmp_path / "site/data/catalogue.js")["held"] == 5
    products = data_of(tmp_path / "site/data/products.js")
    # A text that repeats the title is left out, a long one is cut.
    assert products[0] == ["p1", "Green tea", "Ayla", "food > tea", ""]
    assert products[3][1] == NASTY
    assert len(products[4][4]) == 600
    flavour = data_of(tmp_path / "site/data/flavour_0.js")
    assert flavour["without_sid"] == 1
    assert flavour["codes"] == [[0, 0, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], None]
    assert [row[:2] for row in flavour["prefixes"]] == [
        ["0", 3],
        ["0_0", 3],
        ["0_0_0", 2],
        ["0_0_0_0", 2],
        ["0_0_1", 1],
        ["0_0_1_0", 1],
        ["1", 1],
        ["1_0", 1],
        ["1_0_0", 1],
        ["1_0_0_0", 1],
    ]
    assert flavour["prefixes"][6][2] == "home > soap"


def test_given_names_are_used_and_two_runs_write_the_same(tmp_path):
    names = prefix_names(GEMMA, IDS, TITLES)
    flavours = [ExplorerFlavour("esci", "r1", ESCI), ExplorerFlavour("esci_gemma", "r2", GEMMA, names)]
    write_explorer(tmp_path / "one", given(flavours=flavours))
    write_explorer(tmp_path / "two", given(flavours=flavours))
    written = data_of(tmp_path / "one/data/flavour_1.js")["prefixes"]
    assert {row[0]: row[2] for row in written} == dict(
        zip(names["prefix"].to_pylist(), names["name"].to_pylist(), strict=True)
    )
    for file in (tmp_path / "one").rglob("*.*"):
        assert file.read_bytes() == (tmp_path / "two" / file.relative_to(tmp_path / "one")).read_bytes()


def test_everything_it_needs_lies_beside_it(tmp_path):
    index = write_explorer(tmp_path, given())
    html = index.read_text(encoding="utf-8")
    for source in re.findall(r'(?:src|href)="([^"#]+)"', html):
        assert (tmp_path / source).is_file(), source
    assert "data/flavour_1.js" in html
    for file in (index, tmp_path / "explorer.js", tmp_path / "style.css"):
        assert not re.search(r"https?:|//cdn|@import|fetch\(|XMLHttpRequest", file.read_text(encoding="utf-8"))


def test_texts_never_reach_the_page_as_markup(tmp_path):
    write_explorer(tmp_path, given())
    script = (tmp_path / "explorer.js").read_text(encoding="utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", script)
    assert "<script>alert" not in (tmp_path / "index.html").read_text(encoding="utf-8")
    found = pages(tmp_path, "#/product/p4", "#/search/%3Cscript%3E", "#/sid/esci/0_0_0")
    for page in found.values():
        assert "script" not in page["tags"]
    assert all(NASTY in page["text"] for page in found.values())


def test_pages_show_tree_product_and_search(tmp_path):
    write_explorer(tmp_path, given())
    found = pages(
        tmp_path,
        "#/",
        "#/product/p1",
        "#/product/a%2Fb%20%C3%BC",
        "#/sid/esci/0_0",
        "?creme TEA",
        "?0_0",
        "?p3",
        "?quinoa",
    )
    assert "5 products as of 2026-01-05" in found["#/"]["text"]
    assert "distinct share0.75-" in found["#/"]["text"]
    product = found["#/product/p1"]["text"]
    # The product of the same SID comes before the one that shares two levels.
    assert product.index("shares 4 of 4 levels") < product.index("shares 2 of 4 levels")
    assert "0_0_0_0" in product and "3_0_0_0" in product
    assert "This product has no SID in this flavour." in found["#/product/a%2Fb%20%C3%BC"]["text"]
    prefix = found["#/sid/esci/0_0"]
    assert "3 products" in prefix["text"]
    assert {"#/sid/esci/0_0_0", "#/sid/esci/0_0_1", "#/product/p2"} <= set(prefix["links"])
    assert found["?creme TEA"]["hash"] == "#/search/creme%20TEA"
    assert [link for link in found["?creme TEA"]["links"] if "product" in link] == ["#/product/p2"]
    assert "#/sid/esci/0_0" in found["?0_0"]["links"]
    assert "#/product/p3" in found["?p3"]["links"]
    assert "Nothing here matches" in found["?quinoa"]["text"]
    # The opened tree ends at the products.
    assert "#/product/p2" in found["tree"]["links"]
    assert len(found["tree"]["links"]) == 10 + 4


@pytest.mark.parametrize(
    "address",
    ["#/product/none", "#/sid/esci/9_9", "#/sid/none/0", "#/sid/esci", "#/constructor", "#/product/%E0%A4%A"],
)
def test_a_wrong_address_says_so(tmp_path, address):
    write_explorer(tmp_path, given())
    assert "Not found" in pages(tmp_path, address)[address]["text"]


def test_a_big_catalogue_is_cut_and_says_so(tmp_path):
    n = 300
    codes = np.stack([np.arange(n) % 3, np.arange(n) % 6, np.arange(n) % 10, np.zeros(n, int)], axis=1)
    big = ExplorerInput(
        title="Big",
        as_of_snapshot="2026-01-05",
        product_ids=[f"p{row:03d}" for row in range(n)],
        titles=[f"thing {row}" for row in range(n)],
        flavours=[ExplorerFlavour("esci", "r1", codes)],
        max_products=50,
        products_per_prefix=4,
    )
    write_explorer(tmp_path, big)
    # Six prefixes of two levels with four products each.
    assert len(data_of(tmp_path / "data/products.js")) == 24
    flavour = data_of(tmp_path / "data/flavour_0.js")
    assert {len(row[0].split("_")) for row in flavour["prefixes"]} == {1, 2}
    assert sum(row[1] for row in flavour["prefixes"] if "_" not in row[0]) == n
    found = pages(tmp_path, "#/", "#/sid/esci/0_0", "#/product/p299")
    assert "holds 24 products of them" in found["#/"]["text"]
    assert "4 of 50 shown. sid show 0_0 lists the rest." in found["#/sid/esci/0_0"]["text"]
    assert "try sid show" in found["#/product/p299"]["text"]


def test_no_products_and_one_product(tmp_path):
    nothing = given(
        product_ids=[],
        titles=[],
        brands=None,
        categories=None,
        texts=None,
        flavours=[ExplorerFlavour("esci", "r1", np.zeros((0, 4), int))],
    )
    write_explorer(tmp_path / "none", nothing)
    assert "0 products" in pages(tmp_path / "none", "#/")["#/"]["text"]
    alone = given(
        product_ids=["p"],
        titles=["tea"],
        brands=None,
        categories=None,
        texts=None,
        flavours=[ExplorerFlavour("esci", "r1", np.zeros((1, 4), int))],
    )
    write_explorer(tmp_path / "one", alone)
    assert "No other product" in pages(tmp_path / "one", "#/product/p")["#/product/p"]["text"]


def test_wrong_input_is_named(tmp_path):
    with pytest.raises(ValueError, match="titles has 1 rows and product_ids 5"):
        write_explorer(tmp_path, given(titles=["one"]))
    with pytest.raises(ValueError, match="two flavours have one name"):
        write_explorer(tmp_path, given(flavours=[ExplorerFlavour("esci", "r1", ESCI)] * 2))
    assert list(tmp_path.iterdir()) == []
