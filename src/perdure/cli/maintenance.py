"""backup, copy, encryption-key and rekey: maintenance of a whole store."""

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
        typer.Option("--with-damage", help="Keep the backup even if rows are damaged, and list them."),
    ] = False,
    hub: HubOption = None,
    at: Annotated[
        str | None,
        typer.Option(
            "--at", metavar="TIME", help="Go back to this moment, such as 2027-01-31T12:00Z (azure: only)."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Back up a SQLite database, or a hub in Azure Storage, to a new SQLite file. A server can run meanwhile.

    The backup is a snapshot of one moment. The file appears after it is
    complete and checked. The command never overwrites a file.
    """
    try:
        with progress_bars(_SAID) as progress:
            made = maintenance.backup(
                store, file, with_damage=with_damage, hub=hub, at=_moment(at), progress=progress
            )
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


def _moment(given: str | None) -> datetime | None:
    """Raises typer.BadParameter for a text that is no time; without a zone, it is in UTC."""
    if given is None:
        return None
    try:
        found = datetime.fromisoformat(given)
    except ValueError:
        raise typer.BadParameter(
            f"{given!r} is not a time such as 2027-01-31T12:00Z", param_hint="--at"
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


@commands.command(epilog=EXIT_CODES)
def copy(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="sqlite:///file.db, a path, postgresql://..., or azure:",
            show_default=False,
        ),
    ],
    destination: Annotated[
        str, typer.Argument(metavar="DESTINATION", help="Another store, empty or new.", show_default=False)
    ],
    hub: HubOption = None,
    is_plain: Annotated[bool, typer.Option("--plain", help="Leave the copy unencrypted.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Copy a hub, with its unfinished instances, to another store. The hub must not be running.

    With PERDURE_ENCRYPTION_KEYS, the copy is encrypted with the current key,
    whether the original is encrypted or not. Afterwards serve the copy only. If
    both are served, both do the same work.
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
        "and checked. From now on serve only one of the two stores."
    )


@commands.command("encryption-key", epilog=EXIT_CODES)
def encryption_key() -> None:
    """Print a new key for PERDURE_ENCRYPTION_KEYS: an id made from today's date, a colon and 256 random bits."""
    typer.echo(f"k{datetime.now(UTC):%Y%m%d}:{new_key()}")


@commands.command(epilog=EXIT_CODES)
def rekey(
    store: StoreOption = DEFAULT_STORE,
    hub: HubOption = None,
    vacuum: Annotated[
        bool,
        typer.Option("--vacuum", help="Rewrite the file, so that its free space holds no plain text."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Encrypt everything in the store with the first key of PERDURE_ENCRYPTION_KEYS. The hub must not be running.

    You can stop the command at any time and run it again. It continues with the
    rest.
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
            f". {len(done.unreadable):,} rows could not be decrypted, so keep the old keys"
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
    """Show one progress bar for each kind of work, if stderr is a terminal."""
    console = errors()
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not can_move(), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(said.get(what, what), total=total or None)
            bars.update(tasks[what], completed=done, total=total or None)

        yield progress
