"""What an application's HTTP calls may do: `App(http=HttpPolicy(...))`."""

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
    """What `context.call_http` may reach, how large bodies may be, and where secrets come from.

    Parameters:
        allow: hosts (`billing.internal`, `*.internal`) and networks (`10.2.0.0/16`) that may be called although
            they are private, each perhaps with a port. Link-local and other special addresses must be named as
            a network.
        only: if given, nothing but these hosts and networks is called at all.
        secrets: what `Secret(name)` stands for: a mapping, or a function (it may be async) that gives the value
            or None; default the environment's variables.
        tokens: gives the bearer token for a `token_source`'s resource; default the machine's managed identity
            on Azure.
        timeout: seconds one request may take, redirects and body included, where the call does not say.
        max_request, max_response: bytes of a body, the response's as it is after decompression.
        max_redirects: how many redirects one request follows; 0 gives them back as responses.
        proxy: the URL of a proxy, or "environment" to use `HTTPS_PROXY` and its like; default none. A proxy
            resolves names itself, so names cannot be checked by their address: say `only`.
        tls: how servers are verified; default the standard trust.
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
                raise RegistrationError(f"HttpPolicy.{name} is a list of hosts and networks, not one text")
        if self.seconds <= 0 or self.max_request < 0 or self.max_response < 0 or self.max_redirects < 0:
            raise RegistrationError(
                "HttpPolicy: timeout is more than 0 seconds, sizes and counts are not negative"
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
