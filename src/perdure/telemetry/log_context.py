"""`LogContext`: names, in each log record, the durable code that wrote it."""

from __future__ import annotations

import logging
import sys
from typing import Any, Final

from perdure.engine.running_code import WANTED, RunningCode, running_code

_OUTSIDE: Final = RunningCode()


class LogContext(logging.Filter):
    """Adds to each log record which hub, instance and function it comes from. It lets every record pass.

    Put it on a handler: then it sees the records of all loggers, also those of libraries that an activity uses.
    It knows orchestrators, entities and activities on the event loop, on threads and in executors, and adds these
    attributes, which a formatter can use:

    - `hub`, `instance_id`, `execution_id`: the instance;
    - `orchestrator`: the name of the instance's orchestrator; or `entity`: the name of the entity;
    - `activity` and `attempt`: the activity, and which attempt of its call this is, from 1;
    - `trace_id` and `span_id`: of OpenTelemetry's current span, in hexadecimal digits.

    An attribute that does not apply is "", and `attempt` is 0, so that a format string never fails. An attribute
    that the record already has, such as one from `extra=`, keeps its value.

    Parameters:
        name: add the attributes only to records of this logger and those below it, such as "claims". Default:
            all loggers.
    """

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        WANTED.is_wanted = True

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the attributes. Returns True."""
        if super().filter(record):
            own = record.__dict__
            for name, value in (running_code() or _OUTSIDE)._asdict().items():
                own.setdefault(name, value)
            own.setdefault("trace_id", "")
            own.setdefault("span_id", "")
            span = _span()
            if span is not None and not own["trace_id"]:
                own["trace_id"], own["span_id"] = f"{span.trace_id:032x}", f"{span.span_id:016x}"
        return True


def _span() -> Any:
    """The context of the current span. No span can be current before something has imported OpenTelemetry."""
    api: Any = sys.modules.get("opentelemetry.trace")
    found = api.get_current_span().get_span_context() if api is not None else None
    return found if found is not None and found.is_valid else None


__all__ = ["LogContext"]
