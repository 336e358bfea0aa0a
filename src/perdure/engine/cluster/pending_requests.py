"""Requests: a client's message for an instance of another worker, and the owner's answer.

Only the owner of an instance decides about a message. A worker that accepts a message for another owner's
instance therefore puts it into the inbox as a `Request`. The owner processes it like a message of its own
client and stores the answer in the same transaction. The requesting worker finds the answer there and returns
it to its client. A start with an unused id needs no request: the row that takes the id is the answer. If no
owner answers in time, a durable message counts as accepted where the client asked for acceptance only; if the
owner rejects it later, it leaves a record among the dropped messages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from perdure.engine.core.ports import OWNER_ANSWERS_WITHIN, Asked
from perdure.engine.core.remembered import answer_in, damaged_answer
from perdure.engine.core.repeats import Met, id_in, recalled
from perdure.errors import OutcomeUnknown, PerdureError, StoreError, error_of
from perdure.model.messages import (
    EntityOperation,
    Message,
    RaiseEvent,
    Resume,
    Suspend,
    Terminate,
)
from perdure.model.records import InstanceRow, SeenRow

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perdure.store.port import EngineStore

HASTE: Final = 200_000  # the same when no owner is alive
ASKED_AT_ONCE: Final = 500
_ACCEPTANCE_IS_ENOUGH: Final = (RaiseEvent, EntityOperation, Suspend, Resume, Terminate)


class Requests:
    """The pending requests of this worker's clients. For the loop's thread."""

    def __init__(self) -> None:
        self._open: dict[str, Asked] = {}

    def __bool__(self) -> bool:
        return bool(self._open)

    def sent(self, asked: Iterable[Asked]) -> None:
        """Register durable requests, whose answers `collect` returns."""
        for one in asked:
            self._open[one.request_id] = one

    def collect(self, store: EngineStore, now: int, *, hurried: bool = False) -> list[tuple[Any, Any]]:
        """Returns (future, result) pairs: answers found, and timeouts.

        `hurried` shortens the timeout for a visiting command when no owner can answer.
        """
        asked = list(self._open)[:ASKED_AT_ONCE]
        said = {row.operation_id: _answer_in(row) for row in store.seen(asked)}
        sooner = OWNER_ANSWERS_WITHIN - HASTE if hurried else 0
        late = [
            one for one in self._open.values() if one.request_id not in said and one.until - sooner <= now
        ]
        if late:
            said.update(_said_without_owners(store, late))
        # Removed only now: after a failing query every request must still be pending for the next one.
        return [(self._open.pop(request_id).reply, value) for request_id, value in said.items()]

    def refused(self, error: PerdureError) -> list[tuple[Any, Any]]:
        """All pending requests with this error, because no answers are collected any more."""
        left, self._open = list(self._open.values()), {}
        return [(one.reply, error) for one in left]


def _said_without_owners(store: EngineStore, late: list[Asked]) -> dict[str, Any]:
    """The results of requests without an answer, by request id."""
    known = {row.instance_id: row for row in store.rows([one.message.instance_id for one in late])}
    names = [name for one in late if (name := id_in(one.message))]
    before = {row.operation_id: row for row in store.seen(names)}
    said: dict[str, Any] = {}
    for one in late:
        first = before.get(id_in(one.message))
        unanswered = _unanswered(one.message, known.get(one.message.instance_id))
        said[one.request_id] = unanswered if first is None else recalled(first, one.message)
    return said


def _answer_in(row: SeenRow) -> Any:
    try:
        said = answer_in(row)
    except StoreError as damaged:
        return damaged
    if not isinstance(said, dict) or not said.keys() & {"error", "ok"}:
        return damaged_answer(row, "it is not a recorded answer")
    if "error" in said:
        return error_of(said["error"])(said["message"])
    return Met(said["ok"], said["born"]) if "born" in said else said["ok"]


def _unanswered(message: Message, row: InstanceRow | None) -> Any:
    """The result that is known without an owner's answer."""
    instance_id = message.instance_id
    if isinstance(message, EntityOperation):
        return None
    is_there = row is not None and row.completed_at is None
    if is_there and isinstance(message, _ACCEPTANCE_IS_ENOUGH):
        return None
    return OutcomeUnknown(
        f"no worker has answered for instance {instance_id!r}: the request is stored and may be done later. "
        "Check with `perdure workers` that a worker is running, then get the instance's status or repeat the "
        "request with the same id"
    )


__all__ = ["Requests"]
