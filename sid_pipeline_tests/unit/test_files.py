"""Small files: who may read them, and what is left where one could not be written."""

from __future__ import annotations

import os
import stat

import pytest

from sid_pipeline.files import write_atomically


@pytest.fixture(params=[0o022, 0o027, 0o077], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_who_may_read_a_file_is_for_the_umask_to_say(tmp_path, umask):
    file = tmp_path / "live" / "esci.json"
    for text in ("first", "second"):
        write_atomically(file, text)
        assert file.read_text() == text and stat.S_IMODE(file.stat().st_mode) == 0o666 & ~umask
    assert [path.name for path in file.parent.iterdir()] == ["esci.json"]


def test_nothing_is_left_of_a_file_that_could_not_be_written(tmp_path, monkeypatch):
    write_atomically(tmp_path / "a", "before")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("no")))
    with pytest.raises(OSError, match="no"):
        write_atomically(tmp_path / "a", "after")
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_text() == "before"
