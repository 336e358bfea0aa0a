"""The first programming model: folders with a function.json."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2
import pytest

from perdure.errors import HostedAppError
from perdure.hosts.azure_functions.application import load
from perdure.testing import environment
from tests.hosted.programs import APPS

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


async def test_an_app_of_folders_runs_with_its_relative_imports_and_the_client_from_its_text() -> None:
    host = load(APPS / "folders").app.asgi(store="memory:", access="open")
    async with host.lifespan():
        transport = httpx2.ASGITransport(app=host)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
            answer = await http.post("/api/orchestrators/orchestrator", json=["Tokyo", "Lima"])
    assert answer.json() == [["Hello Tokyo!", "Hello Lima!"], 2]


async def test_an_entry_point_that_is_no_handle_gets_perdures_own_context() -> None:
    async with environment(load(APPS / "folders").app) as env:
        assert (await env.run("Plain")).output == ["Hello plain!", "perdure"]


async def test_functions_of_several_folders_are_all_called_main(tmp_path: Path) -> None:
    (tmp_path / "host.json").write_text("{}")
    handle = "main = df.Orchestrator.create(run)"
    written = {
        "Double": ("activityTrigger", "def main(x): return 2 * x"),
        "Square": ("activityTrigger", "def main(x): return x * x"),
        "Both": (
            "orchestrationTrigger",
            "import azure.durable_functions as df\n"
            "def run(context):\n"
            "    doubled = yield context.call_activity('Double', 3)\n"
            f"    return (yield context.call_activity('Square', doubled))\n{handle}",
        ),
        "Outer": (
            "orchestrationTrigger",
            "import azure.durable_functions as df\n"
            f"def run(context):\n    return (yield context.call_sub_orchestrator('Both'))\n{handle}",
        ),
    }
    for name, (kind, code) in written.items():
        (tmp_path / name).mkdir()
        binding = {"name": "context" if kind.startswith("o") else "x", "type": kind, "direction": "in"}
        (tmp_path / name / "function.json").write_text(json.dumps({"bindings": [binding]}))
        (tmp_path / name / "__init__.py").write_text(code)
    async with environment(load(tmp_path).app) as env:
        assert (await env.run("Outer")).output == 36


def test_every_fault_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "host.json").write_text("{}")
    written = {
        "One": "{",
        "Two": '{"bindings": []}',
        "Three": '{"bindings": [{"type": "activityTrigger", "name": "a"}, {"type": "httpTrigger", "name": "b"}]}',
        "Four": '{"scriptFile": "x.py", "bindings": [{"type": "activityTrigger", "name": "a"}]}',
        "Five": '{"entryPoint": "go", "bindings": [{"type": "activityTrigger", "name": "a"}]}',
        "Six": '{"bindings": [{"type": "activityTrigger", "name": "a"}, {"type": "cosmosDB", "name": "c"}]}',
    }
    for name, document in written.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "function.json").write_text(document)
        (tmp_path / name / "__init__.py").write_text("def main(a, c=None): ...")
    with pytest.raises(HostedAppError) as caught:
        load(tmp_path)
    assert len(caught.value.faults) == 6, caught.value.faults
    text = str(caught.value)
    for part in (
        "One/function.json cannot be read as JSON",
        "Two/function.json: it has no triggers",
        "Three/function.json: it has 2 triggers",
        "x.py does not exist",
        "it has no function 'go', the entry point of Five",
        "Six: cosmosDB 'c' is not hosted here",
    ):
        assert part in text
