"""`connect`: a client for a hub that somebody else serves."""

from __future__ import annotations

from typing import Any

from perdure.errors import needing


def connect(url: str, *, hub: str | None = None, key: str | None = None) -> Any:
    """A client of a running server, with the verbs of `Client`; use it as an async context manager.

    Parameters:
        url: `http://host:7071` or https.
        hub: the hub's name; default the server's own.
        key: an access key of the server.

    Raises:
        ValueError for a URL of another kind. ExtraMissing without the extra `server`.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"cannot connect to {url!r}: give the address of a running server, http://host:port")
    with needing("server", "a client of a server"):  # so the remote client is imported when it is used
        from perdure.http.remote.client import RemoteClient
    return RemoteClient(url, hub=hub, key=key)
