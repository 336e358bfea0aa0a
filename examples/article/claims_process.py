"""An insurance claim in the article's style: plain functions, whose roles stand in the folders beside this file."""

import hashlib

import azure.functions as func

import perdure as df

PART_PRICES = {"front bumper": 1200, "rear bumper": 1100, "left headlight": 900, "door": 1500}


async def main(req: func.HttpRequest, starter: str) -> func.HttpResponse:
    client = df.DurableOrchestrationClient(starter)
    instance_id = await client.start_new("ClaimsOrchestrator", None, req.get_json())
    return client.create_check_status_response(req, instance_id)


def ClaimsOrchestrator(context: df.DurableOrchestrationContext):
    claim = context.get_input()

    fraud, damage = yield context.task_all(
        [
            context.call_activity("call_fraud_api", claim),
            context.call_activity("analyze_damage_images", claim["images"]),
        ]
    )
    if fraud["risk"] > 0.8:
        return {"status": "rejected", "reason": "high_fraud_risk"}

    yield context.call_activity("send_approval_request", {"claim": claim, "fraud": fraud, "damage": damage})
    try:
        decision = yield context.wait_for_external_event("ApproverDecision", timeout=259200)  # 72 hours
    except TimeoutError:
        return {"status": "denied", "reason": "no_decision"}
    if not decision["approved"]:
        return {"status": "denied", "reason": "adjuster"}

    amount = min(claim["amount"], damage["repair_cost"])
    payment = yield context.call_activity(
        "process_payment", {"claim_id": claim["claim_id"], "amount": amount}
    )
    yield context.call_activity("notify_customer", {"claim_id": claim["claim_id"], "status": "paid"})
    return {"status": "completed", "payment_id": payment["payment_id"]}


def call_fraud_api(context: df.ActivityContext):
    claim = context.get_input()
    of_value = min(claim["amount"] / claim["car_value"], 1.0)
    newness = max(0.0, 1.0 - claim["policy_days"] / 365)
    habit = min(claim["claims_last_year"] / 3, 1.0)
    return {"risk": round(0.4 * of_value + 0.3 * newness + 0.3 * habit, 2)}


def analyze_damage_images(context: df.ActivityContext):
    images = context.get_input()
    return {"repair_cost": round(sum(PART_PRICES.get(one["part"], 500) * one["damage"] for one in images))}


def send_approval_request(context: df.ActivityContext):
    request = context.get_input()
    cost, risk = request["damage"]["repair_cost"], request["fraud"]["risk"]
    print(f"to the adjuster: pay {cost} at a fraud risk of {risk}? Decide on instance {context.instance_id}")


def process_payment(context: df.ActivityContext):
    # Each attempt of this call has the same key, and so the same payment id.
    return {"payment_id": "PAY-" + hashlib.sha256(context.idempotency_key.encode()).hexdigest()[:12]}


def notify_customer(context: df.ActivityContext):
    notice = context.get_input()
    print(f"to the customer: claim {notice['claim_id']} is {notice['status']}")
