"""The explorer in a real browser: headless Chromium of the system, driven by Playwright, the site opened from disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sid_pipeline.evaluation.codebook_diff import diff
from sid_pipeline.evaluation.comparison import CodeTable, compare_flavours
from sid_pipeline.evaluation.report import EvaluationInput, Sampling, evaluate
from sid_pipeline.explorer.site import ExplorerFlavour, ExplorerInput, write_explorer
from sid_pipeline.sids import spelt
from sid_pipeline_tests.unit.evaluation.conftest import products

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
NASTY = '<script>window.broken = true</script><img src=x onerror="window.broken = true">'
N = 60


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of 60 products in two flavours, with a report, a comparison and changes; one product is nasty."""
    rng = np.random.default_rng(0)
    kinds = np.arange(N) % 6
    x = (np.eye(6, 16)[kinds] + 0.05 * rng.standard_normal((N, 16))).astype(np.float32)
    esci = np.stack([kinds // 2, kinds % 2, np.arange(N) % 5, np.arange(N) % 7], axis=1)
    gemma = np.stack([kinds % 3, kinds // 3, np.arange(N) % 5, np.arange(N) % 7], axis=1)
    ids = [f"p{row:02d}" for row in range(N)]
    titles = [f"crème tea {row}" if row % 6 == 0 else f"thing {row} of kind {row % 6}" for row in range(N)]
    titles[7] = NASTY
    categories = [("drinks" if kind < 3 else "home", f"kind {kind}") for kind in kinds.tolist()]
    flavours = []
    for name, codes in (("esci", esci), ("esci_gemma", gemma)):
        report = evaluate(
            EvaluationInput(
                flavour=name, release="r1", as_of_snapshot="2026-01-06", product_ids=ids, texts=titles,
                categories=categories, vectors=x, codes=codes, codebook_size=8,
                sampling=Sampling(random_pairs=500, anchors=30, neighbours=12, pairs_per_band=50),
            )
        )  # fmt: skip
        new = pa.table({"product_id": ids, "sid": spelt(codes)})
        before = {**dict(zip(ids, new["sid"].to_pylist(), strict=True)), "p03": "0_0_0_0", "gone": "1_1_1_1"}
        old = pa.table({"product_id": list(before), "sid": list(before.values())})
        changes = diff(old, new, lambda wanted: dict(zip(ids, titles, strict=True)))
        changes["moved_examples"] = [{**row, "why": "text_changed"} for row in changes["moved_examples"]]
        changes |= {"against": "r1 as of 2026-01-05", "reasons": {"text_changed": 1}}
        flavours.append(
            ExplorerFlavour(
                name, "r1", codes, report=report.to_dict(), previous=changes,
                unusual=[{"product_id": "p07", "distance": 1.5, "margin": 0.1}],
            )
        )  # fmt: skip
    coded = (("esci", esci), ("esci_gemma", gemma))
    every = products(ids, titles, categories)
    tables = [CodeTable(name, every, codes) for name, codes in coded]
    folder = tmp_path_factory.mktemp("explorer")
    given = ExplorerInput(
        "Sample", "2026-01-06", every.append_column("description", pa.array([NASTY] * N)), flavours,
        comparison=compare_flavours(*tables),
    )  # fmt: skip
    return write_explorer(folder, given)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium; skips where the system has none."""
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no chromium is installed (Debian: apt install chromium)")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(params=["wide", "phone"])
def page(request: pytest.FixtureRequest, browser: Any, site: Path) -> Iterator[Any]:
    """The start page; afterwards nothing was complained of, and nothing off the site was asked for."""
    size = {"width": 1280, "height": 900} if request.param == "wide" else {"width": 390, "height": 844}
    context = browser.new_context(viewport=size, color_scheme="light" if request.param == "wide" else "dark")
    opened = context.new_page()
    told: list[str] = []
    asked: list[str] = []
    opened.on("console", lambda message: told.append(message.text))
    opened.on("pageerror", lambda error: told.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(site.as_uri())
    yield opened
    assert told == []
    assert [url for url in asked if not url.startswith((site.parent.as_uri(), "data:"))] == []
    assert not opened.evaluate("'broken' in window"), "a product's text ran as code"
    context.close()


def go(page: Any, address: str) -> str:
    page.evaluate(f"location.hash = {address!r}")
    page.wait_for_function("document.activeElement === document.getElementById('main')")
    return page.inner_text("main")


def test_search_finds_words_products_and_sids(page):
    expectations = {"creme TEA": "crème tea 0", "p03": "thing 3", "1_1": "esci · ", "quinoa": "Nothing here"}
    for query, expected in expectations.items():
        page.fill("#query", query)
        page.press("#query", "Enter")
        page.wait_for_function(f"document.querySelector('main h1').textContent === 'Search: ' + {query!r}")
        assert expected in page.inner_text("main")


def test_the_tree_expands_to_the_products_by_keyboard(page):
    if page.viewport_size["width"] < 800:
        page.click("nav.tabs >> text=Tree")
    tree = page.locator(".tree >> visible=true").first
    for level in range(4):
        toggle = tree.locator(f"{'li ' * (level + 1)}.toggle[aria-expanded=false]").first
        toggle.focus()
        page.keyboard.press("Enter")
    leaf = tree.locator(".leaf a").first
    name = leaf.inner_text()
    leaf.focus()
    page.keyboard.press("Enter")
    page.wait_for_function("location.hash.startsWith('#/product/')")
    page.wait_for_function(f"document.querySelector('main h1').textContent === {name!r}")
    text = page.inner_text("main")
    assert "esci_gemma" in text and "Nearest by code" in text
    assert page.locator("main .levels[aria-label$='of 4 levels']").count() > 2


def test_every_page_has_its_content_and_fits_the_screen(page):
    expected = {
        "#/": "60 products as of 2026-01-06",
        "#/health/esci": "How the codes are used",
        "#/fragmented/esci_gemma": "spread over",
        "#/suspicious/esci": "Unlike anything in training",
        "#/flavours": "Held together by esci only",
        "#/changes/esci": "its text changed",
        "#/sid/esci/1": "One level deeper",
        "#/product/p07": NASTY,
        "#/product/none": "Not found",
        "#/sid/esci/7_7": "Not found",
        "#/constructor/esci": "Not found",
        "#/product/%E0%A4%A": "Not found",
    }
    for address, text in expected.items():
        assert text in (page.inner_text("main") if address == "#/" else go(page, address)), address
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{address} is wider than the screen"
    go(page, "#/health/esci")
    page.wait_for_selector("main figure svg[role=img]")
    assert page.locator("main figure svg[role=img]").count() == 6  # near-duplicates, four levels, agreement
    assert page.locator("main thead >> text=this release").count() >= 3


def test_comparing_flavours_and_switching_between_them(page):
    assert "Categories that" in go(page, "#/flavours")
    go(page, "#/health/esci")
    page.click("main nav.switch >> text=esci_gemma")
    page.wait_for_function("document.querySelector('main h1').textContent === 'Health of esci_gemma'")
    assert page.get_attribute("main nav.switch a[aria-current=page]", "href") == "#/health/esci_gemma"
