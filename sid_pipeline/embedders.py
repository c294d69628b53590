"""Which embedders are at work: the settings' own, a fine-tuned one in their place, and those that releases pin.

Every embedder that encoded something is written down under its id (`artefacts/embedders/<id>.json`), so that a
release can go on with the embedder it is pinned to after the settings have moved to another. What does not belong
here: loading a model (`embedding.model`) and training one (`relevance`).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from sid_pipeline.embedding.model import ModelError, embedder_id
from sid_pipeline.files import to_json, write_atomically
from sid_pipeline.keys import check_key
from sid_pipeline.receipts import MissingInput
from sid_pipeline.releases import RETIRED, all_releases
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.settings import EmbedderSettings

RELEVANCE_MODEL = "esci_model"


def current_embedder(warehouse: Warehouse, name: str) -> EmbedderSettings:
    """The embedder that a new release of today would stand on: the settings', or the model fine-tuned from it.

    Raises:
        MissingInput: a fine-tuned model stands on another base model than the settings name now.
        ModelError: the settings' weights cannot be found.
    """
    settings = warehouse.settings
    embedder = settings.embedders[name]
    trained = warehouse.receipts.get(RELEVANCE_MODEL) if settings.relevance.embedder == name else None
    if trained is None or trained.facts.get("model") is None:
        return embedder
    if trained.inputs["embedder_id"] != embedder_id(embedder, settings.root):
        raise MissingInput(
            f"{RELEVANCE_MODEL} was trained from {trained.inputs['embedder_id']}, and embedders.{name} has changed "
            f"since: materialise {RELEVANCE_MODEL} again"
        )
    # Relative, so that the whole project may move.
    folder = os.path.relpath(warehouse.state / trained.facts["model"], settings.root)
    return embedder.model_copy(update={"model": os.path.join(".", folder), "revision": None})


def current_id(warehouse: Warehouse, name: str) -> str:
    """The id of `current_embedder`."""
    return embedder_id(current_embedder(warehouse, name), warehouse.settings.root)


def wanted_embedders(warehouse: Warehouse, name: str) -> tuple[dict[str, EmbedderSettings], list[str]]:
    """Embedders by id that a night encodes for under a name: today's, and those that releases in use pin.

    Returns:
        They, and a sentence for each one that cannot be had any more: a release without its embedder holds back
        nobody but itself.
    """
    embedder = current_embedder(warehouse, name)
    wanted, lost = {embedder_id(embedder, warehouse.settings.root): embedder}, []
    # A place that own vectors are delivered to holds those of one revision: today's, else the youngest release's.
    delivered = {e.vectors: e.revision for e in warehouse.settings.embedders.values() if e.vectors is not None}
    for release in sorted(all_releases(warehouse.tables), key=lambda release: release.created_at, reverse=True):
        identity = release.embedder_ids.get(name)
        if identity is None or identity in wanted or release.state == RETIRED:
            continue
        try:
            recalled = recall(warehouse, identity)
            if recalled.vectors is not None:
                _check_delivered(recalled, delivered.setdefault(recalled.vectors, recalled.revision))
            wanted[identity] = recalled
        except ModelError as error:
            lost.append(f"release {release.release!r} is pinned to the embedder {identity}: {error}")
    return wanted, lost


def _check_delivered(embedder: EmbedderSettings, revision: str | None) -> None:
    if revision != embedder.revision:
        raise ModelError(
            f"its vectors, of revision {embedder.revision!r}, were delivered to {embedder.vectors}, where those of "
            f"{revision!r} are now, and two models' vectors never meet in one codebook: build a release on these and "
            "retire it"
        )


def record(warehouse: Warehouse, identity: str, embedder: EmbedderSettings) -> None:
    """Write an embedder down under its id; what is written stays."""
    file = _file(warehouse, identity)
    if not file.is_file():
        write_atomically(file, to_json(embedder.model_dump(mode="json")))


def recall(warehouse: Warehouse, identity: str) -> EmbedderSettings:
    """The embedder of an id.

    Raises:
        ModelError: it was never written down, or its weights are gone or are others now.
    """
    file = _file(warehouse, identity)
    if not file.is_file():
        raise ModelError(f"{file} is missing: restore it, or retire the release")
    written = json.loads(file.read_text(encoding="utf-8"))
    embedder = EmbedderSettings.model_validate({**written, "model": where_now(warehouse, written["model"])})
    found = embedder_id(embedder, warehouse.settings.root)
    if found != identity:
        raise ModelError(
            f"the weights {embedder.model!r} are not what they were (their id is {found} now): put the old ones back, "
            "or retire the release"
        )
    return embedder


def where_now(warehouse: Warehouse, model: str) -> str:
    """A model as it was written down; one that was trained here lies within the state, wherever that is now."""
    _, here, name = model.partition("/artefacts/models/")
    folder = warehouse.state / "artefacts" / "models" / name
    if not here or not folder.is_dir():
        return model
    return os.path.join(".", os.path.relpath(folder, warehouse.settings.root))


def _file(warehouse: Warehouse, identity: str) -> Path:
    return warehouse.state / "artefacts" / "embedders" / f"{check_key('embedder', identity)}.json"
