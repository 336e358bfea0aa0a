"""schedules and queues: list them, and what operators order."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer

from perdure.cli.options import (
    DEFAULT_STORE,
    HubOption,
    InputOption,
    JsonOption,
    KeyOption,
    StoreOption,
    UrlOption,
    read_input,
)
from perdure.cli.target import LATER, HubTarget
from perdure.cli.terminal import EXIT_CODES, REFUSED, errors, fail, print_json, print_table
from perdure.engine.client.client import Client
from perdure.errors import InstanceNotFound
from perdure.http.api.triggers import dead_letters, letter_document, schedule_document
from perdure.http.formatting import ago, wall_clock
from perdure.http.remote.client import RemoteClient
from perdure.model.durations import moment
from perdure.replay.inputs import given
from perdure.triggers.queue_admin import Queues
from perdure.triggers.schedule_admin import Schedules, ScheduleStatus

commands = typer.Typer()
schedules = typer.Typer(help="Schedules: list, show, pause, resume, run now, backfill.", no_args_is_help=True)
queues = typer.Typer(help="Queues: list, send, dead letters, deliver them again.", no_args_is_help=True)
commands.add_typer(schedules, name="schedules", epilog=EXIT_CODES)
commands.add_typer(queues, name="queues", epilog=EXIT_CODES)

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="As `perdure schedules list` shows it.", show_default=False)
]
AfterArgument = Annotated[
    str, typer.Argument(metavar="AFTER", help="A day or an instant, as 2026-01-31T17:30.", show_default=False)
]
UntilArgument = Annotated[
    str | None, typer.Argument(metavar="UNTIL", help="The same; default now.", show_default=False)
]

# ------------------------------------------------------------------------------------------- schedules


@schedules.command("list", epilog=EXIT_CODES)
def list_(
    store: StoreOption = DEFAULT_STORE,
    hub: HubOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """List every schedule: when it fires next, how it went last, whether it is paused."""
    found = HubTarget(store, hub, url, as_json, key).ask(lambda client: Schedules(client).list())
    if as_json:
        print_json([schedule_document(one) for one in found])
        return
    heads = ("SCHEDULE", "NEXT", "LAST", "FIRED", "WHAT")
    now = datetime.now(UTC)
    print_table(heads, [_row(one, now) for one in found])


def _row(one: ScheduleStatus, now: datetime) -> tuple[str, ...]:
    upcoming = _paused(one) or (f"{one.next[0]:%Y-%m-%d %H:%M:%S} UTC, {ago(one.next[0], now)}")
    last = one.recent[-1].outcome if one.recent else "never"
    return one.name, upcoming, last, str(one.fired), f"{one.words} ({one.timezone})"


def _paused(one: ScheduleStatus) -> str:
    return f"paused: {one.paused}" if one.paused not in ("", "paused") else one.paused


@schedules.command(epilog=EXIT_CODES)
def show(
    name: NameArgument,
    upcoming: Annotated[int, typer.Option("--next", min=1, max=1_000, help="So many next instants.")] = 5,
    store: StoreOption = DEFAULT_STORE,
    hub: HubOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one schedule: its next instants, and its last firings with their instances."""
    one = HubTarget(store, hub, url, as_json, key).ask(lambda client: _schedule(client, name, upcoming))
    if as_json:
        print_json(schedule_document(one))
        return
    now = datetime.now(UTC)
    typer.echo(f"{one.name}  {one.words} ({one.cron}, {one.timezone})")
    typer.echo(f"{one.fired} fired, {one.skipped} left out, {one.waiting} waiting for their turn")
    if one.paused:
        typer.echo(f"{_paused(one)}: nothing fires until it is resumed")
    rows = [(wall_clock(at, one.timezone), "next", "", ago(at, now)) for at in one.next]
    fired = [
        (wall_clock(moment(each.tick), one.timezone), each.outcome, each.cause, each.instance_id)
        for each in one.recent
    ]
    print_table(("WHEN", "", "WHY", "INSTANCE"), [*rows, *reversed(fired)])


async def _schedule(client: Client, name: str, upcoming: int = 1) -> ScheduleStatus:
    found = await Schedules(client).get(name, upcoming=upcoming)
    if found is not None:
        return found
    names = ", ".join(one.name for one in await Schedules(client).list()) or "none"
    raise InstanceNotFound(f"this hub has no schedule {name!r}; it has {names}")


@schedules.command(epilog=EXIT_CODES)
def pause(
    name: NameArgument,
    reason: Annotated[str, typer.Option("--reason", help="Shown wherever the schedule is.")] = "",
    store: StoreOption = DEFAULT_STORE,
    hub: HubOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let ticks pass until it is resumed. They are not made up for."""
    door = HubTarget(store, hub, url, as_json, key)

    async def order(client: Client) -> None:
        await Schedules(client).pause((await _schedule(client, name)).name, reason)

    door.tell(order)
    _say(door, name, "is paused")


@schedules.command(epilog=EXIT_CODES)
def resume(
    name: NameArgument,
    store: StoreOption = DEFAULT_STORE,
    hub: HubOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fire again, from the next tick on."""
    door = HubTarget(store, hub, url, as_json, key)

    async def order(client: Client) -> None:
        await Schedules(client).resume((await _schedule(client, name)).name)

    door.tell(order)
    _say(door, name, "fires again")


@schedules.command(epilog=EXIT_CODES)
def run(
    name: NameArgument,
    store: StoreOption = DEFAULT_STORE,
    hub: HubOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fire now, beside the ticks; also while it is paused."""
    door = HubTarget(store, hub, url, as_json, key)

    async def order(client: Client) -> None:
        await Schedules(client).run((await _schedule(client, name)).name)

    door.tell(order)
    _say(door, name, "fires now")


@schedules.command(epilog=EXIT_CODES)
def backfill(
    name: NameArgument,
    after: AfterArgument,
    until: UntilArgument = None,
    store: StoreOption = DEFAULT_STORE,
    hub: HubOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fire for the past ticks later than AFTER and up to UNTIL, in order.

    Times are those of the schedule's time zone, unless they name another, as 2026-01-31T17:30+00:00 does.
    """
    begin, end = (
        _instant(after, "AFTER"),
        _instant(until, "UNTIL") if until is not None else datetime.now(UTC),
    )
    door = HubTarget(store, hub, url, as_json, key)

    async def order(client: Client) -> int:
        zone = ZoneInfo((await _schedule(client, name)).timezone)
        return await Schedules(client).backfill(name, _placed(begin, zone), _placed(end, zone))

    ticks = door.tell(order)
    if not ticks:
        fail(f"nothing fires: {name} has no past tick in that time", REFUSED, as_json=as_json, kind="payload")
    _say(door, name, f"fires for {ticks} past tick{'s' if ticks > 1 else ''}", ticks=ticks)


def _instant(given: str, what: str) -> datetime:
    try:
        return datetime.fromisoformat(given)
    except ValueError:
        raise typer.BadParameter(
            f"{given!r} is no instant: write 2026-01-31, 2026-01-31T17:30 or 2026-01-31T17:30+01:00",
            param_hint=what,
        ) from None


def _placed(at: datetime, zone: ZoneInfo) -> datetime:
    return at if at.tzinfo is not None else at.replace(tzinfo=zone)


# ---------------------------------------------------------------------------------------------- queues


@queues.command("list", epilog=EXIT_CODES)
def list_queues(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="QUEUE", help="Only these; default all.", show_default=False),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    hub: HubOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count the messages of queues: open, handled and kept, dead. At most 1,000 of each are counted."""

    async def count(client: Client) -> list[dict[str, Any]]:
        if isinstance(client, RemoteClient) and not names:
            return await _served(client)
        return [vars(await Queues(client).status(name)) for name in names or await Queues(client).names()]

    found = HubTarget(store, hub, url, as_json, key).ask(count)
    if as_json:
        print_json(found)
        return
    print_table(
        ("QUEUE", "OPEN", "HANDLED", "DEAD", ""),
        [(one["name"], str(one["open"]), str(one["handled"]), str(one["dead"]), _note(one)) for one in found],
    )


async def _served(client: RemoteClient) -> list[dict[str, Any]]:
    """The queues that the server knows, also those without a message."""
    return await client.queues()


def _note(one: dict[str, Any]) -> str:
    return "" if one.get("served", True) else "no function here takes its messages"


@queues.command(epilog=EXIT_CODES)
def send(
    queue: Annotated[str, typer.Argument(metavar="QUEUE", show_default=False)],
    input_: InputOption = None,
    message_id: Annotated[
        str | None,
        typer.Option(
            "--id", help="Names the message: sent again, it is not delivered again.", show_default=False
        ),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    hub: HubOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a message into a queue of the hub's own store, and print its instance's id."""
    body = read_input(input_)
    door = HubTarget(store, hub, url, as_json, key)

    async def put(client: Client) -> tuple[str, bool]:
        sent = await Queues(client).send(queue, given(body), message_id=message_id)
        known = await _served(client) if isinstance(client, RemoteClient) else []
        return sent, any(one["name"] == queue and not one["served"] for one in known)

    sent, is_lost = door.tell(put)
    _say(door, sent, "was accepted", id=sent)
    if is_lost:
        note = f"note: no function here takes the messages of {queue!r}; it waits until there is one"
        errors().print(note, soft_wrap=True)


@queues.command("dead", epilog=EXIT_CODES)
def dead(
    queue: Annotated[
        str | None, typer.Argument(metavar="QUEUE", help="Only of this queue.", show_default=False)
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="At most so many.")] = 100,
    store: StoreOption = DEFAULT_STORE,
    hub: HubOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """List dead letters: messages whose last attempt has failed, newest first."""
    found = HubTarget(store, hub, url, as_json, key).ask(lambda client: dead_letters(client, queue, top))
    if as_json:
        print_json([letter_document(one) for one in found])
        return
    now = datetime.now(UTC)
    print_table(
        ("MESSAGE", "QUEUE", "SINCE", "REASON"),
        [(one.instance_id, one.queue, ago(one.since, now), one.reason) for one in found],
    )


@queues.command(epilog=EXIT_CODES)
def redeliver(
    messages: Annotated[
        list[str] | None,
        typer.Argument(metavar="MESSAGE", help="As `perdure queues dead` shows them.", show_default=False),
    ] = None,
    every: Annotated[
        str | None,
        typer.Option("--all", metavar="QUEUE", help="Every dead letter of this queue.", show_default=False),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    hub: HubOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hand dead letters to the function again, each with all its attempts."""
    if bool(messages) == bool(every):
        raise typer.BadParameter("name messages, or a queue with --all", param_hint="MESSAGE")
    door = HubTarget(store, hub, url, as_json, key)

    async def order(client: Client) -> int:
        if every:
            return await Queues(client).redeliver_all(every)
        for message in messages or []:
            await Queues(client).redeliver(message)
        return len(messages or [])

    done = door.tell(order)
    counted = f"{done} dead letter{'' if done == 1 else 's'}"
    what = f"{counted} of {every}" if every else ", ".join(messages or [])
    _say(door, what, "is delivered again" if done == 1 else "are delivered again", messages=done)


def _say(door: HubTarget, name: str, what: str, **more: object) -> None:
    """Tell what was ordered; nobody obeys while no server has the file."""
    if door.as_json:
        print_json({"name": name, "served": door.is_served, **more})
    elif door.is_served or more.get("id"):
        typer.echo(f"{name} {what}.")
    else:
        typer.echo(f"{name}: accepted. {LATER}")
