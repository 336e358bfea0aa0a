"""A claims office for the tests: every input, output, event and custom status contains MARKER."""

import logging

import perdure as df

MARKER = "for-your-eyes-only"
app = df.App("office")
log = logging.getLogger("office")
log.setLevel(logging.INFO)


@app.activity
async def assess(claim: dict) -> dict:
    log.info("assessing")
    if claim["number"] == 7:
        raise ValueError(f"not covered: {claim}")
    return {"score": 0.1, "note": MARKER}


@app.activity
def notify(letter: str) -> str:
    return letter


@app.orchestrator
async def payment(context: df.OrchestrationContext, order: dict) -> str:
    await context.create_timer(0.01)
    return await context.call_activity(notify, f"paid, {MARKER}")


@app.orchestrator
async def claim(context: df.OrchestrationContext, filed: dict) -> str:
    context.logger.info("filed")
    context.set_custom_status(MARKER)
    await context.call_activity(assess, filed, retry=df.RetryPolicy(max_attempts=2, first_interval=0.01))
    if filed["number"] == 20:
        await context.wait_for_external_event("Approval")
    await context.call_sub_orchestrator(payment, {"to": MARKER}, f"{context.instance_id}-payment")
    return await context.call_entity(df.EntityId("ledger", "main"), "add", MARKER)


@app.entity
def ledger(context: df.EntityContext) -> None:
    log.info("booked")
    context.set_state([*context.get_state(list), MARKER][-3:])
    context.set_result(MARKER)
