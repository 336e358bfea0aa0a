"""The functions of the workload: a little of everything that writes something of its own to the store."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import perdure as df

app = df.App("powercuts")


@app.activity
def make(size: int) -> str:
    """A result of this size."""
    return "b" * size


@app.activity
def fail(why: str) -> None:
    raise ValueError(why)


@app.orchestrator
def errand(context: df.OrchestrationContext, task: dict[str, Any]) -> Generator[Any, Any, list[int]]:
    """Activities one after another, with pauses, a status and failures that are caught."""
    done: list[int] = []
    for step in range(task["steps"]):
        body = yield context.call_activity(make, task["size"])
        done.append(len(body))
        context.set_custom_status({"step": step})
        if task["pause"]:
            yield context.create_timer(task["pause"])
    if task.get("fails"):
        try:
            yield context.call_activity(fail, "as asked")
        except df.TaskFailedError:
            done.append(-1)
    return done


@app.orchestrator
async def family(context: df.OrchestrationContext, task: dict[str, Any]) -> list[int]:
    """Children side by side, and activities beside them."""
    children = [context.call_sub_orchestrator(errand, task) for _ in range(task["children"])]
    size = await context.call_activity(make, task["size"])
    results = await context.task_all(children)
    return [len(size), *(one for child in results for one in child)]


@app.orchestrator
def collector(context: df.OrchestrationContext, state: dict[str, Any]) -> Generator[Any, Any, list[str]]:
    """Takes events and remembers them, through several generations, until none has come for a while."""
    tokens: list[str] = state["tokens"]
    for _ in range(state["each"]):
        try:
            item = yield context.wait_for_external_event("Item", timeout=state["patience"])
        except TimeoutError:
            return tokens
        tokens = [*tokens, item["token"]]
        context.set_custom_status({"taken": len(tokens)})
        if state["works"]:
            yield context.call_activity(make, 10)
    context.continue_as_new({**state, "tokens": tokens})
    return tokens
