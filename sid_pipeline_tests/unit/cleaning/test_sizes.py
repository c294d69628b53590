"""Notations of package sizes, each with the size a person reads in it."""

import pytest

from sid_pipeline.cleaning.model import Size
from sid_pipeline.cleaning.sizes import read_size
from sid_pipeline.cleaning.text import normalise

NOTATIONS = [
    # mass
    ("500 g", 500, "g", 1), ("500g", 500, "g", 1), ("250 gr", 250, "g", 1), ("400 GMS", 400, "g", 1),
    ("1 kg", 1000, "g", 1), ("1.5kg", 1500, "g", 1), ("0,5 kg", 500, "g", 1), ("2 Kilos", 2000, "g", 1),
    ("1,000 g", 1000, "g", 1), ("1.000 g", 1000, "g", 1), ("1.250 kg", 1250, "g", 1), ("12 oz", 340.19, "g",
    1),
    ("12-oz", 340.19, "g", 1), ("14.5 OZ.", 411.07, "g", 1), ("2lb", 907.18, "g", 1), ("2 lbs", 907.18, "g",
    1),
    ("1 lb 4 oz", 566.99, "g", 1), ("1/2 lb", 226.8, "g", 1), ("1 1/2 lb", 680.39, "g", 1), ("1½ lb", 680.39,
    "g", 1),
    ("½ lb", 226.8, "g", 1), ("half pound", 226.8, "g", 1), ("Net Wt 14.5 oz (411 g)", 411, "g", 1),
    ("1.36 kg/3 lb", 1360, "g", 1), ("5 kg bag", 5000, "g", 1),
    # volume
    ("330 ml", 330, "ml", 1), ("1,5 L", 1500, "ml", 1), ("1.5L", 1500, "ml", 1), ("2 ltr", 2000, "ml", 1),
    ("75 cl", 750, "ml", 1), ("1 Litre", 1000, "ml", 1), ("16 fl oz", 473.18, "ml", 1), ("16.9 fl. oz.",
    499.79, "ml", 1),
    ("64 FL OZ", 1892.71, "ml", 1), ("1 gal", 3785.41, "ml", 1), ("half gallon", 1892.71, "ml", 1),
    ("1/2 gallon", 1892.71, "ml", 1),
    ("1 pint", 473.18, "ml", 1), ("2 qt", 1892.71, "ml", 1), ("1 l (33.8 fl oz)", 1000, "ml", 1),
    ("12 oz (355 ml)", 355, "ml", 1),
    # multipacks
    ("6 x 330ml", 330, "ml", 6), ("6x330 ml", 330, "ml", 6), ("6 \u00d7 330 ml", 330, "ml", 6), ("330 ml x 6",
    330, "ml", 6),
    ("3*100g", 100, "g", 3), ("12 x 1 L", 1000, "ml", 12), ("6 x 4 x 100 g", 100, "g", 24), ("12/330ml", 330,
    "ml", 12),
    ("pack of 6 x 250 ml", 250, "ml", 6), ("500 g (pack of 2)", 500, "g", 2), ("4 cans x 400 g", 400, "g", 4),
    ("6 pack, 12 fl oz cans", 354.88, "ml", 6), ("12 fl oz, 6 pk", 354.88, "ml", 6), ("8 oz 2 pk", 226.8,
    "g", 2),
    ("12 - 12 fl oz cans", 354.88, "ml", 12), ("8 - 1.5 oz bars", 42.52, "g", 8), ("pack of 4, 80 g each",
    80, "g", 4),
    ("24 tea bags 48 g", 48, "g", 1),
    # pieces
    ("12 ct", 12, "count", 1), ("12 Count", 12, "count", 1), ("pack of 4", 4, "count", 1), ("4pk", 4,
    "count", 1),
    ("6-pack", 6, "count", 1), ("six-pack", 6, "count", 1), ("twin pack", 2, "count", 1), ("dozen", 12,
    "count", 1),
    ("2 dozen", 24, "count", 1), ("half dozen", 6, "count", 1), ("100 tablets", 100, "count", 1),
    ("12 Rolls", 12, "count", 1),
    ("Box of 24", 24, "count", 1), ("8 pcs", 8, "count", 1), ("x20", 20, "count", 1), ("10 pk 5 ct", 5,
    "count", 10),
    ("each", 1, "count", 1), ("160 bags", 160, "count", 1),
    # lengths
    ("30 metres", 3000, "cm", 1), ("19mm", 1.9, "cm", 1), ("8 inch", 20.32, "cm", 1),
    ('10.2 cm (4")', 10.2, "cm", 1),
]  # fmt: skip


@pytest.mark.parametrize(("text", "amount", "unit", "count"), NOTATIONS, ids=[n[0] for n in NOTATIONS])
def test_notation(text, amount, unit, count):
    assert read_size(normalise(text)).size == Size(amount=amount, unit=unit, count=count)


@pytest.mark.parametrize(
    "text",
    [
        "Ibuprofen Tablets 200 mg", "7g protein", "20 g of protein per bar", "0 g", "2 %", "SPF 50", "7 Up",
        "3-in-1", "24HR",
        "size 4T-5T", '3" x 2.5"', "640 x 480 pixels", "210 x 297 mm", "1500 pages", "16 GB",
        "5 g per serving", "lb", "",
        "Classic Cooker CL35",
    ],
)  # fmt: skip
def test_no_package_size(text):
    assert read_size(text).size is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("480-500 g", "a range, not one amount"),
        ("1.5-2 lb", "a range, not one amount"),
        ("500 g or 750 g", "several different amounts"),
        ("Baby Wash 200 ml + Baby Shampoo 200 ml", "several products in one"),
    ],
)
def test_ambiguous_amounts_give_a_reason_and_no_size(text, problem):
    reading = read_size(text.lower())
    assert (reading.size, reading.problem) == (None, problem)


def test_a_serving_does_not_hide_the_package():
    assert read_size("20 g protein bar 60 g").size == Size(amount=60, unit="g")


def test_spans_point_at_the_amounts_in_the_text():
    title = "Olives 2 x 150 g, pitted"
    [span] = read_size(title).spans
    assert title[slice(*span)] == "2 x 150 g"


ENDLESS = "9" * 320  # beyond every floating-point number


@pytest.mark.parametrize(
    "text",
    [f"Eggs {ENDLESS} ct", f"pack of {ENDLESS}", f"{ENDLESS} dozen", f"qty {ENDLESS}", f"Milk {ENDLESS} ml",
     f"{ENDLESS} lb 4 oz", f"{ENDLESS} 1/2 lb", f"{ENDLESS}-{ENDLESS} g", f"6 x {ENDLESS} pcs"],
)  # fmt: skip
def test_a_number_beyond_all_measure_is_no_size(text):
    assert read_size(text).size is None
