"""Company: the plan of a seed, lived by several workers over one hub, and the troubles that only they have."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from simulation.plan import Fault, Knobs, Plan
from simulation.plan_generator import RATES, plan_of
from simulation.randomness import SeededRandomness

READS = ("load", "poll", "seen", "local_work", "parked", "census", "take", "claim", "claims", "void")
ANSWERED = ("census", "take", "claim", "void", "unclaim", "drain", "load", "poll")


def shared_plan_of(seed: int) -> Plan:
    """The same program and clients as `plan_of`, with several workers and a database between them."""
    plan = plan_of(seed)
    chance = SeededRandomness(seed)
    knobs = _knobs(plan.knobs, chance.of("company"))
    faults = tuple(_near(fault) for fault in plan.faults if _is_kept(fault, chance))
    return replace(plan, knobs=knobs, faults=(*faults, *_Troubles(chance.of("troubles"), knobs).faults()))


def _knobs(knobs: Knobs, random: Random) -> Knobs:
    workers = random.choice((2, 2, 3, 3, 4))
    return replace(
        knobs,
        store="shared",
        workers=workers,
        doors=random.choice((0, 0, 0, 1)),
        lease=random.choice((2.0, 5.0, 10.0)),
        slots=random.choice((1, 1, 2, 3, 100)),
        pooled=random.choice((0, 1, workers)),
        doze=random.choice((0.2, 0.5, 1.0)),
        drift=random.choice((0.0, 0.0, 0.02, 0.1)),
        commit=0.0,
        duplicated=random.choice((knobs.duplicated, 0.0)),
        heals_at=random.choice((20.0, 60.0)),
    )


def _is_kept(fault: Fault, chance: SeededRandomness) -> bool:
    """Whether a fault applies with several workers, where faults of one process hit all; jumping clocks are
    rare.
    """
    if fault.effect == "jump":
        return chance.draw("jumps") < 0.3 and chance.draw("jump", fault.nth) < 0.2
    return True


def _near(fault: Fault) -> Fault:
    """A smaller jump for the database's clock: all workers wait until a clock that was set back has caught up."""
    return replace(fault, amount=max(-30.0, min(30.0, fault.amount))) if fault.effect == "jump" else fault


class _Troubles:
    """The faults of a shared hub. Each seed draws their kinds."""

    def __init__(self, random: Random, knobs: Knobs) -> None:
        self._random = random
        self._lease = knobs.lease
        self._calm = random.random() < 0.15

    def faults(self) -> list[Fault]:
        if self._calm:
            return self._comings_and_goings()
        faults = self._comings_and_goings()
        for effect in ("late", "under way", "crash under way", "conflict", "slow", "slow after"):
            faults += [Fault("commit", n, effect, self._while()) for n in self._some(120)]
        for kind in READS:
            few = 5.0 if kind in ("take", "void", "unclaim") else 1.0
            for effect in ("fail", "slow"):
                faults += [Fault(kind, n, effect, self._while()) for n in self._some(60, few, rare=True)]
        for kind in ANSWERED:
            for effect in ("fail after", "slow after"):
                rare = kind not in ("claim", "take")
                faults += [Fault(kind, n, effect, self._while()) for n in self._some(60, 2.0, rare=rare)]
        faults += [Fault("opened", n, "lost") for n in self._some(12, 3.0)]
        for effect in ("fail", "slow", "fail after"):
            faults += [Fault("renew", n, effect, self._while()) for n in self._some(80, 3.0)]
        for effect in ("lost", "late"):
            amount = self._while() if effect == "late" else 0
            faults += [Fault("hint", n, effect, amount) for n in self._some(80, 4.0)]
        for effect in ("pause", "freeze", "die"):
            faults += [Fault("step", n, effect, self._while()) for n in self._some(400)]
        faults += [Fault("step", n, "away", self._while()) for n in self._some(400, 0.5)]
        return faults

    def _comings_and_goings(self) -> list[Fault]:
        """Workers that leave in good order, and come back."""
        return [
            Fault("step", n, "leave", self._random.choice((0.0, 2.0, 40.0))) for n in self._some(300, 0.7)
        ]

    def _while(self) -> float:
        """Seconds: a moment, nearly as long as a lease, or longer."""
        return self._random.choice((0.01, 0.2, 0.2, 0.8 * self._lease, 1.3 * self._lease, 3 * self._lease))

    def _some(self, among: int, factor: float = 1.0, *, rare: bool = False) -> list[int]:
        random = self._random
        if random.random() < (0.85 if rare else 0.7):
            return []
        rate = min(1.0, random.choice(RATES) * factor)
        return [n for n in range(among) if random.random() < rate]
