"""The texts of `sid show` and `sid status`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from sid_pipeline.cleaning.schema import RESERVED
from sid_pipeline.drift import drifted
from sid_pipeline.evaluation.drift import advice
from sid_pipeline.promotion import standing_hold, tell_hold, ways_back
from sid_pipeline.publication.folder import PublicationError, look_over
from sid_pipeline.publication.live import read_pointer
from sid_pipeline.receipts import Receipt, complete_snapshots
from sid_pipeline.releases import RETIRED, SERVED, all_releases, served_releases
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.summary import table
from sid_pipeline.trace import FlavourTrace, ProductTrace, prefix_names, products_under, sid_prefixes
from sid_pipeline.troubles import mend, standing, standing_runs, told

if TYPE_CHECKING:
    from sid_pipeline.run_history import LostRun

ROLL_BACK = "sid rollback --flavour {} --by NAME --reason WHY"
PROMOTE = "sid promote RELEASE --flavour {} --by NAME --reason WHY"
_BOOKKEEPING = RESERVED | {"fallback", "reason"}


def show_product(trace: ProductTrace) -> str:
    """A product through every stage."""
    lines = [f"product {trace.product_id}, snapshot {trace.snapshot}"]
    for rejection in trace.rejections:
        lines += [
            "",
            f"rejected  {rejection['source_file']} row {rejection['source_row']}: {rejection['message']}",
        ]
    if trace.product:
        lines += ["", "raw text"]
        for name in ("title", "brand", "size", "category", "description"):
            value = trace.product[name]
            if value:
                lines.append(f"  {name:<12} {' > '.join(value) if isinstance(value, list) else value}")
    if trace.cleaned:
        lines += ["", f"cleaned by {trace.cleaned['source']}, confidence {trace.cleaned['confidence']:.2f}"]
        if trace.cleaned["fallback"]:
            lines.append(f"  a fallback      {trace.cleaned['reason']}; tried again the next night")
        for name, value in trace.cleaned.items():
            if value and name not in _BOOKKEEPING:
                lines.append(f"  {name:<15} {', '.join(value) if isinstance(value, list) else value}")
        lines += [f"  dropped         {value}" for value in trace.cleaned["unsupported"]]
    for flavour in trace.flavours:
        lines += ["", *_show_flavour(flavour)]
    return "\n".join(lines)


def _show_flavour(trace: FlavourTrace) -> list[str]:
    if trace.sid is None:
        return [f"{trace.flavour}: no SID ({trace.reason})"]
    lines = [f"{trace.flavour}: {trace.sid}", f"  embedded as: {trace.text}"]
    lines += [f"  {prefix:<16} {name}" for prefix, name in trace.names[:3]]
    if trace.neighbours:
        lines.append(f"  others under {trace.shared_prefix}:")
        lines += [f"    {sid:<16} {product:<10} {title}" for product, sid, title in trace.neighbours]
    else:
        lines.append("  no other product shares its first code")
    return lines


def show_prefix(warehouse: Warehouse, prefix: str, flavours: list[str], release: str, snapshot: str, limit: int) -> str:
    """The products under a prefix, per flavour."""
    lines: list[str] = []
    for flavour in flavours:
        found = products_under(warehouse, flavour, release, snapshot, prefix)
        names = prefix_names(warehouse, flavour, release, sid_prefixes(prefix))
        title = names.get(prefix, "")
        lines += ["", f"{flavour} {prefix}{f' ({title})' if title else ''}: {len(found)} products"]
        lines += [f"  {sid:<16} {product:<10} {text}" for product, sid, text in found[:limit]]
        if len(found) > limit:
            lines.append(f"  and {len(found) - limit} more (--limit)")
    return "\n".join(lines).lstrip("\n")


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


def _live(warehouse: Warehouse, flavour: str) -> tuple[dict[str, Any] | None, str]:
    """The live pointer of a flavour, and what is wrong with what is live (empty: nothing that a quick look shows)."""
    try:
        pointer = read_pointer(warehouse.store, flavour)
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


def _not_advanced(warehouse: Warehouse, flavour: str, release: str, pointer: dict[str, Any] | None) -> Receipt | None:
    """The receipt of a night that checks kept from going live, unless a person let it since."""
    receipt = warehouse.receipts.get(f"{flavour}/live", release)
    if receipt is None or all(check["passed"] for check in receipt.checks):
        return None
    return None if pointer is not None and pointer["publication"] == receipt.inputs["publication"] else receipt


def _stopped_at(warehouse: Warehouse, flavour: str, pointer: dict[str, Any], day: str) -> bool:
    """Whether it was this day that did not go live, so that running it again as it is changes nothing."""
    release = pointer["release"]
    receipt = _not_advanced(warehouse, flavour, release, pointer)
    published = warehouse.receipts.get(f"{flavour}/publication", release)
    if receipt is None or published is None or published.facts["as_of_snapshot"] != day:
        return False
    return receipt.inputs["publication"] == published.facts["folder"]


def show_status(warehouse: Warehouse, running: Sequence[str] = (), lost: Sequence[LostRun] = ()) -> str:
    """Served and live releases, the age of what they stand on, what failed, what blocks, and the next actions.

    Args:
        running: lines on what runs by itself, see `running.what_runs`.
        lost: see `run_history.lost_runs`.
    """
    settings = warehouse.settings
    days = warehouse.receipts.partitions("products")
    lines = [f"snapshots: {len(days)}{f', newest {days[-1]}' if days else ''}"]
    blocked: list[str] = []
    damaged: list[str] = []
    repairs: list[str] = []
    runs: list[str] = [] if days else ["sid run"]
    releases: list[str] = []
    pointers: dict[str, dict[str, Any] | None] = {}
    ledger = all_releases(warehouse.tables)
    states = {release.release: release.state for release in ledger}
    for flavour in settings.active_flavours:
        complete = complete_snapshots(warehouse.receipts, settings, flavour)
        newest = complete[-1] if complete else None
        pointer, fault = _live(warehouse, flavour)
        pointers[flavour] = pointer
        held = standing_hold(warehouse, flavour)
        if fault:
            damaged.append(f"damaged: {flavour}: {fault}")
            if pointer is None:
                repairs.append(PROMOTE.format(flavour))
            elif ways_back(warehouse, flavour):
                repairs.append(ROLL_BACK.format(flavour))
            else:
                repairs.append(f"copy {pointer['publication']} from the backup: nothing was live before it")
        if pointer is not None:
            as_of = pointer["as_of_snapshot"]
            behind = [day for day in days if day > as_of]
            lines.append(
                f"{flavour}: live {pointer['release']} as of {as_of} ({_age(as_of)})"
                + (f", {len(behind)} snapshot(s) behind" if behind else ", up to date")
            )
            if states.get(pointer["release"]) == RETIRED:
                blocked.append(f"{flavour}: what is live, {pointer['release']}, is retired, so nothing refreshes it")
                runs.append(PROMOTE.format(flavour))
            elif newest and newest > as_of and held is None:
                done = _stopped_at(warehouse, flavour, pointer, newest)
                runs.append("see blocked" if done else f"sid run --release {pointer['release']}")
        elif not fault:
            lines.append(f"{flavour}: nothing is live; newest complete snapshot {newest or 'none'}")
        if held is not None:
            blocked.append(f"{flavour}: {tell_hold(held)}; nothing goes live until sid release-hold")
            releases.append(flavour)
        if days and newest != days[-1]:
            blocked.append(f"{flavour}: snapshot {days[-1]} is not complete (its embeddings are missing or older)")
            runs.insert(0, f"sid run --snapshot {days[-1]}")
    rows = [["release", "state", "taxonomy", "trained on", *[f"{f} SIDs as of" for f in settings.active_flavours]]]
    live = {flavour: pointer["release"] for flavour, pointer in pointers.items() if pointer is not None}
    for release in ledger:
        cells = []
        for flavour in settings.active_flavours:
            receipt = warehouse.receipts.get(f"{flavour}/semantic_ids", release.release)
            cells.append(receipt.facts["as_of_snapshot"] if receipt else "none")
            for check in receipt.checks if receipt else []:
                if not check["passed"]:
                    blocked.append(f"{flavour} {release.release}: {check['name']}: {check['sentence']}")
            going_live = _not_advanced(warehouse, flavour, release.release, pointers[flavour])
            for check in going_live.checks if going_live else []:
                if not check["passed"]:
                    blocked.append(f"{flavour} {release.release} did not go live: {check['name']}: {check['sentence']}")
        served = [flavour for flavour, name in live.items() if name == release.release]
        state = f"live ({', '.join(served)})" if served and release.state == SERVED else release.state
        rows.append([release.release, state, release.taxonomy_revision[:12], release.training_snapshot, *cells])
    if len(rows) > 1:
        lines += ["", *table(rows)]
    troubles = standing(warehouse)
    lines += ["", *damaged, *told(troubles, standing_runs(warehouse, lost), states)]
    lines += [f"blocked: {text}" for text in blocked] or ["blocked: nothing"]
    lines += _drift(warehouse)
    lines += running
    holds = []
    if releases:
        named = "" if len(releases) == len(settings.active_flavours) else f" --flavour {' --flavour '.join(releases)}"
        holds = [f"sid release-hold{named} --by NAME --reason WHY    once what it is held for is mended"]
    mends = [mend(trouble, states) for trouble in troubles]
    actions = list(dict.fromkeys([*repairs, *mends, *runs, *holds]))
    fresh = [release for release in dict.fromkeys(live.values()) if states.get(release) != RETIRED]
    refreshed = ", ".join(fresh) or ("nothing that is live" if live else settings.release.default)
    nothing = f"nothing to do; sid run --snapshot DAY takes the next night and refreshes {refreshed}"
    lines.append(f"next: {actions[0] if actions else nothing}")
    lines += [f"then: {action}" for action in actions[1:]]
    return "\n".join(lines)
