"""Small catalogues for the RQ-VAE's tests: a tree of Gaussian blobs, seeded."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sid_pipeline.rqvae import TrainConfig


def catalogue(n: int = 500, d: int = 16, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Vectors (n, d) and paths (n, 3) of 4 departments x 3 aisles x 3 leaves; ragged, a twelfth
    uncategorised."""
    rng = np.random.default_rng(seed)
    leaf = rng.integers(36, size=n)
    centre = [rng.standard_normal((k, d)) * s for k, s in ((4, 1.0), (12, 0.7), (36, 0.5))]
    x = centre[0][leaf // 9] + centre[1][leaf // 3] + centre[2][leaf] + 0.3 * rng.standard_normal((n, d))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    paths = np.stack([leaf // 9, leaf // 3, leaf], 1)
    paths[leaf % 7 == 0, 2] = -1
    paths[::12] = -1
    return x, paths


def quick(**changes: Any) -> TrainConfig:
    """Settings that train in about a second."""
    small = {
        "codebook_size": 16,
        "latent_dim": 8,
        "hidden": (16,),
        "batch_size": 128,
        "steps": 40,
        "validate_every": 20,
        "checkpoint_every": 10,
        "reset_every": 10,
        "threads": 1,
    }
    return TrainConfig(**{**small, **changes})
