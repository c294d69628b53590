"""The snapshot plane's cleaning: typed attributes of every distinct text of a night's products.

The rules clean in Spark. A language model is asked from here, many requests at once; what it does not clean tonight
falls back to its last good cleaning, else to the rules, so that the night goes on.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from sid_pipeline.assets.recording import (
    Check,
    Earlier,
    Markdown,
    Outcome,
    markdown_table,
    materialise,
    stage_failures,
    table_metadata,
)
from sid_pipeline.cleaning.rules import RulesCleaner
from sid_pipeline.cleanings import cleanings_of
from sid_pipeline.files import digest
from sid_pipeline.ingest.errors import InputError
from sid_pipeline.partitions import snapshots
from sid_pipeline.receipts import Receipt
from sid_pipeline.resources.parquet import count_rows
from sid_pipeline.resources.tables import fingerprint
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import CLEANED_ATTRIBUTES, CLEANING_CALLS, PRODUCTS, SNAPSHOT_CLEANINGS
from sid_pipeline.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from sid_pipeline.cleaning.llm.cleaner import LlmCleaner, Report
    from sid_pipeline.cleaning.llm.prompt import Text

PROVIDER_CHECK = "provider"
# A text that a model refused twice, or answered in vain on three nights (once, and one repair), is not asked again.
GIVEN_UP = {"refused": 2, "malformed answer": 6}


def cleaning_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """Cleaned attributes."""
    key = dg.AssetKey(CLEANED_ATTRIBUTES.name)
    by_model = settings.cleaning.provider != "rules"
    check = dg.AssetCheckSpec(
        PROVIDER_CHECK, asset=key, description="The language model could be asked for every text that was new."
    )

    @dg.asset(
        name=CLEANED_ATTRIBUTES.name,
        code_version="2",
        deps=[PRODUCTS.name],
        description=CLEANED_ATTRIBUTES.description,
        group_name="snapshot",
        owners=settings.orchestration.owners,
        kinds={"spark", "deltalake", *({settings.cleaning.provider} if by_model else ())},
        metadata=table_metadata(CLEANED_ATTRIBUTES),
        partitions_def=snapshots(settings.snapshots),
        check_specs=[check] if by_model else None,
        # In one process steps run one after the other: a slow model must not hold up what does not wait for it.
        op_tags={"dagster/priority": "-1"},
    )
    def cleaned_attributes(
        context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse]
    ) -> dg.MaterializeResult:
        snapshot = context.partition_key
        with stage_failures(context, warehouse, CLEANED_ATTRIBUTES.name):
            products = warehouse.receipts.need(PRODUCTS.name, snapshot)
            rules = rules_cleaner(warehouse, snapshot)
            model = _llm_cleaner(warehouse) if by_model else None
        cleaner = model or rules
        night = _Night(warehouse, snapshot, rules, model, context.run_id)
        return materialise(
            context,
            warehouse.receipts,
            CLEANED_ATTRIBUTES.name,
            {"products": products.data_version, "cleaner": cleaner.id, "schema": warehouse.schema.id},
            lambda: night.clean(context),
            earlier=Earlier(night.before, night.clean_as_before),
            still_there=_nothing_to_retry,
            shared=True,
        )

    return [cleaned_attributes]


def _nothing_to_retry(receipt: Receipt) -> bool:
    """Whether all was cleaned: what fell back is tried again whenever the asset is asked for."""
    return not receipt.facts.get("to_retry")


def rules_cleaner(warehouse: Warehouse, snapshot: str) -> RulesCleaner:
    """The rules cleaner. Its lexicon is learned once, from the first snapshot cleaned, and then frozen."""
    from sid_pipeline.cleaning.lexicon import Lexicon

    if warehouse.settings.cleaning.lexicon and not warehouse.lexicon.is_file():
        raise InputError(f"the lexicon {warehouse.lexicon} does not exist: mend cleaning.lexicon, or leave it out")
    with warehouse.receipts.lock("lexicon"):
        if not warehouse.lexicon.is_file():
            _learn_lexicon(warehouse, snapshot)
    return RulesCleaner(Lexicon.load(warehouse.lexicon), warehouse.schema)


def _learn_lexicon(warehouse: Warehouse, snapshot: str) -> None:
    from sid_pipeline.cleaning.lexicon import Lexicon
    from sid_pipeline.cleaning.model import ProductText

    frame = warehouse.tables.read(PRODUCTS, snapshot=snapshot)
    # By text hash, so that the choice neither follows the file's order nor changes between runs.
    rows = frame.orderBy("text_hash").limit(warehouse.settings.cleaning.lexicon_rows).toArrow().to_pylist()
    texts = [ProductText(r["title"], r["brand"], r["size"], r["description"]) for r in rows]
    categories = {r["category"][-1] for r in rows if r["category"]}
    warehouse.lexicon.parent.mkdir(parents=True, exist_ok=True)
    scratch = warehouse.lexicon.with_suffix(".part")
    Lexicon.learn(texts, sorted(categories)).save(scratch)
    scratch.replace(warehouse.lexicon)


def _llm_cleaner(warehouse: Warehouse) -> "LlmCleaner":
    from sid_pipeline.resources.llm import llm_cleaner

    return llm_cleaner(warehouse.settings)


@dataclass
class _Night:
    """The cleaning of one snapshot."""

    warehouse: Warehouse
    snapshot: str
    rules: RulesCleaner
    model: "LlmCleaner | None"
    run_id: str

    def clean(self, context: dg.AssetExecutionContext) -> Outcome:
        """Clean what is new, say what stands for each text, and report."""
        report: Report | None = None
        if self.model is None:
            cleaned = self._by_rules(self._texts())
            used = self._used(self.rules.id)
        else:
            report, cleaned, reasons = self._by_model(self.model, context)
            used = self._used_with_fallback(self.model, reasons, report)
        self.warehouse.tables.replace(SNAPSHOT_CLEANINGS, used, snapshot=self.snapshot)
        return self._outcome(cleaned, report)

    def before(self) -> Receipt | None:
        """Of the snapshot before, unless something of it is to be tried again, or its products are others now."""
        receipts = self.warehouse.receipts
        receipt = receipts.before(CLEANED_ATTRIBUTES.name, self.snapshot)
        if receipt is None or not _nothing_to_retry(receipt):
            return None
        return receipt if receipts.still_of(receipt, PRODUCTS.name) else None

    def clean_as_before(self, before: Receipt) -> Outcome | None:
        """Take over what stands for each text of an earlier snapshot of the same products."""
        tables, rows = self.warehouse.tables, before.metadata["dagster/row_count"]
        used = tables.read(SNAPSHOT_CLEANINGS, snapshot=before.partition)
        tables.replace(SNAPSHOT_CLEANINGS, used, snapshot=self.snapshot)
        if cleanings_of(self.warehouse, self.snapshot).count() != rows:
            return None
        metadata: dict[str, Any] = {"cleaned now": 0, "cache hit share": 1.0}
        checks = None
        if self.model is not None:
            from sid_pipeline.cleaning.llm.cleaner import Report
            from sid_pipeline.cleaning.llm.stream import Counts

            nothing = Report(Counts(), {}, 0, None)
            metadata |= self._money(nothing)
            checks = (self._check(nothing, before.facts["fallback"], rows),)
        return Outcome.again(before, metadata, {"cleaned_now": 0}, checks)

    def _texts(self) -> "DataFrame":
        """The distinct texts of the snapshot."""
        from sid_pipeline.cleaning.run import TEXT_COLUMNS

        products = self.warehouse.tables.read(PRODUCTS, snapshot=self.snapshot)
        return products.select(*TEXT_COLUMNS).dropDuplicates(["text_hash"])

    def _missing(self, texts: "DataFrame", cleaner_id: str) -> "DataFrame":
        """The texts that a cleaner has not cleaned on any night."""
        table, tables = self.warehouse.cleaned, self.warehouse.tables
        if not tables.exists(table):
            return texts
        return texts.join(tables.read(table, cleaner_id=cleaner_id).select("text_hash"), "text_hash", "left_anti")

    def _by_rules(self, texts: "DataFrame") -> int:
        from sid_pipeline.cleaning.run import clean

        warehouse = self.warehouse
        cleaned = clean(self._missing(texts, self.rules.id), self.rules, warehouse.schema)
        return warehouse.tables.append(warehouse.cleaned, cleaned, cleaner_id=self.rules.id)

    def _used(self, cleaner_id: str) -> "DataFrame":
        from pyspark.sql import functions as F

        used = self._texts().select("text_hash", F.lit(cleaner_id).alias("cleaner_id"))
        return used.withColumn("fallback", F.lit(False)).withColumn("reason", F.lit(None).cast("string"))

    # By a language model

    def _by_model(self, model: "LlmCleaner", context: dg.AssetExecutionContext) -> "tuple[Report, int, Path]":
        """Ask for what is missing; also the file that says why a text was not cleaned."""
        from sid_pipeline.cleaning.llm.spool import Spool

        warehouse = self.warehouse
        ledger = Ledger(warehouse, model.id)
        spool = Spool(warehouse.state / "cleaning" / digest(model.id), ledger.commit)
        recovered = spool.recover()
        if recovered:
            context.log.info(f"{recovered} segments of answers of an earlier run were taken in")
        missing = self._missing(self._texts(), model.id)
        given_up = ledger.given_up()
        if given_up is not None:
            missing = missing.join(given_up, "text_hash", "left_anti")
        reasons = spool.folder / "reasons.jsonl"
        with warehouse.spool("cleaning") as folder, reasons.open("w", encoding="utf-8") as why:
            missing.write.parquet(str(folder / "texts"))
            number = count_rows(folder / "texts")

            def outcome(text: "Text", result: Any) -> None:
                sentence = getattr(result, "sentence", None)
                if sentence is not None:
                    why.write(json.dumps({"text_hash": text.text_hash, "reason": f"{result.failure}: {sentence}"}))
                    why.write("\n")

            report = model.run(
                _stream(folder / "texts"),
                outcome=outcome,
                run_id=self.run_id,
                spool=spool,
                number=number,
                done=ledger.cleaned,
            )
        if report.stopped is not None:
            self._alert(context, report)
        return report, report.counts.cleaned, reasons

    def _used_with_fallback(self, model: "LlmCleaner", reasons: Path, report: "Report") -> "DataFrame":
        """What stands for each text: the model's cleaning, else an earlier model's that it had, else the rules'."""
        from pyspark.sql import functions as F

        warehouse, tables = self.warehouse, self.warehouse.tables
        spark = warehouse.spark
        texts = self._texts().select("text_hash", "title", "brand", "size", "description")
        left = self._missing(texts, model.id)
        self._by_rules(left)
        kept = self._last_good(model.id)
        why = spark.read.schema("text_hash string, reason string").json(str(reasons)).dropDuplicates(["text_hash"])
        rest = str(report.stopped) if report.stopped else "not asked again: refused, or answered in vain, too often"
        fallback = left.select("text_hash").join(why, "text_hash", "left")
        fallback = (
            fallback.join(kept, "text_hash", "left")
            if kept is not None
            else fallback.withColumn("last_good", F.lit(None).cast("string"))
        )
        fallback = fallback.select(
            "text_hash",
            F.coalesce("last_good", F.lit(self.rules.id)).alias("cleaner_id"),
            F.lit(True).alias("fallback"),
            F.coalesce("reason", F.lit(rest)).alias("reason"),
        )
        if not tables.exists(warehouse.cleaned):
            return fallback
        done = tables.read(warehouse.cleaned, cleaner_id=model.id).select("text_hash")
        asked = self._used(model.id).join(done, "text_hash", "left_semi")
        return asked.unionByName(fallback)

    def _last_good(self, cleaner_id: str) -> "DataFrame | None":
        """The cleaning by an earlier model that the newest earlier snapshot used for a text, where there was one."""
        from pyspark.sql import functions as F

        tables = self.warehouse.tables
        if not tables.exists(SNAPSHOT_CLEANINGS) or not tables.exists(self.warehouse.cleaned):
            return None
        earlier = tables.read(SNAPSHOT_CLEANINGS).where(
            (F.col("snapshot") < self.snapshot) & ~F.col("cleaner_id").startswith("rules-")
        )
        earlier = earlier.where(F.col("cleaner_id") != cleaner_id)
        newest = earlier.groupBy("text_hash").agg(F.max_by("cleaner_id", "snapshot").alias("last_good"))
        # By another schema it lies in another table.
        held = tables.read(self.warehouse.cleaned).select("text_hash", F.col("cleaner_id").alias("last_good"))
        return newest.join(held, ["text_hash", "last_good"], "left_semi")

    def _alert(self, context: dg.AssetExecutionContext, report: "Report") -> None:
        """Tell a person where one must mend something; whatever stopped the run stands in its log."""
        from sid_pipeline.alerts import Alert, tell
        from sid_pipeline.cleaning.llm.provider import FATAL, Failure
        from sid_pipeline.watch import what_is_served

        assert report.stopped is not None
        context.log.error(f"cleaning by {self.warehouse.settings.cleaning.provider} stopped: {report.stopped}")
        if report.stopped.failure not in FATAL | {Failure.UNUSABLE}:
            return
        alert = Alert(
            "cleaning",
            f"cleaning stopped: {report.stopped.failure.value}",
            f"Cleaning of {self.snapshot} stopped after {report.calls} calls. {report.stopped}.",
            what_is_served(self.warehouse),
            "Mend it and materialise cleaned_attributes again; until then what was cleaned keeps its cleaning, and new "
            "texts are cleaned by the rules.",
        )
        for fault in tell(self.warehouse.settings, alert):
            context.log.warning(fault)

    # What people see

    def _outcome(self, cleaned: int, report: "Report | None") -> Outcome:
        from pyspark.sql import functions as F

        warehouse, cleaner = self.warehouse, self.model or self.rules
        fields = [field.name for field in warehouse.schema.fields]
        lists = [field.name for field in warehouse.schema.fields if field.kind == "list"]
        products = warehouse.tables.read(PRODUCTS, snapshot=self.snapshot).select(
            "text_hash", F.col("title").alias("raw title"), F.col("description").alias("raw description")
        )
        cleanings = cleanings_of(warehouse, self.snapshot)
        both = products.dropDuplicates(["text_hash"]).join(cleanings, "text_hash")

        def share(name: str) -> Any:
            stated = F.size(name) > 0 if name in lists else F.col(name).isNotNull()
            return F.avg(stated.cast("double")).alias(f"share with {name.replace('_', ' ')}")

        figures = both.agg(
            F.count("*").alias("texts"),
            F.avg("confidence").alias("mean confidence"),
            *map(share, fields),
            F.sum(F.size("unsupported")).alias("values rejected"),
            F.sum(F.col("fallback").cast("long")).alias("fallback texts"),
        ).first()
        facts = figures.asDict() if figures else {}
        texts = facts.pop("texts", 0) or 0
        examples = both.orderBy("text_hash").limit(12).select("raw title", "raw description", *fields).collect()
        doubtful = both.where(F.col("confidence") < warehouse.settings.cleaning.review_below)
        review = (
            doubtful.orderBy("confidence", "text_hash")
            .limit(40)
            .select("confidence", "raw title", *fields, F.concat_ws("; ", "unsupported").alias("rejected"), "source")
        )
        rejected = both.select(F.explode("unsupported").alias("value"), "raw title")
        reasons = rejected.select(
            F.regexp_extract("value", r"^(\w+): .*\((.*)\)$", 1).alias("field"),
            F.regexp_extract("value", r"^(\w+): .*\((.*)\)$", 2).alias("why"),
            "value",
            "raw title",
        )
        reasons = reasons.groupBy("field", "why").agg(
            F.count("*").alias("values"), F.min("value").alias("example"), F.min("raw title").alias("of")
        )
        fallback = int(facts.get("fallback texts") or 0)
        retry = self._to_retry(fallback)
        return Outcome(
            data_version=fingerprint(both.select("text_hash", *fields)),
            metadata={
                "dagster/row_count": texts,
                "cleaned now": cleaned,
                "cache hit share": 1 - cleaned / texts if texts else 1.0,
                **{name: value for name, value in facts.items() if value is not None},
                "cleaner": cleaner.id,
                "before and after": markdown_table([row.asDict() for row in examples], width=60),
                "rejected values": markdown_table(
                    [row.asDict() for row in reasons.orderBy(F.desc("values"), "field", "why").limit(30).collect()]
                ),
                "texts to review": doubtful.count(),
                "to review": markdown_table([row.asDict() for row in review.collect()], width=60),
                **(self._money(report) if report else {}),
            },
            facts={
                "cleaner_id": cleaner.id,
                "cleaned_now": cleaned,
                "fallback": fallback,
                "to_retry": retry,
            },
            checks=(self._check(report, fallback, texts),) if report else (),
        )

    def _to_retry(self, fallback: int) -> int:
        """Texts that fell back and will be asked for again."""
        if not fallback or self.model is None:
            return 0
        given_up = Ledger(self.warehouse, self.model.id).given_up()
        if given_up is None:
            return fallback
        fell_back = self.warehouse.tables.read(SNAPSHOT_CLEANINGS, snapshot=self.snapshot).where("fallback")
        return fell_back.join(given_up, "text_hash", "left_anti").count()

    def _check(self, report: "Report", fallback: int, texts: int) -> Check:
        if report.stopped is None:
            sentence = f"{report.counts.cleaned} texts were cleaned in {report.calls} calls"
        else:
            sentence = str(report.stopped)
        return Check(
            PROVIDER_CHECK,
            report.stopped is None,
            sentence,
            {"fallback texts": fallback, "texts": texts, **{f"failed: {k}": v for k, v in report.failures.items()}},
        )

    def _money(self, report: "Report") -> dict[str, Any]:
        """Tokens and dollars of this run, and of the last days."""
        counts = report.counts
        return {
            "calls": report.calls,
            "cost of this run, USD": round(counts.cost, 6),
            "input tokens": counts.input_tokens,
            "output tokens": counts.output_tokens,
            "repaired answers": counts.repaired,
            "asked again alone": counts.asked_alone,  # whose answer in company with others was of no use
            "failed calls": {name: count for name, count in sorted(report.failures.items())},
            "not cleaned": {name: count for name, count in sorted(counts.not_cleaned.items())},
            "cost by day": Ledger(self.warehouse, "").by_day(),
        }


class Ledger:
    """The answers of a cleaner in the tables."""

    def __init__(self, warehouse: Warehouse, cleaner_id: str) -> None:
        self._warehouse = warehouse
        self._cleaner_id = cleaner_id

    def commit(self, segment: Path, recovered: bool) -> None:
        """Take a segment of the spool into the tables; what is there already stays single."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        from sid_pipeline.cleaning.llm.spool import call_rows, records

        warehouse = self._warehouse
        held = list(records(segment))
        recovered = recovered or any(record["call"]["mode"] == "batch" for record in held)
        for table, rows, key in (
            (warehouse.cleaned, [row for record in held for row in record["cleaned"]], "text_hash"),
            (CLEANING_CALLS, call_rows(held), "call_id"),
        ):
            if not rows:
                continue
            file = segment.with_suffix(f".{key}.parquet")
            pq.write_table(pa.Table.from_pylist(rows, schema=table.arrow(without=("cleaner_id",))), file)
            frame = warehouse.spark.read.parquet(str(file)).dropDuplicates([key])
            if recovered and warehouse.tables.exists(table):
                known = warehouse.tables.read(table, cleaner_id=self._cleaner_id).select(key)
                frame = frame.join(known, key, "left_anti")
            warehouse.tables.append(table, frame, cleaner_id=self._cleaner_id)
            file.unlink()

    def cleaned(self, hashes: list[str]) -> Iterable[str]:
        """Which of the texts are cleaned."""
        import pyarrow.compute as pc

        found = self._warehouse.tables.arrow(
            self._warehouse.cleaned,
            columns=["text_hash"],
            filters=pc.field("text_hash").isin(hashes),
            cleaner_id=self._cleaner_id,
        )
        return found["text_hash"].to_pylist()

    def given_up(self) -> "DataFrame | None":
        """The texts that are not asked for again; None before any call."""
        from pyspark.sql import functions as F

        tables = self._warehouse.tables
        if not tables.exists(CLEANING_CALLS):
            return None
        calls = tables.read(CLEANING_CALLS, cleaner_id=self._cleaner_id)
        failed = calls.where((F.col("outcome") != "ok") & (F.size("text_hashes") == 1))
        counted = failed.groupBy(F.element_at("text_hashes", 1).alias("text_hash"), "outcome").count()
        enough = [(F.col("outcome") == name) & (F.col("count") >= times) for name, times in GIVEN_UP.items()]
        return counted.where(enough[0] | enough[1]).select("text_hash").distinct()

    def by_day(self) -> Markdown:
        """Calls, tokens and dollars by day and model, the newest first."""
        from pyspark.sql import functions as F

        if not self._warehouse.tables.exists(CLEANING_CALLS):
            return markdown_table([])
        days = (
            self._warehouse.tables.read(CLEANING_CALLS)
            .groupBy("day", "provider", "model", "mode")
            .agg(
                F.count("*").alias("calls"),
                F.sum((F.col("outcome") != "ok").cast("long")).alias("unusable"),
                F.sum("input_tokens").alias("input tokens"),
                F.sum("output_tokens").alias("output tokens"),
                F.round(F.sum("cost"), 6).alias("USD"),
            )
            .orderBy(F.desc("day"), "provider", "model", "mode")
        )
        return markdown_table([row.asDict() for row in days.limit(14).collect()])


def _stream(folder: Path) -> "Iterator[Text]":
    """Texts of a Parquet folder, a few at a time."""
    import pyarrow.dataset as ds

    from sid_pipeline.cleaning.llm.prompt import Text
    from sid_pipeline.cleaning.model import ProductText

    columns: Sequence[str] = ("text_hash", "title", "brand", "size", "description")
    for batch in ds.dataset(folder, format="parquet").to_batches(columns=list(columns), batch_size=500):
        for row in batch.to_pylist():
            yield Text(row.pop("text_hash"), ProductText(**row))
