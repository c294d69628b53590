"""`sid retention`: what may go, and taking it away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sid_pipeline.resources.warehouse import Warehouse
    from sid_pipeline.retention import Plan, Removal
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
        from sid_pipeline.resources.faults import disk_fault
        from sid_pipeline.resources.warehouse import Warehouse
        from sid_pipeline.retention import make_room
        from sid_pipeline.run import home

        warehouse = Warehouse(settings())
        home(warehouse.settings)
        try:
            _keep_what_is_needed(warehouse, dry_run)
        except Exception as error:
            if disk_fault(error) is None:
                raise
            # On a wholly full disk not even Dagster's history can be opened: first what does not depend on it.
            click.echo("the disk is too full to tell what unfinished work needs; first what none can need", err=True)
            click.echo("\n".join(_going(make_room(warehouse, dry_run=True), dry_run)))
            if dry_run:
                raise
            make_room(warehouse)
            _keep_what_is_needed(warehouse, dry_run)

    return retention


def _keep_what_is_needed(warehouse: Warehouse, dry_run: bool) -> None:
    import dagster as dg

    from sid_pipeline.retention import plan, take_away

    with dg.DagsterInstance.get() as instance:
        going = plan(warehouse, instance)
        click.echo(tell(going, dry_run))
        if not dry_run:
            uncompacted = take_away(warehouse, going, instance)
            click.echo("\n".join(["done; the tables are compacted" if not uncompacted else "done", *uncompacted]))


def tell(plan: Plan, dry_run: bool) -> str:
    """A plan in words: what stays because something needs it, and what goes."""
    from sid_pipeline.summary import table

    stay = plan.kept
    lines = [f"kept: {len(stay.snapshots)} days, {len(stay.releases)} releases, {len(stay.publications)} publications"]
    for kind, names in (("release", stay.releases), ("day", stay.snapshots), ("publication", stay.publications)):
        rows = [["", kind, name, why] for name, why in sorted(names.items()) if not why.startswith("of the newest")]
        lines += table(rows) if rows else []
    return "\n".join([*lines, *_going(plan.removals, dry_run)])


def _going(removals: Sequence[Removal], dry_run: bool) -> list[str]:
    from sid_pipeline.summary import table

    going = [["", removal.kind, removal.name, removal.size, removal.why] for removal in removals]
    title = "would go" if dry_run else "goes"
    return [f"{title}: {len(going) or 'nothing'}", *(table(going) if going else [])]
