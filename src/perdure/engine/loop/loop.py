"""The loop: one thread that takes what has arrived, lets the hub make a batch of it, and commits.

While it waits for the disk, messages pile up, and the next batch takes them all: that is group commit.
Nothing leaves the process before its commit; `_release` runs after it and cannot raise.
A commit fails in one of three ways. Refused for its data, it is redone in halves until the one instance that
the store will not have is found and parked; nobody else notices. With no room left, clients are told so and
the rest is tried again later. For any other reason nobody knows whether it happened: everything in memory is
dropped, the store is opened again before anything is read, and only what can be repeated safely is fed again.
The loop knows its time from a `Clock` and waits through a `InboxWaiter`, so that a test can put both in its hands.
"""

from __future__ import annotations

import gc
import logging
from asyncio import CancelledError
from collections.abc import Callable, Iterable
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final

from perdure.engine.activities import ActivityPool
from perdure.engine.clock import Clock
from perdure.engine.cluster.coordinator import Sharing
from perdure.engine.core.audit import AuditMemos
from perdure.engine.core.batch import OpenBatch
from perdure.engine.core.dispatcher import Dispatcher
from perdure.engine.core.envelope import Envelope, envelopes_of
from perdure.engine.core.lifecycle import Quarantine
from perdure.engine.core.ports import Released
from perdure.engine.interrupting import CutShort, give_back_free_memory
from perdure.engine.loop.callbacks import CallbackBatch, tell
from perdure.engine.loop.early_starts import EarlyStarts
from perdure.engine.loop.inbox import InboxWaiter, Item, take_into
from perdure.engine.loop.timers import Wakeups
from perdure.engine.upkeep.retention import EVERY, Sweeper
from perdure.errors import (
    CommitConflict,
    CommitRefused,
    EngineSignal,
    EngineStopped,
    OutcomeUnknown,
    PerdureError,
    StoreError,
    StoreFull,
)
from perdure.model.messages import ActivityResult, Message, Wake
from perdure.model.records import Batch
from perdure.replay.environment import RunApart
from perdure.store.port import EngineStore, Opening

HORIZON = 60_000_000  # microseconds ahead that timers are held in memory
POLL_EVERY = 20_000_000  # microseconds between looks at the store's own index
TAKE = 2_000  # messages taken at once
BEGUN_AT_ONCE: Final = 10_000  # activities given to the pool between two looks for starts
POLL_FULL = 50_000  # the same where all that a look shows waits here already
LONGEST_PACE = 1_000_000  # the same at most where others write into the inbox
RETRY_FULL = 1_000_000  # microseconds until a full store is tried again
REFUSED_FOR = 5.0  # seconds that a store counts as full after a refusal, if no commit has succeeded since
RETRY_POISON = 60_000_000  # microseconds until a message that could not be stored is tried again
RETRY_AWAY = 500_000  # microseconds until a failed store is opened again
RETRY_CONFLICT = 50_000  # microseconds until what met with others several times is tried again
CONFLICTS = 5  # how often a batch is redone at once because another worker came between
CLIENT_WAITS: Final = (
    5_000_000  # microseconds that a client waits for a store that is away, or for one commit
)

SURVIVED: Final = (Exception, EngineSignal, SystemExit, KeyboardInterrupt, GeneratorExit, CancelledError)
"""What may come out of code that the loop runs, and does not end it."""

log = logging.getLogger("perdure.engine")


class Loop:
    """Takes, decides, commits, releases. `turn` is one batch; `run` is the thread."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        store: EngineStore,
        clock: Clock,
        waiter: InboxWaiter,
        *,
        finished: Callable[[Released, CallbackBatch], None],
        evicted: Callable[[list[str]], None] = lambda _: None,
        committed: Callable[[Batch, float], None] | None = None,
        sweeper: Sweeper | None = None,
        sharing: Sharing | None = None,
    ) -> None:
        self.dispatcher = dispatcher
        self.store = store
        self.clock = clock
        self.waiter = waiter
        self.pool: ActivityPool | None = None
        self.inbox: SimpleQueue[Item] = SimpleQueue()
        self.memos = AuditMemos()
        self.early = EarlyStarts(
            dispatcher,
            store,
            clock,
            self.inbox,
            commit=lambda batch: self._commit(batch, clock.monotonic()),
            accepted=self._release_early,
        )
        dispatcher.pause = self.early.look
        self.wakeups = Wakeups()
        self.stopping = False
        self.idle_before = 0
        self.away: PerdureError | None = None
        self.full_until = 0.0  # by the monotonic clock, while the store refuses writes; read by other threads
        self.committing_since: float | None = None  # by the monotonic clock; read by other threads
        self._away_since = 0
        self.sweeper = sweeper
        self.sharing = sharing  # None for an engine that has its hub to itself
        self.leaving = False
        self.returned: Callable[[], None] = lambda: None  # the store was opened again; may raise StoreError
        self.watched: Callable[[Batch, CallbackBatch], None] | None = None  # None while nobody watches
        self._finished = finished
        self._evicted = evicted
        self._committed = committed
        self._poll_at = 0
        self._due_at = 0
        self._conflicts = 0
        self._recover_after: int | None = 0
        self._parked_after: int | None = 0
        self._retry: list[Envelope] = []
        self._retry_at = 0
        self._owes_rows = False
        self._more_rows = False  # the last look at the inbox has not shown all of it
        self._unpolled = False  # the store was opened again, and its inbox is still to be read
        self._poisoned_rows: dict[int, int] = {}  # messages the store would not have: when to try again

    # ------------------------------------------------------------------------------------------- the thread

    def open(self) -> None:
        """Take the hub over. Raises what the store raises."""
        self._opened(self.store.open)

    def _opened(self, take: Callable[[], Opening]) -> None:
        since = self.clock.monotonic()
        opening = take()
        self.dispatcher.opened(opening)
        if self.sharing is not None:
            self.sharing.opened(opening, since)

    def run(self) -> None:
        """Turn until told to stop. Whatever is left unanswered then is refused.

        An error of the engine's own drops everything in memory and goes on from the store; five in a minute
        end the loop with the last of them.
        """
        failures: list[float] = []
        while not self.stopping:
            try:
                self.turn(self.take())
            except SURVIVED as error:
                failures = [at for at in failures if at > self.clock.monotonic() - 60.0]
                failures.append(self.clock.monotonic())
                if len(failures) >= 5:
                    self._die()
                    raise
                log.exception("the loop failed; it goes on from what is stored")
                self._lose(self.dispatcher.rollback(), StoreError(f"the loop failed: {error}"))
            except BaseException:
                self._die()
                raise
            if self.idle_before:
                self._evicted(self.dispatcher.cache.evict_idle(self.idle_before))
                self.idle_before = 0
        self.refuse_rest()

    def post(self, message: Message, reply: Any = None) -> None:
        """Hand a message to the loop, from any thread."""
        self.inbox.put(Envelope(message, reply))

    def nudge(self) -> None:
        """Have the loop look at the clock again, from any thread."""
        self.inbox.put(None)

    # ---------------------------------------------------------------------------------------------- taking

    def take(self, *, wait: bool = True) -> list[Envelope]:
        """What there is to do; waits for something if there is nothing and `wait` is true."""
        taken = self._take_due()
        self._drain(taken)
        if self.dispatcher.lines:
            wait = False
        # A nudge may have been taken off the inbox just now, so what it was for is looked at, not waited for.
        if not taken and wait and not self.stopping and not (self.memos and self.away is None):
            first = self.waiter.wait(self.inbox, self.next_at(), self._is_busy)
            take_into(taken, first)
            self._drain(taken)
            if not taken:
                taken = self._take_due()
        if taken and self._retry:  # what waits for room goes first: nothing passes it
            taken = [*self._retry, *taken]
            self._retry = []
        return taken

    def next_at(self) -> int | None:
        """When the loop has something to do of its own accord."""
        if self.away is not None:
            return self._retry_at
        times = [self._poll_at]
        if self.early.waiting:
            times.append(0)
        upcoming = self.wakeups.next_at()
        if upcoming is not None:
            times.append(upcoming)
        if self._retry:
            times.append(self._retry_at)
        if self.dispatcher.lines or self._is_recovering():
            times.append(0)
        if self.sweeper is not None and not self.dispatcher.accept_only:
            times.append(self.sweeper.next_at)
        if self.sharing is not None:
            times.append(self.sharing.membership.next_at)
        return min(times)

    def next_timer_at(self) -> int | None:
        """The earliest timer or delayed message of the whole hub, for a clock that skips to it."""
        near = self.wakeups.next_at()
        times = [near] if near is not None else []
        if self._retry or self.away is not None:
            times.append(self._retry_at)
        if self.away is None:
            far = self.store.poll(self.clock.now(), 2**62, 1)
            times.extend(at for at, _ in far.due)
            times.extend([far.next_visible_at] if far.next_visible_at else [])
        return min(times, default=None)

    def look_again(self) -> None:
        """The clock was moved: look at the store's own index in the next turn. On the loop's thread only."""
        self._poll_at = self._due_at = 0

    def _is_busy(self) -> bool:
        return self.pool is not None and self.pool.is_busy

    def _drain(self, taken: list[Envelope], most: int = TAKE) -> None:
        inbox = self.inbox
        self.early.drain_into(taken)
        try:
            while len(taken) < most:
                take_into(taken, inbox.get_nowait())
        except Empty:
            pass

    def _take_due(self) -> list[Envelope]:
        """What is left from before, what the clock brings, and what the store's indexes show."""
        if self.away is not None and not self._come_back():
            return []
        if self.sharing is not None:
            self._guarded(self._tend)
            if self.away is not None:
                return []
        now = self.clock.now()
        taken: list[Envelope] = []
        if self.dispatcher.accept_only and self.sharing is None:
            self._poll_at = now + POLL_EVERY
            self._unpolled = False
            self._take_retries(now, taken)
            return taken
        due = self.wakeups.pop_due(now, TAKE)
        most = POLL_EVERY if self.sharing is None else LONGEST_PACE
        if "" in due or self._owes_rows or _has_come(self._poll_at, now, most):
            if self._guarded(lambda: self._poll(now, taken)):
                self._unpolled = False
        self._take_retries(now, taken)  # behind what was accepted before them
        if self._more_rows:  # what was accepted before these timers were due comes before them
            for instance_id in filter(None, due):
                self.wakeups.push(max(now, self._poll_at), instance_id)
        else:
            taken.extend(Envelope(Wake(instance_id=i)) for i in due if i)
            if self._is_recovering():
                self._guarded(lambda: self._recover(taken))
        if self.sweeper is not None and _has_come(self.sweeper.next_at, now, EVERY):
            self._guarded(lambda: self._sweep(now, taken))
        return taken

    def _take_retries(self, now: int, taken: list[Envelope]) -> None:
        if self._retry and _has_come(self._retry_at, now, RETRY_FULL):
            taken.extend(self._retry)
            self._retry = []

    def _poll(self, now: int, taken: list[Envelope]) -> None:
        waiting = self.dispatcher.lines.rows
        looks_ahead = self.sharing is None or _has_come(self._due_at, now, POLL_EVERY)
        found = self.store.poll(now, now + HORIZON if looks_ahead else 0, TAKE)
        self._owes_rows = False
        known = {number for number, at in self._poisoned_rows.items() if at > now}
        fresh = [m for m in found.messages if m.message_no not in waiting and m.message_no not in known]
        self._more_rows = len(found.messages) >= TAKE and len(known) < TAKE
        unread: list[str] = []
        taken.extend(envelopes_of(fresh, unread))
        _log_unread(unread)
        for at, instance_id in found.due:
            self.wakeups.push(at, instance_id)
        if looks_ahead:
            self._due_at = now + POLL_EVERY if len(found.due) < TAKE else now
        more = len(found.messages) >= TAKE or len(found.due) >= TAKE
        if not more:
            self._poll_at = now + POLL_EVERY
        elif found.messages and not fresh:
            self._poll_at = now + POLL_FULL
        else:
            self._poll_at = now if len(taken) < TAKE else now + 1_000
        if self.sharing is not None:
            look_at = self._look_around(self.sharing, now, found=bool(found.messages))
            self._poll_at = min(self._poll_at, look_at) if more and fresh else look_at
        if found.next_visible_at is not None and found.next_visible_at < self._poll_at:
            self.wakeups.push(found.next_visible_at, "")

    def _look_around(self, sharing: Sharing, now: int, *, found: bool) -> int:
        """What other workers have answered, and left to be done; returns when to look again."""
        tell(sharing.answers(now))
        invocations = sharing.claim() if self.pool is not None else []
        if invocations:
            handover = CallbackBatch()
            assert self.pool is not None
            self.pool.start(invocations, handover)
            handover.flush()
        return sharing.next_look(now, found=found or bool(invocations))

    def _tend(self) -> None:
        """Between two batches: hints, and this worker's share of the hub."""
        sharing = self.sharing
        assert sharing is not None
        if sharing.has_heard():
            self._poll_at = 0
        if self.leaving:
            sharing.leave()
        if _has_come(sharing.membership.next_at, self.clock.now(), POLL_EVERY):
            gained = sharing.tend()
            if gained:
                self._poll_at = self._due_at = 0
                self._recover_after = self._parked_after = 0
                # Rows for these that are at hand may have been consumed by the owner before: polls tell.
                self.dispatcher.lines.drop_where(lambda e: bool(e.row_no) and sharing.is_of(e, gained))

    def _sweep(self, now: int, taken: list[Envelope]) -> None:
        assert self.sweeper is not None
        taken.extend(map(Envelope, self.sweeper.sweep(now)))

    def _is_recovering(self) -> bool:
        pages_left = self._recover_after is not None or self._parked_after is not None
        return pages_left and not self.dispatcher.accept_only

    def _recover(self, taken: list[Envelope]) -> None:
        """After a start: instances with activities to run again, and parked ones to try again, a page a turn."""
        retry = self._recover_after is None
        if self._recover_after is not None:
            page = self.store.local_work(self._recover_after, TAKE)
            self._recover_after = page[-1][0] if len(page) == TAKE else None
        else:
            assert self._parked_after is not None
            page = self.store.parked(self._parked_after, TAKE)
            self._parked_after = page[-1][0] if len(page) == TAKE else None
        taken.extend(Envelope(Wake(instance_id=instance_id, retry=retry)) for _, instance_id in page)

    def _guarded(self, look: Callable[[], None]) -> bool:
        """A look at the store that may fail like a commit may; returns whether it did not."""
        try:
            look()
        except StoreError as error:
            self._lose([], error)
            return False
        return True

    # --------------------------------------------------------------------------------------------- turning

    def turn(self, messages: Iterable[Envelope]) -> None:
        """One batch: these messages, and those that the dispatcher has in line."""
        if self._unpolled:  # the store holds messages that were accepted before these, and they come first
            self._retry.extend(message for message in messages if not message.row_no)
            return
        try:
            now = self.clock.now()
            while cold := self.dispatcher.advance(messages, now):
                messages = self._admit(cold)
            batch = self._seal()
            since = self.clock.monotonic()
            self._commit(batch, since)
        except SURVIVED as error:
            remedy = self._undo(error)
        else:
            self._release(batch, since)
            return
        remedy()  # it runs user code: outside the handler, so that its failures do not have this one as their cause

    def _admit(self, cold: list[str]) -> Iterable[Envelope]:
        """Load instances that are not in memory; returns the messages for the next round, which are none."""
        dispatcher, store = self.dispatcher, self.store
        operations = dispatcher.operations(cold)
        loaded = store.load(cold)
        for stored in dispatcher.lacking(loaded):
            whole = store.history_of(stored.row.instance_no, stored.row.execution_no)
            if whole is not None:
                stored.history, stored.bodies = whole.history, whole.bodies
        _log_unread(dispatcher.admit(cold, loaded, operations, store.seen(operations) if operations else ()))
        return ()

    def _seal(self) -> Batch:
        """The rows of the batch, those of the audit log included."""
        batch = self.dispatcher.seal()
        self.early.look_behind()
        self.early.check()
        if self.memos:
            self.memos.take_back()
            if self.away is None:
                self.memos.write_into(batch, self.store.seen)
        return batch

    def _undo(self, error: BaseException) -> Callable[[], None]:
        """Roll the batch back, and return the remedy for its failure."""
        inputs = self.dispatcher.rollback()
        match error:
            case RunApart():
                return partial(self._part, inputs, error.instance_id)
            case CutShort():
                return partial(self._retry.extend, inputs)
            case Quarantine():
                self.dispatcher.quarantine[error.instance_id] = error.detail
                return partial(self._without_culprit, inputs)
            case StoreFull():
                return partial(self._wait_for_room, inputs, error)
            case CommitRefused():
                return partial(self._halve, inputs, error)
            case CommitConflict():
                return partial(self._redo, inputs, error)
            case StoreError():
                return partial(self._lose, inputs, error)
        log.exception("a batch failed in the engine's own code; it is redone without its culprit")
        culprit = error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")
        return partial(self._halve, inputs, culprit)

    def _part(self, inputs: list[Envelope], instance_id: str) -> None:
        """Redo the batch without the instance whose step takes long, and then that step in a batch of its own."""
        with self.early.parting():
            self.turn([e for e in inputs if e.message.instance_id != instance_id])
            self.turn([e for e in inputs if e.message.instance_id == instance_id])

    def _without_culprit(self, inputs: list[Envelope]) -> None:
        """Redo the batch with one instance parked, and give back what its code has allocated, which may be a lot."""
        gc.collect()
        give_back_free_memory()
        self.turn(inputs)

    def _commit(self, batch: Batch, since: float) -> None:
        """Store the rows of a batch, if it has any. `since` tells other threads how long that takes."""
        if batch.is_empty():
            return
        self.committing_since = since
        try:
            if self.sharing is not None:
                self._confirm(self.sharing)
            self.store.commit(batch)
        finally:
            self.committing_since = None

    def _confirm(self, sharing: Sharing) -> None:
        """Time has passed since the batch began: what it says may be too late, or not this worker's to say."""
        sharing.membership.confirm()
        if self.dispatcher.refuses_until <= self.clock.now():
            raise CommitConflict("whoever asked has been told something else meanwhile")

    def _release(self, batch: Batch, since: float) -> None:
        """The batch is durable: its effects leave the process."""
        released = self.dispatcher.release()
        self._conflicts = 0
        self.full_until = 0.0
        if self._committed is not None:
            self._committed(batch, self.clock.monotonic() - since)
        self.early.look_behind()
        self._let_out(released, batch)
        self.early.look_behind()
        self.early.ended()

    def _let_out(self, released: Released, batch: Batch) -> None:
        """The batch is durable. Each effect on its own: one that fails must not hold up the others."""
        handover = CallbackBatch()
        pool = self.pool
        if pool is not None:
            if released.cancelled or released.ended:
                self._shielded(lambda done: pool.cancel(done.cancelled, done.ended), released)
            passed_by = self.dispatcher.passed_by
            for key in passed_by:  # a rewind behind them may have opened these calls again
                pool.forget(*key)
            work = released.invocations
            for at in range(0, len(work), BEGUN_AT_ONCE):
                self._shielded(lambda part: pool.start(part, handover), work[at : at + BEGUN_AT_ONCE])
                self.early.look_behind()
            for envelope in self.dispatcher.results:
                message = envelope.message
                if isinstance(message, ActivityResult):
                    key = message.execution_id, message.task_id
                    if key not in passed_by:
                        pool.forget(*key)
        if self.sharing is not None:
            self._shielded(self._tell_others, released)
        self.dispatcher.results.clear()
        horizon = batch.at + HORIZON
        for at, instance_id in released.due:
            if at < horizon:
                self.wakeups.push(at, instance_id)
        for at in released.visible:
            if at < horizon:
                self.wakeups.push(at, "")
        for instance_id, reason in released.parked:
            log.warning("instance %s is parked: %s", instance_id, reason)
        handover.answer(released.answers)
        if self.memos:
            handover.answer(self.memos.committed())
        self._shielded(lambda done: self._finished(done, handover), released)
        watched = self.watched
        if watched is not None:
            self._shielded(lambda done: watched(done, handover), batch)
        handover.flush()

    def _release_early(self, apart: OpenBatch) -> None:
        """Starts are durable that had a commit of their own. Nothing of them runs yet."""
        rows, handover = apart.rows, CallbackBatch()
        self.full_until = 0.0
        if self._committed is not None:
            self._committed(rows, 0.0)
        handover.answer(apart.released.answers)
        watched = self.watched
        if watched is not None:
            self._shielded(lambda done: watched(done, handover), rows)
        handover.flush()

    def _tell_others(self, released: Released) -> None:
        assert self.sharing is not None
        self.sharing.committed(released, self.dispatcher.results)

    def _shielded(self, effect: Callable[[Any], None], value: Any) -> None:
        try:
            effect(value)
        except Exception:
            log.exception("an effect of a committed batch failed; recovery will repeat it")

    # ----------------------------------------------------------------------------------- when commits fail

    def _halve(self, inputs: list[Envelope], error: Exception) -> None:
        """Some instance in this batch is the culprit: find it by halves and park it alone."""
        tell(self.memos.refused(error))  # theirs may be the fault, and they are no instance's
        groups: dict[str, list[Envelope]] = {}
        for envelope in inputs:
            groups.setdefault(envelope.message.instance_id, []).append(envelope)
        if len(groups) > 1:
            names = list(groups)
            for half in (names[: len(names) // 2], names[len(names) // 2 :]):
                self.turn([e for name in half for e in groups[name]])
        elif groups:
            instance_id, only = next(iter(groups.items()))
            self._isolate(instance_id, only, error)

    def _redo(self, inputs: list[Envelope], error: CommitConflict) -> None:
        """Another worker came between: what was read is out of date, so read and decide again."""
        self._conflicts += 1
        if self._conflicts <= CONFLICTS:
            self.turn(inputs)
            return
        log.warning("other workers came between %d times; it is tried again shortly: %s", CONFLICTS, error)
        self._conflicts = 0
        self._put_off(inputs, error, RETRY_CONFLICT)

    def _isolate(self, instance_id: str, only: list[Envelope], error: Exception) -> None:
        if len(only) > 1:
            for half in (only[: len(only) // 2], only[len(only) // 2 :]):
                self.turn(half)
        elif instance_id not in self.dispatcher.quarantine:
            self.dispatcher.quarantine[instance_id] = f"the store refused what it did: {error}"
            self.turn(only)
        else:
            self._give_up(instance_id, only[0], error)

    def _give_up(self, instance_id: str, envelope: Envelope, error: Exception) -> None:
        """Not even for later can this message be kept. A client is told; otherwise its instance is parked
        without it, for all to see, and an activity whose result it was runs again at the resume."""
        log.error("a message for instance %s cannot be stored: %s", instance_id, error)
        why, message = self.dispatcher.quarantine.pop(instance_id), envelope.message
        if envelope.row_no:
            self._poisoned_rows[envelope.row_no] = self.clock.now() + RETRY_POISON
        if envelope.reply is not None:
            tell([(envelope.reply, error if isinstance(error, PerdureError) else CommitRefused(str(error)))])
        elif not isinstance(message, Wake):
            if isinstance(message, ActivityResult) and self.pool is not None:
                self.pool.forget(message.execution_id, message.task_id)
            self.dispatcher.quarantine[instance_id] = why
            self.turn([Envelope(Wake(instance_id=instance_id))])

    def _wait_for_room(self, inputs: list[Envelope], error: StoreFull) -> None:
        """Clients learn at once that nothing was stored; the rest is tried again in a second."""
        self.full_until = self.clock.monotonic() + REFUSED_FOR
        log.error(
            "the store is full; nothing accepted is lost, and writing resumes when there is room: %s", error
        )
        self._put_off(inputs, error, RETRY_FULL)

    def _put_off(self, inputs: list[Envelope], error: PerdureError, delay: int) -> None:
        """Certainly nothing was stored: clients are told, the rest is tried again later."""
        tell([(e.reply, error) for e in inputs if e.reply is not None])
        tell(self.memos.refused(error))
        self._retry.extend(e for e in inputs if e.reply is None and not e.row_no)  # rows are polled again
        self._retry_at = self._poll_at = self.clock.now() + delay
        self._owes_rows = any(e.row_no for e in inputs)  # nothing newer may pass them

    def _lose(self, inputs: list[Envelope], error: StoreError) -> None:
        """Nobody knows what the store holds: drop everything derived, and open it again before reading.

        Inputs that are rows will be polled again. Results of activities are harmless to repeat (their task
        must be open), client operations with an id too (the first answer is kept); the others are told.
        """
        log.error("the store failed; its state is read again: %s", error)
        waiting = [*inputs, *self.dispatcher.lines.take_all(), *self._retry, *self.early.take_doubtful()]
        self._retry = []
        self.dispatcher.drop_everything()
        self.wakeups.clear()
        unknown = OutcomeUnknown(
            f"the store failed while this was being committed ({error}): it may or may not have happened. "
            "Ask for the instance's status, or repeat the request with the same id"
        )
        unknown.__cause__ = error
        tell([(e.reply, unknown) for e in waiting if e.reply is not None and not _repeatable(e)])
        self._retry = [e for e in waiting if not e.row_no and _repeatable(e)]
        if self.away is None:
            self._away_since = self.clock.now()
        self.away = error
        self._unpolled = self._come_back()
        if not self._unpolled:
            self._dismiss_clients(error)

    def _dismiss_clients(self, error: PerdureError) -> None:
        """The store stays away: whoever waits for it is told so. What can be repeated is done all the same."""
        if self.clock.now() - self._away_since < CLIENT_WAITS:
            return
        unknown = OutcomeUnknown(
            f"the store is away ({error}): nothing is known to have been done, and it may be done when the store "
            "is back. Ask for the instance's status then, or repeat the request with the same id"
        )
        unknown.__cause__ = error
        waiting = [*(e.reply for e in self._retry), *self.memos.waiting_for()]
        tell([(reply, unknown) for reply in waiting if reply is not None])

    def _come_back(self) -> bool:
        """Open the store again, if it is time; returns whether it is there."""
        now = self.clock.now()
        if not _has_come(self._retry_at, now, RETRY_AWAY):
            return False
        try:
            self._opened(self.store.reopen)
            self.returned()
        except StoreError as error:
            self.away = error
            self._retry_at = now + RETRY_AWAY
            self._dismiss_clients(error)
            return False
        log.warning("the store is back")
        self.away = None
        self._retry_at = 0
        self._poll_at = self._due_at = 0
        self._recover_after = 0  # what was parked is tried again at a start only: that goes on where it was
        return True

    def refuse_rest(self) -> None:
        """Answer whoever still waits, when nobody turns any more. From any thread."""
        left = self.dispatcher.lines.take_all()
        doubtful, self._retry = [*self._retry, *self.early.take_doubtful()], []
        count = -1
        while len(left) > count:
            count = len(left)
            self._drain(left, len(left) + TAKE)
        stopped = EngineStopped("the engine stopped before it had taken this up: nothing was stored")
        unknown = OutcomeUnknown(
            "the engine stopped while this was being stored: it may or may not have happened. "
            "Repeat the request with the same id"
        )
        answers = [*((e.reply, stopped) for e in left), *((e.reply, unknown) for e in doubtful)]
        if self.sharing is not None:
            answers += self.sharing.requests.refused(unknown)
        tell([(reply, error) for reply, error in answers if reply is not None])
        tell(self.memos.refused(stopped))

    def _die(self) -> None:
        """The thread is ending by something that is no ordinary error: the batch in hand is in doubt."""
        self.stopping = True
        self._retry.extend(self.dispatcher.rollback())
        self.refuse_rest()


def _has_come(at: int, now: int, most: int) -> bool:
    """Whether it is time. Nothing is put off for longer than `most`: if it seems so, the clock went back."""
    return now >= at or at - now > most


def _repeatable(envelope: Envelope) -> bool:
    if envelope.reply is None:
        return isinstance(envelope.message, ActivityResult | Wake)
    return bool(getattr(envelope.message, "operation_id", ""))


def _log_unread(unread: list[str]) -> None:
    for why in unread:
        log.error("%s", why)
