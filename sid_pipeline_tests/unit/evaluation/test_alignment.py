"""Renumbering a codebook after another: exact, and as many products as possible keep their codes."""

from __future__ import annotations

import numpy as np
import pytest

from sid_pipeline.evaluation.alignment import align, lowest_of_equals
from sid_pipeline.rqvae import Codebook, CodebookError, TrainConfig, train
from sid_pipeline.rqvae.renumber import cell_names, one_of_equals, renumber

SIZE, DIM = 16, 24


def catalogue(n: int = 1500):
    """Vectors in 12 categories of two levels, and their paths."""
    rng = np.random.default_rng(9)
    leaf = rng.integers(12, size=n)
    centres = rng.standard_normal((12, DIM)) + 2 * rng.standard_normal((4, DIM))[np.arange(12) // 3]
    x = centres[leaf] + 0.6 * rng.standard_normal((n, DIM))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x.astype(np.float32), np.stack([leaf // 3, leaf], 1)


X, PATHS = catalogue()


def trained(seed: int, x=X, **settings) -> Codebook:
    config = {"codebook_size": SIZE, "latent_dim": 8, "hidden": (12,), "steps": 4, "batch_size": 256, "threads": 1}
    gates = {"min_usage": 0.0, "max_relative_error": float("inf")}
    return train(x, PATHS, TrainConfig(**{**config, **gates, "seed": seed, **settings}))


@pytest.fixture(scope="module")
def old() -> Codebook:
    return trained(1)


def shuffled(book: Codebook, seed: int) -> Codebook:
    """The same codebook under other numbers: names changed under each prefix apart, the other levels permuted."""
    rng = np.random.default_rng(seed)
    before = cell_names(book)
    names = before.copy()
    for level in range(before.shape[1]):
        for prefix in np.unique(before[:, :level], axis=0):
            cells = (before[:, :level] == prefix).all(axis=1)
            names[cells, level] = rng.permutation(SIZE)[before[cells, level]]
    levels = range(before.shape[1], book.levels)
    numbers = [lowest_of_equals(rng.permutation(SIZE), one_of_equals(book, level)) for level in levels]
    return renumber(book, names, numbers)


def test_renumbering_changes_no_distance_and_no_reconstruction(old):
    other = shuffled(old, 1)
    before, after = old.quantise(X), other.quantise(X)
    assert not np.array_equal(before.codes, after.codes)
    assert np.array_equal(old.decode(before.codes), other.decode(after.codes)), "bit for bit"
    np.testing.assert_allclose(before.distance, after.distance, rtol=1e-5, atol=1e-6)
    for depth in range(1, old.levels + 1):
        groups = [
            np.unique(c[:, :depth], axis=0, return_inverse=True)[1].reshape(-1) for c in (before.codes, after.codes)
        ]
        assert len(np.unique(np.stack(groups), axis=1).T) == groups[0].max() + 1 == groups[1].max() + 1, "same groups"
    assert other.id != old.id and other.manifest["run"] == old.manifest["run"]


def test_alignment_undoes_a_renumbering(old):
    """Every used code gets its old number back, and decodes to the same bits."""
    new, was = shuffled(old, 2), old.encode(X)
    aligned = align(new, was, new.encode(X), old.id)
    assert aligned.kept_before[-1] < 0.1
    assert aligned.kept == (1.0,) * old.levels
    assert np.array_equal(aligned.codes, was) and np.array_equal(aligned.book.encode(X), was)
    assert np.array_equal(aligned.book.decode(was), old.decode(was))
    assert aligned.book.manifest["aligned"]["to"] == old.id


def test_a_codebook_aligned_to_itself_is_the_same_codebook(old):
    aligned = align(old, old.encode(X), old.encode(X), old.id)
    assert aligned.book.id == old.id and aligned.kept_before == aligned.kept == (1.0,) * old.levels


@pytest.mark.parametrize(
    "settings", [{}, {"codebook_size": 8}, {"codebook_size": 32}, {"levels": 3, "level_weights": (1.0, 0.5, 0.0)}]
)
def test_alignment_of_a_codebook_that_was_trained_anew(old, settings):
    new = trained(2, X + 0.01 * np.random.default_rng(0).standard_normal(X.shape).astype(np.float32), **settings)
    codes = new.encode(X)
    aligned = align(new, old.encode(X), codes, old.id)
    assert np.array_equal(aligned.book.encode(X), aligned.codes), "the codes that were reported are the codes that come"
    assert np.array_equal(aligned.book.decode(aligned.codes), new.decode(codes))
    assert len(aligned.kept) == min(old.levels, new.levels)
    assert aligned.kept[0] >= aligned.kept_before[0], "the first level's assignment is the best there is"


def test_equal_codewords_keep_the_one_that_is_taken(old):
    """Of equal codewords the lowest number is taken; numbers that changed that would change what products decode to."""
    last, rng = old.levels - 1, np.random.default_rng(4)
    arrays = {name: value.copy() for name, value in old.arrays.items()}
    arrays["codewords"][last, [3, 9, 12]] = arrays["codewords"][last, 5]
    book = Codebook(arrays, {name: value for name, value in old.config.items() if name != "format"})
    identity = [np.arange(SIZE)] * (book.levels - cell_names(book).shape[1])
    with pytest.raises(CodebookError, match="equal codewords"):
        renumber(book, cell_names(book), [*identity[:-1], np.arange(SIZE)[::-1].copy()])
    was = book.encode(X)
    wanted = was.copy()
    wanted[:, last] = rng.permutation(SIZE)[was[:, last]]
    aligned = align(book, wanted, was, "x")
    assert np.array_equal(aligned.book.encode(X), aligned.codes)
    assert np.array_equal(aligned.book.decode(aligned.codes), book.decode(was))


def test_numbers_that_are_no_renaming_are_refused(old):
    names = cell_names(old)
    numbers = [np.arange(SIZE)] * (old.levels - names.shape[1])
    with pytest.raises(CodebookError, match="levels are numbered by permutations"):
        renumber(old, names, numbers[1:])
    with pytest.raises(CodebookError, match=r"no permutation of 0\.\.15"):
        renumber(old, names, [*numbers[1:], numbers[0] * 0])
    with pytest.raises(CodebookError, match="New names of the cells"):
        renumber(old, np.zeros((3, 1), np.int64), numbers)


def test_alignment_needs_the_same_products(old):
    codes = old.encode(X[:10])
    with pytest.raises(ValueError, match="one row of old and of new codes per product"):
        align(old, codes[:5], codes, "x")
