"""Vectors as they lie in tables: BINARY little-endian float32 columns to matrices, without a loop per row.

A flavour may join several embeddings: each is normalised, scaled by the root of its weight and concatenated, so
that the cosine of the result is the weighted mean of the cosines.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def matrix(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """A BINARY column as float32 (n, d).

    Raises:
        ValueError: a value is null, or the values differ in length; names the first such row.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # several chunks of a column too large for one array
            return np.concatenate([matrix(chunk) for chunk in column.chunks])
    if column.null_count:
        raise ValueError(f"row {column.is_null().to_numpy(zero_copy_only=False).argmax()} has no vector")
    if len(column) == 0:
        return np.empty((0, 0), np.float32)
    wide = pa.types.is_large_binary(column.type)
    offsets = np.frombuffer(column.buffers()[1], np.int64 if wide else np.int32)
    offsets = offsets[column.offset : column.offset + len(column) + 1]
    lengths = np.diff(offsets)
    width = int(lengths[0])
    odd = np.flatnonzero(lengths != width)
    if odd.size or width == 0 or width % 4:
        row = int(odd[0]) if odd.size else 0
        raise ValueError(f"row {row} has a vector of {lengths[row] / 4:g} values where {width / 4:g} are expected")
    data = np.frombuffer(column.buffers()[2], "<f4", count=len(column) * width // 4, offset=int(offsets[0]))
    return data.reshape(len(column), width // 4)


def binary(vectors: np.ndarray, faults: Sequence[str | None] | None = None) -> pa.Array:
    """A matrix as a BINARY column, the reverse of `matrix`.

    Args:
        vectors: float (n, d).
        faults: per row why it cannot be used; such rows become null.
    """
    rows = np.ascontiguousarray(vectors, "<f4")
    offsets = np.arange(len(rows) + 1, dtype=np.int32) * np.int32(rows.shape[1] * 4)
    column = pa.Array.from_buffers(pa.binary(), len(rows), [None, pa.py_buffer(offsets), pa.py_buffer(rows.tobytes())])
    if faults is None or not any(faults):
        return column
    return pc.if_else(pa.array([fault is None for fault in faults]), column, pa.scalar(None, pa.binary()))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1, float32 (n, d); a row that is zero or not finite stays as it is."""
    vectors = np.asarray(vectors, np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where((lengths > 0) & np.isfinite(lengths), lengths, np.float32(1))


def vector_faults(vectors: np.ndarray) -> list[str | None]:
    """Why each row of (n, d) cannot be used, None where it can: NaN, infinite or zero."""
    finite = np.isfinite(vectors).all(axis=1)
    usable = finite & np.any(vectors, axis=1)
    faults: list[str | None] = [None] * len(vectors)
    for row in np.flatnonzero(~usable).tolist():
        faults[row] = "the vector is zero" if finite[row] else "the vector has NaN or infinite values"
    return faults


def join(parts: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """Weighted concatenation of unit-length embeddings.

    Args:
        parts: float32 (n, d_i) each, rows of unit length.
        weights: one above 0 each.

    Returns:
        float32 (n, sum d_i), rows of unit length; a single part is returned as it is.
    """
    if len(parts) == 1:
        return parts[0]
    total = float(sum(weights))
    scaled = [part * np.float32(np.sqrt(weight / total)) for part, weight in zip(parts, weights, strict=True)]
    return np.concatenate(scaled, axis=1)
