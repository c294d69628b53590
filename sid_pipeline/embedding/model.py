"""The embedding model: where its weights are, what identifies it, and how texts become vectors.

`embedder_id` is computed without loading the model. Two vectors may meet in one codebook only if their embedder
ids are equal, so everything that changes a vector is part of it.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sid_pipeline.embedding.batches import padded_tokens, token_batches
from sid_pipeline.embedding.vectors import unit
from sid_pipeline.files import digest, file_sha256
from sid_pipeline.settings import EmbedderSettings

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PACKAGE_PREFIX = "package:"
# Tokens of a batch: on a CPU about what its caches hold, on an accelerator enough to keep it busy.
CPU_BATCH_TOKENS, ACCELERATOR_BATCH_TOKENS = 1024, 32_768


class ModelError(RuntimeError):
    """A model that cannot be found, loaded or used as set; the message says how to mend it."""


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
    """Name and hash of all that decides a vector: weights, revision, prompt, template, kind of text, dimension, dtype,
    cut-off, and whether the model's own code runs.

    Vectors that a user supplies are known by the `revision` that the user gives them and by their dimension.

    Raises:
        ModelError: the weights cannot be found.
    """
    if settings.vectors is not None:
        short = re.sub(r"[^A-Za-z0-9.-]+", "-", str(settings.revision))
        return f"{short}-{digest({'vectors': settings.revision, 'dimension': settings.dimension}, 12)}"
    location = resolve_model(settings.model, root)
    parts = settings.model_dump(exclude={"batch_tokens", "device", "model", "vectors"})
    if not settings.say_once:
        del parts["say_once"]  # younger than the first ids: what was made without it keeps its name
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


class Encoded(NamedTuple):
    """Vectors of some texts, and what they cost.

    Attributes:
        vectors: float32 (n, d), rows of unit length; a row that the model made zero or not finite stays as it is.
        tokens: tokens of the texts, prompt included, as far as the model reads them.
        padded: tokens that the model worked through, padding included.
    """

    vectors: np.ndarray
    tokens: int
    padded: int


@dataclass(frozen=True)
class Embedder:
    """A loaded model. `encode` gives unit-length float32 rows."""

    id: str
    model: SentenceTransformer
    settings: EmbedderSettings

    @classmethod
    def load(cls, settings: EmbedderSettings, root: Path, device: str | None = None) -> Embedder:
        """Load the weights.

        Args:
            settings: of the embedder.
            root: relative model folders count from it.
            device: instead of the settings'.

        Raises:
            ModelError: they cannot be had (not installed, gated, no network), or are smaller than the dimension.
        """
        import torch
        from sentence_transformers import SentenceTransformer

        location = resolve_model(settings.model, root)
        device = device or settings.device
        try:
            model = SentenceTransformer(
                location,
                revision=settings.revision,
                device=None if device == "auto" else device,
                trust_remote_code=settings.trust_remote_code,
                model_kwargs={"dtype": getattr(torch, settings.dtype)},
            )
        except OSError as error:
            raise ModelError(
                f"the model {settings.model!r} cannot be loaded. If it is gated (google/embeddinggemma-300m is): "
                "accept its licence on its Hugging Face page and set HF_TOKEN; without network, put its folder on "
                f"disk and set embedders.<name>.model to it. Cause: {str(error).splitlines()[0]}"
            ) from error
        model.max_seq_length = min(settings.max_tokens, model.max_seq_length or settings.max_tokens)
        own = model.get_embedding_dimension()
        if settings.dimension and own and settings.dimension > own:
            raise ModelError(
                f"the model {settings.model!r} gives vectors of {own} values, fewer than the {settings.dimension} of "
                "embedders.<name>.dimension: lower it, or leave it out"
            )
        return cls(embedder_id(settings, root), model, settings)

    def encode(self, texts: list[str]) -> np.ndarray:
        """Embed texts.

        Args:
            texts: n texts, without the prompt.

        Returns:
            float32 (n, d), rows of unit length.
        """
        return self.encode_counted(texts).vectors

    def encode_counted(self, texts: list[str]) -> Encoded:
        """Embed texts in batches of like length, and count the tokens."""
        lengths = self._tokens(texts)
        batches = token_batches(lengths, self._batch_tokens)
        if not texts:
            return Encoded(np.empty((0, self.settings.dimension or 0), np.float32), 0, 0)
        parts = [
            self.model.encode(
                [texts[row] for row in rows.tolist()],
                prompt=self.settings.prompt or None,
                batch_size=len(rows),
                truncate_dim=self.settings.dimension,
                convert_to_numpy=True,
                show_progress_bar=False,
            )
            for rows in batches
        ]
        vectors = np.empty((len(texts), parts[0].shape[1]), np.float32)
        vectors[np.concatenate(batches)] = np.concatenate(parts)
        # Here, after the truncation and in float32: a length computed in bfloat16 is off by up to a percent.
        return Encoded(unit(vectors), int(lengths.sum()), padded_tokens(lengths, batches))

    @property
    def _batch_tokens(self) -> int:
        on_cpu = self.model.device.type == "cpu"
        return self.settings.batch_tokens or (CPU_BATCH_TOKENS if on_cpu else ACCELERATOR_BATCH_TOKENS)

    def _tokens(self, texts: list[str]) -> np.ndarray:
        """(n,) tokens of each text with its prompt, cut off where the model cuts it off."""
        prompted = [self.settings.prompt + text for text in texts]
        if not prompted:
            return np.empty(0, np.int64)
        ids = self.model.tokenizer(prompted, truncation=True, max_length=self.model.max_seq_length)["input_ids"]
        return np.maximum(np.fromiter(map(len, ids), np.int64, len(ids)), 1)
