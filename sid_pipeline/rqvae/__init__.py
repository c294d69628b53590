"""RQ-VAE training and the frozen codebook it yields, usable without the rest of the pipeline.

`Codebook` needs numpy and safetensors only; `train` imports torch when it is first asked for, so that a
worker that merely encodes never loads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sid_pipeline.rqvae.codebook import Codebook, CodebookError
from sid_pipeline.rqvae.config import TrainConfig
from sid_pipeline.rqvae.errors import CheckpointError, TrainingError
from sid_pipeline.rqvae.gate import CollapsedCodebookError

if TYPE_CHECKING:
    from sid_pipeline.rqvae.trainer import train

__all__ = [
    "CheckpointError",
    "Codebook",
    "CodebookError",
    "CollapsedCodebookError",
    "TrainConfig",
    "TrainingError",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "train":
        from sid_pipeline.rqvae.trainer import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
