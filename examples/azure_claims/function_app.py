"""An insurance claim, from the filing to the payment, for Azure Functions."""

import hashlib
import json
import os
from datetime import timedelta

import azure.durable_functions as df
import azure.functions as func
from bookkeeping import TOTALS, bp
from judging import RISK_LIMIT, cost_of, risk_of

app = df.DFApp(http_auth_level=func.AuthLevel.FUNCTION)
app.register_functions(bp)


@app.route(route="claims", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
@app.durable_client_input(client_name="client")
async def file_claim(req: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
    claim = req.get_json()
    instance_id = await client.start_new("claims_orchestrator", claim["claim_id"], claim)
    return client.create_check_status_response(req, instance_id)


@app.route(route="claims/{id}/decision", methods=["POST"])
@app.durable_client_input(client_name="client")
async def decide(req: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
    await client.raise_event(req.route_params["id"], "ApproverDecision", req.get_json())
    return func.HttpResponse(status_code=202)


@app.orchestration_trigger(context_name="context")
def claims_orchestrator(context: df.DurableOrchestrationContext):
    claim = context.get_input()
    context.set_custom_status("assessing")
    options = df.RetryOptions(first_retry_interval_in_milliseconds=5_000, max_number_of_attempts=5)
    risk = context.call_activity_with_retry("score_risk", options, claim)
    parts = [context.call_activity("price_part", {"claim": claim, "part": part}) for part in claim["parts"]]
    risk, costs = yield context.task_all([risk, context.task_all(parts)])
    if risk > RISK_LIMIT:
        return (yield from closed(context, claim, {"status": "rejected"}))

    amount = min(sum(costs), claim["amount"])
    yield context.call_activity(
        "write_letter", {"to": "adjuster", "text": f"pay {amount} at a risk of {risk}?"}
    )
    context.set_custom_status("waiting for the adjuster")
    hours = int(os.environ.get("CLAIMS_DECIDE_WITHIN_HOURS", "72"))
    deadline = context.create_timer(context.current_utc_datetime + timedelta(hours=hours))
    decision = context.wait_for_external_event("ApproverDecision")
    if (yield context.task_any([decision, deadline])) == deadline:
        return (yield from closed(context, claim, {"status": "expired"}))
    deadline.cancel()
    if not json.loads(decision.result)["approved"]:
        return (yield from closed(context, claim, {"status": "denied"}))

    payment = yield context.call_activity_with_retry(
        "process_payment", options, {"claim_id": claim["claim_id"], "amount": amount}
    )
    return (yield from closed(context, claim, {"status": "paid", **payment}))


def closed(context, claim, outcome):
    """The end of a claim: it is counted, and the customer is told."""
    context.set_custom_status(outcome["status"])
    context.signal_entity(TOTALS, "close", outcome)
    yield context.call_activity(
        "write_letter", {"to": claim["claim_id"], "text": f"your claim is {outcome['status']}"}
    )
    return outcome


@app.activity_trigger(input_name="claim")
def score_risk(claim: dict) -> float:
    return risk_of(claim)


@app.activity_trigger(input_name="damage")
def price_part(damage: dict) -> int:
    return cost_of(damage["claim"], damage["part"])


@app.activity_trigger(input_name="order")
def process_payment(order: dict) -> dict:
    """The same claim has the same payment, however often this runs."""
    number = hashlib.sha256(order["claim_id"].encode()).hexdigest()[:12]
    return {"payment_id": f"PAY-{number}", "amount": order["amount"]}


@app.activity_trigger(input_name="letter")
@app.queue_output(arg_name="out", queue_name="letters", connection="AzureWebJobsStorage")
def write_letter(letter: dict, out: func.Out[str]) -> str:
    out.set(json.dumps(letter))
    return "written"
