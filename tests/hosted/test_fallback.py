"""The JSON protocol: for an SDK whose inside is not as expected, and for handles that hide their generator."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure.errors import OrchestratorError
from perdure.hosts.azure_functions import protocol, sdk, self_check
from perdure.hosts.azure_functions.application import load
from perdure.model.instances import RuntimeStatus
from perdure.testing import environment
from tests.hosted.programs import APPS, COMPLETED, Program
from tests.hosted.test_traps import run

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
ITS_OWN_WAY = frozenset({"failed_inner", "lists_and_none", "custom_input", "cancelled_timers"})
"""Where the SDK's executor does otherwise than the warm way: its own faults, and what its protocol cannot carry."""


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


def test_an_sdk_that_is_not_as_expected_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdk, "is_scheduled", lambda task: False)
    assert self_check.finding()
    monkeypatch.undo()
    monkeypatch.delattr(sdk.TaskBase, "set_value")
    assert "set_value" in self_check.finding()


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
    assert hosted.told[0].startswith("counts hides the generator")
    async with environment(hosted.app) as env:
        assert (await env.run("counts", 5)).output == 5
        failed = await env.run("counts", 50)
        assert failed.failure is not None and failed.failure.is_a(OrchestratorError)
