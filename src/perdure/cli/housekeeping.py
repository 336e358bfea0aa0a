"""backup and copy: care for a whole store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from perdure import housekeeping
from perdure.cli.options import DEFAULT_STORE, HubOption, JsonOption, StoreOption
from perdure.cli.terminal import EXIT_CODES, can_move, errors, fail_with, print_json
from perdure.errors import PerdureError

if TYPE_CHECKING:
    from rich.progress import TaskID

commands = typer.Typer()
_SAID = {"pages": "copying"}


@commands.command(epilog=EXIT_CODES)
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file.", show_default=False)],
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Copy the database, as it is at one moment, to a new file; a server may go on serving it.

    The file appears when it is complete and has been checked. Nothing is overwritten.
    """
    try:
        with progress_bars(_SAID) as progress:
            made = housekeeping.backup(store, file, progress=progress)
    except PerdureError as error:
        fail_with(error, as_json=as_json)
    if as_json:
        hubs = {hub: {"instances": report.instances} for hub, report in made.hubs.items()}
        print_json({"file": made.file, "bytes": made.size, "hubs": hubs})
    else:
        typer.echo(f"{made.file}: {made.instances:,} instances, {made.size:,} bytes, checked.")


@commands.command(epilog=EXIT_CODES)
def copy(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="sqlite:///file.db or a path.", show_default=False)
    ],
    destination: Annotated[
        str, typer.Argument(metavar="DESTINATION", help="Another store, empty or new.", show_default=False)
    ],
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy a hub with all that is in flight in it to another store. Nobody may be serving it.

    Afterwards serve the copy, and the original no more: both would do the same work.
    """
    try:
        with progress_bars(_SAID) as progress:
            made = housekeeping.copy(source, destination, hub=hub, progress=progress)
    except PerdureError as error:
        fail_with(error, as_json=as_json)
    if as_json:
        print_json({"hub": made.hub, "rows": made.rows, "verified": made.report.instances})
        return
    typer.echo(
        f"hub {made.hub}: {made.rows['instances']:,} instances and {sum(made.rows.values()):,} rows copied "
        "and checked. Serve one of the two from now on, not both."
    )


@contextmanager
def progress_bars(said: dict[str, str]) -> Iterator[housekeeping.Progress]:
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
