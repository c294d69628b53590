"""Spelling SIDs in bulk: codes as `35_7_120_184` and back, in Arrow.

Light: workers and readers import it too. What does not belong here: what codes and SIDs mean.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def spelt(codes: NDArray[np.integer]) -> pa.Array:
    """Codes (N, levels) as N strings `c1_c2_c3_c4`; (N, 0) as N empty ones."""
    levels = [pa.array(codes[:, level]).cast(pa.string()) for level in range(codes.shape[1])]
    return pc.binary_join_element_wise(*levels, "_") if levels else pa.repeat("", len(codes))


def lengths(sids: pa.Array | pa.ChunkedArray) -> list[int]:
    """The numbers of codes that SIDs have, each once, ascending."""
    return sorted((pc.count_substring(pc.unique(sids), "_").unique().to_numpy() + 1).tolist()) if len(sids) else []


def codes_of(sids: pa.Array | pa.ChunkedArray, levels: int) -> NDArray[np.int32]:
    """The codes (N, levels) that SIDs of `levels` codes each spell.

    Raises:
        ValueError: a SID has another number of codes, or holds something else; the message names it.
    """
    values = sids.combine_chunks() if isinstance(sids, pa.ChunkedArray) else sids
    steps = pc.split_pattern(values, "_")
    right = pc.equal(pc.list_value_length(steps), levels)
    if not pc.all(right, min_count=0).as_py():
        wrong = values[pc.index(pc.fill_null(right, False), False).as_py()]
        raise ValueError(f"the SID {wrong.as_py()!r} has not {levels} codes like the others of its table")
    try:
        flat = steps.flatten().cast(pa.int32())
    except pa.ArrowInvalid as error:
        raise ValueError(f"a SID holds something else than codes: {error}") from error
    return flat.to_numpy(zero_copy_only=False).reshape(len(values), levels)
