"""migrate: bring the tables of a store in PostgreSQL up to date, or print what does."""

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
            "--print", help="Change nothing: print the SQL, and a role with few rights in comments."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Create the tables of a store in PostgreSQL, or bring them up to date, in a role that may.

    Servers do that themselves when their role may; with this, it need not. Forward only, each version in a
    transaction, one process at a time. A SQLite file is brought up to date when it is served.
    """
    if not is_postgres(store) and not is_printed:
        raise typer.BadParameter(
            "a SQLite file is brought up to date when it is served: give a store in PostgreSQL",
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
        typer.echo(f"The schema is at version {now} already.")
    else:
        typer.echo(f"The schema was brought from version {before} to {now}.")
