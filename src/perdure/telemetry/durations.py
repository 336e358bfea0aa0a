"""Durations for OpenTelemetry, which has no histogram that reads what is already counted.

A record costs OpenTelemetry microseconds, which the loop must not spend. So the loop hands over each batch, and a
thread records its durations: up to 2,000 a second, and of more every second one, third one and so on. The counters
beside these histograms are exact, and so is `/metrics`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry import metrics as otel

from perdure.engine.core.noted import Replayed, TimerWasDue
from perdure.telemetry.counting import Labels, epoch_of
from perdure.telemetry.metrics import BY_NAME, METRICS

if TYPE_CHECKING:
    from perdure.engine.core.telemetry import Body, Durable
    from perdure.model.messages import ActivityResult
    from perdure.telemetry.counting import Counting

A_SECOND: Final = 2_000  # records
WAITING: Final = 1_000  # batches that wait for the thread; of more, the oldest are left out
SCOPE: Final = "perdure"


class Duration(NamedTuple):
    """One value for a histogram."""

    name: str
    labels: Labels
    value: float


class Durations:
    """Listens at the engine's port, and records durations with the present provider.

    Parameters:
        counting: tells how functions are named in labels.
        store: the kind of the store.
        monotonic: a clock, in seconds.
    """

    follows_bodies = False

    def __init__(
        self, counting: Counting, store: str, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._counting = counting
        self._store = store
        self._sampler = Sampler(monotonic)
        self._histograms = _histograms(otel.get_meter(SCOPE))
        self._waiting: deque[tuple[Durable, float]] = deque(maxlen=WAITING)
        self._wanted = threading.Event()
        self._is_closing = False
        self._thread = threading.Thread(target=self._work, name="perdure-durations", daemon=True)
        self._thread.start()

    def committed(self, durable: Durable) -> None:
        """Hand over a batch. On the loop's thread."""
        self._waiting.append((durable, time.monotonic()))
        if not self._wanted.is_set():
            self._wanted.set()

    def begun(self, attempt: Body) -> None:
        """Not wanted."""

    def ended(self, attempt: Body, result: ActivityResult) -> None:
        """Not wanted."""

    def close(self) -> None:
        """Record what waits, and stop. Blocks."""
        self._is_closing = True
        self._wanted.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._is_closing:
            self._wanted.wait()
            self._wanted.clear()
            self._record_waiting()
        self._record_waiting()

    def _record_waiting(self) -> None:
        while self._waiting:
            for one in self._durations(*self._waiting.popleft()):
                if self._sampler.takes():
                    attributes = dict(zip(BY_NAME[one.name].labels, one.labels, strict=True))
                    self._histograms[one.name].record(one.value, attributes)

    def _durations(self, durable: Durable, at: float) -> Iterator[Duration]:
        counting, epoch = self._counting, epoch_of(durable, at)
        for instance in durable.released.finished:
            if instance.entity_state is None and instance.completed_at is not None:
                labels = counting.orchestrator(instance.name), str(instance.status)
                seconds = (instance.completed_at - instance.created_at) / 1e6
                yield Duration("perdure.instance.duration", labels, max(0.0, seconds))
        for attempt in durable.attempts:
            if attempt.since and attempt.outcome:
                activity, called_at = (
                    counting.activity(attempt.invocation.name),
                    attempt.invocation.scheduled_at,
                )
                yield Duration("perdure.activity.duration", (activity, attempt.outcome), attempt.seconds)
                if called_at:
                    waited = max(0.0, attempt.since + epoch - called_at / 1e6)
                    yield Duration("perdure.activity.wait", (activity, attempt.where), waited)
        for noted in durable.released.noted:
            match noted:
                case TimerWasDue(late):
                    yield Duration("perdure.timer.lateness", (), max(0, late) / 1e6)
                case Replayed(name, _, _, seconds):
                    yield Duration("perdure.replay.duration", (counting.orchestrator(name),), seconds)
                case _:
                    pass
        if durable.seconds is not None and not durable.batch.is_empty():
            yield Duration("perdure.commit.duration", (self._store,), durable.seconds)
            yield Duration("perdure.commit.batch", (), float(len(durable.batch.history)))


class Sampler:
    """Takes every one of up to 2,000 a second, and every n-th of more. `monotonic` is a clock, in seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._second = monotonic()
        self._seen = 0
        self._every = 1

    def takes(self) -> bool:
        """Whether to record the next one."""
        self._seen += 1
        if self._seen % self._every:
            return False
        now = self._monotonic()
        if now - self._second >= 1.0:
            self._every = max(1, round(self._seen / (now - self._second) / A_SECOND))
            self._second, self._seen = now, 0
        elif self._seen >= 2 * A_SECOND * self._every:  # a burst: do not wait for the end of its second
            self._every *= 2
        return True


def _histograms(meter: otel.Meter) -> Mapping[str, Any]:
    return {
        metric.name: meter.create_histogram(
            metric.name, metric.unit, metric.says, explicit_bucket_boundaries_advisory=metric.bounds
        )
        for metric in METRICS
        if metric.kind == "histogram"
    }


__all__ = ["Durations", "Sampler"]
