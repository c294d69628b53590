"""Which publication of a flavour readers should use: one small file, replaced atomically, read without Spark.

Two ways of going live: an *advance* (the live release, newer data) is automatic; a *switch* (another release,
whose codes mean other things to trained readers) is asked for by a named person. A flavour's very first
publication goes live by itself: nobody reads it yet.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sid_pipeline.files import to_json, write_atomically
from sid_pipeline.settings import check_key

FIRST, ADVANCE, SWITCH, SAME, OTHER_RELEASE = "first", "advance", "switch", "same", "other release"


def pointer_path(state: Path, flavour: str) -> Path:
    """The live pointer of a flavour under a state folder."""
    return state / "live" / f"{check_key('flavour', flavour)}.json"


def read_pointer(state: Path, flavour: str) -> dict[str, Any] | None:
    """The live pointer, or None when nothing of the flavour is live."""
    path = pointer_path(state, flavour)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def write_pointer(
    state: Path, flavour: str, release: str, snapshot: str, publication: Path, codebook_id: str
) -> dict[str, Any]:
    """Make a publication live. The folder is stored relative to the state folder, so that state can be moved."""
    pointer = {
        "flavour": flavour,
        "release": release,
        "as_of_snapshot": snapshot,
        "codebook_id": codebook_id,
        "publication": publication.relative_to(state).as_posix(),
    }
    write_atomically(pointer_path(state, flavour), to_json(pointer))
    return pointer


def transition(live: dict[str, Any] | None, release: str, publication: str, codebook_id: str) -> str:
    """What making `publication` live would be: first, same, advance or other release.

    A release whose codebook is not the live one's counts as another release, whatever its name: its codes are others.
    """
    if live is None:
        return FIRST
    if live["publication"] == publication:
        return SAME
    same_codes = (live["release"], live["codebook_id"]) == (release, codebook_id)
    return ADVANCE if same_codes else OTHER_RELEASE
