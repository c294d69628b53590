"""Receipts: what each asset last made for each partition, from what, and what it told.

A receipt is written after the data it speaks of, and a mark is set before: while the mark stands, the work was
interrupted or failed halfway, the data may be ahead of the receipt, and the receipt counts for nothing. It answers
three questions without Spark or Dagster: is this asset's output for this partition there, was it made from exactly
these inputs (then nothing needs doing), and which snapshot is the newest complete one. A crash between data and
receipt costs a rerun, never a wrong answer.

Beside the receipt lies what went wrong last, until the asset succeeds for the partition: the sentence of a failure, or
the mark of work whose process is gone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sid_pipeline.files import to_json, write_atomically
from sid_pipeline.keys import check_key
from sid_pipeline.migrations import StateError, mark
from sid_pipeline.schemas import CLEANED_ATTRIBUTES, OFFERS, PRODUCTS, REJECTED_PRODUCTS
from sid_pipeline.settings import Settings

UNPARTITIONED = "all"
DAY_ASSETS = (PRODUCTS.name, OFFERS.name, REJECTED_PRODUCTS.name, CLEANED_ATTRIBUTES.name)
MARK, FAILED = ".begun", ".failed"


class MissingInput(LookupError):
    """An upstream asset was not materialised; the message names it and the partition."""


@dataclass(frozen=True)
class Receipt:
    """One materialisation.

    Attributes:
        asset: asset key, steps joined by '/'.
        partition: partition key, `all` for an unpartitioned asset.
        inputs: what it was made from: names to content hashes or settings.
        data_version: content hash of the output, of what matters to readers of it.
        code_version: of the asset that made it; another one does the work again.
        facts: what later assets need to know (an id, a folder, a snapshot).
        metadata: what is shown to people, JSON-able.
        checks: outcomes of the asset's checks, JSON-able.
    """

    asset: str
    partition: str
    inputs: dict[str, Any]
    data_version: str
    code_version: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    checks: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Trouble:
    """What went wrong last with an asset's partition; `sentence` is None where the work did not come to its end."""

    asset: str
    partition: str
    at: datetime
    sentence: str | None


class Receipts:
    """The receipts under one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, asset: str, partition: str = UNPARTITIONED) -> Receipt | None:
        """The receipt, or None when the asset was not materialised for the partition, or not to its end.

        Raises:
            StateError: its file is damaged.
        """
        path = self._path(asset, partition)
        if not path.is_file() or path.with_suffix(MARK).exists():
            return None
        try:
            return Receipt(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:  # it was taken away just now
            return None
        except (ValueError, TypeError) as error:
            mend = f"restore it, or remove it and do its work again ({command_for(asset, partition)})"
            raise StateError(f"{path} cannot be read ({error}): {mend}") from error

    def before(self, asset: str, partition: str) -> Receipt | None:
        """The receipt of the last partition before this one, in the order of their keys, that has one."""
        earlier = [key for key in self.partitions(asset) if key < partition]
        return self.get(asset, earlier[-1]) if earlier else None

    def still_of(self, receipt: Receipt, asset: str) -> bool:
        """Whether the asset that a receipt names among its inputs is what it was then, for the same partition."""
        made = self.get(asset, receipt.partition)
        return made is not None and made.data_version == receipt.inputs.get(asset)

    def need(self, asset: str, partition: str = UNPARTITIONED) -> Receipt:
        """The receipt of an input.

        Raises:
            MissingInput: it was not materialised.
        """
        receipt = self.get(asset, partition)
        if receipt is None:
            where = "" if partition == UNPARTITIONED else f" for partition {partition!r}"
            halfway = self._path(asset, partition).with_suffix(MARK).exists()
            state = "did not end well" if halfway else "was never materialised"
            raise MissingInput(
                f"asset {asset!r} {state}{where}: materialise it first ({command_for(asset, partition)})"
            )
        return receipt

    def begin(self, asset: str, partition: str, lock: str = "") -> None:
        """Mark that the asset is being worked on, by whoever holds a lock; `put` takes the mark away."""
        mark(self.folder.parent)
        write_atomically(self._path(asset, partition).with_suffix(MARK), lock)

    def fail(self, asset: str, partition: str, sentence: str) -> None:
        """Keep what a failure said; `put` and `well` take it away."""
        failure = {"at": datetime.now(timezone.utc).isoformat(), "sentence": sentence}
        write_atomically(self._path(asset, partition).with_suffix(FAILED), to_json(failure))

    def well(self, asset: str, partition: str) -> None:
        """What the receipt says holds: what failed before is no longer told."""
        self._path(asset, partition).with_suffix(FAILED).unlink(missing_ok=True)

    def put(self, receipt: Receipt) -> None:
        """Record a materialisation, replacing the one before."""
        mark(self.folder.parent)
        path = self._path(receipt.asset, receipt.partition)
        # Keys as given: metadata is shown again in the order in which a person is to read it.
        write_atomically(path, json.dumps(asdict(receipt), indent=2, ensure_ascii=False) + "\n")
        path.with_suffix(MARK).unlink(missing_ok=True)
        path.with_suffix(FAILED).unlink(missing_ok=True)

    def forget(self, asset: str, partition: str) -> None:
        """Make an asset's partition count as never materialised, because its output was taken away."""
        path = self._path(asset, partition)
        path.unlink(missing_ok=True)
        path.with_suffix(MARK).unlink(missing_ok=True)
        path.with_suffix(FAILED).unlink(missing_ok=True)

    def forget_lock(self, name: str) -> None:
        """Take away the file behind a lock that one holds, of something that is gone and nobody works on."""
        self._lock_file(name).unlink(missing_ok=True)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Exclude other processes that work on the same thing; waits for them."""
        file = self._lock_file(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file):
            yield

    def partitions(self, asset: str) -> list[str]:
        """Partitions for which the asset was materialised, in order."""
        folder = self.folder / asset
        return sorted(p.stem for p in folder.glob("*.json") if not p.with_suffix(MARK).exists())

    def last_success(self, asset: str, partition: str) -> datetime | None:
        """When the receipt was written; None where there is none that counts."""
        path = self._path(asset, partition)
        if not path.is_file() or path.with_suffix(MARK).exists():
            return None
        return datetime.fromtimestamp(path.stat().st_mtime, timezone.utc)

    def troubles(self) -> list[Trouble]:
        """What went wrong last, oldest first: failures, and work that neither came to its end nor is under way.

        Assets that one piece of work makes together are told of by one of them.
        """
        found = [trouble for path in self.folder.rglob(f"*{FAILED}") if (trouble := self._failure(path))]
        told = {(trouble.asset, trouble.partition) for trouble in found}
        locks: set[str] = set()
        for path in sorted(self.folder.rglob(f"*{MARK}")):
            asset, partition = path.parent.relative_to(self.folder).as_posix(), path.stem
            try:
                lock = path.read_text(encoding="utf-8") or f"{asset}.{partition}"
                at = datetime.fromtimestamp(path.stat().st_mtime, timezone.utc)
            except FileNotFoundError:  # it came to its end just now
                continue
            if (asset, partition) in told or f"{lock} {partition}" in locks or self._is_held(lock):
                continue
            if any(trouble.partition == partition and f"{trouble.asset}.{partition}" == lock for trouble in found):
                continue
            locks.add(f"{lock} {partition}")
            found.append(Trouble(asset, partition, at, None))
        return sorted(found, key=lambda trouble: (trouble.at, trouble.asset, trouble.partition))

    def _failure(self, path: Path) -> Trouble | None:
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            at, sentence = datetime.fromisoformat(told["at"]), told["sentence"]
        except FileNotFoundError:  # it was mended just now
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise StateError(f"{path} cannot be read ({error}): remove it, it only tells what went wrong") from error
        asset = path.parent.relative_to(self.folder).as_posix()
        return Trouble(asset, path.stem, at, sentence)

    def _is_held(self, name: str) -> bool:
        file = self._lock_file(name)
        if not file.is_file():
            return False
        try:
            with FileLock(file, timeout=0):
                return False
        except (Timeout, PermissionError):  # another user's: whoever may only look leaves it alone
            return True

    def _lock_file(self, name: str) -> Path:
        return self.folder / ".locks" / f"{name.replace('/', '.')}.lock"

    def _path(self, asset: str, partition: str) -> Path:
        for step in asset.split("/"):
            check_key("asset", step)
        return self.folder / asset / f"{check_key('partition', partition)}.json"


def is_of_a_day(asset: str) -> bool:
    """Whether an asset's partitions are days; otherwise they are releases, or it has none."""
    return asset in DAY_ASSETS or asset.endswith("_embeddings")


def command_for(asset: str, partition: str) -> str:
    """The command that makes an asset's partition."""
    if is_of_a_day(asset):
        return f"sid run --snapshot {partition}"
    return "sid run" if partition == UNPARTITIONED else f"sid run --release {partition}"


def complete_snapshots(receipts: Receipts, settings: Settings, flavour: str) -> list[str]:
    """Snapshots, oldest first, that hold all that a flavour needs: products, and vectors made from those products."""
    embedders = settings.flavours[flavour].embedders
    complete = []
    for snapshot in receipts.partitions("products"):
        products = receipts.get("products", snapshot)
        if products is None:  # it is taken anew just now
            continue
        made = [receipts.get(f"{name}_embeddings", snapshot) for name in embedders]
        if all(r is not None and r.inputs.get("products") == products.data_version for r in made):
            complete.append(snapshot)
    return complete


def newest_complete_snapshot(receipts: Receipts, settings: Settings, flavour: str) -> str:
    """The newest complete snapshot of a flavour.

    Raises:
        MissingInput: there is none yet.
    """
    complete = complete_snapshots(receipts, settings, flavour)
    if not complete:
        needed = ", ".join(f"{name}_embeddings" for name in settings.flavours[flavour].embedders)
        raise MissingInput(
            f"no snapshot is complete for flavour {flavour!r}: materialise products and {needed} first "
            "(sid run --snapshot DAY)"
        )
    return complete[-1]
