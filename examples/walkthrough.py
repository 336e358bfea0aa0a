"""An insurance claim in Azure Durable Functions' own style: `yield`, names as strings, plain dicts.

    perdure run examples/walkthrough.py
    curl http://localhost:7071/api/claims -d '{
      "claim_id": "C-1001", "amount": 2400, "car_value": 18000, "policy_days": 900, "claims_last_year": 0,
      "images": [{"part": "front bumper", "damage": 0.8}, {"part": "left headlight", "damage": 1.0}]}'

The answer contains the id and a link that shows the status; the claimant cannot approve the claim. The adjuster
decides on the page whose address the server has printed, or in a terminal:

    perdure raise <id> ApproverDecision -i '{"approved": true}'

`examples/claims` is the same process, written for production.
"""

import hashlib
from collections.abc import Generator
from typing import Any

from starlette.requests import Request

import perdure as df

app = df.App("walkthrough")

PART_PRICES = {"front bumper": 1200, "rear bumper": 1100, "left headlight": 900, "door": 1500}


@app.orchestrator
def ClaimsOrchestrator(context: df.DurableOrchestrationContext) -> Generator[Any, Any, dict[str, Any]]:
    claim = context.get_input()

    fraud, damage = yield context.task_all(
        [
            context.call_activity("call_fraud_api", claim),
            context.call_activity("analyze_damage_images", claim),
        ]
    )
    if fraud["risk"] > 0.8:
        return {"status": "rejected", "reason": "high_fraud_risk"}

    yield context.call_activity("send_approval_request", {"claim": claim, "fraud": fraud, "damage": damage})
    # 72 hours. Silence is not approval.
    decision = yield context.wait_for_external_event(
        "ApproverDecision", timeout=259200, default={"approved": False}
    )
    if not decision["approved"]:
        return {"status": "denied"}

    payment = yield context.call_activity(
        "process_payment", {"claim_id": claim["claim_id"], "amount": damage["repair_cost"]}
    )
    yield context.call_activity("notify_customer", {"claim_id": claim["claim_id"], "status": "paid"})
    return {"status": "completed", "payment_id": payment["payment_id"]}


@app.activity
def call_fraud_api(context: df.ActivityContext) -> dict[str, float]:
    """The risk is high for a claim near the car's value, soon after the policy began, from a frequent claimant."""
    claim = context.get_input()
    of_value = min(claim["amount"] / claim["car_value"], 1.0)
    newness = max(0.0, 1.0 - claim["policy_days"] / 365)
    habit = min(claim["claims_last_year"] / 3, 1.0)
    return {"risk": round(0.4 * of_value + 0.3 * newness + 0.3 * habit, 2)}


@app.activity
def analyze_damage_images(context: df.ActivityContext) -> dict[str, int]:
    """The cost of the damaged parts in the pictures, but no more than the claim."""
    claim = context.get_input()
    cost = sum(PART_PRICES.get(image["part"], 500) * image["damage"] for image in claim["images"])
    return {"repair_cost": min(round(cost), claim["amount"])}


@app.activity
def send_approval_request(context: df.ActivityContext) -> None:
    request = context.get_input()
    cost, risk = request["damage"]["repair_cost"], request["fraud"]["risk"]
    print(f"to the adjuster: pay {cost} at a fraud risk of {risk}? Decide on instance {context.instance_id}")


@app.activity
def process_payment(context: df.ActivityContext) -> dict[str, str]:
    """All attempts of this call have the same key, and so the same payment id."""
    return {"payment_id": "PAY-" + hashlib.sha256(context.idempotency_key.encode()).hexdigest()[:12]}


@app.activity
def notify_customer(context: df.ActivityContext) -> None:
    notice = context.get_input()
    print(f"to the customer: claim {notice['claim_id']} is {notice['status']}")


@app.route("/claims", methods=["POST"], auth="anonymous")
async def main(req: Request, client: df.DurableOrchestrationClient) -> object:
    body = await req.json()
    instance_id = await client.start_new("ClaimsOrchestrator", None, body)
    return client.create_check_status_response(req, instance_id)
