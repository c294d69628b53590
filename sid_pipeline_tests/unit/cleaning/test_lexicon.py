"""What is learned from a catalogue, and that it is frozen exactly."""

import random

import pytest

from sid_pipeline.cleaning.lexicon import Lexicon, is_placeholder
from sid_pipeline.cleaning.model import ProductText

ROWS = [
    *(
        ProductText(f"Halvorsen {flavour} Oat Cookies 200 g", "Halvorsen")
        for flavour in ("Apple", "Date", "Plain", "Honey")
    ),
    *(
        ProductText(f"{kind} Olive Oil {size} ml", "Pietra Blu")
        for kind in ("Virgin", "Light")
        for size in (250, 500, 750)
    ),
    *(ProductText(f"Fresh {what}", "Fresh") for what in ("Soap",)),
    *(ProductText(f"Fresh {what}", "Green Row") for what in ("Milk", "Bread", "Cheese", "Salad")),
    ProductText("HALVORSEN Rye Crackers", "HALVORSEN"),
    ProductText("Tea", "N/A"),
]
CATEGORIES = ["Cookies & Biscuits", "Olive oil", "Pasta sauces"]


@pytest.fixture(scope="module")
def lexicon():
    return Lexicon.learn(ROWS, CATEGORIES)


def test_brands_are_those_whose_words_mean_the_brand(lexicon):
    assert "fresh" not in lexicon.brands
    assert lexicon.brands["halvorsen"] == "Halvorsen"


def test_brands_never_seen_in_a_title_are_trusted_there_if_they_are_no_common_word(lexicon):
    assert lexicon.brands["pietra blu"] == "Pietra Blu"


def test_the_commonest_spelling_is_kept(lexicon):
    assert lexicon.spellings == {"halvorsen": "Halvorsen"}


def test_compounds_and_heads(lexicon):
    assert lexicon.types["oat cookie"] == "oat cookies"
    assert lexicon.types["olive oil"] == "olive oil"
    assert lexicon.words["cookie"] == [4, 4]
    assert lexicon.words["oat"] == [4, 0]


def test_leaf_names_are_parted(lexicon):
    assert lexicon.leaves == {
        "cookie": "cookies", "biscuit": "biscuits", "olive oil": "olive oil", "pasta sauce": "pasta sauces",
    }  # fmt: skip


def test_order_of_rows_and_categories_does_not_matter(lexicon):
    rows, categories = ROWS.copy(), CATEGORIES[::-1]
    random.Random(5).shuffle(rows)
    assert Lexicon.learn(rows, categories).id == lexicon.id


def test_other_content_has_another_id(lexicon):
    assert Lexicon.learn(ROWS[1:], CATEGORIES).id != lexicon.id != Lexicon.empty().id


def test_save_and_load(lexicon, tmp_path):
    lexicon.save(tmp_path / "lexicon.json")
    loaded = Lexicon.load(tmp_path / "lexicon.json")
    assert loaded == lexicon
    assert loaded.id == lexicon.id
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "lexicon.json").read_bytes()


@pytest.mark.parametrize("content", ["no json", "[1]", "{}", '{"format_version": 99}'])
def test_load_names_the_file_and_the_mend(content, tmp_path):
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(ValueError, match=r"bad\.json.*learn the lexicon again"):
        Lexicon.load(tmp_path / "bad.json")


@pytest.mark.parametrize(
    ("brand", "expected"),
    [
        ("N/A", True),
        ("-", True),
        ("Unknown", True),
        ("no brand", True),
        ("???", True),
        ("Nonna", False),
        ("Other Farm", False),
    ],
)
def test_is_placeholder(brand, expected):
    assert is_placeholder(brand) is expected
