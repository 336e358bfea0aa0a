"""One activity function, ready to be called, and one attempt of a call."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

from perdure.engine.activities.signals import AttemptSignals
from perdure.engine.client.client import Client
from perdure.engine.client.idempotency import caused
from perdure.engine.client.sync_client import SyncClient
from perdure.engine.functions.registry import Activity, CallPlan
from perdure.errors import MessageRefused, PayloadError
from perdure.model import payload
from perdure.model.activity_names import is_message, spoken
from perdure.replay.activity_context import ActivityContext
from perdure.replay.settle import Invocation


class ActivityHost(Protocol):
    """Where bodies run: the event loop, threads, an executor."""

    where: str

    @property
    def slots(self) -> int:
        """The number of bodies that run concurrently."""

    @property
    def free(self) -> int:
        """The number of bodies that could start at once; negative if some already wait."""

    def stop(self, attempt: Attempt) -> None:
        """Never begin the attempt, or stop it as soon as possible, because its result no longer counts. From
        any thread.
        """


class Runner:
    """One activity function, with the plan of its arguments."""

    def __init__(
        self,
        plan: CallPlan[Activity],
        resources: Mapping[type, Any],
        host: ActivityHost | None = None,
        hub: str = "",
    ) -> None:
        self.activity = plan.definition
        self.is_async = plan.definition.is_async
        self.host = host
        self.hub = hub
        self.place = ""  # module:qualname, for those that run in other processes
        self._function = plan.by_name
        self._takes_context = [n for n, kind in plan.given.items() if kind is ActivityContext]
        self._takes_client = [n for n, kind in plan.given.items() if kind in (Client, SyncClient)]
        self._constant = {n: resources[kind] for n, kind in plan.given.items() if kind is not ActivityContext}
        self._input = plan.input
        self.guard = payload.guard_of(plan.output_type)
        self.running = 0
        self.queued: deque[Attempt] = deque()
        self.usual_seconds: float | None = None  # how long a body takes, as a moving average

    @property
    def is_full(self) -> bool:
        """Whether another attempt must wait for the activity's own limit."""
        return bool(self.activity.concurrency) and self.running >= self.activity.concurrency

    def took(self, seconds: float) -> None:
        """Record the duration of a body. From any thread: a lost update of the average is harmless."""
        usual = self.usual_seconds
        self.usual_seconds = seconds if usual is None else 0.8 * usual + 0.2 * seconds

    def call(self, invocation: Invocation, signals: AttemptSignals | None = None) -> Any:
        """Call the function with its arguments; an `async def` one returns its coroutine."""
        arguments: dict[str, Any] = dict(self._constant)
        if self._takes_context:
            context = ActivityContext(invocation, AttemptSignals() if signals is None else signals)
            for name in self._takes_context:
                arguments[name] = context
        for name in self._takes_client:
            arguments[name] = caused(arguments[name], invocation.idempotency_key)
        if self._input is not None:
            parameter = self._input
            try:
                arguments[parameter.name] = parameter.read(invocation.input)
            except PayloadError as error:
                raise _misfit(invocation.name, parameter.name, error) from None
        return self._function(**arguments)


def _misfit(name: str, parameter: str, error: PayloadError) -> PayloadError:
    """The error for an input that does not fit. Every attempt would fail alike, so `RetryPolicy` does not retry
    it.
    """
    of = f"{spoken(name)} does not fit its parameter {parameter!r}: {error}. The activity did not run"
    if is_message(name):
        return MessageRefused(
            f"the message for {of}, and the message becomes a dead letter. Send a body that fits, or change "
            "the function to accept this one and deliver the message again (PDR-057)",
            error.pointer,
        )
    return PayloadError(
        f"the input of {of}, and the call is not retried. Pass an input that fits, or change the parameter to "
        "accept this one and rewind the instance (PDR-010)",
        error.pointer,
    )


class Attempt(AttemptSignals):
    """One invocation on this worker, from its arrival until its result is processed.

    `settled` is set once, by the body's end, its deadline, or a cancellation, and `outcome` says by which.
    `seconds` is how long the body took. `admitted` means that the attempt has a slot of its activity; the other
    fields belong to its host.
    """

    __slots__ = (
        "abandoned",
        "admitted",
        "begun",
        "deadline",
        "ended",
        "interrupted",
        "invocation",
        "outcome",
        "runner",
        "seconds",
        "settled",
        "since",
        "strikes",
        "task",
    )

    def __init__(self, runner: Runner, invocation: Invocation) -> None:
        self.heard_at = 0.0  # as `AttemptSignals` does; a call of its own would cost each activity
        self.progress = None
        self.is_cancelled = False
        self.reason = ""
        self._event = None
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
        self.seconds = 0.0
        self.outcome = ""
        self.strikes = 0
        self.task: Any = None

    @property
    def where(self) -> str:
        """The host of the body."""
        return self.runner.host.where if self.runner.host is not None else ""
