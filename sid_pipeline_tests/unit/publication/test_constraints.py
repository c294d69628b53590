"""The constrained-decoding index against a brute-force set of SIDs."""

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sid_pipeline.publication.constraints import Constraints, beam_search


@st.composite
def catalogues(draw):
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
    sids = draw(st.lists(st.tuples(*[st.integers(0, size - 1) for size in sizes]), min_size=1, max_size=40))
    return sizes, sids


@settings(max_examples=150, deadline=None)
@given(catalogues())
def test_every_prefix_allows_exactly_what_brute_force_allows(catalogue):
    sizes, sids = catalogue
    tree = Constraints.build(np.array(sids), sizes)
    assert tree.sids == len(set(sids))
    states = {(): 0}
    for level, size in enumerate(sizes):
        prefixes = list(states)
        mask = tree.allowed(np.array([states[p] for p in prefixes]), level)
        following = {}
        for prefix, row in zip(prefixes, mask, strict=True):
            allowed = {sid[level] for sid in sids if sid[:level] == prefix}
            assert set(np.flatnonzero(row).tolist()) == allowed
            state = np.full(size, states[prefix])
            after = tree.step(state, np.arange(size), level)
            assert ((after >= 0) == row).all()
            following.update({(*prefix, code): int(after[code]) for code in allowed})
        states = following
    # Whole SIDs are numbered in order: state - starts[-1] is a SID's place in the sorted list.
    assert [s - tree.starts[-1] for s in (states[sid] for sid in sorted(set(sids)))] == list(range(tree.sids))


@settings(max_examples=60, deadline=None)
@given(catalogues())
def test_the_dense_tables_say_what_the_sparse_rows_say(catalogue):
    sizes, sids = catalogue
    tree = Constraints.build(np.array(sids), sizes)
    root = np.zeros(sizes[0], np.int64)
    assert (tree.allowed(root[:1], 0)[0] == (tree.first >= 0)).all()
    if len(sizes) > 1:
        for a, b in itertools.product(range(sizes[0]), range(sizes[1])):
            state = tree.step(np.array([tree.first[a]]), np.array([b]), 1)
            assert tree.second[a, b] == state[0]


@settings(max_examples=60, deadline=None)
@example(([4, 2, 1, 1], [(2, 0, 0, 0), (2, 1, 0, 0), (3, 0, 0, 0)]), 1, 0)
@given(catalogues(), st.integers(1, 50), st.integers(0, 2**32 - 1))
def test_beam_search_with_enough_beams_ranks_all_sids_as_brute_force_does(catalogue, beams, seed):
    sizes, sids = catalogue
    tree = Constraints.build(np.array(sids), sizes)
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=(3, size)) for size in sizes]

    def logits(codes):
        return np.broadcast_to(weights[codes.shape[2]][:, None, :], (3, codes.shape[1], sizes[codes.shape[2]]))

    found, scores = beam_search(tree, logits, batch=3, beams=beams)
    known = set(sids)
    for query in range(3):
        real = [tuple(row) for row, score in zip(found[query].tolist(), scores[query], strict=True) if score > -np.inf]
        assert len(real) == len(set(real)) and set(real) <= known
        assert (np.diff(scores[query][: len(real)]) <= 1e-12).all()
        if beams >= len(known):
            assert set(real) == known
            logp = [w[query] - np.log(np.exp(w[query]).sum()) for w in weights]
            best = max(known, key=lambda sid: sum(p[c] for p, c in zip(logp, sid, strict=True)))
            expected = sum(p[c] for p, c in zip(logp, best, strict=True))
            assert scores[query][0] == pytest.approx(expected)


def test_no_invalid_sid_is_generated_under_random_logits():
    rng = np.random.default_rng(7)
    sids = rng.integers(0, 512, size=(20_000, 4))
    sids[:, 1:] //= rng.integers(1, 64, size=(20_000, 3))  # crowded and empty branches
    tree = Constraints.build(sids, [512] * 4)
    known = {tuple(row) for row in sids.tolist()}
    made, scores = beam_search(tree, lambda codes: 5 * rng.normal(size=(*codes.shape[:2], 512)), batch=64, beams=20)
    generated = [tuple(row) for row in made.reshape(-1, 4).tolist()]
    assert np.isfinite(scores).all()
    assert len(generated) == 1280 and sum(sid not in known for sid in generated) == 0
    # An unconstrained decoder would miss: the set is a vanishing part of the space.
    assert not tree.contains(rng.integers(0, 512, size=(1000, 4))).all()
    assert tree.contains(sids).all()


def test_the_arrays_round_trip_and_do_not_depend_on_order_or_repeats():
    from safetensors.numpy import load, save

    rng = np.random.default_rng(0)
    sids = rng.integers(0, 16, size=(500, 5))
    tree = Constraints.build(sids, [16] * 5)
    again = Constraints.build(np.concatenate([sids, sids])[rng.permutation(1000)], [16] * 5)
    data = save(tree.to_arrays())
    assert data == save(again.to_arrays())
    assert Constraints.from_arrays(load(data)).contains(sids).all()


def test_many_levels_beyond_one_integer():
    rng = np.random.default_rng(0)
    sids = rng.integers(0, 8192, size=(300, 6))
    tree = Constraints.build(sids, [8192] * 6)
    assert tree.second is None, "a dense table of 8192 x 8192 is left out"
    assert tree.contains(sids).all() and tree.sids == 300
    assert not tree.contains((sids + 1) % 8192).any()


def test_no_sids_allow_nothing():
    tree = Constraints.build(np.empty((0, 4), int), [8] * 4)
    assert tree.sids == 0 and not tree.allowed(np.zeros(1, int), 0).any()
