"""A life: what one engine does with the disk it finds, under a random workload. Its log can be cut anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from random import Random
from typing import Any

from msgspec import Raw

from perdure.model import payload
from perdure.model.messages import Message, Purge, RaiseEvent, Resume, Start, Suspend, Terminate
from perdure.testing.clock import VirtualClock
from powercuts.disk import Disk, Image
from powercuts.ledger import CutLedger, Submission
from powercuts.machine import Machine
from powercuts.store_sizes import Tuning
from powercuts.temporary_folder import folder
from powercuts.vfs import mounted

COLLECTOR_WAITS = 600  # seconds a collector waits for the next event


class Life:
    """One engine from its start to its end, and its promises at each position of its disk's log."""

    def __init__(
        self,
        seed: int,
        tuning: Tuning,
        *,
        found: Image | None = None,
        repeated: Sequence[Submission] = (),
        begins_at: int = 0,
        turns: int = 30,
        careless: bool = False,
        lies: bool = False,
    ) -> None:
        self.seed = seed
        self.tuning = tuning
        self.disk = Disk(found, lies=lies)
        self.ledger = CutLedger(lambda: len(self.disk.log))
        self.clock = VirtualClock(datetime(2026, 1, 1, tzinfo=UTC))
        self.clock.move(begins_at)
        self.verified: set[int] = set()  # contents that the verifier has seen
        self._chance = Random(seed)
        self._repeated = repeated
        self._turns = turns
        self._careless = careless
        self._collectors: list[str] = [o.message.instance_id for o in repeated if _collects(o.message)]
        self._instances: list[str] = [o.message.instance_id for o in repeated]
        self._numbers = 0

    def live(self) -> None:
        """Run from opening the store to closing it, or to a cut in the middle."""
        with folder() as place, self.tuning.applied(), mounted(self.disk):
            for name, content in self.disk.found.items():
                content.save(f"{place}/{name}")
            machine = Machine(
                place, self.ledger, self.tuning.limits, self.seed, self.clock, careless=self._careless
            )
            machine.open()
            machine.witness()
            self.disk.phase("working")
            for order in self._repeated:
                machine.ask(order.renewed())
            for _ in range(self._turns):
                self._something(machine)
            if self._chance.random() < 0.3:
                machine.rest()
            self.disk.phase("closing")
            machine.close()

    def _something(self, machine: Machine) -> None:
        chance = self._chance
        for _ in range(chance.choice((0, 0, 1, 1, 2, 4))):
            machine.ask(self._order())
        for _ in range(chance.choice((1, 1, 2, 5))):
            machine.step()
        whim = chance.random()
        if whim < 0.2:
            self.disk.phase("checkpoint")
            machine.store.maintain(self.clock.now())
            self.disk.phase("working")
        elif whim < 0.3:
            machine.loop.dispatcher.cache.evict_idle(2**62)
        elif whim < 0.35:
            machine.store.close_reader()
        elif whim < 0.4:
            machine.store.counts()
        elif whim < 0.42:
            self.disk.phase("reopening")
            machine.loop.dispatcher.opened(machine.store.reopen())
            self.disk.phase("working")

    # ------------------------------------------------------------------------------------------- what is asked

    def _order(self) -> Submission:
        chance = self._chance
        self._numbers += 1
        operation = f"op-{self.seed}-{self._numbers}"
        verb = chance.random()
        if not self._instances or verb < 0.35:
            return Submission(self._start(operation), operation)
        if self._collectors and verb < 0.8:
            token = f"token-{self.seed}-{self._numbers}."
            body = {"token": token, "padding": "p" * chance.choice((0, 50, 3_000, 30_000))}
            target = chance.choice(self._collectors)
            return Submission(
                RaiseEvent(instance_id=target, name="Item", input=_body(body), operation_id=operation),
                operation,
                token,
            )
        kind = chance.choice((Suspend, Resume, Resume, Terminate, Purge, Purge))
        return Submission(kind(instance_id=chance.choice(self._instances), operation_id=operation), operation)

    def _start(self, operation: str) -> Start:
        chance = self._chance
        target = f"i-{self.seed}-{self._numbers}"
        name = chance.choice(("errand", "family", "collector"))
        task: dict[str, Any] = {
            "steps": chance.randint(1, 4),
            "size": chance.choice((1, 100, 5_000, 40_000)),
            "pause": chance.choice((0, 0, 5, 90)),
            "fails": chance.random() < 0.3,
            "children": chance.randint(1, 3),
        }
        if name == "collector":
            self._collectors.append(target)
            task = {
                "tokens": [],
                "each": chance.randint(1, 5),
                "patience": COLLECTOR_WAITS,
                "works": chance.random() < 0.5,
            }
        self._instances.append(target)
        delay = self.clock.now() + 30_000_000 if chance.random() < 0.1 else 0
        return Start(
            instance_id=target, name=name, input=_body(task), operation_id=operation, visible_at=delay
        )


def _collects(message: Message) -> bool:
    return isinstance(message, Start) and message.name == "collector"


def _body(value: Any) -> Raw:
    return Raw(payload.encode(value))
