"""The live pointer."""

import pytest

from sid_pipeline.publication.folder import PublicationError
from sid_pipeline.publication.live import read_pointer, transition, write_pointer
from sid_pipeline.publication.publish import publish
from sid_pipeline.publication.store import open_store
from sid_pipeline.reader import open_live
from sid_pipeline_tests.publications import source


def test_the_pointer_survives_moving_the_state_folder(tmp_path):
    old = open_store(tmp_path / "old")
    made = publish(old, source(tmp_path), tmp_path / "spool")
    write_pointer(old, made.folder, made.manifest)
    (tmp_path / "old").rename(tmp_path / "new")
    pointer = read_pointer(tmp_path / "new", "esci")
    assert pointer["release"] == "r1"
    assert open_live("esci", tmp_path / "new").folder == made.folder


def test_nothing_live_is_none(tmp_path):
    assert read_pointer(tmp_path, "esci") is None


def test_a_damaged_pointer_is_named(tmp_path):
    (tmp_path / "live").mkdir()
    (tmp_path / "live" / "esci.json").write_text('{"flavour": ')
    with pytest.raises(PublicationError, match=r"live/esci\.json is no valid JSON .*: promote a release again"):
        read_pointer(tmp_path, "esci")
    for altered in ("{}", "[]"):
        (tmp_path / "live" / "esci.json").write_text(altered)
        with pytest.raises(PublicationError, match=r"esci\.json does not name the release: promote a release again"):
            read_pointer(tmp_path, "esci")


@pytest.mark.parametrize("flavour", ["../x", "a/b", "", "x'y", "x\n"])
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
