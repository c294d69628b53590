"""Which publication of a flavour readers should use: one small file, replaced whole, read without Spark.

Two ways of going live: an *advance* (the live release, newer data) is automatic; a *switch* (another release,
whose codes mean other things to trained readers) is asked for by a named person. A flavour's very first
publication goes live by itself: nobody reads it yet. Light: the reader imports this.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sid_pipeline.files import to_json
from sid_pipeline.keys import check_key
from sid_pipeline.publication.folder import PublicationError
from sid_pipeline.publication.store import MANIFEST, Store, describe, open_store, read_json

_NAMES = ("release", "as_of_snapshot", "codebook_id", "publication", "manifest_sha256")
_MEND = "promote a release again, which writes it anew"
FIRST, ADVANCE, SWITCH, SAME, OTHER_RELEASE = "first", "advance", "switch", "same", "other release"


def pointer_path(flavour: str) -> str:
    """The live pointer of a flavour, relative to the store's root."""
    return f"live/{check_key('flavour', flavour)}.json"


def read_pointer(where: Store | str | Path, flavour: str) -> dict[str, Any] | None:
    """The live pointer, or None when nothing of the flavour is live.

    Args:
        where: the store, or its root.

    Raises:
        PublicationError: it is there and cannot be read; the message names it.
    """
    store = open_store(where) if isinstance(where, (str, Path)) else where
    path = pointer_path(flavour)
    try:
        pointer = read_json(store, path)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise PublicationError(f"{error}: {_MEND}") from error
    lacking = [name for name in _NAMES if not isinstance(pointer, dict) or name not in pointer]
    if lacking:
        raise PublicationError(f"{describe(store, path)} does not name the {lacking[0]}: {_MEND}")
    return pointer


def write_pointer(store: Store, folder: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """Make a publication live. The folder is named relative to the store's root, so that all of it can be moved."""
    pointer = {
        "flavour": manifest["flavour"],
        "release": manifest["release"],
        "as_of_snapshot": manifest["as_of_snapshot"],
        "codebook_id": manifest["pins"]["codebook_id"],
        "publication": folder,
        "manifest_sha256": store.sha256(f"{folder}/{MANIFEST}"),
    }
    store.write(pointer_path(manifest["flavour"]), to_json(pointer))
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
