"""verify: check that what is stored is what was written, and that it holds together."""

from __future__ import annotations

import typer

from perdure.cli.options import DEFAULT_STORE, HubOption, JsonOption, StoreOption
from perdure.cli.terminal import EXIT_CODES, NOT_FOUND, REFUSED, errors, fail, fail_with, print_json
from perdure.engine.verification import Report, verify
from perdure.errors import PerdureError
from perdure.http.prose import plain
from perdure.settings import encryption_given
from perdure.store import hubs_of, open_store

commands = typer.Typer()


@commands.command("verify", epilog=EXIT_CODES)
def verify_(store: StoreOption = DEFAULT_STORE, hub: HubOption = None, as_json: JsonOption = False) -> None:
    """Check every history in the store: its hash chain, its order, and that the status agrees with it."""
    try:
        names = hubs_of(store)
        if hub is not None and hub not in names:
            fail(
                f"there is no hub {hub!r}; the store has {', '.join(names) or 'none'}",
                NOT_FOUND,
                as_json=as_json,
            )
        reports = {name: _checked(store, name) for name in names if hub in (None, name)}
    except PerdureError as error:
        fail_with(error, as_json=as_json)
    if as_json:
        print_json({"hubs": {name: _as_data(report) for name, report in reports.items()}})
    else:
        _print(reports)
    if any(report.problems for report in reports.values()):
        raise typer.Exit(REFUSED)


def _checked(store: str, hub: str) -> Report:
    console = errors()
    opened = open_store(store, hub, encryption_given())
    try:
        if not console.is_terminal:
            return verify(opened)
        with console.status("") as line:
            return verify(opened, lambda done: line.update(f"hub {plain(hub)}: {done:,} instances checked"))
    finally:
        opened.close_reader()


def _print(reports: dict[str, Report]) -> None:
    for hub, report in reports.items():
        for problem in report.problems:
            typer.echo(plain(problem))
        found = f"{len(report.problems)} problems" if report.problems else "no problem"
        locked = (
            f", {report.encrypted} of them encrypted with keys that were not given"
            if report.encrypted
            else ""
        )
        typer.echo(f"hub {hub}: {report.instances} instances, {report.rows} rows of history{locked}, {found}")


def _as_data(report: Report) -> dict[str, object]:
    return {
        "instances": report.instances,
        "rows": report.rows,
        "encrypted": report.encrypted,
        "problems": report.problems,
    }
