"""The loop's part of early starts: reads the inbox while a long batch is being made.

Long work in a batch calls `look` from time to time: the code of an orchestrator that schedules very many tasks,
and the processing of its actions. `look` never raises an error of the store or the engine, because user code
may be above it on the stack and could catch it. Instead the open batch fails with that error when it is
complete.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from queue import Empty, SimpleQueue
from typing import Final

from perdure.engine.clock import Clock
from perdure.engine.core import early_starts
from perdure.engine.core.batch import OpenBatch
from perdure.engine.core.dispatcher import Dispatcher
from perdure.engine.core.envelope import Envelope
from perdure.engine.loop.inbox import Item, take_into
from perdure.errors import CommitConflict, CommitRefused, StoreError, StoreFull
from perdure.model.records import Batch
from perdure.store.port import EngineStore

DEEPEST: Final = 8
"""The maximal number of times that a batch is repeated without a long step."""
SHARE: Final = 3
"""After an early commit, the step runs for at least this many times the duration of that commit."""
ROLLED_BACK: Final = (StoreFull, CommitRefused, CommitConflict)

log = logging.getLogger("perdure.engine")


class EarlyStarts:
    """Accepts starts during a batch.

    `waiting` are messages from the inbox for the next batch. `doubtful` are starts whose commit failed with an
    unknown outcome. `is_long` means that a pause found the open batch too long.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        store: EngineStore,
        clock: Clock,
        inbox: SimpleQueue[Item],
        *,
        commit: Callable[[Batch], None],
        accepted: Callable[[OpenBatch], None],
    ) -> None:
        self.waiting: list[Envelope] = []
        self.doubtful: list[Envelope] = []
        self._dispatcher = dispatcher
        self._store = store
        self._clock = clock
        self._inbox = inbox
        self._commit = commit
        self._accepted = accepted
        self._trouble: BaseException | None = None
        self.is_long = False
        self._parting = 0  # nested repetitions of a batch without a long step
        self._not_before = 0.0  # by the monotonic clock

    def look(self) -> None:
        """Accept new starts, if the open batch has exceeded its time limit."""
        if self._is_late():
            self.is_long = True
            self._accept_in_time()

    def look_behind(self) -> None:
        """Look again, in a batch that is long. A full batch alone is not long."""
        self._accept_in_time()

    def ended(self) -> None:
        """Note the end of a batch."""
        self.is_long = False

    def _accept_in_time(self) -> None:
        began = self._clock.monotonic()
        if began >= self._not_before:
            self.accept()
            ended = self._clock.monotonic()
            # On a busy machine or a slow store the step still gets most of the time.
            self._not_before = ended + max(self._dispatcher.limits.seconds, SHARE * (ended - began))

    def look_within(self, instance_id: str) -> bool:
        """Look during this instance's code. Returns whether clients of other instances wait for the same batch."""
        self.look()
        return self._is_late() and self.keeps_others_waiting(instance_id)

    def _is_late(self) -> bool:
        """Whether the open batch has exceeded its time limit."""
        making = self._dispatcher.making
        return making is not None and self._clock.monotonic() > making.deadline

    def keeps_others_waiting(self, instance_id: str) -> bool:
        """Whether clients of other instances wait for this instance's batch."""
        making = self._dispatcher.making
        if making is None or self._parting >= DEEPEST:
            return False
        return any(one.message.instance_id == instance_id for one in making.inputs) and any(
            one.reply is not None and one.message.instance_id != instance_id
            for one in chain(making.inputs, making.backlog)
        )

    @contextmanager
    def parting(self) -> Iterator[None]:
        """Repeat a batch without one step; another of its steps may be long too."""
        self._parting += 1
        try:
            yield
        finally:
            self._parting -= 1

    def accept(self) -> None:
        """Accept new starts at once. Raises only an interruption of the code above it."""
        if self._trouble is None:
            self._dispatcher.running.aside(self._try)

    def check(self) -> None:
        """Raise the error of an early commit, with which the open batch must fail."""
        trouble, self._trouble = self._trouble, None
        if isinstance(trouble, Exception) and not isinstance(trouble, StoreError):
            log.error("accepting starts early failed; state is reloaded from the store", exc_info=trouble)
            raise StoreError(f"starts could not be accepted early: {trouble}") from trouble
        if trouble is not None:
            raise trouble

    def drain_into(self, taken: list[Envelope]) -> None:
        """Take the waiting messages first: they came before those now in the inbox."""
        taken.extend(self.waiting)
        self.waiting = []

    def take_doubtful(self) -> list[Envelope]:
        """Remove and return the doubtful starts, and clear the error."""
        doubtful, self.doubtful, self._trouble = self.doubtful, [], None
        return doubtful

    def _try(self) -> None:
        try:
            self._take_off_the_inbox()
            starts = self._acceptable()
            if starts:
                self._store_early(starts)
        except BaseException as error:
            self._trouble = error

    def _take_off_the_inbox(self) -> None:
        try:
            while True:
                take_into(self.waiting, self._inbox.get_nowait())
        except Empty:
            pass

    def _acceptable(self) -> list[Envelope]:
        starts = early_starts.candidates(self._dispatcher.open_batch, self.waiting, self._clock.now())
        named = [one.message.instance_id for one in starts if not getattr(one.message, "fresh", False)]
        asked = [operation_id for one in starts for operation_id in early_starts.operations(one)]
        stored = {row.instance_id for row in self._store.rows(named)} if named else set()
        answered = {row.operation_id for row in self._store.seen(asked)} if asked else set()
        return early_starts.unstored(starts, stored, answered)

    def _store_early(self, starts: list[Envelope]) -> None:
        apart = early_starts.make(self._dispatcher, starts, self._clock.now())
        taken = set(map(id, starts))
        kept, self.waiting = self.waiting, [one for one in self.waiting if id(one) not in taken]
        self.doubtful = starts
        try:
            self._commit(apart.rows)
        except ROLLED_BACK:
            self.waiting, self.doubtful = kept, []  # the next batch gets the same error and handles it
            return
        self.doubtful = []
        for why in early_starts.line_up(self._dispatcher, apart, is_between=self._dispatcher.making is None):
            log.error("%s", why)
        self._accepted(apart)


__all__ = ["EarlyStarts"]
