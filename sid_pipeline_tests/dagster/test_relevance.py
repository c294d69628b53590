"""`relevance_labels` and `esci_model`: training when asked for, the gate, what is kept, and who uses the model."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from sid_pipeline.assets import relevance
from sid_pipeline.embedders import current_embedder, current_id
from sid_pipeline.embedding.model import embedder_id
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.settings import EmbedderSettings, Settings
from sid_pipeline_tests.tiny_models import COLOURS, THINGS, TRANSLATED, judgements, tiny_bert

MORE_THINGS = {**THINGS, "oil": "huile", "salt": "sel", "jam": "confiture", "egg": "oeuf"}
WORDS = [*TRANSLATED, *(word for pair in MORE_THINGS.items() for word in pair)]
TRAINING = {
    "contrastive_epochs": 6, "ranking_epochs": 6, "contrastive_batch": 8, "ranking_batch": 12, "learning_rate": 3e-3,
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("relevance"), list(dict.fromkeys(WORDS)), spread=0.02)


def make(folder: Path, model: Path, **more: Any) -> Warehouse:
    """A project whose labels hold out every second query; no Spark is needed."""
    rows = judgements(COLOURS, MORE_THINGS)
    queries = list(dict.fromkeys(row["query"] for row in rows))
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["search", "sku", "rating", "split"])
        for row in rows:
            colour, thing = divmod(queries.index(row["query"]), len(MORE_THINGS))
            split = "test" if (colour + thing) % 2 else "train"  # each word is in both parts
            writer.writerow([row["query"], row["text"], {"E": 3, "S": 2, "C": 1, "I": 0}[row["grade"]], split])
        writer.writerow(["red tea", "nothing", 3, "train"])
        writer.writerow(["red tea", "thé rouge", 9, "train"])
    with (folder / "products.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["sku", "name"])
        writer.writerows([text, text] for text in sorted({row["text"] for row in rows}))
    none = dict.fromkeys(["query_id", "locale", "brand", "description", "bullet_point", "small_version"], "")
    settings = Settings.model_validate(
        {
            "root": folder,
            "source": {"products": "products.csv"},
            "relevance": {
                "examples": "labels.csv",
                "products": "products.csv",
                "columns": {"query": "search", "product_id": "sku", "grade": "rating", "title": "name", **none},
                "grades": {"3": "E", "2": "S", "1": "C", "0": "I"},
                "training": TRAINING,
                **more,
            },
            "embedders": {"esci": {"model": str(model), "device": "cpu"}},
            "flavours": {"esci": {"description": "test", "embedders": {"esci": 1.0}}},
        }
    )
    return Warehouse(settings)


def run(warehouse: Warehouse, **config: Any) -> dict[str, dict[str, Any]]:
    """Metadata of both assets."""
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            relevance.relevance_assets(warehouse.settings),
            instance=instance,
            resources={"warehouse": warehouse},
            run_config={"ops": {"esci_model": {"config": config}}},
        )
    return {
        node: {k: v.value for k, v in result.asset_materializations_for_node(node)[0].metadata.items()}
        for node in ("relevance_labels", "esci_model")
    }


def test_a_model_is_trained_when_asked_for_and_replaces_the_base_model(tmp_path, model):
    warehouse = make(tmp_path, model)
    settings = warehouse.settings
    base = embedder_id(settings.embedders["esci"], tmp_path)
    first = run(warehouse)
    assert first["relevance_labels"]["bad labels"] == 2
    listed = first["relevance_labels"]["bad labels listed"]
    assert "missing_product" in listed and "relevance.grades" in listed
    assert first["esci_model"]["model"] == base == current_id(warehouse, "esci")
    assert "off" in first["esci_model"]["trained"]

    trained = run(warehouse, fine_tune=True)["esci_model"]
    assert trained["published"] is True and "it is published" in trained["gate"]
    assert trained["gain, lower bound"] > 0 and trained["base queries"] == 24
    assert trained["fine-tuned ndcg_at_10"] > trained["base ndcg_at_10"]
    folder = warehouse.state / trained["model"]
    manifest = json.loads(folder.with_name(f"{folder.name}.json").read_text(encoding="utf-8"))
    assert manifest["base"] == base and "model.safetensors" in manifest["files"] and manifest["gate"] == trained["gate"]
    tuned = current_id(warehouse, "esci")
    assert tuned != base and tuned.startswith(folder.name)
    assert not (warehouse.state / "checkpoints" / "relevance").exists() or not any(
        (warehouse.state / "checkpoints" / "relevance").iterdir()
    )
    # It stays without being asked for again, is measured beside the base, and costs nothing the time after.
    kept = run(warehouse)["esci_model"]
    assert kept["model"] == trained["model"] and "fine-tuned" in kept["models"]
    assert run(warehouse)["esci_model"]["unchanged"] is True and current_id(warehouse, "esci") == tuned
    assert not Path(current_embedder(warehouse, "esci").model).is_absolute(), "the whole project may move"
    # Going back is asked for as well.
    assert run(warehouse, fine_tune=False)["esci_model"]["model"] == base == current_id(warehouse, "esci")
    assert folder.is_dir(), "releases may be pinned to it"


def test_a_model_that_gains_nothing_is_not_published(tmp_path, model):
    warehouse = make(tmp_path, model, fine_tune=True, training={**TRAINING, "learning_rate": 1e-12})
    told = run(warehouse)["esci_model"]
    assert told["published"] is False and "the base model stays" in told["gate"]
    assert current_id(warehouse, "esci") == told["model"] == embedder_id(warehouse.settings.embedders["esci"], tmp_path)
    assert not (warehouse.state / "artefacts" / "models").exists()
    assert run(warehouse)["esci_model"]["unchanged"] is True


def test_a_run_that_dies_after_training_does_not_train_again(tmp_path, model, monkeypatch):
    from sid_pipeline.relevance import finetune

    warehouse = make(tmp_path, model)
    run(warehouse)
    with monkeypatch.context() as patch:
        patch.setattr(finetune, "gate", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(warehouse, fine_tune=True)
    monkeypatch.setattr(finetune, "fine_tune", lambda *args: pytest.fail("trained again"))
    assert run(warehouse, fine_tune=True)["esci_model"]["published"] is True


def test_an_old_fine_tuned_model_never_stands_for_another_base(tmp_path, model):
    from sid_pipeline.receipts import MissingInput

    warehouse = make(tmp_path, model)
    run(warehouse, fine_tune=True)
    settings = warehouse.settings
    other = settings.embedders["esci"].model_copy(update={"prompt": "red : "})
    changed = Warehouse(settings.model_copy(update={"embedders": {"esci": other}}))
    with pytest.raises(MissingInput, match="materialise esci_model again"):
        current_embedder(changed, "esci")
    assert run(changed)["esci_model"]["model"] == embedder_id(other, tmp_path) == current_id(changed, "esci")


def test_supplied_vectors_have_no_model_to_judge(tmp_path, model):
    warehouse = make(tmp_path, model, fine_tune=True)
    supplied = EmbedderSettings(vectors="v.parquet", dimension=8, revision="clip-1")
    changed = Warehouse(warehouse.settings.model_copy(update={"embedders": {"esci": supplied}}))
    told = run(changed)["esci_model"]
    assert "vectors are supplied" in told["judged"] and told["model"] == current_id(changed, "esci")
