"""schedules and queues: list them, and what operators order."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from perdure.cli.door import Door
from perdure.cli.options import (
    DEFAULT_STORE,
    HubOption,
    InputOption,
    JsonOption,
    StoreOption,
    UrlOption,
    read_input,
)
from perdure.cli.terminal import EXIT_CODES, print_json, print_table
from perdure.engine.client import Client
from perdure.http.prose import ago, exact
from perdure.http.triggers import dead_letters, letter_document, schedule_document
from perdure.triggers.queues import Queues
from perdure.triggers.schedules import Schedules, ScheduleStatus

commands = typer.Typer()
schedules = typer.Typer(help="Schedules: list, pause, resume, run now, backfill.", no_args_is_help=True)
queues = typer.Typer(help="Queues: dead letters, deliver them again, send.", no_args_is_help=True)
commands.add_typer(schedules, name="schedules", epilog=EXIT_CODES)
commands.add_typer(queues, name="queues", epilog=EXIT_CODES)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", show_default=False)]
Moment = Annotated[
    datetime,
    typer.Argument(formats=["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d"], show_default=False),
]


@schedules.command("list", epilog=EXIT_CODES)
def list_(
    store: StoreOption = DEFAULT_STORE,
    hub: HubOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List every schedule: when it fires next, how it went last, whether it is paused."""
    found = Door(store, hub, url, as_json).ask(lambda client: Schedules(client).list())
    if as_json:
        print_json([schedule_document(one) for one in found])
        return
    heads = ("SCHEDULE", "NEXT", "LAST", "FIRED", "WHAT")
    print_table(heads, [_row(one, datetime.now(UTC)) for one in found])


def _row(one: ScheduleStatus, now: datetime) -> tuple[str, ...]:
    upcoming = f"paused: {one.paused}" if one.paused else exact(one.next[0]) if one.next else ""
    last = one.recent[-1].outcome if one.recent else "never"
    return one.name, upcoming, last, str(one.fired), f"{one.words} ({one.timezone})"


@schedules.command(epilog=EXIT_CODES)
def pause(
    name: NameArgument,
    reason: Annotated[str, typer.Option("--reason", help="Shown wherever the schedule is.")] = "",
    store: StoreOption = DEFAULT_STORE,
    hub: HubOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let ticks pass until it is resumed. They are not made up for."""
    Door(store, hub, url, as_json).tell(lambda client: Schedules(client).pause(name, reason))
    _say(as_json, name, "is paused")


@schedules.command(epilog=EXIT_CODES)
def resume(
    name: NameArgument,
    store: StoreOption = DEFAULT_STORE,
    hub: HubOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fire again, from the next tick on."""
    Door(store, hub, url, as_json).tell(lambda client: Schedules(client).resume(name))
    _say(as_json, name, "fires again")


@schedules.command(epilog=EXIT_CODES)
def run(
    name: NameArgument,
    store: StoreOption = DEFAULT_STORE,
    hub: HubOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fire now, beside the ticks; also while it is paused."""
    Door(store, hub, url, as_json).tell(lambda client: Schedules(client).run(name))
    _say(as_json, name, "fires now")


@schedules.command(epilog=EXIT_CODES)
def backfill(
    name: NameArgument,
    after: Moment,
    until: Moment,
    store: StoreOption = DEFAULT_STORE,
    hub: HubOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fire for the past ticks later than AFTER and up to UNTIL (both UTC), in order."""
    ticks = Door(store, hub, url, as_json).tell(
        lambda client: Schedules(client).backfill(name, after.replace(tzinfo=UTC), until.replace(tzinfo=UTC))
    )
    _say(as_json, name, f"fires for {ticks} past ticks", ticks=ticks)


@queues.command("dead", epilog=EXIT_CODES)
def dead(
    queue: Annotated[str | None, typer.Argument(help="Only of this queue.", show_default=False)] = None,
    top: Annotated[int, typer.Option("--top", help="At most so many.")] = 100,
    store: StoreOption = DEFAULT_STORE,
    hub: HubOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List dead letters: messages whose last attempt has failed."""
    found = Door(store, hub, url, as_json).ask(lambda client: dead_letters(client, queue, top))
    if as_json:
        print_json([letter_document(one) for one in found])
        return
    now = datetime.now(UTC)
    print_table(
        ("MESSAGE", "QUEUE", "SINCE", "REASON"),
        [(one.instance_id, one.queue, ago(one.since, now), one.reason) for one in found],
    )


@queues.command("list", epilog=EXIT_CODES)
def list_queues(
    names: Annotated[list[str], typer.Argument(metavar="QUEUE...", show_default=False)],
    store: StoreOption = DEFAULT_STORE,
    hub: HubOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count the messages of queues: open, handled and kept, dead. At most 1,000 of each are counted."""

    async def count(client: Client) -> list[Any]:
        return [await Queues(client).status(name) for name in names]

    found = Door(store, hub, url, as_json).ask(count)
    if as_json:
        print_json([vars(one) for one in found])
        return
    print_table(
        ("QUEUE", "OPEN", "HANDLED", "DEAD"),
        [(one.name, str(one.open), str(one.handled), str(one.dead)) for one in found],
    )


@queues.command(epilog=EXIT_CODES)
def redeliver(
    instance_id: Annotated[str, typer.Argument(metavar="MESSAGE", show_default=False)],
    store: StoreOption = DEFAULT_STORE,
    hub: HubOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hand a dead letter to the function again, with all its attempts."""
    Door(store, hub, url, as_json).tell(lambda client: Queues(client).redeliver(instance_id))
    _say(as_json, instance_id, "is delivered again")


@queues.command(epilog=EXIT_CODES)
def send(
    queue: Annotated[str, typer.Argument(metavar="QUEUE", show_default=False)],
    input_: InputOption = None,
    message_id: Annotated[
        str | None, typer.Option("--id", help="Names the message: sent again, it is not delivered again.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    hub: HubOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a message into a queue of the hub's own store."""
    body = read_input(input_)
    sent = Door(store, hub, url, as_json).tell(
        lambda client: Queues(client).send(queue, body, message_id=message_id)
    )
    _say(as_json, sent, "was accepted", id=sent)


def _say(as_json: bool, name: str, what: str, **more: object) -> None:
    if as_json:
        print_json({"name": name, **more})
    else:
        typer.echo(f"{name} {what}.")
