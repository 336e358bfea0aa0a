"""The service that the Restate server calls; granian serves `app`."""

from __future__ import annotations

from datetime import timedelta

import restate
from restate import Context, Service, Workflow, WorkflowContext, WorkflowSharedContext

bench = Service("bench")
idle = Workflow("idle")


async def echo(value):  # type: ignore[no-untyped-def]
    return value


@bench.handler()
async def hello(context: Context, key: str) -> list:  # type: ignore[type-arg]
    return [
        await context.run_typed("a", echo, value=f"a{key}"),
        await context.run_typed("b", echo, value=f"b{key}"),
        await context.run_typed("c", echo, value=f"c{key}"),
    ]


@bench.handler()
async def fan(context: Context, count: int) -> int:
    return len(await restate.gather(*[context.run_typed(f"s{no}", echo, value=no) for no in range(count)]))


@bench.handler()
async def sequence(context: Context, count: int) -> int:
    seen = 0
    for no in range(count):
        await context.run_typed(f"s{no}", echo, value=no)
        seen += 1
    return seen


@idle.main()
async def run(context: WorkflowContext, key: str) -> str:
    came = await restate.select(go=context.promise("go").value(), late=context.sleep(timedelta(hours=72)))
    return f"{key} {came[1]}"


@idle.handler()
async def signal(context: WorkflowSharedContext, decision: str) -> None:
    await context.promise("go").resolve(decision)


app = restate.app([bench, idle])
