"""What an operator must know of a running pipeline, read from receipts, pointers and the source alone.

What belongs here: pure questions (which nights are waiting, what is late, what is stale, what readers get). What does
not: asking them on time and acting on the answers (`schedules.py`, `sensors.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sid_pipeline.ingest.errors import InputError
from sid_pipeline.promotion_log import live_pointer
from sid_pipeline.publication.folder import PublicationError
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import PRODUCTS


@dataclass(frozen=True)
class Stale:
    """A flavour whose live SIDs stand on data that is too old."""

    flavour: str
    as_of_snapshot: str
    days: int


def has_arrived(warehouse: Warehouse, snapshot: str) -> bool:
    """Whether the day's catalogue, and its offers where the settings name some, lie at their place."""
    from sid_pipeline.ingest.source_files import find_source

    source = warehouse.settings.source
    for template, setting in ((source.products, "[source] products"), (source.offers, "[source] offers")):
        if template is None:
            continue
        try:
            find_source(warehouse.settings.location(template.replace("{snapshot}", snapshot)), source.format, setting)
        except InputError:
            return False
    return True


def waiting_nights(warehouse: Warehouse, today: date) -> list[str]:
    """Days after the newest snapshot in the ledger, up to today, whose catalogue has arrived and was not taken yet.

    Days whose catalogue never came are left out: the ones around them do not wait for them.
    """
    taken = warehouse.receipts.partitions(PRODUCTS.name)
    day = date.fromisoformat(taken[-1]) + timedelta(days=1) if taken else warehouse.settings.snapshots.start
    found = []
    while day <= today:
        if has_arrived(warehouse, day.isoformat()):
            found.append(day.isoformat())
        day += timedelta(days=1)
    return found


def is_late(warehouse: Warehouse, now: datetime, due: datetime) -> bool:
    """Whether the night that was due has not come, and the time it is allowed is over. Both times carry a zone."""
    allowed = timedelta(minutes=warehouse.settings.alerts.late_after_minutes)
    day = due.date().isoformat()
    if now < due + allowed or day in warehouse.receipts.partitions(PRODUCTS.name):
        return False
    return not has_arrived(warehouse, day)


def stale_flavours(warehouse: Warehouse, today: date) -> list[Stale]:
    """Flavours whose live SIDs are older than `alerts.stale_after_days`."""
    found = []
    for flavour in warehouse.settings.active_flavours:
        try:
            pointer = live_pointer(warehouse, flavour)
        except PublicationError:  # what reads it says so
            continue
        if pointer is None:
            continue
        days = (today - date.fromisoformat(pointer["as_of_snapshot"])).days
        if days > warehouse.settings.alerts.stale_after_days:
            found.append(Stale(flavour, pointer["as_of_snapshot"], days))
    return found


def what_is_served(warehouse: Warehouse) -> str:
    """What readers get now, flavour by flavour, in one sentence."""
    parts = []
    for flavour in warehouse.settings.active_flavours:
        try:
            pointer = live_pointer(warehouse, flavour)
        except PublicationError as error:
            parts.append(f"{flavour}: {error}")
            continue
        if pointer is None:
            parts.append(f"{flavour}: nothing yet")
        else:
            parts.append(f"{flavour}: release {pointer['release']} as of {pointer['as_of_snapshot']}")
    return "; ".join(parts)
