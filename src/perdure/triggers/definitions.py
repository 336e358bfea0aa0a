"""The definitions of scheduled functions and queue functions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from perdure import outbound
from perdure.engine.functions.registry import Activity, Orchestrator, Registry, Trigger
from perdure.model.retry import RetryPolicy
from perdure.triggers.names import FIRING, MESSAGE, SCHEDULE, firing_activity, message_activity
from perdure.triggers.queue_orchestration import message
from perdure.triggers.schedule_orchestration import SchedulePlan, firing, schedule

if TYPE_CHECKING:
    from perdure.triggers.source import QueueSource

DELIVERIES = RetryPolicy(first_interval=1.0, max_attempts=5, backoff=2.0)
"""The default retry policy of a queue."""


@dataclass(frozen=True)
class Schedule(Trigger):
    """A client function that a schedule calls."""

    plan: SchedulePlan = field(default_factory=lambda: SchedulePlan("", "* * * * *"))
    retry: RetryPolicy | None = None
    runs_at_start: bool = False  # whether it also runs at each start of the application

    @property
    def activity(self) -> Activity:
        return Activity(firing_activity(self.name), self.function, self.localns, retry=self.retry)


@dataclass(frozen=True)
class Queue(Trigger):
    """A client function that a queue calls for each message."""

    source: QueueSource | None = None  # None for a queue in the hub
    retry: RetryPolicy | None = None
    concurrency: int = 16

    @property
    def activity(self) -> Activity:
        return Activity(
            message_activity(self.name),
            self.function,
            self.localns,
            retry=self.retry,
            concurrency=self.concurrency,
        )


ORCHESTRATORS: tuple[Orchestrator, ...] = (
    Orchestrator(SCHEDULE, schedule),
    Orchestrator(FIRING, firing),
    Orchestrator(MESSAGE, message),
)


def with_built_ins(registry: Registry) -> Registry:
    """A copy of the registry with every built-in function added."""
    joined = outbound.with_built_ins(registry)
    joined.supplement((*ORCHESTRATORS, *(trigger.activity for trigger in registry.triggers)))
    return joined


__all__ = ["Queue", "Schedule", "with_built_ins"]
