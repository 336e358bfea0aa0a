"""binding: what Azure's own Python client is handed, so that it speaks to a perdure server."""

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
        help="Where the client reaches the server. Default: the address of the running server.",
        show_default=False,
    ),
]
CredentialOption = Annotated[
    str | None,
    typer.Option(
        "--credential",
        help="The key that the binding holds. Default: --key, else the token of the running server.",
        show_default=False,
    ),
]
NewKeyOption = Annotated[
    bool, typer.Option("--new-key", help="Make a key for the binding, with the scope admin.")
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

    The official client sends no key of its own, so the binding holds one. Give the binding only to programs that may
    do what the key may.
    """
    if new_key and credential is not None:
        raise typer.BadParameter("--new-key makes the key: leave --credential out", param_hint="--new-key")
    door = HubTarget(store, hub, url, False, key)
    found = door.served()
    secret = _new_key(door) if new_key else credential or key or (found.token if found else "")
    if not secret:
        raise typer.BadParameter(
            "no server runs here whose token the binding could hold: name a key with --credential, or make one "
            "with --new-key",
            param_hint="--credential",
        )
    if found and secret == found.token:
        told = (
            "It holds the token of the server, which ends with that server. --new-key makes a key that stays."
        )
        errors().print(told, style="dim", soft_wrap=True)
    where = address or url or (found.address if found else DEFAULT_ADDRESS)
    typer.echo(json.dumps(binding_of(where, hub or _hub_of(door, found), secret)))


def _new_key(door: HubTarget) -> str:
    made = door.tell(lambda client: client.create_key("durableClient binding", ["admin"]))
    errors().print(f"A new key {made.key.key_id} is in it; `perdure keys revoke` ends it.", style="dim")
    return made.secret


def _hub_of(door: HubTarget, found: ServerInfo | None) -> str:
    if found:
        return found.hub
    if door.url:
        raise typer.BadParameter("name the hub that the server at --url serves", param_hint="--hub")
    try:
        return door.hub_name()
    except StoreError as error:
        fail_with(error)
