"""The live pointer and the tokens."""

import pytest

from sid_pipeline.publication.live import read_pointer, transition, write_pointer
from sid_pipeline.publication.tokens import sid_tokens, tokens


def test_the_pointer_survives_moving_the_state_folder(tmp_path):
    old = tmp_path / "old"
    publication = old / "publications" / "esci" / "r1" / "2026-01-05-abc"
    publication.mkdir(parents=True)
    write_pointer(old, "esci", "r1", "2026-01-05", publication, "c1")
    moved = old.rename(tmp_path / "new")
    pointer = read_pointer(moved, "esci")
    assert (moved / pointer["publication"]).is_dir()
    assert pointer["release"] == "r1"


def test_nothing_live_is_none(tmp_path):
    assert read_pointer(tmp_path, "esci") is None


@pytest.mark.parametrize("flavour", ["../x", "a/b", ""])
def test_a_flavour_name_cannot_leave_the_folder(tmp_path, flavour):
    with pytest.raises(ValueError, match="flavour"):
        read_pointer(tmp_path, flavour)


def test_transitions():
    live = {"release": "r1", "publication": "p1", "codebook_id": "c1"}
    assert transition(None, "r1", "p1", "c1") == "first"
    assert transition(live, "r1", "p1", "c1") == "same"
    assert transition(live, "r1", "p2", "c1") == "advance"
    assert transition(live, "r2", "p3", "c3") == "other release"
    assert transition(live, "r1", "p4", "c4") == "other release", "the same name, but other codes"


def test_tokens_stand_at_their_offset():
    vocabulary = tokens(4, 512)
    assert len(vocabulary) == len(set(vocabulary)) == 2048
    assert vocabulary[2 * 512 + 120] == "<c_120>"
    assert sid_tokens((35, 7, 120, 184)) == "<a_35><b_7><c_120><d_184>"
