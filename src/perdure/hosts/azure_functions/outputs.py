"""Queue outputs: sent when the function has succeeded, before what called it counts as done. At least once."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from perdure.hosts.azure_functions import sdk
from perdure.hosts.azure_functions.invoking import RETURN
from perdure.triggers.brokers.azure_storage import send_text
from perdure.triggers.queue_admin import Queues

if TYPE_CHECKING:
    from perdure.engine.client.client import Client
    from perdure.hosts.azure_functions.folder import Folder
    from perdure.hosts.azure_functions.indexing import Binding
    from perdure.hosts.azure_functions.invoking import Callee, Output

log = logging.getLogger("perdure.azure")
QUEUE: Final = "queue"
EMULATOR: Final = "UseDevelopmentStorage=true"
_DROPPED: Final[set[tuple[str, str]]] = set()


def connection_of(binding: Binding, folder: Folder, storage: str) -> str:
    """The connection string of a queue, "" for the hub's own. Raises ValueError for a setting that is not there."""
    named = str(binding.get("connection") or "")
    found = folder.setting(named) or folder.setting(f"AzureWebJobs{named}") or ""
    if not found and named and named != "AzureWebJobsStorage":
        raise ValueError(f"its connection is the setting {named!r}, which is not set")
    if found in ("", EMULATOR):
        return EMULATOR if storage == "storage" else ""
    return found


async def send_outputs(callee: Callee, outputs: Mapping[str, Output], result: Any, client: Client) -> None:
    """Send what a function has set on its queues, or returned for one."""
    for binding in callee.outputs:
        value = result if binding.name == RETURN else outputs[binding.name].get()
        if binding.kind == QUEUE:
            for text in sdk.messages_of(value):
                await _send(callee, binding, text, client)
        elif binding.kind != "http" and value is not None:
            _drop(callee, binding)


async def _send(callee: Callee, binding: Binding, text: str, client: Client) -> None:
    folder = callee.folder
    name = folder.resolved(str(binding.get("queueName", "")))
    connection = connection_of(binding, folder, callee.storage)
    if not connection:
        await Queues(client).send(name, text)
        return
    await send_text(connection, name, text)


def _drop(callee: Callee, binding: Binding) -> None:
    """What is set on an output that is not hosted goes nowhere, and is said once."""
    key = callee.described.name, binding.name
    if key not in _DROPPED:
        _DROPPED.add(key)
        log.warning(
            "%s: what it sets on %r is dropped: %s is not hosted", *key, binding.properties.get("type")
        )


__all__ = ["connection_of", "send_outputs"]
