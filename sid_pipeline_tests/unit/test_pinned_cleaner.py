"""A release is pinned to its cleaner: vectors of attributes that another one cleaned are refused, by name."""

from __future__ import annotations

import pytest

from sid_pipeline.assets.flavours import Flavour, embedding_receipts
from sid_pipeline.receipts import MissingInput, Receipt
from sid_pipeline.releases import Release
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.settings import load_settings

DAY = "2026-01-05"


@pytest.fixture
def warehouse(tmp_path) -> Warehouse:
    (tmp_path / "sid.toml").write_text("[source]\nproducts = 'p.csv'\n")
    warehouse = Warehouse(load_settings(tmp_path / "sid.toml", env={}))
    warehouse.receipts.put(Receipt("products", DAY, {}, "v1"))
    for name, inputs in (("esci", {}), ("gemma", {"cleaner_id": "rules-2"})):
        facts = {"embedder_ids": {"e1": "vectors"}}
        warehouse.receipts.put(Receipt(f"{name}_embeddings", DAY, {"products": "v1", **inputs}, "v", facts=facts))
    return warehouse


def release(cleaner_id: str) -> Release:
    return Release("r1", "served", "products", "t", DAY, {"esci": "e1", "gemma": "e1"}, cleaner_id=cleaner_id)


def receipts(warehouse: Warehouse, flavour: str, cleaner_id: str) -> list[Receipt]:
    spec = warehouse.settings.flavours[flavour]
    return embedding_receipts(warehouse, Flavour(flavour, spec, warehouse.settings), release(cleaner_id), DAY)


def test_the_pinned_cleaner_is_served(warehouse):
    assert len(receipts(warehouse, "esci_gemma", "rules-2")) == 1


def test_another_cleaner_is_refused_by_name(warehouse):
    with pytest.raises(MissingInput, match=r"cleaned by rules-2, but release 'r1' is pinned to gemini-x.*new release"):
        receipts(warehouse, "esci_gemma", "gemini-x")


def test_the_flavour_of_raw_text_does_not_care(warehouse):
    assert len(receipts(warehouse, "esci", "gemini-x")) == 1
