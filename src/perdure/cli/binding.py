"""binding: what Azure's own Python client is handed, so that it speaks to a perdure server."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from perdure.cli.door import Door
from perdure.cli.options import DEFAULT_STORE, HubOption, KeyOption, StoreOption, UrlOption
from perdure.cli.terminal import EXIT_CODES, errors
from perdure.engine.client import Client
from perdure.http.rpc import binding as binding_of

commands = typer.Typer()

AddressOption = Annotated[
    str, typer.Option("--address", help="Where the server is reached by whoever gets the binding.")
]


@commands.command(epilog=EXIT_CODES)
def binding(
    address: AddressOption = "http://localhost:7071",
    credential: Annotated[
        str | None,
        typer.Option("--credential", help="A key to put into it; default a new one.", show_default=False),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    hub: HubOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
) -> None:
    """Print the durableClient binding for azure-functions-durable's DurableOrchestrationClient, as one line of JSON.

    That client sends no key, so the binding itself holds one: whoever has the binding may do what the key may.
    """

    async def make(client: Client) -> tuple[str, str]:
        if credential is not None:
            return client.task_hub or hub or "default", credential
        made = await client.create_key("durableClient binding", ["admin"])
        errors().print(f"A new key {made.key.key_id} is in it; `perdure keys revoke` ends it.", style="dim")
        return client.task_hub or hub or "default", made.secret

    served, secret = Door(store, hub, url or (address if credential else None), False, key).tell(make)
    typer.echo(json.dumps(binding_of(address, served, secret)))
