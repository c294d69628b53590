"""What is live, and who may change it: the automatic advance, a person's switch, rollback and hold.

Used by the `live` assets, by `sid promote` and its sisters, and by the jobs of the same names in the UI. Every change
is a row of PROMOTIONS, written before the pointer, so that nothing ever goes live unlogged; a crash between the two
leaves a row that the rerun does not repeat, and that counts for nothing until the pointer has followed. Whether a
flavour is held is that log's last word on it. No Spark is needed, and no flavour looks at another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sid_pipeline.evaluation.checks import Check, are_there, not_worse_than
from sid_pipeline.promotion_log import (
    HOLD,
    RELEASE_HOLD,
    ROLLBACK,
    live_pointer,
    log,
    logged_last,
    mended_pointer,
    standing_hold,
    tell_hold,
    was_live,
)
from sid_pipeline.publication.folder import DATA_CARD, PublicationError, read_manifest, verify
from sid_pipeline.publication.live import (
    ADVANCE,
    FIRST,
    OTHER_RELEASE,
    SAME,
    SWITCH,
    transition,
    write_pointer,
)
from sid_pipeline.publication.store import MANIFEST, Store, StoreNotReached, describe, read_json
from sid_pipeline.receipts import MissingInput
from sid_pipeline.releases import RETIRED, TRIAL, find_release, no_such_release
from sid_pipeline.resources.warehouse import Warehouse

PIPELINE = "pipeline"
PRODUCTS_ARE_THERE, OFFERS_ARE_THERE = "products_are_there", "offers_are_there"


class PromotionRefused(RuntimeError):
    """What a person asked for was not done; the message says why, with the figures, and what would help."""


class LiveDamaged(PublicationError):
    """What is live cannot be compared with, because it is damaged or gone; the message names the file."""


@dataclass(frozen=True)
class Promotion:
    """What is live now (None: nothing), a sentence on what happened, and the checks that were made by name."""

    live: dict[str, Any] | None
    sentence: str
    checks: Mapping[str, Check]


def go_live(
    warehouse: Warehouse,
    flavour: str,
    release: str,
    *,
    by: str,
    reason: str,
    switch: bool,
    accept_drop: str | None = None,
) -> Promotion:
    """Make the newest publication of a release live, if the checks pass and nobody holds the flavour.

    A person's word makes a live pointer that is broken or gone anew, see `promotion_log.mended_pointer`, and takes
    the place of the comparison with what is live, where that is damaged or gone.

    Args:
        switch: a person asks: another release than the live one may become live, and a refusal raises.
        accept_drop: a day: the person also accepts that products or offers are missing in the publication of that
            day; the log says how many. No other check gives way, and a newer day that nobody looked at is refused.

    Raises:
        MissingInput: the release has no publication.
        PublicationError: the publication is damaged, or, without `switch`, what is live is.
        PromotionRefused: `switch`, and a check failed or the flavour is held.
    """
    _check_asked(by, reason)
    with pointer_lock(warehouse, flavour):
        return _go_live(warehouse, flavour, release, by, reason, switch, accept_drop)


def _go_live(
    warehouse: Warehouse, flavour: str, release: str, by: str, reason: str, switch: bool, accept_drop: str | None
) -> Promotion:
    store = warehouse.store
    ledger = find_release(warehouse.tables, release)
    if ledger is None and warehouse.receipts.get(f"{flavour}/publication", release) is None:
        raise MissingInput(no_such_release(warehouse.tables, release))
    published = warehouse.receipts.need(f"{flavour}/publication", release)
    folder = published.facts["folder"]
    manifest = verify(store, folder)
    live = mended_pointer(warehouse, flavour) if switch else live_pointer(warehouse, flavour)
    kind = transition(live, release, folder, manifest["pins"]["codebook_id"])
    if live is not None and kind == SAME:
        if switch and store.sha256(f"{folder}/{MANIFEST}") != live["manifest_sha256"]:  # it was lost and made again
            live = write_pointer(store, folder, manifest)
        return Promotion(live, f"{release} as of {live['as_of_snapshot']} was live already", {})
    # A pointer that is gone does not open the way to everything: the log knows what was live.
    against = live or logged_last(warehouse, flavour)
    if against is not None and live is None and not store.exists(f"{against['publication']}/{MANIFEST}"):
        against = None
    try:
        checks = gates(warehouse, against, folder, manifest)
    except LiveDamaged as error:
        if not switch:
            raise
        reason = f"{reason}; not compared with what was live: {error}"
        checks = gates(warehouse, None, folder, manifest)
    sentence = {
        TRIAL: f"{flavour}: {release} is a trial, and a trial never goes live; `sid release keep {release}` first",
        RETIRED: f"{flavour}: {release} is retired, so no night refreshes it; build and promote a new release instead",
    }.get(ledger.state if ledger is not None else "", "")
    if sentence:
        if switch:
            raise PromotionRefused(sentence)
        return Promotion(live, sentence, {})
    if live is not None and kind == OTHER_RELEASE and not switch:
        sentence = (
            f"{live['release']} stays live; {release} is published beside it and waits for "
            f"`sid promote {release} --flavour {flavour} --by NAME --reason WHY`"
        )
        return Promotion(live, sentence, {})
    refused = {name: check for name, check in checks.items() if not check.passed}
    drops = (PRODUCTS_ARE_THERE, OFFERS_ARE_THERE) if accept_drop == manifest["as_of_snapshot"] else ()
    accepted = [refused.pop(name) for name in drops if name in refused]
    failed = [f"{name}: {check.sentence}" for name, check in refused.items()]
    held = standing_hold(warehouse, flavour)
    stays = f"{live['release']} as of {live['as_of_snapshot']} stays live" if live else "nothing goes live"
    refusal = None
    if held is not None:
        end = f"`sid release-hold --flavour {flavour} --by NAME --reason WHY`"
        refusal = f"{flavour}: {stays}; {tell_hold(held)}. {end}"
    elif failed:
        refusal = f"{flavour}: {stays}; {release} as of {manifest['as_of_snapshot']} failed {'; '.join(failed)}"
    if refusal is not None:
        if switch:
            raise PromotionRefused(refusal)
        return Promotion(live, refusal, checks)
    kind = SWITCH if kind == OTHER_RELEASE else kind
    drop = ""
    for check in accepted:
        ((what, compared),) = check.figures["compared"].items()
        drop += f"; accepted: {compared['new']:,} {what.replace('_', ' ')} against {compared['live']:,}"
    reason += drop
    log(warehouse, flavour, kind, release, folder, live, by, reason)
    pointer = write_pointer(store, folder, manifest)
    verbs = {FIRST: "is the first to go live", ADVANCE: "advanced", SWITCH: "was switched to"}
    sentence = f"{flavour}: {release} {verbs[kind]}, as of {manifest['as_of_snapshot']}{drop}"
    return Promotion(pointer, sentence, checks)


def rollback(warehouse: Warehouse, flavour: str, *, by: str, reason: str) -> Promotion:
    """Make the publication live that was live before the present one, and hold the flavour.

    Held, because the next night would otherwise advance again to what was just taken back.

    Raises:
        PromotionRefused: nothing was live before.
        PublicationError: the publication to go back to is missing or damaged.
    """
    _check_asked(by, reason)
    with pointer_lock(warehouse, flavour):
        store = warehouse.store
        live = mended_pointer(warehouse, flavour)
        before = was_live(warehouse, flavour, live)[:-1]
        there = [folder for folder in before if store.exists(f"{folder}/{MANIFEST}")]
        if live is None or not before:
            raise PromotionRefused(f"{flavour}: nothing was live before what is live now, so there is no way back")
        if not there:
            raise PromotionRefused(f"{flavour}: none of the {len(before)} publications that were live before is kept")
        folder = there[-1]
        manifest = verify(store, folder)
        log(warehouse, flavour, ROLLBACK, manifest["release"], folder, live, by, reason)
        pointer = write_pointer(store, folder, manifest)
        skipped = len(before) - 1 - max(place for place, name in enumerate(before) if name == folder)
        over = f" over {skipped} that are no longer kept" if skipped else ""
        sentence = (
            f"{flavour}: went back to {manifest['release']} as of {manifest['as_of_snapshot']}{over}, and is held "
            f"until `sid release-hold --flavour {flavour} --by NAME --reason WHY`"
        )
        return Promotion(pointer, sentence, {})


def hold(warehouse: Warehouse, flavour: str, *, by: str, reason: str) -> Promotion:
    """Stop both ways of going live until `release_hold`."""
    return _set_hold(warehouse, flavour, HOLD, by, reason)


def release_hold(warehouse: Warehouse, flavour: str, *, by: str, reason: str) -> Promotion:
    """Let the flavour go live again: the next refresh advances it, if its checks pass."""
    return _set_hold(warehouse, flavour, RELEASE_HOLD, by, reason)


def _set_hold(warehouse: Warehouse, flavour: str, kind: str, by: str, reason: str) -> Promotion:
    _check_asked(by, reason)
    with pointer_lock(warehouse, flavour):
        live = mended_pointer(warehouse, flavour)
        held = standing_hold(warehouse, flavour)
        if (held is not None) == (kind == HOLD):
            return Promotion(live, f"{flavour}: {tell_hold(held) if held else 'nobody held it'} already", {})
        publication = live["publication"] if live else ""
        log(warehouse, flavour, kind, live["release"] if live else "", publication, live, by, reason)
        return Promotion(live, f"{flavour}: {'held' if kind == HOLD else 'no longer held'} ({by}: {reason})", {})


def gates(
    warehouse: Warehouse, live: Mapping[str, Any] | None, folder: str, manifest: Mapping[str, Any]
) -> dict[str, Check]:
    """What a publication has to pass to go live, by name; against the one that `live` names, if any.

    Raises:
        LiveDamaged: the live publication's manifest or data card is gone or damaged.
        PublicationError: the publication's data card is.
    """
    store = warehouse.store
    card = _card(store, folder)
    failed = [check for check in card["checks"] if not check["passed"]]
    seen = "; ".join(f"{check['name']}: {check['sentence']}" for check in failed or card["checks"])
    checks = {"sids_are_sound": Check(not failed, {"checks": len(card["checks"]), "failed": len(failed)}, seen)}
    if live is None:
        return checks
    try:
        there, before = read_manifest(store, live["publication"]), _card(store, live["publication"])
    except StoreNotReached:
        raise
    except PublicationError as error:
        raise LiveDamaged(str(error)) from error
    if there["release"] == manifest["release"]:
        checks["one_vocabulary"] = _one_vocabulary(there["pins"], manifest["pins"])
    set_to = warehouse.settings.publication
    for name, what, count, setting in (
        (PRODUCTS_ARE_THERE, "active products", _active, "max_product_drop"),
        (OFFERS_ARE_THERE, "offers", _offers, "max_offer_drop"),
    ):
        there_are = are_there(what, count(before), count(card), getattr(set_to, setting))
        if not there_are.passed:
            there_are = there_are._replace(sentence=f"{there_are.sentence} {_mend_drop(manifest, setting)}")
        checks[name] = there_are
    checks["not_worse_than_live"] = not_worse_than(before["quality"], card["quality"], set_to.tolerances)
    return checks


def _active(card: Mapping[str, Any]) -> int:
    """The active products of a publication, those without a SID included."""
    return card["counts"]["products"] + card["counts"]["without_a_sid"]


def _offers(card: Mapping[str, Any]) -> int:
    """The offers that readers find products by."""
    return card["counts"].get("offers_indexed", 0)


def _mend_drop(manifest: Mapping[str, Any], setting: str) -> str:
    flavour, release, day = manifest["flavour"], manifest["release"], manifest["as_of_snapshot"]
    return (
        f"What is live stays. Deliver {day} whole and run it again: `sid run --snapshot {day} --release {release}`. If "
        f"the drop is meant, accept it: `sid promote {release} --flavour {flavour} --accept-drop {day} --by NAME "
        f"--reason WHY`. [publication] {setting} sets what is allowed."
    )


def _one_vocabulary(live: Mapping[str, Any], new: Mapping[str, Any]) -> Check:
    """Within a release, codes mean one thing: one codebook, one embedder each."""
    differing = [name for name in ("codebook_id", "embedders", "collision") if live.get(name) != new.get(name)]
    shown = "; ".join(f"{name} {new.get(name)} against {live.get(name)}" for name in differing)
    sentence = shown or f"codebook {new['codebook_id']} and the same embedders as what is live."
    return Check(not differing, {"differing": differing}, sentence)


def _card(store: Store, folder: str) -> dict[str, Any]:
    path = f"{folder}/{DATA_CARD}"
    try:
        return read_json(store, path)
    except FileNotFoundError:
        sentence = f"{describe(store, path)} is missing from its publication: copy it there again"
        raise PublicationError(sentence) from None
    except ValueError as error:
        raise PublicationError(f"{error}: copy it there again") from error


def flavours_asked(warehouse: Warehouse, names: Sequence[str]) -> list[str]:
    """The flavours of those names; without any, all that are at work.

    Raises:
        PromotionRefused: there is none of a name.
    """
    known = list(warehouse.settings.active_flavours)
    for name in names:
        if name not in known:
            raise PromotionRefused(f"no flavour {name!r}; there are {', '.join(known)}")
    return list(names) or known


def _check_asked(by: str, reason: str) -> None:
    if not by.strip() or not reason.strip():
        raise ValueError("a name and a reason are asked for: --by NAME --reason WHY")


@contextmanager
def pointer_lock(warehouse: Warehouse, flavour: str) -> Iterator[None]:
    """Exclude whoever else would change what is live for a flavour, or take away what might go live again."""
    with warehouse.receipts.lock(f"{flavour}.pointer"):
        yield
