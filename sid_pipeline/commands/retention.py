"""`sid retention`: what may go, and taking it away."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sid_pipeline.retention import Plan
    from sid_pipeline.settings import Settings


def retention_command(settings: Callable[[], Settings]) -> click.Command:
    """The command.

    Args:
        settings: loads the settings; raises click.ClickException.
    """

    @click.command()
    @click.option("--dry-run", is_flag=True, help="Only say what would go, and why.")
    def retention(dry_run: bool) -> None:
        """Take away what nothing kept needs ([retention] in the settings), and compact the tables.

        What a live, served or previous release, or unfinished work, stands on always stays.
        """
        import dagster as dg

        from sid_pipeline.receipts import MissingInput
        from sid_pipeline.resources.warehouse import Warehouse
        from sid_pipeline.retention import plan, take_away
        from sid_pipeline.run import home

        warehouse = Warehouse(settings())
        home(warehouse.settings)
        with dg.DagsterInstance.get() as instance:
            try:
                going = plan(warehouse, instance)
            except MissingInput as error:
                raise click.ClickException(str(error)) from error
            click.echo(tell(going, dry_run))
            if not dry_run:
                take_away(warehouse, going, instance)
                click.echo("done; the tables are compacted")

    return retention


def tell(plan: Plan, dry_run: bool) -> str:
    """A plan in words: what stays because something needs it, and what goes."""
    from sid_pipeline.summary import table

    stay = plan.kept
    lines = [f"kept: {len(stay.snapshots)} days, {len(stay.releases)} releases, {len(stay.publications)} publications"]
    for kind, names in (("release", stay.releases), ("day", stay.snapshots), ("publication", stay.publications)):
        rows = [["", kind, name, why] for name, why in sorted(names.items()) if not why.startswith("of the newest")]
        lines += table(rows) if rows else []
    going = [["", removal.kind, removal.name, removal.size, removal.why] for removal in plan.removals]
    title = "would go" if dry_run else "goes"
    return "\n".join([*lines, f"{title}: {len(going) or 'nothing'}", *(table(going) if going else [])])
