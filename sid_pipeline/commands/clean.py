"""`sid clean`: the cleaned record of one text, the price of a catalogue, and the cleanings that a person should see."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sid_pipeline.cleaning.cleaner import Cleaner
    from sid_pipeline.cleaning.llm.prompt import Text
    from sid_pipeline.resources.warehouse import Warehouse
    from sid_pipeline.settings import Settings


def clean_command(settings: Callable[[], Settings]) -> click.Command:
    """The command `clean`.

    Args:
        settings: loads the settings; raises click.ClickException.
    """

    @click.command()
    @click.option("--text", help="Clean this text: its first line is the title, further lines are the description.")
    @click.option("--estimate", is_flag=True, help="Rows, tokens and price of a snapshot's cleaning, before spending.")
    @click.option("--review", is_flag=True, help="The cleanings of a snapshot with the least confidence.")
    @click.option("--snapshot", help="The day (YYYY-MM-DD). Default: the newest in the ledger.")
    @click.option("--limit", default=20, show_default=True, help="Rows of --review, at most.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    def clean(text: str | None, estimate: bool, review: bool, snapshot: str | None, limit: int, as_json: bool) -> None:
        """Look at attribute cleaning: one text, its price, or what to review. Nothing is written."""
        from sid_pipeline.cleaning.schema import SchemaError
        from sid_pipeline.receipts import MissingInput
        from sid_pipeline.resources.warehouse import Warehouse

        if (text is not None) + estimate + review != 1:
            raise click.UsageError("give one of --text, --estimate and --review")
        warehouse = Warehouse(settings())
        try:
            if text is not None:
                _one(warehouse, text, as_json)
            elif estimate:
                _print(_estimate(warehouse, _day(warehouse, snapshot)), as_json)
            else:
                rows = _review(warehouse, _day(warehouse, snapshot), limit)
                if as_json:
                    click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
                else:
                    for row in rows:
                        _print(row, False)
                        click.echo()
        except (SchemaError, MissingInput, ValueError) as error:
            raise click.ClickException(str(error)) from error

    return clean


def _cleaner(warehouse: Warehouse) -> Cleaner:
    """The cleaner of the settings; the rules without a lexicon know the fixed vocabulary alone."""
    from sid_pipeline.cleaning.lexicon import Lexicon
    from sid_pipeline.cleaning.rules import RulesCleaner
    from sid_pipeline.resources.llm import llm_cleaner

    if warehouse.settings.cleaning.provider != "rules":
        return llm_cleaner(warehouse.settings)
    if warehouse.lexicon.is_file():
        return RulesCleaner(Lexicon.load(warehouse.lexicon), warehouse.schema)
    click.echo("no lexicon was learned yet (`sid run` does it): brands are known from the brand field only", err=True)
    return RulesCleaner(Lexicon.empty(), warehouse.schema)


def _one(warehouse: Warehouse, text: str, as_json: bool) -> None:
    from sid_pipeline.cleaning.model import NotCleaned, ProductText

    title, _, description = text.partition("\n")
    cleaner = _cleaner(warehouse)
    [result] = cleaner.clean([ProductText(title, None, None, description or None)])
    if isinstance(result, NotCleaned):
        if as_json:
            click.echo(json.dumps({"raw": text, "failure": result.failure, "sentence": result.sentence}, indent=2))
        raise click.ClickException(f"not cleaned: {result.failure}: {result.sentence}")
    record = {
        "raw": text,
        **result.attributes.model_dump(mode="json"),
        "confidence": result.confidence,
        "source": result.source,
        "unsupported": [vars(value) for value in result.unsupported],
        "cleaner": cleaner.id,
    }
    _print(record, as_json)


def _estimate(warehouse: Warehouse, snapshot: str) -> dict[str, Any]:
    from sid_pipeline.resources.llm import llm_cleaner
    from sid_pipeline.schemas import PRODUCTS

    cleaning = warehouse.settings.cleaning
    if cleaning.provider == "rules":
        raise ValueError("cleaning.provider is 'rules', which costs nothing: set it to 'gemini' or 'openai'")
    cleaner = llm_cleaner(warehouse.settings)
    table = warehouse.tables.arrow(
        PRODUCTS, columns=["text_hash", "title", "brand", "size", "description"], snapshot=snapshot
    )
    known = set(
        warehouse.tables.arrow(warehouse.cleaned, ["text_hash"], cleaner_id=cleaner.id)["text_hash"].to_pylist()
    )
    distinct: set[str] = set()

    def missing() -> Iterator[Text]:
        from sid_pipeline.cleaning.llm.prompt import Text
        from sid_pipeline.cleaning.model import ProductText

        for batch in table.to_batches(max_chunksize=5_000):
            for row in batch.to_pylist():
                text_hash = row.pop("text_hash")
                if text_hash not in distinct:
                    distinct.add(text_hash)
                    if text_hash not in known:
                        yield Text(text_hash, ProductText(**row))

    found = cleaner.estimate(missing())
    mode = cleaner.mode(found.texts)
    price = cleaner.options.price
    dollars = {name: round(found.price(price, name), 4) for name in ("sync", "batch")} if price else None
    return {
        "snapshot": snapshot,
        "cleaner": cleaner.id,
        "products": len(table),
        "distinct_texts": len(distinct),
        "already_cleaned": len(distinct) - found.texts,
        "to_clean": found.texts,
        "requests": found.requests,
        "input_tokens": found.input_tokens,
        "output_tokens": found.output_tokens,
        "mode": mode,
        "price_usd": dollars[mode] if dollars else None,
        "price_usd_by_mode": dollars,
        "budget_usd": cleaning.budget,
        "note": "tokens are estimated from bytes; the ledger has the service's own counts"
        if price
        else f"no price is known for {cleaning.model_name}: set cleaning.prices",
    }


def _review(warehouse: Warehouse, snapshot: str, limit: int) -> list[dict[str, Any]]:
    import pyarrow.compute as pc

    from sid_pipeline.schemas import PRODUCTS, SNAPSHOT_CLEANINGS

    tables = warehouse.tables
    used = tables.arrow(SNAPSHOT_CLEANINGS, snapshot=snapshot)
    doubtful = []
    for cleaner_id in pc.unique(used["cleaner_id"]).to_pylist():
        mine = used.filter(pc.equal(used["cleaner_id"], cleaner_id))
        cleaned = tables.arrow(
            warehouse.cleaned,
            filters=pc.field("confidence") < warehouse.settings.cleaning.review_below,
            cleaner_id=cleaner_id,
        )
        used_rows = {row["text_hash"]: row for row in mine.to_pylist()}
        doubtful += [
            {**used_rows[row["text_hash"]], **row} for row in cleaned.to_pylist() if row["text_hash"] in used_rows
        ]
    doubtful = sorted(doubtful, key=lambda row: (row["confidence"], row["text_hash"]))[:limit]
    if not doubtful:
        return []
    hashes = [row["text_hash"] for row in doubtful]
    products = tables.arrow(
        PRODUCTS, ["text_hash", "product_id", "title"], pc.field("text_hash").isin(hashes), snapshot=snapshot
    )
    titles = {row["text_hash"]: row for row in products.to_pylist()}
    fields = [field.name for field in warehouse.schema.fields]
    return [
        {
            "product_id": titles[row["text_hash"]]["product_id"],
            "title": titles[row["text_hash"]]["title"],
            "confidence": row["confidence"],
            **{name: row[name] for name in fields if row[name]},
            "rejected": row["unsupported"],
            "fallback": row["reason"] if row["fallback"] else None,
        }
        for row in doubtful
        if row["text_hash"] in titles
    ]


def _day(warehouse: Warehouse, snapshot: str | None) -> str:
    from sid_pipeline.receipts import MissingInput
    from sid_pipeline.schemas import PRODUCTS

    days = warehouse.receipts.partitions(PRODUCTS.name)
    if not days:
        raise MissingInput("no snapshot was materialised yet: run `sid run` first, or the job snapshot_refresh")
    if snapshot is not None and snapshot not in days:
        raise MissingInput(f"snapshot {snapshot!r} was not materialised; there are {', '.join(days[-5:])}")
    return snapshot or days[-1]


def _print(record: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(record, indent=2, ensure_ascii=False))
        return
    width = max(map(len, record))
    for name, value in record.items():
        if value is None or value == []:
            continue
        if isinstance(value, list):
            value = "; ".join(", ".join(map(str, v.values())) if isinstance(v, dict) else str(v) for v in value)
        elif isinstance(value, dict):
            value = ", ".join(f"{key} {part}" for key, part in value.items())
        elif isinstance(value, int) and not isinstance(value, bool):
            value = f"{value:,}"
        click.echo(f"{name:<{width}}  {value}")
