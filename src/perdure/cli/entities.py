"""entities: list entities, show one, signal one."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from perdure.cli.options import InputOption, on_hub, read_input
from perdure.cli.target import HubTarget
from perdure.cli.terminal import EXIT_CODES, NOT_FOUND, fail, fail_with, print_json, print_table
from perdure.errors import InvalidInstanceId
from perdure.http.api.entities import document_of
from perdure.http.formatting import ago, compact
from perdure.model.entities import EntityId, EntityState
from perdure.replay.inputs import given

commands = typer.Typer()
entities = typer.Typer(help="List, show and signal entities.", no_args_is_help=True)
commands.add_typer(entities, name="entities", epilog=EXIT_CODES)

EntityArgument = Annotated[
    str, typer.Argument(metavar="ENTITY", help="The entity id: @name@key or name@key.", show_default=False)
]


@entities.command("list", epilog=EXIT_CODES)
@on_hub
def list_(
    target: HubTarget,
    name: Annotated[
        str | None, typer.Argument(help="Only entities with this name.", show_default=False)
    ] = None,
    key_prefix: Annotated[str, typer.Option("--key-prefix", help="Only keys with this prefix.")] = "",
    top: Annotated[int, typer.Option("--top", help="The most entities to list, 1 to 1000.")] = 50,
) -> None:
    """List entities, newest first, with their state."""
    page = target.ask(
        lambda client: client.query_entities(name=name, key_prefix=key_prefix, fetch_state=True, top=top)
    )
    if target.as_json:
        print_json([document_of(entity, with_state=True) for entity in page.entities])
        return
    now = datetime.now(UTC)
    print_table(
        ("ENTITY", "LAST USED", "LOCKED BY", "STATE"),
        [
            (
                str(entity.entity_id),
                ago(entity.last_operation_time, now) if entity.last_operation_time else "",
                entity.locked_by,
                entity.reason or (compact(entity.state) if entity.exists else ""),
            )
            for entity in page.entities
        ],
    )


@entities.command(epilog=EXIT_CODES)
@on_hub
def show(target: HubTarget, entity: EntityArgument) -> None:
    """Print the state of one entity as JSON. With --json, print its metadata too."""
    entity_id = _parsed(entity, target.as_json)
    found = target.ask(lambda client: client.read_entity_state(entity_id))
    if target.as_json:
        print_json(document_of(found, with_state=True))
    elif found.exists:
        print_json(found.state)
        _remark(found)
    else:
        _remark(found)
        fail(f"there is no entity {entity_id}", NOT_FOUND)


@entities.command(epilog=EXIT_CODES)
@on_hub
def signal(
    target: HubTarget,
    entity: EntityArgument,
    operation: Annotated[
        str, typer.Argument(metavar="OPERATION", help="The name of the operation.", show_default=False)
    ],
    input_: InputOption = None,
) -> None:
    """Send an operation to an entity. The operation is stored and runs after those sent before it."""
    entity_id, body = _parsed(entity, target.as_json), read_input(input_)
    target.order(
        lambda client: client.signal_entity(entity_id, operation, given(body)), entity=entity_id.name
    )
    if target.as_json:
        print_json({"entityId": {"name": entity_id.name, "key": entity_id.key}})
    else:
        typer.echo(f"Operation {operation} was accepted for {entity_id}.")


def _remark(found: EntityState) -> None:
    if found.locked_by:
        typer.echo(f"locked by {found.locked_by}", err=True)
    if found.reason:
        typer.echo(found.reason, err=True)


def _parsed(given: str, as_json: bool) -> EntityId:
    try:
        return EntityId.parse(given if given.startswith("@") else f"@{given}")
    except InvalidInstanceId as error:
        fail_with(error, as_json=as_json)
