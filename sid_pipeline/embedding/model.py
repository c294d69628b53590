"""The embedding model: where its weights are, what identifies it, and how texts become vectors.

`embedder_id` is computed without loading the model. Two vectors may meet in one codebook only if their embedder
ids are equal, so everything that changes a vector is part of it.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sid_pipeline.files import digest, file_sha256
from sid_pipeline.settings import EmbedderSettings

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PACKAGE_PREFIX = "package:"


class ModelError(RuntimeError):
    """A model that cannot be found or loaded; the message says how to get it."""


def resolve_model(model: str, root: Path) -> str:
    """Turn a model setting into a folder, or leave a Hugging Face name as it is.

    Raises:
        ModelError: the named package or folder does not exist.
    """
    if model.startswith(PACKAGE_PREFIX):
        name = model.removeprefix(PACKAGE_PREFIX)
        spec = importlib.util.find_spec(name) if re.match(r"^\w+$", name) else None
        if spec is None or not spec.submodule_search_locations:
            raise ModelError(f"the package {name!r} that carries the weights is not installed")
        folder = Path(next(iter(spec.submodule_search_locations))) / "model"
        if not (folder / "modules.json").is_file():
            raise ModelError(f"the package {name!r} has no folder 'model' with a sentence-transformers model")
        return str(folder)
    folder = root / Path(model).expanduser()
    if folder.is_dir():
        return str(folder)
    if model.startswith((".", "/", "~")):
        raise ModelError(f"the model folder {folder} does not exist")
    return model


def embedder_id(settings: EmbedderSettings, root: Path) -> str:
    """Name and hash of all that decides a vector: weights, revision, prompt, template, dimension, dtype, cut-off.

    Raises:
        ModelError: the weights cannot be found.
    """
    location = resolve_model(settings.model, root)
    parts = settings.model_dump(exclude={"batch_size", "device", "model"})
    if Path(location).is_dir():
        parts["model"] = _weights_fingerprint(Path(location))
    elif settings.revision:
        parts["model"] = location
    else:
        raise ModelError(
            f"the model {location!r} of the Hugging Face hub needs a pinned revision (a commit hash): its main branch "
            "may move, and vectors of two models must not share one codebook. Set embedders.<name>.revision"
        )
    short = re.sub(r"[^A-Za-z0-9.-]+", "-", Path(settings.model.removeprefix(PACKAGE_PREFIX)).name)
    return f"{short}-{digest(parts, 12)}"


def _weights_fingerprint(folder: Path) -> str:
    """Hash of the files that decide a vector; a README beside them does not."""
    wanted = {".json", ".txt", ".safetensors", ".model", ".bin"}
    files = sorted(path for path in folder.rglob("*") if path.suffix in wanted and path.is_file())
    return digest([(path.relative_to(folder).as_posix(), file_sha256(path)) for path in files], 32)


@dataclass(frozen=True)
class Embedder:
    """A loaded model. `encode` gives unit-length float32 rows."""

    id: str
    model: SentenceTransformer
    settings: EmbedderSettings

    @classmethod
    def load(cls, settings: EmbedderSettings, root: Path) -> Embedder:
        """Load the weights.

        Raises:
            ModelError: they cannot be had: not installed, gated, or no network.
        """
        import torch
        from sentence_transformers import SentenceTransformer

        location = resolve_model(settings.model, root)
        try:
            model = SentenceTransformer(
                location,
                revision=settings.revision,
                device=None if settings.device == "auto" else settings.device,
                trust_remote_code=settings.trust_remote_code,
                truncate_dim=settings.dimension,
                model_kwargs={"dtype": getattr(torch, settings.dtype)},
            )
        except OSError as error:
            raise ModelError(
                f"the model {settings.model!r} cannot be loaded. If it is gated (google/embeddinggemma-300m is): "
                "accept its licence on its Hugging Face page and set HF_TOKEN; without network, put its folder on "
                f"disk and set embedders.<name>.model to it. Cause: {str(error).splitlines()[0]}"
            ) from error
        model.max_seq_length = min(settings.max_tokens, model.max_seq_length or settings.max_tokens)
        return cls(embedder_id(settings, root), model, settings)

    def encode(self, texts: list[str]) -> np.ndarray:
        """Embed texts.

        Args:
            texts: n texts, without the prompt.

        Returns:
            float32 (n, d), rows of unit length.
        """
        vectors = self.model.encode(
            texts,
            prompt=self.settings.prompt or None,
            batch_size=self.settings.batch_size,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return np.ascontiguousarray(vectors, dtype=np.float32)


def vector_faults(vectors: np.ndarray) -> list[str | None]:
    """Why each row of (n, d) cannot be used, None where it can: NaN, infinite or zero."""
    finite = np.isfinite(vectors).all(axis=1)
    zero = finite & ~np.any(vectors, axis=1)
    return [
        None if ok and not empty else ("the vector is zero" if empty else "the vector has NaN or infinite values")
        for ok, empty in zip(finite.tolist(), zero.tolist(), strict=True)
    ]
