"""A claim, from the filing to the payment.

    perdure run examples.claims:app

`POST /api/claims` files a claim under its own id. Files go to the folder `CLAIMS_HOME`, by default where the
server was started: the ledger of payments, the outbox, and `gateway-down`, which while it exists makes every
payment fail.
"""

import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

from starlette.requests import Request

import perdure as df
from examples.claims import judgement
from examples.claims.ledger import Ledger
from examples.claims.model import (
    ApprovalRequest,
    Claim,
    DamageAssessment,
    Decision,
    Ending,
    FraudScore,
    Outcome,
    Payment,
    PaymentOrder,
    Stage,
)
from examples.claims.outbox import Outbox

LEDGER, SWITCH = "claims-ledger.db", "gateway-down"

app = df.App("claims")

UNTIL_DONE = df.RetryPolicy(  # payments and messages: retry as long as the bank or the mail server is away
    first_interval=timedelta(seconds=1),
    backoff=2.0,
    max_interval=timedelta(minutes=10),
    max_attempts=0,
    jitter=0.2,
)
FOR_AN_HOUR = (
    df.RetryPolicy(  # assessments: no payment depends on a failed one, and `perdure rewind` repeats it later
        first_interval=timedelta(seconds=1),
        backoff=2.0,
        max_interval=timedelta(minutes=10),
        max_attempts=14,
        jitter=0.2,
    )
)


@app.orchestrator(events={"ApproverDecision": Decision})
async def claims_orchestrator(context: df.OrchestrationContext, claim: Claim) -> Outcome:
    trail: list[Stage] = []

    def note(stage: str, why: str = "") -> None:
        trail.append(Stage(context.current_utc_datetime, stage, why))
        context.set_custom_status(trail)

    async def close(ending: Ending, why: str, payment: Payment | None = None) -> Outcome:
        note(ending, why)
        outcome = Outcome(ending, claim.claim_id, why, payment)
        await context.call_activity(notify_customer, outcome)
        return outcome

    note("filed", f"{claim.kind}, ${claim.total:,}")
    fraud, damage = await context.task_all(
        context.call_activity(score_fraud, claim),
        context.call_activity(assess_damage, claim),
    )
    note("assessed", f"fraud score {fraud.score:.2f}, worth ${damage.payout:,}")
    if fraud.score > judgement.FRAUD_LIMIT:
        return await close("rejected", "; ".join(fraud.reasons))

    await context.call_activity(ask_adjuster, ApprovalRequest(claim, fraud, damage))
    note("asked", "the adjuster has a message")
    try:
        decision: Decision = await context.wait_for_external_event(
            "ApproverDecision", Decision, timeout=claim.decide_within
        )
    except TimeoutError:
        return await close("expired", "no decision in time")
    note("decided", f"{'approved' if decision.approved else 'denied'} by {decision.by}")
    if not decision.approved:
        return await close("denied", decision.note)

    payment = await context.call_activity(process_payment, PaymentOrder(claim.claim_id, damage.payout))
    return await close("paid", f"${payment.amount:,} as {payment.payment_id}", payment)


@app.activity(retry=FOR_AN_HOUR)
async def score_fraud(claim: Claim) -> FraudScore:
    return judgement.score(claim)


@app.activity(retry=FOR_AN_HOUR)
async def assess_damage(claim: Claim) -> DamageAssessment:
    return judgement.assess(claim)


@app.activity(retry=UNTIL_DONE)
def ask_adjuster(request: ApprovalRequest, context: df.ActivityContext, outbox: Outbox) -> None:
    lines = [
        f"Claim {request.claim.claim_id}: {request.claim.kind}, {request.claim.severity}",
        f"Worth ${request.damage.payout:,} after the deductible, fraud score {request.fraud.score:.2f}",
        *(f"- {line}" for line in (*request.fraud.reasons, *request.damage.remarks)),
        f"Answer with the event ApproverDecision to instance {context.instance_id}.",
    ]
    outbox.send("adjuster", request.claim.claim_id, "\n".join(lines) + "\n")


@app.activity(retry=UNTIL_DONE)
def process_payment(order: PaymentOrder, context: df.ActivityContext, ledger: Ledger) -> Payment:
    return ledger.pay(order, context.idempotency_key)


@app.activity(retry=UNTIL_DONE)
def notify_customer(outcome: Outcome, outbox: Outbox) -> None:
    outbox.send("customer", outcome.claim_id, f"Your claim is {outcome.status}: {outcome.reason}\n")


@app.route("/claims", methods=["POST"], auth="anonymous")
async def file_claim(request: Request, claim: Claim, client: df.Client) -> object:
    """File a claim. Its id is the instance's id, so filing it again has no effect.

    The claimant gets one link, which shows the claim's status. A repeat of an existing claim gets no link, unless it
    has the Idempotency-Key of the first request.
    """
    await client.start_new(claims_orchestrator, claim.claim_id, claim, on_existing="return_existing")
    return client.create_check_status_response(request, claim.claim_id)


@app.lifespan
async def resources() -> AsyncIterator[tuple[Ledger, Outbox]]:
    ledger = Ledger(home() / LEDGER, switch=home() / SWITCH)
    try:
        yield ledger, Outbox(home() / "outbox")
    finally:
        ledger.close()


def home() -> Path:
    """The folder for the ledger, the outbox and the switch."""
    return Path(os.environ.get("CLAIMS_HOME", "."))
