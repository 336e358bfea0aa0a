"""The ledger: the requests and answers of clients, and the content after each commit, by disk position."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from perdure.errors import (
    InstanceExists,
    InstanceFinished,
    InstanceNotFound,
    OutcomeUnknown,
    PerdureError,
    StoreFull,
)
from perdure.model.messages import Message, Purge, RaiseEvent, Start

REFUSALS = (InstanceFinished, InstanceNotFound, InstanceExists, StoreFull)


@dataclass
class Submission:
    """One request of a client. Positions count operations of the disk; -1 is never."""

    message: Message
    operation_id: str
    token: str = ""
    asked_at: int = -1
    answered_at: int = -1
    answer: Any = None
    repeated_at: int = -1

    @property
    def is_open(self) -> bool:
        return self.answered_at < 0

    @property
    def is_acknowledged(self) -> bool:
        return self.answered_at >= 0 and not isinstance(self.answer, BaseException)

    @property
    def is_unknown(self) -> bool:
        return self.is_open or isinstance(self.answer, OutcomeUnknown)

    @property
    def is_repeated(self) -> bool:
        """Whether the client repeats the request: the outcome is unknown and it has an id, or the store was
        full.
        """
        if self.repeated_at >= 0:
            return False
        return isinstance(self.answer, StoreFull) or bool(self.is_unknown and self.operation_id)

    def renewed(self) -> Submission:
        """As the client repeats it, with the same id."""
        return Submission(self.message, self.operation_id, self.token)


@dataclass(frozen=True)
class Commit:
    """A commit: between these two positions of the disk's log the store came to hold this content."""

    begins: int
    ends: int
    content: int


@dataclass
class CutLedger:
    """What one life of an engine promised. `position` says how far the disk's log has come."""

    position: Callable[[], int] = lambda: 0
    orders: list[Submission] = field(default_factory=list)
    commits: list[Commit] = field(default_factory=list)
    begins: int = -1

    def asked(self, order: Submission) -> SubmissionReply:
        order.asked_at = self.position()
        self.orders.append(order)
        return SubmissionReply(order, self)

    def committing(self) -> None:
        self.begins = self.position()

    def committed(self, content: int) -> None:
        self.commits.append(Commit(self.begins, self.position(), content))
        self.begins = -1

    def acknowledged(self, by: int) -> Iterator[Submission]:
        """The requests acknowledged by this position of the disk's log."""
        return (o for o in self.orders if o.is_acknowledged and o.answered_at <= by)

    def purges(self, by: int) -> set[str]:
        """Instances with a purge request."""
        return {
            o.message.instance_id for o in self.orders if isinstance(o.message, Purge) and o.asked_at <= by
        }

    def answers(self) -> Counter[str]:
        """How requests ended, by the name of the error or `ok`; `open` for those without an answer."""
        found: Counter[str] = Counter()
        for order in self.orders:
            if order.is_open:
                found["open"] += 1
            else:
                found[type(order.answer).__name__ if isinstance(order.answer, PerdureError) else "ok"] += 1
        return found


class SubmissionReply:
    """The future that the engine answers: it is its own event loop, and runs what it is given at once."""

    def __init__(self, order: Submission, ledger: CutLedger) -> None:
        self._order = order
        self._ledger = ledger

    def get_loop(self) -> Any:
        return _here

    def done(self) -> bool:
        return not self._order.is_open

    def set_result(self, value: Any) -> None:
        self._order.answer, self._order.answered_at = value, self._ledger.position()

    set_exception = set_result


class _CallsAtOnce:
    def call_soon_threadsafe(self, action: Callable[..., None], *args: Any) -> None:
        action(*args)


_here = _CallsAtOnce()


def tokens_promised(orders: list[Submission], by: int) -> dict[str, list[str]]:
    """By instance, the tokens of events that were acknowledged."""
    found: dict[str, list[str]] = {}
    for order in orders:
        if isinstance(order.message, RaiseEvent) and order.is_acknowledged and order.answered_at <= by:
            found.setdefault(order.message.instance_id, []).append(order.token)
    return found


def starts_promised(orders: list[Submission], by: int) -> set[str]:
    """Ids of acknowledged starts."""
    return {
        o.message.instance_id
        for o in orders
        if isinstance(o.message, Start) and o.is_acknowledged and o.answered_at <= by
    }
