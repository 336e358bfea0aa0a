"""One activity function, ready to be called, and one attempt at calling it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

from perdure.engine.activities.context import ActivityContext
from perdure.engine.activities.signals import Signals
from perdure.engine.causes import caused
from perdure.engine.client import Client
from perdure.engine.portal import SyncClient
from perdure.engine.registry import Activity, Plan
from perdure.model import payload
from perdure.replay.settle import Invocation


class Host(Protocol):
    """Where bodies run: the event loop, threads, an executor."""

    where: str

    def stop(self, attempt: Attempt) -> None:
        """Its result no longer counts: never begin it, or have it end as soon as it can. From any thread."""


class Runner:
    """One activity function: how its parameters are filled is decided once."""

    def __init__(self, plan: Plan[Activity], resources: Mapping[type, Any], host: Host | None = None) -> None:
        self.activity = plan.definition
        self.is_async = plan.definition.is_async
        self.host = host
        self.place = ""  # module:qualname, for those that run in other processes
        self._plan = plan
        self._takes_context = [n for n, kind in plan.given.items() if kind is ActivityContext]
        self._takes_client = [n for n, kind in plan.given.items() if kind in (Client, SyncClient)]
        self._constant = {n: resources[kind] for n, kind in plan.given.items() if kind is not ActivityContext}
        self._input_type = plan.input_type
        self.running = 0
        self.queued: deque[Attempt] = deque()

    def call(self, invocation: Invocation, signals: Signals | None = None) -> Any:
        """Call the function with what it asks for; an `async def` one gives its coroutine."""
        arguments: dict[str, Any] = dict(self._constant)
        if self._takes_context:
            context = ActivityContext(invocation, signals)
            for name in self._takes_context:
                arguments[name] = context
        for name in self._takes_client:
            arguments[name] = caused(arguments[name], invocation.idempotency_key)
        if self._plan.input_name is not None:
            arguments[self._plan.input_name] = payload.decode(invocation.input, self._input_type)
        return self.activity.function(**arguments)


class Attempt(Signals):
    """One invocation on this worker, from its arrival until nobody asks for its result any more.

    `settled` is decided once, by whoever comes first: the body's end, its deadline, or a cancellation.
    `admitted` says that it holds one of the places its activity has; the rest is its host's own note.
    """

    __slots__ = (
        "abandoned",
        "admitted",
        "begun",
        "deadline",
        "ended",
        "interrupted",
        "invocation",
        "runner",
        "settled",
        "since",
        "strikes",
        "task",
    )

    def __init__(self, runner: Runner, invocation: Invocation) -> None:
        super().__init__()
        self.runner = runner
        self.invocation = invocation
        self.settled = False
        self.admitted = False
        self.begun = False
        self.ended = False
        self.abandoned = False
        self.interrupted = False
        self.deadline = 0.0
        self.since = 0.0
        self.strikes = 0
        self.task: Any = None
