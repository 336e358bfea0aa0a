"""The metrics of one engine: a table of their names, units and labels, and their values now.

`Metrics` listens at the engine's port through `Counting`, and adds the gauges, which it asks of the engine and the
store when somebody reads. Prometheus and OpenTelemetry both read it, so that they agree.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from perdure.engine.client.instance_counts import instance_counts
from perdure.engine.core.telemetry import listeners_of
from perdure.errors import StoreError
from perdure.model.http_calls import BUILT_IN
from perdure.telemetry.counting import (
    BATCHES,
    COMMITS,
    DURATIONS,
    LIFETIMES,
    OTHER,
    Buckets,
    Counting,
    Counts,
    Labels,
)

if TYPE_CHECKING:
    from perdure.engine.core.telemetry import Body, Telemetry
    from perdure.engine.engine import Engine, Figures
    from perdure.engine.functions.registry import Registry
    from perdure.model.messages import ActivityResult

Kind = Literal["counter", "gauge", "histogram"]
PAUSE: Final = 50.0  # times the duration of a query of the store, until the next
EVENTS: Final = 50  # names of events with a series of their own, besides the declared ones
EXEMPLARS_KEPT: Final = (
    300_000_000  # microseconds, after which any observation is slower than the slowest before
)
AT_MOST_EVERY: Final = 10.0  # seconds between two queries of the store


@dataclass(frozen=True)
class Metric:
    """One metric. `unit` is UCUM's, `bounds` are those of a histogram.

    `is_of_hub`: each worker of the hub reads the same value.
    """

    name: str
    kind: Kind
    unit: str
    says: str
    labels: tuple[str, ...] = ()
    is_of_hub: bool = False
    bounds: tuple[float, ...] = ()


Value = float | Buckets
Series = Mapping[Labels, Value]


class Reading(NamedTuple):
    """A metric and its series now."""

    metric: Metric
    series: Series


_STARTED: Final = Metric(
    "perdure.instance.started",
    "counter",
    "{instance}",
    "instances that were started, by what started them: a client, a parent, a schedule or a queue",
    ("orchestrator", "origin"),
)
_ENDED: Final = Metric(
    "perdure.instance.ended",
    "counter",
    "{instance}",
    "instances that ended, by status and, if they failed, by the type of the error that caused it",
    ("orchestrator", "status", "error.type"),
)
_LIFETIME: Final = Metric(
    "perdure.instance.duration",
    "histogram",
    "s",
    "time from the start of an instance to its end",
    ("orchestrator", "status"),
    bounds=LIFETIMES,
)
_PARKED: Final = Metric(
    "perdure.instance.parked",
    "counter",
    "{instance}",
    "instances that were parked: they keep their messages and wait for an operator or another worker",
    ("orchestrator", "reason"),
)
_INSTANCES: Final = Metric(
    "perdure.instances", "gauge", "{instance}", "instances in the hub, by status", ("status",), is_of_hub=True
)
_PARKED_NOW: Final = Metric(
    "perdure.parked.instances",
    "gauge",
    "{instance}",
    "instances that are parked now",
    is_of_hub=True,
)
_OLDEST: Final = Metric(
    "perdure.instance.oldest",
    "gauge",
    "s",
    "age of the oldest unfinished instance, by status; 0 without one",
    ("status",),
    is_of_hub=True,
)
_REPLAYS: Final = Metric(
    "perdure.replays",
    "counter",
    "{replay}",
    "how often the code of an instance was recreated from its history, and why",
    ("orchestrator", "reason"),
)
_REPLAY_SECONDS: Final = Metric(
    "perdure.replay.duration", "histogram", "s", "how long a replay took", ("orchestrator",), bounds=DURATIONS
)
_REPLAY_EVENTS: Final = Metric(
    "perdure.replay.events", "counter", "{event}", "events that were replayed", ("orchestrator",)
)
_ATTEMPTS: Final = Metric(
    "perdure.activity.attempts",
    "counter",
    "{attempt}",
    "attempts of activities that ended, by outcome",
    ("activity", "outcome"),
)
_ATTEMPT_SECONDS: Final = Metric(
    "perdure.activity.duration",
    "histogram",
    "s",
    "how long the body of an activity ran",
    ("activity", "outcome"),
    bounds=DURATIONS,
)
_WAITED: Final = Metric(
    "perdure.activity.wait",
    "histogram",
    "s",
    "time from the call of an activity to the beginning of its body",
    ("activity", "host"),
    bounds=DURATIONS,
)
_RUNNING: Final = Metric(
    "perdure.activity.running", "gauge", "{attempt}", "attempts that run on this worker", ("activity",)
)
_QUEUED: Final = Metric(
    "perdure.activity.queued",
    "gauge",
    "{attempt}",
    "attempts that wait for a free place on this worker",
    ("activity",),
)
_RETRIES: Final = Metric(
    "perdure.activity.retries", "counter", "{retry}", "attempts after the first of a call", ("activity",)
)
_RAISED: Final = Metric(
    "perdure.event.raised", "counter", "{event}", "external events that were accepted", ("orchestrator",)
)
_DROPPED: Final = Metric(
    "perdure.event.dropped",
    "counter",
    "{event}",
    "accepted events that could not be delivered, and why",
    ("orchestrator", "reason"),
)
_WAITS: Final = Metric(
    "perdure.wait.open", "gauge", "{wait}", "open waits for an external event", ("event",), is_of_hub=True
)
_LATENESS: Final = Metric(
    "perdure.timer.lateness", "histogram", "s", "how long after its time a timer fired", bounds=LIFETIMES
)
_COMMIT: Final = Metric(
    "perdure.commit.duration", "histogram", "s", "how long a commit took", ("store",), bounds=COMMITS
)
_BATCH: Final = Metric(
    "perdure.commit.batch", "histogram", "{episode}", "steps of instances in one commit", bounds=BATCHES
)
_BUSY: Final = Metric(
    "perdure.loop.busy",
    "counter",
    "s",
    "time that the engine's loop spent deciding, committing, and releasing what was decided",
    ("part",),
)
_WARM: Final = Metric("perdure.warm.instances", "gauge", "{instance}", "instances whose code is in memory")
_WARM_BYTES: Final = Metric("perdure.warm.memory", "gauge", "By", "approximate memory of these instances")
_EVICTIONS: Final = Metric("perdure.evictions", "counter", "{instance}", "instances evicted from memory")
_STALE: Final = Metric(
    "perdure.stale_results", "counter", "{result}", "results that no call awaited any more"
)
_SIZE: Final = Metric("perdure.store.size", "gauge", "By", "size of the store on disk", is_of_hub=True)
_LOST: Final = Metric(
    "perdure.worker.leases.lost", "counter", "{lease}", "leases that this worker lost to other workers"
)
_TAKEOVERS: Final = Metric(
    "perdure.worker.takeovers", "counter", "{lease}", "leases of dead workers that this worker ended"
)
_DENIED: Final = Metric(
    "perdure.http.denied", "counter", "{request}", "requests that the server denied, and why", ("reason",)
)
_TELEMETRY: Final = Metric(
    "perdure.telemetry.dropped", "counter", "{span}", "spans that were not exported, because too many waited"
)
METRICS: Final = (
    *(_STARTED, _ENDED, _LIFETIME, _PARKED, _INSTANCES, _PARKED_NOW, _OLDEST),
    *(_REPLAYS, _REPLAY_SECONDS, _REPLAY_EVENTS),
    *(
        _ATTEMPTS,
        _ATTEMPT_SECONDS,
        _WAITED,
        _RUNNING,
        _QUEUED,
        _RETRIES,
        _RAISED,
        _DROPPED,
        _WAITS,
        _LATENESS,
    ),
    *(_COMMIT, _BATCH, _BUSY, _WARM, _WARM_BYTES, _EVICTIONS, _STALE, _SIZE, _LOST, _TAKEOVERS, _DENIED),
    _TELEMETRY,
)
"""All metrics. Their names are permanent."""
BY_NAME: Final = {metric.name: metric for metric in METRICS}


class Metrics:
    """The metrics of one engine.

    `watch` must be called with the engine before the first reading. `denied` counts the requests that a server
    denied; the server adds to it. `spans_dropped` returns how many spans the exporter has dropped. `gather` asks all
    workers of a supervisor, where there is one.
    """

    follows_bodies = False

    def __init__(self, registry: Registry, store: str) -> None:
        self.counting = Counting(registry, store)
        self.committed = self.counting.committed  # no call between the loop and the counting
        self.denied: dict[str, int] = {}
        self.spans_dropped: Callable[[], int] = lambda: 0
        self.gather: Callable[[], Awaitable[list[tuple[str, list[Reading]]]]] | None = None
        self._hub: HubGauges | None = None
        self._engine: Engine | None = None
        self._activities = sorted(name for name in registry.activities if not name.startswith(BUILT_IN))
        self._known = frozenset(registry.activities)

    def begun(self, attempt: Body) -> None:
        """Not wanted."""

    def ended(self, attempt: Body, result: ActivityResult) -> None:
        """Not wanted."""

    def watch(self, engine: Engine) -> None:
        """Read the gauges of this engine from now on."""
        self._engine = engine
        self._hub = HubGauges(engine, time.monotonic)

    @property
    def worker(self) -> str:
        """The name of the worker that these metrics are of: stable over restarts, if the hub has only one."""
        engine = self._engine
        if engine is None:
            return ""
        named = engine.settings.belonging.worker_name
        return named or (engine.worker_name if engine.loop.sharing is not None else socket.gethostname())

    @property
    def is_open(self) -> bool:
        """Whether the engine runs, so that its store can be asked."""
        return self._engine is not None and not self._engine.loop.stopping

    def read(self, *, of_hub: bool = True) -> list[Reading]:
        """The values now. From any thread; it may ask the store, for the gauges of the hub."""
        if self._engine is not None:
            self.counting.let_go(self._engine.now() - EXEMPLARS_KEPT)
        return [*self.counted(), *self.gauges(of_hub=of_hub)]

    def counted(self) -> Iterator[Reading]:
        """Counters and histograms."""
        counting = self.counting
        for metric, counts in self._counts():
            yield Reading(metric, _copied(counts))
        for metric, histograms in (
            (_LIFETIME, counting.lifetimes),
            (_REPLAY_SECONDS, counting.replay_seconds),
            (_ATTEMPT_SECONDS, counting.attempt_seconds),
            (_WAITED, counting.waited),
            (_LATENESS, counting.late_timers),
            (_COMMIT, counting.commits),
            (_BATCH, counting.batches),
        ):
            yield Reading(metric, _copied(histograms))

    def _counts(self) -> Iterator[tuple[Metric, Mapping[Labels, float]]]:
        counting = self.counting
        yield _STARTED, counting.started
        yield _ENDED, counting.ends
        yield _PARKED, counting.parked
        yield _REPLAYS, counting.replays
        yield _REPLAY_EVENTS, counting.replayed_events
        yield _ATTEMPTS, counting.attempts
        yield _RETRIES, counting.retries
        yield _RAISED, counting.raised
        yield _DROPPED, counting.dropped
        yield _BUSY, {(part,): seconds for part, seconds in _copied(counting.busy).items()}
        yield _DENIED, {(reason,): count for reason, count in _copied(self.denied).items()}
        yield _TELEMETRY, {(): self.spans_dropped()}
        if self._engine is not None:
            figures = self._engine.figures()
            yield _EVICTIONS, {(): figures.evictions}
            yield _STALE, {(): figures.stale_results}
            yield _LOST, {(): figures.leases_lost}
            yield _TAKEOVERS, {(): figures.takeovers}

    def gauges(self, *, of_hub: bool = True) -> Iterator[Reading]:
        """What is so at this moment, on this worker and in its hub."""
        if self._engine is None or self._hub is None:
            return
        figures = self._engine.figures()
        yield Reading(_WARM, {(): figures.warm})
        yield Reading(_WARM_BYTES, {(): figures.warm_bytes})
        running, queued = self._load(figures)
        yield Reading(_RUNNING, running)
        yield Reading(_QUEUED, queued)
        if of_hub:
            yield from self._hub.read()

    def _load(self, figures: Figures) -> tuple[Counts, Counts]:
        running, queued = Counts(), Counts()
        for name in self._activities:
            running[name,] = queued[name,] = 0
        for name, (runs, waits) in figures.load.items():
            label = name if name in self._known else OTHER
            running[label,] += runs
            queued[label,] += waits
        return running, queued


def metrics_of(telemetry: Telemetry) -> Metrics | None:
    """The metrics among what listens to an engine; None if telemetry is off."""
    return next((one for one in listeners_of(telemetry) if isinstance(one, Metrics)), None)


class HubGauges:
    """The gauges of a hub, which all its workers share.

    The store is asked at most every ten seconds, and after a slow answer less often: so that asking takes at most two
    percent of the time. `monotonic` is a clock, in seconds.
    """

    def __init__(self, engine: Engine, monotonic: Callable[[], float]) -> None:
        self._engine = engine
        self._monotonic = monotonic
        self._events = _declared_events(engine.registry)
        self._made_up = 0
        self._asking = threading.Lock()
        self._last: list[Reading] = []
        self._good_until = 0.0

    def read(self) -> list[Reading]:
        """The gauges of the last seconds; those of the last answer if the store does not answer."""
        with self._asking:
            began = self._monotonic()
            if began >= self._good_until:
                try:
                    self._last = self._ask()
                except StoreError:
                    pass
                ended = self._monotonic()
                self._good_until = ended + max(AT_MOST_EVERY, PAUSE * (ended - began))
            return self._last

    def _ask(self) -> list[Reading]:
        store, now = self._engine.store, self._engine.now()
        counts = instance_counts(store)
        by_status = dict.fromkeys(STATUSES, 0) | counts.by_status
        gauges = store.gauges()
        return [
            Reading(_INSTANCES, {(status,): count for status, count in by_status.items()}),
            Reading(_PARKED_NOW, {(): counts.parked}),
            Reading(
                _OLDEST,
                {(status,): max(0, now - gauges.oldest.get(status, now)) / 1e6 for status in UNFINISHED},
            ),
            Reading(_WAITS, self._by_event(gauges.waits)),
            Reading(_SIZE, {(): gauges.size}),
        ]

    def _by_event(self, waits: Mapping[str, int]) -> Counts:
        """The waits by event. Code can make up any number of names, so only the first ones have series."""
        found = Counts({(name,): 0 for name in self._events})
        for name, count in waits.items():
            if name not in self._events and self._made_up < EVENTS:
                self._events.add(name)
                self._made_up += 1
            found[(name if name in self._events else OTHER),] += count
        return found


UNFINISHED: Final = ("Pending", "Running", "Suspended")
STATUSES: Final = (*UNFINISHED, "Completed", "Failed", "Terminated")


def _declared_events(registry: Registry) -> set[str]:
    """The events that orchestrators declare, without patterns."""
    declared = (name for one in registry.orchestrators.values() for name in one.events or ())
    return {name for name in declared if "*" not in name}


def _copied(series: Mapping[Any, Any]) -> dict[Any, Any]:
    """A copy, while the loop's thread may add series."""
    return dict(list(series.items()))


__all__ = ["BY_NAME", "METRICS", "Metric", "Metrics", "Reading", "Value", "metrics_of"]
