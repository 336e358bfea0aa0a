"""The injector: counts occurrences, and says when a planned fault is due."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from simulation.plan import Fault


class SimulatedCrash(BaseException):
    """The process dies here. Outside Exception, as death is."""


class Injector:
    """Faults by kind and ordinal. Once the world has healed there are none."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self._planned: dict[tuple[str, int], Fault] = {}
        self.refusals: list[Fault] = []
        for fault in faults:
            if fault.kind == "refuse":
                self.refusals.append(fault)
            else:
                self._planned.setdefault((fault.kind, fault.nth), fault)
        self.seen: Counter[str] = Counter()
        self.is_healed = False

    def at(self, kind: str) -> Fault | None:
        """One more occurrence of this kind; the fault that belongs to it, if any."""
        if self.is_healed:
            return None
        nth = self.seen[kind]
        self.seen[kind] = nth + 1
        return self._planned.get((kind, nth))

    def crashes(self, kind: str) -> bool:
        fault = self.at(kind)
        return fault is not None and fault.effect == "crash"

    def has(self, kind: str) -> bool:
        """Whether the plan knows this kind of fault at all."""
        return any(key[0] == kind for key in self._planned)
