"""The ledger of vocabulary releases: what a release is pinned to, and reading it back without Spark.

A release is pinned once, by the first stage of its plane, and its pins never change: another taxonomy, cleaner,
embedder or training snapshot is another release.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sid_pipeline.receipts import MissingInput
from sid_pipeline.resources.tables import Tables
from sid_pipeline.schemas import RELEASES
from sid_pipeline.settings import check_key

TRIAL, SERVED, RETIRED = "trial", "served", "retired"


@dataclass(frozen=True)
class Release:
    """A row of the ledger."""

    release: str
    state: str
    taxonomy_source: str
    taxonomy_revision: str
    training_snapshot: str
    embedder_ids: dict[str, str]
    cleaner_id: str | None
    asked_by: str
    reason: str

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Release:
        """From a row of the table."""
        return cls(
            release=row["release"],
            state=row["state"],
            taxonomy_source=row["taxonomy_source"],
            taxonomy_revision=row["taxonomy_revision"],
            training_snapshot=row["training_snapshot"],
            embedder_ids=json.loads(row["embedder_ids"]),
            cleaner_id=row["cleaner_id"],
            asked_by=row["asked_by"] or "",
            reason=row["reason"] or "",
        )


def all_releases(tables: Tables) -> list[Release]:
    """Every release of the ledger, by name."""
    rows = tables.arrow(RELEASES).to_pylist()
    return sorted((Release.from_row(row) for row in rows), key=lambda release: release.release)


def find_release(tables: Tables, release: str) -> Release | None:
    """A release, or None when the ledger has none of that name."""
    check_key("release", release)
    return next((r for r in all_releases(tables) if r.release == release), None)


def need_release(tables: Tables, release: str) -> Release:
    """A release that a later stage stands on.

    Raises:
        MissingInput: it was not pinned yet.
    """
    found = find_release(tables, release)
    if found is None:
        raise MissingInput(f"release {release!r} is not in the ledger: materialise taxonomy for it first")
    return found
