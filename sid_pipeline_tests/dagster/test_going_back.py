"""Which older snapshots SIDs refuse, and what they say."""

import pytest

from sid_pipeline.assets.assignment import _refuse_going_back
from sid_pipeline.ingest.errors import InputError
from sid_pipeline.receipts import Receipt

LAST = Receipt("esci/semantic_ids", "r1", {}, "v", facts={"as_of_snapshot": "2026-01-06"})


def test_a_day_that_a_person_names_needs_force():
    with pytest.raises(InputError, match="set force to go back"):
        _refuse_going_back(LAST, "2026-01-05", asked=True, force=False)
    _refuse_going_back(LAST, "2026-01-05", asked=True, force=True)
    _refuse_going_back(LAST, "2026-01-06", asked=True, force=False)
    _refuse_going_back(None, "2026-01-05", asked=True, force=False)


def test_a_newest_day_that_failed_when_made_anew_is_named_and_nobody_is_told_to_force():
    with pytest.raises(InputError, match="mend that day") as refused:
        _refuse_going_back(LAST, "2026-01-05", asked=False, force=False)
    assert "2026-01-06" in str(refused.value) and "force" not in str(refused.value)
