"""A claim, from the filing to the payment.

    perdure run examples.claims:app

`POST /api/claims` files a claim under its own id. The README beside this file says what each module does.
"""

from starlette.requests import Request

import perdure as df
from examples.claims import (
    asking,
    assessing,
    connections,
    letters,
    panel,
    paying,
    reconciling,
    review,
    rules,
    telling,
)
from examples.claims.model import Case, Claim, Decision, Ending, Outcome, Payment, PaymentOrder, Stage

app = df.App("claims", http=df.HttpPolicy(allow=connections.hosts()))
for part in (asking, assessing, panel, paying, reconciling, review, telling):
    app.register_functions(part.functions)


@app.orchestrator(events={"SecondLook": None, **telling.TOLD})
async def claims_orchestrator(context: df.OrchestrationContext, claim: Claim) -> Outcome:
    trail: list[Stage] = []

    def note(stage: str, why: str = "") -> None:
        trail.append(Stage(context.current_utc_datetime, stage, why))
        context.set_custom_status(trail)

    async def close(ending: Ending, why: str, payment: Payment | None = None) -> Outcome:
        outcome = Outcome(ending, claim.claim_id, why, payment)
        note(ending, why)
        await telling.tell(context, letters.about(outcome, claim.person))
        return outcome

    note("filed", f"{claim.kind}, ${claim.total:,}")
    case = Case(claim, await context.call_sub_orchestrator(assessing.assess, claim))
    note("assessed", rules.in_short(case))
    while wanted := rules.what_is_missing(case):
        note("asked", "; ".join(wanted))
        before, case = case, await asking.ask_for(context, case, wanted)
        note("answered" if case.claim != before.claim else "no answer")
        if case.claim == before.claim:
            break  # nothing came: people decide with what there is

    ruling = rules.rule(case)
    if ruling is not None and ruling.verdict == "deny":
        outcome = await close("rejected", ruling.reason)
        if not await wants_second_look(context):
            return outcome
        note("second look", "the customer asks for a person")
        ruling = None
    if ruling is None:
        note("with people", "; ".join(rules.oddities(case)))
        decision = await context.call_sub_orchestrator(review.review, case, f"{claim.claim_id}.review")
    else:
        decision = Decision(True, case.opinion.cover.payable, ruling.reason, ("the rules",), case)
    note("decided", f"{'approved' if decision.approved else 'denied'} by {' and '.join(decision.by)}")
    if not decision.approved:
        return await close("denied", decision.reason)

    order = PaymentOrder(claim.claim_id, decision.amount, claim.person)
    settled = await context.call_sub_orchestrator(paying.pay, order, f"{claim.claim_id}.payment")
    if settled.payment is None:
        return await close("settled otherwise", settled.how)
    return await close("paid", decision.reason, settled.payment)


async def wants_second_look(context: df.OrchestrationContext) -> bool:
    """Whether the customer asks for a person after a refusal by the rules."""
    asked = context.wait_for_external_event("SecondLook", timeout=rules.SECOND_LOOK_WITHIN)
    try:
        await asked
    except TimeoutError:
        return False
    return True


@app.route("/claims", methods=["POST"], auth="anonymous")
async def file_claim(request: Request, claim: Claim, client: df.Client) -> object:
    """File a claim. Its id is the instance's id, so filing it again has no effect.

    The claimant gets one link, which shows the claim's status. A repeat of an existing claim gets no link, unless it
    has the Idempotency-Key of the first request.
    """
    await client.start_new(claims_orchestrator, claim.claim_id, claim, on_existing="return_existing")
    return client.create_check_status_response(request, claim.claim_id)


app.lifespan(connections.office)
