"""What customers read: the words of each outcome."""

from examples.claims.model import Ending, Letter, Outcome
from examples.claims.rules import SECOND_LOOK_WITHIN

SUBJECTS: dict[Ending, str] = {
    "paid": "We have paid",
    "rejected": "We can't pay this claim",
    "denied": "We can't pay this claim",
    "settled otherwise": "Your claim is settled",
}


def about(outcome: Outcome, person: str) -> Letter:
    """The letter that tells a claimant how the claim ended."""
    claim_id = outcome.claim_id
    lines = [outcome.reason]
    if outcome.payment is not None:
        lines.insert(0, f"${outcome.payment.amount:,} are on the way to your account.")
    if outcome.status == "rejected":
        lines.append(
            f"No person has looked at it yet. You can ask for one within {SECOND_LOOK_WITHIN.days} days, at no cost."
        )
    return Letter(
        claim_id, f"{claim_id}-{outcome.status}", SUBJECTS[outcome.status], "\n".join(lines), person
    )
