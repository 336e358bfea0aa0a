"""Patches: one function holds the code of before and of after a change."""

import pytest

from perdure import OrchestrationContext
from perdure.engine.upkeep.verification import verify
from perdure.testing import HistoryBuilder, check_history, environment, replay
from tests.core.styles import both
from tests.engine.programs import app_with


def assess() -> str:
    return "assessed"


def screen() -> str:
    return "screened"


def before_yield(context: OrchestrationContext):
    yield context.wait_for_external_event("Start")
    yield context.call_activity("assess")
    return (yield context.wait_for_external_event("Go"))


async def before_async(context: OrchestrationContext):
    await context.wait_for_external_event("Start")
    await context.call_activity("assess")
    return await context.wait_for_external_event("Go")


def after_yield(context: OrchestrationContext):
    yield context.wait_for_external_event("Start")
    checked = ""
    if context.patched("screening"):
        checked = yield context.call_activity("screen")
    yield context.call_activity("assess")
    told = yield context.wait_for_external_event("Go")
    return [told, checked, context.patched("screening")]


async def after_async(context: OrchestrationContext):
    await context.wait_for_external_event("Start")
    checked = ""
    if context.patched("screening"):
        checked = await context.call_activity("screen")
    await context.call_activity("assess")
    told = await context.wait_for_external_event("Go")
    return [told, checked, context.patched("screening")]


def later_yield(context: OrchestrationContext):
    yield context.wait_for_external_event("Start")
    context.deprecate_patch("screening")
    yield context.call_activity("screen")
    yield context.call_activity("assess")
    return (yield context.wait_for_external_event("Go"))


async def later_async(context: OrchestrationContext):
    await context.wait_for_external_event("Start")
    context.deprecate_patch("screening")
    await context.call_activity("screen")
    await context.call_activity("assess")
    return await context.wait_for_external_event("Go")


CHANGE = pytest.mark.parametrize(
    ("before", "after", "later"),
    [
        pytest.param(before_yield, after_yield, later_yield, id="yield"),
        pytest.param(before_async, after_async, later_async, id="async"),
    ],
)


@CHANGE
@pytest.mark.parametrize("store", ["memory:", "sqlite"])
async def test_old_instances_keep_the_old_code_and_those_not_there_yet_take_the_new(
    before, after, later, store, tmp_path
):
    url = store if store == "memory:" else f"sqlite:///{tmp_path}/hub.db"
    async with environment(app_with(before, assess, screen), store=url) as env:
        ids = [await env.client.start_new("main") for _ in range(2)]
        await env.client.raise_event(ids[0], "Start")
        await env.settled()
        await env.restart(app_with(after, assess, screen))
        ids.append(await env.client.start_new("main"))
        for instance in ids[1:]:
            await env.client.raise_event(instance, "Start")
        await env.settled()
        await env.restart(app_with(after, assess, screen))
        for instance in ids:
            await env.client.raise_event(instance, "Go", "told")
        outputs = [(await env.client.wait_for_completion(i)).output for i in ids]

    assert outputs == [["told", "", False], ["told", "screened", True], ["told", "screened", True]]


@CHANGE
async def test_the_marker_is_an_event_of_history_without_an_id(before, after, later):
    async with environment(app_with(after, assess, screen)) as env:
        instance = await env.client.start_new("main")
        await env.client.raise_event(instance, "Start")
        await env.settled()
        history = (await env.client.get_status(instance, True, True, True)).history

        assert [(e["name"], e.get("id")) for e in history if e["type"] == "PatchMarked"] == [
            ("screening", None)
        ]
        assert check_history(after, history) is None
        assert check_history(later, history) is None
        assert check_history(before, history) is not None
        await env.client.raise_event(instance, "Go", "told")
        await env.client.wait_for_completion(instance)

        assert verify(env.store).ok


@CHANGE
async def test_a_deprecated_patch_marks_new_instances_so_that_the_asking_code_may_come_back(
    before, after, later
):
    async with environment(app_with(later, assess, screen)) as env:
        instance = await env.client.start_new("main")
        await env.client.raise_event(instance, "Start")
        await env.settled()
        await env.restart(app_with(after, assess, screen))
        await env.client.raise_event(instance, "Go", "told")

        assert (await env.client.wait_for_completion(instance)).output == ["told", "screened", True]


def loop_yield(context: OrchestrationContext):
    answers = []
    for _ in range(3):
        yield context.wait_for_external_event("Next")
        answers.append(context.patched("in-the-loop"))
    return answers


async def loop_async(context: OrchestrationContext):
    answers = []
    for _ in range(3):
        await context.wait_for_external_event("Next")
        answers.append(context.patched("in-the-loop"))
    return answers


@both(loop_yield, loop_async)
def test_the_answer_is_the_same_for_the_whole_execution(orchestrator):
    unmarked = HistoryBuilder().started().awaited("Next").raised("Next").awaited("Next").raised("Next")
    assert replay(orchestrator, unmarked.awaited("Next").raised("Next")).output == [False] * 3

    marked = HistoryBuilder().started().awaited("Next").raised("Next").patched("in-the-loop").awaited("Next")
    assert replay(orchestrator, marked.raised("Next").awaited("Next").raised("Next")).output == [True] * 3
