"""One open batch: the operations of message handlers on it.

A batch is created when it begins and discarded when it is durable or rolled back; none of its state outlives
it. A handler's decisions become rows (`rows`), messages for later in this batch or for the next, and effects
that leave the process once the rows are durable (`released`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from perdure.engine.core import repeats
from perdure.engine.core.envelope import Elsewhere, Envelope, operation_of
from perdure.engine.core.noted import REFUSED, EventAccepted, EventDropped
from perdure.engine.core.ports import ANSWER_KEPT, OWNER_ANSWERS_WITHIN, Released
from perdure.engine.core.repeats import Met
from perdure.errors import PerdureError
from perdure.model import payload
from perdure.model.messages import EntityOperation, Message, RaiseEvent, accepted, encode_message
from perdure.model.records import Batch, DroppedRow, InboxRow, SeenRow

if TYPE_CHECKING:
    from perdure.engine.core.instance import Instance
    from perdure.engine.core.worker_state import WorkerState
    from perdure.replay.settle import Invocation

NEVER: Final = 2**62
SEEN_FOR: Final = 24 * 3_600 * 1_000_000  # microseconds that an answer is kept


class OpenBatch:
    """The open batch, which works on the state of its worker."""

    __slots__ = (
        "absent",
        "accept_only",
        "again",
        "announcing",
        "aside",
        "backlog",
        "began_at",
        "borrowed",
        "bytes",
        "cache",
        "came_at",
        "consumed",
        "counters",
        "deadline",
        "deferred",
        "episodes",
        "first_message",
        "functions",
        "gone",
        "handled",
        "held",
        "inputs",
        "instance_numbers",
        "limits",
        "lines",
        "message_numbers",
        "moved",
        "now",
        "pause",
        "placement",
        "promised",
        "quarantine",
        "quarantined",
        "random",
        "refuses_until",
        "released",
        "repeats",
        "retried",
        "rows",
        "running",
        "seen",
        "stale_results",
        "task_owners",
        "tells",
        "tenure",
        "territory",
        "touched",
        "tracing",
        "variables",
    )

    def __init__(self, worker: WorkerState, now: int = 0) -> None:
        self.functions = worker.functions
        self.random = worker.random
        self.limits = worker.limits
        self.task_owners = worker.task_owners
        self.pause = worker.pause
        self.running = worker.running
        self.accept_only = worker.accept_only
        self.tells = worker.tells
        self.territory = worker.territory
        self.tenure = worker.tenure
        self.placement = worker.placement
        self.tracing = worker.tracing
        self.announcing = worker.announcing
        self.variables = worker.variables
        self.counters = worker.counters
        self.cache = worker.cache
        self.quarantine = worker.quarantine
        self.instance_numbers = worker.instance_numbers
        self.message_numbers = worker.message_numbers
        self.began_at = worker.began_at
        self.first_message = worker.first_message
        self.backlog = worker.backlog
        self.lines = worker.lines
        self.now = now
        self.came_at = 0  # when the current message was accepted
        self.touched: dict[int, Instance] = {}
        self.aside: dict[str, list[Envelope]] = {}
        self.deferred: list[Envelope] = []
        self.held: list[tuple[Instance, Envelope]] = []
        self.promised: dict[str, Envelope] = {}  # of those, by operation id
        self.repeats: list[Envelope] = []  # of those; the next batch answers them
        self.again: list[Invocation] = []  # open activities of instances reloaded in this batch
        self.stale_results: list[Envelope] = []  # results that no call awaits
        self.absent: set[str] = set()
        self.gone: set[int] = (
            set()
        )  # instances purged in this batch; one can be loaded again before its commit
        self.borrowed: set[str] = set()  # instances of other workers, loaded for a start
        self.quarantined: set[str] = set()
        self.retried: dict[str, str] = {}  # reasons of parked instances retried at a worker's start
        self.inputs: list[Envelope] = []
        self.consumed: list[int] = []
        self.moved: set[int] = set()
        self.rows = Batch(now)
        self.released = Released()
        self.seen: dict[str, SeenRow | None] = {}
        self.refuses_until = (
            NEVER  # when the requester's timeout makes a rejection in this batch a dropped message
        )
        self.episodes = 0
        self.handled = 0
        self.bytes = 0
        self.deadline = 0.0

    def is_kept(self, envelope: Envelope) -> bool:
        """Whether the message was accepted before this engine started, perhaps under other code."""
        return envelope.kept or 0 < envelope.row_no < self.first_message

    def touch(self, instance: Instance) -> None:
        """Mark the instance's row as changed in this batch."""
        instance.dirty = True
        self.touched[instance.no] = instance

    def partition_of(self, instance_id: str) -> int:
        return self.territory.partition_of(instance_id) if self.territory is not None else 0

    def is_elsewhere(self, instance_id: str) -> bool:
        """Whether another worker, or none at present, owns this instance."""
        return self.territory is not None and self.territory.is_elsewhere(instance_id)

    # ---------------------------------------------------------------------------------------- answers

    def answer(self, envelope: Envelope, value: Any) -> None:
        """Consume the message; its client gets the answer after the commit."""
        if envelope.row_no:
            self.consume(envelope)
        operation_id = operation_of(envelope)
        if isinstance(value, Recalled):
            value = value.value
        elif operation_id and not isinstance(value, BaseException):
            self.remember(operation_id, envelope, value)
        if isinstance(value, repeats.Begun):
            value = str(value)
        if envelope.reply is not None:
            self.tell(envelope, value)

    def remember(self, operation_id: str, envelope: Envelope, value: Any) -> None:
        """Keep the answer for a repeat of the request."""
        message = envelope.message
        answer = repeats.remembered(message, value)
        row = SeenRow(operation_id, message.instance_id, answer, self.remembered_until(envelope))
        self.rows.seen.append(row)
        self.seen[operation_id] = row

    def tell(self, envelope: Envelope, value: Any) -> None:
        """Send the answer after the commit; write an operator's action to the audit log."""
        if isinstance(envelope.reply, Elsewhere):
            self._answer_elsewhere(envelope, envelope.reply, value)
        else:
            self.released.answers.append((envelope.reply, value))
        if type(envelope.message) is RaiseEvent and not isinstance(value, BaseException):
            self.released.noted.append(EventAccepted(self._name_of(envelope.message.instance_id)))
        if envelope.note is not None and not isinstance(value, BaseException):
            self.rows.audit.append(envelope.note.row(self.now, envelope.message.instance_id))

    def _answer_elsewhere(self, envelope: Envelope, reply: Elsewhere, value: Any) -> None:
        """Store the answer for the worker that asked."""
        instance_id = envelope.message.instance_id
        answer = payload.encode(_said(value))
        self.rows.seen.append(SeenRow(reply.request_id, instance_id, answer, self.now + ANSWER_KEPT))
        self.released.hints.add(reply.asker)
        if isinstance(value, PerdureError):
            if self.now >= reply.asked_at + OWNER_ANSWERS_WITHIN // 2:
                self._leave_record(envelope.message, value)
            else:
                self.refuses_until = min(self.refuses_until, reply.asked_at + OWNER_ANSWERS_WITHIN // 2)

    def _leave_record(self, message: Message, refusal: PerdureError) -> None:
        """Leave a record of the rejection, because its client may already have an acceptance."""
        match message:
            case RaiseEvent():
                kind, name, body = "event", message.name, bytes(message.input)
            case EntityOperation():
                kind, name, body = "operation", message.operation, bytes(message.input)
            case _:
                kind, name, body = type(message).__name__.lower(), "", b"null"
        operation_id = getattr(message, "operation_id", "")
        self.record_drop(message.instance_id, kind, name, operation_id, str(refusal), body)

    def remembered_until(self, envelope: Envelope) -> int:
        """Until when a repeat of this request gets the same answer."""
        return max(self.now + SEEN_FOR, getattr(envelope.message, "remembered_until", 0))

    def consume(self, envelope: Envelope) -> None:
        """Delete the message's inbox row, if any, with this batch."""
        if envelope.row_no:
            self.consumed.append(envelope.row_no)

    def drop(self, envelope: Envelope, reason: str, cause: str = REFUSED) -> None:
        """Record an accepted message that cannot be delivered, and answer it."""
        self.answer(envelope, None)
        message = envelope.message
        if isinstance(message, RaiseEvent):
            self.record_drop(
                message.instance_id,
                "event",
                message.name,
                message.operation_id,
                reason,
                bytes(message.input),
                cause,
            )

    def record_drop(
        self,
        instance_id: str,
        kind: str,
        name: str,
        operation_id: str,
        reason: str,
        body: bytes,
        cause: str = REFUSED,
    ) -> None:
        """Keep what was dropped, for people. `cause` is the reason in one word, for telemetry."""
        self.rows.dropped.append(DroppedRow(instance_id, self.now, kind, name, operation_id, reason, body))
        if kind == "event":
            self.released.noted.append(EventDropped(self._name_of(instance_id), cause))

    def _name_of(self, instance_id: str) -> str:
        """The orchestrator of an instance in memory; "" for others."""
        instance = self.cache.warm.get(instance_id)
        return instance.name if instance is not None else ""

    # -------------------------------------------------------------------------- what is told, and when

    def hold(self, instance: Instance, envelope: Envelope) -> None:
        """Keep an accepted message for an instance that is suspended, parked or not started."""
        if instance.is_finished:  # it failed because its version is missing, or its code does not match
            self.drop(envelope, f"the instance is {instance.status}")
            return
        if instance.waiting is None:
            instance.waiting = (
                [] if instance.entity_state is None else deque()
            )  # an entity takes messages from the front
        envelope.message = accepted(envelope.message, envelope.came_at or self.now)
        instance.waiting.append(envelope)
        envelope.held = True
        self.held.append((instance, envelope))
        operation_id = operation_of(envelope)
        if operation_id:
            self.promised[operation_id] = envelope

    def send(self, message: Message) -> None:
        """Send a message within this batch."""
        self.backlog.append(Envelope(message, internal=True))

    def send_first(self, envelopes: Iterable[Envelope]) -> None:
        """Put messages of one instance in front of all others, such as those held until a resume."""
        first = list(envelopes)
        if first:
            self.put_first(first[0].message.instance_id, first)

    def put_first(self, instance_id: str, envelopes: list[Envelope]) -> None:
        """Put messages in front of the instance's line, or in front of the batch if it has no line."""
        if instance_id in self.lines:
            for envelope in reversed(envelopes):
                self.lines.put_first(envelope)
        else:
            self.backlog.extendleft(reversed(envelopes))

    def defer(self, message: Message) -> None:
        """Send a message from this batch to the next."""
        self.deferred.append(Envelope(message, internal=True))

    def take_turns(self, message: Message) -> None:
        """Send a message of an instance at its limit: for later in this batch, or for the next."""
        self.lines.append(Envelope(message, internal=True))

    def postpone(self, envelope: Envelope) -> None:
        """Handle the message in the next batch."""
        self.deferred.append(envelope)

    def fed(self, instance: Instance) -> None:
        """Count an arrival, and mark the instance's row as changed."""
        instance.dirty = True
        self.touched[instance.no] = instance
        self.episodes += 1
        instance.feeds += 1

    # ---------------------------------------------------------------------------------- rows for later

    @property
    def at_once(self) -> int:
        """The time from which an immediate message is visible.

        The clocks of workers differ slightly, and a message must not wait for its owner's clock. The numbers of
        visible messages give their order.
        """
        return self.now if self.territory is None else 0

    def store_delayed(self, message: Message, visible_at: int) -> None:
        """Store a delayed message as a row only; the loop reads it when it is due."""
        self.store_message(message, visible_at)
        self.released.visible.append(visible_at)

    def store_message(self, message: Message, visible_at: int) -> None:
        """Store a message as a row only, for the owner of its instance."""
        self.store(Envelope(message, internal=True), visible_at)
        self.hint(message)

    def store(self, envelope: Envelope, visible_at: int | None) -> None:
        """Give a message a row in the inbox; with None as the time, polls skip it."""
        envelope.row_no = self.message_numbers.take()
        self._add_row(envelope, visible_at)

    def show(self, envelope: Envelope, visible_at: int) -> None:
        """Store a held message again, as a row that polls return.

        An event keeps its number, and with it its place: another worker may have accepted a later event in the
        meantime. The order of an entity's messages can differ from the order of their old numbers.
        """
        if envelope.message.instance_id[0] == "@":
            self.store(envelope, visible_at)
        else:
            self._add_row(envelope, visible_at)

    def _add_row(self, envelope: Envelope, visible_at: int | None) -> None:
        number = envelope.row_no
        message = envelope.message = accepted(envelope.message, envelope.came_at or self.now)
        self.rows.inbox_added.append(
            InboxRow(number, message.instance_id, visible_at, encode_message(message))
        )

    def hint(self, message: Message) -> None:
        """After the commit, notify the owner of the message."""
        territory = self.territory
        if territory is not None:
            owner = territory.owner_of(message.instance_id)
            if owner is not None:
                self.released.hints.add(owner)


class Recalled:
    """The stored answer, for a repeat."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def _said(value: Any) -> dict[str, Any]:
    if isinstance(value, PerdureError):
        return {"error": value.code, "message": str(value)}
    return {"ok": str(value), "born": value.born} if isinstance(value, Met) else {"ok": value}


__all__ = ["OpenBatch", "Recalled"]
