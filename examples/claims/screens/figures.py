"""The numbers of the board, counted from the claims themselves: filed, paid, refused, and what waits for whom."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import msgspec

import perdure as df
from examples.claims.model import Stage

AT_RISK = timedelta(hours=4)
WAITS_FOR = {
    "with people": "an adjuster",
    "second look": "an adjuster",
    "asked": "the customer",
    "rejected": "the customer",
    "decided": "the bank",
}
SPANS = (
    ("Assessed", "filed", ("assessed",)),
    ("Customer sends more", "asked", ("answered", "no answer")),
    ("Adjusters decide", "with people", ("decided",)),
    ("Paid", "decided", ("paid",)),
)
POINTS = 30  # of the line of the last half hour, a minute each


@dataclass(frozen=True)
class Span:
    """How long a stage takes, in seconds: half of the claims are faster than p50, 95 of 100 faster than p95."""

    name: str
    count: int
    p50: float
    p95: float


@dataclass
class Figures:
    """One count of all claims."""

    numbers: Counter[str] = field(default_factory=Counter)
    paid_out: int = 0
    held_back: int = 0
    waits_for: Counter[str] = field(default_factory=Counter)
    took: dict[str, list[float]] = field(default_factory=dict)
    filed_at: list[datetime] = field(default_factory=list)
    paid_at: list[datetime] = field(default_factory=list)

    def add(self, claim: df.OrchestrationStatus) -> None:
        """Count one claim."""
        trail = msgspec.convert(claim.custom_status or [], list[Stage])
        reached = {stage.stage: stage.at for stage in trail}
        last = trail[-1].stage if trail else "filed"
        self.numbers["filed"] += 1
        self.filed_at.append(claim.created_time)
        if last == "paid":
            self._add_paid(claim, reached)
        elif last == "rejected":
            self.numbers["refused by the rules"] += 1
        elif last == "denied":
            self.numbers["denied"] += 1
        if not claim.is_finished:
            self.numbers["open"] += last != "rejected"
            self.waits_for[WAITS_FOR.get(last, "the rules")] += last != "rejected"
        if "assessed" in reached and "$" in (noted := trail[1].note) and last == "rejected":
            self.held_back += int(noted.rpartition("$")[2].replace(",", ""))
        for name, start, ends in SPANS:
            end = next((reached[end] for end in ends if end in reached), None)
            if start in reached and end is not None:
                self.took.setdefault(name, []).append((end - reached[start]).total_seconds())

    def _add_paid(self, claim: df.OrchestrationStatus, reached: Mapping[str, datetime]) -> None:
        self.numbers["paid"] += 1
        self.numbers["without a person"] += "with people" not in reached
        self.paid_at.append(reached["paid"])
        payment = (claim.output or {}).get("payment") if isinstance(claim.output, dict) else None
        self.paid_out += payment["amount"] if payment else 0

    def spans(self) -> list[Span]:
        """The stages in the order of a claim's way."""
        return [
            Span(name, len(took), _share(took, 0.5), _share(took, 0.95))
            for name, _, _ in SPANS
            if (took := self.took.get(name))
        ]


def each_minute(times: Sequence[datetime], now: datetime) -> list[int]:
    """How many of these fell into each of the last minutes, the oldest first."""
    counts = Counter(int((now - moment).total_seconds() // 60) for moment in times)
    return [counts[minute] for minute in range(POINTS - 1, -1, -1)]


def line_of(counts: Sequence[int], highest: int, width: int, height: int) -> str:
    """The points of an SVG line, from left to right."""
    step = width / max(1, len(counts) - 1)
    return " ".join(
        f"{number * step:.1f},{height - count / max(1, highest) * height:.1f}"
        for number, count in enumerate(counts)
    )


def in_words(seconds: float) -> str:
    """A duration as people say it."""
    for unit, size in (("day", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= size:
            number = seconds / size
            return f"{number:.1f} {unit}{'s' if unit == 'day' and number >= 2 else ''}"
    return f"{seconds:.1f} s" if seconds >= 0.1 else f"{seconds * 1000:.0f} ms"


def _share(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[max(0, round(share * len(ordered)) - 1)]
