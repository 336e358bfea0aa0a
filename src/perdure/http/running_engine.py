"""What the host and the commands need from a running engine, beyond what its clients need."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, cast

from perdure.engine.client.gateway import Gateway

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perdure.engine.client.client import Client
    from perdure.engine.client.watching import Bell
    from perdure.engine.engine import Engine, Settings
    from perdure.engine.functions.registry import Registry
    from perdure.store.port import Store


class RunningEngine(Gateway, Protocol):
    """The engine of this process."""

    @property
    def registry(self) -> Registry: ...

    @property
    def settings(self) -> Settings: ...

    @property
    def store(self) -> Store: ...

    @property
    def resources(self) -> Sequence[object]: ...

    def health(self) -> dict[str, Any]:
        """Numbers for a health page: what is warm, queued, running; and whether all is well."""

    def publish(self, address: str, token: str) -> None:
        """Tell other processes on this machine where this engine can be reached."""

    def has(self, name: str, version: str = "") -> bool:
        """Whether this application has an orchestrator."""

    def watching(self, instance_no: int | None, *, is_counted: bool = True) -> AbstractContextManager[Bell]:
        """A bell that rings when this instance, or any with None, has changed."""


def engine_of(client: Client) -> RunningEngine:
    """The engine behind a client of `app.running()`. Other clients have none."""
    return cast("RunningEngine", client.gateway)


if TYPE_CHECKING:

    def _is_one(engine: Engine) -> RunningEngine:
        return engine


__all__ = ["RunningEngine", "engine_of"]
