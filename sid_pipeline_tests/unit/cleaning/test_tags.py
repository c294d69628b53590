"""Claims with their negations, and audiences."""

import pytest

from sid_pipeline.cleaning.tags import DIETARY_TAGS, read_audience, read_claims

CLAIMS = [
    ("Gluten Free Oats", ["gluten-free"]),
    ("gluten-free", ["gluten-free"]),
    ("sans gluten", ["gluten-free"]),
    ("Ohne Gluten", ["gluten-free"]),
    ("Sugar-Free Gum", ["sugar-free"]),
    ("Zero sugar cola", ["sugar-free"]),
    ("No added sugar", ["no-added-sugar"]),
    ("no sugar added", ["no-added-sugar"]),
    ("without added sugar", ["no-added-sugar"]),
    ("No Added Salt", ["no-added-salt"]),
    ("unsweetened", ["unsweetened"]),
    ("Free from gluten, dairy and nuts.", ["gluten-free", "dairy-free", "nut-free"]),
    ("Wheat & Gluten Free", ["wheat-free", "gluten-free"]),
    ("dairy, soy and nut free", ["dairy-free", "soy-free", "nut-free"]),
    ("free of soy but made with oats", ["soy-free"]),
    ("Suitable for vegans", ["vegan"]),
    ("suitable for vegetarians and vegans", ["vegetarian", "vegan"]),
    ("Vegan leather bag", []),
    ("Not suitable for vegans", []),
    ("not suitable for vegetarians or vegans", []),
    ("This is not vegan.", []),
    ("isn't gluten free", []),
    ("Non-vegetarian", []),
    ("not certified organic", []),
    ("Not tested on animals. Vegan.", ["vegan"]),
    ("Vegan. Contains milk.", []),
    ("Vegan. May contain milk.", ["vegan"]),
    ("Gluten free. Contains wheat", []),
    ("Organic, non-GMO", ["organic", "non-gmo"]),
    ("no GMOs", ["non-gmo"]),
    ("low fat", ["low-fat"]),
    ("fat free yogurt", ["fat-free"]),
    ("99% fat free", ["low-fat"]),
    ("reduced sodium soy sauce", ["low-sodium"]),
    ("Decaf coffee", ["caffeine-free"]),
    ("non-alcoholic beer", ["alcohol-free"]),
    ("kosher dill pickles", []),
    ("Kosher", ["kosher"]),
    ("whole grain bread", ["whole-grain"]),
    ("free range eggs", []),
    ("egg free range", []),
    ("high in protein", ["high-protein"]),
    ("carefree sugar", []),
    ("veganism explained", []),
]


@pytest.mark.parametrize(("text", "dietary"), CLAIMS, ids=[text for text, _ in CLAIMS])
def test_dietary_claim(text, dietary):
    assert list(read_claims(text).dietary) == dietary


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("free range eggs", ["free-range"]),
        ("paraben free and cruelty-free shampoo", ["paraben-free", "cruelty-free"]),
        ("Unscented wipes", ["fragrance-free"]),
        ("no parabens", ["paraben-free"]),
        ("Ready to Bake rolls", ["ready-to-bake"]),
        ("BPA-free bottle", ["bpa-free"]),
    ],
)
def test_other_claim(text, other):
    assert list(read_claims(text).other) == other


def test_a_denied_claim_is_named():
    claims = read_claims("Organic. Not suitable for vegans.")
    assert (claims.dietary, claims.denied) == (("organic",), ("vegan",))


def test_dietary_tags_are_the_canonical_names():
    assert {"gluten-free", "vegan", "no-added-sugar"} <= DIETARY_TAGS
    assert "cruelty-free" not in DIETARY_TAGS


@pytest.mark.parametrize(
    ("title", "audience"),
    [
        ("Deodorant for men", "men"),
        ("Women's Multivitamin", "women"),
        ("Watch - For Boys, Girls", "kids"),
        ("Perfume for men and women", "unisex"),
        ("Baby shampoo", "babies"),
        ("Adult dog food", "dogs"),
        ("Senior cat food", "cats"),
        ("Hot dogs", None),
        ("Baby carrots", None),
        ("Baby mixed salad leaves", None),
        ("Oat flakes", None),
    ],
)
def test_audience(title, audience):
    assert read_audience(title)[0] == audience


def test_an_audience_inside_a_product_type_is_not_masked():
    assert read_audience("Adult dog food")[1] == ()
