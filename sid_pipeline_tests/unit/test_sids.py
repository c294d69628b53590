"""Codes as SIDs and back, in bulk."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from sid_pipeline.sids import codes_of, lengths, spelt


@pytest.mark.parametrize("shape", [(0, 4), (5, 1), (1_000, 4)])
def test_codes_come_back(shape):
    codes = np.random.default_rng(0).integers(0, 512, shape).astype(np.int32)
    sids = spelt(codes)
    assert len(sids) == len(codes) and np.array_equal(codes_of(sids, shape[1]), codes)
    in_pieces = pa.chunked_array([sids.slice(0, len(sids) // 3), sids.slice(len(sids) // 3)], pa.string())
    assert np.array_equal(codes_of(in_pieces, shape[1]), codes)
    assert lengths(sids) == ([shape[1]] if len(codes) else [])


def test_what_is_no_sid_of_that_many_codes_is_named():
    assert spelt(np.array([[35, 7, 120]])).to_pylist() == ["35_7_120"]
    assert lengths(pa.array(["1_2", "1", "3_4", "1_2_3"])) == [1, 2, 3]
    with pytest.raises(ValueError, match="the SID '1_2_3' has not 2 codes"):
        codes_of(pa.array(["1_2", "1_2_3"]), 2)
    with pytest.raises(ValueError, match="something else than codes"):
        codes_of(pa.array(["1_x"]), 2)
