"""raise, restart: commands for one instance. Commands that also take a filter are in `perdure.cli.bulk`."""

from typing import Annotated

import typer

from perdure.cli.options import InputOption, InstanceArgument, on_hub, read_input
from perdure.cli.target import HubTarget
from perdure.cli.terminal import EXIT_CODES, print_json

commands = typer.Typer()


@commands.command("raise", epilog=EXIT_CODES)
@on_hub
def raise_(
    target: HubTarget,
    instance_id: InstanceArgument,
    event: Annotated[str, typer.Argument(metavar="EVENT", help="The event's name.", show_default=False)],
    input_: InputOption = None,
    event_id: Annotated[
        str | None,
        typer.Option(
            "--event-id",
            help="An id for this event. A second event with the same id is ignored as a duplicate.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Raise an external event. The event is stored until the instance waits for it."""
    body = read_input(input_)
    target.order(lambda client: client.raise_event(instance_id, event, body, event_id=event_id))
    _done(f"Event {event} was accepted for {instance_id}.", instance_id, target.as_json)


@commands.command(epilog=EXIT_CODES)
@on_hub
def restart(
    target: HubTarget,
    instance_id: InstanceArgument,
    same_id: Annotated[
        bool, typer.Option("--same-id", help="Reuse the id. The new run replaces the old one.")
    ] = False,
) -> None:
    """Restart a finished instance with the same input and print the id of the new run."""
    restarted = target.order(lambda client: client.restart(instance_id, not same_id))
    _done(restarted, restarted, target.as_json)


def _done(sentence: str, instance_id: str, as_json: bool) -> None:
    if as_json:
        print_json({"instanceId": instance_id})
    else:
        typer.echo(sentence)
