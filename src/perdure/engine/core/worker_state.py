"""The state of a worker between batches: its ports, numbers, cache, and lines."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING

from perdure.engine.core.backlog import Lines
from perdure.engine.core.cache import InstanceCache
from perdure.engine.core.ports import Limits, Running
from perdure.engine.core.ring import Ring
from perdure.engine.core.row_ids import Numbers
from perdure.engine.core.tenure import Tenure

if TYPE_CHECKING:
    from perdure.engine.core.announcing import Announcing
    from perdure.engine.core.envelope import Envelope
    from perdure.engine.core.partitions import Partitions
    from perdure.engine.core.placement import Placement
    from perdure.engine.core.ports import Functions, RandomSource
    from perdure.engine.core.tracing import Tracing


class WorkerState:
    """For the loop's thread. An open batch works on it; only the dispatcher replaces its parts."""

    def __init__(
        self,
        functions: Functions,
        random: RandomSource,
        *,
        limits: Limits | None = None,
        running: Running | None = None,
        accept_only: bool = False,
        territory: Partitions | None = None,
    ) -> None:
        self.functions = functions
        self.random = random
        self.limits = limits or Limits()
        self.running = running or Running()
        self.accept_only = accept_only
        self.tells = False  # something listens to what becomes durable
        self.territory = territory  # None for an engine that has its hub to itself
        self.placement: Placement | None = None
        self.tracing: Tracing | None = None
        self.announcing: Announcing | None = None  # None without webhooks
        self.variables: Context | None = None  # the context variables with which code begins; None for none
        # Called now and then in the middle of what takes long, so that others need not wait for its end.
        self.pause: Callable[[], None] = lambda: None
        self.counters: dict[str, int] = {"stale_results": 0, "replays": 0, "evictions": 0, "expired": 0}
        self.task_owners: set[str] = set()  # instances with a message that needs the rows of their tasks
        self.cache = InstanceCache(self.running, self.limits.warm_bytes, self.counters)
        self.quarantine: dict[str, str] = {}
        self.instance_numbers = Numbers()
        self.message_numbers = Numbers()
        self.tenure = Tenure()
        self.ring = Ring(self.counters)
        self.began_at = 0
        self.first_message = 0
        self.backlog: deque[Envelope] = deque()
        # messages of instances at their limit, and messages that a full batch has not reached
        self.lines = Lines()
        self.results: list[Envelope] = []  # activity results of the last batch
        self.passed_by: set[tuple[str, int]] = set()  # its calls with no results but stale ones


__all__ = ["WorkerState"]
