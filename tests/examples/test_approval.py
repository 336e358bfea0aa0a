"""The newcomer's first file: it runs as the README says, and the README shows it as it is."""

from pathlib import Path

import httpx2
import pytest

from examples.approval import Decision, Expense, app, approval, ask_for_approval
from perdure import EventRefused
from perdure.http.host import application

ROOT = Path(__file__).parents[2]
KEYBOARD = Expense("Ada", "a keyboard", 120.0)


@pytest.mark.parametrize(("approved", "outcome"), [(True, "approved"), (False, "denied")])
async def test_an_expense_ends_as_it_is_decided(perdure_environment, approved, outcome):
    env = await perdure_environment(app)
    instance_id = await env.client.start_new(approval, None, KEYBOARD)
    await env.advance(hours=71)
    await env.client.raise_event(instance_id, "Decision", Decision(approved))
    status = await env.client.wait_for_completion(instance_id)
    assert status.output == outcome
    assert [call.instance_id for call in env.calls(ask_for_approval)] == [instance_id]


async def test_an_expense_that_nobody_decides_expires_after_72_hours(perdure_environment):
    env = await perdure_environment(app)
    began = env.now
    status = await env.run(approval, KEYBOARD)
    assert status.output == "expired"
    assert (env.now - began).total_seconds() == 72 * 3600


async def test_a_decision_of_another_shape_is_refused_at_the_door(perdure_environment):
    env = await perdure_environment(app)
    instance_id = await env.client.start_new(approval, None, KEYBOARD)
    with pytest.raises(EventRefused):
        await env.client.raise_event(instance_id, "Decision", {"approve": "yes"})
    with pytest.raises(EventRefused):
        await env.client.raise_event(instance_id, "Approval", Decision(True))


async def test_it_starts_by_http_and_answers_with_what_leads_on(perdure_environment):
    env = await perdure_environment(app)
    transport = httpx2.ASGITransport(app=application(env.client))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost:7071") as http:
        answer = await http.post("/api/approvals", json={"who": "Ada", "what": "a keyboard", "amount": 120})
        assert answer.status_code == 202
        uri = answer.json()["sendEventPostUri"].replace("{eventName}", "Decision")
        assert (await http.post(uri, json={"approved": True})).status_code == 202
        status = await env.client.wait_for_completion(answer.json()["id"])
    assert status.output == "approved"


def test_the_readme_shows_the_file_as_it_is():
    file = (ROOT / "examples" / "approval.py").read_text()
    blocks = (ROOT / "README.md").read_text().split('```python title="examples/approval.py"\n')[1:]
    assert [block.split("```")[0] for block in blocks] == [file]
