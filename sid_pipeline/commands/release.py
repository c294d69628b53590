"""`sid release`: the states of vocabulary releases, and comparing two of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from sid_pipeline.resources.warehouse import Warehouse
    from sid_pipeline.settings import Settings

T = TypeVar("T")


def release_commands(settings: Callable[[], Settings]) -> click.Group:
    """The group `release`.

    Args:
        settings: loads the settings; raises click.ClickException.
    """

    @click.group()
    def release() -> None:
        """Vocabulary releases: compare, keep or throw away a trial, retire."""

    @release.command()
    @click.argument("name")
    @click.option("--acknowledged-by", required=True, help="Who says that no reader uses it any more.")
    @click.option("--on", "day", default=lambda: date.today().isoformat(), help="When they said it. Default: today.")
    def retire(name: str, acknowledged_by: str, day: str) -> None:
        """Stop refreshing a release that its readers have left, for good; its publications stay.

        Its name is never used again.
        """
        from sid_pipeline.releases import retire as retire_release

        _run(settings, lambda warehouse: retire_release(warehouse, name, acknowledged_by, day))
        click.echo(f"{name} is retired, acknowledged by {acknowledged_by} on {day}")

    @release.command()
    @click.argument("name")
    def keep(name: str) -> None:
        """Make a trial a served release."""
        from sid_pipeline.releases import keep as keep_release

        _run(settings, lambda warehouse: keep_release(warehouse, name))
        click.echo(f"{name} is served; next: sid promote {name} --by NAME --reason WHY")

    @release.command()
    @click.argument("name")
    def drop(name: str) -> None:
        """Throw a trial release away, with all that was made for it."""
        import dagster as dg

        from sid_pipeline.partitions import releases
        from sid_pipeline.releases import drop_trial
        from sid_pipeline.run import home
        from sid_pipeline.run_history import PARTITION_TAG, UNFINISHED, end_lost_runs

        home(settings())
        with dg.DagsterInstance.get() as instance:
            end_lost_runs(instance)
            wanted = dg.RunsFilter(tags={PARTITION_TAG: name}, statuses=UNFINISHED)
            if instance.get_runs(wanted, limit=1):
                raise click.ClickException(f"a run of {name} is not finished: wait for it or cancel it first")
            _run(settings, lambda warehouse: drop_trial(warehouse, name))
            instance.delete_dynamic_partition(str(releases.name), name)
        click.echo(f"{name} is gone")

    @release.command()
    @click.argument("name")
    @click.option("--with", "other", help="Default: the live release.")
    def compare(name: str, other: str | None) -> None:
        """Two releases side by side: the headline figures of their reports, and what readers would notice."""
        from sid_pipeline.release_comparison import compare_releases

        click.echo(_run(settings, lambda warehouse: compare_releases(warehouse, name, other)))

    return release


def _run(settings: Callable[[], Settings], work: Callable[[Warehouse], T]) -> T:
    """Do something with the warehouse, its faults as one sentence."""
    from sid_pipeline.receipts import MissingInput
    from sid_pipeline.releases import ReleaseError
    from sid_pipeline.resources.warehouse import Warehouse

    try:
        return work(Warehouse(settings()))
    except (MissingInput, ReleaseError, ValueError) as error:
        raise click.ClickException(str(error)) from error
