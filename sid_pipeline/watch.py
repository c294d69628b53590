"""What an operator must know of a running pipeline, read from receipts, pointers and the source alone.

What belongs here: pure questions (which nights are waiting, what is late, what is stale, what readers get). What does
not: asking them on time and acting on the answers (`schedules.py`, `sensors.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sid_pipeline.promotion_log import live_pointer
from sid_pipeline.publication.folder import PublicationError
from sid_pipeline.receipts import complete_snapshots
from sid_pipeline.releases import served_releases
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import PRODUCTS

DAY = "{snapshot}"


@dataclass(frozen=True)
class Stale:
    """A flavour whose live SIDs stand on data that is too old."""

    flavour: str
    as_of_snapshot: str
    days: int


@dataclass(frozen=True)
class Behind:
    """A flavour's SIDs of a served release that stand on an older day than `snapshot`, complete for it `since` then."""

    flavour: str
    release: str
    snapshot: str
    since: datetime


@dataclass(frozen=True)
class _Place:
    """Where something that a night waits for comes to lie."""

    location: str
    format: str
    setting: str


def _places(warehouse: Warehouse, snapshot: str) -> Iterator[_Place]:
    """The day's catalogue, and its offers and vectors of one's own where the settings name some."""
    settings = warehouse.settings
    source = settings.source
    named = [(source.products, source.format, "[source] products"), (source.offers, source.format, "[source] offers")]
    used = {name for flavour in settings.active_flavours.values() for name in flavour.embedders}
    for name in sorted(used):
        vectors = settings.embedders[name].vectors
        if vectors is not None and DAY in vectors:  # others are there every day or on none
            named.append((vectors, "auto", f"embedders.{name}.vectors"))
    for template, format, setting in named:
        if template is not None:
            yield _Place(settings.place(template, snapshot), format, setting)


def still_missing(warehouse: Warehouse, snapshot: str) -> list[str]:
    """Where something that the day's night waits for does not lie yet.

    Raises:
        Unreachable: one of the places cannot be looked at, which says nothing of what lies there.
    """
    from sid_pipeline.ingest.source_files import is_there

    places = _places(warehouse, snapshot)
    return [place.location for place in places if not is_there(place.location, place.format, place.setting)]


def has_arrived(warehouse: Warehouse, snapshot: str) -> bool:
    """Whether all that the day's night waits for lies at its place.

    Raises:
        Unreachable: as `still_missing`.
    """
    return not still_missing(warehouse, snapshot)


def last_delivery(warehouse: Warehouse, snapshot: str) -> datetime | None:
    """When the newest of a day's files was written; None where there is none or nobody can tell."""
    from sid_pipeline.ingest.source_files import last_change

    times = [last_change(place.location, place.format) for place in _places(warehouse, snapshot)]
    return max((time for time in times if time is not None), default=None)


def waiting_nights(warehouse: Warehouse, today: date) -> list[str]:
    """Days after the newest snapshot in the ledger, up to today, whose catalogue has arrived and was not taken yet.

    Days whose catalogue never came are left out: the ones around them do not wait for them.

    Raises:
        Unreachable: as `still_missing`.
    """
    taken = warehouse.receipts.partitions(PRODUCTS.name)
    day = date.fromisoformat(taken[-1]) + timedelta(days=1) if taken else warehouse.settings.snapshots.start
    found = []
    while day <= today:
        if has_arrived(warehouse, day.isoformat()):
            found.append(day.isoformat())
        day += timedelta(days=1)
    return found


def late_places(warehouse: Warehouse, now: datetime, due: datetime) -> list[str]:
    """Where something is missing of the night that was due, once the time it is allowed is over; else empty.

    Args:
        now: with a zone.
        due: with a zone.

    Raises:
        Unreachable: as `still_missing`.
    """
    allowed = timedelta(minutes=warehouse.settings.alerts.late_after_minutes)
    day = due.date().isoformat()
    if now < due + allowed or day in warehouse.receipts.partitions(PRODUCTS.name):
        return []
    return still_missing(warehouse, day)


def stale_flavours(warehouse: Warehouse, today: date) -> list[Stale]:
    """Flavours whose live SIDs are older than `alerts.stale_after_days`; those that cannot be read are left out."""
    found = []
    for flavour in warehouse.settings.active_flavours:
        try:
            pointer = live_pointer(warehouse, flavour)
        except Exception:  # what reads it says so; the age of the others is told all the same
            continue
        if pointer is None:
            continue
        days = (today - date.fromisoformat(pointer["as_of_snapshot"])).days
        if days > warehouse.settings.alerts.stale_after_days:
            found.append(Stale(flavour, pointer["as_of_snapshot"], days))
    return found


def sids_behind(warehouse: Warehouse) -> list[Behind]:
    """The SIDs of served releases that could stand on a newer day; those never made, or half made, are left out."""
    receipts, settings = warehouse.receipts, warehouse.settings
    served = served_releases(warehouse.tables)
    found = []
    for flavour in settings.active_flavours:
        complete = complete_snapshots(receipts, settings, flavour)[-1:]
        names = settings.flavours[flavour].embedders
        made = [receipts.last_success(f"{name}_embeddings", day) for day in complete for name in names]
        times = [time for time in made if time is not None]
        for release in served if times else ():
            assigned = receipts.get(f"{flavour}/semantic_ids", release.release)
            if assigned is not None and assigned.facts["as_of_snapshot"] < complete[0]:
                found.append(Behind(flavour, release.release, complete[0], max(times)))
    return found


def what_is_served(warehouse: Warehouse) -> str:
    """What readers get now, flavour by flavour, in one sentence. Raises nothing: alerts of an outage hold it."""
    parts = []
    for flavour in warehouse.settings.active_flavours:
        try:
            pointer = live_pointer(warehouse, flavour)
        except PublicationError as error:
            parts.append(f"{flavour}: {error}")
        except Exception as error:  # whatever it is; its text may hold what is not meant to be shown
            parts.append(f"{flavour}: cannot be read ({type(error).__name__})")
        else:
            told = f"release {pointer['release']} as of {pointer['as_of_snapshot']}" if pointer else "nothing yet"
            parts.append(f"{flavour}: {told}")
    return "; ".join(parts)
