"""entities: list entities, show one, signal one."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from perdure.cli.options import (
    DEFAULT_STORE,
    HubOption,
    InputOption,
    JsonOption,
    StoreOption,
    UrlOption,
    read_input,
)
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
def list_(
    name: Annotated[
        str | None, typer.Argument(help="Only entities with this name.", show_default=False)
    ] = None,
    key_prefix: Annotated[str, typer.Option("--key-prefix", help="Only keys with this prefix.")] = "",
    top: Annotated[int, typer.Option("--top", help="The most entities to list, 1 to 1000.")] = 50,
    store: StoreOption = DEFAULT_STORE,
    hub: HubOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List entities, newest first, with their state."""
    page = HubTarget(store, hub, url, as_json).ask(
        lambda client: client.query_entities(name=name, key_prefix=key_prefix, fetch_state=True, top=top)
    )
    if as_json:
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
def show(
    entity: EntityArgument,
    store: StoreOption = DEFAULT_STORE,
    hub: HubOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the state of one entity as JSON. With --json, print its metadata too."""
    entity_id = _parsed(entity, as_json)
    found = HubTarget(store, hub, url, as_json).ask(lambda client: client.read_entity_state(entity_id))
    if as_json:
        print_json(document_of(found, with_state=True))
    elif found.exists:
        print_json(found.state)
        _remark(found)
    else:
        _remark(found)
        fail(f"there is no entity {entity_id}", NOT_FOUND)


@entities.command(epilog=EXIT_CODES)
def signal(
    entity: EntityArgument,
    operation: Annotated[
        str, typer.Argument(metavar="OPERATION", help="The name of the operation.", show_default=False)
    ],
    input_: InputOption = None,
    store: StoreOption = DEFAULT_STORE,
    hub: HubOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send an operation to an entity. The operation is stored and runs after those sent before it."""
    entity_id, body = _parsed(entity, as_json), read_input(input_)
    HubTarget(store, hub, url, as_json).order(
        lambda client: client.signal_entity(entity_id, operation, given(body)), entity=entity_id.name
    )
    if as_json:
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
