"""schedules and queues: list them, and the operators' commands for them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer

from perdure.cli.options import InputOption, on_hub, read_input
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
schedules = typer.Typer(help="List, pause, resume, run and backfill schedules.", no_args_is_help=True)
queues = typer.Typer(help="List queues, send messages, and redeliver dead letters.", no_args_is_help=True)
commands.add_typer(schedules, name="schedules", epilog=EXIT_CODES)
commands.add_typer(queues, name="queues", epilog=EXIT_CODES)

NameArgument = Annotated[
    str,
    typer.Argument(metavar="NAME", help="The schedule, as in `perdure schedules list`.", show_default=False),
]
AfterArgument = Annotated[
    str,
    typer.Argument(metavar="AFTER", help="A date or a time, such as 2026-01-31T17:30.", show_default=False),
]
UntilArgument = Annotated[
    str | None,
    typer.Argument(metavar="UNTIL", help="A date or a time. Default: now.", show_default=False),
]

# ------------------------------------------------------------------------------------------- schedules


@schedules.command("list", epilog=EXIT_CODES)
@on_hub
def list_(target: HubTarget) -> None:
    """List every schedule with its next tick, its last outcome and whether it is paused."""
    found = target.ask(lambda client: Schedules(client).list())
    if target.as_json:
        print_json([schedule_document(one) for one in found])
        return
    heads = ("SCHEDULE", "NEXT", "LAST", "FIRED", "RULE")
    now = datetime.now(UTC)
    print_table(heads, [_row(one, now) for one in found])


def _row(one: ScheduleStatus, now: datetime) -> tuple[str, ...]:
    upcoming = _paused(one) or (f"{one.next[0]:%Y-%m-%d %H:%M:%S} UTC, {ago(one.next[0], now)}")
    last = one.recent[-1].outcome if one.recent else "never"
    return one.name, upcoming, last, str(one.fired), f"{one.words} ({one.timezone})"


def _paused(one: ScheduleStatus) -> str:
    return f"paused: {one.paused}" if one.paused not in ("", "paused") else one.paused


@schedules.command(epilog=EXIT_CODES)
@on_hub
def show(
    target: HubTarget,
    name: NameArgument,
    upcoming: Annotated[
        int, typer.Option("--next", min=1, max=1_000, help="The number of next ticks to show.")
    ] = 5,
) -> None:
    """Show one schedule with its next ticks and its last runs with their instances."""
    one = target.ask(lambda client: _schedule(client, name, upcoming))
    if target.as_json:
        print_json(schedule_document(one))
        return
    now = datetime.now(UTC)
    typer.echo(f"{one.name}  {one.words} ({one.cron}, {one.timezone})")
    typer.echo(f"{one.fired} fired, {one.skipped} skipped, {one.waiting} waiting")
    if one.paused:
        typer.echo(f"{_paused(one)}. The schedule does not fire until it is resumed")
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
    raise InstanceNotFound(f"there is no schedule {name!r} in this hub. Its schedules: {names}")


@schedules.command(epilog=EXIT_CODES)
@on_hub
def pause(
    target: HubTarget,
    name: NameArgument,
    reason: Annotated[str, typer.Option("--reason", help="A reason. It is shown with the schedule.")] = "",
) -> None:
    """Pause a schedule until it is resumed. Ticks that pass meanwhile are skipped."""

    async def order(client: Client) -> None:
        await Schedules(client).pause((await _schedule(client, name)).name, reason)

    target.tell(order)
    _say(target, name, "is paused")


@schedules.command(epilog=EXIT_CODES)
@on_hub
def resume(target: HubTarget, name: NameArgument) -> None:
    """Resume a paused schedule. It fires again at its next tick."""

    async def order(client: Client) -> None:
        await Schedules(client).resume((await _schedule(client, name)).name)

    target.tell(order)
    _say(target, name, "fires again")


@schedules.command(epilog=EXIT_CODES)
@on_hub
def run(target: HubTarget, name: NameArgument) -> None:
    """Fire a schedule now, in addition to its ticks. This works on a paused schedule too."""

    async def order(client: Client) -> None:
        await Schedules(client).run((await _schedule(client, name)).name)

    target.tell(order)
    _say(target, name, "fires now")


@schedules.command(epilog=EXIT_CODES)
@on_hub
def backfill(
    target: HubTarget,
    name: NameArgument,
    after: AfterArgument,
    until: UntilArgument = None,
) -> None:
    """Fire a schedule for each past tick later than AFTER and not later than UNTIL, in order.

    A time without an offset is in the schedule's time zone.
    2026-01-31T17:30+00:00 has an offset.
    """
    begin, end = (
        _instant(after, "AFTER"),
        _instant(until, "UNTIL") if until is not None else datetime.now(UTC),
    )

    async def order(client: Client) -> int:
        zone = ZoneInfo((await _schedule(client, name)).timezone)
        return await Schedules(client).backfill(name, _placed(begin, zone), _placed(end, zone))

    ticks = target.tell(order)
    if not ticks:
        fail(f"{name} has no past tick in that period", REFUSED, as_json=target.as_json, kind="payload")
    _say(target, name, f"fires for {ticks} past tick{'s' if ticks > 1 else ''}", ticks=ticks)


def _instant(given: str, what: str) -> datetime:
    try:
        return datetime.fromisoformat(given)
    except ValueError:
        raise typer.BadParameter(
            f"{given!r} is not a date or a time. Write 2026-01-31, 2026-01-31T17:30 or 2026-01-31T17:30+01:00",
            param_hint=what,
        ) from None


def _placed(at: datetime, zone: ZoneInfo) -> datetime:
    return at if at.tzinfo is not None else at.replace(tzinfo=zone)


# ---------------------------------------------------------------------------------------------- queues


@queues.command("list", epilog=EXIT_CODES)
@on_hub
def list_queues(
    target: HubTarget,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="QUEUE", help="Only these queues. Default: all.", show_default=False),
    ] = None,
) -> None:
    """List queues with the number of open, handled and dead messages. Counting stops at 1,000 of each."""

    async def count(client: Client) -> list[dict[str, Any]]:
        if isinstance(client, RemoteClient) and not names:
            return await _served(client)
        return [vars(await Queues(client).status(name)) for name in names or await Queues(client).names()]

    found = target.ask(count)
    if target.as_json:
        print_json(found)
        return
    print_table(
        ("QUEUE", "OPEN", "HANDLED", "DEAD", ""),
        [(one["name"], str(one["open"]), str(one["handled"]), str(one["dead"]), _note(one)) for one in found],
    )


async def _served(client: RemoteClient) -> list[dict[str, Any]]:
    """The queues that the server knows, including empty ones."""
    return await client.queues()


def _note(one: dict[str, Any]) -> str:
    return "" if one.get("served", True) else "no function handles its messages"


@queues.command(epilog=EXIT_CODES)
@on_hub
def send(
    target: HubTarget,
    queue: Annotated[str, typer.Argument(metavar="QUEUE", help="The name of the queue.", show_default=False)],
    input_: InputOption = None,
    message_id: Annotated[
        str | None,
        typer.Option(
            "--id",
            help="An id for the message. A second message with the same id is not delivered.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Put a message into a queue of the hub and print the id of its instance."""
    body = read_input(input_)

    async def put(client: Client) -> tuple[str, bool]:
        sent = await Queues(client).send(queue, given(body), message_id=message_id)
        known = await _served(client) if isinstance(client, RemoteClient) else []
        return sent, any(one["name"] == queue and not one["served"] for one in known)

    sent, is_lost = target.tell(put)
    _say(target, sent, "was accepted", id=sent)
    if is_lost:
        note = f"note: no function handles the messages of {queue!r}. The message waits until one does"
        errors().print(note, soft_wrap=True)


@queues.command("dead", epilog=EXIT_CODES)
@on_hub
def dead(
    target: HubTarget,
    queue: Annotated[
        str | None,
        typer.Argument(metavar="QUEUE", help="Only dead letters of this queue.", show_default=False),
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="The most dead letters to list.")] = 100,
) -> None:
    """List dead letters, newest first. A dead letter is a message whose last attempt failed."""
    found = target.ask(lambda client: dead_letters(client, queue, top))
    if target.as_json:
        print_json([letter_document(one) for one in found])
        return
    now = datetime.now(UTC)
    print_table(
        ("MESSAGE", "QUEUE", "SINCE", "REASON"),
        [(one.instance_id, one.queue, ago(one.since, now), one.reason) for one in found],
    )


@queues.command(epilog=EXIT_CODES)
@on_hub
def redeliver(
    target: HubTarget,
    messages: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MESSAGE", help="The messages, as in `perdure queues dead`.", show_default=False
        ),
    ] = None,
    every: Annotated[
        str | None,
        typer.Option("--all", metavar="QUEUE", help="Every dead letter of this queue.", show_default=False),
    ] = None,
) -> None:
    """Redeliver dead letters to their function. Each has its full number of attempts again."""
    if bool(messages) == bool(every):
        raise typer.BadParameter("pass messages, or a queue with --all, but not both", param_hint="MESSAGE")

    async def order(client: Client) -> int:
        if every:
            return await Queues(client).redeliver_all(every)
        for message in messages or []:
            await Queues(client).redeliver(message)
        return len(messages or [])

    done = target.tell(order)
    counted = f"{done} dead letter{'' if done == 1 else 's'}"
    what = f"{counted} of {every}" if every else ", ".join(messages or [])
    _say(target, what, "is redelivered" if done == 1 else "are redelivered", messages=done)


def _say(door: HubTarget, name: str, what: str, **more: object) -> None:
    """Print the result. Without a running server, say that it takes effect later."""
    if door.as_json:
        print_json({"name": name, "served": door.is_served, **more})
    elif door.is_served or more.get("id"):
        typer.echo(f"{name} {what}.")
    else:
        typer.echo(f"{name}: accepted. {LATER}")
