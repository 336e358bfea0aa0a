"""The insurer's policies: a few, as a policy system would return them."""

from dataclasses import dataclass
from datetime import date

from examples.claims.model import Vehicle


@dataclass(frozen=True)
class Policy:
    """A policy: what it insures, from when, and until when it is paid."""

    number: str
    vehicle: Vehicle
    bound: date
    paid_to: date
    deductible: int
    umbrella_limit: int = 0


_POLICIES = (
    Policy("V-318-2046", Vehicle("Audi", "A8", 2023), date(2023, 8, 24), date(2027, 12, 31), 1_000),
    Policy("V-204-8817", Vehicle("Saab", "95", 2011), date(2019, 3, 1), date(2027, 6, 30), 500),
    Policy("V-555-0001", Vehicle("Dodge", "Neon", 2018), date(2021, 1, 1), date(2026, 9, 30), 500),
    Policy("V-777-3131", Vehicle("Volkswagen", "Passat", 2020), date(2024, 5, 1), date(2027, 4, 30), 2_000),
)
POLICIES = {policy.number: policy for policy in _POLICIES}


def find(number: str) -> Policy | None:
    """The policy with a number, however it was typed."""
    return POLICIES.get("-".join(number.upper().split()))
