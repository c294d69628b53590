"""What a training run may be told: one validated dataclass, light to import.

Belongs here: every knob of the trainer, its default, its meaning and its limits. Does not belong here:
anything that needs numpy or torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any


def _described(default: Any, text: str) -> Any:
    return field(default=default, metadata={"description": text})


# What training did before a field was there: configurations that were written down then are read as what they meant.
_BEFORE: dict[str, Any] = {
    "contrastive_every": 1,
    "max_error_against_kmeans": math.inf,
    "min_near_share": 0.0,
}


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training run; see `TrainConfig.describe()` for a table of all fields.

    Raises `ValueError` with the field's name, its value and what is allowed, when a value makes no sense.
    """

    levels: int = _described(4, "Codewords per product, coarse to fine.")
    codebook_size: int = _described(512, "Codewords per level.")
    latent_dim: int | None = _described(None, "Width of the latent space; None: 96, or the input's width if less.")
    hidden: tuple[int, ...] = _described(
        (256,),
        "Hidden widths of the encoder's MLP (the decoder's is its mirror); () leaves the linear path alone.",
    )
    lambda_contrastive: float = _described(
        0.01, "Weight of the taxonomy term; 0 turns it off. Reconstruction is summed over dimensions."
    )
    level_weights: tuple[float, ...] = _described(
        (1.0, 0.75, 0.25, 0.0), "Weight of each level inside the taxonomy term, one per level."
    )
    contrastive_every: int = _described(
        4,
        "Steps from one use of the taxonomy term to the next, where it counts for all of them (lazy regularisation, "
        "Karras et al. 2020): in the mean, and but for gradient_clip, its gradient is that of 1, for part of the time.",
    )
    negative_weight: float = _described(5.0, "Weight of unrelated pairs against related ones in the taxonomy term.")
    commitment: float = _described(0.25, "Weight of |z - stop_gradient(quantised)|^2 inside the quantisation loss.")
    snapped_levels: int | None = _described(
        None,
        "Levels whose codes a product takes from the prototype it is most like: 0, 2 or 3. None: 3 if most products "
        "stand in compact categories, else 2; 0 for fewer than four products a codeword.",
    )
    group_products: float = _described(
        32.0,
        "Products that levels 1 and 2 together should hold in a category whose products differ widely (a compact "
        "one stays whole). More of them: more coherent, less unique prefixes.",
    )
    cells_per_group: float = _described(
        3.0,
        "Parts into which a snapped level 3 splits each prototype (of a fraction, the larger ones get one more). The "
        "knob between coherence and uniqueness: fewer parts, and more near-duplicates share three codes and more "
        "products collide.",
    )
    cell_products: float = _described(
        2.0,
        "Products, of those the initialisation looks at, that such a part holds at least in the mean; with fewer, more "
        "products are told apart.",
    )
    prototypes: int = _described(
        4096, "Prototypes, about, at most: in a large catalogue a prototype stands for more products."
    )
    taxonomy_init: bool = _described(True, "Seed level 1 with category means, and prototypes with leaf means.")
    hierarchical_fraction: float = _described(
        0.25, "Share of each batch drawn by the hierarchical sampler; the rest covers all products evenly."
    )
    hierarchical_weight: float = _described(
        0.25, "Weight of hierarchically drawn rows in reconstruction and quantisation losses."
    )
    products_per_slot: int = _described(4, "Products drawn per category slot in the hierarchical part of a batch.")
    batch_size: int = _described(2048, "Rows per step.")
    learning_rate: float = _described(
        3e-4, "Peak learning rate of the MLPs and of the prototypes' keys (AdamW, cosine decay)."
    )
    linear_learning_rate: float = _described(2e-5, "Peak learning rate of the PCA-initialised linear path.")
    table_decay: float = _described(
        0.99, "Decay of the moving averages behind cell means, codewords and readouts, per row that chose an entry."
    )
    weight_decay: float = _described(1e-4, "AdamW weight decay of the MLPs' matrices.")
    gradient_clip: float = _described(1.0, "Largest global gradient norm.")
    steps: int | None = _described(None, "Training steps; overrides epochs. None: by epochs.")
    epochs: float | None = _described(
        None, "Passes over the products; None: as many as give 1,200 steps, at least 6 and at most 60 passes."
    )
    max_seconds: float | None = _described(
        None, "Wall-clock budget in seconds of the whole call, final refit included; the steps done are recorded."
    )
    validate_every: int = _described(100, "Steps between validations.")
    patience: int = _described(6, "Validations without improvement before training stops early.")
    validation_fraction: float = _described(0.05, "Share of products held out for model choice (at most 5,000).")
    reset_every: int = _described(50, "Steps between resets of unused codewords; 0 turns resets off.")
    init_rows: int = _described(131_072, "Rows the initialisation (PCA, prototypes, k-means) looks at, at most.")
    kmeans_iterations: int = _described(12, "Lloyd iterations per level at initialisation, at most.")
    seed: int = _described(0, "Seed of everything random.")
    device: str = _described("auto", "'auto', 'cpu', 'cuda' or 'cuda:N'.")
    threads: int | None = _described(None, "CPU threads of torch; None leaves torch's own choice.")
    checkpoint_every: int = _described(200, "Steps between checkpoints, when a checkpoint folder is given.")
    min_usage: float = _described(
        0.5, "Quality gate: least share of a level's usable codewords in use. 0 turns this gate off."
    )
    max_collisions: float = _described(
        0.9, "Quality gate: largest 1 - distinct code sequences / different products. 1 turns this gate off."
    )
    max_relative_error: float = _described(
        0.9, "Quality gate: largest held-out squared error relative to the variance. inf turns this gate off."
    )
    max_error_against_kmeans: float = _described(
        2.0, "Quality gate: largest held-out error relative to that of residual k-means. inf turns this gate off."
    )
    min_near_share: float = _described(
        0.5,
        "Quality gate: least share of pairs with cosine >= 0.9 that share their first codeword. 0 turns this gate off.",
    )

    def __post_init__(self) -> None:
        for name in ("hidden", "level_weights"):
            value = getattr(self, name)
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
        self._integers()
        self._reals()
        _require(
            isinstance(self.level_weights, tuple)
            and len(self.level_weights) == self.levels
            and all(_is_real(v) and v >= 0 for v in self.level_weights),
            "level_weights",
            self.level_weights,
            f"{self.levels} numbers of 0 or more, one per level",
        )
        _require(
            self.snapped_levels is None or (self.snapped_levels in (0, 2, 3) and self.snapped_levels < self.levels),
            "snapped_levels",
            self.snapped_levels,
            f"None, or 0, 2 or 3 and fewer than the {self.levels} levels",
        )
        _require(
            isinstance(self.hidden, tuple) and all(_is_int(h) and h > 0 for h in self.hidden),
            "hidden",
            self.hidden,
            "a sequence of positive integers, or empty",
        )
        _require(isinstance(self.taxonomy_init, bool), "taxonomy_init", self.taxonomy_init, "true or false")
        known = isinstance(self.device, str) and (
            self.device in ("auto", "cpu", "cuda")
            or (self.device.startswith("cuda:") and self.device[len("cuda:") :].isdigit())
        )
        _require(known, "device", self.device, "'auto', 'cpu', 'cuda' or 'cuda:N'")

    def _integers(self) -> None:
        limits = {
            "levels": 1,
            "codebook_size": 2,
            "contrastive_every": 1,
            "products_per_slot": 2,
            "batch_size": 8,
            "validate_every": 1,
            "patience": 1,
            "reset_every": 0,
            "prototypes": 2,
            "init_rows": 256,
            "kmeans_iterations": 1,
            "seed": 0,
            "checkpoint_every": 1,
        }
        optional = {"latent_dim": 1, "steps": 0, "threads": 1}
        for name, least in {**limits, **optional}.items():
            value = getattr(self, name)
            if value is None and name in optional:
                continue
            _require(_is_int(value) and value >= least, name, value, f"an integer of {least} or more")
        _require(self.codebook_size <= 32_768, "codebook_size", self.codebook_size, "at most 32768")

    def _reals(self) -> None:
        ranges: dict[str, tuple[float, float]] = {
            "lambda_contrastive": (0, math.inf),
            "negative_weight": (0, math.inf),
            "cell_products": (1, math.inf),
            "commitment": (0, math.inf),
            "hierarchical_fraction": (0, 0.9),
            "hierarchical_weight": (0, 1),
            "weight_decay": (0, 1),
            "validation_fraction": (0, 0.5),
            "table_decay": (0, 1),
            "min_usage": (0, 1),
            "max_collisions": (0, 1),
            "max_relative_error": (0, math.inf),
            "max_error_against_kmeans": (0, math.inf),
            "min_near_share": (0, 1),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            _require(_is_real(value) and low <= value <= high, name, value, f"a number from {low:g} to {high:g}")
        for name in (
            "group_products",
            "cells_per_group",
            "learning_rate",
            "linear_learning_rate",
            "gradient_clip",
            "epochs",
            "max_seconds",
        ):
            value = getattr(self, name)
            if value is None and name in ("epochs", "max_seconds"):
                continue
            _require(_is_real(value) and value > 0, name, value, "a number greater than 0")

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON-ready values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Settings from a mapping; an unknown key is an error that names it and the known ones."""
        known = [f.name for f in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"TrainConfig has no field {unknown[0]!r}; its fields are {', '.join(known)}.")
        return cls(**dict(values))

    @classmethod
    def from_record(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Settings as `to_dict` of this or an earlier version wrote them: what was not a setting yet is what it was."""
        return cls.from_dict({**_BEFORE, **values})

    @classmethod
    def describe(cls) -> dict[str, str]:
        """Field name -> one sentence, for forms and documentation."""
        return {f.name: f.metadata["description"] for f in fields(cls)}


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_real(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)


def _require(ok: bool, name: str, value: Any, allowed: str) -> None:
    if not ok:
        raise ValueError(f"TrainConfig.{name} is {value!r}; allowed: {allowed}.")
