"""The custom event `OrchestrationEnded` for Application Insights: samplers drop spans, but no event."""

from __future__ import annotations

import json
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


class EndedEvents:
    """Emits an event for each orchestration that has ended, with its status, seconds, replays and episodes.

    Parameters:
        hub: the hub.
        loggers: OpenTelemetry's provider of loggers.
    """

    follows_bodies = False

    def __init__(self, hub: str, loggers: Any) -> None:
        self._hub = hub
        self._logger = loggers.get_logger("perdure")

    def committed(self, durable: Durable) -> None:
        for instance in durable.released.finished:
            if instance.entity_state is None:
                self._logger.emit(self._event_of(instance, durable.trace_of(instance)))

    def begun(self, attempt: Body) -> None:
        pass

    def ended(self, attempt: Body, result: ActivityResult) -> None:
        pass

    def close(self) -> None:
        pass

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
