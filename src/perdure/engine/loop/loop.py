"""The loop: one thread that takes arrived messages, makes a batch of them with the dispatcher, and commits.

While it waits for the disk, messages queue, and the next batch takes them all: that is group commit. Nothing
leaves the process before its commit; `_release` runs after it and cannot raise. A commit fails in one of three
ways. If the store rejects its data, the loop repeats it in halves until it finds the one instance that the
store rejects, and parks it; other instances are not affected. Without space, clients get an error and the rest
is retried later. After any other error the outcome is unknown: the loop drops everything in memory, reopens the
store before it reads anything, and repeats only inputs that are safe to repeat. The loop knows its time from a
`Clock` and waits through an `InboxWaiter`, so that a test can control both.
"""

from __future__ import annotations

import gc
import logging
from asyncio import CancelledError
from collections.abc import Callable, Iterable
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final

from perdure.engine.activities import ActivityPool, Attempt
from perdure.engine.clock import Clock
from perdure.engine.cluster.coordinator import Sharing
from perdure.engine.core.audit import AuditMemos
from perdure.engine.core.batch import OpenBatch
from perdure.engine.core.dispatcher import Dispatcher
from perdure.engine.core.envelope import Envelope, envelopes_of
from perdure.engine.core.lifecycle import Quarantine
from perdure.engine.core.ports import Released
from perdure.engine.core.telemetry import SILENCE, Durable, Telemetry
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
from perdure.model.records import Batch, InstanceRow, WaitRow
from perdure.model.waiting import next_step
from perdure.replay.environment import RunApart
from perdure.store.port import EngineStore, Opening

HORIZON = 60_000_000  # microseconds ahead for which timers are in memory
POLL_EVERY = 20_000_000  # microseconds between polls of the store's index
TAKE = 2_000  # messages taken at once
BEGUN_AT_ONCE: Final = 10_000  # activities started between two checks for starts
POLL_FULL = 50_000  # the same when all polled messages already wait here
LONGEST_PACE = 1_000_000  # the same at most when other workers write into the inbox
RETRY_FULL = 1_000_000  # microseconds until a full store is retried
REFUSED_FOR = 5.0  # seconds that a store counts as full after a rejection, unless a commit succeeds
RETRY_POISON = 60_000_000  # microseconds until a message that could not be stored is retried
RETRY_AWAY = 500_000  # microseconds until a failed store is reopened
RETRY_CONFLICT = 50_000  # microseconds until a batch with repeated conflicts is retried
CONFLICTS = 5  # immediate retries of a batch after a conflict with another worker
CLIENT_WAITS: Final = (
    5_000_000  # microseconds that a client waits for a store that is away, or for one commit
)

SURVIVED: Final = (Exception, EngineSignal, SystemExit, KeyboardInterrupt, GeneratorExit, CancelledError)
"""The exceptions of code on the loop's thread that do not end the loop."""

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
        telemetry: Telemetry = SILENCE,
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
        self.full_until = 0.0  # by the monotonic clock, while the store rejects writes; read by other threads
        self.committing_since: float | None = None  # by the monotonic clock; read by other threads
        self._away_since = 0
        self.sweeper = sweeper
        self.sharing = sharing  # None for an engine that has its hub to itself
        self.leaving = False
        self.returned: Callable[[], None] = lambda: (
            None
        )  # called after the store was reopened; may raise StoreError
        self.watched: Callable[[Batch, CallbackBatch], None] | None = None  # None without watchers
        self._finished = finished
        self._evicted = evicted
        self._committed = committed
        self._tell = telemetry.committed if telemetry is not SILENCE else None
        self._began = 0.0  # when the making of the batch began, by the monotonic clock; without telemetry 0
        self._let_out_took = 0.0  # seconds, of the last batch
        self._poll_at = 0
        self._due_at = 0
        self._conflicts = 0
        self._recover_after: int | None = 0
        self._parked_after: int | None = 0
        self._retry: list[Envelope] = []
        self._retry_at = 0
        self._owes_rows = False
        self._more_rows = False  # the last poll has not returned all rows of the inbox
        self._unpolled = False  # the store was reopened, and its inbox is not read yet
        self._poisoned_rows: dict[
            int, int
        ] = {}  # messages that the store rejected, with the time of the retry

    # ------------------------------------------------------------------------------------------- the thread

    def open(self) -> None:
        """Open the hub. Raises the errors of the store."""
        self._opened(self.store.open)

    def _opened(self, take: Callable[[], Opening]) -> None:
        since = self.clock.monotonic()
        opening = take()
        self.dispatcher.opened(opening)
        if self.sharing is not None:
            self.sharing.opened(opening, since)

    def run(self) -> None:
        """Run turns until the stop. Messages without an answer are then rejected.

        After an internal error it drops everything in memory and reloads the store; the fifth error in a minute
        ends the loop.
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
                log.exception("engine loop failed; state is reloaded from the store")
                self._lose(self.dispatcher.rollback(), StoreError(f"the loop failed: {error}"))
            except BaseException:
                self._die()
                raise
            if self.idle_before:
                self._evicted(self.dispatcher.cache.evict_idle(self.idle_before))
                self.idle_before = 0
        self.refuse_rest()

    def post(self, message: Message, reply: Any = None) -> None:
        """Send a message to the loop, from any thread."""
        self.inbox.put(Envelope(message, reply))

    def nudge(self) -> None:
        """Make the loop check the clock again, from any thread."""
        self.inbox.put(None)

    # ---------------------------------------------------------------------------------------------- taking

    def take(self, *, wait: bool = True) -> list[Envelope]:
        """Take the pending messages; waits for one if there is none and `wait` is true."""
        taken = self._take_due()
        self._drain(taken)
        if self.dispatcher.lines.by_instance:
            wait = False
        # A nudge may just have been taken off the inbox, so check its cause instead of waiting.
        if not taken and wait and not self.stopping and not (self.memos and self.away is None):
            first = self.waiter.wait(self.inbox, self.next_at(), self._is_busy)
            take_into(taken, first)
            self._drain(taken)
            if not taken:
                taken = self._take_due()
        if taken and self._retry:  # messages that wait for space go first: nothing overtakes them
            taken = [*self._retry, *taken]
            self._retry = []
        return taken

    def next_at(self) -> int | None:
        """The time of the loop's next own work."""
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
        if self.dispatcher.lines.by_instance or self._is_recovering():
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
        """Poll the store in the next turn, because the clock was moved. On the loop's thread only."""
        self._poll_at = self._due_at = 0

    def _is_busy(self) -> bool:
        return self.pool is not None and self.pool.is_busy

    def _drain(self, taken: list[Envelope], most: int = TAKE) -> None:
        inbox = self.inbox
        if self.early.waiting:
            self.early.drain_into(taken)
        try:
            while len(taken) < most:
                take_into(taken, inbox.get_nowait())
        except Empty:
            pass

    def _take_due(self) -> list[Envelope]:
        """The retries, the due timers, and the messages from the store."""
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
        self._take_retries(now, taken)  # behind messages accepted before them
        if self._more_rows:  # messages accepted before these timers were due come first
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
        """Read the answers and unclaimed activities of other workers; returns when to read again."""
        tell(sharing.answers(now))
        invocations = sharing.claim() if self.pool is not None else []
        if invocations:
            handover = CallbackBatch()
            assert self.pool is not None
            self.pool.start(invocations, handover)
            handover.flush()
        return sharing.next_look(now, found=found or bool(invocations))

    def _tend(self) -> None:
        """Between two batches: process hints and update this worker's share of the hub."""
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
                # The former owner may have consumed rows of these partitions that wait here: polls return the
                # others.
                self.dispatcher.lines.drop_where(lambda e: bool(e.row_no) and sharing.is_of(e, gained))

    def _sweep(self, now: int, taken: list[Envelope]) -> None:
        assert self.sweeper is not None
        taken.extend(map(Envelope, self.sweeper.sweep(now)))

    def _is_recovering(self) -> bool:
        pages_left = self._recover_after is not None or self._parked_after is not None
        return pages_left and not self.dispatcher.accept_only

    def _recover(self, taken: list[Envelope]) -> None:
        """After a start: reload instances with activities to run again, and retry parked ones, a page per turn."""
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
        """Run a read of the store, which may fail like a commit; returns whether it succeeded."""
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
        if self.dispatcher.task_owners and not self._guarded(self._read_tasks):
            self._retry.extend(message for message in messages if not message.row_no)
            return
        try:
            now = self.clock.now()
            if self._tell is not None:
                self._began = self.clock.monotonic()
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

    def _read_tasks(self) -> None:
        self.dispatcher.know_tasks(self.store.waits)

    def _admit(self, cold: list[str]) -> Iterable[Envelope]:
        """Load instances that are not in memory; returns the messages for the next round, which are none."""
        dispatcher, store = self.dispatcher, self.store
        operations = dispatcher.operations(cold)
        loaded = store.load(cold)
        for stored in dispatcher.lacking(loaded):
            whole = store.history_of(stored.row.instance_no, stored.row.execution_no)
            if whole is not None:
                stored.history, stored.bodies = whole.history, whole.bodies
        seen = store.seen(operations) if operations else ()
        owners = dispatcher.about_tasks(cold)
        tasks = self._tasks_of(one.row for one in loaded if one.row.instance_id in owners) if owners else None
        _log_unread(dispatcher.admit(cold, loaded, operations, seen, tasks))
        return ()

    def _tasks_of(self, rows: Iterable[InstanceRow]) -> dict[int, list[WaitRow]]:
        """The open waits of these instances, by number."""
        tasks: dict[int, list[WaitRow]] = {row.instance_no: [] for row in rows}
        for wait in self.store.waits(list(tasks)):
            tasks[wait.instance_no].append(wait)
        return tasks

    def _seal(self) -> Batch:
        """The rows of the batch, those of the audit log included."""
        batch = self.dispatcher.seal()
        if self.early.is_long:
            self.early.look_behind()
        self.early.check()
        if self.memos.waiting or self.memos.in_hand:
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
        log.exception(
            "a batch failed in engine code; it is repeated without the instance that caused the error"
        )
        culprit = error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")
        return partial(self._halve, inputs, culprit)

    def _part(self, inputs: list[Envelope], instance_id: str) -> None:
        """Repeat the batch without the instance of a long step, and then run that step in a batch of its own."""
        with self.early.parting():
            self.turn([e for e in inputs if e.message.instance_id != instance_id])
            self.turn([e for e in inputs if e.message.instance_id == instance_id])

    def _without_culprit(self, inputs: list[Envelope]) -> None:
        """Repeat the batch with one instance parked, and free the memory of its code, which may be large."""
        gc.collect()
        give_back_free_memory()
        self.turn(inputs)

    def _commit(self, batch: Batch, since: float) -> None:
        """Store the rows of a batch, if it has any. `since` tells other threads how long that takes."""
        if batch.is_empty():
            return
        ring = self.dispatcher.ring
        self.committing_since = since
        try:
            if self.sharing is not None:
                self._confirm(self.sharing)
            ring.write_into(batch)  # not before: a start may have been committed while the batch was sealed
            self.store.commit(batch)
        except BaseException:
            ring.rolled_back()
            raise
        else:
            ring.committed()
        finally:
            self.committing_since = None

    def _confirm(self, sharing: Sharing) -> None:
        """Check, before the commit, that the batch is neither too late nor about instances of another worker."""
        sharing.membership.confirm()
        if self.dispatcher.refuses_until <= self.clock.now():
            raise CommitConflict("its client has received another answer in the meantime")

    def _release(self, batch: Batch, since: float) -> None:
        """The batch is durable: its effects leave the process."""
        released = self.dispatcher.release()
        self._conflicts = 0
        self.full_until = 0.0
        durable, ended = None, 0.0
        if self._tell is not None:
            ended = self.clock.monotonic()
            durable = Durable(batch, released, ended - since, since - self._began, self._let_out_took)
        if self._committed is not None:
            self._committed(batch, self.clock.monotonic() - since)
        if self.early.is_long:
            self.early.look_behind()
        self._let_out(released, batch, durable)
        if self.early.is_long:
            self.early.look_behind()
            self.early.ended()
        if durable is not None:
            self._let_out_took = self.clock.monotonic() - ended

    def _let_out(self, released: Released, batch: Batch, durable: Durable | None) -> None:
        """Release the effects of a durable batch, each separately: a failure must not block the others."""
        handover = CallbackBatch()
        pool = self.pool
        gone: list[Any] = []
        late: list[Any] = []
        if pool is not None:
            if released.cancelled or released.ended:
                self._shielded(lambda done: gone.extend(pool.cancel(done.cancelled, done.ended)), released)
            passed_by = self.dispatcher.passed_by
            if passed_by:  # a later rewind may have reopened these calls
                late = pool.forget(passed_by)
            work = released.invocations
            for at in range(0, len(work), BEGUN_AT_ONCE):
                self._shielded(lambda part: pool.start(part, handover), work[at : at + BEGUN_AT_ONCE])
                if self.early.is_long:
                    self.early.look_behind()
            if self.dispatcher.results:
                gone += pool.forget(self.dispatcher.answered - passed_by)
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
        for instance_id, reason, _ in released.parked:
            log.warning("instance %s is parked: %s. Next: %s", instance_id, reason, next_step(reason))
        if durable is not None and self._tell is not None:
            durable.attempts = [one for one in gone if type(one) is Attempt]
            durable.passed_by = [one for one in late if type(one) is Attempt]
            self._shielded(self._tell, durable)
        handover.answer(released.answers)
        if self.memos.in_hand:
            handover.answer(self.memos.committed())
        self._shielded(lambda done: self._finished(done, handover), released)
        watched = self.watched
        if watched is not None:
            self._shielded(lambda done: watched(done, handover), batch)
        handover.flush()

    def _release_early(self, apart: OpenBatch) -> None:
        """Release starts that were committed on their own, and do not run yet."""
        rows, handover = apart.rows, CallbackBatch()
        self.full_until = 0.0
        if self._committed is not None:
            self._committed(rows, 0.0)
        if self._tell is not None:
            self._shielded(self._tell, Durable(rows, apart.released, None))
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
        """Find the culprit of a failed batch by bisection, and park it alone."""
        tell(self.memos.refused(error))  # the memos may be the cause, and they belong to no instance
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
        """Repeat the batch after a conflict with another worker, because its data are out of date."""
        self._conflicts += 1
        if self._conflicts <= CONFLICTS:
            self.turn(inputs)
            return
        log.warning(
            "a batch conflicted with other workers %d times; it is retried shortly: %s", CONFLICTS, error
        )
        self._conflicts = 0
        self._put_off(inputs, error, RETRY_CONFLICT)

    def _isolate(self, instance_id: str, only: list[Envelope], error: Exception) -> None:
        if len(only) > 1:
            for half in (only[: len(only) // 2], only[len(only) // 2 :]):
                self.turn(half)
        elif instance_id not in self.dispatcher.quarantine:
            self.dispatcher.quarantine[instance_id] = f"the store rejected its changes: {error}"
            self.turn(only)
        else:
            self._give_up(instance_id, only[0], error)

    def _give_up(self, instance_id: str, envelope: Envelope, error: Exception) -> None:
        """Give up a message that cannot even be stored for later. Its client gets an error; otherwise its
        instance is parked without it, visibly, and an activity whose result it was runs again at the resume.
        """
        log.error("a message for instance %s cannot be stored: %s", instance_id, error)
        why, message = self.dispatcher.quarantine.pop(instance_id), envelope.message
        if envelope.row_no:
            self._poisoned_rows[envelope.row_no] = self.clock.now() + RETRY_POISON
        if envelope.reply is not None:
            tell([(envelope.reply, error if isinstance(error, PerdureError) else CommitRefused(str(error)))])
        elif not isinstance(message, Wake):
            if isinstance(message, ActivityResult) and self.pool is not None:
                self.pool.forget([(message.execution_id, message.task_id)])
            self.dispatcher.quarantine[instance_id] = why
            self.turn([Envelope(Wake(instance_id=instance_id))])

    def _wait_for_room(self, inputs: list[Envelope], error: StoreFull) -> None:
        """Tell clients at once that nothing was stored; retry the rest in a second."""
        self.full_until = self.clock.monotonic() + REFUSED_FOR
        log.error(
            "the store is full; nothing accepted is lost, and writing resumes when there is space: %s", error
        )
        self._put_off(inputs, error, RETRY_FULL)

    def _put_off(self, inputs: list[Envelope], error: PerdureError, delay: int) -> None:
        """Certainly nothing was stored: send clients the error, and retry the rest later."""
        tell([(e.reply, error) for e in inputs if e.reply is not None])
        tell(self.memos.refused(error))
        self._retry.extend(e for e in inputs if e.reply is None and not e.row_no)  # polls return rows again
        self._retry_at = self._poll_at = self.clock.now() + delay
        self._owes_rows = any(e.row_no for e in inputs)  # nothing newer may overtake them

    def _lose(self, inputs: list[Envelope], error: StoreError) -> None:
        """Handle an error with an unknown outcome: drop everything in memory, and reopen the store before
        reading.

        Inputs with rows are polled again. Results of activities are safe to repeat (their task must be open),
        and so are client operations with an id (the first answer is kept); the other clients get an error.
        """
        log.error("the store failed; state is reloaded from it: %s", error)
        waiting = [*inputs, *self.dispatcher.lines.take_all(), *self._retry, *self.early.take_doubtful()]
        self._retry = []
        self.dispatcher.drop_everything()
        self.wakeups.clear()
        unknown = OutcomeUnknown(
            f"the store failed during the commit ({error}): the request may or may not have taken effect. Get "
            "the instance's status, or repeat the request with the same id"
        )
        unknown.__cause__ = error
        tell([(e.reply, unknown) for e in waiting if e.reply is not None and not _repeatable(e)])
        self._retry = [e for e in waiting if not e.row_no and _repeatable(e)]
        if self.away is None:
            self._away_since = self.clock.now()
        self.away = error
        self._unpolled = self._come_back()
        if not self._unpolled:
            self._dismiss_clients(self.away or error)

    def _dismiss_clients(self, error: PerdureError) -> None:
        """The store stays unavailable: send waiting clients an error. Repeatable inputs are processed later all
        the same.
        """
        if self.clock.now() - self._away_since < CLIENT_WAITS:
            return
        unknown = OutcomeUnknown(
            f"the store is unavailable ({error}): the request may still take effect when the store is back. "
            "Get the instance's status then, or repeat the request with the same id"
        )
        unknown.__cause__ = error
        waiting = [*(e.reply for e in self._retry), *self.memos.waiting_for()]
        tell([(reply, unknown) for reply in waiting if reply is not None])

    def _come_back(self) -> bool:
        """Reopen the store, if it is time; returns whether it is open."""
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
        self._recover_after = 0  # parked instances are retried only at a start, which continues where it was
        return True

    def refuse_rest(self) -> None:
        """Reject all waiting messages, after the last turn. From any thread."""
        left = self.dispatcher.lines.take_all()
        doubtful, self._retry = [*self._retry, *self.early.take_doubtful()], []
        count = -1
        while len(left) > count:
            count = len(left)
            self._drain(left, len(left) + TAKE)
        stopped = EngineStopped("the engine stopped before it processed the request: nothing was stored")
        unknown = OutcomeUnknown(
            "the engine stopped during the commit: the request may or may not have taken effect. Repeat it "
            "with the same id"
        )
        answers = [*((e.reply, stopped) for e in left), *((e.reply, unknown) for e in doubtful)]
        if self.sharing is not None:
            answers += self.sharing.requests.refused(unknown)
        tell([(reply, error) for reply, error in answers if reply is not None])
        tell(self.memos.refused(stopped))

    def _die(self) -> None:
        """The thread ends by an exception that is not an ordinary error: the outcome of the current batch is
        unknown.
        """
        self.stopping = True
        self._retry.extend(self.dispatcher.rollback())
        self.refuse_rest()


def _has_come(at: int, now: int, most: int) -> bool:
    """Whether `at` has come. A distance of more than `most` means that the clock went back, and counts as come."""
    return now >= at or at - now > most


def _repeatable(envelope: Envelope) -> bool:
    if envelope.reply is None:
        return isinstance(envelope.message, ActivityResult | Wake)
    return bool(getattr(envelope.message, "operation_id", ""))


def _log_unread(unread: list[str]) -> None:
    for why in unread:
        log.error("%s", why)
