"""The dispatcher: turns messages into one batch, in memory, without I/O.

    while cold := dispatcher.advance(messages, now):  # handle what can be handled; cold instances are set aside
        dispatcher.admit(cold, store.load(cold))      # one bulk read per round
    batch = dispatcher.seal()                         # rows; what is still unconsumed becomes inbox rows
    store.commit(batch)
    dispatcher.release()                              # what may now leave the process; or dispatcher.rollback()

Messages created in the batch (a child's start, its result) are handled in the same batch, in memory, and
committed together with their cause. That is limited by episodes and time for the whole batch, and by arrivals
for one instance, so that no cascade delays the commit of the others. At the seal every message is either
consumed by a history row of this batch or becomes a row in `inbox`; messages of clients and activities without
an answer are handled in the next batch, because nothing was promised to them. `delivery` defines the effect of
a message on an instance, `batch` the operations of handlers; this module only decides the order of messages and
the start and end of a batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from perdure.engine.core import forwarding, repeats, sealing, task_rows
from perdure.engine.core.batch import NEVER, OpenBatch, Recalled
from perdure.engine.core.delivery import deliver
from perdure.engine.core.envelope import Envelope, envelopes_of, operation_of
from perdure.engine.core.instance import Instance
from perdure.engine.core.ports import Released
from perdure.engine.core.recovery import quarantine
from perdure.engine.core.worker_state import WorkerState
from perdure.model.instances import is_derived
from perdure.model.messages import (
    ActivityResult,
    CompleteTask,
    Message,
    MoveTask,
    RaiseEvent,
    Rewind,
    Start,
)
from perdure.model.records import Batch, SeenRow, StoredInstance, WaitRow
from perdure.store.port import Opening

COLD_AT_ONCE: Final = 1_000  # instances loaded per round


class Dispatcher(WorkerState):
    """Decides which instance of this worker gets its message next."""

    _open: OpenBatch | None = None

    def opened(self, opening: Opening) -> None:
        """Start from the numbers of a hub that was just opened. All instances are evicted."""
        self.instance_numbers.opened(opening.next_instance_no, opening.incarnation)
        self.message_numbers.opened(opening.next_message_no, opening.incarnation)
        self.tenure.opened()
        self.ring.opened(opening)
        self.drop_everything()

    def _begin(self, now: int) -> OpenBatch:
        self.instance_numbers.advance(now)
        self.message_numbers.advance(now)
        if not self.tenure.is_known:
            self.tenure.begin(now, self.instance_numbers.upcoming)
        if not self.first_message:
            self.began_at, self.first_message = now, self.message_numbers.upcoming
        if self.placement is not None:
            self.placement.begin_batch()
        batch = OpenBatch(self, now)
        batch.deadline = self.random.monotonic() + self.limits.seconds
        return batch

    @property
    def open_batch(self) -> OpenBatch:
        """The open batch; an empty one between two batches."""
        return self._open or OpenBatch(self)

    @property
    def making(self) -> OpenBatch | None:
        """The batch in the making; None between two batches."""
        return self._open

    @property
    def released(self) -> Released:
        """The effects that leave the process once the open batch is durable."""
        return self.open_batch.released

    @property
    def refuses_until(self) -> int:
        """When a rejection in the open batch must leave a record."""
        return self._open.refuses_until if self._open is not None else NEVER

    # -------------------------------------------------------------------------------------------- advance

    def advance(self, messages: Iterable[Envelope], now: int) -> list[str]:
        """Handle messages until none is left or the batch is full; returns the ids of instances to load.

        New messages and the lines of busy instances alternate, so that neither waits for the other to end.
        """
        batch = self._open
        if batch is None:
            batch = self._open = self._begin(now)
        backlog, turns = self.backlog, self.lines.turns
        backlog.extend(messages)
        cold: dict[str, None] = {}
        while (backlog or (turns and not cold)) and len(cold) < COLD_AT_ONCE and not self._is_full(batch):
            wanted = self._handle(batch, backlog.popleft()) if backlog else None
            if wanted is not None:
                cold[wanted] = None
            if turns and not cold:  # else the lines would fill the batch before the others are loaded
                wanted = self._take_turn(batch)
                if wanted is not None:
                    cold[wanted] = None
        return list(cold)

    def _take_turn(self, batch: OpenBatch) -> str | None:
        """Handle the next message of the next line; returns as `_handle` does."""
        envelope = self.lines.take()
        instance_id = envelope.message.instance_id
        instance = self.cache.warm.get(instance_id)
        if instance is not None:
            instance.feeds = 0
        wanted = self._handle(batch, envelope, its_turn=True)
        if instance_id not in batch.aside:  # else the line continues when its instance is loaded
            self.lines.end_turn(instance_id)
        return wanted

    def _is_full(self, batch: OpenBatch) -> bool:
        if batch.episodes >= self.limits.episodes or batch.bytes >= self.limits.row_bytes:
            return True
        handled = batch.handled
        return not handled & 15 and handled > 0 and self.random.monotonic() > batch.deadline

    def _handle(self, batch: OpenBatch, envelope: Envelope, *, its_turn: bool = False) -> str | None:
        """Handle one message; returns the id of an instance that must be loaded first."""
        message = envelope.message
        instance_id = message.instance_id
        if not its_turn and instance_id in self.lines.by_instance:
            self._line_up(batch, envelope)
            return None
        if not (envelope.internal or envelope.counted or envelope.hidden):
            batch.inputs.append(envelope)
            envelope.counted = True
        if instance_id in batch.aside:
            batch.aside[instance_id].append(envelope)
            return None
        territory = self.territory
        if (
            territory is not None
            and territory.is_elsewhere(instance_id)
            and forwarding.is_passed_on(batch, envelope)
        ):
            return None
        operation_id = operation_of(envelope) if envelope.reply is not None else ""
        if operation_id and operation_id not in batch.seen:
            batch.aside[instance_id] = [envelope]
            return instance_id
        if operation_id and (known := _known(batch, operation_id, message)) is not None:
            batch.answer(envelope, Recalled(repeats.recalled(known, message)))
            return None
        if operation_id and _is_repeat(batch, operation_id, envelope):
            batch.repeats.append(envelope)
            return None
        instance = self.cache.warm.get(instance_id)
        if instance is not None and instance.purged:
            instance = None
        elif instance is None and instance_id not in batch.absent and not _is_fresh(message):
            batch.aside[instance_id] = [envelope]
            return instance_id
        if instance is not None and instance.feeds >= self.limits.feeds:
            self._line_up(batch, envelope)
            return None
        if instance is not None and instance.tasks is None and _is_persons_event(envelope):
            if not instance.is_new:
                batch.aside[instance_id] = [envelope]
                return instance_id
            instance.tasks = {}  # none of its waits has a row yet
        if self.quarantine and instance_id in self.quarantine and not batch.is_elsewhere(instance_id):
            batch.quarantined.add(instance_id)
            if instance is not None:
                quarantine(batch, instance)
        batch.handled += 1
        deliver(batch, instance, envelope)
        return None

    def _line_up(self, batch: OpenBatch, envelope: Envelope) -> None:
        """Add the message to its instance's line, with its time of arrival."""
        if not envelope.row_no:
            envelope.came_at = envelope.came_at or batch.now
        self.lines.append(envelope)

    def lacking(self, loaded: Iterable[StoredInstance]) -> list[StoredInstance]:
        """Finished instances that were loaded without the history that a message needs."""
        aside = self.open_batch.aside
        return [
            stored
            for stored in loaded
            if stored.row.episodes
            and not stored.history
            and any(type(e.message) is Rewind for e in aside.get(stored.row.instance_id, ()))
        ]

    def about_tasks(self, cold: Iterable[str]) -> set[str]:
        """Those of these instances with a message that needs the rows of their tasks."""
        aside = self.open_batch.aside
        return {
            instance_id for instance_id in cold if any(_is_about_tasks(e) for e in aside.get(instance_id, ()))
        }

    def operations(self, cold: Iterable[str]) -> list[str]:
        """The operation ids to look up for messages that wait for their instance."""
        batch = self.open_batch
        return [
            one
            for instance_id in cold
            for envelope in batch.aside.get(instance_id, ())
            if (operation_id := operation_of(envelope)) and operation_id not in batch.seen
            for one in (operation_id, repeats.former_id_in(envelope.message))
            if one and one not in batch.seen
        ]

    def admit(
        self,
        cold: Iterable[str],
        loaded: Iterable[StoredInstance],
        operations: Iterable[str] = (),
        seen: Iterable[SeenRow] = (),
        tasks: Mapping[int, Sequence[WaitRow]] | None = None,
    ) -> list[str]:
        """Add the loaded instances; their waiting messages come next, in order.

        `tasks` has the open waits of those with a message about a task, by number. They are read here and not before
        the next batch, because an instance that is evicted after each batch would never have them.

        Returns log lines about unreadable messages.
        """
        unread: list[str] = []
        batch, warm = self.open_batch, self.cache.warm
        for operation_id in operations:
            batch.seen[operation_id] = None
        for row in seen:
            batch.seen[row.operation_id] = row
        for stored in loaded:
            if stored.row.instance_id not in warm:
                instance = Instance.from_stored(stored)
                held = envelopes_of(stored.held, unread)
                instance.waiting = (deque(held) if instance.entity_state is not None else list(held)) or None
                if instance.waiting:  # messages held from here on get higher numbers
                    self.message_numbers.exceed(instance.waiting[-1].row_no)
                if tasks and instance.no in tasks:
                    instance.tasks = task_rows.read(tasks[instance.no])
                self.cache.keep(instance)
                if batch.is_elsewhere(instance.instance_id):
                    batch.borrowed.add(instance.instance_id)
            elif tasks and stored.row.instance_no in tasks and warm[stored.row.instance_id].tasks is None:
                warm[stored.row.instance_id].tasks = task_rows.read(tasks[stored.row.instance_no])
        for instance_id in cold:
            if instance_id not in warm:
                batch.absent.add(instance_id)
            batch.put_first(instance_id, batch.aside.pop(instance_id, []))
            self.lines.end_turn(instance_id)
        return unread

    def know_tasks(self, read: Callable[[list[int]], list[WaitRow]]) -> None:
        """Between two batches: read the rows of the tasks that a message is about. `read` takes numbers of
        instances.
        """
        owners = [self.cache.warm[owner] for owner in self.task_owners if owner in self.cache.warm]
        rows: dict[int, list[WaitRow]] = {owner.no: [] for owner in owners}
        for row in read(list(rows)):
            rows[row.instance_no].append(row)
        for owner in owners:
            owner.tasks = task_rows.read(rows[owner.no])
        self.task_owners.clear()

    def seal(self) -> Batch:
        """Close the batch: rows of every touched instance, and inbox rows for unconsumed messages."""
        return sealing.seal(self.open_batch)

    # -------------------------------------------------------------------------------- after the commit

    def release(self) -> Released:
        """After a durable batch: return its effects. Unhandled messages stay in the lines for the next batch."""
        batch = self.open_batch
        released = batch.released
        released.touched = batch.touched
        self.results = [e for e in batch.inputs if type(e.message) is ActivityResult and not e.waits]
        self.passed_by = self._passed_by(batch) if batch.stale_results else set()
        if batch.again:
            done = self._answered(batch)
            released.invocations += [i for i in batch.again if (i.execution_id, i.task_id) not in done]
        if released.cancelled or released.ended:
            released.forget_cancelled()
        for _, envelope in batch.held:
            if envelope.held:  # not released again within the batch
                envelope.reply = None  # accepted, and answered now
            envelope.hidden = envelope.held
            envelope.stored_as = 0
        for instance_id in batch.quarantined:
            self.quarantine.pop(instance_id, None)
        warm = self.cache.warm
        for instance in batch.touched.values():
            instance.dirty = instance.is_new = False
            instance.written = True
            instance.feeds = 0
            asleep = instance.execution is None and instance.entity_state is None
            if instance.is_finished or instance.purged or asleep:
                self.cache.evict(instance)
            elif warm.pop(instance.instance_id, None) is not None:
                warm[instance.instance_id] = instance  # the least recently touched come first
        self.lines.close_batch()
        if batch.borrowed:
            self.cache.evict_borrowed(batch.borrowed)
        self._open = None
        return released

    @property
    def answered(self) -> set[tuple[str, int]]:
        """The calls whose results were in the last batch."""
        return _calls_of(self.results)

    def _passed_by(self, batch: OpenBatch) -> set[tuple[str, int]]:
        """Calls with results in this batch that arrived only after the call or its instance had ended."""
        stale = {id(envelope) for envelope in batch.stale_results}
        return _calls_of(batch.stale_results) - _calls_of(e for e in self.results if id(e) not in stale)

    def _answered(self, batch: OpenBatch) -> set[tuple[str, int]]:
        """Activities of reloaded instances whose results came in this batch or wait in line."""
        came = list(batch.inputs)
        for instance_id in {invocation.instance_id for invocation in batch.again}:
            came += self.lines.of(instance_id)
        return _calls_of(came) - self.passed_by

    def rollback(self) -> list[Envelope]:
        """Undo a batch that was not committed; returns its inputs, to be processed again."""
        batch, warm = self.open_batch, self.cache.warm
        # An envelope that got a row in the failed batch has none.
        added = {row.message_no for row in batch.rows.inbox_added}
        aside = (envelope for kept in batch.aside.values() for envelope in kept)
        unreached = [*aside, *self.lines.take_all(), *self.backlog]
        inputs = [
            *batch.inputs,
            *(e for e in unreached if not (e.internal or e.counted or e.hidden or e.row_no in added)),
        ]
        # Also instances that were only reloaded: this batch was to start their open activities.
        brought_back = filter(None, [warm.get(i.instance_id) for i in batch.again])
        for instance in [*batch.touched.values(), *(i for i, _ in batch.held), *brought_back]:
            self.cache.evict(instance)
        for instance_id in list(batch.aside):
            found = warm.get(instance_id)
            if found is not None:
                self.cache.evict(found)
        for _, envelope in batch.held:
            envelope.held = False
        self.cache.evict_borrowed(batch.borrowed)
        for envelope in inputs:
            envelope.counted = False
            if envelope.row_no in added:
                envelope.row_no, envelope.stored_as = envelope.stored_as, 0
        self.backlog.clear()
        self._open = None
        return inputs

    def drop_everything(self) -> None:
        """Discard all state in memory, after an error with an unknown outcome."""
        self.cache.clear()
        self.backlog.clear()
        self.lines.take_all()
        self._open = None


def _known(batch: OpenBatch, operation_id: str, message: Message) -> SeenRow | None:
    """The row of the first answer, if this is a repeat."""
    found = batch.seen[operation_id]
    if found is not None:
        return found
    former = batch.seen.get(repeats.former_id_in(message))
    return former if former is not None and repeats.answers(former, message) else None


def _is_repeat(batch: OpenBatch, operation_id: str, envelope: Envelope) -> bool:
    """Whether the same request is already held in this batch; the seal answers it."""
    first = batch.promised.get(operation_id)
    return first is not None and first.held and first is not envelope


def _is_about_tasks(envelope: Envelope) -> bool:
    """Whether the message needs the rows of people's tasks: a verb, or a person's answer that is not accepted yet."""
    return isinstance(envelope.message, MoveTask | CompleteTask) or _is_persons_event(envelope)


def _is_persons_event(envelope: Envelope) -> bool:
    message = envelope.message
    return type(message) is RaiseEvent and bool(message.decided_by) and envelope.reply is not None


def _is_fresh(message: Message) -> bool:
    return isinstance(message, Start) and (
        message.fresh or (message.parent is not None and is_derived(message.instance_id, message.parent))
    )


def _calls_of(envelopes: Iterable[Envelope]) -> set[tuple[str, int]]:
    """The calls that the activity results in these envelopes answer."""
    return {
        (message.execution_id, message.task_id)
        for envelope in envelopes
        if type(message := envelope.message) is ActivityResult
    }
