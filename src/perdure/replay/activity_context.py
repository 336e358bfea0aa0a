"""What an activity sees of the call it serves."""

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
    """What passes between the attempt and the worker that runs it."""

    @property
    def is_cancelled(self) -> bool: ...

    @property
    def reason(self) -> str: ...

    def beat(self, progress: bytes | None) -> None: ...

    def event(self) -> threading.Event: ...


class ActivityContext:
    """What an activity may know about the call it serves. Ask for it with a parameter annotated so."""

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
        """Say that this attempt is alive, and how far it is. From any thread, as often as you like.

        `progress` is any small JSON: a number from 0 to 1 is shown as a percentage, [done, total] as
        "done of total". It is kept in memory, for the status; None leaves what was said before.
        Raises PayloadError for what JSON cannot carry or beyond 4 KiB.
        """
        said = None if progress is None else payload.encode(progress, limit=PROGRESS_LIMIT)
        self._signals.beat(said)

    @property
    def is_cancelled(self) -> bool:
        """Whether the result of this attempt is still wanted: no, once it was cancelled or timed out."""
        return self._signals.is_cancelled

    @property
    def cancelled(self) -> threading.Event:
        """Set once this attempt is cancelled: `context.cancelled.wait(5)` instead of `time.sleep(5)`."""
        return self._signals.event()

    @property
    def cancel_reason(self) -> str:
        """Why this attempt was cancelled; "" while it is not."""
        return self._signals.reason

    def raise_if_cancelled(self) -> None:
        """Raise ActivityCancelled if this attempt was cancelled. Call it between two pieces of work."""
        if self._signals.is_cancelled:
            raise ActivityCancelled(
                f"activity {self.activity_name!r} of instance {self.instance_id!r} (attempt {self.attempt}) "
                f"was cancelled: {self._signals.reason}"
            )
