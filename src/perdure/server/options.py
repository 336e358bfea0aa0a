"""The target and the settings of `perdure run`."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from perdure.server.sockets import is_loopback
from perdure.settings import HOSTED, SERVING

if TYPE_CHECKING:
    from perdure.settings import Chosen

SERVED = frozenset(row.name for row in (*SERVING, *HOSTED))
"""The names of the server's settings. The others belong to the engine."""


@dataclass(frozen=True)
class ServeOptions:
    """The target and the settings of one `perdure run`.

    Parameters:
        target: the application, as on the command line.
        given: the settings on the command line, by name.
        chosen: every setting with its value and source.
        began: the start of the command, by the monotonic clock.
    """

    target: str
    given: dict[str, Any]
    chosen: dict[str, Chosen]
    began: float = field(default_factory=time.monotonic)

    @property
    def patient_until(self) -> float:
        """The end of the wait for a database that does not answer, by the monotonic clock."""
        return self.began + self.store_wait

    @property
    def store_wait(self) -> float:
        """Seconds to wait for a database that does not answer."""
        return float(self.chosen["store_wait"].value)

    @property
    def store(self) -> str:
        """The store, with passwords masked."""
        return self.chosen["store"].shown

    @property
    def host(self) -> str:
        return str(self.chosen["host"].value)

    @property
    def port(self) -> int:
        return int(self.chosen["port"].value)

    @property
    def may_move(self) -> bool:
        """Whether the server can use another port: the port is the default and the host is a loopback address."""
        return self.chosen["port"].source == "default" and is_loopback(self.host)

    @property
    def workers(self) -> int:
        return int(self.chosen["workers"].value)

    @property
    def role(self) -> str:
        return str(self.chosen["role"].value)

    @property
    def listens(self) -> bool:
        """Whether this process serves the API and pages."""
        return self.role != "worker"

    @property
    def allowed_hosts(self) -> list[str]:
        return [self.host, *self.chosen["allowed_hosts"].value]

    @property
    def is_open(self) -> bool:
        return bool(self.chosen["access"].value == "open")

    @property
    def engine(self) -> dict[str, Any]:
        """The command line's settings for store, hub and engine. The application decides the others."""
        return {name: value for name, value in self.given.items() if name not in SERVED}


__all__ = ["SERVED", "ServeOptions"]
