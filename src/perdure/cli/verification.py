"""verify: check that the stored rows are intact and consistent."""

from __future__ import annotations

import os

import typer

from perdure.cli.options import DEFAULT_STORE, HubOption, JsonOption, StoreOption
from perdure.cli.terminal import EXIT_CODES, NOT_FOUND, REFUSED, errors, fail, fail_with, print_json
from perdure.engine.upkeep.verification import Report, verify
from perdure.errors import PerdureError
from perdure.http.formatting import plain
from perdure.settings import encryption_given
from perdure.store import hubs_of, open_store, sqlite_path
from perdure.store.port import Walked
from perdure.store.sqlite.files import readable_by_others

commands = typer.Typer()


@commands.command("verify", epilog=EXIT_CODES)
def verify_(store: StoreOption = DEFAULT_STORE, hub: HubOption = None, as_json: JsonOption = False) -> None:
    """Check every history, its hash chain and its status, and that other users cannot read the SQLite file.

    Of a hub in Azure Storage, it first walks the log and compares the snapshots
    with it. The command changes nothing, and a server can run meanwhile. It ends
    with 1 if it finds a problem.
    """
    try:
        names = hubs_of(store)
        if hub is not None and hub not in names:
            fail(
                f"there is no hub {hub!r} in this store. Its hubs: {', '.join(names) or 'none'}",
                NOT_FOUND,
                as_json=as_json,
            )
        reports = {name: _checked(store, name) for name in names if hub in (None, name)}
        open_files = _open_files(store)
    except PerdureError as error:
        fail_with(error, as_json=as_json)
    if as_json:
        hubs = {name: _as_data(report) for name, report in reports.items()}
        print_json({"hubs": hubs, "readable_by_others": open_files})
    else:
        _print(reports, open_files)
    if open_files or any(report.problems for report in reports.values()):
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


def _open_files(store: str) -> dict[str, str]:
    """The files of a SQLite store that other users of this machine can read or write, with their modes."""
    path = sqlite_path(store)
    found = readable_by_others(os.path.realpath(path)) if path else {}
    return {file: f"{mode:04o}" for file, mode in found.items()}


def _print(reports: dict[str, Report], open_files: dict[str, str]) -> None:
    for file, mode in open_files.items():
        told = (
            f"{file}: other users of this machine can read or write it (mode {mode}). Run: chmod 600 {file}"
        )
        typer.echo(plain(told))
    for hub, report in reports.items():
        for problem in report.problems:
            typer.echo(plain(problem))
        found = f"{len(report.problems)} problems" if report.problems else "no problems"
        locked = (
            f", {report.encrypted} of them not checked because their encryption key is missing"
            if report.encrypted
            else ""
        )
        if report.walked is not None:
            typer.echo(f"hub {hub}: {_shown_walk(report.walked)}")
        typer.echo(f"hub {hub}: {report.instances} instances, {report.rows} rows of history{locked}, {found}")


def _shown_walk(walked: Walked) -> str:
    records = walked.end - walked.first
    seen = f"{records} records of the log walked"
    if records:
        seen += f", {walked.first} to {walked.end - 1}"
    return f"{seen}, {walked.bodies} bodies and {walked.snapshots} snapshots compared with them"


def _as_data(report: Report) -> dict[str, object]:
    return {
        "instances": report.instances,
        "rows": report.rows,
        "encrypted": report.encrypted,
        "problems": report.problems,
        **({} if report.walked is None else {"log": _walk_as_data(report.walked)}),
    }


def _walk_as_data(walked: Walked) -> dict[str, object]:
    return {
        "first": walked.first,
        "end": walked.end,
        "bodies": walked.bodies,
        "snapshots": walked.snapshots,
    }
