"""BINARY columns to matrices, and joining embeddings."""

import numpy as np
import pyarrow as pa
import pytest

from sid_pipeline.embedding.vectors import binary, join, matrix, unit, vector_faults


def column(x):
    return pa.array([row.astype("<f4").tobytes() for row in x], pa.binary())


def test_a_column_is_its_matrix():
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    assert np.array_equal(matrix(column(x)), x)
    assert np.array_equal(matrix(column(x).slice(2, 2)), x[2:4])
    assert np.array_equal(matrix(pa.chunked_array([column(x[:2]), column(x[2:])])), x)


def test_an_empty_column_has_no_rows():
    assert matrix(pa.array([], pa.binary())).shape[0] == 0


def test_rows_without_or_with_odd_vectors_are_named():
    with pytest.raises(ValueError, match="row 1 has no vector"):
        matrix(pa.array([b"1234", None]))
    with pytest.raises(ValueError, match="row 2 has a vector of 2 values where 1 are expected"):
        matrix(pa.array([b"1234", b"1234", b"12345678"]))


def test_joined_cosine_is_the_weighted_mean_of_cosines():
    rng = np.random.default_rng(1)
    a, b = (rng.standard_normal((2, d)) for d in (4, 6))
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
    both = join([a.astype(np.float32), b.astype(np.float32)], [3.0, 1.0])
    assert np.allclose(np.linalg.norm(both, axis=1), 1, atol=1e-6)
    assert np.isclose(both[0] @ both[1], 0.75 * a[0] @ a[1] + 0.25 * b[0] @ b[1], atol=1e-6)


def test_unusable_vectors_are_told_apart():
    x = np.array([[1, 0], [0, 0], [np.nan, 1], [np.inf, 0]], np.float32)
    faults = vector_faults(x)
    assert faults[0] is None
    assert "zero" in faults[1]
    assert "NaN" in faults[2] and "NaN" in faults[3]


def test_binary_is_the_reverse_of_matrix_and_nulls_what_is_faulty():
    x = np.random.default_rng(2).standard_normal((4, 3)).astype(np.float32)
    assert np.array_equal(matrix(binary(x)), x)
    some = binary(x, [None, "the vector is zero", None, None])
    assert some.to_pylist() == [x[0].tobytes(), None, x[2].tobytes(), x[3].tobytes()]


def test_unit_leaves_what_has_no_direction():
    x = np.array([[3, 4], [0, 0], [np.nan, 1]], np.float32)
    scaled = unit(x)
    assert np.allclose(scaled[0], [0.6, 0.8])
    assert not scaled[1].any() and np.isnan(scaled[2, 0])
