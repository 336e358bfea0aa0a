"""The executors of one engine, their activities, and their common life cycle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from perdure.engine.activities.executors.channel import ExecutorChannel
from perdure.engine.activities.executors.factories import ProcessPool
from perdure.engine.activities.executors.host import ExecutorHost
from perdure.engine.activities.runner import Attempt
from perdure.engine.core.tracing import Tracing
from perdure.engine.functions.registry import Activity, Registry, where
from perdure.errors import RegistrationError
from perdure.model.messages import ActivityResult


class Executors:
    """The executors of one engine: one host for each source, shared by the activities that name it."""

    def __init__(
        self,
        registry: Registry,
        begin: Callable[[Attempt], None],
        conclude: Callable[[Attempt, ActivityResult], None],
        tracing: Tracing | None = None,
    ) -> None:
        self._registry = registry
        self._tracing = tracing
        self._begin = begin
        self._conclude = conclude
        self._line: ExecutorChannel | None = None
        self._hosts: dict[int, ExecutorHost] = {}

    def host_of(self, activity: Activity) -> ExecutorHost | None:
        """The host of an activity with an executor; None without one. Raises RegistrationError."""
        if activity.executor is None:
            return None
        named = isinstance(activity.executor, str)
        source = self._named(activity) if named else activity.executor
        host = self._hosts.get(id(source))
        if host is None:
            if self._line is None:
                self._line = ExecutorChannel(self._began, self._gone)
            where = f"executor {activity.executor!r}" if named else _told(source)
            host = self._hosts[id(source)] = ExecutorHost(
                where, source, self._line, self._conclude, self._tracing
            )
        return host

    def _named(self, activity: Activity) -> Any:
        known = self._registry.executors
        if activity.executor in known:
            return known[activity.executor]
        raise RegistrationError(
            f"{where(activity.function)}: no executor named {activity.executor!r} is registered in this application; "
            f"it has {', '.join(sorted(known)) or 'none'}. Register it with app.executor({activity.executor!r}, ...)"
        )

    def _began(self, attempt: Attempt, pid: int) -> None:
        self._begin(attempt)
        host = attempt.runner.host
        if isinstance(host, ExecutorHost):
            host.began(attempt, pid)

    def _gone(self, attempt: Attempt) -> None:
        host = attempt.runner.host
        if isinstance(host, ExecutorHost):
            host.look()

    async def open(self) -> None:
        """Create every executor, on a thread. If a source raises, closes all and re-raises."""
        try:
            for host in self._hosts.values():
                await asyncio.to_thread(host.open)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        await asyncio.gather(*(asyncio.to_thread(host.close) for host in self._hosts.values()))
        if self._line is not None:
            self._line.close()

    def health(self) -> dict[str, int]:
        """The numbers of running, waiting and abandoned attempts of all executors."""
        hosts = self._hosts.values()
        return {
            "running": sum(host.running for host in hosts),
            "queued": sum(host.waiting for host in hosts),
            "abandoned": sum(host.abandoned for host in hosts),
        }

    @property
    def is_healthy(self) -> bool:
        return not any(host.is_broken for host in self._hosts.values())


def _told(source: Any) -> str:
    if isinstance(source, ProcessPool):
        return str(source)
    return f"executor {getattr(source, '__name__', type(source).__name__)}"
