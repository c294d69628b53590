"""Training on from a codebook: products keep their codes, and what does not fit starts cold."""

from __future__ import annotations

import numpy as np
import pytest

from sid_pipeline.rqvae import Codebook, TrainConfig, train

SIZE, DIM, N = 16, 24, 1500


def catalogue():
    """Vectors in 12 categories of two levels, and their paths."""
    rng = np.random.default_rng(9)
    leaf = rng.integers(12, size=N)
    x = rng.standard_normal((12, DIM))[leaf] + 0.6 * rng.standard_normal((N, DIM))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), np.stack([leaf // 3, leaf], 1)


X, PATHS = catalogue()


def config(**settings) -> TrainConfig:
    usual = {"codebook_size": SIZE, "latent_dim": 8, "hidden": (12,), "steps": 4, "batch_size": 256, "threads": 1}
    return TrainConfig(**{**usual, "min_usage": 0.0, "max_relative_error": float("inf"), "seed": 1, **settings})


@pytest.fixture(scope="module")
def old() -> Codebook:
    return train(X, PATHS, config())


def kept(old: Codebook, new: Codebook, x=X) -> list[float]:
    same = np.logical_and.accumulate(old.encode(x) == new.encode(x), axis=1)
    return same.mean(axis=0).tolist()


def test_without_steps_the_latents_are_the_old_ones(old):
    """Also around another mean: the old encoder reads vectors around the old one."""
    x = np.concatenate([X, X[:300] + 0.05])
    new = train(x, np.concatenate([PATHS, PATHS[:300]]), config(steps=0), start_from=old)
    np.testing.assert_allclose(new.latent(x), old.latent(x), atol=1e-5)
    assert kept(old, new)[:2] == pytest.approx([1, 1], abs=0.01)


def test_products_keep_their_codes_after_a_change_of_the_tree(old):
    moved = PATHS.copy()
    moved[PATHS[:, 1] == 4, 0] = 3
    warm, cold = (train(X, moved, config(seed=2), start_from=start) for start in (old, None))
    assert kept(old, warm)[1] > 0.9 > kept(old, cold)[1]
    assert train(X, moved, config(seed=2), start_from=old).id == warm.id, "the same once more, bit for bit"


@pytest.mark.parametrize("settings", [{"codebook_size": 8}, {"hidden": ()}, {"latent_dim": 6}])
def test_another_shape_starts_cold_and_says_so(old, settings):
    asked = config(**settings)
    new = train(X, PATHS, asked, start_from=old)
    assert new.id == train(X, PATHS, asked).id
    assert any("it starts cold" in note for note in new.manifest["run"]["notes"])


def test_an_interrupted_run_goes_on_where_it_was(old, tmp_path):
    settings = config(steps=6, checkpoint_every=2)
    whole = train(X, PATHS, settings, start_from=old)

    def stop(row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(X, PATHS, settings, start_from=old, checkpoint_dir=tmp_path, progress=stop)
    assert train(X, PATHS, settings, start_from=old, checkpoint_dir=tmp_path).id == whole.id
