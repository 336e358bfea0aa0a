"""Code that does not match its history: parked by default, failed as on Azure where host.json asks for it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from perdure.app import App
from perdure.errors import InstanceFinished
from perdure.hosts.azure_functions.application import load
from perdure.model.instances import RuntimeStatus
from perdure.testing import environment
from tests.hosted.test_loading import folder_of

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
CODE = """
@app.activity_trigger(input_name="x")
def first(x): return x
@app.activity_trigger(input_name="x")
def second(x): return x
@app.orchestration_trigger(context_name="context")
def waits(context):
    yield context.call_activity("first")
    return (yield context.wait_for_external_event("Go"))
@app.orchestration_trigger(context_name="context")
def parent(context):
    try:
        yield context.call_sub_orchestrator("waits", None, "child")
    except Exception as error:
        return str(error)
"""
CHANGED = CODE.replace('call_activity("first")', 'call_activity("second")')


def app_of(place: Path, code: str, on_nondeterminism: str | None) -> App:
    host = {"extensions": {"durableTask": {"onNondeterminism": on_nondeterminism}}}
    sys.modules.pop("function_app", None)
    return load(folder_of(place, code, json.dumps(host))).app


@pytest.mark.parametrize("store", ["memory:", "sqlite"])
@pytest.mark.parametrize("name", ["waits", "parent"])
async def test_it_fails_in_azures_words_and_a_rewind_with_the_right_code_goes_on(
    tmp_path: Path, store: str, name: str
) -> None:
    url = store if store == "memory:" else f"sqlite:///{tmp_path}/hub.db"
    async with environment(app_of(tmp_path, CODE, "fail"), store=url) as env:
        await env.client.start_new(name, "child" if name == "waits" else "family")
        await env.settled()
        await env.restart(app_of(tmp_path, CHANGED, "Fail"))
        await env.client.raise_event("child", "Go", "an event that makes it replay")
        status = await env.client.wait_for_completion("child")
        words = "Orchestrator function 'waits' failed: Non-Deterministic workflow detected: "
        assert status.runtime_status is RuntimeStatus.Failed and status.output.startswith(words)
        assert "call the activity 'first'" in status.output
        with pytest.raises(InstanceFinished):
            await env.client.raise_event("child", "Go", "an event that comes too late")
        if name == "parent":
            assert (await env.client.wait_for_completion("family")).output.startswith(words)
            return
        await env.restart(app_of(tmp_path, CODE, "fail"))
        await env.client.rewind("child")
        await env.client.raise_event("child", "Go", "an event in time")
        assert "an event in time" in (await env.client.wait_for_completion("child")).output


@pytest.mark.parametrize("said", [None, "park"])
async def test_by_default_it_is_parked(tmp_path: Path, said: str | None) -> None:
    async with environment(app_of(tmp_path, CODE, said)) as env:
        await env.client.start_new("waits", "child")
        await env.settled()
        await env.restart(app_of(tmp_path, CHANGED, said))
        await env.client.raise_event("child", "Go", 1)
        status: Any = await env.client.get_status("child")
        assert status.runtime_status is RuntimeStatus.Suspended and status.is_parked
