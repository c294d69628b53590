"""Batches by length and token budget."""

import itertools

import numpy as np

from sid_pipeline.embedding.batches import padded_tokens, token_batches


def test_every_text_is_in_one_batch_and_batches_keep_the_budget():
    lengths = np.random.default_rng(0).integers(1, 40, 500)
    batches = token_batches(lengths, 128)
    assert sorted(np.concatenate(batches).tolist()) == list(range(500))
    assert all(len(rows) * lengths[rows].max() <= 128 for rows in batches)
    assert all(lengths[a].min() >= lengths[b].max() for a, b in itertools.pairwise(batches))


def test_a_text_longer_than_the_budget_stands_alone():
    assert [rows.tolist() for rows in token_batches(np.array([3, 50, 3]), 8)] == [[1], [0, 2]]


def test_padding_is_what_is_worked_through_beyond_the_texts():
    lengths = np.array([4, 4, 2])
    assert padded_tokens(lengths, [np.array([0, 1]), np.array([2])]) == 10
    assert padded_tokens(lengths, [np.array([0, 1, 2])]) == 12
    assert token_batches(np.array([], int), 8) == [] and padded_tokens(np.array([], int), []) == 0
