"""How the relevance model is trained: one validated dataclass, light to import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

# What training shares with inference; it comes from the embedder's settings.
OF_THE_EMBEDDER = ("prompt", "max_tokens", "revision", "device")


@dataclass(frozen=True)
class FineTuneConfig:
    """How to train. The defaults suit a small model on a CPU.

    Attributes:
        contrastive_epochs, ranking_epochs: passes over the E pairs, and over all pairs; 0 leaves a stage out.
        contrastive_batch: E pairs in a batch; each is a negative to the others.
        hard_negatives: I or C products drawn for each E pair.
        ranking_batch: pairs in a batch, of whole queries where they fit.
        max_steps: batches of a stage at most; None for no limit.
        learning_rate: of AdamW, after a linear warm-up over `warmup_share` of a stage, before a linear decay.
        scale: inverse temperature of the cosine in both losses.
        prompt: put before each text, as at inference.
        max_tokens: longer texts are cut, as at inference.
        revision: pinned revision of a Hugging Face model.
        device: auto, cpu, cuda, cuda:1, mps.
        checkpoint_seconds: how much work a kill may lose.

    Raises:
        ValueError: a value makes no sense; names the field and what is allowed.
    """

    contrastive_epochs: int = 1
    ranking_epochs: int = 1
    contrastive_batch: int = 16
    hard_negatives: int = 1
    ranking_batch: int = 32
    max_steps: int | None = None
    learning_rate: float = 2e-5
    warmup_share: float = 0.1
    weight_decay: float = 0.01
    max_gradient_norm: float = 1.0
    scale: float = 20.0
    prompt: str = ""
    max_tokens: int = 128
    revision: str | None = None
    seed: int = 0
    device: str = "auto"
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        at_least = {
            "contrastive_epochs": 0,
            "ranking_epochs": 0,
            "contrastive_batch": 2,
            "hard_negatives": 0,
            "ranking_batch": 2,
            "max_steps": 1,
            "warmup_share": 0,
            "weight_decay": 0,
            "checkpoint_seconds": 0,
        }
        for name, bound in at_least.items():
            value = getattr(self, name)
            if value is not None and not value >= bound:
                raise ValueError(f"FineTuneConfig.{name} is {value!r}; allowed: {bound} or more")
        for name in ("learning_rate", "max_gradient_norm", "scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"FineTuneConfig.{name} is {getattr(self, name)!r}; allowed: above 0")
        if self.contrastive_epochs == self.ranking_epochs == 0:
            raise ValueError("FineTuneConfig leaves out both stages: set contrastive_epochs or ranking_epochs above 0")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FineTuneConfig:
        """From settings; what training shares with inference is not set here.

        Raises:
            ValueError: an unknown field, or a value that makes no sense.
        """
        known = [field.name for field in fields(cls) if field.name not in OF_THE_EMBEDDER]
        for name, value in values.items():
            if name not in known:
                raise ValueError(f"FineTuneConfig has no field {name!r}; its fields are {', '.join(known)}")
            if isinstance(value, (str, bool)):
                raise ValueError(f"FineTuneConfig.{name} is {value!r}; it must be a number")
        return cls(**dict(values))
