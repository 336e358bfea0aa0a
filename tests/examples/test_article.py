"""The claim in the article's style comes to each of its ends, in process and by `perdure run`."""

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import httpx2
import pytest

from perdure.hosts.azure_functions.application import load
from perdure.testing import environment
from tests.cli.test_run import address_of, kill_with_its_children
from tests.examples.claims import CLAIM, SUSPICIOUS
from tests.hosted.isolation import taken_back

__all__ = ["taken_back"]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "article"


async def test_an_approved_claim_is_paid_once_over_http():
    host = load(FOLDER).app.asgi(store="memory:", access="open")
    async with host.lifespan():
        transport = httpx2.ASGITransport(app=host)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
            filed = await http.post("/api/claims", json=CLAIM)
            links = filed.json()
            raised = links["sendEventPostUri"].replace("{eventName}", "ApproverDecision")
            assert (await http.post(raised, json={"approved": True})).status_code == 202
            status = (await http.get(links["statusQueryGetUri"], params={"wait": 60})).json()
    assert filed.status_code == 202 and filed.headers["Location"] == links["statusQueryGetUri"]
    assert status["output"]["status"] == "completed" and status["output"]["payment_id"].startswith("PAY-")


@pytest.mark.parametrize(
    ("claim", "decision", "output"),
    [
        (CLAIM, None, {"status": "denied", "reason": "no_decision"}),
        (CLAIM, {"approved": False}, {"status": "denied", "reason": "adjuster"}),
        (SUSPICIOUS, None, {"status": "rejected", "reason": "high_fraud_risk"}),
    ],
)
async def test_the_other_ends_of_a_claim(claim, decision, output):
    async with environment(load(FOLDER).app) as env:
        instance_id = await env.client.start_new("ClaimsOrchestrator", None, claim)
        await env.settled()
        if decision is not None:
            await env.client.raise_event(instance_id, "ApproverDecision", decision)
        await env.advance(seconds=259199)
        waits = decision is None and claim is CLAIM
        assert (await env.client.get_status(instance_id)).is_finished is not waits
        await env.advance(seconds=1)
        assert (await env.client.get_status(instance_id)).output == output
        assert env.calls("process_payment") == []


def test_perdure_run_serves_the_folder(tmp_path):
    folder = shutil.copytree(FOLDER, tmp_path / "article")
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "perdure.cli", "run", os.fspath(folder), "--port", "0"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.fspath(ROOT / "src"), "COLUMNS": "200"},
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    try:
        address = address_of(process)
        links = asked(f"{address}/api/claims", CLAIM)
        asked(links["sendEventPostUri"].replace("{eventName}", "ApproverDecision"), {"approved": True})
        status = asked(f"{links['statusQueryGetUri']}&wait=60")
    finally:
        kill_with_its_children(process)
        process.stderr.close()
    assert (status["runtimeStatus"], status["output"]["status"]) == ("Completed", "completed")


def asked(url, body=None):
    """The JSON of a response; None for an empty one."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=120) as answer:
        found = answer.read()
    return json.loads(found) if found else None
