"""The claims process as an Azure app comes to each of its ends, over HTTP and by a queue."""

import json
import logging
from pathlib import Path

import httpx2
import pytest

from perdure.hosts.azure_functions.application import load
from perdure.testing import environment
from perdure.triggers import Queues, Schedules
from tests.hosted.isolation import taken_back

__all__ = ["taken_back"]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
FOLDER = Path(__file__).parents[2] / "examples" / "azure_claims"
CLAIM = {
    "claim_id": "C-1001",
    "amount": 2400,
    "car_value": 18000,
    "policy_days": 900,
    "claims_last_year": 0,
    "parts": ["front bumper", "left headlight", "mirror"],
}
SUSPICIOUS = {**CLAIM, "amount": 18000, "policy_days": 3, "claims_last_year": 4}


@pytest.fixture
def app(monkeypatch):
    for name in ("CLAIMS_REPORT", "CLAIMS_DECIDE_WITHIN_HOURS", "AzureWebJobsStorage"):
        monkeypatch.delenv(name, raising=False)
    return load(FOLDER).app


async def test_a_claim_is_filed_decided_and_paid_over_http(app):
    host = app.asgi(store="memory:", access="open")
    async with host.lifespan():
        transport = httpx2.ASGITransport(app=host)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
            filed = await http.post("/api/claims", json=CLAIM)
            assert filed.status_code == 202
            decided = await http.post("/api/claims/C-1001/decision", json={"approved": True})
            assert decided.status_code == 202
            status = (await http.get(filed.json()["statusQueryGetUri"], params={"wait": 60})).json()
    assert status["output"]["status"] == "paid" and status["output"]["amount"] == 2400
    assert status["customStatus"] == "paid"


@pytest.mark.parametrize(
    ("claim", "decision", "ending"),
    [(CLAIM, {"approved": False}, "denied"), (CLAIM, None, "expired"), (SUSPICIOUS, None, "rejected")],
)
async def test_the_other_ends_of_a_claim(app, claim, decision, ending):
    async with environment(app) as env:
        instance_id = await env.client.start_new("claims_orchestrator", claim["claim_id"], claim)
        await env.settled()
        if decision is not None:
            await env.client.raise_event(instance_id, "ApproverDecision", json.dumps(decision))
        await env.advance(hours=73)
        assert (await env.client.get_status(instance_id)).output == {"status": ending}


async def test_a_claim_comes_by_a_queue_and_the_report_counts_it(app, caplog):
    caplog.set_level(logging.INFO)
    async with environment(app) as env:
        await Queues(env.client).send("claims", json.dumps(SUSPICIOUS))
        await Queues(env.client).send("claims", json.dumps(SUSPICIOUS))
        await env.settled()
        assert (await env.client.get_status("C-1001")).output == {"status": "rejected"}
        assert [one.name for one in await Schedules(env.client).list()] == ["daily_report"]
        await env.advance(days=1)
    told = [record.getMessage() for record in caplog.records if record.getMessage().startswith("to ")]
    assert "to C-1001: your claim is rejected" in told
    assert "to head: so far: {'paid': 0, 'endings': {'rejected': 1}}" in told
