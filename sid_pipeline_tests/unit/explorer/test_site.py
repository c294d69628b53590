from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sid_pipeline.evaluation.codebook_diff import diff
from sid_pipeline.evaluation.names import prefix_names
from sid_pipeline.evaluation.report import EvaluationInput, evaluate
from sid_pipeline.explorer.site import ExplorerFlavour, ExplorerInput, held_rows, write_explorer
from sid_pipeline.sids import spelt
from sid_pipeline_tests.unit.evaluation.conftest import Catalogue, catalogue, products  # noqa: F401

NASTY = '<script>alert(1)</script> & "tea" \u2028 </script>'
IDS = ["p1", "p2", "p3", "p4", "a/b ü"]
TITLES = ["Green tea", "Crème tea", "Soap", NASTY, "Green soap"]
CATEGORIES = [("food", "tea"), ("food", "tea"), ("home", "soap"), None, ("home", "soap")]
BRANDS = ["Ayla", None, "Fernwood", "", None]
TEXTS = pa.array(["Green tea", "a fine one", None, NASTY, "x" * 5_000])
PRODUCTS = products(IDS, TITLES, CATEGORIES, BRANDS).append_column("description", TEXTS)
ESCI = np.array([[0, 0, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [-1, -1, -1, -1]])
GEMMA = np.array([[3, 0, 0, 0], [3, 0, 0, 0], [3, 1, 0, 0], [4, 0, 0, 0], [4, 0, 0, 1]])


def given(**changes) -> ExplorerInput:
    parts = {
        "title": "Sample catalogue",
        "as_of_snapshot": "2026-01-05",
        "products": PRODUCTS,
        "flavours": [
            ExplorerFlavour("esci", "r1", ESCI),
            ExplorerFlavour("esci_gemma", "r2", GEMMA),
        ],
    }
    return ExplorerInput(**{**parts, **changes})


def data_of(file: Path):
    """The value that a data script assigns."""
    text = file.read_text(encoding="ascii")
    start, _, value = text.partition(" = ")
    assert re.fullmatch(r"window\.SID_DATA\.(catalogue|products|flavours\[\d\])", start)
    return json.loads(value.removesuffix(";\n"))


def test_data_holds_all_products_with_their_sids_and_names(tmp_path):
    index = write_explorer(tmp_path / "site", given())
    assert index == tmp_path / "site" / "index.html"
    assert data_of(tmp_path / "site/data/catalogue.js")["held"] == 5
    products = data_of(tmp_path / "site/data/products.js")
    # A text that repeats the title is left out, a long one is cut.
    assert products[0] == ["p1", "Green tea", "Ayla", "food > tea", ""]
    assert products[3][1] == NASTY
    assert len(products[4][4]) == 240
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
    names = prefix_names(GEMMA, products(IDS, TITLES))
    flavours = [ExplorerFlavour("esci", "r1", ESCI), ExplorerFlavour("esci_gemma", "r2", GEMMA, names=names)]
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
    for source in re.findall(r'(?:src|href)="(?!data:)([^"#]+)"', html):
        assert (tmp_path / source).is_file(), source
    assert "data/flavour_1.js" in html
    assert (tmp_path / "vendor" / "LICENSES.txt").is_file()
    for file in (index, tmp_path / "explorer.js", tmp_path / "style.css"):
        assert not re.search(r"https?:|//cdn|@import|fetch\(|XMLHttpRequest", file.read_text(encoding="utf-8"))


def test_texts_never_reach_the_page_as_markup(tmp_path):
    write_explorer(tmp_path, given())
    script = (tmp_path / "explorer.js").read_text(encoding="utf-8")
    assert not re.search(
        r"innerHTML|outerHTML|dangerouslySet|insertAdjacentHTML|document\.write|eval\(|new Function", script
    )
    assert "<script>alert" not in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_a_big_catalogue_is_cut_and_says_so(tmp_path):
    n = 300
    codes = np.stack([np.arange(n) % 3, np.arange(n) % 6, np.arange(n) % 10, np.zeros(n, int)], axis=1)
    every = products([f"p{row:03d}" for row in range(n)], [f"thing {row}" for row in range(n)])
    assert held_rows([codes], most=n).tolist() == list(range(n))
    held = held_rows([codes], most=50, of_a_prefix=4)
    flavour = ExplorerFlavour("esci", "r1", codes[held], without_sid=7, names=prefix_names(codes, every))
    write_explorer(tmp_path, ExplorerInput("Big", "2026-01-05", every.take(held), [flavour], total=n))
    # Six prefixes of two levels with four products each.
    assert len(data_of(tmp_path / "data/products.js")) == 24
    flavour = data_of(tmp_path / "data/flavour_0.js")
    assert {len(row[0].split("_")) for row in flavour["prefixes"]} == {1, 2}
    assert sum(row[1] for row in flavour["prefixes"] if "_" not in row[0]) == n
    shown = data_of(tmp_path / "data/catalogue.js")
    assert (shown["held"], shown["total"]) == (24, n)
    assert data_of(tmp_path / "data/flavour_0.js")["without_sid"] == 7


def test_no_products_and_one_product(tmp_path):
    nothing = given(
        products=products([], []),
        flavours=[ExplorerFlavour("esci", "r1", np.zeros((0, 4), int))],
    )
    write_explorer(tmp_path / "none", nothing)
    assert data_of(tmp_path / "none/data/products.js") == []
    alone = given(
        products=products(["p"], ["tea"]),
        flavours=[ExplorerFlavour("esci", "r1", np.zeros((1, 4), int))],
    )
    write_explorer(tmp_path / "one", alone)
    assert data_of(tmp_path / "one/data/flavour_0.js")["codes"] == [[0, 0, 0, 0]]


def test_wrong_input_is_named(tmp_path):
    with pytest.raises(ValueError, match="codes of esci has 5 rows and products 1"):
        write_explorer(tmp_path, given(products=products(["p"], ["one"])))
    with pytest.raises(ValueError, match="two flavours have one name"):
        write_explorer(tmp_path, given(flavours=[ExplorerFlavour("esci", "r1", ESCI)] * 2))
    assert list(tmp_path.iterdir()) == []


def test_a_flavour_carries_its_report_its_unusual_products_and_its_changes(tmp_path, catalogue: Catalogue):  # noqa: F811
    report = evaluate(
        EvaluationInput(
            flavour="esci",
            release="r2",
            as_of_snapshot="2026-01-06",
            product_ids=catalogue.ids,
            texts=catalogue.titles,
            categories=catalogue.categories,
            vectors=catalogue.vectors,
            codes=catalogue.codes,
            codebook_size=int(catalogue.codes.max()) + 1,
            others={"live (r1)": catalogue.codes},
        )
    )
    # As it comes back from its file, where keys are sorted.
    read = json.loads(json.dumps(report.to_dict(), sort_keys=True))
    moved = catalogue.ids[3]
    now = catalogue.codes.copy()
    now[3] = now[3][::-1]
    old, new = (pa.table({"product_id": catalogue.ids, "sid": spelt(codes)}) for codes in (catalogue.codes, now))
    changes = diff(old, new)
    changes["moved_examples"] = [{**row, "why": "text_changed"} for row in changes["moved_examples"]]
    flavour = ExplorerFlavour(
        "esci",
        "r2",
        catalogue.codes,
        report=read,
        unusual=[{"product_id": moved, "distance": 0.5, "margin": 0.1}],
        previous={**changes, "against": "r1 as of 2026-01-05", "reasons": {"text_changed": 1}},
    )
    write_explorer(
        tmp_path,
        ExplorerInput(
            "Sample", "2026-01-06", products(catalogue.ids, catalogue.titles, catalogue.categories), [flavour]
        ),
    )
    data = data_of(tmp_path / "data/flavour_0.js")
    assert data["report"]["tables"][:3] == ["this release", "live (r1)", "residual k-means"]
    usage = next(row for row in data["report"]["figures"] if row["key"] == "usage_l1")
    assert usage["cells"][0]["value"] == pytest.approx(report.headline()["usage_l1"])
    assert data["unusual"][0]["product_id"] == moved
    assert data["previous"]["reasons"] == {"text_changed": 1}
    assert all(row["why"] == "text_changed" for row in data["previous"]["moved_examples"])
