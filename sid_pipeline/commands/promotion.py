"""`sid promote`, `rollback`, `hold` and `release-hold`: what a person says about what is live."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sid_pipeline.settings import Settings


def promotion_commands(settings: Callable[[], Settings]) -> list[click.Command]:
    """The commands.

    Args:
        settings: loads the settings; raises click.ClickException.
    """

    def asked(function: Callable[..., Any]) -> Callable[..., Any]:
        function = click.option("--reason", required=True, help="Why; goes into the log.")(function)
        function = click.option("--by", required=True, help="Who asks for it; goes into the log.")(function)
        every = "May be given several times. Default: every flavour."
        return click.option("--flavour", "flavours", multiple=True, help=every)(function)

    def each(flavours: tuple[str, ...], act: Callable[[Any, str], Any]) -> None:
        """Do something for each flavour; what is refused for one does not hold back the others."""
        from sid_pipeline.promotion import PromotionRefused, flavours_asked
        from sid_pipeline.publication.folder import PublicationError
        from sid_pipeline.receipts import MissingInput
        from sid_pipeline.resources.warehouse import Warehouse

        warehouse = Warehouse(settings())
        try:
            names = flavours_asked(warehouse, flavours)
        except PromotionRefused as error:
            raise click.ClickException(str(error)) from error
        refused: dict[str, list[str]] = {}
        for name in names:
            try:
                click.echo(act(warehouse, name).sentence)
            except (MissingInput, PublicationError, PromotionRefused, ValueError) as error:
                refused.setdefault(str(error).removeprefix(f"{name}: "), []).append(name)
        if refused:
            told = [f"{', '.join(names)}: {sentence}" for sentence, names in refused.items()]
            raise click.ClickException("\n".join(told))

    @click.command()
    @click.argument("release")
    @click.option(
        "--accept-drop", metavar="DAY", help="Also if DAY has far fewer products or offers than what is live."
    )
    @asked
    def promote(release: str, flavours: tuple[str, ...], by: str, reason: str, accept_drop: str | None) -> None:
        """Make the newest publication of a release live. The codes of another release mean other things to trained
        readers, so a person asks for it; the same person may accept a night that lost products."""
        from sid_pipeline.promotion import go_live

        asked_for: Any = {"by": by, "reason": reason, "switch": True, "accept_drop": accept_drop}
        each(flavours, lambda w, f: go_live(w, f, release, **asked_for))

    @click.command()
    @asked
    def rollback(flavours: tuple[str, ...], by: str, reason: str) -> None:
        """Make live again what was live before, and hold it there.

        Asked for again, it goes a step further back, never forth: over publications that are kept no more, to the
        release that was live before. To go forth, end the hold (`sid release-hold`): the next refresh advances, or
        `sid promote` another release.
        """
        from sid_pipeline.promotion import rollback as go_back

        each(flavours, lambda w, f: go_back(w, f, by=by, reason=reason))

    @click.command()
    @asked
    def hold(flavours: tuple[str, ...], by: str, reason: str) -> None:
        """Keep what is live: neither newer data nor a promotion changes it until `sid release-hold`."""
        from sid_pipeline.promotion import hold as set_hold

        each(flavours, lambda w, f: set_hold(w, f, by=by, reason=reason))

    @click.command("release-hold")
    @asked
    def release_hold(flavours: tuple[str, ...], by: str, reason: str) -> None:
        """End a hold: the next refresh advances the flavour again."""
        from sid_pipeline.promotion import release_hold as end_hold

        each(flavours, lambda w, f: end_hold(w, f, by=by, reason=reason))

    return [promote, rollback, hold, release_hold]
