"""An expense waits up to 72 hours for an approval. HTTP starts it, an event decides it."""

from dataclasses import dataclass
from datetime import timedelta

from starlette.requests import Request

import perdure as df

app = df.App("approval")


@dataclass
class Expense:
    who: str
    what: str
    amount: float


@dataclass
class Decision:
    approved: bool


@app.activity
def ask_for_approval(expense: Expense, context: df.ActivityContext) -> None:
    print(f"{expense.who} asks for {expense.amount:.2f}: {expense.what}. Decide on {context.instance_id}")


@app.orchestrator(events={"Decision": Decision})
async def approval(context: df.OrchestrationContext, expense: Expense) -> str:
    await context.call_activity(ask_for_approval, expense)
    try:
        decision = await context.wait_for_external_event("Decision", Decision, timeout=timedelta(hours=72))
    except TimeoutError:
        return "expired"
    return "approved" if decision.approved else "denied"


@app.route("/approvals", methods=["POST"], auth="anonymous")
async def request_approval(request: Request, expense: Expense, client: df.Client) -> object:
    instance_id = await client.start_new(approval, None, expense)
    return client.create_check_status_response(request, instance_id)
