"""The hub: from messages to one batch, in memory, without I/O.

    while cold := hub.advance(messages, now):     # handle what can be handled; cold instances are set aside
        hub.admit(store.load(cold))               # one bulk read per round
    batch = hub.seal()                            # rows; what is still unconsumed becomes inbox rows
    store.commit(batch)
    hub.release()                                 # what may now leave the process; or hub.rollback()

Messages born in the batch (a child's start, its result) are handled in the same batch, in memory, and committed
together with what caused them. That is bounded: by episodes and by time in all, and by arrivals for one
instance, so that no cascade keeps the others from their commit. At the seal every message is either consumed
by a history row of this batch or becomes a row in `inbox`; clients and activities that have not been answered
yet are simply handled in the next batch, because nothing was promised to them.
What a message does to an instance is in `delivery`; here is only whose turn it is and what gets written.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from perdure.engine.cluster import pending_requests
from perdure.engine.core import forwarding, repeats, sealing
from perdure.engine.core.backlog import Lines
from perdure.engine.core.delivery import deliver
from perdure.engine.core.envelope import Elsewhere, Envelope, envelopes_of, operation_of
from perdure.engine.core.instance import Instance
from perdure.engine.core.partitions import Territory
from perdure.engine.core.placement import Placement
from perdure.engine.core.ports import Chance, Functions, Limits, Released, Running
from perdure.engine.core.recovery import quarantine
from perdure.engine.core.row_ids import Numbers
from perdure.model.instances import is_derived
from perdure.model.messages import ActivityResult, Message, RaiseEvent, Rewind, Start, accepted
from perdure.model.records import Batch, DroppedRow, SeenRow, StoredInstance
from perdure.replay.settle import Invocation
from perdure.store.port import Opening

SALTS_KEPT = 4_096
COLD_AT_ONCE = 1_000  # instances loaded in one round
NEVER = 2**62
SEEN_FOR = 24 * 3_600 * 1_000_000  # microseconds an answer is remembered


class Hub:
    """The instances of this worker, and the batch in the making."""

    def __init__(
        self,
        functions: Functions,
        chance: Chance,
        *,
        limits: Limits | None = None,
        running: Running | None = None,
        accept_only: bool = False,
        territory: Territory | None = None,
    ) -> None:
        self.functions = functions
        self.chance = chance
        self.limits = limits or Limits()
        self.running = running or Running()
        self.accept_only = accept_only
        self.territory = territory  # None for an engine that has its hub to itself
        self.placement: Placement | None = None
        self.warm: dict[str, Instance] = {}
        self.warm_bytes = 0
        self.salts: dict[str, bytes] = {}  # of instances started here for others, for the links that follow
        self.counters: dict[str, int] = {"stale_results": 0, "replays": 0, "evictions": 0, "expired": 0}
        self.quarantine: dict[str, str] = {}
        self.results: list[Envelope] = []
        self.instance_numbers = Numbers()
        self.message_numbers = Numbers()
        self.began_at = 0
        self.first_message = 0
        self.backlog: deque[Envelope] = deque()
        self.lines = (
            Lines()
        )  # of instances that have had their share, and of what a full batch has not reached
        self._begin()

    def opened(self, opening: Opening) -> None:
        """Take over the numbers of a hub that was just opened. Everything warm is dropped."""
        self.instance_numbers.opened(opening.next_instance_no, opening.incarnation)
        self.message_numbers.opened(opening.next_message_no, opening.incarnation)
        self.drop_everything()

    def _begin(self) -> None:
        self.now = 0
        self.came_at = 0  # when what is being fed was accepted
        self.touched: dict[int, Instance] = {}
        self.aside: dict[str, list[Envelope]] = {}
        self.deferred: list[Envelope] = []
        self.held: list[tuple[Instance, Envelope]] = []
        self.promised: dict[str, Envelope] = {}  # of those, by the ids of their operations
        self.again: list[Invocation] = []  # open activities of instances brought back in this batch
        self.absent: set[str] = set()
        self.visitors: set[str] = set()  # instances of other workers, looked at for a start
        self.quarantined: set[str] = set()
        self.inputs: list[Envelope] = []
        self.consumed: list[int] = []
        self.moved: set[int] = set()
        self.batch: Batch | None = None
        self.rows = Batch(0)
        self.released = Released()
        self.seen: dict[str, SeenRow | None] = {}
        self.refuses_until = NEVER  # when a refusal in this batch must be on record, for it comes too late
        self.episodes = 0
        self.handled = 0
        self.bytes = 0
        self.deadline = 0.0

    # -------------------------------------------------------------------------------------------- advance

    def advance(self, messages: Iterable[Envelope], now: int) -> list[str]:
        """Handle messages until nothing is left or the batch is full; returns the ids that must be loaded.

        What has just come in and the lines of those who have had their share take turns, so neither waits for the
        end of the other.
        """
        if not self.deadline:
            self.deadline = self.chance.monotonic() + self.limits.seconds
            self.now = self.rows.at = now
            self.instance_numbers.advance(now)
            self.message_numbers.advance(now)
            if not self.first_message:
                self.began_at, self.first_message = now, self.message_numbers.upcoming
            if self.placement is not None:
                self.placement.begin_batch()
        backlog, lines = self.backlog, self.lines
        backlog.extend(messages)
        cold: dict[str, None] = {}
        while (backlog or (lines.has_turn and not cold)) and len(cold) < COLD_AT_ONCE and not self._is_full():
            wanted = self._handle(backlog.popleft()) if backlog else None
            if wanted is not None:
                cold[wanted] = None
            if lines.has_turn and not cold:  # else they would fill the batch before the others are loaded
                wanted = self._take_turn()
                if wanted is not None:
                    cold[wanted] = None
        return list(cold)

    def _take_turn(self) -> str | None:
        """Handle the next message of the line whose turn it is; returns as `_handle` does."""
        envelope = self.lines.take()
        instance_id = envelope.message.instance_id
        instance = self.warm.get(instance_id)
        if instance is not None:
            instance.feeds = 0
        wanted = self._handle(envelope, its_turn=True)
        if instance_id not in self.aside:  # else the line goes on when its instance has been loaded
            self.lines.end_turn(instance_id)
        return wanted

    def _is_full(self) -> bool:
        if self.episodes >= self.limits.episodes or self.bytes >= self.limits.row_bytes:
            return True
        handled = self.handled
        return not handled & 15 and handled > 0 and self.chance.monotonic() > self.deadline

    def _handle(self, envelope: Envelope, *, its_turn: bool = False) -> str | None:
        """Handle one message; returns the id of an instance that has to be loaded first."""
        message = envelope.message
        if self.lines and not its_turn and message.instance_id in self.lines:
            self._line_up(envelope)
            return None
        if not (envelope.internal or envelope.counted or envelope.hidden):
            self.inputs.append(envelope)
            envelope.counted = True
        instance_id = message.instance_id
        if instance_id in self.aside:
            self.aside[instance_id].append(envelope)
            return None
        territory = self.territory
        if (
            territory is not None
            and territory.is_foreign(instance_id)
            and forwarding.is_passed_on(self, envelope)
        ):
            return None
        operation_id = operation_of(envelope)
        if operation_id and operation_id not in self.seen:
            self.aside[instance_id] = [envelope]
            return instance_id
        if operation_id and (known := self._known(operation_id, message)) is not None:
            self.answer(envelope, _Recalled(repeats.recalled(known, message)))
            return None
        if operation_id and self._is_repeat(operation_id, envelope):
            self.postpone(envelope)
            return None
        instance = self.warm.get(instance_id)
        if instance is not None and instance.purged:
            instance = None
        elif instance is None and instance_id not in self.absent and not _is_fresh(message):
            self.aside[instance_id] = [envelope]
            return instance_id
        if instance is not None and instance.feeds >= self.limits.feeds:
            self._line_up(envelope)
            return None
        if self.quarantine and instance_id in self.quarantine and not self.is_foreign(instance_id):
            self.quarantined.add(instance_id)
            if instance is not None:
                quarantine(self, instance)
        self.handled += 1
        deliver(self, instance, envelope)
        return None

    def _known(self, operation_id: str, message: Message) -> SeenRow | None:
        """The row of the first answer, should this be a repeat."""
        found = self.seen[operation_id]
        if found is not None:
            return found
        former = self.seen.get(repeats.former_id_in(message))
        return former if former is not None and repeats.answers(former, message) else None

    def _line_up(self, envelope: Envelope) -> None:
        """The message waits behind others of its instance; that it came now is not forgotten."""
        if not envelope.row_no:
            envelope.came_at = envelope.came_at or self.now
        self.lines.append(envelope)

    def _is_repeat(self, operation_id: str, envelope: Envelope) -> bool:
        """Whether the same request is held already in this batch: it is answered at the seal, and then known."""
        first = self.promised.get(operation_id)
        return first is not None and first.held and first is not envelope

    def lacking(self, loaded: Iterable[StoredInstance]) -> list[StoredInstance]:
        """Those loaded without their history, being finished, for which it is needed."""
        return [
            stored
            for stored in loaded
            if stored.row.episodes
            and not stored.history
            and any(type(e.message) is Rewind for e in self.aside.get(stored.row.instance_id, ()))
        ]

    def operations(self, cold: Iterable[str]) -> list[str]:
        """The ids under which answers have to be looked up for set-aside messages."""
        return [
            one
            for instance_id in cold
            for envelope in self.aside.get(instance_id, ())
            if (operation_id := operation_of(envelope)) and operation_id not in self.seen
            for one in (operation_id, repeats.former_id_in(envelope.message))
            if one and one not in self.seen
        ]

    def admit(
        self,
        cold: Iterable[str],
        loaded: Iterable[StoredInstance],
        operations: Iterable[str] = (),
        seen: Iterable[SeenRow] = (),
    ) -> None:
        """Take in what was loaded; the messages set aside for these ids come next, in their order."""
        for operation_id in operations:
            self.seen[operation_id] = None
        for row in seen:
            self.seen[row.operation_id] = row
        for stored in loaded:
            if stored.row.instance_id not in self.warm:
                instance = Instance.from_stored(stored)
                held = envelopes_of(stored.held)
                instance.held = (deque(held) if instance.mailbox is not None else list(held)) or None
                if instance.held:  # what is held from here on comes behind it
                    self.message_numbers.exceed(instance.held[-1].row_no)
                self.keep(instance)
                if self.is_foreign(instance.instance_id):
                    self.visitors.add(instance.instance_id)
        for instance_id in cold:
            if instance_id not in self.warm:
                self.absent.add(instance_id)
            self._put_first(instance_id, self.aside.pop(instance_id, []))
            self.lines.end_turn(instance_id)

    def _put_first(self, instance_id: str, envelopes: list[Envelope]) -> None:
        """These come before whatever else waits for the instance, and before everything else if nothing does."""
        if instance_id in self.lines:
            for envelope in reversed(envelopes):
                self.lines.put_first(envelope)
        else:
            self.backlog.extendleft(reversed(envelopes))

    # ------------------------------------------------------------------- what delivery does with the batch

    def is_kept(self, envelope: Envelope) -> bool:
        """Whether the message was accepted before this engine began, so perhaps under other code."""
        return envelope.kept or 0 < envelope.row_no < self.first_message

    def touch(self, instance: Instance) -> None:
        """The instance's row changes in this batch."""
        instance.dirty = True
        self.touched[instance.no] = instance

    def partition_of(self, instance_id: str) -> int:
        return self.territory.partition_of(instance_id) if self.territory is not None else 0

    def is_foreign(self, instance_id: str) -> bool:
        """Whether another worker, or none at present, owns this instance."""
        return self.territory is not None and self.territory.is_foreign(instance_id)

    def keep(self, instance: Instance) -> None:
        """Have the instance at hand for what comes next."""
        self.warm[instance.instance_id] = instance
        self.warm_bytes += instance.size

    def answer(self, envelope: Envelope, value: Any) -> None:
        """The message is dealt with; whoever waits for it is told after the commit."""
        self.consume(envelope)
        operation_id = operation_of(envelope)
        if isinstance(value, _Recalled):
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
        """Whoever waits for the answer hears it after the commit; what an operator did is written down."""
        if isinstance(envelope.reply, Elsewhere):
            pending_requests.answer(self, envelope, value)
        else:
            self.released.answers.append((envelope.reply, value))
        if envelope.note is not None and not isinstance(value, BaseException):
            self.rows.audit.append(envelope.note.row(self.now, envelope.message.instance_id))

    def remembered_until(self, envelope: Envelope) -> int:
        """How long a repeat of this request gets the same answer."""
        return max(self.now + SEEN_FOR, getattr(envelope.message, "remembered_until", 0))

    def consume(self, envelope: Envelope) -> None:
        """The message's inbox row, if it has one, goes with this batch."""
        if envelope.row_no:
            self.consumed.append(envelope.row_no)

    def hold(self, instance: Instance, envelope: Envelope) -> None:
        """Keep the message for later: the instance is suspended, parked or not begun. It is accepted."""
        if instance.is_finished:  # it failed for want of its version
            self.drop(envelope, f"the instance is {instance.status}")
            return
        if instance.held is None:
            instance.held = [] if instance.mailbox is None else deque()  # an entity takes them out in front
        envelope.message = accepted(envelope.message, envelope.came_at or self.now)
        instance.held.append(envelope)
        envelope.held = True
        self.held.append((instance, envelope))
        operation_id = operation_of(envelope)
        if operation_id:
            self.promised[operation_id] = envelope

    def send(self, message: Message) -> None:
        """A message born in this batch."""
        self.backlog.append(Envelope(message, internal=True))

    def send_first(self, envelopes: Iterable[Envelope]) -> None:
        """Messages of one instance that come before everything else, such as those held until a resume."""
        first = list(envelopes)
        if first:
            self._put_first(first[0].message.instance_id, first)

    def defer(self, message: Message) -> None:
        """A message born in this batch for the next one."""
        self.deferred.append(Envelope(message, internal=True))

    def take_turns(self, message: Message) -> None:
        """A message of an instance that has had its share: for later in this batch, or for the next."""
        self.lines.append(Envelope(message, internal=True))

    def postpone(self, envelope: Envelope) -> None:
        """Handle the message in the next batch."""
        self.deferred.append(envelope)

    def drop(self, envelope: Envelope, reason: str) -> None:
        """An accepted message that cannot be delivered leaves a record, and is answered."""
        self.answer(envelope, None)
        message = envelope.message
        if isinstance(message, RaiseEvent):
            self.record_drop(
                message.instance_id, "event", message.name, message.operation_id, reason, bytes(message.input)
            )

    def record_drop(
        self, instance_id: str, kind: str, name: str, operation_id: str, reason: str, body: bytes
    ) -> None:
        self.rows.dropped.append(DroppedRow(instance_id, self.now, kind, name, operation_id, reason, body))

    def fed(self, instance: Instance) -> None:
        """One more arrival was fed."""
        self.episodes += 1
        instance.feeds += 1

    def write_episode(self, instance: Instance) -> None:
        """Turn the open episode into its history row, before the batch is sealed."""
        sealing.write_episode(self, instance)

    def close_waits(self, instance: Instance) -> None:
        """An execution has ended: its waits are over."""
        sealing.close_waits(self, instance)

    @property
    def at_once(self) -> int:
        """From when on a message is visible that need not wait.

        Clocks of workers differ a little, and a message must not wait until its owner's has caught up. Among those
        that are visible the numbers tell the order.
        """
        return self.now if self.territory is None else 0

    def store_delayed(self, message: Message, visible_at: int) -> None:
        """A message for later: only a row, nothing in memory, and a look at it in time."""
        self.store_message(message, visible_at)
        self.released.visible.append(visible_at)

    def store_message(self, message: Message, visible_at: int) -> None:
        """A message that is only a row, for whoever owns its instance."""
        sealing.store(self, Envelope(message, internal=True), visible_at)
        forwarding.hint(self, message)

    def seal(self) -> Batch:
        """Close the batch: rows of every touched instance, and inbox rows for what is still unconsumed."""
        self.batch = sealing.seal(self)
        return self.batch

    # -------------------------------------------------------------------------------- after the commit

    def release(self) -> Released:
        """The batch is durable: what may leave now. What was not reached stands in the lines of the next."""
        released = self.released
        self.results = [e for e in self.inputs if type(e.message) is ActivityResult and not e.waits]
        if self.again:
            done = self._answered()
            released.invocations += [i for i in self.again if (i.execution_id, i.task_id) not in done]
        if released.cancelled or released.ended:
            released.forget_cancelled()
        for _, envelope in self.held:
            if envelope.held:  # not let go again within the batch
                envelope.reply = None  # accepted, and answered now
            envelope.hidden = envelope.held
            envelope.stored_as = 0
        for instance_id in self.quarantined:
            self.quarantine.pop(instance_id, None)
        for instance in self.touched.values():
            instance.dirty = instance.is_new = False
            instance.written = True
            instance.feeds = 0
            asleep = instance.execution is None and instance.mailbox is None
            if instance.is_finished or instance.purged or asleep:
                self.evict(instance)
            elif self.warm.pop(instance.instance_id, None) is not None:
                self.warm[instance.instance_id] = instance  # the least recently touched come first
        self.lines.close_batch()
        self._dismiss_visitors()
        self._begin()
        return released

    def _answered(self) -> set[tuple[str, int]]:
        """Activities whose results came in this batch, or wait in line beside those brought back in it."""
        came = [e.message for e in self.inputs]
        for instance_id in {invocation.instance_id for invocation in self.again}:
            came += [e.message for e in self.lines.of(instance_id)]
        return {(m.execution_id, m.task_id) for m in came if type(m) is ActivityResult}

    def rollback(self) -> list[Envelope]:
        """The batch was not committed: forget what it did, and return its inputs to be fed again."""
        # An envelope that was given a row in the batch that failed has none after all.
        added = {row.message_no for row in self.rows.inbox_added}
        aside = (envelope for kept in self.aside.values() for envelope in kept)
        unreached = [*aside, *self.lines.take_all(), *self.backlog]
        inputs = [
            *self.inputs,
            *(e for e in unreached if not (e.internal or e.counted or e.hidden or e.row_no in added)),
        ]
        # Also those only brought back: what they have open was to be started with this batch.
        brought_back = filter(None, [self.warm.get(i.instance_id) for i in self.again])
        for instance in [*self.touched.values(), *(i for i, _ in self.held), *brought_back]:
            self.evict(instance)
        for instance_id in list(self.aside):
            found = self.warm.get(instance_id)
            if found is not None:
                self.evict(found)
        for _, envelope in self.held:
            envelope.held = False
        self._dismiss_visitors()
        for envelope in inputs:
            envelope.counted = False
            if envelope.row_no in added:
                envelope.row_no, envelope.stored_as = envelope.stored_as, 0
        self.backlog.clear()
        self._begin()
        return inputs

    def _dismiss_visitors(self) -> None:
        for instance_id in self.visitors:
            found = self.warm.get(instance_id)
            if found is not None:
                if found.written:
                    self.salts[instance_id] = found.salt
                self.evict(found)
        for instance_id in list(islice(self.salts, max(0, len(self.salts) - SALTS_KEPT))):
            del self.salts[instance_id]

    # ------------------------------------------------------------------------------------------- eviction

    def evict(self, instance: Instance) -> None:
        """Put the instance out of memory; it comes back from the store when it is needed."""
        if self.warm.get(instance.instance_id) is instance:
            del self.warm[instance.instance_id]
            self.warm_bytes -= instance.size
        instance.put_away(self.running)
        instance.stored = None

    def awaits(self, invocation: Invocation) -> bool:
        """Whether the result may still be wanted; of an instance that is not at hand nobody knows."""
        instance = self.warm.get(invocation.instance_id)
        if instance is None or instance.mailbox is not None:
            return True
        if instance.is_finished or instance.execution_id != invocation.execution_id:
            return False
        return instance.execution is None or instance.execution.is_open(invocation.task_id)

    def evict_where(self, is_meant: Callable[[Instance], bool]) -> None:
        """Put those instances out of memory that are meant, between two batches."""
        for instance in [one for one in self.warm.values() if is_meant(one)]:
            self.evict(instance)

    def evict_idle(self, before: int, most: int = 1_000) -> list[str]:
        """Evict up to `most` instances not touched since `before`, and whatever is over the memory limit."""
        evicted: list[str] = []
        for instance in list(islice(self.warm.values(), most)):
            if instance.touched_at >= before and self._weight() <= self.limits.warm_bytes:
                break
            self.evict(instance)
            evicted.append(instance.instance_id)
        self.counters["evictions"] += len(evicted)
        return evicted

    def _weight(self) -> int:
        return self.warm_bytes + 3_000 * len(self.warm)

    def drop_everything(self) -> None:
        """After an error nobody can judge: nothing in memory counts any more."""
        for instance in list(self.warm.values()):
            self.evict(instance)
        self.warm.clear()
        self.warm_bytes = 0
        self.backlog.clear()
        self.lines.take_all()
        self._begin()


class _Recalled:
    """What a repeat is told: it is kept already."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def _is_fresh(message: Message) -> bool:
    return isinstance(message, Start) and (
        message.fresh or (message.parent is not None and is_derived(message.instance_id, message.parent))
    )
