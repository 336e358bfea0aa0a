"""A client whose requests belong to a cause: repeating the cause repeats the requests without effect.

An activity may run again after a crash. The requests of its first run already took effect. Its client therefore
derives each instance id and operation id from the activity's idempotency key and the number of the request. A
body that repeats the same requests in the same order gets the first answers.
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
        """The id of the next start: the same in each run of the cause."""
        seed = f"{self._cause}\0{self._requests}".encode()
        return hashlib.sha256(seed).hexdigest()[:32]

    async def accept(self, message: Message) -> Any:
        """Send the message with the operation id of this request, the same in each run of the cause."""
        number, self._requests = self._requests, self._requests + 1
        if isinstance(message, Start) and message.fresh:
            # The answer is kept for a day, the instance for longer: `fresh` would start a second one.
            message = msgspec.structs.replace(message, fresh=False, on_existing="return_existing")
        if getattr(message, "operation_id", None) == "":
            message = msgspec.structs.replace(message, operation_id=f"{self._cause}#{number}")
            # The content may depend on the time: the operation id alone identifies the repeat.
            message = bound(message, CAUSE, content="")
        return await self._gateway.accept(message)


def caused(client: Client | SyncClient, cause: str) -> Client | SyncClient:
    if isinstance(client, SyncClient):
        return SyncClient(caused(client._client, cause), client._loop)  # type: ignore[arg-type]
    return replace(client, gateway=CausedGateway(client.gateway, cause))
