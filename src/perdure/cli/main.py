"""The root command, assembled from the modules of this package."""

from __future__ import annotations

import typer

from perdure.cli import (
    access,
    azure_binding,
    bulk,
    control,
    entities,
    instances,
    maintenance,
    migrating,
    replaying,
    run,
    settings,
    tasks,
    tracing,
    triggers,
    verification,
    workers,
)
from perdure.cli.terminal import EXIT_CODES
from perdure.version import __version__

root = typer.Typer(
    name="perdure",
    help="Durable Functions for Python, on SQLite or PostgreSQL.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (
    run,
    settings,
    tasks,
    instances,
    tracing,
    control,
    bulk,
    entities,
    access,
    azure_binding,
    workers,
    verification,
    maintenance,
    migrating,
    replaying,
    triggers,
):
    root.add_typer(group.commands)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"perdure {__version__}")
        raise typer.Exit


@root.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", help="Print the version.", callback=_version, is_eager=True
    ),
) -> None:
    """Durable Functions for Python, on SQLite or PostgreSQL."""
