"""The types of a claim, of what is thought of it, decided about it and paid for it. Amounts are whole US dollars.

None of them holds a name, an address or an account: a claim refers to its claimant by `person`, and `people` keeps
the rest apart.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Annotated, Literal

from msgspec import Meta

Ending = Literal["paid", "rejected", "denied", "settled otherwise"]
Channel = Literal["garage", "app"]
Verdict = Literal["approve", "deny", "ask for more"]


@dataclass(frozen=True)
class Vehicle:
    make: str
    model: str
    year: int


@dataclass(frozen=True)
class Claim:
    """A claim as it is filed. A field that the customer left empty is None.

    A garage has seen the car of a claim that it files; a claim from the app shows it on photos, each named by its
    SHA-256. `decide_within` is the adjusters' time, and a supervisor's turn begins after it.
    """

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
    channel: Channel = "garage"
    policy: str = ""
    paid_to: date | None = None
    person: str = ""
    photos: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        return self.injury_amount + self.property_amount + self.vehicle_amount


# ------------------------------------------------------------------------------------------------- opinions


@dataclass(frozen=True)
class FraudScore:
    """0.0 to 1.0, the reasons that weighed most, and how sure the model is.

    `points` are hundredths of the score: those of each reason, and `base` where every claim starts.
    """

    score: float
    reasons: tuple[str, ...]
    confidence: float = 1.0
    model: str = "points card"
    points: tuple[int, ...] = ()
    base: int = 0


@dataclass(frozen=True)
class Photo:
    """What the photo assessment says of one photo.

    `problem` is why it cannot be used, "" if it can. `seen_in` is an earlier claim with the same picture,
    `seen_photo` that picture, and `how` it differs. `damage` is a share of the picture, `box` its place in shares of
    width and height: left, top, right, bottom.
    """

    digest: str
    problem: str = ""
    seen_in: str = ""
    damage: float = 0.0
    confidence: float = 0.0
    seen_photo: str = ""
    how: str = ""
    where: str = ""
    box: tuple[float, ...] = ()
    taken: str = ""


@dataclass(frozen=True)
class Cover:
    """What the policy says: the payable amount, remarks for the adjuster, and why it covers nothing, if so."""

    payable: int
    remarks: tuple[str, ...] = ()
    refusal: str = ""


@dataclass(frozen=True)
class Opinion:
    """All that is known of a claim before a decision."""

    fraud: FraudScore
    photos: tuple[Photo, ...]
    cover: Cover


# ------------------------------------------------------------------------------------------------ decisions


@dataclass(frozen=True, kw_only=True)
class Ruling:
    """Pay the claim, deny it, or ask the customer for more. The customer gets the reason, the file gets the note."""

    verdict: Verdict
    amount: Annotated[int, Meta(ge=0, title="Amount", description="Empty: the payable amount")] | None = None
    reason: Annotated[
        str, Meta(min_length=1, max_length=1_000, title="Reason", description="The customer reads this")
    ]
    note: Annotated[
        str,
        Meta(max_length=1_000, title="Note for the file", description="Only staff and auditors read this"),
    ] = ""


@dataclass(frozen=True)
class Handled:
    """What a person did about a task that no program could finish. The text goes to the file."""

    how: Annotated[str, Meta(min_length=1, max_length=1_000, title="What did you do?")]


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """Try a payment again, or close the claim because the money went another way. The text goes to the file."""

    action: Literal["pay again", "settled otherwise"]
    how: Annotated[str, Meta(min_length=1, max_length=1_000, title="What did you do?")]


@dataclass(frozen=True)
class Question:
    """What the customer is asked for, and the event that brings it: each request has a name of its own."""

    claim_id: str
    person: str
    number: int
    wanted: tuple[str, ...]

    @property
    def event(self) -> str:
        return f"Documents-{self.number}"


@dataclass(frozen=True)
class Documents:
    """The body of that event: the photos of before and now, and whether there is a police report."""

    photos: tuple[str, ...] = ()
    police_report: bool | None = None


@dataclass(frozen=True)
class Case:
    """A claim with the opinion about it, as it goes from one desk to the next."""

    claim: Claim
    opinion: Opinion
    questions: int = 0


@dataclass(frozen=True)
class Turn:
    """Whose turn a claim is: so many people, until then. Without a time it is a supervisor's turn."""

    people: int
    until: datetime | None = None


@dataclass(frozen=True)
class Decision:
    """What the people decided, with the case as it is now."""

    approved: bool
    amount: int
    reason: str
    by: tuple[str, ...]
    case: Case
    note: str = ""


# ---------------------------------------------------------------------------------------------------- money


@dataclass(frozen=True)
class PaymentOrder:
    """A payment to a claimant. The bank pays each key once."""

    claim_id: str
    amount: int
    person: str = ""
    key: str = ""


@dataclass(frozen=True)
class Payment:
    payment_id: str
    claim_id: str
    amount: int
    key: str = ""


@dataclass(frozen=True)
class BankAnswer:
    """A payment, or why the bank refuses it for good."""

    payment: Payment | None = None
    refusal: str = ""


@dataclass(frozen=True)
class Settlement:
    """How a claim that was approved got its money: by a payment, or as a person says."""

    payment: Payment | None = None
    how: str = ""


@dataclass(frozen=True)
class Difference:
    """A key on which the insurer's ledger and the bank do not agree."""

    key: str
    claim_id: str
    ours: int
    theirs: int


# -------------------------------------------------------------------------------------------------- telling


@dataclass(frozen=True)
class Letter:
    """A message to a claimant, or to a colleague at the insurer. The post delivers each key once."""

    claim_id: str
    key: str
    subject: str
    text: str
    person: str = ""
    colleague: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a claim ended: the orchestrator's output."""

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
