"""Asking the customer for more: one request, one event name, one answer, and a new opinion."""

from dataclasses import replace

import perdure as df
from examples.claims.assessing import assess
from examples.claims.model import Case, Documents, Letter, Question
from examples.claims.rules import DOCUMENTS_WITHIN
from examples.claims.telling import tell

functions = df.Blueprint()


async def ask_for(context: df.OrchestrationContext, case: Case, wanted: tuple[str, ...]) -> Case:
    """The case with what the customer has sent, or without anything new if nothing came in time."""
    claim, number = case.claim, case.questions + 1
    question = Question(claim.claim_id, claim.person, number, wanted)
    sent = await context.call_sub_orchestrator(ask_claimant, question, f"{claim.claim_id}.question-{number}")
    if sent is None:
        return replace(case, questions=number)
    claim = replace(
        claim,
        photos=tuple(dict.fromkeys((*claim.photos, *sent.photos))),
        police_report=claim.police_report if sent.police_report is None else sent.police_report,
    )
    return Case(claim, await context.call_sub_orchestrator(assess, claim), number)


@functions.orchestrator
async def ask_claimant(context: df.OrchestrationContext, question: Question) -> Documents | None:
    """Tell the customer what is missing, and wait for it under this request's own event name.

    An answer to an earlier request cannot end this one, however late it comes.
    """
    context.set_custom_status(question)
    things = "\n".join(f"- {thing}" for thing in question.wanted)
    await tell(
        context,
        Letter(
            question.claim_id,
            f"{question.claim_id}-question-{question.number}",
            "We need one thing from you" if len(question.wanted) == 1 else "We need something from you",
            f"Please send us:\n{things}\nYour claim stays open, and waits for you.",
            question.person,
        ),
    )
    return await context.wait_for_external_event(
        question.event, Documents, timeout=DOCUMENTS_WITHIN, default=None
    )
