"""The types of a claim, its assessment, decision and outcome. Amounts are whole US dollars."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

Ending = Literal["paid", "rejected", "denied", "expired"]


@dataclass(frozen=True)
class Vehicle:
    make: str
    model: str
    year: int


@dataclass(frozen=True)
class Claim:
    """A claim as it is filed. A field that the customer left empty is None."""

    claim_id: str
    policy_bound: date
    deductible: int
    umbrella_limit: int
    happened: date
    kind: str
    severity: str
    authority: str | None
    police_report: bool | None
    bodily_injuries: int
    witnesses: int
    injury_amount: int
    property_amount: int
    vehicle_amount: int
    vehicle: Vehicle
    decide_within: timedelta = timedelta(hours=72)

    @property
    def total(self) -> int:
        return self.injury_amount + self.property_amount + self.vehicle_amount


@dataclass(frozen=True)
class FraudScore:
    """0.0 to 1.0, and the reasons behind it."""

    score: float
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class DamageAssessment:
    """The proposed payment, and remarks for the adjuster."""

    payout: int
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class ApprovalRequest:
    claim: Claim
    fraud: FraudScore
    damage: DamageAssessment


@dataclass(frozen=True)
class Decision:
    """The body of the event ApproverDecision."""

    approved: bool
    by: str
    note: str = ""


@dataclass(frozen=True)
class PaymentOrder:
    claim_id: str
    amount: int


@dataclass(frozen=True)
class Payment:
    payment_id: str
    claim_id: str
    amount: int


@dataclass(frozen=True)
class Outcome:
    """How a claim ended: the orchestrator's output, and the message to the customer."""

    status: Ending
    claim_id: str
    reason: str = ""
    payment: Payment | None = None


@dataclass(frozen=True)
class Stage:
    """One line of a claim's audit trail."""

    at: datetime
    stage: str
    note: str = ""
