"""`sid migrate`: bring state that an older version wrote up to this one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sid_pipeline.settings import Settings


def migrate_command(settings: Callable[[], Settings]) -> click.Command:
    """The command.

    Args:
        settings: loads the settings; raises click.ClickException.
    """

    @click.command("migrate")
    def migrate() -> None:
        """Bring state that an older version wrote up to this one. Stop what runs on it and keep a copy first."""
        from sid_pipeline import migrations
        from sid_pipeline.resources.warehouse import Warehouse

        warehouse = Warehouse(settings())
        if not migrations.migrate(warehouse, lambda sentence: click.echo(f"migrated {sentence}")):
            click.echo(f"{warehouse.state} is of state version {migrations.STATE_VERSION} already; nothing to do")

    return migrate
