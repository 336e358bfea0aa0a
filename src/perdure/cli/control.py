"""raise, terminate, suspend, resume, restart, purge: tell instances what to do."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from perdure.cli.door import Door
from perdure.cli.options import (
    DEFAULT_STORE,
    HubOption,
    InputOption,
    InstanceArgument,
    JsonOption,
    ReasonOption,
    StoreOption,
    UrlOption,
    read_input,
)
from perdure.cli.terminal import EXIT_CODES, fail_with, print_json
from perdure.engine.client import Client
from perdure.errors import InstanceNotFound
from perdure.model.instances import RuntimeStatus

commands = typer.Typer()


@commands.command("raise", epilog=EXIT_CODES)
def raise_(
    instance_id: InstanceArgument,
    event: Annotated[str, typer.Argument(metavar="EVENT", help="The event's name.", show_default=False)],
    input_: InputOption = None,
    event_id: Annotated[
        str | None,
        typer.Option("--event-id", help="The same id again is the same event.", show_default=False),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    hub: HubOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Raise an external event. It is kept until the instance waits for it."""
    body = read_input(input_)
    Door(store, hub, url, as_json).tell(
        lambda client: client.raise_event(instance_id, event, body, event_id=event_id)
    )
    _done(f"Event {event} was accepted for {instance_id}.", instance_id, as_json)


@commands.command(epilog=EXIT_CODES)
def terminate(
    instance_id: InstanceArgument,
    reason: ReasonOption = "",
    recursive: Annotated[bool, typer.Option("--recursive", help="Its sub-orchestrations too.")] = False,
    store: StoreOption = DEFAULT_STORE,
    hub: HubOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """End an instance now and for good."""
    Door(store, hub, url, as_json).tell(
        lambda client: client.terminate(instance_id, reason, recursive=recursive)
    )
    _done(f"{instance_id} was terminated.", instance_id, as_json)


@commands.command(epilog=EXIT_CODES)
def suspend(
    instance_id: InstanceArgument,
    reason: ReasonOption = "",
    store: StoreOption = DEFAULT_STORE,
    hub: HubOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hold an instance until it is resumed; what arrives meanwhile is kept."""
    Door(store, hub, url, as_json).tell(lambda client: client.suspend(instance_id, reason))
    _done(f"{instance_id} is suspended.", instance_id, as_json)


@commands.command(epilog=EXIT_CODES)
def resume(
    instance_id: InstanceArgument,
    reason: ReasonOption = "",
    store: StoreOption = DEFAULT_STORE,
    hub: HubOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a suspended or parked instance go on."""
    Door(store, hub, url, as_json).tell(lambda client: client.resume(instance_id, reason))
    _done(f"{instance_id} was resumed.", instance_id, as_json)


@commands.command(epilog=EXIT_CODES)
def restart(
    instance_id: InstanceArgument,
    same_id: Annotated[bool, typer.Option("--same-id", help="In place of the old run.")] = False,
    store: StoreOption = DEFAULT_STORE,
    hub: HubOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start a finished instance again and print the new run's id."""
    restarted = Door(store, hub, url, as_json).tell(lambda client: client.restart(instance_id, not same_id))
    _done(restarted, restarted, as_json)


@commands.command(epilog=EXIT_CODES)
def purge(
    instance_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Instance ids.", show_default=False)
    ] = None,
    older_than: Annotated[
        datetime | None,
        typer.Option("--created-before", help="All finished ones created before this.", show_default=False),
    ] = None,
    status: Annotated[
        list[RuntimeStatus] | None,
        typer.Option(
            "--status", help="With --created-before: only these.", case_sensitive=False, show_default=False
        ),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    hub: HubOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete finished instances and their history: those named, or those created before an instant."""
    if bool(instance_ids) == (older_than is not None):
        raise typer.BadParameter("name instances, or give --created-before, one of the two")

    async def delete(client: Client) -> int:
        if older_than is not None:
            until = older_than.astimezone(UTC)
            return await client.purge_instance_history_by(None, until, status or ())
        return sum([await client.purge_instance_history(one) for one in instance_ids or ()])

    deleted = Door(store, hub, url, as_json).tell(delete)
    if instance_ids and not deleted:
        fail_with(InstanceNotFound("there is no such instance: nothing was purged"), as_json=as_json)
    if as_json:
        print_json({"instancesDeleted": deleted})
    else:
        typer.echo(f"{deleted} {'instance' if deleted == 1 else 'instances'} purged.")


def _done(sentence: str, instance_id: str, as_json: bool) -> None:
    if as_json:
        print_json({"instanceId": instance_id})
    else:
        typer.echo(sentence)
