"""The machine: the real hub, loop and SQLite store on one thread, with a clock that moves when all is quiet."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from random import Random
from typing import Any

import apsw
from msgspec import Raw

from perdure.engine.activities import Attempt
from perdure.engine.core.dispatcher import Dispatcher
from perdure.engine.core.ports import Limits, RandomSource
from perdure.engine.functions.resolved import FunctionTable
from perdure.engine.loop.loop import Loop
from perdure.model import payload
from perdure.model.events import ABSENT
from perdure.model.failures import failure_of
from perdure.model.messages import ActivityResult
from perdure.model.records import Batch
from perdure.replay.settle import Invocation
from perdure.store.port import Opening
from perdure.store.sqlite.store import SqliteStore
from perdure.testing.clock import VirtualClock
from powercuts.functions import app
from powercuts.ledger import Commit, CutLedger, Submission

HUB = "powercuts"
FILE = "hub.db"
_TABLES = ["instances", "history", "payloads", "state", "inbox", "waits", "seen", "dropped", "activities"]
_functions = FunctionTable(app.registry)


class WatchedStore(SqliteStore):
    """The real store, with a record of its content after each commit. `careless` demonstrates the loss."""

    ledger: CutLedger | None = None
    careless = False

    def commit(self, batch: Batch) -> None:
        if self.ledger is None:
            super().commit(batch)
            return
        self.ledger.committing()
        super().commit(batch)
        self.ledger.committed(self.content())

    def content(self) -> int:
        """A fingerprint of every row, within this process."""
        execute = self._execute
        return hash(tuple(tuple(execute(f"select * from {table}")) for table in _TABLES))

    def _drop_connection(self, why: str) -> None:
        """Closing never fails in SQLite; apsw tells of errors that a file layer in Python had meanwhile."""
        with suppress(apsw.Error):
            super()._drop_connection(why)

    def _connect(self) -> Opening:
        opening = super()._connect()
        if self.careless and self._writer is not None:
            self._writer.pragma("synchronous", "normal")
        return opening


class InlinePool:
    """Activities that run when the machine says so. `ActivityPool`, as the loop sees it."""

    def __init__(self, deliver: Callable[[ActivityResult], None], chance: Random) -> None:
        self._deliver = deliver
        self._chance = chance
        self._waiting: list[Invocation] = []
        self._in_flight: set[tuple[str, int]] = set()

    @property
    def is_busy(self) -> bool:
        return bool(self._waiting)

    def start(self, invocations: Iterable[Invocation], handover: Any) -> None:
        for invocation in invocations:
            key = (invocation.execution_id, invocation.task_id)
            if key not in self._in_flight:
                self._in_flight.add(key)
                self._waiting.append(invocation)

    def forget(self, calls: Iterable[tuple[str, int]]) -> list[Invocation | None]:
        self._in_flight.difference_update(calls)
        return []

    def cancel(self, calls: Iterable[tuple[str, int]], executions: Collection[str] = ()) -> list[Attempt]:
        """Cancel these calls, after the commits that decided it."""
        gone = set(calls)
        self._waiting = [
            i
            for i in self._waiting
            if (i.execution_id, i.task_id) not in gone and i.execution_id not in executions
        ]
        return []

    def run(self) -> bool:
        """Run some of what waits, in any order."""
        if not self._waiting:
            return False
        for _ in range(self._chance.randint(1, len(self._waiting))):
            self._deliver(_run(self._waiting.pop(self._chance.randrange(len(self._waiting)))))
        return True


def _run(invocation: Invocation) -> ActivityResult:
    result, failure = ABSENT, None
    try:
        function = app.registry.activities[invocation.name].function
        result = Raw(payload.encode(function(payload.decode(invocation.input, Any))))
    except ValueError as error:
        failure = failure_of(error, with_stack=False)
    return ActivityResult(
        instance_id=invocation.instance_id,
        execution_id=invocation.execution_id,
        task_id=invocation.task_id,
        result=result,
        failure=failure,
    )


class _Never:
    def wait(self, inbox: Any, until: int | None, busy: Callable[[], bool]) -> None:
        return None


class Machine:
    """One engine on one store."""

    def __init__(
        self,
        folder: str,
        ledger: CutLedger,
        limits: Limits,
        seed: int,
        clock: VirtualClock,
        *,
        careless: bool = False,
    ) -> None:
        self.chance = Random(seed)
        self.clock = clock
        self.ledger = ledger
        self.store = WatchedStore(f"{folder}/{FILE}", HUB)
        self.store.careless = careless
        chance = RandomSource(lambda: self.chance.randbytes(16), clock.monotonic)
        self.loop = Loop(
            Dispatcher(_functions, chance, limits=limits), self.store, clock, _Never(), finished=_nobody
        )
        self.pool = InlinePool(self.loop.post, self.chance)
        self.loop.pool = self.pool  # type: ignore[assignment]
        self.longest_skip = 2**62  # microseconds of virtual time that a step may pass over
        self._stuck_at = -1

    def open(self) -> None:
        self.loop.open()

    def witness(self) -> None:
        """Note from here on what each commit leaves in the store."""
        self.ledger.commits.append(Commit(-1, -1, self.store.content()))
        self.store.ledger = self.ledger

    def ask(self, order: Submission) -> None:
        self.loop.post(order.message, self.ledger.asked(order))

    def turn(self) -> None:
        """One batch."""
        self.loop.turn(self.loop.take(wait=False))

    def step(self) -> bool:
        """A batch, or activities, or the next timer; false when nothing is left that could happen."""
        loop = self.loop
        if not loop.inbox.empty() or loop.dispatcher.lines:
            self.turn()
            return True
        if self.pool.run():
            return True
        self.turn()
        if not loop.inbox.empty() or loop.dispatcher.lines or self.pool.is_busy:
            return True
        return self._skip()

    def _skip(self) -> bool:
        upcoming, now = self.loop.next_timer_at(), self.clock.now()
        if upcoming is None or upcoming > now + self.longest_skip:
            return False
        if upcoming <= now:
            if self._stuck_at == now:
                upcoming = now + 1_000_000
            self._stuck_at = now
        self.clock.move(upcoming)
        self.loop.look_again()
        return True

    def rest(self, most: int = 2_000) -> bool:
        """Go on until nothing is left to happen; false when that takes too long."""
        return any(not self.step() for _ in range(most))

    def close(self) -> None:
        self.loop.dispatcher.drop_everything()
        self.store.close()


def _nobody(*_: Any) -> None:
    pass
