"""The store as the loop sees it in the simulation: the real one, with failures laid over it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from perdure.errors import CommitRefused, FenceLost, StoreError, StoreFull
from perdure.model import events as ev
from perdure.model.records import Batch, InstanceRow, Poll, SeenRow, StoredInstance, WaitRow
from perdure.store.port import Opening, Store
from simulation.injector import Injector, SimulatedCrash
from simulation.ledger import Ledger, RunRecord
from simulation.plan import Fault
from simulation.sometimes import Sometimes


class FailingStore:
    """An `EngineStore`. After an unknown outcome it must be opened again before anything else."""

    def __init__(
        self, inner: Store, injector: Injector, ledger: Ledger, met: Sometimes, passed: Callable[[], None]
    ) -> None:
        self.inner = inner
        self._injector = injector
        self._ledger = ledger
        self._met = met
        self._passed = passed  # time passes during a commit
        self._broken = False
        self._full = 0
        self._was_full = False
        self._refusing: dict[str, list[Any]] = {}
        self._commits = 0
        self.is_recovering = True
        self.purged_alive: list[RunRecord] = []  # in the newest commit; unless they ended in the same batch

    # ----------------------------------------------------------------------------------------- opening

    def open(self) -> Opening:
        self.is_recovering = True
        return self._opened(self.inner.open)

    def reopen(self) -> Opening:
        return self._opened(self.inner.reopen)

    def _opened(self, how: Callable[[], Opening]) -> Opening:
        fault = self._injector.at("open")
        if fault is not None:
            if fault.effect == "crash":
                self._crash()
            self._met("the store could not be opened again at once")
            raise StoreError("simulated: it cannot be opened now")
        self._broken = False
        return how()

    def close(self) -> None:
        self.inner.close()

    # ----------------------------------------------------------------------------------------- reading

    def load(self, instance_ids: Sequence[str]) -> list[StoredInstance]:
        self._trouble("load")
        return self.inner.load(instance_ids)

    def history_of(self, instance_no: int, execution_no: int) -> StoredInstance | None:
        self._trouble("load")
        return self.inner.history_of(instance_no, execution_no)

    def seen(self, operation_ids: Sequence[str]) -> list[SeenRow]:
        self._trouble("seen")
        return self.inner.seen(operation_ids)

    def poll(self, now: int, horizon: int, limit: int) -> Poll:
        self._trouble("poll")
        return self.inner.poll(now, horizon, limit)

    def local_work(self, after_no: int, limit: int) -> list[tuple[int, str]]:
        self._trouble("local_work")
        return self.inner.local_work(after_no, limit)

    def parked(self, after_no: int, limit: int) -> list[tuple[int, str]]:
        self._trouble("parked")
        return self.inner.parked(after_no, limit)

    def rows(self, instance_ids: Sequence[str]) -> list[InstanceRow]:
        self._trouble("rows")
        return self.inner.rows(instance_ids)

    def waits(self, instance_nos: Sequence[int]) -> list[WaitRow]:
        self._trouble("waits")
        return self.inner.waits(instance_nos)

    def finished(self, status: str, before: int, after: tuple[int, int], limit: int) -> list[InstanceRow]:
        self._trouble("finished")
        return self.inner.finished(status, before, after, limit)

    def _trouble(self, verb: str) -> None:
        self._check()
        fault = self._injector.at(verb)
        if fault is None:
            return
        if fault.effect == "crash":
            self._met("a crash in a read of the store")
            self._crash()
        self._met("a read of the store failed")
        self._break("a read failed")

    # --------------------------------------------------------------------------------------- committing

    def commit(self, batch: Batch) -> None:
        self._check()
        fault = self._injector.at("commit")
        effect = fault.effect if fault is not None else ""
        self._commits += 1
        self._passed()
        if effect == "full":
            assert fault is not None
            self._full = int(fault.amount)
        if effect == "crash before":
            self._met("a crash before a commit took effect")
            self._crash()
        if effect == "fail before":
            self._met("a commit unknown and found not done")
            self._break("the commit failed before it was done")
        self._refuse(batch)
        self._really(batch)
        if effect == "fail after":
            self._met("a commit unknown and found done")
            self._break("the commit failed after it was done")
        if effect == "crash after":
            self._met("a crash after a commit took effect")
            self._crash()
        self.is_recovering = False

    def _really(self, batch: Batch) -> None:
        try:
            self.inner.commit(batch)
        except (CommitRefused, FenceLost) as error:
            self._ledger.problem("refused", f"the store would not have what the engine wrote: {error}")
            raise
        self.purged_alive = self._ledger.applied(batch)

    def _refuse(self, batch: Batch) -> None:
        """No room, or one instance's rows that the store will not have."""
        if self._injector.is_healed:
            self._full, self._refusing = 0, {}
        if self._full > 0:
            self._full -= 1
            self._was_full = True
            raise StoreFull("simulated: no space is left")
        if self._was_full:
            self._was_full = False
            self._met("the store was full and had room again")
        for fault in self._injector.refusals:
            if fault.nth == self._commits and not self._injector.is_healed:
                self._refusing[fault.target] = [fault, fault.amount]
        for target, state in self._refusing.items():
            if state[1] > 0 and _touches(batch, self._ledger.numbers_of(target, batch), state[0]):
                state[1] -= 1
                if state[0].effect == "all":
                    self._met("a row refused altogether")
                self._ledger.refused_several = len(batch.updates) + len(batch.new_instances) > 1
                raise CommitRefused(f"simulated: a row of {target} is refused")

    # ------------------------------------------------------------------------------------------ troubles

    def _check(self) -> None:
        if self._broken:
            raise StoreError("simulated: it must be opened again first")

    def _break(self, why: str) -> NoReturn:
        self._broken = True
        self.purged_alive = []  # no event will report the instances that ended in that batch
        raise StoreError(f"simulated: {why}")

    def _crash(self) -> NoReturn:
        if self.is_recovering:
            self._met("a crash inside recovery")
        self.purged_alive = []
        raise SimulatedCrash


def _touches(batch: Batch, numbers: set[int], fault: Fault) -> bool:
    """Whether the batch has a row that this refusal is about: any row, or one in which its code did something."""
    if fault.effect == "all":
        return any(row[0] in numbers for row in (*batch.new_instances, *batch.updates))
    return any(
        row.instance_no in numbers and not isinstance(ev.decode_events(row.events)[-1], ev.ExecutionParked)
        for row in batch.history
    )
