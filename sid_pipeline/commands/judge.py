"""`sid judge`: a language model's opinion of the groups that SIDs make, on demand and never in the night."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sid_pipeline.settings import Settings


def judge_command(settings: Callable[[], Settings]) -> click.Command:
    """The command `judge`.

    Args:
        settings: loads the settings; raises click.ClickException.
    """

    @click.command()
    @click.option("--release", help="Default: the live release, else release.default of the settings.")
    @click.option("--flavour", multiple=True, help="May be given several times. Default: every flavour.")
    @click.option("--groups", default=30, show_default=True, help="SID groups asked about; as many random ones beside.")
    @click.option("--seed", default=0, show_default=True, help="Another one asks about other groups.")
    def judge(release: str | None, flavour: tuple[str, ...], groups: int, seed: int) -> None:
        """Let the language model of `cleaning` judge sampled SID groups; answers are kept and paid for once."""
        from sid_pipeline.judging import NoJudge, judge_release
        from sid_pipeline.receipts import MissingInput
        from sid_pipeline.releases import default_release
        from sid_pipeline.resources.warehouse import Warehouse

        warehouse = Warehouse(settings())
        release = release or default_release(warehouse)
        try:
            for name in flavour or warehouse.settings.active_flavours:
                click.echo(f"{name}, release {release}\n\n{judge_release(warehouse, name, release, groups, seed)}")
        except NoJudge as skipped:
            click.echo(f"skipped: {skipped}")
        except (MissingInput, ValueError) as error:
            raise click.ClickException(str(error)) from error

    return judge
