"""From a pinned release to a codebook: the immutable training set, and RQ-VAE training on it."""

import json
import typing
from typing import Any, Optional

import dagster as dg
from pydantic import Field, create_model

from sid_pipeline.assets.flavours import Flavour, check_joined, embedding_receipts
from sid_pipeline.assets.recording import Outcome, markdown_table, materialise, stage_failures
from sid_pipeline.files import digest
from sid_pipeline.receipts import MissingInput, Receipt
from sid_pipeline.releases import Release, need_release, release_to_build
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.rqvae.config import TrainConfig
from sid_pipeline.schemas import EMBEDDED_PRODUCTS, EMBEDDINGS, PRODUCTS
from sid_pipeline.taxonomy.tree import Taxonomy
from sid_pipeline.taxonomy_source import TAXONOMY, release_tree

TRAINING_SET, CODEBOOK = "training_set", "codebook"
ALIGNED_ON = 200_000  # products that decide how codes are numbered, at most


def _launchpad_config() -> type[dg.Config]:
    """TrainConfig as a Launchpad form: every field optional and described; None keeps the settings' value."""
    described = TrainConfig.describe()
    fields: dict[str, Any] = {}
    for name, annotation in typing.get_type_hints(TrainConfig).items():
        fields[name] = (Optional[_listed(annotation)], Field(None, description=described[name]))  # noqa: UP045
    return create_model("CodebookConfig", __base__=dg.Config, **fields)


def _listed(annotation: Any) -> Any:
    """An annotation without None, its tuples as lists: the Launchpad knows lists only."""
    kinds = [kind for kind in typing.get_args(annotation) if kind is not type(None)]
    if type(None) in typing.get_args(annotation) and len(kinds) == 1:
        return _listed(kinds[0])
    return list[kinds[0]] if typing.get_origin(annotation) is tuple else annotation  # type: ignore[valid-type]


CodebookConfig = _launchpad_config()


def training_assets(flavour: Flavour) -> list[dg.AssetsDefinition]:
    """`training_set` and `codebook` of a flavour."""

    @flavour.asset(
        TRAINING_SET,
        [TAXONOMY],
        "Vectors and category paths that the codebook is trained on: an immutable, hashed folder of "
        "memory-mappable matrices, as of the release's training snapshot.",
        {"spark", "numpy"},
        snapshot_deps=[PRODUCTS.name, *[f"{name}_embeddings" for name in flavour.embedders]],
    )
    def training_set(context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse]) -> dg.MaterializeResult:
        with stage_failures(context, warehouse, flavour.key(TRAINING_SET)):
            release = release_to_build(warehouse.tables, context.partition_key)
            inputs = _training_inputs(warehouse, flavour, release)
            tree = release_tree(warehouse, release, inputs["taxonomy"])
        return materialise(
            context,
            warehouse.receipts,
            flavour.key(TRAINING_SET),
            inputs,
            lambda: _write_training_set(warehouse, flavour, release, tree, inputs),
            still_there=lambda receipt: _training_set_is_there(warehouse, flavour, release.release),
            frozen=True,
        )

    @flavour.asset(
        CODEBOOK,
        [flavour.key(TRAINING_SET)],
        "The RQ-VAE codebook: levels of codewords, coarse to fine, trained with L_recon + L_rq + lambda * "
        "L_contrastive. A collapsed codebook is refused and not written.",
        {"pytorch"},
        pool="gpu",
    )
    def codebook(
        context: dg.AssetExecutionContext,
        warehouse: dg.ResourceParam[Warehouse],
        config: CodebookConfig,  # type: ignore[valid-type]
    ) -> dg.MaterializeResult:
        asked = {name: value for name, value in config.model_dump().items() if value is not None}  # type: ignore[attr-defined]
        with stage_failures(context, warehouse, flavour.key(CODEBOOK)):
            release = release_to_build(warehouse.tables, context.partition_key)
            training = warehouse.receipts.need(flavour.key(TRAINING_SET), release.release)
            inputs = _codebook_inputs(warehouse, flavour, release, training, asked)
        return materialise(
            context,
            warehouse.receipts,
            flavour.key(CODEBOOK),
            inputs,
            lambda: _train(warehouse, flavour, release, inputs),
            still_there=lambda receipt: _codebook_is_there(warehouse, receipt),
            frozen=True,
        )

    return [training_set, codebook]


def _training_set_is_there(warehouse: Warehouse, flavour: Flavour, release: str) -> bool:
    return (warehouse.training_set(flavour.name, release) / "manifest.json").is_file()


def _codebook_is_there(warehouse: Warehouse, receipt: Receipt) -> bool:
    return (warehouse.state / receipt.facts["folder"] / "manifest.json").is_file()


def _training_inputs(warehouse: Warehouse, flavour: Flavour, release: Release) -> dict[str, Any]:
    """What the training set is made from. Once it is written it is frozen: a corrected snapshot does not retrain
    a release behind its readers' backs; a new release does.

    Raises:
        MissingInput: an input is missing, or the flavour is now made from other embeddings than the release.
    """
    warehouse.receipts.need(TAXONOMY, release.release)
    written = warehouse.receipts.get(flavour.key(TRAINING_SET), release.release)
    if written is not None and _training_set_is_there(warehouse, flavour, release.release):
        check_joined(flavour, written)
        return written.inputs
    embeddings = embedding_receipts(warehouse, flavour, release, release.training_snapshot)
    return {
        # A later revision of the tree is for the names; what is trained stands on the one that was pinned.
        "taxonomy": release.taxonomy_revision,
        "embeddings": [receipt.data_version for receipt in embeddings],
        "embedders": flavour.joined,
    }


def _codebook_inputs(
    warehouse: Warehouse, flavour: Flavour, release: Release, training: Receipt, asked: dict[str, Any]
) -> dict[str, Any]:
    """What the codebook is made from; for a release that had its codebook, what that was made from: it is frozen, and
    one that got lost is made again from the same.

    Raises:
        MissingInput: the Launchpad asks for other training of a release that has its codebook.
    """
    trained = warehouse.receipts.get(flavour.key(CODEBOOK), release.release)
    if trained is not None and trained.inputs["training_set"] == training.data_version:
        frozen = trained.inputs["config"]
        for name, value in asked.items():
            if frozen.get(name) != value:
                raise MissingInput(
                    f"release {release.release!r} has its codebook, trained with {name} = {frozen.get(name)!r}, and "
                    "its readers know that one: add a new release to train otherwise"
                )
        return trained.inputs
    config = TrainConfig.from_dict({**flavour.settings.training, **asked})
    old, chosen = _predecessor(warehouse, flavour, release), flavour.settings.release
    return {
        "training_set": training.data_version,
        "config": config.to_dict(),
        # The same data again teaches nothing new: it is trained as it was.
        "start_from": old if chosen.warm_start and not _same_data(warehouse, flavour, release) else None,
        "align_to": old if chosen.align else None,
    }


def _predecessor(warehouse: Warehouse, flavour: Flavour, release: Release) -> str | None:
    """Id of the predecessor's codebook, where it is there and codes vectors of the same embedders."""
    trained = warehouse.receipts.get(flavour.key(CODEBOOK), release.predecessor) if release.predecessor else None
    if trained is None or not _codebook_is_there(warehouse, trained):
        return None
    training = warehouse.receipts.need(flavour.key(TRAINING_SET), release.predecessor)
    embedders = need_release(warehouse.tables, release.predecessor).embedder_ids
    same = all(embedders.get(name) == release.embedder_ids[name] for name in flavour.embedders)
    return trained.facts["codebook_id"] if same and training.inputs["embedders"] == flavour.joined else None


def _same_data(warehouse: Warehouse, flavour: Flavour, release: Release) -> bool:
    """Whether a release trains on the very vectors and category paths of its predecessor."""
    files = []
    for name in (release.release, release.predecessor):
        manifest = warehouse.training_set(flavour.name, name) / "manifest.json" if name else None
        if manifest is None or not manifest.is_file():
            return False
        files.append(json.loads(manifest.read_text(encoding="utf-8"))["files"])
    return all(files[0][name] == files[1][name] for name in ("vectors.npy", "paths.npy"))


def _write_training_set(
    warehouse: Warehouse, flavour: Flavour, release: Release, tree: Taxonomy, inputs: dict
) -> Outcome:
    import pyarrow as pa
    import pyarrow.dataset as ds
    from pyspark.sql import functions as F

    from sid_pipeline.taxonomy.paths import path_matrix
    from sid_pipeline.training_set import write_training_set

    snapshot = release.training_snapshot
    frame = snapshot_vectors(warehouse, flavour, release, snapshot, ["product_id", "category"])
    texts = warehouse.tables.read(
        EMBEDDED_PRODUCTS, embedder_id=release.embedder_ids[flavour.embedders[0]], snapshot=snapshot
    )
    usable = frame.where(F.col("reason").isNull()).drop("reason", "text_hash")
    usable = usable.join(texts.select("product_id", "text"), "product_id").orderBy("product_id")
    with warehouse.spool(f"{flavour.name}-training-set") as spool:
        usable.write.parquet(str(spool / "rows"))
        files = sorted((spool / "rows").glob("part-*.parquet"))  # in the order of the sort
        source = ds.dataset(files, format="parquet")
        manifest = write_training_set(
            warehouse.training_set(flavour.name, release.release),
            (pa.Table.from_batches([batch]) for batch in source.to_batches(batch_size=8192) if len(batch)),
            source.count_rows(),
            flavour.weights,
            lambda categories: path_matrix(tree, categories),
            {
                "flavour": flavour.name,
                "release": release.release,
                "training_snapshot": snapshot,
                "embedder_ids": {name: release.embedder_ids[name] for name in flavour.embedders},
                **inputs,
            },
        )
    return Outcome(
        data_version=manifest["id"],
        metadata={
            "dagster/row_count": manifest["rows"],
            "dimension": manifest["dimension"],
            "levels of the taxonomy": manifest["depth"],
            "products with a known category": manifest["categorised"],
            "training snapshot": snapshot,
            "folder": str(warehouse.training_set(flavour.name, release.release)),
        },
        facts={"rows": manifest["rows"]},
    )


def snapshot_vectors(
    warehouse: Warehouse, flavour: Flavour, release: Release, snapshot: str, columns: list[str]
) -> Any:
    """Columns of a snapshot's products with a flavour's vectors, see `assignment.assign.product_vectors`."""
    from sid_pipeline.assignment.assign import product_vectors

    return product_vectors(flavour_catalogue(warehouse, flavour, release, snapshot, columns)).drop("source_hash")


def flavour_catalogue(
    warehouse: Warehouse, flavour: Flavour, release: Release, snapshot: str, columns: list[str]
) -> Any:
    """Columns of a snapshot's products, and where a flavour's vectors are: an `assignment.assign.Catalogue`."""
    from sid_pipeline.assignment.assign import STORED, Catalogue

    tables, ids = warehouse.tables, [release.embedder_ids[name] for name in flavour.embedders]
    return Catalogue(
        tables.read(PRODUCTS, snapshot=snapshot).select(*columns, "text_hash"),
        [tables.read(EMBEDDED_PRODUCTS, embedder_id=identity, snapshot=snapshot) for identity in ids],
        [tables.read(EMBEDDINGS, embedder_id=identity) for identity in ids],
        lambda i, run, ddl, keys: tables.map_batches(EMBEDDINGS, STORED, run, ddl, keys, embedder_id=ids[i]),
    )


def _train(warehouse: Warehouse, flavour: Flavour, release: Release, inputs: dict[str, Any]) -> Outcome:
    import shutil

    from sid_pipeline.assets.plots import loss_curves
    from sid_pipeline.rqvae import Codebook, train
    from sid_pipeline.rqvae.progress import ProgressBar
    from sid_pipeline.training_set import load_training_set

    def old(name: str) -> Codebook | None:
        wanted = inputs.get(name)  # receipts of earlier versions lack it
        return Codebook.load(warehouse.codebooks(flavour.name, release.predecessor) / wanted) if wanted else None

    settings = TrainConfig.from_record(inputs["config"])
    training = load_training_set(warehouse.training_set(flavour.name, release.release))
    # A killed run resumes here; another configuration has checkpoints of its own.
    run = digest([training.manifest["id"], settings.to_dict(), inputs.get("start_from")])
    checkpoints = warehouse.state / "checkpoints" / flavour.name / release.release / run
    codebook = train(
        training.vectors,
        training.paths if training.manifest["categorised"] else None,
        settings,
        checkpoint_dir=checkpoints,
        progress=ProgressBar(f"training {flavour.name} {release.release}"),
        provenance={"training_set": training.manifest["id"], "pins": training.manifest["pins"]},
        start_from=old("start_from"),
    )
    before = old("align_to")
    if before is not None:
        codebook = _align(codebook, before, training.vectors)
    folder = codebook.save(warehouse.codebooks(flavour.name, release.release) / codebook.id)
    shutil.rmtree(checkpoints, ignore_errors=True)
    return Outcome(
        data_version=codebook.id,
        metadata={
            "codebook": codebook.id,
            "loss by term": loss_curves(codebook.history),
            "validations": markdown_table(
                [
                    {"step": row["step"], "held-out error / variance": round(row["held_out_relative_error"], 4)}
                    for row in codebook.history
                    if "held_out_relative_error" in row
                ]
            ),
            **_flat(codebook.manifest["metrics"]),
            **_flat(codebook.manifest.get("aligned", {})),
            "manifest": codebook.manifest,
        },
        facts={"codebook_id": codebook.id, "folder": folder.relative_to(warehouse.state).as_posix()},
    )


def _align(codebook: Any, before: Any, vectors: Any) -> Any:
    """The codebook under the numbers of the one before, as far as they hold the same products."""
    import numpy as np

    from sid_pipeline.evaluation.alignment import align

    rows = np.arange(len(vectors))
    if len(rows) > ALIGNED_ON:
        rows = np.sort(np.random.default_rng(0).choice(rows, ALIGNED_ON, replace=False))
    old, new = (
        np.concatenate([book.encode(vectors[part]) for part in np.array_split(rows, max(len(rows) // 8192, 1))])
        for book in (before, codebook)
    )
    return align(codebook, old, new, before.id).book


def _flat(figures: dict[str, Any]) -> dict[str, float]:
    """Health figures as numbers that Dagster can plot: one per level where there are several."""
    flat: dict[str, float] = {}
    for name, value in figures.items():
        if isinstance(value, str):
            continue
        if isinstance(value, list):
            flat |= {f"{name} L{level}": float(v) for level, v in enumerate(value, 1)}
        else:
            flat[name] = float(value)
    return flat
