"""`connect`: a client of a server in another process."""

from __future__ import annotations

from typing import Any

from perdure.errors import needing


def connect(url: str, *, hub: str | None = None, key: str | None = None) -> Any:
    """A client of a running server, with the methods of `Client`. Use it as an async context manager.

    Parameters:
        url: the address of the server, `http://host:7071` or https.
        hub: the name of the hub. Default: the server's own.
        key: an access key for the server.

    Raises:
        ValueError for another kind of URL. ExtraMissing without the extra `server`.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(
            f"cannot connect to {url!r}: the address of a server must begin with http:// or https://"
        )
    with needing("server", "a client of a server"):  # imported only when it is used
        from perdure.http.remote.client import RemoteClient
    return RemoteClient(url, hub=hub, key=key)
