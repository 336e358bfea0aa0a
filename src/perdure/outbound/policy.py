"""The policy for an application's HTTP calls: `App(http=HttpPolicy(...))`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from perdure.errors import RegistrationError
from perdure.model.durations import Seconds
from perdure.outbound.addresses import AllowList

if TYPE_CHECKING:
    import ssl

Lookup = Callable[[str], str | Awaitable[str | None] | None]
ENVIRONMENT = "environment"


@dataclass(frozen=True)
class HttpPolicy:
    """The addresses `context.call_http` can reach, the limits of bodies, and the source of secrets.

    Parameters:
        allow: private hosts (`billing.internal`, `*.internal`) and networks (`10.2.0.0/16`) that can be called, each
            optionally with a port. Link-local and other special addresses must be listed as a network.
        only: the only hosts and networks that can be called. Default: no such restriction.
        secrets: the values of `Secret(name)`: a mapping, or a function (also async) that returns the value or None.
            Default: the environment variables.
        tokens: a function that returns the bearer token for a `token_source`'s resource. Default: the machine's
            managed identity on Azure.
        timeout: the time limit of one request in seconds, with redirects and body, if the call does not set one.
        max_request: the largest request body, in bytes.
        max_response: the largest response body, in bytes after decompression.
        max_redirects: the most redirects one request follows. With 0, a redirect is returned as the response.
        proxy: the URL of a proxy, or "environment" to use `HTTPS_PROXY` and related variables. Default: no proxy. A
            proxy resolves names itself, so perdure cannot check their addresses. Set `only` too.
        tls: the TLS context that verifies servers. Default: the standard trust store.
    """

    allow: Sequence[str] = ()
    only: Sequence[str] | None = None
    secrets: Mapping[str, str] | Lookup | None = None
    tokens: Lookup | None = None
    timeout: Seconds = 100.0
    max_request: int = 1024 * 1024
    max_response: int = 1024 * 1024
    max_redirects: int = 5
    proxy: str | None = None
    tls: ssl.SSLContext | None = None
    allowed: AllowList = field(init=False, repr=False, compare=False)
    exclusive: AllowList | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("allow", "only"):
            if isinstance(getattr(self, name), str):
                raise RegistrationError(
                    f"HttpPolicy.{name} must be a list of hosts and networks, not a string"
                )
        if self.seconds <= 0 or self.max_request < 0 or self.max_response < 0 or self.max_redirects < 0:
            raise RegistrationError(
                "HttpPolicy: timeout must be more than 0 seconds, and sizes and counts must not be negative"
            )
        try:
            object.__setattr__(self, "allowed", AllowList((*self.allow, *(self.only or ()))))
            object.__setattr__(self, "exclusive", None if self.only is None else AllowList(self.only))
        except ValueError as error:
            raise RegistrationError(f"HttpPolicy: {error}") from None

    @property
    def seconds(self) -> float:
        """The timeout as a number."""
        return self.timeout.total_seconds() if isinstance(self.timeout, timedelta) else float(self.timeout)
