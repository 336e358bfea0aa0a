"""backup, copy, encryption-key and rekey: care for a whole store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from perdure import maintenance
from perdure.cli.options import DEFAULT_STORE, HubOption, JsonOption, StoreOption
from perdure.cli.terminal import EXIT_CODES, REFUSED, can_move, errors, fail_with, print_json
from perdure.errors import PerdureError
from perdure.http.formatting import plain
from perdure.store.encryption import new_key

if TYPE_CHECKING:
    from rich.progress import TaskID

commands = typer.Typer()
_SAID = {"pages": "copying"}


@commands.command(epilog=EXIT_CODES)
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file.", show_default=False)],
    store: StoreOption = DEFAULT_STORE,
    with_damage: Annotated[
        bool,
        typer.Option("--with-damage", help="Keep the copy also when rows are damaged, and name them."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Copy the database, as it is at one moment, to a new file; a server may go on serving it.

    The file appears when it is complete and has been checked. Nothing is overwritten.
    """
    try:
        with progress_bars(_SAID) as progress:
            made = maintenance.backup(store, file, with_damage=with_damage, progress=progress)
    except PerdureError as error:
        fail_with(error, as_json=as_json)
    if as_json:
        hubs = {hub: {"instances": report.instances} for hub, report in made.hubs.items()}
        print_json({"file": made.file, "bytes": made.size, "hubs": hubs, "problems": made.problems})
        return
    for problem in made.problems:
        typer.echo(plain(problem), err=True)
    found = f"{len(made.problems):,} problems" if made.problems else "checked"
    typer.echo(f"{made.file}: {made.instances:,} instances, {made.size:,} bytes, {found}.")


@commands.command(epilog=EXIT_CODES)
def copy(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="sqlite:///file.db, a path, or postgresql://...", show_default=False
        ),
    ],
    destination: Annotated[
        str, typer.Argument(metavar="DESTINATION", help="Another store, empty or new.", show_default=False)
    ],
    hub: HubOption = None,
    is_plain: Annotated[bool, typer.Option("--plain", help="Leave the copy unencrypted.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Copy a hub with all that is in flight in it to another store. Nobody may be serving it.

    With PERDURE_ENCRYPTION_KEYS the copy is encrypted with the current key, whatever the original is.
    Afterwards serve the copy, and the original no more: both would do the same work.
    """
    try:
        with progress_bars(_SAID) as progress:
            made = maintenance.copy(source, destination, hub=hub, plain=is_plain, progress=progress)
    except PerdureError as error:
        fail_with(error, as_json=as_json)
    if as_json:
        print_json({"hub": made.hub, "rows": made.rows, "verified": made.report.instances})
        return
    typer.echo(
        f"hub {made.hub}: {made.rows['instances']:,} instances and {sum(made.rows.values()):,} rows copied "
        "and checked. Serve one of the two from now on, not both."
    )


@commands.command("encryption-key", epilog=EXIT_CODES)
def encryption_key() -> None:
    """Print a new key for PERDURE_ENCRYPTION_KEYS: an id of today's date, a colon, 256 bits of chance."""
    typer.echo(f"k{datetime.now(UTC):%Y%m%d}:{new_key()}")


@commands.command(epilog=EXIT_CODES)
def rekey(
    store: StoreOption = DEFAULT_STORE,
    hub: HubOption = None,
    vacuum: Annotated[
        bool,
        typer.Option("--vacuum", help="Write the file anew, so that nothing plain is left in free space."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Encrypt all that is stored with the first of PERDURE_ENCRYPTION_KEYS. Nobody may be serving it.

    It can be stopped at any time; the same command goes on with the rest.
    """
    try:
        with progress_bars({}) as progress:
            done = maintenance.rekey(store, hub=hub, vacuum=vacuum, progress=progress)
    except PerdureError as error:
        fail_with(error, as_json=as_json)
    if as_json:
        print_json({"key": done.key, "hubs": done.hubs, "plain": done.plain, "unreadable": done.unreadable})
    else:
        for why in done.unreadable:
            typer.echo(plain(why))
        rest = (
            f"; {len(done.unreadable):,} could not be decrypted, so keep the old keys"
            if done.unreadable
            else ""
        )
        typer.echo(
            f"{done.rows:,} rows encrypted with {done.key}, {done.plain:,} of them for the first time{rest}."
        )
    if done.unreadable:
        raise typer.Exit(REFUSED)


@contextmanager
def progress_bars(said: dict[str, str]) -> Iterator[maintenance.Progress]:
    """One bar for each thing that is done, on a terminal."""
    console = errors()
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not can_move(), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(said.get(what, what), total=total or None)
            bars.update(tasks[what], completed=done, total=total or None)

        yield progress
