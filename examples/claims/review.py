"""People decide: adjusters within their time, two of them above a limit, a supervisor when they are late or differ.

A claim without a decision is escalated and stays open; no clock refuses it. While the customer is asked for more,
the adjusters' time stands still.
"""

from datetime import timedelta

import perdure as df
from examples.claims import rules
from examples.claims.asking import ask_for
from examples.claims.model import Case, Decision, FraudScore, Letter, Ruling, Turn
from examples.claims.telling import TOLD, remind, tell

functions = df.Blueprint()

NONE_LEFT = timedelta()
ROUNDS = 2  # people who differ get the claim back once; then the supervisor decides alone


@functions.orchestrator(events={"Decision": Ruling, **TOLD})
async def review(context: df.OrchestrationContext, case: Case) -> Decision:
    """Ask until the people agree, or the supervisor has decided."""
    left, differed, hint = case.claim.decide_within, 0, ""
    while True:
        began = context.current_utc_datetime
        alone = differed == ROUNDS
        eyes = 1 if alone else rules.eyes(case)
        task = _put_to_people(context, case, NONE_LEFT if alone else left, eyes, hint)
        context.set_custom_status(Turn(eyes, began + left if left and not alone else None))
        if left and not alone:
            late = context.create_timer(left)
            if await context.task_any(task, late) is late:
                context.set_custom_status(Turn(eyes))
                await tell(context, _we_are_late(case))
            else:
                late.cancel()
        answers = await task
        rulings: list[Ruling] = answers if isinstance(answers, list) else [answers]
        left = max(NONE_LEFT, left - (context.current_utc_datetime - began))
        hint = _difference(case, rulings)
        if questions := _questions(rulings):
            case, hint = await ask_for(context, case, questions), "The customer was asked for more"
        elif hint:
            differed = min(differed + 1, ROUNDS)
        else:
            return _decision(case, rulings, task.decided_by)


def _put_to_people(
    context: df.OrchestrationContext, case: Case, left: timedelta, eyes: int, hint: str
) -> df.HumanTask[list[Ruling] | Ruling]:
    """Open the task, and send those whose turn it is a mail."""
    title = (
        f"Pay ${case.opinion.cover.payable:,} for {case.claim.kind.lower()}, {case.claim.severity.lower()}?"
    )
    roles = ("adjuster",) if left else ("supervisor",)
    within = case.claim.decide_within
    spent = within - left
    task = context.human_task(
        "Decision",
        Ruling,
        title=title,
        facts=facts_of(case, hint),
        roles=roles,
        remind=[at - spent for at in (within / 3, within * 2 / 3) if left and at > spent],
        escalate={left: "supervisor"} if left else None,
        remind_with=remind,
        decisions=eyes,
        final=_asks_for_more,  # a question to the customer needs no second pair of eyes
    )
    new = df.Reminder(
        instance_id=context.instance_id, event="Decision", kind="remind", number=0, title=title, roles=roles
    )
    context.call_activity(remind, new)  # the review does not wait for the post
    return task


def _asks_for_more(ruling: Ruling) -> bool:
    return ruling.verdict == "ask for more"


def facts_of(case: Case, hint: str = "") -> dict[str, object]:
    """What a person needs to decide, most important first."""
    claim, opinion = case.claim, case.opinion
    facts = {
        "note": hint,
        "claim": claim.claim_id,
        "payable": f"${opinion.cover.payable:,} of ${claim.total:,} claimed, deductible ${claim.deductible:,}",
        "fraud score": f"{opinion.fraud.score:.2f}, confidence {opinion.fraud.confidence:.2f}, {opinion.fraud.model}",
        "reasons": "; ".join(weighed(opinion.fraud)),
        "odd": "; ".join(rules.oddities(case)),
        "happened": f"{claim.happened:%d %B %Y}",
        "vehicle": f"{claim.vehicle.make} {claim.vehicle.model} of {claim.vehicle.year}",
        "witnesses": claim.witnesses,
        "customer": claim.person,
        "photos": len(claim.photos) or "",
    }
    return {label: value for label, value in facts.items() if value != ""}


def weighed(fraud: FraudScore) -> list[str]:
    """The reasons of a score, each with its points."""
    return [f"{reason} ({points:+d})" for reason, points in zip(fraud.reasons, fraud.points, strict=True)]


def _questions(rulings: list[Ruling]) -> tuple[str, ...]:
    """What people want to know of the customer, each question once."""
    return tuple(dict.fromkeys(ruling.reason for ruling in rulings if _asks_for_more(ruling)))


def _difference(case: Case, rulings: list[Ruling]) -> str:
    """Why these rulings are no decision, for the people who get the claim back; "" if they are one."""
    payable = case.opinion.cover.payable
    if any(_amount(case, ruling) > payable for ruling in rulings):
        return f"An amount was above the ${payable:,} that the policy pays"
    wanted = {(ruling.verdict, _amount(case, ruling)) for ruling in rulings}
    if len(wanted) == 1:
        return ""
    shown = [
        f"{verdict} ${amount:,}" if verdict == "approve" else verdict for verdict, amount in sorted(wanted)
    ]
    return f"Two people decided differently: {' and '.join(shown)}"


def _amount(case: Case, ruling: Ruling) -> int:
    if ruling.verdict != "approve":
        return 0
    return case.opinion.cover.payable if ruling.amount is None else ruling.amount


def _decision(case: Case, rulings: list[Ruling], by: tuple[str, ...]) -> Decision:
    return Decision(
        approved=rulings[0].verdict == "approve",
        amount=_amount(case, rulings[0]),
        reason=" ".join(dict.fromkeys(ruling.reason for ruling in rulings)),
        by=by,
        case=case,
        note="\n".join(ruling.note for ruling in rulings if ruling.note),
    )


def _we_are_late(case: Case) -> Letter:
    return Letter(
        case.claim.claim_id,
        f"{case.claim.claim_id}-late-{case.questions}",
        "We are late, and your claim is still open",
        "We promised a decision and missed it. A supervisor has taken over. You need to do nothing.",
        case.claim.person,
    )
