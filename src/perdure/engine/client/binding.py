"""The `durableClient` binding: the text that Azure's worker passes to a function in place of a client.

A server that passes such texts to its functions serves their addresses here, so that `Client(text)` finds its hub.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from perdure.engine.client.gateway import Gateway, Links

Opened = tuple["Gateway", "Links | None"]
ADDRESS: Final = "rpcBaseUrl"
"""The member of a binding that names the server."""
_SERVED: Final[dict[str, Callable[[], Opened]]] = {}


def serve(address: str, opened: Callable[[], Opened]) -> None:
    """Let bindings with this address lead to a hub of this process, until `unserve`."""
    _SERVED[address] = opened


def unserve(address: str) -> None:
    _SERVED.pop(address, None)


def opened(text: str) -> Opened:
    """The gateway and the links that a binding leads to. Raises ValueError for a text that leads to no server of
    this process.
    """
    address = _address_in(text)
    found = _SERVED.get(address)
    if found is None:
        raise ValueError(
            "a client needs the text of a durableClient binding that a server of this process passed to the "
            f"function that it called, and {_shown(text)} names no server that runs here: "
            "perdure.connect(url, key=...) makes a client of another server"
        )
    return found()


def _address_in(text: str) -> str:
    try:
        binding: Any = json.loads(text)
    except ValueError:
        return ""
    return str(binding.get(ADDRESS, "")) if isinstance(binding, dict) else ""


def _shown(text: str) -> str:
    """The text without the credential that a binding of another server contains."""
    address = _address_in(text)
    return f"the binding for {address.partition('/durabletask/')[0]!r}" if address else "this text"


__all__ = ["opened", "serve", "unserve"]
