"""A hub in a log: the network between the engine and the log, the fate of its replica, and a rival.

Requests are cut, answered by nobody, doubled, and arrive after many others. For a while the service may be away, for
longer than the engine insists. A replica may be lost when its process dies, and after a reboot it is a mixture of
its pages. A rival on another machine takes the hub over in the middle of a commit, makes snapshots, and ends.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import apsw

from perdure.errors import FenceLost, StoreError, StoreInUse, StoreUnusable
from perdure.model.records import Batch
from perdure.store.log.appending import Patience
from perdure.store.log.copying import write_copy
from perdure.store.log.memory import FATES, Fate, MemoryService
from perdure.store.log.store import LogStore, Terms, at_once
from perdure.store.port import Opening
from perdure.store.sqlite.store import SqliteStore
from simulation.failing_store import FailingStore

if TYPE_CHECKING:
    from perdure.store.log.snapshots import Copy
    from simulation.clock import WorldClock
    from simulation.injector import Injector
    from simulation.ledger import Ledger
    from simulation.sometimes import Sometimes

    After = Callable[[float, Callable[[], None]], None]

_log = logging.getLogger("perdure.store")
HUB = "simulated"
LEASE = 10.0
SNAPSHOT_ABOVE = 6_000  # bytes: small, so that records are trimmed often
UPKEEP = 0.2  # share of the commits with an upkeep behind them
RIVALS = 0.01  # share of the requests in which a rival takes over
ABSENCES = 0.008  # share of the requests with which the service goes away
PATIENCE = 3  # times that an overtaken engine tries to come back until the rival ends


class LogBackend:
    """One service, the engine's machine, and that of its rival."""

    def __init__(
        self, clock: WorldClock, injector: Injector, chance: Random, met: Sometimes, after: After
    ) -> None:
        self._clock, self._injector, self._chance, self._met = clock, injector, chance, met
        self._level = _log.level
        _log.setLevel(logging.ERROR)  # that it waits for a rival is no news here
        self._folder = tempfile.mkdtemp(prefix="perdure-sim-log-", dir=_memory())
        self._trouble = chance.choice((0.0, 0.02, 0.1, 0.3))  # share of the requests that meet a fault
        self._skipped = 0.0  # seconds that the service's clock is ahead
        self._away_until = 0.0
        self._boots = 0
        self._rival: LogStore | None = None
        self._left = 0  # tries until the rival ends
        self._is_dead = False
        self.was_overtaken = False
        self._copy: tuple[LogStore, Copy] | None = None  # a snapshot that is not listed yet
        self.sent: tuple[int, bytes] | None = None  # the record that the engine sent last, and its position
        self.service = MemoryService(now=self._service_time, faults=self._fate)
        self._after = after
        self.service.send_late = self._send_late
        self.service.lateness = lambda: chance.choice((1, 1, 2, chance.randint(3, 40)))
        self.store = self._machine()

    def _service_time(self) -> int:
        return self._clock.true + round(self._skipped * 1e6)

    def _machine(self) -> LogStore:
        store = self._engine("machine")
        append = store._appender.append

        def remembered(at: int, record: bytes) -> None:
            self.sent = at, record
            append(at, record)

        store._appender.append = remembered  # type: ignore[method-assign]
        store.save = lambda: self._save_slowly(store)  # type: ignore[method-assign]
        return store

    def _save_slowly(self, store: LogStore) -> None:
        """A snapshot is on its way while commits go on."""
        copy, self._copy = self._copy, None
        if copy is not None and copy[0] is store:
            store._list(copy[1], copy[1].place, alone=False)
        else:
            self._copy = store, store._shelf.put(store.location)

    def _engine(self, machine: str) -> LogStore:
        return LogStore(
            self.service,
            HUB,
            directory=os.path.join(self._folder, machine),
            terms=Terms(worker=machine, lease=LEASE, snapshot_above=SNAPSHOT_ABOVE),
            patience=Patience(LEASE, lambda: self._clock.true / 1e6, self._sleep),
            boot=f"boot-{self._boots}",
            aside=at_once,
        )

    def _sleep(self, seconds: float) -> None:
        self._clock.true += round(seconds * 1e6)

    # -------------------------------------------------------------------------------------- the network

    def _fate(self, verb: str) -> Fate:
        if self._injector.is_healed or self._is_rival_at_work:
            return "done"
        now = self._clock.true / 1e6
        if verb == "append" and self._chance.random() < RIVALS:
            self._overtake()
        if self._chance.random() < ABSENCES * (self._trouble > 0):
            self._away_until = now + self._chance.uniform(1, 20)
        if now < self._away_until:
            return self._chance.choice(("cut", "cut", "unanswered", "late"))
        return self._chance.choice(FATES[1:]) if self._chance.random() < self._trouble else "done"

    def _send_late(self, request: Callable[[], None]) -> bool:
        """Half of the late requests arrive at some moment, the others after some requests."""
        if self._chance.random() < 0.5:
            self._after(self._chance.uniform(0.1, 20), request)
            return True
        return False

    # --------------------------------------------------------------------------------------- the rival

    _is_rival_at_work = False

    def _overtake(self) -> None:
        """Another engine finds the lease run out, and goes on until nothing of the log is as it was."""
        if self._rival is not None or self.store._replica is None:
            return
        self._is_rival_at_work = True
        self._skipped += LEASE + 1
        rival = self._engine("rival")
        rival.open()
        for _ in range(3):
            rival.commit(Batch(self._clock.now()))
            rival.save()
        self._rival, self._left, self.was_overtaken = rival, PATIENCE, True
        self._is_rival_at_work = False
        self._met("a rival took the log in the middle of a commit")

    def _meet_rival(self) -> None:
        """The engine tries to open. The rival gives a sign of life, and ends after some tries."""
        rival = self._rival
        if rival is None:
            return
        self._is_rival_at_work = True
        self._left -= 1
        if self._left <= 0 or self._injector.is_healed:
            rival.close()
            shutil.rmtree(os.path.join(self._folder, "rival"))
            self._rival = None
        else:
            rival._appender.due()
            rival.maintain(0)
        self._is_rival_at_work = False

    # ------------------------------------------------------------------------------------- the process

    def crash(self) -> None:
        _kill(self.store)
        self._is_dead = True

    def entering(self) -> LogStore:
        """The store of the process that opens the hub now: a new one after a crash."""
        self._meet_rival()
        if self._is_dead:
            self._is_dead = False
            fate = self._chance.choice(("kept", "kept", "lost", "rebooted"))
            if fate == "lost":
                self._met("a replica was lost")
                shutil.rmtree(os.path.join(self._folder, "machine"), ignore_errors=True)
            if fate == "rebooted":
                self._met("a machine rebooted")
                self._boots += 1
                _mix_pages(self.store.location)
            self.store = self._machine()
        return self.store

    def dispose(self) -> None:
        for store in (self.store, self._rival):
            if store is not None:
                _kill(store)
        shutil.rmtree(self._folder, ignore_errors=True)
        _log.setLevel(self._level)

    # ------------------------------------------------------------------------------------------ checks

    def has(self, position: int, record: bytes) -> bool:
        """Whether the log ever had this record there."""
        return self.service.history.get(position) == record

    def flaw(self) -> str:
        """What is wrong with the log at the end, "" if it says the same as the replica."""
        copy = os.path.join(self._folder, "copy.db")
        try:
            write_copy(self.service, HUB, copy, patience=Patience(LEASE, lambda: 0.0, lambda _: None))
        except StoreError as error:
            return f"the log cannot be read: {error}"
        here, there = _contents(self.store.location), _contents(copy)
        return "; ".join(f"{name} is another in the log" for name in here if here[name] != there.get(name))


class LogSession(FailingStore):
    """The engine's store over a log. What becomes of a commit without an answer, the next opening shows."""

    def __init__(
        self,
        backend: LogBackend,
        injector: Injector,
        ledger: Ledger,
        met: Sometimes,
        passed: Callable[[], None],
        chance: Random,
    ) -> None:
        super().__init__(backend.store, injector, ledger, met, passed)
        self._backend, self._chance = backend, chance
        self._doubtful: tuple[Batch, int, bytes] | None = None

    def _opened(self, how: Callable[[], Opening]) -> Opening:
        del how  # of the store of a process that may be dead
        self.inner = self._backend.entering()
        opening = super()._opened(self._enter)
        self._backend.was_overtaken = False
        return opening

    def _enter(self) -> Opening:
        try:
            opening = self.inner.reopen()
        except StoreInUse:
            self._met("an engine waited for the end of its rival")
            raise
        except StoreUnusable as error:
            self._ledger.problem("log", f"the hub could not be opened: {error}")
            raise
        self._resolve()
        return opening

    def _resolve(self) -> None:
        doubtful, self._doubtful = self._doubtful, None
        if doubtful is None:
            return
        batch, position, record = doubtful
        if self._backend.has(position, record):
            self._met("a record without an answer was in the log")
            self._ledger.applied(batch)
        else:
            self._met("a record without an answer was not in the log")

    def _really(self, batch: Batch) -> None:
        store = self._backend.store
        self._backend.sent = None
        try:
            store.commit(batch)
        except FenceLost as error:
            if not self._backend.was_overtaken:
                self._ledger.problem("refused", f"the log has a record of another engine: {error}")
            self._broken = True
            raise
        except StoreError as error:
            if type(error) is StoreError:
                self._broken = True
                self._doubtful = None if self._backend.sent is None else (batch, *self._backend.sent)
            raise
        self.purged_alive = self._ledger.applied(batch)
        if self._chance.random() < UPKEEP:
            with suppress(StoreError):
                store.maintain(self._backend._clock.now())


def _kill(store: LogStore) -> None:
    """Its process ends: the log hears nothing, and the kernel drops the locks."""
    store._appender.position = -1
    store._appender.log.close()
    store.close_reader()
    SqliteStore.close(store)


def _mix_pages(path: str) -> None:
    """Some pages reached the disk before the power went, and others did not."""
    with suppress(FileNotFoundError), open(path, "r+b") as file:
        size = os.fstat(file.fileno()).st_size
        for at in range(4_096, size, 8_192):
            file.seek(at)
            file.write(bytes(4_096))
    with suppress(FileNotFoundError):
        os.unlink(f"{path}-wal")


def _contents(path: str) -> dict[str, list[Any]]:
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
    try:
        names = [
            name for (name,) in connection.execute("select name from sqlite_schema where type = 'table'")
        ]
        tables = sorted(set(names) - {"log_place"})
        return {name: sorted(map(repr, connection.execute(f"select * from {name}"))) for name in tables}
    finally:
        connection.close()


def _memory() -> str | None:
    shm = "/dev/shm"
    return shm if Path(shm).is_dir() and os.access(shm, os.W_OK) else None


__all__ = ["LogBackend", "LogSession"]
