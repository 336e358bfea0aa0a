"""Stories with an expected end: each files a claim, plays the people, and checks what became of it.

A story is played in a `World`: in tests one with a virtual clock and the stand-ins, on the stage one with the real
server and the services. The stories are the same.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any, Literal, Protocol

import perdure as df
from examples.claims.model import Claim, Documents, Handled, Outcome, Ruling, Vehicle, Verdict
from examples.claims.people import Claimant
from examples.claims.staff import ADA, BEN, SAM

Looks = Literal["clean", "old", "seen", "whole"]
"""What a photo shows: the damage; the damage, taken too early; the photo of another claim; a car without damage."""

Fault = Literal["bank away"]
TODAY = date(2026, 11, 26)

CLAIMANT = Claimant(
    "Robin Doe", "robin@example.org", "+1 555 0100", "DE00 4417", "The car behind me braked too late."
)
CLOSED = replace(CLAIMANT, account="DE00 closed 4417")
SILENT = replace(CLAIMANT, account="DE00 lost 4417")
UNREACHABLE = replace(CLAIMANT, mail="robin@nowhere.example", phone="")


class World(Protocol):
    """Where a story is played. Every method waits until what it asks for is there."""

    patience: timedelta
    """The adjusters' time in stories about people who do not decide."""

    async def photo(self, looks: Looks, claim_id: str) -> str:
        """Store a new photo for a claim, and return its digest."""

    async def claimant(self, claimant: Claimant) -> str:
        """Keep a claimant, and return the reference."""

    async def change_account(self, person: str, claim_id: str, account: str) -> None:
        """Give another account for the payment of a claim, as the claimant."""

    async def file(self, claim: Claim) -> None:
        """File a claim. Filing it again has no effect."""

    async def reaches(self, claim_id: str, stage: str) -> None:
        """The claim has come to a stage of its trail."""

    async def task(self, claim_id: str, event: str, role: str = "") -> dict[str, Any]:
        """There is an open task of the claim; returns its facts."""

    async def answer(self, claim_id: str, event: str, person: df.Person, answer: object) -> None:
        """Decide a task of the claim."""

    async def send(self, instance_id: str, event: str, body: object = None) -> None:
        """Raise an event, as the claimant's page does."""

    async def wait(self, time: timedelta) -> None:
        """Let time pass."""

    async def fault(self, fault: Fault, on: bool) -> None:
        """Break something, or mend it."""

    async def crash(self) -> None:
        """Kill the server, and have it started again."""

    async def attempts(self, claim_id: str, at_least: int) -> None:
        """The payment of the claim has been tried so often."""

    async def outcome(self, claim_id: str) -> Outcome:
        """How the claim has ended."""

    async def paid(self, claim_id: str) -> list[int]:
        """What the bank has paid for the claim, a payment each."""

    async def letters(self, claim_id: str) -> list[str]:
        """The subjects of the letters that the claimant got, in the order of their sending."""


class DidNotComeTrue(AssertionError):
    """A story ended otherwise than expected."""


@dataclass(frozen=True)
class Scenario:
    """A story: what happens in it, what is expected, and how to play it. It returns its end in a few words."""

    name: str
    title: str
    story: str
    expected: str
    play: Callable[[World, str], Awaitable[str]]


SCENARIOS: list[Scenario] = []
Play = Callable[[World, str], Awaitable[str]]


def scenario(title: str, story: str, expected: str) -> Callable[[Play], Play]:
    """Add a story to the list."""

    def add(play: Play) -> Play:
        SCENARIOS.append(Scenario(play.__name__, title, story, expected, play))
        return play

    return add


# ------------------------------------------------------------------------------------------------ the stories


@scenario(
    "Clean claim", "A dent, a sharp photo, a policy of three years.", "Paid $1,140. No person is asked."
)
async def clean(world: World, claim_id: str) -> str:
    await world.file(await a_claim(world, claim_id))
    return await _is_paid(world, claim_id, 1_140)


@scenario("Lapsed policy", "The cover ended on 1 October.", "Refused, and the reason names the date.")
async def lapsed(world: World, claim_id: str) -> str:
    await world.file(replace(await a_claim(world, claim_id), paid_to=date(2026, 10, 1)))
    outcome = await _is_not_paid(world, claim_id, "rejected")
    _check("1 October 2026" in outcome.reason, outcome.reason)
    return "refused"


@scenario("High value", "$54,750, above the limit of one person.", "Two adjusters decide, then it is paid.")
async def high_value(world: World, claim_id: str) -> str:
    await world.file(await a_large_claim(world, claim_id))
    await _decide(world, claim_id, ADA, "approve")
    _check(await world.paid(claim_id) == [], "one decision is enough to pay")
    await _decide(world, claim_id, BEN, "approve")
    return await _is_paid(world, claim_id, 54_750)


@scenario(
    "Two people differ",
    "They approve different amounts, twice.",
    "Both get it back once, then a supervisor decides alone.",
)
async def differing(world: World, claim_id: str) -> str:
    await world.file(await a_large_claim(world, claim_id))
    for _ in range(2):
        await _decide(world, claim_id, ADA, "approve", 54_750)
        await _decide(world, claim_id, BEN, "approve", 52_300)
    facts = await world.task(claim_id, "Decision", "supervisor")
    _check("$52,300" in facts["note"], facts["note"])
    await _decide(world, claim_id, SAM, "approve", 52_300)
    return await _is_paid(world, claim_id, 52_300)


@scenario(
    "Fraud",
    "Major damage, no witness, no report, and injuries without an injured person.",
    "Refused with reasons. Nothing is paid.",
)
async def fraud(world: World, claim_id: str) -> str:
    await world.file(await _a_suspicious_claim(world, claim_id))
    await _is_not_paid(world, claim_id, "rejected")
    return "refused"


@scenario(
    "Second look",
    "The customer of such a claim asks for a person.",
    "An adjuster looks at it, and it is paid.",
)
async def second_look(world: World, claim_id: str) -> str:
    await world.file(await _a_suspicious_claim(world, claim_id))
    await world.reaches(claim_id, "rejected")
    await world.send(claim_id, "SecondLook")
    for person in (ADA, BEN):
        await _decide(world, claim_id, person, "approve", 50_000)
    return await _is_paid(world, claim_id, 50_000)


@scenario("Photo seen before", "The photo of another claim.", "An adjuster sees both side by side.")
async def seen_before(world: World, claim_id: str) -> str:
    await world.file(await a_claim(world, claim_id, "seen"))
    facts = await world.task(claim_id, "Decision")
    _check("seen before" in facts["odd"], facts["odd"])
    await _decide(world, claim_id, ADA, "deny")
    await _is_not_paid(world, claim_id, "denied")
    return "with an adjuster, then denied"


@scenario("Old photo", "Taken seven months before the accident.", "The customer is asked for a new one.")
async def old_photo(world: World, claim_id: str) -> str:
    await world.file(await a_claim(world, claim_id, "old"))
    await world.reaches(claim_id, "asked")
    await world.send(
        f"{claim_id}.question-1", "Documents-1", Documents((await world.photo("clean", claim_id),))
    )
    await _decide(world, claim_id, ADA, "approve")
    return await _is_paid(world, claim_id, 1_140)


@scenario(
    "No damage visible", "A photo of a whole, clean car.", "An adjuster decides. It is not paid at once."
)
async def no_damage(world: World, claim_id: str) -> str:
    await world.file(await a_claim(world, claim_id, "whole"))
    facts = await world.task(claim_id, "Decision")
    _check("no damage" in facts["odd"], facts["odd"])
    await _decide(world, claim_id, ADA, "deny")
    await _is_not_paid(world, claim_id, "denied")
    return "with an adjuster, then denied"


@scenario(
    "Papers missing", "A theft without a police report.", "Asked, waits, goes on after the report came."
)
async def papers_missing(world: World, claim_id: str) -> str:
    theft = replace(await a_claim(world, claim_id), kind="Vehicle Theft", police_report=None)
    await world.file(theft)
    await world.reaches(claim_id, "asked")
    await world.send(f"{claim_id}.question-1", "Documents-1", Documents(police_report=True))
    return await _is_paid(world, claim_id, 1_140)


@scenario(
    "Asked for more",
    "The adjuster asks for a photo, and the customer takes a day.",
    "The adjuster's time stands still meanwhile.",
)
async def asked_for_more(world: World, claim_id: str) -> str:
    await world.file(replace(await a_claim(world, claim_id, "whole"), decide_within=world.patience))
    await _decide(world, claim_id, ADA, "ask for more")
    await world.wait(world.patience)
    await world.send(
        f"{claim_id}.question-1", "Documents-1", Documents((await world.photo("clean", claim_id),))
    )
    await world.task(claim_id, "Decision", "adjuster")
    await _decide(world, claim_id, ADA, "approve")
    return await _is_paid(world, claim_id, 1_140)


@scenario("Denied", "The adjuster says no.", "The customer gets the reason. Nothing is paid.")
async def denied(world: World, claim_id: str) -> str:
    await world.file(await _a_medium_claim(world, claim_id))
    await _decide(world, claim_id, ADA, "deny")
    outcome = await _is_not_paid(world, claim_id, "denied")
    _check(outcome.reason == REASON, outcome.reason)
    return "denied"


@scenario(
    "Undecided", "The adjusters' time goes by.", "A supervisor gets it, the customer is told, it stays open."
)
async def undecided(world: World, claim_id: str) -> str:
    await world.file(replace(await _a_medium_claim(world, claim_id), decide_within=world.patience))
    await world.task(claim_id, "Decision", "adjuster")
    await world.wait(world.patience)
    await world.task(claim_id, "Decision", "supervisor")
    await _decide(world, claim_id, SAM, "approve")
    end = await _is_paid(world, claim_id, 9_500)
    _check(
        "We are late, and your claim is still open" in await world.letters(claim_id),
        "the customer was not told",
    )
    return f"a supervisor decided; {end}"


@scenario(
    "Bank away", "The bank does not answer.", "The payment waits where you see it, then it is paid once."
)
async def bank_away(world: World, claim_id: str) -> str:
    await world.fault("bank away", True)
    try:
        await world.file(await a_claim(world, claim_id))
        await world.attempts(claim_id, 3)
    finally:
        await world.fault("bank away", False)
    return await _is_paid(world, claim_id, 1_140)


@scenario(
    "Bank refuses",
    "The account is closed.",
    "The customer is told, a person gets a task, another account gets the money.",
)
async def bank_refuses(world: World, claim_id: str) -> str:
    person = await world.claimant(CLOSED)
    await world.file(replace(await a_claim(world, claim_id), person=person))
    await world.task(claim_id, "Remedy")
    _check("Your bank refused the payment" in await world.letters(claim_id), "the customer was not told")
    await world.change_account(person, claim_id, CLAIMANT.account)
    return await _is_paid(world, claim_id, 1_140)


@scenario(
    "Paid, answer lost", "The bank times out after the money moved.", "One payment, tried with the same key."
)
async def answer_lost(world: World, claim_id: str) -> str:
    person = await world.claimant(SILENT)
    await world.file(replace(await a_claim(world, claim_id), person=person))
    return await _is_paid(world, claim_id, 1_140)


@scenario(
    "Telling fails for good",
    "Mail and phone of the customer do not exist.",
    "A person gets the task to tell them.",
)
async def telling_fails(world: World, claim_id: str) -> str:
    person = await world.claimant(UNREACHABLE)
    await world.file(replace(await a_claim(world, claim_id), person=person))
    await world.task(claim_id, "Told")
    await world.answer(claim_id, "Told", ADA, Handled("I wrote a letter."))
    return await _is_paid(world, claim_id, 1_140, told=False)


@scenario("Sent twice", "The same claim, twice at once.", "One claim, one payment.")
async def sent_twice(world: World, claim_id: str) -> str:
    claim = await a_claim(world, claim_id)
    await world.file(claim)
    await world.file(claim)
    return await _is_paid(world, claim_id, 1_140)


@scenario(
    "Crash in the middle",
    "kill -9 while the bank does not answer.",
    "It goes on by itself, and is paid once.",
)
async def crash(world: World, claim_id: str) -> str:
    await world.fault("bank away", True)
    try:
        await world.file(await a_claim(world, claim_id))
        await world.attempts(claim_id, 2)
        await world.crash()
    finally:
        await world.fault("bank away", False)
    return await _is_paid(world, claim_id, 1_140)


# --------------------------------------------------------------------------------------------- their claims

REASON = "The photos show another car."
REASONS: dict[Verdict, str] = {
    "approve": "The damage fits the report.",
    "deny": REASON,
    "ask for more": "a sharper photo of the damage",
}


async def a_claim(world: World, claim_id: str, looks: Looks = "clean") -> Claim:
    """A plain dent of $1,640, from the app."""
    return Claim(
        claim_id=claim_id,
        policy_bound=TODAY - timedelta(days=3 * 365),
        deductible=500,
        umbrella_limit=0,
        happened=TODAY,
        kind="Parked Car",
        severity="Minor Damage",
        authority="Police",
        police_report=True,
        bodily_injuries=0,
        witnesses=2,
        injury_amount=0,
        property_amount=140,
        vehicle_amount=1_500,
        vehicle=Vehicle("Audi", "A8", 2023),
        channel="app",
        person=await world.claimant(CLAIMANT),
        photos=(await world.photo(looks, claim_id),),
    )


async def _a_medium_claim(world: World, claim_id: str) -> Claim:
    return replace(await a_claim(world, claim_id), vehicle_amount=9_860)


async def a_large_claim(world: World, claim_id: str) -> Claim:
    return replace(await a_claim(world, claim_id), severity="Total Loss", vehicle_amount=55_110)


async def _a_suspicious_claim(world: World, claim_id: str) -> Claim:
    return replace(
        await a_claim(world, claim_id),
        policy_bound=TODAY - timedelta(days=40),
        kind="Single Vehicle Collision",
        severity="Major Damage",
        authority=None,
        police_report=False,
        witnesses=0,
        injury_amount=18_000,
        vehicle_amount=60_000,
        umbrella_limit=5_000_000,
    )


# ------------------------------------------------------------------------------------------------ their ends


async def _decide(
    world: World, claim_id: str, who: df.Person, verdict: Verdict, amount: int | None = None
) -> None:
    ruling = Ruling(verdict=verdict, amount=amount, reason=REASONS[verdict], note="decided in a story")
    await world.answer(claim_id, "Decision", who, ruling)


async def _is_paid(world: World, claim_id: str, amount: int, *, told: bool = True) -> str:
    outcome, paid = await world.outcome(claim_id), await world.paid(claim_id)
    _check(outcome.status == "paid", f"it is {outcome.status}: {outcome.reason}")
    _check(paid == [amount], f"the bank has paid {paid}")
    if told:
        letters = (await world.letters(claim_id)).count("We have paid")
        _check(letters == 1, f"the customer was told {letters} times")
    return f"paid ${amount:,} once"


async def _is_not_paid(world: World, claim_id: str, ending: str) -> Outcome:
    outcome, paid = await world.outcome(claim_id), await world.paid(claim_id)
    _check(outcome.status == ending, f"it is {outcome.status}: {outcome.reason}")
    _check(paid == [], f"the bank has paid {paid}")
    return outcome


def _check(holds: bool, found: object) -> None:
    if not holds:
        raise DidNotComeTrue(str(found))
