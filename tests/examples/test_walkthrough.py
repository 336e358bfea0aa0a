"""The walk-through in Azure's style comes to each of its ends, under the names people will try."""

import inspect

import httpx2
import pytest

import perdure as df
from examples import walkthrough
from examples.walkthrough import app
from perdure.http.host import application
from tests.examples.claims import CLAIM, SUSPICIOUS


async def started(env, claim=CLAIM):
    return await env.client.start_new("ClaimsOrchestrator", None, claim)


async def test_an_approved_claim_is_paid_and_the_customer_told(perdure_environment):
    env = await perdure_environment(app)
    instance_id = await started(env)
    await env.client.raise_event(instance_id, "ApproverDecision", {"approved": True})
    status = await env.client.wait_for_completion(instance_id)
    payments, notices = env.calls("process_payment"), env.calls("notify_customer")
    assert status.output == {"status": "completed", "payment_id": status.output["payment_id"]}
    assert [call.input for call in payments] == [{"claim_id": "C-1001", "amount": 1500}]
    assert [call.input for call in notices] == [{"claim_id": "C-1001", "status": "paid"}]


async def test_a_claim_above_the_risk_limit_is_rejected_without_asking_anyone(perdure_environment):
    env = await perdure_environment(app)
    status = await env.run("ClaimsOrchestrator", SUSPICIOUS)
    assert status.output == {"status": "rejected", "reason": "high_fraud_risk"}
    assert {call.activity for call in env.calls()} == {"call_fraud_api", "analyze_damage_images"}


@pytest.mark.parametrize("decided", [True, False], ids=["by the adjuster", "by 72 hours of silence"])
async def test_a_claim_that_is_not_approved_is_denied_and_not_paid(perdure_environment, decided):
    env = await perdure_environment(app)
    instance_id = await started(env)
    if decided:
        await env.client.raise_event(instance_id, "ApproverDecision", {"approved": False})
    else:
        await env.advance(seconds=259199)
        assert not (await env.client.get_status(instance_id)).is_finished
        await env.advance(seconds=1)
    status = await env.client.wait_for_completion(instance_id)
    assert status.output == {"status": "denied"}
    assert env.calls("process_payment") == []


async def test_main_starts_it_by_http(perdure_environment):
    env = await perdure_environment(app)
    transport = httpx2.ASGITransport(app=application(env.client))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost:7071") as http:
        answer = await http.post("/api/claims", json=SUSPICIOUS)
    status = await env.client.wait_for_completion(answer.json()["id"])
    assert (answer.status_code, status.output["status"]) == (202, "rejected")


def test_the_names_are_the_ones_people_know():
    assert set(app.registry.orchestrators) == {"ClaimsOrchestrator"}
    assert set(app.registry.activities) == {
        "call_fraud_api",
        "analyze_damage_images",
        "send_approval_request",
        "process_payment",
        "notify_customer",
    }
    assert [(route.function.__name__, route.methods) for route in app.registry.routes] == [
        ("main", ("POST",))
    ]
    context = inspect.signature(walkthrough.ClaimsOrchestrator).parameters["context"]
    assert context.annotation is df.DurableOrchestrationContext
