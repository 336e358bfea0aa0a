"""Programs in Azure's spelling, unchanged, on perdure."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

import perdure as df
from perdure.testing import DurableEnvironment, environment
from tests.azure import official
from tests.azure.programs import register


@pytest.fixture
async def env() -> AsyncIterator[DurableEnvironment]:
    app = df.App("azures")
    register(df, app)
    async with environment(app) as running:
        yield running


def test_the_official_package_takes_the_same_source():
    theirs = official.package()
    app = theirs.DFApp()
    register(theirs, app)
    ours = df.App("azures")
    register(df, ours)

    known = {*ours.registry.activities, *ours.registry.orchestrators, *ours.registry.entities}
    registered = {_name(function) for function in app.get_functions()}
    assert registered == {name for name in known if "::" not in name}


def _name(function: Any) -> str:
    trigger = function.get_trigger().get_dict_repr()
    given = trigger.get("orchestration") or trigger.get("activity") or trigger.get("entityName")
    return str(given or function.get_function_name()).replace("Counter", "counter")


@pytest.mark.parametrize(
    ("name", "input_", "output"),
    [
        ("chaining", None, 5),
        ("backup", "/home", 24),
        ("monitor", {"id": "j", "expires": 3600, "interval": 60}, "done after 3"),
        ("monitor", {"id": "j", "expires": 90, "interval": 60}, "gave up after 2"),
        ("cleanup", None, 3),
        ("transfer", None, "compensated, waited 10"),
        ("counting", None, [3, 7]),
        ("provision", ["x", "yy"], [["x", 1, "main"], ["yy", 2, "main"]]),
    ],
)
async def test_a_pattern_gives_what_it_gives_there(env, name, input_, output):
    assert (await env.run(name, input_, "main")).output == output


async def test_fan_in_shows_its_custom_status(env):
    assert (await env.run("backup", "/home")).custom_status == {"files": 3, "bytes": 24}


@pytest.mark.parametrize(
    ("answers", "authorized"), [(["1", "4711"], True), (["1", "2", "3"], False), (["1"], False), ([], False)]
)
async def test_a_human_answers_in_time_or_not(env, answers, authorized):
    instance = await env.client.start_new("verification", None, "+49 30 123")
    await env.settled()
    for answer in answers:
        await env.client.raise_event(instance, "SmsChallengeResponse", answer)
        await env.advance(seconds=1)
    await env.advance(seconds=100)

    assert (await env.client.get_status(instance)).output is authorized


async def test_an_orchestrator_that_raises_fails(env):
    status = await env.run("verification", "")

    assert status.runtime_status is df.OrchestrationRuntimeStatus.Failed
    assert "A phone number input is required." in status.output


async def test_a_sub_orchestration_has_the_id_it_was_given(env):
    await env.run("provision", ["x", "yy"], "main")

    assert [(await env.client.get_status(f"main-{n}")).output for n in range(2)] == [
        ["x", 1, "main"],
        ["yy", 2, "main"],
    ]


async def test_a_client_reads_and_signals_an_entity(env):
    entity = df.EntityId("Counter", "my-counter")
    absent = await env.client.read_entity_state(entity)
    await env.client.signal_entity(entity, "add", 5)
    await env.settled()
    present = await env.client.read_entity_state(entity)

    assert (absent.entity_exists, absent.entity_state) == (False, None)
    assert (present.entity_exists, present.entity_state) == (True, 5)


async def test_the_context_says_what_azures_does(env):
    instance = await env.client.start_new("facts", "the-id", {"a": 1})
    await env.settled()
    await env.client.raise_event(instance, event_name="b", event_data={"x": 1})
    await env.advance(timedelta(seconds=1))
    status = await env.client.get_status(instance)

    assert status.output == {
        "instance": "the-id",
        "parent": None,
        "input": {"a": 1},
        "version": "",
        "status": "seen",
        "replaying": False,
        "continues": False,
        "now": True,
        "first": '{"x": 1}',
        "ids": 3,
        "nothing": True,
    }


async def test_the_singleton_pattern_starts_one(env):
    """As the official sample has it, but for a status that is None where there is no instance."""
    client = env.client
    finished = [
        df.OrchestrationRuntimeStatus.Completed,
        df.OrchestrationRuntimeStatus.Failed,
        df.OrchestrationRuntimeStatus.Terminated,
        None,
    ]
    started = []
    for _ in range(2):
        existing = await client.get_status("single")
        if not existing or existing.runtime_status in finished:
            started.append(await client.start_new("cleanup", "single", 0))
            await env.settled()

    assert started == ["single"]
