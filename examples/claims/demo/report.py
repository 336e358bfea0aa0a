"""Count the outcomes of the claims: in the hub over HTTP, and in the bank's book."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
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
from examples.claims.model import Stage

Book = Callable[[], Awaitable[Mapping[str, int]]]
"""How often the bank has paid each claim."""

ENDINGS = ("paid", "rejected", "denied", "settled otherwise")
STANDINGS = ("filed", "paid", "rejected", "denied", "waiting")
IF_ANY = ("settled otherwise", "with the customer", "in progress", "failed")
FAULTS = ("lost", "paid twice")
FAULTS_IF_ANY = ("paid but not by the bank", "paid by the bank but not approved")
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


def book_in(path: Path) -> Book:
    """The book of the stand-in for the bank."""

    async def read() -> Mapping[str, int]:
        return await asyncio.to_thread(payments_per_claim, path)

    return read


async def audit(client: df.Client, filed: Collection[str], book: Book) -> Audit:
    """Compare every claim in the hub with every payment of the bank."""
    found = Audit()
    paid_before = await book()
    seen, paid, approved = set[str](), set[str](), set[str]()
    async for status in statuses(client):
        trail = trail_of(status)
        reached = {"created": status.created_time, **{stage.stage: stage.at for stage in trail}}
        standing = standing_of(status, trail)
        found.numbers[standing] += 1
        seen.add(status.instance_id)
        if standing == "waiting":
            found.waiting.append(status)
        if standing == "paid":
            paid.add(status.instance_id)
        if any(stage.stage == "decided" and stage.note.startswith("approved") for stage in trail):
            approved.add(status.instance_id)
        for what, (start, end) in SPANS.items():
            found.measure(what, reached.get(start), reached.get(end))
    paid_after = await book()
    found.numbers["filed"] = len(seen)
    found.numbers["lost"] = len(set(filed) - seen)
    found.numbers["paid twice"] = sum(count > 1 for count in paid_after.values())
    found.numbers["paid but not by the bank"] = len(paid - paid_after.keys())
    found.numbers["paid by the bank but not approved"] = len(paid_before.keys() - approved)
    return found


def standing_of(status: df.OrchestrationStatus, trail: Sequence[Stage]) -> str:
    """How the claim ended, or where it is: the last stage of its trail says so."""
    last = trail[-1].stage if trail else ""
    if last in ENDINGS:
        return last
    if status.is_finished:
        return "failed"
    return {"with people": "waiting", "asked": "with the customer"}.get(last, "in progress")


def trail_of(status: df.OrchestrationStatus) -> list[Stage]:
    """The stages that the claim has passed; its custom status is the trail it left."""
    return msgspec.convert(status.custom_status or [], list[Stage])


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
