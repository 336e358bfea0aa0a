"""The sweep: a short script, run once for every operation that can fail, with the failure at that operation.

Each run asks: was every answer one of those documented (done, full, unknown)? Could everybody still read? When
the disk is well again, does the same engine go on by itself, and is all there that was acknowledged? And would
it all still be there after a power cut?
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import apsw
from msgspec import Raw

from perdure.errors import OutcomeUnknown, PerdureError, StoreError, StoreFull
from perdure.model import payload
from perdure.model.messages import Message, Purge, RaiseEvent, Start
from perdure.model.records import InstanceFilter
from perdure.store.sqlite.connection import open_reader
from perdure.testing.clock import VirtualClock
from powercuts.disk import Disk, Platter
from powercuts.examination import Finding, Promises, examine, findings_at_rest
from powercuts.faults import FAULTS, Fault, Trouble
from powercuts.ledger import Ledger, Order
from powercuts.life import Life
from powercuts.machine import FILE, HUB, LIMITS, Machine
from powercuts.places import folder
from powercuts.tuning import Tuning
from powercuts.vfs import mounted

SIZES = Tuning(LIMITS, zeros=32_768, backlog=10, restart_above=20, log_kept=65_536)
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
