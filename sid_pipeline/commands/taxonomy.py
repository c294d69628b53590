"""`sid taxonomy`: what a change of the category tree is, what it would cost, and asking for the rebuild."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sid_pipeline.settings import Settings
    from sid_pipeline.taxonomy.matching import PathPairs
    from sid_pipeline.taxonomy.tree import Taxonomy

LINES = 40


def taxonomy_commands(settings: Callable[[], Settings]) -> click.Group:
    """The group `taxonomy`.

    Args:
        settings: loads the settings; raises click.ClickException.
    """

    @click.group()
    def taxonomy() -> None:
        """The category tree: compare two, plan a change, ask for the rebuild."""

    @taxonomy.command()
    @click.argument("old")
    @click.argument("new")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON: class, lists, shares.")
    @click.option(
        "--products",
        multiple=True,
        help="A product table, CSV or Parquet: measure by products. Given twice (before, after), products matched by "
        "their id are also evidence of which node is which.",
    )
    @click.option("--separator", help="Between the steps of a path. Default: taxonomy.separator of the settings.")
    @click.option("--path", "path_column", help="The column that holds the path. Default: taxonomy.columns.path.")
    @click.option("--level", multiple=True, help="A column per level, the root's first; give it several times.")
    @click.option("--category", multiple=True, help="The products' category column(s). Default: source.columns.")
    @click.option("--product-id", help="The products' id column. Default: source.columns.product_id.")
    @click.option("--max-minor-share", type=float, help="Default: taxonomy.max_minor_share of the settings.")
    def diff(
        old: str,
        new: str,
        as_json: bool,
        products: tuple[str, ...],
        separator: str | None,
        path_column: str | None,
        level: tuple[str, ...],
        category: tuple[str, ...],
        product_id: str | None,
        max_minor_share: float | None,
    ) -> None:
        """What changed from the source OLD to the source NEW, and whether it is minor or major.

        A source is a CSV, Parquet or text file or a Delta table, in any layout that taxonomy.source takes.
        """
        from sid_pipeline.taxonomy.diff import diff as find_changes
        from sid_pipeline.taxonomy.diff import touched
        from sid_pipeline.taxonomy.sources import read_product_paths, read_taxonomy
        from sid_pipeline.taxonomy.tree import TaxonomyError
        from sid_pipeline.taxonomy.wording import to_dict

        if len(products) > 2:
            raise click.ClickException("--products is given at most twice: the table before and the one after")
        known = settings()
        asked: dict[str, Any] = {"path": path_column, "levels": list(level) or None}
        columns = known.taxonomy.columns.model_copy(update={k: v for k, v in asked.items() if v is not None})
        step = separator or known.taxonomy.separator
        listing = known.source.columns.model_copy(
            update={
                **({"category": list(category) if len(category) > 1 else category[0]} if category else {}),
                **({"product_id": product_id} if product_id else {}),
                **({"category_separator": separator} if separator else {}),
            }
        )
        try:
            before, after = (read_taxonomy(source, step, columns) for source in (old, new))
            tables = [read_product_paths(location, listing) for location in products]
        except TaxonomyError as error:
            raise click.ClickException(str(error)) from error
        pairs = pair_up(tables)
        changes = find_changes(before, after, pairs)
        reach = touched(changes, before, after, pairs)
        limit = known.taxonomy.max_minor_share if max_minor_share is None else max_minor_share
        told = to_dict(changes, before, after, reach, limit)
        for name, source, tree in (("old", old, before), ("new", new, after)):
            told[name] = {"source": source, **told[name], "problems": _problems(tree)}
        click.echo(json.dumps(told, indent=1, ensure_ascii=False) if as_json else in_words(told))

    return taxonomy


def pair_up(tables: list[dict[str, tuple[str, ...] | None]]) -> PathPairs | None:
    """Products by path before and after: from one table, or from two joined by product id; None from none."""
    if not tables:
        return None
    before, after = tables[0], tables[-1]
    return Counter((path, after[product]) for product, path in before.items() if product in after)


def in_words(told: dict[str, Any], lines: int = LINES) -> str:
    """A diff as text: the verdict, then a sentence a change."""
    from sid_pipeline.taxonomy.wording import KINDS, verdict

    counts = ", ".join(f"{len(told[kind]):,} {kind}" for kind in KINDS if told[kind]) or "nothing changed"
    out = [f"{counts}.", verdict(told)]
    if told["share_touched_per_level"]:
        levels = enumerate(told["share_touched_per_level"], 1)
        out.append("products touched per level: " + ", ".join(f"L{level} {share:.2%}" for level, share in levels))
    out += ["", *told["sentences"][:lines]]
    more = len(told["sentences"]) - lines
    return "\n".join(out + ([f"and {more:,} more (--json lists all)"] if more > 0 else []))


def _problems(tree: Taxonomy) -> list[dict[str, str]]:
    return [{"node_id": p.node_id, "rule": p.rule, "message": p.message} for p in tree.problems]
