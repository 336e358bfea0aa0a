"""The ids of traces and spans, computed from history: a format, like history itself.

Replays, restarts and takeovers compute the same ids, also years later and in another process. An id is a BLAKE2b
digest over parts in UTF-8 with a NUL between two, read as a big-endian number; zero, which OpenTelemetry rejects,
becomes one. The parts begin with the instance id, because the execution id alone contains only four random bytes,
which are too few for the executions of a whole hub.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

_EXECUTION: Final = "execution"


def trace_id_of(instance_id: str, execution_id: str) -> int:
    """The id of the trace whose root is this execution, unless its start carried a trace."""
    return _digest(16, instance_id, execution_id)


def span_id_of(instance_id: str, execution_id: str, part: int | str = _EXECUTION, ending: int = 0) -> int:
    """The id of a span that history implies.

    Parameters:
        part: the id of the event that began it; without one, the span is that of the execution.
        ending: how many spans of this part ended before, which only a rewind causes.
    """
    parts = (instance_id, execution_id, str(part))
    return _digest(8, *parts, str(ending)) if ending else _digest(8, *parts)


def _digest(size: int, *parts: str) -> int:
    digest = blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=size).digest()
    return int.from_bytes(digest, "big") or 1


__all__ = ["span_id_of", "trace_id_of"]
