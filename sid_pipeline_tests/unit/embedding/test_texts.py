"""The embedded text: what a template gives for full, sparse and hostile fields."""

import pytest

from sid_pipeline.embedding.texts import check_template, render, text_hash

RAW = ["{title}", "{brand}", "{size}", "{description}"]


def test_all_fields():
    fields = {"title": "Rye Bread", "brand": "Mill", "size": "500 g", "description": "Dark and dense."}
    assert render(RAW, fields) == "Rye Bread. Mill. 500 g. Dark and dense"


def test_missing_fields_leave_no_punctuation():
    assert render(RAW, {"title": "Rye Bread", "brand": None, "size": "", "description": None}) == "Rye Bread"


def test_a_part_with_fixed_words_needs_one_value():
    template = ["{product_type}", "for {audience}", "with {key_ingredients}"]
    assert render(template, {"product_type": "rusks", "audience": None, "key_ingredients": []}) == "rusks"
    fields = {"product_type": "rusks", "audience": "babies", "key_ingredients": ["wheat", "milk"]}
    assert render(template, fields) == "rusks. for babies. with wheat, milk"


def test_nothing_gives_nothing():
    assert render(RAW, {}) == ""


def test_white_space_is_folded_and_braces_in_values_are_text():
    assert render(["{title}"], {"title": "a\n {brand}  b"}) == "a {brand} b"


def test_unknown_fields_are_named():
    with pytest.raises(ValueError, match="'price'"):
        check_template(["{title}", "{price}"], ["title", "brand"])
    with pytest.raises(ValueError, match="'description'"):
        check_template(["{description}"], ["title", "format"])


def test_the_hash_is_sha256_of_utf8():
    assert text_hash("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert text_hash("é") != text_hash("e")


def test_what_was_said_is_not_said_again():
    template = ["{product_type}", "{tags}", "with {key_ingredients}", "{format}", "{brand}"]
    fields = {
        "product_type": "turmeric powder",
        "tags": ["ground", "Powder turmeric"],
        "key_ingredients": ["turmeric"],
        "format": "powder",
        "brand": "Powder Mill",
    }
    assert render(template, fields, say_once=True) == "turmeric powder. ground. Powder Mill"
    assert render(template, fields).count("powder") == 2
