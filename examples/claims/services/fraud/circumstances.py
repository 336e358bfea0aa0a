"""The circumstances of a claim: all that fraud scoring sees, in numbers for the model and in words for people.

There is nothing about the person: age, sex, job, hobbies and place are not fields, and a request that has them is
rejected. Each trait of the accident has a few numbers, whose joint weight is one reason, and a sentence that a
claimant or an adjuster understands.
"""

from collections.abc import Callable
from datetime import date
from math import log1p
from typing import NamedTuple

import msgspec

from examples.claims.model import Claim

HALF_A_YEAR, A_YEAR = 180, 365.25  # days
NUMBERS = ("no", "one", "two", "three", "four", "five", "six")


class Circumstances(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request. `authority` and `police_report` are None if they are not known."""

    happened: date
    policy_bound: date
    deductible: int
    umbrella_limit: int
    kind: str
    severity: str
    authority: str | None
    police_report: bool | None
    bodily_injuries: int
    witnesses: int
    injury_amount: int
    property_amount: int
    vehicle_amount: int
    vehicle_year: int

    @classmethod
    def of(cls, claim: Claim) -> "Circumstances":
        """What a claim of the application says, as the application sends it."""
        return cls(
            vehicle_year=claim.vehicle.year,
            **{name: getattr(claim, name) for name in cls.__struct_fields__ if name != "vehicle_year"},
        )

    @property
    def total(self) -> int:
        return self.injury_amount + self.property_amount + self.vehicle_amount

    @property
    def policy_days(self) -> int:
        return max(0, (self.happened - self.policy_bound).days)

    @property
    def vehicle_age(self) -> int:
        return max(0, self.happened.year - self.vehicle_year)

    @property
    def charges_injuries_of_none(self) -> bool:
        return self.injury_amount > 0 and self.bodily_injuries == 0


Numbers = Callable[[Circumstances], tuple[float, ...]]
Words = Callable[[Circumstances], str]


class Trait(NamedTuple):
    """One trait of an accident: its numbers and its sentence."""

    numbers: Numbers
    words: Words


def one_of(*values: object, field: Callable[[Circumstances], object]) -> Numbers:
    """A number for each value of a field: 1 for the one that the claim has."""
    return lambda claim: tuple(float(field(claim) == value) for value in values)


TRAITS = (
    Trait(
        one_of("Trivial Damage", "Minor Damage", "Major Damage", "Total Loss", field=lambda c: c.severity),
        lambda c: f"The report says: {c.severity.lower()}",
    ),
    Trait(
        one_of("Multi-vehicle Collision", "Single Vehicle Collision", "Vehicle Theft", "Parked Car",
               field=lambda c: c.kind),
        lambda c: f"It is a {c.kind.lower()}" if "Theft" not in c.kind else "The car was stolen",
    ),
    Trait(
        one_of("Police", "Fire", "Ambulance", "Other", field=lambda c: c.authority),
        lambda c: f"The authority that came: {c.authority.lower()}" if c.authority else "No authority came",
    ),
    Trait(
        one_of(True, False, field=lambda c: c.police_report),
        lambda c: {True: "There is a police report", False: "There is no police report"}.get(
            c.police_report, "Nothing is known of a police report"  # type: ignore[arg-type]
        ),
    ),
    Trait(
        lambda c: (float(c.witnesses == 0), float(min(c.witnesses, 4))),
        lambda c: f"There {_count(c.witnesses, 'witness', 'witnesses')}",
    ),
    Trait(
        lambda c: (float(c.charges_injuries_of_none), float(c.bodily_injuries > 0), c.injury_amount / (c.total or 1)),
        lambda c: (
            f"${c.injury_amount:,} are for injuries, and no one is reported hurt"
            if c.charges_injuries_of_none
            else f"People hurt: {c.bodily_injuries}, for ${c.injury_amount:,}"
        ),
    ),
    Trait(
        lambda c: (float(c.policy_days < HALF_A_YEAR), log1p(c.policy_days / A_YEAR)),
        lambda c: f"The policy is {_age(c.policy_days)} old",
    ),
    Trait(
        lambda c: (float(c.umbrella_limit > 0),),
        lambda c: "There is an umbrella policy" if c.umbrella_limit else "There is no umbrella policy",
    ),
    Trait(
        lambda c: (log1p(c.total / 1_000), float(c.total >= 50_000)),
        lambda c: f"${c.total:,} are claimed",
    ),
    Trait(
        lambda c: (c.property_amount / (c.total or 1),),
        lambda c: f"${c.property_amount:,} are for other property than the car",
    ),
    Trait(
        lambda c: (log1p(c.vehicle_age),),
        lambda c: f"The car is {_age(round(c.vehicle_age * A_YEAR))} old" if c.vehicle_age else "The car is new",
    ),
    Trait(
        lambda c: (c.deductible / 1_000,),
        lambda c: f"The customer pays the first ${c.deductible:,}",
    ),
)  # fmt: skip


def _count(number: int, one: str, many: str) -> str:
    """`is one witness`, `are two witnesses`."""
    if number == 1:
        return f"is one {one}"
    return f"are {NUMBERS[number] if number < len(NUMBERS) else number} {many}"


def _age(days: int) -> str:
    if days < A_YEAR:
        return f"{days} days"
    years = int(days / A_YEAR)
    return f"{years} year{'s' if years > 1 else ''}"
