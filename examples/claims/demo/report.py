"""Count the outcomes of the claims: in the hub over HTTP, and in the ledger's file."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

import perdure as df
from examples.claims.demo.traffic import statuses
from examples.claims.ledger import payments_per_claim
from examples.claims.model import Outcome, Stage

STANDINGS = ("filed", "paid", "rejected", "denied", "expired", "waiting")
IF_ANY = ("in progress", "failed")
FAULTS = ("lost", "paid twice")
FAULTS_IF_ANY = ("paid but not in the ledger", "in the ledger but not approved")
FILING = "filing, POST → 202"
SPANS = {
    "filed → assessed": ("created", "assessed"),
    "decided → paid": ("decided", "paid"),
    "filed → paid, with the desk": ("created", "paid"),
}


@dataclass
class Audit:
    """The state of the claims, and the seconds that each took."""

    numbers: Counter[str] = field(default_factory=Counter)
    took: dict[str, list[float]] = field(default_factory=dict)
    waiting: list[df.OrchestrationStatus] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        return not any(self.numbers[fault] for fault in (*FAULTS, *FAULTS_IF_ANY))

    @property
    def verdict(self) -> str:
        """The faults in one line."""
        return ", ".join(f"{fault} {self.numbers[fault]}" for fault in _shown(self, FAULTS, FAULTS_IF_ANY))

    def measure(self, what: str, start: datetime | None, end: datetime | None) -> None:
        if start is not None and end is not None:
            self.took.setdefault(what, []).append((end - start).total_seconds())


async def audit(client: df.Client, filed: Collection[str], ledger: Path) -> Audit:
    """Compare every claim in the hub with every payment in the ledger."""
    found = Audit()
    paid_before = payments_per_claim(ledger)
    seen, paid, approved = set[str](), set[str](), set[str]()
    async for status in statuses(client):
        reached = reached_by(status)
        standing = standing_of(status)
        found.numbers[standing] += 1
        seen.add(status.instance_id)
        if standing == "waiting":
            found.waiting.append(status)
        if standing == "paid":
            paid.add(status.instance_id)
        if "decided" in reached and standing != "denied":
            approved.add(status.instance_id)
        for what, (start, end) in SPANS.items():
            found.measure(what, reached.get(start), reached.get(end))
    paid_after = payments_per_claim(ledger)
    found.numbers["filed"] = len(seen)
    found.numbers["lost"] = len(set(filed) - seen)
    found.numbers["paid twice"] = sum(count > 1 for count in paid_after.values())
    found.numbers["paid but not in the ledger"] = len(paid - paid_after.keys())
    found.numbers["in the ledger but not approved"] = len(paid_before.keys() - approved)
    return found


def standing_of(status: df.OrchestrationStatus) -> str:
    """How the claim ended, or where it is."""
    if status.runtime_status is df.RuntimeStatus.Completed:
        return msgspec.convert(status.output, Outcome).status
    if status.is_finished:
        return "failed"
    waits = status.waiting.events if status.waiting else ()
    return "waiting" if any(wait.name == "ApproverDecision" for wait in waits) else "in progress"


def reached_by(status: df.OrchestrationStatus) -> dict[str, datetime]:
    """When the claim reached which stage; its custom status is the trail it left."""
    stages = msgspec.convert(status.custom_status or [], list[Stage])
    return {"created": status.created_time, **{stage.stage: stage.at for stage in stages}}


def show(console: Console, found: Audit) -> None:
    """The audit as two tables side by side."""
    counts = Table("claims", "", box=None, padding=(0, 2, 0, 0))
    counts.columns[1].justify = "right"
    for name in _shown(found, STANDINGS, IF_ANY):
        counts.add_row(name, f"{found.numbers[name]:,}")
    for name in _shown(found, FAULTS, FAULTS_IF_ANY):
        colour = "bold red" if found.numbers[name] else "bold green"
        counts.add_row(Text(name, colour), Text(f"{found.numbers[name]:,}", colour))

    times = Table("stage", "p50", "p95", box=None, padding=(0, 2, 0, 0))
    for name in (FILING, *SPANS):
        if seconds := found.took.get(name):
            times.add_row(name, _ms(seconds, 0.50), _ms(seconds, 0.95))
    for column in times.columns[1:]:
        column.justify = "right"

    both = Table.grid(padding=(0, 6, 0, 0))
    both.add_row(counts, times)
    console.print(both)


def _shown(found: Audit, always: tuple[str, ...], if_any: tuple[str, ...]) -> list[str]:
    return [*always, *(name for name in if_any if found.numbers[name])]


def _ms(seconds: list[float], share: float) -> str:
    """The percentile of the values."""
    ordered = sorted(seconds)
    return f"{ordered[max(0, round(share * len(ordered)) - 1)] * 1000:,.0f} ms"
