"""The custom event `OrchestrationEnded` for Application Insights: samplers drop spans, but no event."""

from __future__ import annotations

import json
import logging
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from opentelemetry._logs import LogRecord, SeverityNumber

from perdure.failure import chain_of
from perdure.model.events import ExecutionFailed
from perdure.model.trace_context import ids_of
from perdure.telemetry.log_export import context_of

if TYPE_CHECKING:
    from perdure.engine.core.instance import Instance
    from perdure.engine.core.telemetry import Body, Durable
    from perdure.model.messages import ActivityResult

NAME: Final = "OrchestrationEnded"
STOPS_WITHIN: Final = 10.0  # seconds in which the last events must be emitted
log = logging.getLogger("perdure.telemetry")
Ended = tuple["Instance", str]
"""An instance, and the trace of its execution."""


class EndedEvents:
    """Emits an event for each orchestration that has ended, with its status, seconds, replays and episodes.

    The loop's thread hands over the instances, which have left its memory, and another thread emits their events.

    Parameters:
        hub: the hub.
        loggers: OpenTelemetry's provider of loggers.
    """

    follows_bodies = False

    def __init__(self, hub: str, loggers: Any) -> None:
        self._hub = hub
        self._logger = loggers.get_logger("perdure")
        self._queue: SimpleQueue[list[Ended] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._emit_all, name="perdure-ended", daemon=True)
        self._thread.start()

    def committed(self, durable: Durable) -> None:
        ended = durable.released.finished
        if ended:
            self._queue.put([(one, durable.trace_of(one)) for one in ended if one.entity_state is None])

    def begun(self, attempt: Body) -> None:
        """Not wanted."""

    def ended(self, attempt: Body, result: ActivityResult) -> None:
        """Not wanted."""

    def close(self) -> None:
        """Emit what is left, and stop."""
        self._queue.put(None)
        self._thread.join(STOPS_WITHIN)

    def _emit_all(self) -> None:
        while (ended := self._queue.get()) is not None:
            for instance, trace in ended:
                try:
                    self._logger.emit(self._event_of(instance, trace))
                except Exception:
                    log.exception("the event of an orchestration's end could not be emitted")

    def _event_of(self, instance: Instance, trace: str) -> LogRecord:
        at = instance.completed_at or instance.updated_at
        measurements = {
            "seconds": (at - instance.created_at) / 1e6,
            "replays": instance.replays,
            "episodes": instance.episodes,
        }
        attributes: dict[str, Any] = {
            "microsoft.custom_event.name": NAME,
            "microsoft.custom_measurements": json.dumps(measurements),
            "ai.operation.name": f"orchestration:{instance.name}",
            "hub": self._hub,
            "instance_id": instance.instance_id,
            "execution_id": instance.execution_id,
            "orchestrator": instance.name,
            "version": instance.version,
            "status": str(instance.status),
            "error_type": _error_of(instance),
        }
        return LogRecord(
            timestamp=at * 1_000,
            observed_timestamp=at * 1_000,
            context=context_of(*ids_of(instance.instance_id, instance.execution_id, trace)),
            severity_number=SeverityNumber.INFO,
            severity_text="INFO",
            body=NAME,
            attributes={name: value for name, value in attributes.items() if value},
        )


def _error_of(instance: Instance) -> str:
    """The class of the error at the root of a failure."""
    ending = instance.ending
    return chain_of(ending.failure)[-1].type if isinstance(ending, ExecutionFailed) else ""
