"""Python's log records as OpenTelemetry's, with the durable code that they come from.

OpenTelemetry's API for logs is still private in Python. This module alone uses it, for the exporters that
`telemetry.setup` creates.
"""

from __future__ import annotations

import logging
import traceback
from typing import Final

from opentelemetry import trace
from opentelemetry._logs import LoggerProvider, LogRecord, SeverityNumber
from opentelemetry.context import Context

from perdure.telemetry.log_context import LogContext

_LIBRARIES: Final = ("azure.", "opentelemetry.", "urllib3.", "requests.", "perdure.telemetry.")
"""Loggers of what exports, and of what reports its failures: their records would cause further exports."""
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_SEVERITIES: Final = (
    (logging.CRITICAL, SeverityNumber.FATAL),
    (logging.ERROR, SeverityNumber.ERROR),
    (logging.WARNING, SeverityNumber.WARN),
    (logging.INFO, SeverityNumber.INFO),
)


class LogExport(logging.Handler):
    """Passes the records of all loggers to a provider, except those of the exporters themselves."""

    def __init__(self, provider: LoggerProvider) -> None:
        super().__init__(logging.INFO)
        self._provider = provider
        self.addFilter(LogContext())
        self.addFilter(lambda record: not f"{record.name}.".startswith(_LIBRARIES))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._provider.get_logger(record.name).emit(_exported(record))
        except Exception:
            self.handleError(record)


def _exported(record: logging.LogRecord) -> LogRecord:
    attributes = {
        name: value
        for name, value in vars(record).items()
        if name not in _STANDARD and isinstance(value, str | int | float | bool) and value != ""
    }
    trace_id, span_id = str(attributes.pop("trace_id", "")), str(attributes.pop("span_id", ""))
    if not attributes.get("attempt"):
        attributes.pop("attempt", None)
    if record.exc_info and record.exc_info[0] is not None:
        attributes["exception.type"] = record.exc_info[0].__name__
        attributes["exception.message"] = str(record.exc_info[1])
        attributes["exception.stacktrace"] = "".join(traceback.format_exception(*record.exc_info))
    at = int(record.created * 1e9)
    return LogRecord(
        timestamp=at,
        observed_timestamp=at,
        context=context_of(int(trace_id, 16), int(span_id, 16)) if trace_id and span_id else None,
        severity_text=record.levelname,
        severity_number=_severity_of(record.levelno),
        body=record.getMessage(),
        attributes=attributes,
    )


def _severity_of(level: int) -> SeverityNumber:
    return next((severity for least, severity in _SEVERITIES if level >= least), SeverityNumber.DEBUG)


def context_of(trace_id: int, span_id: int) -> Context:
    """A context whose current span has these ids."""
    found = trace.SpanContext(trace_id, span_id, False, trace.TraceFlags(trace.TraceFlags.SAMPLED))
    return trace.set_span_in_context(trace.NonRecordingSpan(found), Context())


__all__ = ["LogExport", "context_of"]
