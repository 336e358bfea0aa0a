"""Counting: plain integers and bucket arrays, added to once a batch.

The loop's thread counts after each commit what the batch holds anyway: its rows, the instances that ended, the
attempts whose results it consumed. Nothing is counted once an event, and nothing before it is durable. Other threads
read; a reader can see a batch half counted. Attributes are bounded: a function that is not registered here is
`_other`, and so is an error type beyond the first hundred.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from perdure.engine.activities.asyncio_host import OnLoop
from perdure.engine.activities.thread_host import Threads
from perdure.engine.core.noted import CAUSES, EventAccepted, EventDropped, Replayed, TimerWasDue
from perdure.engine.core.telemetry import COMPLETED, FAILED
from perdure.engine.core.tenure import EVICTED, RESTART, RESUME, REWIND, TAKEOVER
from perdure.failure import chain_of
from perdure.model.activity_names import entity_of
from perdure.model.entities import ORCHESTRATION
from perdure.model.events import ExecutionFailed
from perdure.model.http_calls import BUILT_IN
from perdure.model.instances import RuntimeStatus
from perdure.model.span_ids import trace_id_of
from perdure.model.trace_context import trace_in
from perdure.model.waiting import PARKED, kind_of

if TYPE_CHECKING:
    from perdure.engine.core.instance import Instance
    from perdure.engine.core.telemetry import Body, Durable
    from perdure.engine.functions.registry import Registry
    from perdure.model.messages import ActivityResult
    from perdure.model.records import Batch

OTHER: Final = "_other"
ERROR_TYPES: Final = 100  # different ones; code can make up any number
DROPPED: Final = "dropped"  # of an attempt: its result came when its call or its instance had ended
CLIENT, PARENT, SCHEDULE, QUEUE = "client", "parent", "schedule", "queue"
ORIGINS: Final = (CLIENT, PARENT, SCHEDULE, QUEUE)
ENDS: Final = (RuntimeStatus.Completed.value, RuntimeStatus.Failed.value, RuntimeStatus.Terminated.value)
OUTCOMES: Final = (COMPLETED, FAILED, "timed_out", "cancelled", DROPPED)
REPLAYS: Final = (RESTART, EVICTED, TAKEOVER, REWIND, RESUME)
PARTS: Final = ("decide", "commit", "release")

DAY: Final = 86_400.0
LIFETIMES: Final = (
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 21_600.0),
    *(DAY, 3 * DAY, 7 * DAY, 30 * DAY),
)
"""Seconds: an instance can wait for a person for weeks."""
DURATIONS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0, 3_600.0)
COMMITS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
BATCHES: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0)

Labels = tuple[str, ...]


class Slowest(NamedTuple):
    """The slowest observation in a bucket, and whose it was."""

    value: float
    at: int
    trace_id: int


class Buckets:
    """A histogram: how many observations each bucket has, and their sum."""

    __slots__ = ("bounds", "counts", "longest", "slowest", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        self.longest = [-1.0] * len(self.counts)  # the value of the slowest in each bucket
        self.slowest: dict[int, Slowest] = {}  # by bucket

    @classmethod
    def of(
        cls, counts: Sequence[int], total: float, slowest: Mapping[int, Slowest], bounds: Sequence[float]
    ) -> Buckets:
        """A histogram that another process has counted."""
        made = cls(bounds)
        made.counts, made.total, made.slowest = list(counts), total, dict(slowest)
        return made

    def add(self, value: float) -> None:
        """Add an observation. Where thousands are added, this is written out: a call costs more than the rest."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def keep_slowest(self, place: int, value: float, at: int, trace_id: int) -> None:
        """Keep this observation as the slowest of its bucket."""
        self.longest[place] = value
        self.slowest[place] = Slowest(value, at, trace_id)


class Histograms(dict[Labels, Buckets]):
    """The histograms of one metric by their labels, made when they are first needed."""

    def __init__(self, bounds: Sequence[float]) -> None:
        super().__init__()
        self._bounds = bounds

    def __missing__(self, labels: Labels) -> Buckets:
        made = self[labels] = Buckets(self._bounds)
        return made


class Counts(dict[Labels, int]):
    """The counters of one metric by their labels; 0 for those that are not there yet."""

    def __missing__(self, labels: Labels) -> int:
        return 0


class _Row:
    """Where the attempts of one activity with one outcome are counted."""

    __slots__ = ("label", "seconds", "waited")

    def __init__(self, label: str, seconds: Buckets, waited: Buckets) -> None:
        self.label = label
        self.seconds = seconds
        self.waited = waited


class Counting:
    """What one engine has done since it started. Listens at the engine's port.

    Parameters:
        registry: the functions with a name of their own, built-in ones included. Those of the application have series
            with 0 from the start.
        store: the kind of the store.
    """

    follows_bodies = False

    def __init__(self, registry: Registry, store: str) -> None:
        self.started = Counts()  # orchestrator, origin
        self.ends = Counts()  # orchestrator, status, error type
        self.lifetimes = Histograms(LIFETIMES)  # orchestrator, status
        self.parked = Counts()  # orchestrator, reason
        self.replays = Counts()  # orchestrator, reason
        self.replay_seconds = Histograms(DURATIONS)  # orchestrator
        self.replayed_events = Counts()  # orchestrator
        self.unbegun = Counts()  # activity, outcome: attempts that ended before their body began
        self.attempt_seconds = Histograms(DURATIONS)  # activity, outcome
        self.waited = Histograms(DURATIONS)  # activity, host
        self.retries = Counts()  # activity
        self.raised = Counts()  # orchestrator
        self.dropped = Counts()  # orchestrator, reason
        self.late_timers = Histograms(LIFETIMES)
        self.commits = Histograms(COMMITS)  # store
        self.batches = Histograms(BATCHES)
        self.busy = dict.fromkeys(PARTS, 0.0)  # seconds
        orchestrators = {*registry.orchestrators, *registry.entities}
        self._orchestrators: Mapping[str, str] = {name: name for name in orchestrators}
        self._activities: Mapping[str, str] = {name: name for name in registry.activities}
        self._error_types: dict[str, str] = {}
        self._rows: dict[str, dict[str, _Row]] = {outcome: {} for outcome in OUTCOMES}
        self._commits = self.commits[store,]
        self._batches = self.batches[()]
        self._late = self.late_timers[()]
        self._begin_with_zeros(registry)

    def _begin_with_zeros(self, registry: Registry) -> None:
        """Make the series of every function of the application: a rate is wrong where a series begins with 1."""
        for name in filter(_is_of_application, (*registry.orchestrators, *registry.entities, OTHER)):
            self.parked.update(dict.fromkeys(((name, reason) for reason in PARKED), 0))
        for name in filter(_is_of_application, registry.orchestrators):
            self.started.update(dict.fromkeys(((name, origin) for origin in ORIGINS), 0))
            self.dropped.update(dict.fromkeys(((name, cause) for cause in CAUSES), 0))
            for status in ENDS:
                self.ends[name, status, ""] = 0
                self.lifetimes[name, status]
            for one in (self.raised, self.replayed_events):
                one[name,] = 0
            self.replays.update(dict.fromkeys(((name, reason) for reason in REPLAYS), 0))
            self.replay_seconds[name,]
        for name in filter(_is_of_application, registry.activities):
            activity = registry.activities[name]
            if activity.executor is None:  # the others know the name of their host when they run
                self.waited[name, OnLoop.where if activity.is_async else Threads.where]
            for outcome in (COMPLETED, FAILED):
                self.attempt_seconds[name, outcome]
            self.unbegun.update(dict.fromkeys(((name, outcome) for outcome in OUTCOMES), 0))
            self.retries[name,] = 0

    # ------------------------------------------------------------------------------------------------ the port

    def committed(self, durable: Durable) -> None:
        """Count a batch. On the loop's thread."""
        batch, released = durable.batch, durable.released
        if batch.new_instances:
            self._count_starts(batch)
        if released.finished:
            self._count_ends(released.finished)
        if durable.attempts:
            self._count_attempts(durable)
        if durable.passed_by:
            self._count_passed_by(durable.passed_by)
        for _, reason, name in released.parked:
            self.parked[self._orchestrators.get(name, OTHER), kind_of(reason)] += 1
        if released.noted:
            self._count_noted(durable)
        seconds = durable.seconds
        if seconds is None:  # starts that were committed within another batch
            return
        if not batch.is_empty():
            self._commits.add(seconds)
            self._batches.add(len(batch.history))
        busy = self.busy
        busy["decide"] += durable.decided
        busy["commit"] += seconds
        busy["release"] += durable.let_out

    def begun(self, attempt: Body) -> None:
        """Not wanted."""

    def ended(self, attempt: Body, result: ActivityResult) -> None:
        """Not wanted."""

    # ------------------------------------------------------------------------------------------------ one batch

    def _count_starts(self, batch: Batch) -> None:
        triggered = {
            row.instance_id: row.operation_id for row in batch.seen if row.operation_id.startswith(_TRIGGERS)
        }
        known, started = self._orchestrators, self.started
        for row in batch.new_instances:
            if row.kind != ORCHESTRATION:
                continue
            if row.parent_id is not None:
                origin = PARENT
            elif triggered or row.instance_id.startswith(_TRIGGERS):
                origin = _origin_of(triggered.get(row.instance_id) or row.instance_id)
            else:
                origin = CLIENT
            started[known.get(row.name, OTHER), origin] += 1

    def _count_ends(self, finished: Iterable[Instance]) -> None:
        known, ends = self._orchestrators, self.ends
        for instance in finished:
            if instance.entity_state is not None:
                continue
            name, status = known.get(instance.name, OTHER), instance.status._value_
            ends[name, status, "" if status != _FAILED else self._error_of(instance)] += 1
            ended_at = instance.completed_at or instance.created_at
            seconds = max(0, ended_at - instance.created_at) / 1e6
            buckets = self.lifetimes[name, status]
            place = bisect_left(LIFETIMES, seconds)
            buckets.counts[place] += 1
            buckets.total += seconds
            if seconds > buckets.longest[place]:
                trace_id = _trace_id_of(instance)
                if trace_id:
                    buckets.keep_slowest(place, seconds, ended_at, trace_id)

    def _error_of(self, instance: Instance) -> str:
        ending = instance.ending
        if type(ending) is not ExecutionFailed:
            return ""
        name = chain_of(ending.failure)[-1].type  # an activity's error, not the TaskFailedError around it
        known = self._error_types
        if name not in known:
            known[name] = name if len(known) < ERROR_TYPES else OTHER
        return known[name]

    def _count_attempts(self, durable: Durable) -> None:
        at, rows = durable.batch.at, self._rows
        epoch = epoch_of(durable, time.monotonic())
        for attempt in durable.attempts:
            if not attempt.outcome:  # its body still runs, and its result came from another worker
                continue
            invocation = attempt.invocation
            row = rows[attempt.outcome].get(invocation.name)
            if row is None:
                row = self._new_row(attempt, attempt.outcome)
            if invocation.attempt > 1:
                self.retries[row.label,] += 1
            since = attempt.since
            if not since:
                self.unbegun[row.label, attempt.outcome] += 1
                continue
            buckets, seconds = row.seconds, attempt.seconds
            place = bisect_left(DURATIONS, seconds)
            buckets.counts[place] += 1
            buckets.total += seconds
            if invocation.trace and seconds > buckets.longest[place]:
                _keep_trace(buckets, place, attempt, at)
            if invocation.scheduled_at:
                seconds = since + epoch - invocation.scheduled_at / 1e6
                buckets = row.waited
                buckets.counts[bisect_left(DURATIONS, seconds)] += 1
                if seconds > 0.0:  # the clocks of two workers differ
                    buckets.total += seconds

    def _count_passed_by(self, attempts: Iterable[Body]) -> None:
        for attempt in attempts:
            row = self._rows[DROPPED].get(attempt.invocation.name) or self._new_row(attempt, DROPPED)
            if attempt.since:
                row.seconds.add(attempt.seconds)
            else:
                self.unbegun[row.label, DROPPED] += 1

    def _new_row(self, attempt: Body, outcome: str) -> _Row:
        """What is counted of an activity's attempts with this outcome, made when the first ends."""
        name = attempt.invocation.name
        label = self.activity(name)
        row = _Row(label, self.attempt_seconds[label, outcome], self.waited[label, attempt.where])
        self._rows[outcome][name] = row  # there are no more names than the worker has functions
        return row

    @property
    def attempts(self) -> Counts:
        """The attempts by activity and outcome."""
        found = Counts()
        for labels, buckets in list(self.attempt_seconds.items()):
            found[labels] = sum(buckets.counts)
        for labels, count in list(self.unbegun.items()):
            found[labels] += count
        return found

    def let_go(self, before: int) -> None:
        """Let the next observations replace the slowest that are older. From any thread."""
        for histograms in (self.lifetimes, self.attempt_seconds):
            for buckets in list(histograms.values()):
                for place, slowest in list(buckets.slowest.items()):
                    if slowest.at < before:
                        buckets.longest[place] = -1.0

    def orchestrator(self, name: str) -> str:
        """The label of an orchestrator or an entity."""
        return self._orchestrators.get(name, OTHER)

    def activity(self, name: str) -> str:
        """The label of an activity; of an entity's operation outside the loop, the entity."""
        known = self._activities.get(name)
        return known if known is not None else self.orchestrator(entity_of(name))

    def _count_noted(self, durable: Durable) -> None:
        known = self._orchestrators
        for noted in durable.released.noted:
            match noted:
                case EventAccepted(name):
                    self.raised[known.get(name, OTHER),] += 1
                case EventDropped(name, reason):
                    self.dropped[known.get(name, OTHER), reason] += 1
                case TimerWasDue(late):
                    self._late.add(max(0, late) / 1e6)
                case Replayed(name, reason, events, seconds, _, _):
                    label = known.get(name, OTHER)
                    self.replays[label, reason] += 1
                    self.replay_seconds[label,].add(seconds)
                    self.replayed_events[label,] += events


def epoch_of(durable: Durable, monotonic: float) -> float:
    """The time of day, in seconds, when the monotonic clock was 0: to compare a begin with the time of a call."""
    return durable.batch.at / 1e6 + durable.decided + (durable.seconds or 0.0) - monotonic


_FAILED: Final = RuntimeStatus.Failed.value
_TRIGGERS: Final = ("schedule:", "queue:")
"""How the ids of triggers' instances begin, and the operation ids of what their functions start."""


def _origin_of(cause: str) -> str:
    match cause.partition(":")[0]:
        case "schedule":
            return SCHEDULE
        case "queue":
            return QUEUE
        case _:
            return CLIENT


def _trace_id_of(instance: Instance) -> int:
    """The id of the trace that an instance belongs to; 0 for a child in a tree without one, whose root is unknown."""
    trace = trace_in(instance.trace)
    if trace is not None:
        return trace.trace_id
    return 0 if instance.parent is not None else trace_id_of(instance.instance_id, instance.execution_id)


def _keep_trace(buckets: Buckets, place: int, attempt: Body, at: int) -> None:
    trace = trace_in(attempt.invocation.trace)
    if trace is not None:
        buckets.keep_slowest(place, attempt.seconds, at, trace.trace_id)


def _is_of_application(name: str) -> bool:
    return not name.startswith(BUILT_IN)


__all__ = ["OTHER", "Buckets", "Counting", "Counts", "Histograms", "Labels", "Slowest", "epoch_of"]
