"""What a claimant reads about a claim: one sentence, what we need from them, and what comes next.

Every state says whose turn it is, until when, and what happens after that. The words are the insurer's; a claimant
never reads of an instance or an event.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

import perdure as df
from examples.claims.model import Question, Stage, Turn
from examples.claims.rules import DOCUMENTS_WITHIN, SECOND_LOOK_WITHIN

REFUSED_ACCOUNT = "Remedy"
NOT_PAID = "We can’t pay this claim"
Parts = Mapping[str, df.OrchestrationStatus]
BANK_AWAY = "the bank does not answer"


@dataclass(frozen=True)
class Step:
    """One line of "your claim so far": done, here, late, or still to come."""

    text: str
    when: str = ""
    mark: str = ""


@dataclass
class Standing:
    """The page of a claim. `ask` is what the customer can do: photos, report, account or second look."""

    headline: str
    words: str
    tone: str = ""
    ask: str = ""
    question: Question | None = None
    amount: int = 0
    why: Sequence[str] = ()
    steps: list[Step] = field(default_factory=list)
    is_closed: bool = False


def standing_of(
    claim: df.OrchestrationStatus, parts: Mapping[str, df.OrchestrationStatus], now: datetime
) -> Standing:
    """What to tell the claimant. `parts` are the parts of the claim that run, by the end of their ids."""
    trail = msgspec.convert(claim.custom_status or [], list[Stage])
    reached = {stage.stage: stage for stage in trail}
    last = trail[-1] if trail else Stage(claim.created_time, "filed")
    shown = _shown(last, claim, parts, now)
    shown.steps = _steps(shown, reached, now)
    return shown


def _shown(last: Stage, claim: df.OrchestrationStatus, parts: Parts, now: datetime) -> Standing:
    question = next((_question(part) for name, part in parts.items() if name.startswith("question-")), None)
    if question is not None:
        return _asked(question)
    match last.stage:
        case "paid":
            output = claim.output if isinstance(claim.output, dict) else {}
            amount = (output.get("payment") or {}).get("amount", 0)
            return Standing("We have paid", "It should reach your account by tomorrow.", "paid", amount=amount,
                            why=(last.note,), is_closed=True)  # fmt: skip
        case "rejected" if not claim.is_finished:
            until = _moment(last.at + SECOND_LOOK_WITHIN, now)
            words = f"No person has looked at it yet. You can ask for one until {until}."
            return Standing(NOT_PAID, words, "no", ask="second look", why=last.note.split("; "))
        case "rejected" | "denied":
            return Standing(NOT_PAID, "", "no", why=(last.note,), is_closed=True)
        case "settled otherwise":
            return Standing("Your claim is settled", last.note, "paid", is_closed=True)
        case "with people" | "second look":
            return _with_people(parts.get("review"), now)
        case "decided":
            return _being_paid(parts.get("payment"))
        case _:
            return Standing(
                "We are looking at your claim",
                "This takes less than a minute. You can close this page: we send you a message.",
            )


def _asked(question: Question) -> Standing:
    wanted = " ".join(f"{thing[:1].upper()}{thing[1:]}." for thing in question.wanted)
    number = "one thing" if len(question.wanted) == 1 else "something"
    is_report = all("report" in thing for thing in question.wanted)
    return Standing(
        f"We need {number} from you",
        f"{wanted} Your claim stays open, and waits for you for {DOCUMENTS_WITHIN.days} days.",
        "ask",
        ask="report" if is_report else "photos",
        question=question,
    )


def _with_people(review: df.OrchestrationStatus | None, now: datetime) -> Standing:
    if review is None or review.custom_status is None:
        return Standing("An adjuster looks at your claim", "A person decides within 72 hours, often sooner.")
    turn = msgspec.convert(review.custom_status, Turn)
    if turn.until is None:
        return Standing(
            "We are late, and your claim is still open",
            "We promised a decision and missed it. A supervisor has taken over.",
            "ask",
        )
    words = (
        "Claims of this size are always read by two people." if turn.people > 1 else "Often it takes less."
    )
    return Standing(f"An adjuster has until {_moment(turn.until, now).removeprefix('Today, ')}", words)


def _being_paid(payment: df.OrchestrationStatus | None) -> Standing:
    if payment is not None and _waits_for(payment, REFUSED_ACCOUNT):
        return Standing(
            "Your bank refused the payment",
            "Your claim is approved, and that does not change. Give us another account.",
            "ask",
            ask="account",
        )
    if payment is not None and payment.custom_status == BANK_AWAY:
        return Standing(
            "Approved. The money is on hold",
            "The bank is not answering, so we keep trying. You are paid once, however often we try.",
        )
    return Standing("Approved. We are paying", "The money is on its way to the bank.")


def _waits_for(status: df.OrchestrationStatus, event: str) -> bool:
    return any(wait.name == event for wait in (status.waiting.events if status.waiting else ()))


def _question(part: df.OrchestrationStatus) -> Question | None:
    return None if part.custom_status is None else msgspec.convert(part.custom_status, Question)


def _steps(shown: Standing, reached: Mapping[str, Stage], now: datetime) -> list[Step]:
    """The way of a claim, with what has happened on it."""

    def when(stage: str) -> str:
        return _moment(reached[stage].at, now) if stage in reached else ""

    way = [
        ("You sent your claim", "filed", ("filed",)),
        ("We looked at your photos and policy", "assessed", ("assessed",)),
        ("We decide", "", ("decided", "denied", "rejected")),
        ("We pay", "", ("paid", "settled otherwise")),
    ]
    steps: list[Step] = []
    for text, _, stages in way:
        stage = next((stage for stage in stages if stage in reached), "")
        mark = "done" if stage else "here" if all(step.mark == "done" for step in steps) else ""
        steps.append(Step(text, when(stage) if stage else "Now" if mark == "here" else "", mark))
    if shown.tone == "no":
        return steps[:3]
    return steps


def _moment(moment: datetime, now: datetime) -> str:
    """A time by the day: "Today, 13:58", "Thursday 14:00", "4 December"."""
    days = (moment.date() - now.date()).days
    if days == 0:
        return f"Today, {moment:%H:%M}"
    return f"{moment:%A %H:%M}" if abs(days) < 7 else f"{moment.day} {moment:%B}"
