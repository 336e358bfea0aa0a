"""What is counted and sent around a claim: an entity, a timer and queues, in a blueprint."""

import json
import logging

import azure.durable_functions as df
import azure.functions as func

bp = df.Blueprint()
TOTALS = df.EntityId("Totals", "all")


@bp.entity_trigger(context_name="context", entity_name="Totals")
def totals(context: df.DurableEntityContext) -> None:
    """How many claims came to each end, and what was paid."""
    state = context.get_state(lambda: {"paid": 0, "endings": {}})
    if context.operation_name == "close":
        closed = context.get_input()
        state["endings"][closed["status"]] = state["endings"].get(closed["status"], 0) + 1
        state["paid"] += closed.get("amount", 0)
        context.set_state(state)
    context.set_result(state)


@bp.timer_trigger(arg_name="timer", schedule="%CLAIMS_REPORT%", use_monitor=True)
@bp.queue_output(arg_name="letters", queue_name="letters", connection="AzureWebJobsStorage")
@bp.durable_client_input(client_name="client")
async def daily_report(
    timer: func.TimerRequest, letters: func.Out[str], client: df.DurableOrchestrationClient
) -> None:
    """Every morning a letter to the head of the department."""
    found = await client.read_entity_state(TOTALS)
    letters.set(
        json.dumps(
            {"to": "head", "text": f"so far: {found.entity_state if found.entity_exists else 'nothing'}"}
        )
    )


@bp.queue_trigger(arg_name="message", queue_name="claims", connection="AzureWebJobsStorage")
@bp.durable_client_input(client_name="client")
async def claim_by_queue(message: func.QueueMessage, client: df.DurableOrchestrationClient) -> None:
    """A claim that a partner puts into a queue. The same claim twice is one claim."""
    claim = message.get_json()
    status = await client.get_status(claim["claim_id"])
    if status.runtime_status is None:
        await client.start_new("claims_orchestrator", claim["claim_id"], claim)


@bp.queue_trigger(arg_name="message", queue_name="letters", connection="AzureWebJobsStorage")
def send_letter(message: func.QueueMessage) -> None:
    """The outbox: here it is the log."""
    letter = message.get_json()
    logging.info("to %s: %s", letter["to"], letter["text"])
