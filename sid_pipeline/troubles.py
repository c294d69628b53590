"""What went wrong last and was not mended since, for `sid status`: failed stages, and work whose process is gone.

What belongs here: which of it still counts, and saying so with the mend. What does not: keeping it (`receipts.py`,
`assets/recording.py`). Receipts are asked, so that it is told without Dagster's history too; that history adds runs
whose process died between two stages (`run_history.lost_runs`).
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from datetime import date
from typing import TYPE_CHECKING

from sid_pipeline.receipts import UNPARTITIONED, Receipts, Trouble, command_for, is_of_a_day
from sid_pipeline.releases import RETIRED, all_releases
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import PRODUCTS

if TYPE_CHECKING:
    from sid_pipeline.run_history import LostRun


def standing(warehouse: Warehouse) -> list[Trouble]:
    """What counts still: a stage of a day until a later day succeeds, a stage of a release until that is retired."""
    retired = _retired(warehouse)
    found = []
    for trouble in warehouse.receipts.troubles():
        if not _is_in_use(warehouse, trouble.asset):
            over = True
        elif is_of_a_day(trouble.asset):
            over = _a_later_day_went_well(warehouse.receipts, trouble)
        else:
            over = trouble.partition in retired
        if not over:
            found.append(trouble)
    return found


def standing_runs(warehouse: Warehouse, lost: Iterable[LostRun]) -> list[LostRun]:
    """Of the runs whose process died, those that count still, as `standing` has it."""
    retired, receipts = _retired(warehouse), warehouse.receipts
    days = receipts.partitions(PRODUCTS.name)
    found = []
    for run in lost:
        later = [day for day in days if day >= run.partition] if _is_day(run.partition) else []
        over = any((receipts.last_success(PRODUCTS.name, day) or run.started) > run.started for day in later)
        if not over and run.partition not in retired:
            found.append(run)
    return found


def _retired(warehouse: Warehouse) -> set[str]:
    return {release.release for release in all_releases(warehouse.tables) if release.state == RETIRED}


def _is_in_use(warehouse: Warehouse, asset: str) -> bool:
    """Whether the settings still have the flavour or embedder that an asset is of."""
    flavour, _, rest = asset.partition("/")
    embedder = asset.removesuffix("_embeddings")
    if rest:
        return flavour in warehouse.settings.active_flavours
    return embedder == asset or embedder in warehouse.settings.embedders


def _a_later_day_went_well(receipts: Receipts, trouble: Trouble) -> bool:
    later = [day for day in receipts.partitions(trouble.asset) if day > trouble.partition]
    return any((receipts.last_success(trouble.asset, day) or trouble.at) > trouble.at for day in later)


def told(troubles: Iterable[Trouble], lost: Iterable[LostRun], buildable: Container[str]) -> list[str]:
    """Lines for `sid status`; the same sentence of several stages is told once.

    Args:
        buildable: the releases of the ledger, and the settings' own.
    """
    lines: list[str] = []
    groups: dict[tuple[str, str | None], list[Trouble]] = {}
    for trouble in troubles:
        groups.setdefault((trouble.partition, trouble.sentence), []).append(trouble)
    for (partition, sentence), group in groups.items():
        stages = ", ".join(dict.fromkeys(trouble.asset for trouble in group))
        of = "" if partition == UNPARTITIONED else f" {partition}"
        when = f"{group[-1].at:%Y-%m-%d %H:%M} UTC"
        again = f"Run it again: {mend(group[-1], buildable)}"
        if sentence is None:
            text = f"interrupted: {stages}{of}, begun {when}, did not come to its end: its process is gone. {again}"
        else:
            text = f"failed: {stages}{of}, {when}: {' '.join(sentence.split())} {again}"
        lines.append(text)
    known = {trouble.partition for group in groups.values() for trouble in group}
    for run in lost:
        if run.partition not in known:
            of = f" {run.partition}" if run.partition else ""
            again = f": {_again(run.partition, buildable)}" if run.partition else ""
            lines.append(
                f"interrupted: the run {run.job}{of}, begun {run.started:%Y-%m-%d %H:%M} UTC, did not come to its end: "
                f"its process is gone. What is done is not done twice; run it again{again}"
            )
    return lines


def mend(trouble: Trouble, buildable: Container[str]) -> str:
    """The command that does the work again.

    A release that never came into the ledger is not known with what it was to be built from, so it is asked for anew.
    """
    if is_of_a_day(trouble.asset) or trouble.partition == UNPARTITIONED:
        return command_for(trouble.asset, trouble.partition)
    return _build(trouble.partition, buildable)


def _again(partition: str, buildable: Container[str]) -> str:
    """What brings a day or a release up to date, whichever it is."""
    if partition not in buildable and _is_day(partition):
        return f"sid run --snapshot {partition}"
    return _build(partition, buildable)


def _is_day(partition: str) -> bool:
    try:
        return date.fromisoformat(partition).isoformat() == partition
    except ValueError:
        return False


def _build(name: str, buildable: Container[str]) -> str:
    if name in buildable:
        return f"sid run --release {name}"
    return f"ask for release {name} as before (sid taxonomy rebuild {name} ...), or sid release drop {name}"
