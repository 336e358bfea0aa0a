"""The interface of a running engine for the host and the commands, in addition to that for clients."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, cast

from perdure.engine.client.gateway import Gateway

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perdure.engine.client.client import Client
    from perdure.engine.client.watching import Bell
    from perdure.engine.core.telemetry import Telemetry
    from perdure.engine.core.tracing import Tracing
    from perdure.engine.engine import Engine, Settings
    from perdure.engine.functions.registry import Registry
    from perdure.store.port import Store


class RunningEngine(Gateway, Protocol):
    """The engine of this process."""

    client: Client
    """The client of the host, which activities have copies of."""

    @property
    def registry(self) -> Registry: ...

    @property
    def settings(self) -> Settings: ...

    @property
    def store(self) -> Store: ...

    @property
    def tracing(self) -> Tracing | None: ...

    @property
    def resources(self) -> Sequence[object]: ...

    @property
    def telemetry(self) -> Telemetry: ...

    def health(self) -> dict[str, Any]:
        """Figures for a health page: warm, queued and running work, and whether the engine is healthy."""

    def publish(self, address: str, token: str) -> None:
        """Publish the address of this engine to other processes on this machine."""

    def has(self, name: str, version: str = "") -> bool:
        """Whether this application has the orchestrator."""

    def watching(self, instance_no: int | None, *, is_counted: bool = True) -> AbstractContextManager[Bell]:
        """A bell that rings when this instance has changed, or any instance if it is None."""


def engine_of(client: Client) -> RunningEngine:
    """The engine of a client from `app.running()`. Other clients have none."""
    return cast("RunningEngine", client.gateway)


if TYPE_CHECKING:

    def _is_one(engine: Engine) -> RunningEngine:
        return engine


__all__ = ["RunningEngine", "engine_of"]
