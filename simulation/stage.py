"""The world, as its parts use it.

`World` composes the parts, so it knows all of them. A part knows this protocol, and extends it with its own
needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Protocol

from simulation.clock import WorldClock
from simulation.exported import Exported
from simulation.failing_store import FailingStore
from simulation.injector import Injector
from simulation.ledger import Ledger
from simulation.plan import Plan
from simulation.randomness import SeededRandomness
from simulation.sometimes import Sometimes


class Process(Protocol):
    """A worker as the other parts see it."""

    name: str
    is_busy: bool
    was_taken_over: bool

    @property
    def store(self) -> FailingStore: ...


class Stage(Protocol):
    """The world: its time, its randomness, its ledger, and a trace of all events."""

    plan: Plan
    met: Sometimes
    chance: SeededRandomness
    injector: Injector
    ledger: Ledger
    exported: Exported
    salts: Random
    clock: WorldClock
    steps: int

    @property
    def workers(self) -> Sequence[Process]: ...

    def after(
        self, seconds: float, action: Callable[[], None], worker: Any = None, *, alone: bool = False
    ) -> None: ...

    def meanwhile(self, seconds: float, busy: Any) -> None: ...

    def trace(self, *what: object) -> None: ...

    def fingerprint(self, heads: bytes) -> None: ...

    def connection_lost(self, worker: Any) -> None: ...
