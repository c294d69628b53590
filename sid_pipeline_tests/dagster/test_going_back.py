"""Which older snapshots SIDs refuse, and what they say."""

import pytest

from sid_pipeline.assets.assignment import SnapshotConfig, _refuse_going_back
from sid_pipeline.ingest.errors import InputError

STANDING, OLDER = "2026-01-06", "2026-01-05"


def test_a_day_that_a_person_names_needs_force():
    with pytest.raises(InputError, match="set force to go back"):
        _refuse_going_back(OLDER, SnapshotConfig(as_of_snapshot=OLDER), STANDING)
    _refuse_going_back(OLDER, SnapshotConfig(as_of_snapshot=OLDER, force=True), STANDING)
    _refuse_going_back(STANDING, SnapshotConfig(as_of_snapshot=STANDING), STANDING)


def test_a_newest_day_that_failed_when_made_anew_is_named_and_nobody_is_told_to_force():
    with pytest.raises(InputError, match="mend that day") as refused:
        _refuse_going_back(OLDER, SnapshotConfig(), STANDING)
    assert STANDING in str(refused.value) and "force" not in str(refused.value)
