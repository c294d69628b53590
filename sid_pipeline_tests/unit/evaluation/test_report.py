from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest

from sid_pipeline.evaluation.baselines import fit_residual_kmeans
from sid_pipeline.evaluation.page import render_html
from sid_pipeline.evaluation.report import EvaluationInput, Sampling, cell, evaluate

SMALL = Sampling(random_pairs=400, anchors=20, neighbours=8, pairs_per_band=50)
NASTY = "<script>alert(1)</script> | `tea` & *jam*\n[x](http://nowhere.example)"


def given(catalogue, **changes) -> EvaluationInput:
    parts = {
        "flavour": "esci",
        "release": "r1",
        "as_of_snapshot": "2026-01-05",
        "product_ids": catalogue.ids,
        "texts": catalogue.titles,
        "categories": catalogue.categories,
        "vectors": catalogue.vectors,
        "codes": catalogue.codes,
        "codebook_size": 8,
        "sampling": SMALL,
    }
    return EvaluationInput(**{**parts, **changes})


def shape(value):
    """The keys of nested dicts, without the values."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    return None


def test_figures_equal_the_benchmarks(workload, tmp_path):
    work = workload.make_workload(n=1_500, d=32, n_dept=4, n_aisle=4, n_leaf=4, s_item=0.15, cache_dir=str(tmp_path))
    model = fit_residual_kmeans(work.x, 4, 16, seed=1)
    codes = model.assign(work.x)
    back = model.reconstruct(codes)
    pairs = workload.make_pairs(work.x, n_random=3_000, n_anchor=60, k=20, seed=11, cache_dir=str(tmp_path))
    expected = workload.quality(codes, work, pairs, [16] * 4, back)
    report = evaluate(
        EvaluationInput(
            flavour="esci",
            release="r1",
            as_of_snapshot="2026-01-05",
            product_ids=[str(row) for row in range(1_500)],
            texts=[str(row) for row in range(1_500)],
            categories=[
                (f"d{dept:02d}", f"a{aisle:02d}")
                for dept, aisle in zip(work.dept.tolist(), work.aisle.tolist(), strict=True)
            ],
            vectors=work.x,
            codes=codes,
            reconstruct=lambda rows: back[rows],
            codebook_size=16,
            seed=11,
            sampling=Sampling(random_pairs=3_000, anchors=60, neighbours=20, pairs_per_band=50),
        )
    )
    ours, head = report.to_dict()["tables"]["ours"], report.headline()
    assert expected["n_pairs90"] > 50
    assert head["pairs90"] == expected["n_pairs90"]
    assert head["rel_mse"] == pytest.approx(expected["rel_mse"], rel=1e-5)
    assert head["distinct_sids"] == expected["unique_sids"]
    assert head["collision_rate"] == pytest.approx(expected["collision_rate"])
    assert head["largest_bucket"] == expected["max_bucket"]
    assert head["spearman_random_and_neighbour"] == pytest.approx(expected["spearman_all"], abs=1e-5)
    assert head["spearman_neighbour"] == pytest.approx(expected["spearman_nn"], abs=1e-5)
    for level in range(4):
        assert head[f"usage_l{level + 1}"] == pytest.approx(expected["usage"][level])
        assert head[f"perplexity_l{level + 1}"] == pytest.approx(expected["perplexity"][level])
        assert head[f"share90_l{level + 1}"] == pytest.approx(expected["share90"][level])
    taxonomy = {(row["prefix_level"], row["tree_level"]): row for row in ours["taxonomy"]}
    assert taxonomy[1, 1]["nmi"] == pytest.approx(expected["nmi_l1_dept"])
    assert taxonomy[1, 1]["purity"]["value"] == pytest.approx(expected["purity_l1_dept"])
    assert taxonomy[2, 2]["nmi"] == pytest.approx(expected["nmi_l2_aisle"])
    assert taxonomy[2, 2]["purity"]["value"] == pytest.approx(expected["purity_l2_aisle"])


def test_report_is_json_and_puts_the_baselines_beside(catalogue):
    report = evaluate(given(catalogue, others={"live r0": catalogue.codes[::-1].copy()}))
    data = report.to_dict()
    json.dumps(data, allow_nan=False)
    assert list(data["tables"]) == ["ours", "live r0", "residual_kmeans", "category_prefix", "random_codes"]
    assert all(isinstance(value, float) and math.isfinite(value) for value in report.headline().values())
    glance = {row["figure"]: row for row in report.glance()}
    row = glance["AMI, L1..L2 with the leaf categories"]
    assert list(row)[1:] == ["this release", "live r0", "residual k-means"]
    assert row["this release"] == "1.000" and float(row["residual k-means"]) < 1
    # The codes are the categories, so they agree with them fully.
    assert report.headline()["ami_l1_top"] == pytest.approx(1)
    assert report.headline()["fragmentation_l2"] == pytest.approx(1)
    assert data["tables"]["live r0"]["taxonomy"][0]["ami"]["value"] == pytest.approx(1)
    assert data["tables"]["random_codes"]["taxonomy"][0]["ami"]["value"] < 0.5
    markdown = report.to_markdown()
    assert "| figure | ours | live r0 | residual\\_kmeans |" in markdown
    assert len({line.count(" | ") for line in markdown.splitlines() if line.startswith("| usage")}) == 1


def test_same_input_same_report_in_data_and_on_the_page(catalogue):
    first, second = evaluate(given(catalogue)), evaluate(given(catalogue))
    assert first.to_dict() == second.to_dict()
    assert render_html(first) == render_html(second)
    assert evaluate(given(catalogue, seed=1)).to_dict() != first.to_dict()


def test_keys_do_not_depend_on_the_values(catalogue):
    full = shape(evaluate(given(catalogue, reconstruct=lambda rows: catalogue.vectors[rows])).to_dict())
    worse = shape(evaluate(given(catalogue, codes=np.zeros((60, 4), int), texts=["same"] * 60)).to_dict())
    assert {key: value for key, value in full.items() if key != "tables"} == {
        key: value for key, value in worse.items() if key != "tables"
    }
    assert full["tables"].keys() == worse["tables"].keys()
    assert full["tables"]["ours"].keys() == worse["tables"]["ours"].keys()


def test_all_products_under_one_code(catalogue):
    report = evaluate(given(catalogue, codes=np.zeros((60, 4), np.int64)))
    head = report.headline()
    assert head["distinct_sids"] == 1
    assert head["usage_l1"] == 1 / 8
    assert "spearman_random" not in head
    assert head["ami_l1_top"] == pytest.approx(0, abs=1e-9)
    assert report.to_dict()["different_texts"]["items"] == 60
    assert "| Spearman, random pairs | - |" in report.to_markdown()
    render_html(report)


def test_one_product(catalogue):
    report = evaluate(
        given(
            catalogue,
            product_ids=["p"],
            texts=["tea"],
            categories=[("food", "tea")],
            vectors=catalogue.vectors[:1],
            codes=catalogue.codes[:1],
            reconstruct=lambda rows: catalogue.vectors[:1],
        )
    )
    head = report.headline()
    assert (head["items"], head["distinct_share"], head["pairs90"]) == (1, 1, 0)
    assert "rel_mse" not in head
    assert "share90_l1" not in head
    assert head["reconstruction_cosine"] == pytest.approx(1)
    json.dumps(report.to_dict(), allow_nan=False)
    assert "no such pairs" in render_html(report)


@pytest.mark.parametrize("categories", [None, [None] * 60, [()] * 60])
def test_no_categories(catalogue, categories):
    report = evaluate(given(catalogue, categories=categories))
    data = report.to_dict()
    assert data["tree_levels"] == data["categorised_items"] == 0
    assert "category_prefix" not in data["tables"]
    assert not [key for key in report.headline() if key.startswith(("ami", "fragmentation", "error"))]
    assert "taxonomy" not in report.to_markdown()
    assert "Fragmentation" not in render_html(report)


def test_no_near_duplicates(catalogue):
    report = evaluate(given(catalogue, vectors=np.eye(60, dtype=np.float32)))
    assert report.to_dict()["tables"]["ours"]["share90"] == [None] * 4
    assert report.headline()["pairs90"] == 0


def test_the_whole_catalogues_codes_give_the_health_figures(catalogue):
    everything = np.concatenate([catalogue.codes, catalogue.codes, [[7, 7, 7, 7]]])
    report = evaluate(given(catalogue, all_codes=everything))
    head = report.headline()
    assert head["items"] == 121
    assert head["distinct_sids"] == 31
    assert head["distinct_share"] == pytest.approx(31 / 121)
    assert head["usage_l1"] == 3 / 8
    assert report.to_dict()["tables"]["ours"]["sids"]["distinct_sids"] == 30
    # The products are then a sample, and figures over them have an interval.
    purity = report.to_dict()["tables"]["random_codes"]["taxonomy"][0]["purity"]
    assert purity["low"] < purity["value"] < purity["high"]
    assert "121 products" in report.to_markdown()
    assert "121 products" in render_html(report)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"texts": ["one"]}, "texts has 1 rows and codes has 60"),
        ({"codes": np.zeros((0, 4), int)}, "at least one product"),
        ({"codes": np.full((60, 4), 8)}, "the code 8; codes run from 0 to 7"),
        ({"codes": np.zeros((60, 4))}, "codes are integers"),
        ({"others": {"live": np.zeros((60, 3), int)}}, r"others\['live'\] has shape \(60, 3\)"),
        ({"others": {"ours": np.zeros((60, 4), int)}}, "may not be named ours"),
        ({"reconstruct": lambda rows: np.zeros((1, 3), np.float32)}, "reconstruct gives rows of shape"),
        ({"all_codes": np.full((9, 4), -1)}, "all_codes holds the code -1"),
        ({"vectors": np.full((60, 16), np.nan, np.float32)}, "vectors of 60 products hold NaN"),
    ],
)
def test_parts_that_do_not_fit_are_named(catalogue, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        evaluate(given(catalogue, **changes))


def test_catalogue_texts_stay_texts(catalogue):
    texts = [f"{NASTY} {row}" for row in range(60)]
    categories = [(NASTY, f"{NASTY} {row % 2}") for row in range(60)]
    report = evaluate(
        given(catalogue, texts=texts, categories=categories, flavour=NASTY, others={NASTY: catalogue.codes})
    )
    data = report.to_dict()
    assert data["different_texts"]["worst"]
    page = render_html(report, names={"0": NASTY})
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    markdown = report.to_markdown()
    assert "<script" not in markdown
    assert not re.search(r"(?<!\\)\]\(", markdown)
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in markdown.splitlines() if line.startswith("| `")}
    assert widths == {5}


def test_page_needs_nothing_besides_itself(catalogue):
    page = render_html(evaluate(given(catalogue)), names={"0_1": "food > banana"})
    assert not re.search(r"(src|href)\s*=|url\(|@import|https?:", page)
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page
    assert page.count("<rect") == 4 * 8


def test_cell_is_one_short_line():
    assert cell("a\n b\t c") == "a b c"
    assert cell("x" * 90) == "x" * 79 + "…"
    assert cell("a|b*c_[d]`<e>\\") == "a\\|b\\*c\\_\\[d\\]\\`&lt;e&gt;\\\\"


def test_another_table_is_judged_on_the_products_that_it_has(catalogue):
    gone = np.array(catalogue.codes)
    gone[::10] = -1
    table = evaluate(given(catalogue, others={"live": gone})).to_dict()["tables"]["live"]
    kept = np.delete(np.arange(len(gone)), np.s_[::10])
    assert table["sids"]["distinct_sids"] == len(np.unique(catalogue.codes[kept], axis=0))
    assert f"of which it has {len(kept)}" in table["note"]
    half = gone.copy()
    half[0] = [0, -1, -1, -1][: half.shape[1]]
    with pytest.raises(ValueError, match="-1 at every level"):
        evaluate(given(catalogue, others={"live": half}))


def test_a_sample_has_intervals_and_whole_catalogue_counts(catalogue):
    n = len(catalogue.codes)
    everything = np.concatenate([catalogue.codes] * 5)
    report = evaluate(
        given(
            catalogue,
            all_codes=everything,
            all_texts=np.repeat(np.arange(5), n),
            reconstruct=lambda rows: catalogue.vectors[rows] * 0.5,
        )
    )
    ours = report.to_dict()["tables"]["ours"]
    for estimate in (
        ours["faithfulness"]["cosine"],
        ours["faithfulness"]["rel_mse"],
        ours["fragmentation"]["levels"][0]["effective_weighted"],
        ours["error_propagation"]["levels"][0]["share"],
    ):
        assert estimate["low"] <= estimate["value"] <= estimate["high"] and estimate["n"] <= n
    assert ours["faithfulness"]["rel_mse"]["low"] < ours["faithfulness"]["rel_mse"]["high"]
    assert [sum(counts) for counts in report.to_dict()["code_counts"]] == [5 * n] * catalogue.codes.shape[1]
    # Each SID stands five times, under five texts.
    assert report.headline()["items_same_sid_different_text"] == 5 * n
    whole = evaluate(given(catalogue, reconstruct=lambda rows: catalogue.vectors[rows] * 0.5)).to_dict()["tables"][
        "ours"
    ]
    assert whole["faithfulness"]["rel_mse"]["low"] == whole["faithfulness"]["rel_mse"]["high"]
