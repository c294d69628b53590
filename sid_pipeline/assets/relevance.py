"""The relevance model of the precision flavour: its labels, how well it orders them, and training a better one."""

import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import dagster as dg
from pydantic import Field

from sid_pipeline.assets.recording import Outcome, markdown_table, materialise, stage_failures
from sid_pipeline.embedders import RELEVANCE_MODEL as ESCI_MODEL
from sid_pipeline.embedding.model import embedder_id
from sid_pipeline.embedding.texts import template_fields
from sid_pipeline.files import digest
from sid_pipeline.ingest.source_files import fingerprint
from sid_pipeline.receipts import Receipt
from sid_pipeline.relevance.config import OF_THE_EMBEDDER, FineTuneConfig
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.settings import EmbedderSettings, Settings

if TYPE_CHECKING:
    from sid_pipeline.relevance.evaluate import Evaluation
    from sid_pipeline.relevance.labels import Labels

RELEVANCE_LABELS = "relevance_labels"
TRAINING = [field.name for field in fields(FineTuneConfig) if field.name not in OF_THE_EMBEDDER]
# Our names of the label files' columns, and ESCI's.
ESCI_COLUMNS = {
    "query": "query",
    "query_id": "query_id",
    "product_id": "product_id",
    "locale": "product_locale",
    "grade": "esci_label",
    "split": "split",
    "small_version": "small_version",
    "title": "product_title",
    "brand": "product_brand",
    "description": "product_description",
    "bullet_point": "product_bullet_point",
}


class RelevanceModelConfig(dg.Config):
    """Whether this run trains."""

    fine_tune: Optional[bool] = Field(  # noqa: UP045
        None,
        description="true: train now. false: go back to the base model. Default: train if relevance.fine_tune says "
        "so, else keep the model that there is.",
    )


def relevance_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """`relevance_labels` and `esci_model`."""
    owners = settings.orchestration.owners

    @dg.asset(
        name=RELEVANCE_LABELS,
        code_version="1",
        description="Relevance labels in ESCI's layout, joined to their products; bad labels are listed, not dropped "
        "in silence. Without label files in the settings there are none, and the asset says so.",
        group_name="relevance",
        owners=owners,
        kinds={"python"},
    )
    def relevance_labels(
        context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse]
    ) -> dg.MaterializeResult:
        with stage_failures(context, warehouse, RELEVANCE_LABELS):
            inputs = _label_inputs(warehouse.settings)
        return materialise(
            context, warehouse.receipts, RELEVANCE_LABELS, inputs, lambda: _read_labels(warehouse.settings)
        )

    @dg.asset(
        name=ESCI_MODEL,
        code_version="2",
        deps=[RELEVANCE_LABELS],
        description="The model behind the precision flavour, judged on held-out queries: nDCG@10 (E 1, S .1, C .01, "
        "I 0), recall@10, and how often an exact match ranks above a substitute. Where training is asked for "
        "(relevance.fine_tune, or the Launchpad) a model is fine-tuned on the other queries, and takes the base "
        "model's place only if the 95 % interval of its gain in nDCG@10 lies above 0.",
        group_name="relevance",
        owners=owners,
        kinds={"huggingface", "pytorch"},
        pool="gpu",
    )
    def esci_model(
        context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse], config: RelevanceModelConfig
    ) -> dg.MaterializeResult:
        settings = warehouse.settings
        embedder = settings.embedders[settings.relevance.embedder]
        with stage_failures(context, warehouse, ESCI_MODEL):
            labels = warehouse.receipts.need(RELEVANCE_LABELS)
            base = embedder_id(embedder, settings.root)
            inputs = _model_inputs(warehouse, labels, base, config.fine_tune)
        return materialise(
            context,
            warehouse.receipts,
            ESCI_MODEL,
            inputs,
            lambda: _judge(warehouse, embedder, inputs),
            still_there=lambda receipt: _model_is_there(warehouse, receipt.facts["model"]),
        )

    return [relevance_labels, esci_model]


def _model_inputs(warehouse: Warehouse, labels: Receipt, base: str, asked: bool | None) -> dict[str, Any]:
    """What the relevance model is made from: the base model, and either training or the model that is kept."""
    relevance = warehouse.settings.relevance
    train = relevance.fine_tune if asked is None else asked
    inputs = {"labels": labels.data_version, "embedder_id": base}
    if train:
        config = FineTuneConfig.from_dict(relevance.training)
        return inputs | {"training": {name: value for name, value in asdict(config).items() if name in TRAINING}}
    last = warehouse.receipts.get(ESCI_MODEL)
    kept = last.facts["model"] if last and last.inputs["embedder_id"] == base and asked is None else None
    return inputs | {"kept": kept if _model_is_there(warehouse, kept) else None}


def _model_is_there(warehouse: Warehouse, model: str | None) -> bool:
    return model is None or (warehouse.state / f"{model}.json").is_file()


def _label_files(settings: Settings) -> tuple[str, str] | None:
    relevance = settings.relevance
    if relevance.examples is None or relevance.products is None:
        return None
    return settings.location(relevance.examples), settings.location(relevance.products)


def _label_inputs(settings: Settings) -> dict[str, object]:
    files = _label_files(settings) or ()
    named = zip(files, ("examples", "products"), strict=False)
    return {
        "files": [fingerprint(file, setting=f"[relevance] {name}") for file, name in named] or None,
        **settings.relevance.model_dump(include={"locale", "small_only", "columns", "grades"}),
        "template": _template(settings),
    }


def _template(settings: Settings) -> list[str]:
    """Judged texts are built like embedded ones; labels know no size."""
    return [part for part in map(_without_size, settings.embedders[settings.relevance.embedder].template) if part]


def _without_size(part: str) -> str:
    """A part of a template without `{size}` and the marks that held it; empty where it names no other field."""
    if "size" not in template_fields(part):
        return part
    # The marks go that join it to a field before it; where it is the first, those after it.
    rest = re.sub(r"[(\[]\s*\{size[^{}]*\}\s*[)\]]|[\s,;:/|-]*\{size[^{}]*\}", "", part)
    rest = re.sub(r"([(\[])[\s,;:/|-]+", r"\1", " ".join(rest.split())).strip(" ,;:/|-")
    return rest if template_fields(rest) else ""


def _labels(settings: Settings) -> "Labels | None":
    from sid_pipeline.relevance.labels import read_labels

    files, relevance = _label_files(settings), settings.relevance
    if files is None:
        return None
    columns = relevance.columns
    return read_labels(
        *files,
        relevance.locale,
        small_only=relevance.small_only,
        columns={esci: getattr(columns, name) for name, esci in ESCI_COLUMNS.items()},
        grades=relevance.grades,
        template=_template(settings),
    )


def _read_labels(settings: Settings) -> Outcome:
    labels = _labels(settings)
    if labels is None:
        return Outcome("no labels", metadata={"labels": "relevance.examples and relevance.products are not set"})
    bad = [label._asdict() for label in labels.bad]
    grades = labels.pairs["grade"].value_counts().to_pylist()
    return Outcome(
        data_version=digest(labels.pairs.to_pydict()),
        metadata={
            "dagster/row_count": len(labels.pairs),
            "queries": len(labels.pairs["query_id"].unique()),
            "bad labels": len(bad),
            "grades": markdown_table([{"grade": g["values"], "labels": g["counts"]} for g in grades]),
            "bad labels listed": markdown_table(bad[:50], width=160),
        },
    )


def _judge(warehouse: Warehouse, embedder: EmbedderSettings, inputs: dict[str, Any]) -> Outcome:
    """Measure the base model, and the kept or newly trained one beside it."""
    from sid_pipeline.relevance.finetune import gate

    settings, base_id = warehouse.settings, inputs["embedder_id"]
    labels = _labels(settings)
    if labels is None or embedder.vectors is not None:
        kept = inputs.get("kept")
        why = "its vectors are supplied, there is no model" if embedder.vectors else "there are no labels"
        metadata = {"model": kept or base_id, "judged": f"no, {why}", "trained": "no"}
        return Outcome(kept or base_id, metadata=metadata, facts={"embedder_id": base_id, "model": kept})
    held_out = labels.part("test")
    base = _evaluate(embedder, settings.root, held_out)
    model, metadata = inputs.get("kept"), {}
    if "training" in inputs:
        model, metadata = _train(warehouse, embedder, labels, base, inputs)
    elif model is not None:
        kept = _evaluate(_of_folder(embedder, warehouse.state / model), settings.root, held_out)
        metadata = {"models": _compared(base, kept), "kept": gate(base, kept, seed=0).sentence}
    else:
        metadata = {"models": _compared(base), "trained": "no, relevance.fine_tune is off"}
    return Outcome(
        model or base_id,
        metadata={"model": model or base_id, **_figures(base, "base "), **metadata},
        facts={"embedder_id": base_id, "model": model},
    )


def _train(
    warehouse: Warehouse, embedder: EmbedderSettings, labels: "Labels", base: "Evaluation", inputs: dict[str, Any]
) -> tuple[str | None, dict[str, Any]]:
    """Fine-tune, let the gate decide, and publish what passes: the model's folder within the state, or None."""
    from sid_pipeline.embedding.model import resolve_model
    from sid_pipeline.relevance.finetune import fine_tune, gate
    from sid_pipeline.relevance.publish import publish_model

    settings = warehouse.settings
    config = replace(
        FineTuneConfig.from_dict(inputs["training"]),
        prompt=embedder.prompt,
        max_tokens=embedder.max_tokens,
        revision=embedder.revision,
        device=embedder.device,
    )
    # A killed run goes on here; other inputs have a folder of their own.
    trained = warehouse.state / "checkpoints" / "relevance" / digest(inputs) / "model"
    if not trained.is_dir():
        fine_tune(resolve_model(embedder.model, settings.root), labels.part("train"), trained, config)
    tuned = _evaluate(_of_folder(embedder, trained), settings.root, labels.part("test"))
    decision = gate(base, tuned, config.seed)
    model = None
    if decision.publish:
        made_from = {"base": inputs["embedder_id"], **inputs, "gate": decision.sentence, "figures": decision.figures}
        models = warehouse.state / "artefacts" / "models"
        model = publish_model(trained, models, settings.relevance.embedder, made_from)
    shutil.rmtree(trained.parent, ignore_errors=True)
    return model.relative_to(warehouse.state).as_posix() if model else None, {
        "gate": decision.sentence,
        "published": decision.publish,
        "models": _compared(base, tuned),
        **_figures(tuned, "fine-tuned "),
        "gain": decision.figures["gain"],
        "gain, lower bound": decision.figures["gain_lower"],
        "gain, upper bound": decision.figures["gain_upper"],
    }


def _of_folder(embedder: EmbedderSettings, folder: Path) -> EmbedderSettings:
    return embedder.model_copy(update={"model": str(folder), "revision": None})


def _evaluate(embedder: EmbedderSettings, root: Path, pairs: Any) -> "Evaluation":
    from sid_pipeline.embedding.model import Embedder
    from sid_pipeline.relevance.evaluate import evaluate

    return evaluate(Embedder.load(embedder, root).encode, pairs)


def _figures(result: "Evaluation", prefix: str) -> dict[str, Any]:
    return {f"{prefix}{name}": value for name, value in result.figures().items() if value is not None}


def _compared(base: "Evaluation", other: "Evaluation | None" = None) -> Any:
    rows: list[Mapping[str, Any]] = [{"model": "base", **base.figures()}]
    if other is not None:
        rows.append({"model": "fine-tuned", **other.figures()})
    return markdown_table([{name: _short(value) for name, value in row.items()} for row in rows])


def _short(value: Any) -> Any:
    return f"{value:.4f}" if isinstance(value, float) else value
