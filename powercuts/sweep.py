"""The sweep: a short script, run once for every operation that can fail, with the failure at that operation.

Each run asks: was every answer one of those documented (done, full, unknown)? Could everybody still read? When
the disk is well again, does the same engine go on by itself, and is all there that was acknowledged? And would
it all still be there after a power cut?
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any

from msgspec import Raw

from perdure.engine.core.ports import Limits
from perdure.errors import InstanceNotFound, OutcomeUnknown, StoreError, StoreFull
from perdure.model import payload
from perdure.model.messages import RaiseEvent, Start
from perdure.model.records import InstanceFilter
from perdure.testing.clock import VirtualClock
from powercuts.checks import Promises, examine, going_on
from powercuts.disk import Disk, Platter
from powercuts.faults import FAULTS, FOR_LONG, DiskFault, Trouble
from powercuts.ledger import CutLedger, Submission
from powercuts.machine import Machine
from powercuts.operations import Open, Read
from powercuts.store_sizes import Tuning
from powercuts.temporary_folder import folder
from powercuts.vfs import mounted

SIZES = Tuning(
    Limits(episodes=20, inline_bytes=2_000), zeros=32_768, backlog=10, restart_above=20, log_kept=65_536
)
CUTS = 3  # power cuts after each run
_OUTAGE = 3  # steps of the script that a long failure lasts
_LONGEST_SKIP = 3_600_000_000  # microseconds; the collector, which waits for ten hours, outlasts the script
_HONEST = (StoreFull, OutcomeUnknown)


@dataclass
class Sweep:
    """What became of all runs."""

    runs: int = 0
    struck: int = 0
    cuts: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    refused_to_open: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, other: Sweep) -> None:
        self.runs += other.runs
        self.struck += other.struck
        self.cuts += other.cuts
        self.answers.update(other.answers)
        self.refused_to_open += other.refused_to_open
        self.problems += other.problems

    def figures(self) -> dict[str, Any]:
        """As plain numbers."""
        return {
            "runs": self.runs,
            "failures": self.struck,
            "refused_to_open": self.refused_to_open,
            "answers": dict(sorted(self.answers.items())),
            "cuts_afterwards": self.cuts,
            "problems": len(self.problems),
        }


class FaultRun:
    """One run of the script, with the k-th operation failing."""

    def __init__(self, fault: DiskFault, k: int) -> None:
        self.seed = k
        self.tuning = SIZES
        self.disk = Disk()
        self.ledger = CutLedger(lambda: len(self.disk.log))
        self.clock = VirtualClock(datetime(2026, 1, 1, tzinfo=UTC))
        self.verified: set[int] = set()
        self.sweep = Sweep(runs=1)
        self.trouble = Trouble(self.disk, fault, k)
        self._name = f"{fault.name}, {k}"
        self._struck_at = -1
        self._left = _OUTAGE

    def go(self) -> Sweep:
        """Run, repair the disk, come to rest, cut the power. Returns the findings."""
        heard = _LoggedErrors(self)
        log = logging.getLogger("perdure.engine")
        kept, log.propagate = log.propagate, False
        log.addHandler(heard)
        try:
            with folder() as place, SIZES.applied(), mounted(self.disk):
                self._live(place)
            if self.trouble.struck and not self.sweep.problems:
                self._cut()
        except Exception as error:  # any error of the engine is a finding
            self.problem(f"it broke with {error!r}")
        finally:
            log.removeHandler(heard)
            log.propagate = kept
        self.sweep.struck += self.trouble.struck
        self.sweep.answers.update(self.ledger.answers())
        return self.sweep

    def problem(self, what: str) -> None:
        self.sweep.problems.append(f"{self._name}: {what}")

    def _live(self, place: str) -> None:
        machine = Machine(place, self.ledger, SIZES.limits, 7, self.clock)
        self._open(machine)
        try:
            machine.longest_skip = _LONGEST_SKIP
            for step in range(8):
                self._step(machine, step)
            machine.longest_skip = 2**62
            self.trouble.mend()
            self._check_answers()
            for problem in going_on(machine, list(self.ledger.orders)):
                self.problem(f"after mending: {problem}")
        finally:
            self.trouble.mend()
            machine.close()

    def _check_answers(self) -> None:
        refused = {o.message.instance_id for o in self.ledger.orders if isinstance(o.answer, StoreFull)}
        for order in self.ledger.orders:
            if not isinstance(order.answer, BaseException) or isinstance(order.answer, _HONEST):
                continue
            if isinstance(order.answer, InstanceNotFound) and order.message.instance_id in refused:
                continue  # its start found no room, and its client has not asked again yet
            self.problem(f"{type(order.message).__name__} was answered {order.answer!r}")

    def _open(self, machine: Machine) -> None:
        while True:
            try:
                machine.open()
            except StoreError:
                self.sweep.refused_to_open += 1
                if not self.trouble.struck or self.sweep.refused_to_open > 20:
                    raise
                self._wear_on()
            else:
                return

    def _step(self, machine: Machine, step: int) -> None:
        for order in _SCRIPT.get(step, ()):
            machine.ask(order.renewed())
        for _ in range(4):
            machine.step()
        if step % 2:
            try:
                machine.store.maintain(self.clock.now())
            except StoreError:
                if not self.trouble.struck:
                    raise
        self._read(machine)
        if self.trouble.struck:
            self._wear_on()

    def _read(self, machine: Machine) -> None:
        """Clients read in any state of the writer, on a thread without a connection."""
        machine.store.close_reader()
        try:
            machine.store.query(InstanceFilter())
        except StoreError as error:
            fails = self.trouble.fault.kinds
            if not self.trouble.struck or not (Read in fails or Open in fails):
                self.problem(f"nobody could read: {error}")

    def _wear_on(self) -> None:
        if self._struck_at < 0:
            self._struck_at = len(self.disk.log)
        self._left -= 1
        if self._left <= 0 and self.trouble.fault.lasts == FOR_LONG:
            self.trouble.mend()

    def _cut(self) -> None:
        """The power fails at some time after the failure."""
        chance = Random(self._name)
        after = len(self.disk.log)
        places = sorted(chance.randint(min(self._struck_at, after), after) for _ in range(CUTS))
        for at in places:
            platter = Platter(self.disk.found, chance.randrange(1_000))
            platter.take(self.disk.log[:at])
            image = platter.cut(chance, self.disk.log[at] if at < after else None)
            finding = examine(self, image, Promises.of(self, at), goes_on=chance.random() < 0.2)
            self.sweep.cuts += 1
            for problem in finding.problems:
                self.problem(f"power cut at {at} after the failure at {self._struck_at}: {problem}")


def sweep(number: int, *, first: int = 1, stride: int = 1) -> Sweep:
    """Each operation, or each `stride`-th from the first on, that the fault of this number can strike."""
    total, k = Sweep(), first
    while True:
        found = FaultRun(FAULTS[number], k).go()
        if not found.struck:
            return total
        total.add(found)
        k += stride


def _start(instance_id: str, name: str, task: dict[str, Any]) -> Submission:
    operation = f"start-{instance_id}"
    body = Raw(payload.encode(task))
    return Submission(
        Start(instance_id=instance_id, name=name, input=body, operation_id=operation), operation
    )


def _item(number: int, padding: int = 0, *, named: bool = True) -> Submission:
    token, operation = f"token-{number}.", f"item-{number}" if named else ""
    body = Raw(payload.encode({"token": token, "padding": "p" * padding}))
    return Submission(
        RaiseEvent(instance_id="c", name="Item", input=body, operation_id=operation), operation, token
    )


_ERRAND = {"steps": 2, "size": 5_000, "pause": 5, "fails": True}
_SCRIPT: dict[int, list[Submission]] = {
    0: [
        _start("c", "collector", {"tokens": [], "each": 2, "patience": 36_000, "works": True}),
        _start("e", "errand", _ERRAND),
    ],
    1: [_item(1), _item(2)],
    2: [_start("f", "family", {**_ERRAND, "children": 2})],
    3: [_item(3, 20_000)],
    5: [_item(4), _start("g", "errand", _ERRAND)],
    6: [_item(5), _item(6, named=False)],  # this one cannot be repeated
}


class _LoggedErrors(logging.Handler):
    """Errors of the engine's own code are logged with their traceback: here they are failures."""

    def __init__(self, run: FaultRun) -> None:
        super().__init__(logging.ERROR)
        self._run = run

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            text = logging.Formatter().formatException(record.exc_info)
            self._run.problem(f"{record.getMessage()}\n{text}")
