"""binding: print the binding with which Azure's own Python client talks to a perdure server."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from perdure.cli.options import DEFAULT_STORE, HubOption, KeyOption, StoreOption, UrlOption
from perdure.cli.target import HubTarget
from perdure.cli.terminal import EXIT_CODES, errors, fail_with
from perdure.errors import StoreError
from perdure.http.api.azure_client import binding as binding_of
from perdure.settings import SERVING
from perdure.store.sqlite.lock import ServerInfo

commands = typer.Typer()

AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="The address at which the client reaches the server. Default: the address of the running server.",
        show_default=False,
    ),
]
CredentialOption = Annotated[
    str | None,
    typer.Option(
        "--credential",
        help="The key to put into the binding. Default: --key, or else the token of the running server.",
        show_default=False,
    ),
]
NewKeyOption = Annotated[
    bool, typer.Option("--new-key", help="Create a key with the scope admin for the binding.")
]
DEFAULT_ADDRESS = f"http://localhost:{next(row.default for row in SERVING if row.name == 'port')}"


@commands.command(epilog=EXIT_CODES)
def binding(
    address: AddressOption = None,
    credential: CredentialOption = None,
    new_key: NewKeyOption = False,
    store: StoreOption = DEFAULT_STORE,
    hub: HubOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
) -> None:
    """Print the durableClient binding for azure-functions-durable's DurableOrchestrationClient, as one line of JSON.

    The binding contains an access key, because Azure's client sends no key of
    its own. Treat the binding as a secret: a program that has it can do
    everything that the key allows.
    """
    if new_key and credential is not None:
        raise typer.BadParameter(
            "--new-key and --credential exclude each other. Give one of them", param_hint="--new-key"
        )
    door = HubTarget(store, hub, url, False, key)
    found = door.served()
    secret = _new_key(door) if new_key else credential or key or (found.token if found else "")
    if not secret:
        raise typer.BadParameter(
            "there is no key to put into the binding, because no server runs on this store. Give a key with "
            "--credential, or create one with --new-key",
            param_hint="--credential",
        )
    if found and secret == found.token:
        told = (
            "The binding contains the token of the running server and stops working when that server stops. "
            "--new-key creates a permanent key."
        )
        errors().print(told, style="dim", soft_wrap=True)
    where = address or url or (found.address if found else DEFAULT_ADDRESS)
    typer.echo(json.dumps(binding_of(where, hub or _hub_of(door, found), secret)))


def _new_key(door: HubTarget) -> str:
    made = door.tell(lambda client: client.create_key("durableClient binding", ["admin"]))
    errors().print(
        f"The binding contains the new key {made.key.key_id}. `perdure keys revoke` revokes it.", style="dim"
    )
    return made.secret


def _hub_of(door: HubTarget, found: ServerInfo | None) -> str:
    if found:
        return found.hub
    if door.url:
        raise typer.BadParameter(
            "a binding needs the name of the hub that the server at --url serves", param_hint="--hub"
        )
    try:
        return door.hub_name()
    except StoreError as error:
        fail_with(error)
