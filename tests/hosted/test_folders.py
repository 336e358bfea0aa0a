"""The first programming model: folders with a function.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import httpx2
import pytest

import perdure as df
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


CLIENT = '{"name": "starter", "type": "durableClient", "direction": "in"}'
PLAIN = {
    "Ask": ("ask", '{"name": "context", "type": "orchestrationTrigger"}'),
    "Told": ("told", '{"name": "call", "type": "activityTrigger"}'),
    "Starts": ("starts", '{"name": "name", "type": "activityTrigger"}, ' + CLIENT),
    "ByText": (
        "by_text",
        '{"name": "req", "type": "httpTrigger", "authLevel": "anonymous", "route": "text"},'
        '{"name": "$return", "type": "http", "direction": "out"}, ' + CLIENT,
    ),
    "ByClass": (
        "by_class",
        '{"name": "req", "type": "httpTrigger", "authLevel": "anonymous", "route": "class"},'
        '{"name": "$return", "type": "http", "direction": "out"}, ' + CLIENT,
    ),
}
SCRIPT = """
from __future__ import annotations
from dataclasses import dataclass
import azure.functions as func
import perdure as df

@dataclass
class Heard:
    text: str
    attempt: int

async def by_text(req: func.HttpRequest, starter: str) -> func.HttpResponse:
    client = df.DurableOrchestrationClient(starter)
    assert isinstance(client, df.Client) and client.task_hub == "default"
    await client.start_new("Ask", "one", req.get_json())
    await client.raise_event("one", "Go", {"by": "text"})
    return await client.wait_for_completion_or_create_check_status_response(req, "one", 100_000, 10)

async def by_class(req: func.HttpRequest, starter: df.DurableOrchestrationClient) -> func.HttpResponse:
    found = await starter.start_new("Ask", "two", req.get_json())
    return starter.create_check_status_response(req, found)

def ask(context: df.DurableOrchestrationContext):
    event = yield context.wait_for_external_event("Go", timeout=60)
    heard = yield context.call_activity("Told", context.get_input())
    child = yield context.call_activity("Starts", context.instance_id)
    return [event, heard, child]

def told(call: df.ActivityContext):
    return Heard(call.get_input()["a"], call.attempt)

async def starts(name: str, starter: str) -> str:
    return await df.DurableOrchestrationClient(starter, "an invocation").start_new("Ask")
"""


def plain_app(place: Path, script: str) -> Path:
    (place / "host.json").write_text("{}")
    (place / script).write_text(SCRIPT)
    for name, (entry, bindings) in PLAIN.items():
        (place / name).mkdir()
        (place / name / "function.json").write_text(
            f'{{"scriptFile": "../{script}", "entryPoint": "{entry}", "bindings": [{bindings}]}}'
        )
    return place


@pytest.mark.parametrize("script", ["process.py", "function_app.py"])
async def test_plain_functions_of_one_script_get_perdures_own_contexts_and_client(
    tmp_path: Path, script: str
) -> None:
    host = load(plain_app(tmp_path, script)).app.asgi(store="memory:", access="open")
    async with host.lifespan():
        transport = httpx2.ASGITransport(app=host)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
            answer = await http.post("/api/text", json={"a": "x"})
            started = await http.post("/api/class", json={"a": "y"})
    event, heard, child = answer.json()
    assert (event, heard, len(child)) == ({"by": "text"}, {"text": "x", "attempt": 1}, 32)
    assert started.status_code == 202 and started.json()["id"] == "two"


async def test_a_plain_entity_gets_perdures_own_context(tmp_path: Path) -> None:
    (tmp_path / "host.json").write_text("{}")
    written = {
        "Sums": (
            "orchestrationTrigger",
            "import perdure as df\n"
            "def main(context):\n"
            "    counter = df.EntityId('Counter', 'k')\n"
            "    for number in (1, 2):\n"
            "        total = yield context.call_entity(counter, 'add', number)\n"
            "    return [total, isinstance(context, df.DurableOrchestrationContext), context.version]\n",
        ),
        "Counter": (
            "entityTrigger",
            "import perdure as df\n"
            "def main(context: df.DurableEntityContext):\n"
            "    context.set_state(context.get_state(lambda: 0) + context.get_input())\n"
            "    context.set_result(context.get_state())\n",
        ),
    }
    for name, (kind, code) in written.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(code)
        binding = {"name": "context", "type": kind, "direction": "in"}
        (tmp_path / name / "function.json").write_text(json.dumps({"bindings": [binding]}))
    async with environment(load(tmp_path).app) as env:
        assert (await env.run("Sums")).output == [3, True, None]


async def test_a_client_is_made_only_from_the_binding_of_a_server_that_runs_here(tmp_path: Path) -> None:
    seen: list[str] = []
    (tmp_path / "host.json").write_text("{}")
    (tmp_path / "Look").mkdir()
    (tmp_path / "Look" / "function.json").write_text(
        f'{{"bindings": [{{"name": "x", "type": "activityTrigger"}}, {CLIENT}]}}'
    )
    (tmp_path / "Look" / "__init__.py").write_text("def main(x, starter): seen.append(starter)")
    (tmp_path / "Go").mkdir()
    (tmp_path / "Go" / "function.json").write_text(
        '{"bindings": [{"name": "context", "type": "orchestrationTrigger"}]}'
    )
    (tmp_path / "Go" / "__init__.py").write_text("def main(context): yield context.call_activity('Look')")
    app = load(tmp_path).app
    sys.modules["__app__.Look"].seen = seen  # type: ignore[attr-defined]
    async with environment(app) as env:
        await env.run("Go")
        assert df.DurableOrchestrationClient(seen[0]).task_hub == "default"
    for text in (seen[0], "", "[]", "no JSON", '{"rpcBaseUrl": "http://far/durabletask/a-key/"}'):
        with pytest.raises(ValueError, match="names no server that runs here") as refused:
            df.DurableOrchestrationClient(text)
        assert "a-key" not in str(refused.value)
