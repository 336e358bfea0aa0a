"""The trace that an execution belongs to, as messages and history keep it.

The field `trace` is a W3C `traceparent`, followed by a space and the `tracestate` if there is one; "" is no trace.
Its flags are the decision of a sampler, made once for a tree of orchestrations: sub-orchestrations inherit the
field unchanged. An execution that continues as new begins a new trace with the same decision. Its field names
the span of the execution before, and the entry `perdure` of its tracestate names the trace of that span. An
execution that begins a trace without a caller's, such as a run of a schedule, names its own span.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from perdure.model.events import ExecutionStarted
from perdure.model.span_ids import span_id_of, trace_id_of

STATE_LIMIT: Final = 512
"""The longest tracestate in bytes; a longer one is dropped, as W3C allows."""
SAMPLED: Final = 1
_OURS: Final = "perdure"
_FLAGS_AT: Final = len("00-") + 32 + len("-") + 16 + len("-")
_FORM: Final = re.compile(
    r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[^ ]*)?(?: (.*))?", re.S
)


class TraceContext(NamedTuple):
    """A trace, the span in it that is the parent, and the decision of the sampler."""

    trace_id: int
    span_id: int
    flags: int = SAMPLED
    state: str = ""

    @property
    def is_sampled(self) -> bool:
        return bool(self.flags & SAMPLED)

    @property
    def traceparent(self) -> str:
        """The value of the header `traceparent`."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{self.flags & SAMPLED:02x}"

    def text(self) -> str:
        """The field `trace`, without a tracestate that is too long or that a header cannot carry."""
        state = self.state
        if not state or len(state) > STATE_LIMIT or not (state.isascii() and state.isprintable()):
            return self.traceparent
        return f"{self.traceparent} {state}"


@lru_cache(4_096)  # the bodies and the calls of one execution have the same
def trace_in(text: str) -> TraceContext | None:
    """The trace in a field, or in a `traceparent`; None for "" and for text that is not one."""
    found = _FORM.fullmatch(text) if text else None
    if found is None:
        return None
    version, trace_id, span_id, flags, more, state = found.groups()
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return TraceContext(int(trace_id, 16), int(span_id, 16), int(flags, 16), state or "")


def is_sampled(text: str) -> bool:
    """Whether a field that `TraceContext.text` wrote says that the trace is sampled."""
    return text.startswith("01", _FLAGS_AT)


def trace_begun(instance_id: str, execution_id: str, *, sampled: bool, caller: str = "") -> str:
    """The trace of an execution that begins one, with the decision of the sampler.

    It has no parent: its field names its own span. `caller` is the trace of the execution that called it, if any;
    the entry `perdure` of its tracestate names it.
    """
    called = trace_in(caller)
    return TraceContext(
        trace_id_of(instance_id, execution_id),
        span_id_of(instance_id, execution_id),
        SAMPLED if sampled else 0,
        f"{_OURS}={called.trace_id:032x}" if called is not None else "",
    ).text()


def trace_called(trace: TraceContext) -> int:
    """The trace of the execution that called one which began a trace of its own; 0 if there is none."""
    return _named_in(trace)


def ids_of(instance_id: str, execution_id: str, trace: str) -> tuple[int, int]:
    """The ids of the trace of an execution and of its own span, from its field."""
    found = trace_in(trace)
    trace_id = found.trace_id if found is not None else trace_id_of(instance_id, execution_id)
    return trace_id, span_id_of(instance_id, execution_id)


def trace_continued(trace: str, instance_id: str, before: str, execution_id: str) -> str:
    """The trace of an execution that continues the execution `before`; "" if that had none."""
    found = trace_in(trace)
    if found is None:
        return ""
    rest = [one for one in found.state.split(",") if one and not one.startswith(f"{_OURS}=")]
    return TraceContext(
        trace_id_of(instance_id, execution_id),
        span_id_of(instance_id, before),
        found.flags,
        ",".join([f"{_OURS}={found.trace_id:032x}", *rest]),
    ).text()


def trace_before(trace: str, instance_id: str, before: str) -> TraceContext:
    """The span of the execution `before` that this execution continues, from the field of this execution."""
    found = trace_in(trace)
    named = _named_in(found) if found is not None else 0
    return TraceContext(named or trace_id_of(instance_id, before), span_id_of(instance_id, before))


def _named_in(found: TraceContext) -> int:
    """The trace that the entry `perdure` of a tracestate names; 0 without one."""
    state = found.state.split(",")
    named = next((one.partition("=")[2] for one in state if one.startswith(f"{_OURS}=")), "")
    return int(named, 16) if re.fullmatch("[0-9a-f]{32}", named) else 0


def trace_of(episodes: Iterable[tuple[int, Iterable[object]]]) -> str:
    """The field of a recorded execution, "" before it begins. Only operators' events can precede its start."""
    return next((e.trace for _, events in episodes for e in events if isinstance(e, ExecutionStarted)), "")


__all__ = [
    "SAMPLED",
    "STATE_LIMIT",
    "TraceContext",
    "is_sampled",
    "ids_of",
    "trace_before",
    "trace_begun",
    "trace_called",
    "trace_continued",
    "trace_in",
    "trace_of",
]
