"""migrate: create or upgrade the tables of a PostgreSQL store, or print the SQL that does it."""

from __future__ import annotations

from typing import Annotated

import typer

from perdure.cli.options import DEFAULT_STORE, JsonOption, StoreOption
from perdure.cli.terminal import EXIT_CODES, fail_with, print_json
from perdure.errors import PerdureError
from perdure.store import is_postgres, migrate_store, migration_script

commands = typer.Typer()


@commands.command(epilog=EXIT_CODES)
def migrate(
    store: StoreOption = DEFAULT_STORE,
    is_printed: Annotated[
        bool,
        typer.Option(
            "--print",
            help="Change nothing. Print the SQL, with the statements for a least-privilege role in comments.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Create or upgrade the PostgreSQL tables. Run it as a role that can create tables.

    A server upgrades the tables itself if its role can create tables. Run this
    command first, and the server's role needs no such right. Upgrades only go
    forward. Each version is applied in one transaction, by one process at a
    time. A SQLite file is upgraded when a server opens it.
    """
    if not is_postgres(store) and not is_printed:
        raise typer.BadParameter(
            "migrate is for PostgreSQL stores. A SQLite file is upgraded when a server opens it",
            param_hint="--store",
        )
    try:
        if is_printed:
            typer.echo(migration_script(store), nl=False)
            return
        before, now = migrate_store(store)
    except PerdureError as error:
        fail_with(error, as_json=as_json)
    if as_json:
        print_json({"before": before, "version": now})
    elif before == now:
        typer.echo(f"The schema is already at version {now}.")
    else:
        typer.echo(f"The schema was upgraded from version {before} to {now}.")
