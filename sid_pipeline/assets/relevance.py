"""The relevance model of the precision flavour: its labels, and how well the model orders them."""

import dagster as dg

from sid_pipeline.assets.recording import Outcome, markdown_table, materialise, plain_failures
from sid_pipeline.embedding.model import embedder_id
from sid_pipeline.files import digest
from sid_pipeline.ingest.source_files import fingerprint
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.settings import Settings

RELEVANCE_LABELS, ESCI_MODEL = "relevance_labels", "esci_model"


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
        with plain_failures():
            inputs = _label_inputs(warehouse.settings)
        return materialise(
            context, warehouse.receipts, RELEVANCE_LABELS, inputs, lambda: _read_labels(warehouse.settings)
        )

    @dg.asset(
        name=ESCI_MODEL,
        code_version="1",
        deps=[RELEVANCE_LABELS],
        description="The model behind the precision flavour, judged on the held-out labels: nDCG@10 (E 1, S .1, "
        "C .01, I 0), recall@10, and how often an exact match ranks above a substitute. It is the base model of the "
        "settings; no fine-tuned model replaces it yet.",
        group_name="relevance",
        owners=owners,
        kinds={"huggingface", "pytorch"},
    )
    def esci_model(context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse]) -> dg.MaterializeResult:
        settings = warehouse.settings
        embedder = settings.embedders[settings.relevance.embedder]
        with plain_failures():
            labels = warehouse.receipts.need(RELEVANCE_LABELS)
            identity = embedder_id(embedder, settings.root)
        return materialise(
            context,
            warehouse.receipts,
            ESCI_MODEL,
            {"labels": labels.data_version, "embedder_id": identity},
            lambda: _judge(settings, identity),
        )

    return [relevance_labels, esci_model]


def _label_files(settings: Settings) -> tuple[str, str] | None:
    relevance = settings.relevance
    if relevance.examples is None or relevance.products is None:
        return None
    return settings.location(relevance.examples), settings.location(relevance.products)


def _label_inputs(settings: Settings) -> dict[str, object]:
    files = _label_files(settings)
    return {
        "files": [fingerprint(file) for file in files] if files else None,
        "locale": settings.relevance.locale,
        "template": _template(settings),
    }


def _template(settings: Settings) -> list[str]:
    """Judged texts are built like embedded ones; labels know no size."""
    template = settings.embedders[settings.relevance.embedder].template
    return [part for part in template if "{size}" not in part]


def _read_labels(settings: Settings) -> Outcome:
    from sid_pipeline.relevance.labels import read_labels

    files = _label_files(settings)
    if files is None:
        return Outcome("no labels", metadata={"labels": "relevance.examples and relevance.products are not set"})
    labels = read_labels(*files, settings.relevance.locale, template=_template(settings))
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


def _judge(settings: Settings, identity: str) -> Outcome:
    from sid_pipeline.embedding.model import Embedder
    from sid_pipeline.relevance.evaluate import evaluate
    from sid_pipeline.relevance.labels import read_labels

    files = _label_files(settings)
    facts = {"embedder_id": identity}
    if files is None:
        return Outcome(identity, metadata={"embedder": identity, "judged": "no, there are no labels"}, facts=facts)
    labels = read_labels(*files, settings.relevance.locale, template=_template(settings))
    embedder = Embedder.load(settings.embedders[settings.relevance.embedder], settings.root)
    result = evaluate(embedder.encode, labels.part("test"))
    figures = {name: value for name, value in result.figures().items() if value is not None}
    return Outcome(identity, metadata={"embedder": identity, **figures}, facts=facts)
