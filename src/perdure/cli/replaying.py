"""export and replay: save an instance's history, and check saved or running instances against the current code."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.text import Text

from perdure.cli.app_loader import load_app
from perdure.cli.filters import (
    NameOption,
    ParkedOption,
    PrefixOption,
    StatusOption,
    TagOption,
    WaitingForOption,
    read_selection,
)
from perdure.cli.maintenance import progress_bars
from perdure.cli.options import DEFAULT_STORE, HubOption, InstanceArgument, StoreOption, UrlOption, on_hub
from perdure.cli.target import HubTarget
from perdure.cli.terminal import (
    EXIT_CODES,
    REFUSED,
    UNAVAILABLE,
    errors,
    fail,
    fail_with,
    output,
    print_json,
    print_table,
)
from perdure.engine.client.bulk import Which
from perdure.engine.client.client import Client
from perdure.engine.client.paging import all_entities, all_pages
from perdure.errors import InstanceNotFound, PerdureError
from perdure.http.formatting import plain
from perdure.http.remote.client import RemoteClient
from perdure.model.encryption import Unreadable
from perdure.model.instances import FINISHED, RuntimeStatus
from perdure.store.port import Examinable
from perdure.testing.recordings import Checker, Recording, Verdict, read_recording, recording_of

RAW = "perdure-rows/1"
EXPLAINED = 5  # mismatches that are printed in full
IN_FLIGHT = tuple(status for status in RuntimeStatus if status not in FINISHED)
Report = Callable[[int, int], object]
commands = typer.Typer()


@commands.command(epilog=EXIT_CODES)
def export(
    instance_id: InstanceArgument,
    store: StoreOption = DEFAULT_STORE,
    hub: HubOption = None,
    url: UrlOption = None,
    raw: Annotated[
        bool,
        typer.Option(
            "--raw", help="Export the rows as stored, even damaged ones. Reads the store, not a server."
        ),
    ] = False,
) -> None:
    """Write an instance's history to stdout as JSON: perdure export ID > saved.json.

    The export contains inputs and results, but no code. With --raw, encrypted
    content stays encrypted.
    """
    door = HubTarget(store, hub, url)
    if raw:
        print_json({"format": RAW, "instance_id": instance_id, "rows": _rows_of(door, instance_id)})
        return
    found = door.ask(lambda client: client.get_status(instance_id, True, True, True))
    if found is None:
        fail_with(InstanceNotFound(f"there is no instance {instance_id!r} in this hub"))
    print_json(msgspec.to_builtins(recording_of(found)))


def _rows_of(door: HubTarget, instance_id: str) -> dict[str, list[dict[str, Any]]]:
    """All rows of an instance, by table. Bytes that are not UTF-8 are printed as base64."""
    if door.url:
        raise typer.BadParameter(
            "--raw reads the rows from the store and not from a server. Replace --url by --store",
            param_hint="--raw",
        )

    async def look() -> dict[str, list[dict[str, Any]]]:
        async with door.looking() as client:
            store = client.gateway.store
            return store.raw(instance_id) if isinstance(store, Examinable) else {}

    try:
        found = asyncio.run(look())
    except PerdureError as error:
        fail_with(error)
    if not found:
        fail_with(InstanceNotFound(f"there is no instance {instance_id!r} in this hub"))
    return {
        table: [{column: _told(cell) for column, cell in row.items()} for row in rows]
        for table, rows in found.items()
    }


def _told(cell: Any) -> Any:
    if not isinstance(cell, bytes):
        return str(cell) if isinstance(cell, str) else cell
    try:
        return {"text": cell.decode()}
    except UnicodeDecodeError:
        return {"base64": b64encode(cell).decode()}


@commands.command(epilog=EXIT_CODES)
@on_hub
def replay(
    target: HubTarget,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[SAVED.json]...", help="Files written by `perdure export`.", show_default=False
        ),
    ] = None,
    app: Annotated[
        str, typer.Option("--app", metavar="APP", help="app.py or package.module:app.")
    ] = "app.py",
    status: StatusOption = None,
    name: NameOption = None,
    prefix: PrefixOption = None,
    tag: TagOption = None,
    waiting_for: WaitingForOption = None,
    parked: ParkedOption = False,
) -> None:
    """Replay saved histories, or all running instances of a store, against the current code and report mismatches.

    Orchestrators replay their histories. No activity runs, nothing is written,
    and a server can run meanwhile. Values that an orchestrator has not read yet
    are checked against their types: inputs of open calls, waiting events and
    entity states. The command ends with 1 on a mismatch: a deploy of this code
    would park that instance.
    """
    which = read_selection(status, name, prefix, tag, waiting_for, parked)
    if files and which:
        raise typer.BadParameter("files and filters exclude each other. Give files, or a store with filters")
    for file in files or ():
        if file.suffix == ".py":
            raise typer.BadParameter(f"{file} is not a saved history. Name the application with --app {file}")
    try:
        checker = Checker(load_app(app))
        with progress_bars({}) as progress:
            verdicts = (
                [checker.check(_read(file)) for file in files]
                if files
                else _of_store(
                    target,
                    which,
                    checker,
                    lambda done, total: progress("instances replayed", done, total),
                )
            )
    except PerdureError as error:
        fail_with(error, as_json=target.as_json)
    _tell(verdicts, target.as_json)
    if not all(verdict.agrees for verdict in verdicts):
        raise typer.Exit(REFUSED)


def _read(file: Path) -> Recording:
    try:
        return read_recording(file.read_bytes())
    except OSError as error:
        fail(f"cannot read {file}: {error.strerror}", UNAVAILABLE)


# -------------------------------------------------------------------------------------------- of a store


def _of_store(door: HubTarget, which: Which, checker: Checker, report: Report) -> list[Verdict]:
    """Read the store itself, even while a server serves it. Only --url goes through the server."""

    async def look() -> list[Verdict]:
        verdicts: list[Verdict] = []
        async with door.looking() as client:
            wanted: Which = {**which, "status": which.get("status") or IN_FLIGHT}
            total = sum(count for one, count in (await client.counts()).items() if one in wanted["status"])
            async for recording in _recordings(client, wanted):
                verdicts.append(checker.check(recording))
                report(len(verdicts), max(total, len(verdicts)))
            if not which:
                entities = all_entities(client.query_entities, fetch_state=True)
                verdicts += [
                    checker.check_entity(str(one.entity_id), one.state)
                    async for one in entities
                    if one.exists
                ]
        return verdicts

    return asyncio.run(look())


async def _recordings(client: Client, which: Which) -> AsyncIterator[Recording]:
    async for one in all_pages(client.query, **which):
        found = await client.get_status(one.instance_id, True, True, True)
        if found is not None:  # it may have been purged
            yield msgspec.structs.replace(recording_of(found), held=await _held(client, one.instance_id))


async def _held(client: Client, instance_id: str) -> list[dict[str, Any]]:
    """The messages that wait for the instance. The HTTP API does not return them, only the store has them."""
    if isinstance(client, RemoteClient):
        return []
    store = client.gateway.store
    rows = await client.gateway.read(lambda: store.held([instance_id]))
    return [msgspec.json.decode(row.message) for row in rows if not isinstance(row.message, Unreadable)]


# --------------------------------------------------------------------------------------------- telling it


def _tell(verdicts: list[Verdict], as_json: bool) -> None:
    wrong = [verdict for verdict in verdicts if not verdict.agrees]
    if as_json:
        print_json(
            {
                "checked": len(verdicts),
                "agree": len(verdicts) - len(wrong),
                "verdicts": [_as_data(verdict) for verdict in wrong],
            }
        )
        return
    if not verdicts:
        typer.echo("No instance is running: nothing to replay.")
        return
    if len(verdicts) > 1:
        _print_counts(verdicts)
    _explain(wrong)
    agree = len(verdicts) - len(wrong)
    if len(verdicts) == 1:
        typer.echo(
            f"{verdicts[0].recording.instance_id} {'agrees' if agree else _FINDINGS[wrong[0].finding]}."
        )
    else:
        typer.echo(f"{agree:,} of {len(verdicts):,} agree with the code.")


_FINDINGS = {
    "disagrees": "disagrees with the code",
    "misfit": "holds a value that does not fit the code",
    "missing": "has no function to run it",
    "unreadable": "cannot be read",
}


_COLUMNS: Final = {
    "agrees": "AGREE",
    "disagrees": "DISAGREE",
    "misfit": "MISFIT",
    "missing": "NO FUNCTION",
    "unreadable": "UNREADABLE",
}


def _print_counts(verdicts: list[Verdict]) -> None:
    found = {verdict.finding for verdict in verdicts}
    columns = {kind: title for kind, title in _COLUMNS.items() if kind != "misfit" or kind in found}
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for verdict in verdicts:
        of = counts.setdefault((verdict.recording.name, verdict.recording.version), dict.fromkeys(columns, 0))
        of[verdict.finding] += 1
    rows: list[list[str | Text]] = [
        [
            " ".join(filter(None, (name, version))),
            *(
                Text(f"{of[kind]:,}", style="red" if of[kind] and kind != "agrees" else "")
                for kind in columns
            ),
            "",
        ]
        for (name, version), of in sorted(counts.items())
    ]
    print_table(("ORCHESTRATOR", *columns.values(), ""), rows)


def _explain(wrong: list[Verdict]) -> None:
    """Print the first few in full. After a change of the code, most of the others say the same."""
    console = output()
    for verdict in wrong[:EXPLAINED]:
        one = verdict.recording
        console.print(Text.assemble((plain(one.instance_id), "bold"), " ", (plain(one.name), "dim")))
        console.print(plain(verdict.detail), soft_wrap=True)
    if len(wrong) > EXPLAINED:
        errors().print(f"... and {len(wrong) - EXPLAINED:,} more. --json prints all of them.")


def _as_data(verdict: Verdict) -> dict[str, Any]:
    one = verdict.recording
    return {
        "instanceId": one.instance_id,
        "name": one.name,
        "version": one.version,
        "finding": verdict.finding,
        "detail": verdict.detail,
    }
