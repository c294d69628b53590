"""Receipts: written whole, read back, and deciding which snapshots are complete."""

import pytest

from sid_pipeline.migrations import StateError
from sid_pipeline.receipts import (
    MissingInput,
    Receipt,
    Receipts,
    complete_snapshots,
    newest_complete_snapshot,
)
from sid_pipeline.settings import load_settings

SETTINGS = load_settings(env={})


@pytest.fixture
def receipts(tmp_path):
    return Receipts(tmp_path)


def put(receipts, asset, partition, version="v1", **inputs):
    receipts.put(Receipt(asset, partition, inputs, version))


def test_a_receipt_comes_back_as_it_was(receipts):
    receipt = Receipt("esci/codebook", "r1", {"a": [1, "é"]}, "v", "2", {"id": "x"}, {"n": 1, "a": 2}, [{"name": "c"}])
    receipts.put(receipt)
    assert receipts.get("esci/codebook", "r1") == receipt
    assert list(receipts.need("esci/codebook", "r1").metadata) == ["n", "a"], "in the order to be read in"
    assert receipts.get("esci/codebook", "r2") is None


def test_a_missing_input_says_what_to_materialise(receipts):
    with pytest.raises(MissingInput, match=r"'products'.*'2026-01-05'.*materialise it first"):
        receipts.need("products", "2026-01-05")
    for asset, partition, command in (
        ("esci_embeddings", "2026-01-05", "sid run --snapshot 2026-01-05"),
        ("esci/codebook", "r1", "sid run --release r1"),
        ("relevance_labels", "all", "sid run"),
    ):
        with pytest.raises(MissingInput, match=rf"materialise it first \({command}\)$"):
            receipts.need(asset, partition)


def test_partition_keys_with_dots_are_kept_apart(receipts):
    put(receipts, "taxonomy", "r1.2")
    put(receipts, "taxonomy", "r1")
    assert receipts.partitions("taxonomy") == ["r1", "r1.2"]


def test_the_receipt_before_is_of_the_last_earlier_partition_that_came_to_its_end(receipts):
    for day in ("2026-01-05", "2026-01-06", "2026-01-07"):
        put(receipts, "products", day)
    assert receipts.before("products", "2026-01-07").partition == "2026-01-06"
    assert receipts.before("products", "2026-01-05") is None
    receipts.begin("products", "2026-01-06")
    assert receipts.before("products", "2026-01-07").partition == "2026-01-05"


@pytest.mark.parametrize("bad", ["../r1", "a/b", "'; drop"])
def test_a_partition_key_cannot_leave_the_folder(receipts, bad):
    with pytest.raises(ValueError, match="partition"):
        receipts.get("taxonomy", bad)


def test_a_snapshot_is_complete_when_its_vectors_were_made_from_its_products(receipts):
    put(receipts, "products", "2026-01-05", "p5")
    put(receipts, "esci_embeddings", "2026-01-05", products="p5")
    put(receipts, "products", "2026-01-06", "p6")
    put(receipts, "esci_embeddings", "2026-01-06", products="an older read of the same day")
    assert complete_snapshots(receipts, SETTINGS, "esci") == ["2026-01-05"]
    put(receipts, "esci_embeddings", "2026-01-06", products="p6")
    assert newest_complete_snapshot(receipts, SETTINGS, "esci") == "2026-01-06"


def test_one_flavour_does_not_wait_for_another(receipts):
    put(receipts, "products", "2026-01-05", "p5")
    put(receipts, "esci_embeddings", "2026-01-05", products="p5")
    assert newest_complete_snapshot(receipts, SETTINGS, "esci") == "2026-01-05"
    with pytest.raises(MissingInput, match="gemma_embeddings"):
        newest_complete_snapshot(receipts, SETTINGS, "esci_gemma")


def test_a_day_that_is_taken_anew_meanwhile_is_left_out(receipts, monkeypatch):
    for day in ("2026-01-05", "2026-01-06"):
        put(receipts, "products", day, "p")
        put(receipts, "esci_embeddings", day, products="p")
    listed = receipts.partitions("products")
    receipts.begin("products", "2026-01-06")
    monkeypatch.setattr(receipts, "partitions", lambda asset: listed)
    assert complete_snapshots(receipts, SETTINGS, "esci") == ["2026-01-05"]


@pytest.mark.parametrize("text", ["", '{"asset": "prod', "[]", '{"asset": "products"}'])
def test_a_damaged_receipt_is_named_with_the_mend(receipts, tmp_path, text):
    put(receipts, "products", "2026-01-05")
    file = tmp_path / "products" / "2026-01-05.json"
    file.write_text(text)
    with pytest.raises(StateError, match=r"restore it, or remove it.*sid run --snapshot 2026-01-05") as told:
        receipts.get("products", "2026-01-05")
    assert str(told.value).startswith(f"{file} cannot be read")
    file.unlink()
    assert receipts.get("products", "2026-01-05") is None


def test_a_damaged_note_of_a_failure_is_named_with_the_mend(receipts, tmp_path):
    receipts.fail("products", "2026-01-05", "no room")
    file = tmp_path / "products" / "2026-01-05.failed"
    file.write_text("{")
    with pytest.raises(StateError, match=r"2026-01-05\.failed cannot be read .*: remove it"):
        receipts.troubles()
