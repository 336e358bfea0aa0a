"""The JSON protocol: for an SDK whose inside is not as expected, and for handles that hide their generator."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from perdure.app import App
from perdure.errors import OrchestratorError
from perdure.hosts.azure_functions import protocol, sdk, self_check
from perdure.hosts.azure_functions.application import load
from perdure.hosts.azure_functions.histories import reads_histories
from perdure.model.instances import RuntimeStatus
from perdure.testing import environment
from tests.hosted.programs import APPS, COMPLETED, Program
from tests.hosted.test_traps import run

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
ITS_OWN_WAY = frozenset({"lists_and_none"})
"""Where the SDK's executor does otherwise than the warm way, which the tests below show."""


def test_the_installed_sdk_is_as_expected() -> None:
    assert self_check.finding() == ""


@pytest.mark.parametrize(
    "program", [one for one in COMPLETED if one.name not in ITS_OWN_WAY], ids=lambda one: one.name
)
async def test_a_program_returns_the_same_by_the_protocol(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_check, "finding", lambda: "it is from the future")
    hosted = load(APPS / "traps")
    assert "is not as expected (it is from the future)" in hosted.told[0]
    async with environment(hosted.app) as env:
        status = await run(env, program)

    assert (status.runtime_status, status.output) == (RuntimeStatus.Completed, program.output), status.failure


ODD = """
import azure.durable_functions as df
app = df.DFApp()
@app.activity_trigger(input_name="n")
def fail(n): raise ValueError(n)
@app.entity_trigger(context_name="context")
def counter(context): context.set_state(1)
@app.orchestration_trigger(context_name="context")
def yields_a_list(context):
    yield [context.call_activity("fail", 1)]
@app.orchestration_trigger(context_name="context")
def yields_none(context):
    yield None
@app.orchestration_trigger(context_name="context")
def yields_none_beside_a_wait(context):
    yield context.task_any([context.wait_for_external_event("Go"), context.wait_for_external_event("Stop")])
    yield None
@app.orchestration_trigger(context_name="context")
def yields_a_signal(context):
    yield context.signal_entity(df.EntityId("counter", "one"), "add", 1)
@app.orchestration_trigger(context_name="context")
def plain(context):
    return None.is_open
@app.orchestration_trigger(context_name="context")
def waits_for_one_child_too_many(context):
    event = context.wait_for_external_event("Go")
    inner = context.task_all([context.call_activity("fail", 1), event])
    yield context.task_any([inner, context.wait_for_external_event("Stop")])
    yield event
@app.orchestration_trigger(context_name="context")
def waits_for_what_it_has_cancelled(context):
    timer = context.create_timer(context.current_utc_datetime.replace(year=2100))
    timer.cancel()
    yield timer
"""
TOLD = {
    "yields_a_list": "the orchestrator yields a list, and only tasks: wait for several tasks with",
    "yields_none": "the orchestrator waits for nothing that can come: it yields None, or a signal",
    "yields_none_beside_a_wait": "the orchestrator yields a NoneType, and only tasks",
    "yields_a_signal": "the orchestrator waits for nothing that can come: it yields None, or a signal",
    "plain": "'NoneType' object has no attribute 'is_open'",
    "waits_for_one_child_too_many": "does not have pending sub-task",
}


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> App:
    monkeypatch.setattr(self_check, "finding", lambda: "it is from the future")
    (tmp_path / "host.json").write_text("{}")
    (tmp_path / "function_app.py").write_text(ODD)
    return load(tmp_path).app


@pytest.mark.parametrize("name", TOLD)
async def test_what_no_program_can_wait_for_is_an_error_in_words(odd: App, name: str) -> None:
    async with environment(odd) as env:
        await env.client.start_new(name, "one")
        for event in ("Go", "Stop"):
            await env.settled()
            if not (await env.client.get_status("one")).is_finished:
                await env.client.raise_event("one", event, 1)
        status = await env.client.wait_for_completion("one")
    assert status.runtime_status is RuntimeStatus.Failed and TOLD[name] in str(status.failure)


async def test_a_program_may_wait_for_ever_for_a_timer_that_it_has_cancelled(odd: App) -> None:
    async with environment(odd) as env:
        await env.client.start_new("waits_for_what_it_has_cancelled", "one")
        await env.advance(days=400)
        assert (await env.client.get_status("one")).runtime_status is RuntimeStatus.Running
        await env.client.terminate("one", "it never ends")
        assert (await env.client.wait_for_completion("one")).output == "it never ends"


def test_an_sdk_that_is_not_as_expected_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdk, "is_scheduled", lambda task: True)
    assert self_check.finding()
    monkeypatch.undo()
    with monkeypatch.context() as changed:
        changed.delattr(sdk.TaskBase, "set_value")
        found = self_check.finding()
        assert "set_value" in found and "File " not in found, "one line, without the stack"
    create = sdk.Orchestrator.create
    monkeypatch.setattr(sdk.Orchestrator, "create", lambda program: _hidden(create(program)))
    assert self_check.finding() == "its handles hide the generator function"


def _hidden(handle: Any) -> Any:
    del handle.orchestrator_function
    return handle


HIDDEN = """
import azure.durable_functions as df
import azure.functions as func
app = df.DFApp()
@app.activity_trigger(input_name="n")
def one(n): return n + 1
@app.orchestration_trigger(context_name="context")
def counts(context):
    total = 0
    for _ in range(context.get_input()):
        total = yield context.call_activity("one", total)
    return total
del counts._function._func.orchestrator_function
"""


async def test_a_handle_that_hides_its_generator_runs_up_to_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "MOST_EVENTS", 20)
    (tmp_path / "host.json").write_text("{}")
    (tmp_path / "function_app.py").write_text(HIDDEN)
    hosted = load(tmp_path)
    assert hosted.told[0].startswith("counts: the handle hides the generator")
    async with environment(hosted.app) as env:
        assert (await env.run("counts", 5)).output == 5
        failed = await env.run("counts", 50)
        assert failed.failure is not None and failed.failure.is_a(OrchestratorError)


BEGUN_AGAIN = """
import functools
import azure.durable_functions as df
import azure.functions as func
from azure.durable_functions.models.history.HistoryEventType import HistoryEventType as Kind
app = df.DFApp()
class NotYet(BaseException): pass
class Results:
    def __init__(self, context):
        self.context, self.asked = context, []
    @property
    def arrived(self):
        return [one.Result for one in self.context.histories if one.event_type == Kind.TASK_COMPLETED]
    def of(self, name, given):
        self.asked.append(self.context.call_activity_with_retry(name, df.RetryOptions(1000, 3), given))
        if len(self.arrived) < len(self.asked):
            raise NotYet
        return int(self.arrived[len(self.asked) - 1])
def looked_up(function):
    @functools.wraps(function)
    def generator(context):
        results = Results(context)
        try:
            found = function(results, context.get_input())
        except NotYet:
            found = None
        for task in results.asked:
            yield task
        return found
    return generator
@app.activity_trigger(input_name="n")
def one(n): return n + 1
@app.orchestration_trigger(context_name="context")
@looked_up
def counts(results, most):
    total = 0
    while total < most:
        total = results.of("one", total)
    return total
@app.orchestration_trigger(context_name="context")
def plain(context):
    histories = yield context.call_activity("one", 1)
    return histories
"""


async def test_a_program_that_begins_again_at_each_turn_reads_the_history(tmp_path: Path) -> None:
    (tmp_path / "host.json").write_text("{}")
    (tmp_path / "function_app.py").write_text(BEGUN_AGAIN)
    hosted = load(tmp_path)
    assert len(hosted.told) == 1
    assert hosted.told[0].startswith("counts: the code reads context.histories: the server drives it by")
    async with environment(hosted.app) as env:
        assert (await env.run("counts", 4)).output == 4
        assert (await env.run("plain")).output == 2


def _helper(context: Any) -> int:
    return len(context.histories)


class _Reader:
    @staticmethod
    def read(context: Any) -> Any:
        return context.histories


histories = ("a global of this name is another thing",)


def _direct(context: Any) -> Any:
    return context.histories


def _nested(context: Any) -> Any:
    return lambda: context.histories


def _by_a_helper(context: Any) -> Any:
    return _helper(context)


def _by_a_class(context: Any) -> Any:
    return _Reader().read(context)


@functools.wraps(_direct)
def _wrapping(context: Any) -> Any:
    return None


def _closing_over() -> Any:
    read = _direct
    return lambda context: read(context)


def _global_name(context: Any) -> Any:
    return histories, _calls_itself


def _calls_itself(context: Any) -> Any:
    return _calls_itself(context)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (_direct, True),
        (_nested, True),
        (_by_a_helper, True),
        (_by_a_class, True),
        (_wrapping, True),
        (_closing_over(), True),
        (_global_name, False),
        (len, False),
    ],
)
def test_code_that_reads_the_history_is_found(function: Any, expected: bool) -> None:
    assert reads_histories(function) is expected
