"""How an asset runs: skip what is unchanged, keep a receipt, report to Dagster.

Every asset body is a call of `materialise`: it names its inputs, and a function that does the work and returns an
`Outcome`. When a receipt shows that the same inputs were already processed by the same `code_version`, the work is
skipped, no Spark job starts, and the materialisation is still recorded, with the old data version. Where an earlier day
was made from the same inputs, an asset may let that output serve again (`Earlier`). A run with the tag `sid/recompute`
(any value but `false`) works all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from sid_pipeline.assignment.collisions import PolicyError
from sid_pipeline.cleaning.schema import SchemaError
from sid_pipeline.embedding.model import ModelError
from sid_pipeline.ingest.errors import InputError
from sid_pipeline.keys import KeyNotAllowed
from sid_pipeline.migrations import StateError
from sid_pipeline.promotion import PromotionRefused
from sid_pipeline.publication.folder import PublicationError
from sid_pipeline.receipts import UNPARTITIONED, MissingInput, Receipt, Receipts
from sid_pipeline.releases import ReleaseError
from sid_pipeline.relevance.labels import LabelError
from sid_pipeline.resources.faults import machine_fault
from sid_pipeline.resources.jars import JarError
from sid_pipeline.resources.tables import MissingSlice
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.rqvae import CheckpointError, CodebookError, CollapsedCodebookError, TrainingError
from sid_pipeline.schemas import TableSpec
from sid_pipeline.taxonomy.tree import TaxonomyError
from sid_pipeline.training_set import TrainingSetError

MENDABLE = (
    StateError,
    KeyNotAllowed,
    InputError,
    TaxonomyError,
    SchemaError,
    LabelError,
    MissingInput,
    MissingSlice,
    ReleaseError,
    ModelError,
    TrainingSetError,
    TrainingError,
    CheckpointError,
    CodebookError,
    CollapsedCodebookError,
    PolicyError,
    PublicationError,
    PromotionRefused,
    JarError,
)


RECOMPUTE_TAG = "sid/recompute"


class Markdown(str):
    """Text that Dagster should render as Markdown."""


@dataclass(frozen=True)
class Check:
    """Outcome of one asset check: its figures and a sentence are shown in the UI; `warning`: a failure is no error."""

    name: str
    passed: bool
    sentence: str
    figures: Mapping[str, float] = field(default_factory=dict)
    warning: bool = False


@dataclass(frozen=True)
class Outcome:
    """What an asset's work gives.

    Attributes:
        data_version: content hash of what matters to readers of the output.
        metadata: shown to people: numbers, text, `Markdown`.
        facts: what later assets need, JSON-able.
        checks: outcomes of the asset's checks.
    """

    data_version: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()

    @classmethod
    def again(
        cls,
        receipt: Receipt,
        metadata: Mapping[str, Any],
        facts: Mapping[str, Any],
        checks: tuple[Check, ...] | None = None,
    ) -> Outcome:
        """The outcome that a receipt speaks of, but for what is given here."""
        told = {name: _as_made(value) for name, value in receipt.metadata.items()}
        return cls(
            receipt.data_version,
            {**told, **metadata},
            {**receipt.facts, **facts},
            tuple(Check(**check) for check in receipt.checks) if checks is None else checks,
        )


@dataclass(frozen=True)
class Earlier:
    """What was made for an earlier day, to serve again where nothing that decides it has changed since.

    Attributes:
        find: gives its receipt, None where there is none that may serve; called under the asset's lock.
        serve: makes it this day's too, for less than the work costs; None where it turns out not to be whole.
        but_for: inputs that may differ.
    """

    find: Callable[[], Receipt | None]
    serve: Callable[[Receipt], Outcome | None]
    but_for: frozenset[str] = frozenset()

    def receipt(self, inputs: Mapping[str, Any], code_version: str | None) -> Receipt | None:
        """Its receipt, if it was made by the same code from the same inputs and no check of it failed."""
        receipt = self.find()
        if receipt is None or receipt.code_version != code_version or receipt.inputs.keys() != inputs.keys():
            return None
        if not all(check["passed"] for check in receipt.checks):
            return None
        same = all(receipt.inputs[name] == inputs[name] for name in inputs if name not in self.but_for)
        return receipt if same else None


def materialise(
    context: dg.AssetExecutionContext,
    receipts: Receipts,
    key: str,
    inputs: Mapping[str, Any],
    work: Callable[[], Outcome],
    *,
    earlier: Earlier | None = None,
    still_there: Callable[[Receipt], bool] = lambda receipt: True,
    shared: bool = False,
    frozen: bool = False,
) -> dg.MaterializeResult:
    """Run an asset's work unless its receipt shows the same inputs, and report either way.

    Args:
        context: of the running step.
        receipts: the ledger.
        key: asset key, steps joined by '/'.
        inputs: names to content hashes or settings: all that decides the output.
        work: does it.
        earlier: what may serve instead of the work.
        still_there: whether the output that the receipt speaks of still exists.
        shared: the asset's partitions write to one store, so two of them exclude each other too.
        frozen: what is written stays: neither newer code nor `sid/recompute` makes it anew.

    Raises:
        dg.Failure: with one sentence, for a fault that a person can mend and a retry cannot.
    """
    (result,) = materialise_many(
        context,
        receipts,
        [key],
        inputs,
        lambda: {key: work()},
        earlier=earlier,
        still_there=still_there,
        shared=shared,
        frozen=frozen,
    )
    return result


def materialise_many(
    context: dg.AssetExecutionContext,
    receipts: Receipts,
    keys: Sequence[str],
    inputs: Mapping[str, Any],
    work: Callable[[], Mapping[str, Outcome]],
    *,
    earlier: Earlier | None = None,
    still_there: Callable[[Receipt], bool] = lambda receipt: True,
    shared: bool = False,
    frozen: bool = False,
) -> list[dg.MaterializeResult]:
    """Like `materialise`, for assets that one piece of work makes together; `earlier` is for a single one."""
    partition = _partition(context)
    lock = keys[0] if shared else f"{keys[0]}.{partition}"
    with plain_failures(lambda sentence: receipts.fail(keys[0], partition, sentence)), receipts.lock(lock):
        return _materialise(context, receipts, keys, partition, lock, inputs, work, earlier, still_there, frozen)


def _materialise(
    context: dg.AssetExecutionContext,
    receipts: Receipts,
    keys: Sequence[str],
    partition: str,
    lock: str,
    inputs: Mapping[str, Any],
    work: Callable[[], Mapping[str, Outcome]],
    earlier: Earlier | None,
    still_there: Callable[[Receipt], bool],
    frozen: bool,
) -> list[dg.MaterializeResult]:
    found = [receipts.get(key, partition) for key in keys]
    code = {key: _code_version(context, key) for key in keys}
    recompute = not frozen and _recompute(context)

    def holds(receipt: Receipt | None) -> bool:
        if receipt is None or receipt.inputs != dict(inputs):
            return False
        return (frozen or receipt.code_version == code[receipt.asset]) and still_there(receipt)

    if not recompute and all(holds(receipt) for receipt in found):
        context.log.info(f"unchanged since the last materialisation: {', '.join(keys)}")
        for key in keys:
            receipts.well(key, partition)
        return [_report(receipt, unchanged=True) for receipt in found if receipt is not None]
    # Looked for before the marks are set: it may be of this very partition.
    then = None if earlier is None or recompute else earlier.receipt(inputs, code[keys[0]])
    for key in keys:
        receipts.begin(key, partition, lock)
    served = None if earlier is None or then is None else earlier.serve(then)
    if served is not None:
        context.log.info(f"nothing that {keys[0]} is made from has changed: what an earlier day made serves again")
    outcomes = work() if served is None else {keys[0]: served}
    results = []
    for key in keys:
        outcome = outcomes[key]
        receipt = Receipt(
            asset=key,
            partition=partition,
            inputs=dict(inputs),
            code_version=code[key],
            data_version=outcome.data_version,
            facts=dict(outcome.facts),
            metadata={name: _pack(value) for name, value in outcome.metadata.items()},
            checks=[
                {
                    "name": c.name,
                    "passed": c.passed,
                    "sentence": c.sentence,
                    "figures": dict(c.figures),
                    "warning": c.warning,
                }
                for c in outcome.checks
            ],
        )
        receipts.put(receipt)
        results.append(_report(receipt, unchanged=False))
    return results


def _code_version(context: dg.AssetExecutionContext, key: str) -> str | None:
    return context.assets_def.code_versions_by_key.get(dg.AssetKey(key.split("/")))


def _recompute(context: dg.AssetExecutionContext) -> bool:
    return context.run_tags.get(RECOMPUTE_TAG, "false") != "false"


def _partition(context: dg.AssetExecutionContext) -> str:
    return context.partition_key if context.has_partition_key else UNPARTITIONED


def stage_failures(context: dg.AssetExecutionContext, warehouse: Warehouse, key: str) -> AbstractContextManager[None]:
    """`plain_failures` for what an asset asks before it materialises; its failures are kept for `sid status`."""
    return plain_failures(lambda sentence: warehouse.receipts.fail(key, _partition(context), sentence))


@contextmanager
def plain_failures(keep: Callable[[str], None] = lambda sentence: None) -> Iterator[None]:
    """Turn faults that a person can mend, and those of the machine, into a Dagster failure that shows a sentence.

    The former are not retried: they come again until they are mended.

    Args:
        keep: is given what is to be told of the failure; that it cannot be kept (a full disk) hides no failure.
    """
    try:
        yield
    except Exception as error:
        mendable = isinstance(error, MENDABLE)
        sentence = str(error) if mendable else machine_fault(error)
        with suppress(OSError, StateError, KeyNotAllowed):
            keep(sentence or _fault_in_words(error))
        if sentence is None or isinstance(error, dg.Failure):
            raise
        raise dg.Failure(description=sentence, allow_retries=not mendable) from error


def _fault_in_words(error: Exception) -> str:
    """A fault that has no sentence of its own, in one line."""
    if isinstance(error, dg.Failure):
        return str(error.description)
    told = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {told}. The full log is in the UI (`make ui`)."


def _report(receipt: Receipt, unchanged: bool) -> dg.MaterializeResult:
    asset_key = dg.AssetKey(receipt.asset.split("/"))
    return dg.MaterializeResult(
        asset_key=asset_key,
        data_version=dg.DataVersion(receipt.data_version),
        metadata={
            **{name: _unpack(value) for name, value in receipt.metadata.items()},
            "unchanged": dg.MetadataValue.bool(unchanged),
        },
        check_results=[
            dg.AssetCheckResult(
                asset_key=asset_key,
                check_name=check["name"],
                passed=bool(check["passed"]),
                severity=dg.AssetCheckSeverity.WARN if check.get("warning") else dg.AssetCheckSeverity.ERROR,
                description=check["sentence"],
                metadata={name: float(value) for name, value in check["figures"].items()},
            )
            for check in receipt.checks
        ],
    )


def table_metadata(spec: TableSpec) -> dict[str, Any]:
    """Definition metadata of an asset that is a table: its column schema."""
    columns = [
        dg.TableColumn(
            c.name,
            c.type,
            description=c.description,
            constraints=dg.TableColumnConstraints(nullable=c.nullable),
        )
        for c in spec.columns
    ]
    return {"dagster/column_schema": dg.TableSchema(columns=columns), "dagster/table_name": spec.name}


def markdown_table(rows: Sequence[Mapping[str, Any]], columns: list[str] | None = None, width: int = 80) -> Markdown:
    """Rows as a Markdown table; cells are cut to `width` and cannot break the table or run as HTML."""
    if not rows:
        return Markdown("*none*")
    columns = columns or list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    for row in rows:
        lines.append("| " + " | ".join(_cell(row.get(column), width) for column in columns) + " |")
    return Markdown("\n".join(lines))


def _cell(value: Any, width: int) -> str:
    if value is None:
        return ""
    if isinstance(value, (list, tuple)):
        value = ", ".join(str(item) for item in value)
    text = " ".join(str(value).split())
    if len(text) > width:
        text = text[: width - 1] + "…"
    for raw, safe in (
        ("&", "&amp;"),
        ("<", "&lt;"),
        (">", "&gt;"),
        ("|", "&#124;"),
        ("`", "&#96;"),
        ("[", "&#91;"),
    ):
        text = text.replace(raw, safe)
    return text


def _pack(value: Any) -> Any:
    if isinstance(value, Markdown):
        return {"markdown": str(value)}
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, (bool, int, str)):
        return value
    return {"json": value}


def _unpack(value: Any) -> Any:
    made = _as_made(value)
    if isinstance(made, Markdown):
        return dg.MetadataValue.md(str(made))
    return dg.MetadataValue.json(made) if isinstance(value, dict) else made


def _as_made(value: Any) -> Any:
    """A packed value as the work gave it."""
    if isinstance(value, dict):
        return Markdown(value["markdown"]) if "markdown" in value else value["json"]
    return value
