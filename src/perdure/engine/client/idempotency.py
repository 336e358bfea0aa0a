"""A client whose requests belong to a cause: repeating the cause repeats the requests, and changes nothing.

An activity may run again after a crash. What it started the first time is there already, so the client that it
receives derives each id and each operation id from the activity's idempotency key and the number of the request.
The same body making the same requests in the same order then meets its own first answers.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import msgspec

from perdure.engine.client.client import Client
from perdure.engine.client.sync_client import SyncClient
from perdure.engine.core.repeats import CAUSE, bound
from perdure.model.messages import Message, Start


class CausedGateway:
    """A gateway that names every request after its cause."""

    def __init__(self, gateway: Any, cause: str) -> None:
        self._gateway = gateway
        self._cause = cause
        self._requests = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._gateway, name)

    def new_instance_id(self) -> str:
        """Not a new one, should the same have been asked before."""
        seed = f"{self._cause}\0{self._requests}".encode()
        return hashlib.sha256(seed).hexdigest()[:32]

    async def accept(self, message: Message) -> Any:
        """Hand the message over under the operation id that this request always has."""
        number, self._requests = self._requests, self._requests + 1
        if isinstance(message, Start) and message.fresh:
            # The answer is remembered for a day, the instance for as long as it is kept.
            message = msgspec.structs.replace(message, fresh=False, on_existing="return_existing")
        if getattr(message, "operation_id", None) == "":
            message = msgspec.structs.replace(message, operation_id=f"{self._cause}#{number}")
            # What the body asks may depend on the time: the repeat is told by its name alone.
            message = bound(message, CAUSE, content="")
        return await self._gateway.accept(message)


def caused(client: Client | SyncClient, cause: str) -> Client | SyncClient:
    """The same client for one cause."""
    if isinstance(client, SyncClient):
        return SyncClient(caused(client._client, cause), client._loop)  # type: ignore[arg-type]
    return replace(client, gateway=CausedGateway(client.gateway, cause))
