"""An activity that other processes import."""

import logging

import perdure as df

FIELDS = ("hub", "instance_id", "execution_id", "orchestrator", "entity", "activity", "attempt")


class _Last(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.addFilter(df.LogContext())
        self.found: dict[str, object] = {}

    def emit(self, record: logging.LogRecord) -> None:
        self.found = {name: getattr(record, name) for name in FIELDS}


_last = _Last()
_log = logging.getLogger("elsewhere")  # no page of the documentation configures it
_log.addHandler(_last)
_log.setLevel(logging.INFO)


async def told() -> dict:
    """The attributes of a record that an activity writes there."""
    _log.info("elsewhere")
    return _last.found


def traced() -> list:
    """The trace and the span that are current for an activity there."""
    from opentelemetry import trace

    found = trace.get_current_span().get_span_context()
    return [f"{found.trace_id:032x}", f"{found.span_id:016x}", int(found.trace_flags)]


async def traced_async() -> list:
    return traced()
