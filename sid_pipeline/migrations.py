"""The version of what lies in the state folder, and the steps that bring an older one up to this code.

`version.json` in the state folder says which version wrote it; state from before that file counts as version 1. State
of another version than this code's is refused with a sentence before anything reads it (`check`), and `sid migrate`
runs the steps that are missing, in order. What belongs here: every change of a table, file or folder that older state
does not have. What does not: the formats' own checks (codebooks, publications), which refuse what they cannot read.

To change the layout of state: raise `STATE_VERSION`, add a step to `STEPS` whose docstring says what it does, and a
test that runs it on state of the version before. A step is written so that it can be interrupted and run again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sid_pipeline.files import to_json, write_atomically

if TYPE_CHECKING:
    from sid_pipeline.resources.warehouse import Warehouse

STATE_VERSION = 2
FILE = "version.json"


class StateError(RuntimeError):
    """State that this code must not touch; the message says which version it is and what to do."""


def version_of(state: Path) -> int | None:
    """The version that a state folder says it is; None where nothing was materialised yet.

    Raises:
        StateError: the file that says so cannot be read.
    """
    file = state / FILE
    try:
        version = json.loads(file.read_text(encoding="utf-8"))["state"]
    except FileNotFoundError:
        return 1 if next((state / "receipts").rglob("*.json"), None) else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StateError(f'{file} cannot be read ({error}): restore it; it holds {{"state": NUMBER}}') from error
    if not isinstance(version, int) or isinstance(version, bool):
        raise StateError(f"{file} says version {version!r}, which is no number: restore it")
    return version


def check(state: Path) -> None:
    """Refuse state of another version.

    Raises:
        StateError: it is newer, or older and not migrated yet.
    """
    version = version_of(state)
    if version is None or version == STATE_VERSION:
        return
    if version > STATE_VERSION:
        raise StateError(
            f"{state} was written by a newer version of sid_pipeline (state version {version}, this one reads "
            f"{STATE_VERSION}): run the newer version again, or restore the copy of the state from before it"
        )
    if version < min(STEPS):
        raise StateError(
            f"{state} is of state version {version}, older than any that can be migrated ({min(STEPS)}): build it anew "
            "in a folder of its own; what was published stays readable by the version that wrote it"
        )
    raise StateError(
        f"{state} was written by an older version of sid_pipeline (state version {version}, this one reads "
        f"{STATE_VERSION}): stop what runs on it, keep a copy, and run `sid migrate`"
    )


def mark(state: Path) -> None:
    """Say of a state folder in which nothing was materialised yet that it is of this version."""
    if not (state / FILE).is_file() and version_of(state) is None:
        _write(state, STATE_VERSION)


def migrate(warehouse: Warehouse, tell: Callable[[str], None] = lambda sentence: None) -> list[str]:
    """Run the steps that are missing, one after the other; the version follows each.

    Returns:
        What was done, a sentence a step; empty when the state is of this version already.

    Raises:
        StateError: there is no way from the state's version to this one.
    """
    state, done = warehouse.state, []
    while (version := version_of(state)) not in (None, STATE_VERSION):
        step = STEPS.get(version)
        if step is None:
            check(state)
            raise StateError(f"{state}: no step leads on from state version {version}")
        sentence = f"{version} to {version + 1}: {step(warehouse)}"
        _write(state, version + 1)
        tell(sentence)
        done.append(sentence)
    return done


def _write(state: Path, version: int) -> None:
    write_atomically(state / FILE, to_json({"state": version}))


def _add_columns(warehouse: Warehouse) -> str:
    """1 to 2: tables get the columns that came later, such as a row's last change, tombstones and collision policies.

    Until now a table got them at its next write, and a read before that failed. Rows that were there have nulls.
    """
    from deltalake import DeltaTable

    from sid_pipeline.schemas import ALL_TABLES

    tables = warehouse.unchecked_tables
    added = []
    for spec in {**ALL_TABLES, warehouse.cleaned.name: warehouse.cleaned}.values():
        if not tables.exists(spec):
            continue
        there = {field.name for field in DeltaTable(tables.location(spec)).schema().fields}
        lacking = [column.name for column in spec.columns if column.name not in there]
        if lacking:
            tables.ensure(spec)
            added.append(f"{spec.name} got {', '.join(lacking)}")
    return "; ".join(added) or "no table lacked a column"


# Version to the step that leads to the next one.
STEPS: dict[int, Callable[[Warehouse], str]] = {1: _add_columns}
