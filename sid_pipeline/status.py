"""The text of `sid status`: what is live and what it stands on, what failed, what blocks, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any

from sid_pipeline.drift import drifted
from sid_pipeline.evaluation.drift import advice
from sid_pipeline.promotion_log import live_pointer, standing_hold, tell_hold, ways_back
from sid_pipeline.publication.folder import PublicationError, look_over
from sid_pipeline.receipts import Receipt, complete_snapshots
from sid_pipeline.releases import RETIRED, SERVED, Release, all_releases, served_releases
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.summary import table
from sid_pipeline.troubles import mend, standing, standing_runs, told

if TYPE_CHECKING:
    from sid_pipeline.run_history import LostRun

ROLL_BACK = "sid rollback --flavour {} --by NAME --reason WHY"
PROMOTE = "sid promote RELEASE --flavour {} --by NAME --reason WHY"
RELEASE_HOLD = "sid release-hold{} --by NAME --reason WHY    once what it is held for is mended"

Pointer = dict[str, Any]


@dataclass
class _Found:
    """What is wrong and which commands mend it, collected flavour by flavour and release by release.

    Attributes:
        damaged, blocked: sentences.
        repairs: commands that bring back what is live.
        runs: commands that bring what is live up to date.
        held: flavours that are on hold.
    """

    damaged: list[str] = field(default_factory=list)
    blocked: list[str] = field(default_factory=list)
    repairs: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)


def show_status(warehouse: Warehouse, running: Sequence[str] = (), lost: Sequence[LostRun] = ()) -> str:
    """Served and live releases, the age of what they stand on, what failed, what blocks, and the next actions.

    Args:
        running: lines on what runs by itself, see `running.what_runs`.
        lost: see `run_history.lost_runs`.
    """
    days = warehouse.receipts.partitions("products")
    ledger = all_releases(warehouse.tables)
    states = {release.release: release.state for release in ledger}
    found = _Found(runs=[] if days else ["sid run"])
    pointers: dict[str, Pointer | None] = {}
    lines = [f"snapshots: {len(days)}{f', newest {days[-1]}' if days else ''}"]
    for flavour in warehouse.settings.active_flavours:
        pointers[flavour], told_of_it = _flavour(warehouse, flavour, days, states, found)
        lines += told_of_it
    live = {flavour: pointer["release"] for flavour, pointer in pointers.items() if pointer is not None}
    if ledger:
        lines += ["", *_releases(warehouse, ledger, pointers, live, found)]
    troubles, buildable = standing(warehouse), {*states, warehouse.settings.release.default}
    lines += ["", *found.damaged, *told(troubles, standing_runs(warehouse, lost), buildable)]
    lines += [f"blocked: {text}" for text in found.blocked] or ["blocked: nothing"]
    lines += [*_drift(warehouse), *running]
    actions = [*found.repairs, *[mend(trouble, buildable) for trouble in troubles], *found.runs]
    if found.held:
        every = len(found.held) == len(warehouse.settings.active_flavours)
        actions.append(RELEASE_HOLD.format("" if every else f" --flavour {' --flavour '.join(found.held)}"))
    first, *others = dict.fromkeys(actions) or [_nothing_to_do(warehouse, live, states)]
    return "\n".join([*lines, f"next: {first}", *[f"then: {action}" for action in others]])


def _flavour(
    warehouse: Warehouse, flavour: str, days: Sequence[str], states: Mapping[str, str], found: _Found
) -> tuple[Pointer | None, list[str]]:
    """A flavour's live pointer, and the line on it, none if it is damaged."""
    complete = complete_snapshots(warehouse.receipts, warehouse.settings, flavour)
    newest = complete[-1] if complete else None
    pointer, fault = _live(warehouse, flavour)
    held = standing_hold(warehouse, flavour)
    lines = []
    if fault:
        found.damaged.append(f"damaged: {flavour}: {fault}")
        found.repairs.append(_repair(warehouse, flavour, pointer))
    if pointer is not None:
        as_of = pointer["as_of_snapshot"]
        behind = sum(day > as_of for day in days)
        age = f", {behind} snapshot(s) behind" if behind else ", up to date"
        lines.append(f"{flavour}: live {pointer['release']} as of {as_of} ({_age(as_of)}){age}")
        if states.get(pointer["release"]) == RETIRED:
            found.blocked.append(f"{flavour}: what is live, {pointer['release']}, is retired, so nothing refreshes it")
            found.runs.append(PROMOTE.format(flavour))
        elif newest and newest > as_of and held is None:
            done = _stopped_at(warehouse, flavour, pointer, newest)
            found.runs.append("see blocked" if done else f"sid run --release {pointer['release']}")
    elif not fault:
        lines.append(f"{flavour}: nothing is live; newest complete snapshot {newest or 'none'}")
    if held is not None:
        found.blocked.append(f"{flavour}: {tell_hold(held)}; nothing goes live until sid release-hold")
        found.held.append(flavour)
    if days and newest != days[-1]:
        found.blocked.append(f"{flavour}: snapshot {days[-1]} is not complete (its embeddings are missing or older)")
        found.runs.insert(0, f"sid run --snapshot {days[-1]}")
    return pointer, lines


def _repair(warehouse: Warehouse, flavour: str, pointer: Pointer | None) -> str:
    """What brings back a flavour whose live publication, or the pointer to it, is damaged."""
    if pointer is None:
        return PROMOTE.format(flavour)
    if ways_back(warehouse, flavour):
        return ROLL_BACK.format(flavour)
    release = pointer["release"]
    return (
        f"copy {pointer['publication']} from the backup: nothing was live before it. Without a backup remove what is "
        f"left of it, then sid run --release {release}, and sid promote {release} --flavour {flavour} --by NAME "
        "--reason WHY if that does not bring it back"
    )


def _releases(
    warehouse: Warehouse,
    ledger: Sequence[Release],
    pointers: Mapping[str, Pointer | None],
    live: Mapping[str, str],
    found: _Found,
) -> list[str]:
    """The table of releases."""
    flavours = warehouse.settings.active_flavours
    rows = [["release", "state", "taxonomy", "trained on", *[f"{flavour} SIDs as of" for flavour in flavours]]]
    for release in ledger:
        name, cells = release.release, []
        for flavour in flavours:
            assigned = warehouse.receipts.get(f"{flavour}/semantic_ids", name)
            cells.append(assigned.facts["as_of_snapshot"] if assigned else "none")
            found.blocked += _failed(assigned, f"{flavour} {name}")
            going_live = _not_advanced(warehouse, flavour, name, pointers[flavour])
            if live.get(flavour, name) == name:  # else readers have gone on to another release
                found.blocked += _failed(going_live, f"{flavour} {name} did not go live")
        served = [flavour for flavour, there in live.items() if there == name]
        state = f"live ({', '.join(served)})" if served and release.state == SERVED else release.state
        rows.append([name, state, release.taxonomy_revision[:12], release.training_snapshot, *cells])
    return table(rows)


def _failed(receipt: Receipt | None, what: str) -> list[str]:
    """A sentence for each check that a stage did not pass."""
    checks = receipt.checks if receipt else []
    return [f"{what}: {check['name']}: {check['sentence']}" for check in checks if not check["passed"]]


def _nothing_to_do(warehouse: Warehouse, live: Mapping[str, str], states: Mapping[str, str]) -> str:
    fresh = [release for release in dict.fromkeys(live.values()) if states.get(release) != RETIRED]
    refreshed = ", ".join(fresh) or ("nothing that is live" if live else warehouse.settings.release.default)
    return f"nothing to do; sid run --snapshot DAY takes the next night and refreshes {refreshed}"


def _age(snapshot: str) -> str:
    days = (date.today() - date.fromisoformat(snapshot)).days
    return f"{days} day{'' if days == 1 else 's'} old"


def _drift(warehouse: Warehouse) -> list[str]:
    """One line for each served release and flavour that has drifted, else one that says that none has."""
    lines = []
    for release in served_releases(warehouse.tables):
        for flavour in warehouse.settings.active_flavours:
            findings = drifted(warehouse, flavour, release.release)
            if findings:
                told = "; ".join(finding.sentence for finding in findings)
                lines.append(f"drift: {flavour} {release.release}: {told}. {advice(findings)}")
    return lines or ["drift: none"]


def _live(warehouse: Warehouse, flavour: str) -> tuple[Pointer | None, str]:
    """The live pointer of a flavour, and what is wrong with what is live (empty: nothing that a quick look shows)."""
    try:
        pointer = live_pointer(warehouse, flavour)
    except PublicationError as error:
        return None, str(error)
    if pointer is None:
        return None, ""
    try:
        look_over(warehouse.store, pointer["publication"], manifest_sha256=pointer["manifest_sha256"])
    except (PublicationError, OSError) as error:
        back = f"; or {ROLL_BACK.format(flavour)}" if ways_back(warehouse, flavour) else ""
        return pointer, f"{error}{back}"
    return pointer, ""


def _not_advanced(warehouse: Warehouse, flavour: str, release: str, pointer: Pointer | None) -> Receipt | None:
    """The receipt of a night that checks kept from going live, unless a person let it since."""
    receipt = warehouse.receipts.get(f"{flavour}/live", release)
    if receipt is None or all(check["passed"] for check in receipt.checks):
        return None
    return None if pointer is not None and pointer["publication"] == receipt.inputs["publication"] else receipt


def _stopped_at(warehouse: Warehouse, flavour: str, pointer: Pointer, day: str) -> bool:
    """Whether it was this day that did not go live, so that running it again as it is changes nothing."""
    release = pointer["release"]
    receipt = _not_advanced(warehouse, flavour, release, pointer)
    published = warehouse.receipts.get(f"{flavour}/publication", release)
    if receipt is None or published is None or published.facts["as_of_snapshot"] != day:
        return False
    return receipt.inputs["publication"] == published.facts["folder"]
