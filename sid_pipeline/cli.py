"""`sid`, the command line: thin, over the same code as the assets. It is no second pipeline."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import click

from sid_pipeline.commands.clean import clean_command
from sid_pipeline.commands.judge import judge_command
from sid_pipeline.commands.migrate import migrate_command
from sid_pipeline.commands.promotion import promotion_commands
from sid_pipeline.commands.release import release_commands
from sid_pipeline.commands.retention import retention_command
from sid_pipeline.commands.taxonomy import taxonomy_commands
from sid_pipeline.keys import MAX_TOKENS
from sid_pipeline.migrations import StateError
from sid_pipeline.publication.folder import PublicationError
from sid_pipeline.receipts import MissingInput
from sid_pipeline.resources.faults import machine_fault
from sid_pipeline.settings import PROJECT_ROOT, Settings, SettingsError, load_settings

SID_PATTERN = re.compile(rf"\d+(_\d+){{0,{MAX_TOKENS - 1}}}")


class _Commands(click.Group):
    """Commands that say in a sentence, and not in a traceback, what a person or the machine must mend."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except (StateError, SettingsError, MissingInput, PublicationError) as error:
            raise click.ClickException(str(error)) from error
        except Exception as error:
            from sid_pipeline.assets.recording import MENDABLE

            mendable = isinstance(error, MENDABLE)
            sentence = str(error) if mendable else machine_fault(error, "What is live stays; do it again afterwards.")
            if sentence is None:
                raise
            raise click.ClickException(sentence) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--settings",
    "file",
    type=click.Path(dir_okay=False),
    help="Settings file. Default: SID_SETTINGS, else the sample's data/sample.toml.",
)
@click.pass_context
def main(context: click.Context, file: str | None) -> None:
    """Semantic IDs for a retail catalogue: make, check, publish and look at them."""
    file = file or os.environ.get("SID_SETTINGS")
    if file:
        # Through the environment, so that every process started from here sees the same settings, wherever it runs.
        os.environ["SID_SETTINGS"] = str(Path(file).expanduser().resolve())
    context.ensure_object(dict)


@main.command()
def setup() -> None:
    """Once: fetch Delta's JARs and archive Spark's classes, both in the user's cache; then no network is needed."""
    from sid_pipeline.doctor import JavaError, find_java
    from sid_pipeline.resources.class_archive import ArchiveError, make
    from sid_pipeline.resources.jars import JarError, fetch

    try:
        for path in fetch(find_java()):
            click.echo(f"setup: {path}")
    except (JarError, JavaError) as error:
        raise click.ClickException(str(error)) from error
    try:
        click.echo(f"setup: {make()}")
    except (ArchiveError, OSError) as error:  # Spark only starts more slowly
        click.echo(f"setup: {error}", err=True)


@main.command()
@click.option("--snapshot", help="The day (YYYY-MM-DD). Default: the newest in the ledger, else snapshots.start.")
@click.option("--release", help="The release. Default: every one that is live, else release.default of the settings.")
def run(snapshot: str | None, release: str | None) -> None:
    """Materialise the whole graph: the day's snapshot, then the release. What is unchanged is not paid for again."""
    from sid_pipeline.run import RunFailed, run_everything

    settings = _settings()
    try:
        summary = run_everything(settings, snapshot, release)
    except (RunFailed, MissingInput, ValueError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(summary)


@main.command()
@click.argument("what")
@click.option("--release", help="Default: the live release, else release.default of the settings.")
@click.option("--flavour", help="For a prefix: only this flavour.")
@click.option("--prefix", "as_prefix", is_flag=True, help="Take WHAT as a SID prefix, also if a product has that id.")
@click.option("--limit", default=20, show_default=True, help="Products listed, at most.")
def show(what: str, release: str | None, flavour: str | None, as_prefix: bool, limit: int) -> None:
    """Trace a product through every stage, or list the products under a SID prefix (35_7)."""
    from sid_pipeline.releases import default_release
    from sid_pipeline.resources.warehouse import Warehouse
    from sid_pipeline.show import show_prefix, show_product
    from sid_pipeline.trace import snapshot_of, trace_product

    warehouse = Warehouse(_settings())
    release = release or default_release(warehouse)
    known = list(warehouse.settings.active_flavours)
    if flavour is not None and flavour not in known:
        raise click.ClickException(f"no flavour {flavour!r}; there are {', '.join(known)}")
    try:
        snapshot = snapshot_of(warehouse, release)
        trace = trace_product(warehouse, what, release, snapshot)
    except (MissingInput, ValueError) as error:
        raise click.ClickException(str(error)) from error
    if (trace.product or trace.rejections) and not as_prefix:
        click.echo(show_product(trace))
        if SID_PATTERN.fullmatch(what):
            click.echo(f"\n{what} may also be a SID prefix: sid show --prefix {what}")
        return
    if not SID_PATTERN.fullmatch(what):
        raise click.ClickException(f"no product {what!r} in snapshot {snapshot}, and it is no SID prefix like 35_7")
    flavours = [flavour] if flavour else known
    click.echo(show_prefix(warehouse, what, flavours, release, snapshot, limit))


@main.command()
def status() -> None:
    """What is live and served, what it stands on, what failed, what blocks, and what to do next."""
    from sid_pipeline.resources.warehouse import Warehouse
    from sid_pipeline.running import ask_dagster
    from sid_pipeline.status import show_status

    settings = _settings()
    running, lost = ask_dagster(settings)
    click.echo(show_status(Warehouse(settings), running, lost))


@main.command()
@click.option("--release", help="Default: the live release.")
@click.option("--path", "only_path", is_flag=True, help="Print its index file and open nothing.")
def explorer(release: str | None, only_path: bool) -> None:
    """Open the explorer of what is live: the tree of prefixes, search, health charts, what changed."""
    import webbrowser

    from sid_pipeline.releases import default_release
    from sid_pipeline.resources.warehouse import Warehouse

    warehouse = Warehouse(_settings())
    release = release or default_release(warehouse)
    try:
        index = warehouse.explorer(release) / "index.html"
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    if not index.is_file():
        raise click.ClickException(f"release {release!r} has no explorer yet: sid run --release {release}")
    if only_path or not webbrowser.open(index.as_uri()):
        click.echo(index)


@main.command()
def doctor() -> None:
    """Check versions, Java, JARs, device, weights, disk and settings: each ok, or with the mend."""
    from sid_pipeline.doctor import examine

    findings = examine()
    for finding in findings:
        click.echo(f"{'ok  ' if finding.ok else 'MEND'} {finding.name:<10} {finding.text}")
    if not all(finding.ok for finding in findings):
        sys.exit(1)


@main.command()
@click.option("--port", default=3000, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Anything else opens the UI to the network.")
def ui(port: int, host: str) -> None:
    """The Dagster web UI, on the same instance as `sid run`."""
    from sid_pipeline.run import home

    home(_settings())
    workspace = str(PROJECT_ROOT / "workspace.yaml")
    click.echo(f"the UI comes up on http://{host}:{port}; stop it with Ctrl-C")
    command = [sys.executable, "-m", "dagster", "dev", "-w", workspace, "-h", host, "-p", str(port)]
    os.execv(sys.executable, command)


def _settings() -> Settings:
    try:
        return load_settings()
    except SettingsError as error:
        raise click.ClickException(str(error)) from error


main.add_command(clean_command(_settings))
main.add_command(taxonomy_commands(_settings))
main.add_command(release_commands(_settings))
main.add_command(judge_command(_settings))
main.add_command(migrate_command(_settings))
main.add_command(retention_command(_settings))
for _command in promotion_commands(_settings):
    main.add_command(_command)


if __name__ == "__main__":
    main()
