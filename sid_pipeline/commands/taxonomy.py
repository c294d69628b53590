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
# As `taxonomy.diff` and `taxonomy_source` name them; not imported, to keep `sid --help` quick.
SAME, MINOR, MAJOR = "same", "minor", "major"
BY_PRODUCTS = "products"


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
            tables = [read_product_paths(location, listing, known.source) for location in products]
        except TaxonomyError as error:
            raise click.ClickException(str(error)) from error
        pairs = pair_up(tables)
        changes = find_changes(before, after, pairs)
        reach = touched(changes, before, after, pairs)
        limit = known.taxonomy.max_minor_share if max_minor_share is None else max_minor_share
        told = to_dict(changes, before, after, reach, limit)
        for name, source, tree in (("old", old, before), ("new", new, after)):
            told[name] = {"source": source, **told[name], "problems": _problems(tree)}
        if as_json:
            click.echo(json.dumps(told, indent=1, ensure_ascii=False))
            return
        click.echo(in_words(told))
        if told["measured_by"] != BY_PRODUCTS:
            click.echo(
                "\nNo products were given, so nodes were counted, and another class may come out by products: give "
                "--products, or ask `sid taxonomy plan`. What the pipeline does is decided by products."
            )

    @taxonomy.command()
    @click.option("--source", help="Default: taxonomy.source of the settings.")
    @click.option("--release", help="Compare with this release. Default: the live one.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    def plan(source: str | None, release: str | None, as_json: bool) -> None:
        """What the taxonomy source says now, against a release: changes, class, products, minutes, next step."""
        from sid_pipeline.receipts import MissingInput
        from sid_pipeline.releases import newest_release
        from sid_pipeline.resources.warehouse import Warehouse
        from sid_pipeline.run import build_minutes
        from sid_pipeline.taxonomy.tree import TaxonomyError
        from sid_pipeline.taxonomy_source import against, category_counts, newest_snapshot, read_source

        known = settings()
        warehouse = Warehouse(known)
        try:
            follows = newest_release(warehouse)
            name = release or (follows.release if follows else None)
            if name is None:
                raise click.ClickException("no release is served yet: the first `sid run` takes the taxonomy as it is")
            snapshot = newest_snapshot(warehouse)
            paths = [path for path in category_counts(warehouse, snapshot) if path]
            tree = read_source(known, source or known.taxonomy.source, paths)
            change = against(warehouse, tree, name, snapshot)
        except (TaxonomyError, MissingInput, ValueError) as error:
            raise click.ClickException(str(error)) from error
        minutes = build_minutes(known)
        following = _next_step(change.kind, name, change.tree.revision, minutes, source)
        told = {
            **change.told,
            "kind": change.kind,
            "release": name,
            "as_of_snapshot": snapshot,
            "estimated_minutes": minutes if change.kind == MAJOR else 0,
            "next": following,
        }
        if as_json:
            click.echo(json.dumps(told, indent=1, ensure_ascii=False))
        else:
            click.echo(f"{in_words(told)}\n\nagainst {name}, with the products of {snapshot}\nnext: {following}")

    @taxonomy.command()
    @click.argument("release")
    @click.option("--source", help="Default: taxonomy.source of the settings.")
    @click.option("--flavour", multiple=True, help="May be given several times. Default: every flavour.")
    @click.option("--predecessor", help="Whose codes to keep, or 'none' for a cold start. Default: the live release.")
    @click.option("--trial", is_flag=True, help="An analyst's release: never live; `sid release drop` throws it away.")
    @click.option("--by", default="", help="Who asks for it.")
    @click.option("--reason", default="", help="Why.")
    def rebuild(
        release: str,
        source: str | None,
        flavour: tuple[str, ...],
        predecessor: str | None,
        trial: bool,
        by: str,
        reason: str,
    ) -> None:
        """Build a vocabulary RELEASE from the taxonomy as it is now; it goes live only by `sid promote`."""
        from sid_pipeline.receipts import MissingInput
        from sid_pipeline.run import RunFailed, build_release

        asked = {"taxonomy_source": source, "predecessor": predecessor}
        pins = {name: value for name, value in asked.items() if value is not None}
        try:
            done = build_release(
                settings(), release, {**pins, "trial": trial, "asked_by": by, "reason": reason}, flavour or None
            )
        except (RunFailed, MissingInput, ValueError) as error:
            raise click.ClickException(str(error)) from error
        click.echo(done)
        following = "sid release compare" if trial else "sid promote"
        click.echo(f"next: {following} {release}{'' if trial else ' --by NAME --reason WHY'}")

    return taxonomy


def _next_step(kind: str, release: str, revision: str, minutes: float | None, source: str | None) -> str:
    if kind == SAME:
        return f"nothing to do: {release} has this tree"
    if kind == MINOR:
        return f"sid run --release {release}    takes it as a revision; no SID moves"
    long = f"about {max(minutes, 1):.0f} min, as the longest build so far" if minutes else "no build to estimate from"
    given = f" --source {source}" if source else ""
    return f"sid taxonomy rebuild taxonomy-{revision[:8]}{given} --by NAME --reason WHY    {long}"


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
