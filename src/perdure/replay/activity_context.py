"""The context of an activity's call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

from perdure.errors import ActivityCancelled
from perdure.model import payload
from perdure.replay.settle import Invocation

if TYPE_CHECKING:
    import threading

T = TypeVar("T")
PROGRESS_LIMIT = 4 * 1024  # bytes


class Signals(Protocol):
    """The signals between an attempt and its worker."""

    @property
    def is_cancelled(self) -> bool: ...

    @property
    def reason(self) -> str: ...

    def beat(self, progress: bytes | None) -> None: ...

    def event(self) -> threading.Event: ...


class ActivityContext:
    """The context of an activity's call. An activity gets it through a parameter with this annotation."""

    __slots__ = (
        "_input",
        "_signals",
        "activity_name",
        "attempt",
        "execution_id",
        "idempotency_key",
        "instance_id",
        "task_id",
    )

    def __init__(self, invocation: Invocation, signals: Signals) -> None:
        self.instance_id = invocation.instance_id
        self.execution_id = invocation.execution_id
        self.task_id = invocation.task_id
        self.activity_name = invocation.name
        self.attempt = invocation.attempt
        self.idempotency_key = invocation.idempotency_key
        self._input = invocation.input
        self._signals = signals

    @overload
    def get_input(self, expected_type: type[T]) -> T: ...
    @overload
    def get_input(self, expected_type: Any = Any) -> Any: ...
    def get_input(self, expected_type: Any = Any) -> Any:
        """The input, typed if a type is given. Raises PayloadError on a misfit."""
        return payload.decode(self._input, expected_type) if bytes(self._input) else None

    def heartbeat(self, progress: Any = None) -> None:
        """Report that this attempt is alive, and its progress. From any thread, as often as you like.

        `progress` is any small JSON: a number from 0 to 1 is shown as a percentage, [done, total] as "done of
        total". It is kept in memory, for the status; None keeps the previous progress. Raises PayloadError for
        a value that JSON cannot represent or beyond 4 KiB.
        """
        said = None if progress is None else payload.encode(progress, limit=PROGRESS_LIMIT)
        self._signals.beat(said)

    @property
    def is_cancelled(self) -> bool:
        """Whether this attempt was cancelled or timed out, so that its result is no longer wanted."""
        return self._signals.is_cancelled

    @property
    def cancelled(self) -> threading.Event:
        """Set once this attempt is cancelled: `context.cancelled.wait(5)` instead of `time.sleep(5)`."""
        return self._signals.event()

    @property
    def cancel_reason(self) -> str:
        """Why this attempt was cancelled; "" if it was not."""
        return self._signals.reason

    def raise_if_cancelled(self) -> None:
        """Raise ActivityCancelled if this attempt was cancelled. Call it between two pieces of work."""
        if self._signals.is_cancelled:
            raise ActivityCancelled(
                f"activity {self.activity_name!r} of instance {self.instance_id!r} (attempt {self.attempt}) "
                f"was cancelled: {self._signals.reason}"
            )
