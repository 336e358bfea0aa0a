"""What the migration guide says differs does: each program on the official package and on perdure."""

from datetime import timedelta
from types import ModuleType
from typing import Any

import pytest

import perdure as df
from perdure.testing import START, environment
from tests.azure import host, official


def register(package: ModuleType, app: Any, ran: list[str]) -> None:
    @app.activity_trigger(input_name="what")
    def note(what: str) -> str:
        ran.append(what)
        return what

    @app.orchestration_trigger(context_name="context")
    def unawaited(context: package.DurableOrchestrationContext):
        context.call_activity("note", "not yielded")
        yield context.call_activity("note", "yielded")
        return "done"

    @app.orchestration_trigger(context_name="context")
    def two_waits(context: package.DurableOrchestrationContext):
        first = context.wait_for_external_event("Answer")
        second = context.wait_for_external_event("Answer")
        return (yield context.task_all([first, second]))

    @app.orchestration_trigger(context_name="context")
    def failing(context: package.DurableOrchestrationContext):
        task = context.call_sub_orchestrator("missing-input", None)
        try:
            yield task
        except Exception as error:
            return type(error).__name__

    @app.orchestration_trigger(context_name="context", orchestration="missing-input")
    def missing_input(context: package.DurableOrchestrationContext):
        yield context.call_activity("note", "child")
        raise ValueError("no input")

    @app.orchestration_trigger(context_name="context")
    def none_at_all(context: package.DurableOrchestrationContext):
        everything = yield context.task_all([])
        return repr(everything)


ANSWERS = [(1.0, "Answer", 1), (2.0, "Answer", 2)]


@pytest.mark.parametrize(
    ("name", "events", "theirs", "ours"),
    [
        ("unawaited", [], "done", "done"),
        ("two_waits", ANSWERS, [2, 1], [1, 2]),
        ("failing", [], "Exception", "TaskFailedError"),
        ("none_at_all", [], "None", "[]"),
    ],
)
async def test_results_differ_as_the_guide_says(name, events, theirs, ours):
    there: list[str] = []
    here: list[str] = []
    package = official.package()
    their_app, our_app = package.DFApp(), df.App("differences")
    register(package, their_app, there)
    register(df, our_app, here)

    async with environment(our_app) as env:
        await env.client.start_new(name, "main")
        for after, event, data in events:
            await env.advance(to=START + timedelta(seconds=after))
            await env.client.raise_event("main", event, data)
        assert (await env.client.wait_for_completion("main")).output == ours

    assert host.run(their_app, START, name, None, events) == theirs
    if name == "unawaited":
        assert there == ["yielded"]
        assert sorted(here) == ["not yielded", "yielded"]
