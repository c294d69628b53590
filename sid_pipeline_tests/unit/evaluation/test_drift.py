"""The drift monitors: silent on quiet years, and each kind of drift fires with its figures."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest

from sid_pipeline.evaluation.drift import MONITORS, Night, advice, judge
from sid_pipeline.keys import MAX_TOKENS


def quiet_year(seed: int, nights: int = 365, products: int = 50_000) -> list[Night]:
    """Nights on which nothing happens that anybody must know of.

    Counts are binomial, the level of each figure wanders a little from day to day (first-order autoregressive, .9), the
    catalogue breathes with the week, one night in a hundred has ten times its rejected rows, and the cost of a text is
    skewed.
    """
    rng = np.random.default_rng(seed)

    def wander(sigma: float) -> np.ndarray:
        steps, level = rng.normal(0, sigma * np.sqrt(1 - 0.9**2), nights), np.zeros(nights)
        for night in range(1, nights):
            level[night] = 0.9 * level[night - 1] + steps[night]
        return level

    def share(p: float) -> np.ndarray:
        return rng.binomial(products, np.clip(p * np.exp(wander(0.15)), 0, 1)) / products

    week = 0.01 * np.sin(2 * np.pi * np.arange(nights) / 7)
    base = rng.uniform(0.1, 0.4)
    figures = {
        "out_of_distribution": share(0.01),
        "mean_distance": base * (1 + wander(0.01) + week / 2),
        **{f"usage_l{level}": np.clip(u + wander(0.004), 0, 1) for level, u in enumerate((1, 0.99, 0.95, 0.9), 1)},
        "collision_rate": 0.1 + wander(0.003),
        "without_a_sid": share(0.0005),
        "rejected": share(0.0008) * np.where(rng.random(nights) < 0.01, 10, 1),
        "rejected_offers": share(0.0008) * np.where(rng.random(nights) < 0.01, 10, 1),
        "products": products * (1 + week + wander(0.01)),
        "fallback": share(0.01),
        "cost_per_text": 2e-4 * rng.lognormal(0, 0.1, nights),
    }
    first = date(2026, 1, 5)
    return [
        Night(
            (first + timedelta(days=night)).isoformat(),
            {name: float(values[night]) for name, values in figures.items()},
        )
        for night in range(nights)
    ]


def alarms(nights: list[Night]) -> list[tuple[str, str, str]]:
    """Night, figure and kind of every finding, each night judged with those before it."""
    return [
        (nights[last].snapshot, finding.monitor.figure, finding.kind)
        for last in range(len(nights))
        for finding in judge(nights[: last + 1])
    ]


def changed(nights: list[Night], figure: str, change, since: int) -> list[Night]:
    return [
        Night(n.snapshot, {**n.figures, figure: change(n.figures[figure], i - since)}) if i >= since else n
        for i, n in enumerate(nights)
    ]


def test_every_figure_of_the_quiet_year_is_watched():
    deeper = {f"usage_l{level}" for level in range(5, MAX_TOKENS + 1)}  # than the year's four levels
    assert {monitor.figure for monitor in MONITORS} - deeper == set(quiet_year(0, 1)[0].figures)


def test_every_level_is_watched():
    nights = [Night(n.snapshot, {**n.figures, f"usage_l{MAX_TOKENS}": 0.9}) for n in quiet_year(0, 40)]
    (finding,) = judge(changed(nights, f"usage_l{MAX_TOKENS}", lambda x, n: x - 0.15, since=39))
    assert finding.monitor.figure == f"usage_l{MAX_TOKENS}"


@pytest.mark.parametrize("seed", range(5))
def test_quiet_years_are_silent(seed):
    assert alarms(quiet_year(seed)) == []


@pytest.mark.parametrize(
    ("figure", "change", "rebuild"),
    [
        ("out_of_distribution", lambda x, n: x + 0.05, True),
        ("mean_distance", lambda x, n: x * 1.3, True),
        ("usage_l1", lambda x, n: x - 0.15, True),
        ("usage_l4", lambda x, n: x - 0.15, True),
        ("collision_rate", lambda x, n: x + 0.08, True),
        ("without_a_sid", lambda x, n: x + 0.02, False),
        ("rejected", lambda x, n: x + 0.03, False),
        ("rejected_offers", lambda x, n: x + 0.03, False),
        ("products", lambda x, n: x * 0.7, False),
        ("products", lambda x, n: x * 1.3, False),
        ("fallback", lambda x, n: x + 0.3, False),
        ("cost_per_text", lambda x, n: x * 4, False),
    ],
)
def test_a_jump_is_told_the_very_night_with_its_figures(figure, change, rebuild):
    for seed in range(20):
        nights = changed(quiet_year(seed, 40), figure, change, since=39)
        (finding,) = judge(nights)
        assert (finding.monitor.figure, finding.kind, finding.monitor.rebuild) == (figure, "jump", rebuild)
        value = nights[-1].figures[figure]
        assert (f"{value:,.0f}" if value > 100 else f"{value:.4g}") in finding.sentence
        assert "last 28 nights" in finding.sentence
        assert ("build a release" in advice([finding])) is rebuild
        assert not judge(nights[:-1])


@pytest.mark.parametrize(
    ("figure", "change"),
    [
        ("out_of_distribution", lambda x, n: x + 0.0005 * n),
        ("mean_distance", lambda x, n: x * (1 + 0.002 * n)),
        ("usage_l3", lambda x, n: x - 0.001 * n),
    ],
)
def test_what_moves_a_little_every_night_is_told_before_it_has_moved_far(figure, change):
    for seed in range(5):
        nights = changed(quiet_year(seed, 150), figure, change, since=20)
        told = [found for found in alarms(nights) if found[1] == figure]
        assert told and told[0][2] == "creep", told
        assert all(found[1] == figure for found in alarms(nights))


def test_better_is_no_drift_and_a_few_nights_say_nothing():
    nights = changed(quiet_year(1, 40), "mean_distance", lambda x, n: x * 0.5, since=39)
    assert judge(nights) == []
    young = changed(quiet_year(1, 7), "mean_distance", lambda x, n: x * 5, since=6)
    assert judge(young) == [] and judge([]) == []


def few(*nights: dict[str, float]) -> list[Night]:
    return [Night(f"2026-01-{day:02}", figures) for day, figures in enumerate(nights, 5)]


@pytest.mark.parametrize(("products", "told"), [(4794, True), (4900, False), (5900, False), (6100, True)])
def test_products_are_judged_from_the_second_night_on_both_ways(products, told):
    assert judge(few({"products": 5437})) == []
    findings = judge(few({"products": 5437}, {"products": products}))
    assert bool(findings) is told
    if told:
        (finding,) = findings
        assert finding.sentence == (
            f"products in the catalogue {products:,}, the night before 5,437, let pass a change of 544"
        )
        assert advice(findings).startswith("Look at the delivery")


def test_one_cut_night_does_not_accuse_the_whole_one_after_it():
    nights = few({"products": 5437}, {"products": 4794}, {"products": 5437})
    assert judge(nights) == []
    (finding,) = judge([*nights, Night("2026-01-08", {"products": 4000})])
    assert "over the 3 nights before 5,437" in finding.sentence


@pytest.mark.parametrize("figure", ["rejected", "rejected_offers"])
def test_rejected_rows_are_judged_from_the_first_night_on(figure):
    assert judge(few({figure: 0.05})) == []
    (finding,) = judge(few({figure: 0.12}))
    assert finding.sentence.endswith("rejected 0.12, the first night that has it, let pass a change of 0.05")
    assert judge(few({figure: 0.12}, {figure: 0.12})) == [], "told once, then it is what is usual"
    (finding,) = judge(few({figure: 0.01}, {figure: 0.12}))
    assert "the night before 0.01" in finding.sentence
    assert judge(few({figure: 0.12}, {figure: 0.01})) == [], "fewer are none"


def test_a_catalogue_that_grows_slowly_is_no_drift():
    assert judge(changed(quiet_year(4, 60), "products", lambda x, n: x * (1 + 0.003 * n), since=0)) == []


def test_one_bad_night_does_not_widen_what_is_usual():
    nights = changed(quiet_year(2, 40), "rejected", lambda x, n: 0.5 if n == 0 else x, since=30)
    assert [f.monitor.figure for f in judge(nights[:31])] == ["rejected"]
    again = changed(nights, "rejected", lambda x, n: x + 0.03, since=39)
    assert [f.monitor.figure for f in judge(again)] == ["rejected"]


def test_a_figure_that_was_not_measured_tonight_is_not_judged():
    nights = quiet_year(3, 40)
    tonight = Night(nights[-1].snapshot, {"rejected": nights[-1].figures["rejected"]})
    assert judge([*nights[:-1], tonight]) == []
