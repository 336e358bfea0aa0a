"""start, status, list, count, watch, history: start instances and query them."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.text import Text

from perdure.cli.filters import ALL, BuiltInOption, selecting
from perdure.cli.options import InputOption, InstanceArgument, on_hub, read_input, read_tags
from perdure.cli.target import HubTarget, remark
from perdure.cli.terminal import EXIT_CODES, REFUSED, fail_with, output, print_json, print_table, status_text
from perdure.engine.client.bulk import Which
from perdure.engine.client.client import Client
from perdure.engine.client.searching import Order
from perdure.errors import InstanceNotFound
from perdure.http.api.status_json import document_of
from perdure.http.formatting import ago, compact, exact, lasting, plain, pretty, went_wrong
from perdure.http.pages.history_lines import events_of, lines_of
from perdure.model.durations import stamp
from perdure.model.http_calls import BUILT_IN
from perdure.model.instances import OrchestrationStatus, RuntimeStatus
from perdure.model.waiting import OpenActivity, activity_facts
from perdure.replay.inputs import given

commands = typer.Typer()

WaitOption = Annotated[bool, typer.Option("--wait", "-w", help="Wait until the instance has finished.")]
TimeoutOption = Annotated[
    float | None,
    typer.Option(
        "--timeout", help="The longest time to wait, in seconds. Default: no limit.", show_default=False
    ),
]


@commands.command(epilog=EXIT_CODES)
@on_hub
def start(
    target: HubTarget,
    name: Annotated[
        str,
        typer.Argument(
            metavar="ORCHESTRATOR", help="The registered name of the orchestrator.", show_default=False
        ),
    ],
    input_: InputOption = None,
    instance_id: Annotated[
        str | None,
        typer.Option("--id", help="The instance id. Default: a new random id.", show_default=False),
    ] = None,
    version: Annotated[
        str | None, typer.Option("--version", help="The version of the instance.", show_default=False)
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(
            "--tag", metavar="NAME=VALUE", help="A tag for the instance. Can be repeated.", show_default=False
        ),
    ] = None,
    wait: WaitOption = False,
    timeout: TimeoutOption = None,
) -> None:
    """Start an orchestration and print its instance id."""
    body, tags = read_input(input_), read_tags(tag or [])

    async def begin(client: Client) -> tuple[str, OrchestrationStatus | None]:
        started = await client.start_new(name, instance_id, given(body), version=version, tags=tags)
        await remark(client, name)
        return started, await client.wait_for_completion(started, timeout) if wait else None

    started, status = target.tell(begin)
    if status is not None:
        _show(status, target.as_json)
    elif target.as_json:
        print_json({"instanceId": started})
    else:
        typer.echo(started)


@commands.command(epilog=EXIT_CODES)
@on_hub
def status(
    target: HubTarget,
    instance_id: InstanceArgument,
    wait: WaitOption = False,
    timeout: TimeoutOption = None,
) -> None:
    """Show the status of an instance and what it waits for.

    With --wait, the command ends with 1 if the instance failed or was
    terminated.
    """

    async def look(client: Client) -> OrchestrationStatus | None:
        if wait:
            await client.wait_for_completion(instance_id, timeout)
        return await client.get_status(instance_id, show_input=True)

    found = target.ask(look)
    _show(_existing(found, instance_id, target.as_json), target.as_json, judge=wait)


@commands.command("list", epilog=EXIT_CODES)
@on_hub
@selecting
def list_(
    target: HubTarget,
    which: Which = ALL,
    built_in: BuiltInOption = False,
    order: Annotated[
        Order,
        typer.Option(
            "--order",
            help="newest or oldest, ended (the last first), or duration (the longest of 1,000).",
        ),
    ] = "newest",
    top: Annotated[int, typer.Option("--top", min=1, max=1_000, help="The most instances to list.")] = 20,
    continuation: Annotated[
        str | None,
        typer.Option(
            "--continuation",
            help="Continue after the last page, with the value it printed.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """List instances, newest first.

    A filter without an index, such as a tag, searches for about a second,
    and says how far back.
    """
    which["built_in"] = built_in or _shows_built_in(which)
    page = target.ask(
        lambda client: client.query(
            **which,
            order=order,
            top=top,
            continuation=continuation,
            show_input=target.as_json,
        )
    )
    if target.as_json:
        instances = [document_of(one) for one in page.instances]
        since = stamp(page.searched_from) if page.searched_from else None
        print_json({"instances": instances, "continuation": page.continuation, "searchedFrom": since})
        return
    now = datetime.now(UTC)
    heads = ("INSTANCE", "STATUS", "STARTED", "ORCHESTRATOR", "WAITS FOR")
    print_table(heads, ([*_row(one, now), one.waiting_for or went_wrong(one)] for one in page.instances))
    if page.searched_from is not None:
        typer.echo(
            f"Searched back to {exact(page.searched_from)}. Go on: --continuation {page.continuation}",
            err=True,
        )
    elif page.continuation:
        typer.echo(f"More instances match: --continuation {page.continuation}", err=True)


@commands.command("count", epilog=EXIT_CODES)
@on_hub
@selecting
def count_(
    target: HubTarget,
    which: Which = ALL,
    built_in: BuiltInOption = False,
) -> None:
    """Print how many instances match.

    A filter without an index, such as a tag, counts for about a second, and
    says how far back.
    """
    which["built_in"] = built_in or _shows_built_in(which)
    found = target.ask(lambda client: client.count(**which))
    if target.as_json:
        since = stamp(found.searched_from) if found.searched_from else None
        print_json({"count": found.count, "searchedFrom": since})
        return
    typer.echo(found.count)
    if found.searched_from is not None:
        typer.echo(f"These are since {exact(found.searched_from)}. Older ones were not counted.", err=True)


def _shows_built_in(which: Which) -> bool:
    """Whether perdure's own orchestrations are listed unasked: one by its name, or parked ones, which need a hand."""
    return bool(which.get("parked")) or (which.get("name") or "").startswith(BUILT_IN)


@commands.command(epilog=EXIT_CODES)
@on_hub
def watch(target: HubTarget, instance_id: InstanceArgument) -> None:
    """Print an instance each time it changes, until it has finished. Ctrl-C stops watching, not the instance."""

    async def look(client: Client) -> OrchestrationStatus | None:
        last = None
        async for last in client.watch(instance_id):
            if target.as_json:
                print_json(document_of(last), indent=None)
            else:
                _print_change(last)
        return last

    try:
        last = target.ask(look)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if last is not None and last.is_finished and last.runtime_status is not RuntimeStatus.Completed:
        raise typer.Exit(REFUSED)


def _print_change(one: OrchestrationStatus) -> None:
    """Print one line: the time, the status, and what the instance waits for or returned."""
    told = one.waiting_for or (str(one.failure) if one.failure else "")
    if not told and one.output is not None:
        told = compact(one.output, 200)
    if one.custom_status is not None:
        told = f"{told}  {compact(one.custom_status, 120)}".strip()
    output().print(
        Text.assemble((f"{one.last_updated_time:%H:%M:%S}  ", "dim"), status_text(one.runtime_status), " "),
        plain(told),
        soft_wrap=True,
    )


@commands.command(epilog=EXIT_CODES)
@on_hub
def history(
    target: HubTarget,
    instance_id: InstanceArgument,
    execution: Annotated[
        int | None,
        typer.Option(
            "--execution",
            help="The number of an earlier execution, if it is kept. The first is 1.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show the history of an instance's current execution, or of an earlier one."""
    found = target.ask(lambda client: client.get_status(instance_id, True, True, True, execution=execution))
    existing = _existing(found, instance_id, target.as_json)
    if target.as_json:
        print_json({"instanceId": instance_id, "events": existing.history})
        return
    rows = [
        (
            str(line.number),
            f"+{lasting(max((line.at - existing.created_time).total_seconds(), 0))}",
            Text(line.kind, style="red" if line.tone == "bad" else "dim" if line.tone == "decision" else ""),
            line.about,
            compact(line.body, 200) if line.body is not None else "",
        )
        for line in lines_of(events_of(existing))
    ]
    print_table(("#", "AFTER", "EVENT", "ABOUT", "DATA"), rows)


def _existing(found: OrchestrationStatus | None, instance_id: str, as_json: bool) -> OrchestrationStatus:
    if found is None:
        fail_with(InstanceNotFound(f"there is no instance {instance_id!r} in this hub"), as_json=as_json)
    return found


def _row(one: OrchestrationStatus, now: datetime) -> list[str | Text]:
    return [one.instance_id, _status_of(one), ago(one.created_time, now), one.name]


def _status_of(one: OrchestrationStatus) -> Text:
    status = status_text(one.runtime_status)
    return Text.assemble(status, (" parked", "yellow")) if one.is_parked else status


def _show(one: OrchestrationStatus, as_json: bool, *, judge: bool = True) -> None:
    """Print a status. With `judge`, end the command with 1 if the instance finished without completing."""
    if as_json:
        print_json(document_of(one))
    else:
        _print_status(one)
    if judge and one.is_finished and one.runtime_status is not RuntimeStatus.Completed:
        raise typer.Exit(REFUSED)


def _print_status(one: OrchestrationStatus) -> None:
    console = output()
    console.print(Text.assemble((plain(one.instance_id), "bold"), "  ", _status_of(one)))
    if one.waiting_for:
        console.print(plain(f"{one.waiting_for[:1].upper()}{one.waiting_for[1:]}."))
    for activity in one.waiting.activities if one.waiting else ():
        label = "running" if _is_known_to_run(activity) else "open"
        console.print(
            Text.assemble((f"{label:<14}", "dim"), plain(f"{activity.name}: {_facts_of(activity, one)}"))
        )
    if one.reason and one.reason != "operator":
        console.print(plain(one.reason))
    for name, value in _facts(one):
        console.print(
            Text.assemble((f"{name:<14}", "dim"), plain(value).replace("\n", f"\n{'':14}")), soft_wrap=True
        )


def _replays(one: OrchestrationStatus) -> str | None:
    if not one.replays:
        return None
    return f"{one.replays} (the last: {one.replay_reason})" if one.replay_reason else str(one.replays)


def _is_known_to_run(activity: OpenActivity) -> bool:
    """Whether the server or store knows a worker that runs the activity."""
    return bool(activity.where) and activity.where != "queue" and not activity.where.startswith("pool ")


def _facts_of(activity: OpenActivity, one: OrchestrationStatus) -> str:
    return activity_facts(activity, one.waiting.at if one.waiting else 0)


def _facts(one: OrchestrationStatus) -> list[tuple[str, str]]:
    now = datetime.now(UTC)
    facts: list[tuple[str, Any]] = [
        ("orchestrator", " ".join(filter(None, (one.name, one.version)))),
        ("started", f"{exact(one.created_time)} ({ago(one.created_time, now)})"),
        ("changed", f"{exact(one.last_updated_time)} ({ago(one.last_updated_time, now)})"),
        ("replays", _replays(one)),
        ("parent", one.parent_instance_id),
        ("tags", ", ".join(f"{name}={value}" for name, value in one.tags.items())),
        ("input", _value(one.input)),
        ("custom status", _value(one.custom_status)),
        ("failure", str(one.failure) if one.failure else None),
        ("output", None if one.failure else _value(one.output)),
    ]
    return [(name, value) for name, value in facts if value]


def _value(value: Any) -> str | None:
    return None if value is None else pretty(value).text
