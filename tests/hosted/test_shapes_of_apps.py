"""Programs of the shapes that public samples have, in folders with a function.json each."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from perdure.errors import HostedAppError
from perdure.hosts.azure_functions.application import load
from perdure.testing import environment

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
HEAD = "from datetime import timedelta\nimport azure.durable_functions as df\n"
ORCHESTRATION = [{"name": "context", "type": "orchestrationTrigger", "direction": "in"}]
TEXT_MESSAGE = {"name": "message", "type": "twilioSms", "direction": "out", "from": ""}
STARTER = [
    {"name": "req", "type": "httpTrigger", "authLevel": "anonymous", "route": "begin/{orchestrator}"},
    {"name": "response", "type": "http", "direction": "out"},
    {"name": "starter", "type": "orchestrationClient", "direction": "in", "datatype": "string"},
]
FUNCTIONS = {
    "Begin": (
        STARTER,
        """
from azure.durable_functions import DurableOrchestrationClient
from ..shared.parcels import Parcel

async def main(req, starter: str, response):
    client = DurableOrchestrationClient(starter)
    weight = int(req.params.get("weight", 0))
    given = {"client_input": Parcel(weight)} if weight else {}
    found = await client.start_new(req.route_params["orchestrator"], "one", **given)
    response.set(client.create_check_status_response(req, found))
""",
    ),
    "Weigh": (
        ORCHESTRATION,
        """
from ..shared.parcels import Parcel

def weigh(context: df.DurableOrchestrationContext):
    parcel = context.get_input()
    heavier = yield context.call_activity("Pack", parcel)
    return [type(parcel) is Parcel, heavier.weight]

main = df.Orchestrator.create(weigh)
""",
    ),
    "Pack": (
        [{"name": "parcel", "type": "activityTrigger", "direction": "in", "dataType": "string"}],
        """
from ..shared.parcels import Parcel

def main(parcel: Parcel) -> Parcel:
    return Parcel(parcel.weight + 1)
""",
    ),
    "Watch": (
        ORCHESTRATION,
        """
def watch(context: df.DurableOrchestrationContext):
    until = context.current_utc_datetime + timedelta(minutes=10)
    looks = 0
    while context.current_utc_datetime < until:
        looks += 1
        if (yield context.call_activity("IsReady", looks)):
            break
        context.set_custom_status(f"looked {looks} times")
        yield context.create_timer(context.current_utc_datetime + timedelta(minutes=1))
    return looks

main = df.Orchestrator.create(watch)
""",
    ),
    "IsReady": (
        [{"name": "looks", "type": "activityTrigger", "direction": "in"}],
        "def main(looks) -> str:\n    return looks >= 4\n",
    ),
    "Verify": (
        ORCHESTRATION,
        """
def verify(context: df.DurableOrchestrationContext):
    code = yield context.call_activity("SendCode", context.get_input())
    late = context.create_timer(context.current_utc_datetime + timedelta(seconds=180))
    for _ in range(3):
        answer = context.wait_for_external_event("Code")
        first = yield context.task_any([answer, late])
        if first != answer:
            return "late"
        if answer.result == code:
            late.cancel()
            return "verified"
    return "refused"

main = df.Orchestrator.create(verify)
""",
    ),
    "SendCode": (
        [{"name": "number", "type": "activityTrigger", "direction": "in"}, TEXT_MESSAGE],
        "def main(number, message):\n    message.set('{}')\n    return '42'\n",
    ),
}
PARCELS = """
class Parcel:
    def __init__(self, weight):
        self.weight = weight
    @staticmethod
    def to_json(parcel):
        return str(parcel.weight)
    @staticmethod
    def from_json(text):
        return Parcel(int(text))
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "host.json").write_text('{"version": "2.0"}')
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "parcels.py").write_text(PARCELS)
    for name, (bindings, code) in FUNCTIONS.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(HEAD + code)
        described = {"scriptFile": "__init__.py", "bindings": bindings, "disabled": False}
        (tmp_path / name / "function.json").write_text(json.dumps(described))
    return tmp_path


@pytest.fixture
async def http(place: Path) -> AsyncIterator[httpx2.AsyncClient]:
    host = load(place, partial=True).app.asgi(store="memory:", access="open")
    async with host.lifespan():
        transport = httpx2.ASGITransport(app=host)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield client


async def test_a_response_is_set_on_an_output_and_a_custom_class_is_the_input(
    http: httpx2.AsyncClient,
) -> None:
    started = await http.get("/api/begin/WEIGH", params={"weight": 5})
    status = await http.get(started.json()["statusQueryGetUri"], params={"wait": 60})
    assert started.status_code == 202 and started.json()["id"] == "one"
    assert status.json()["output"] == [True, 6]


async def test_a_monitor_looks_until_what_it_waits_for_is_there(place: Path) -> None:
    async with environment(load(place, partial=True).app) as env:
        instance_id = await env.client.start_new("Watch")
        await env.advance(minutes=2, seconds=1)
        status = await env.client.get_status(instance_id)
        assert status is not None and status.custom_status == "looked 3 times"
        assert (await env.client.wait_for_completion(instance_id)).output == 4


@pytest.mark.parametrize(
    ("answers", "output"),
    [(["42"], "verified"), (["1", "42"], "verified"), (["1", "2", "3"], "refused"), ([], "late")],
)
async def test_an_output_that_is_not_hosted_is_dropped_and_the_rest_goes_on(
    place: Path, answers: list[str], output: str
) -> None:
    with pytest.raises(HostedAppError, match="twilioSms 'message' is not hosted here"):
        load(place)
    async with environment(load(place, partial=True).app) as env:
        instance_id = await env.client.start_new("Verify", None, "+49123")
        await env.settled()
        for answer in answers:
            await env.client.raise_event(instance_id, "Code", answer)
        await env.advance(seconds=181)
        assert (await env.client.wait_for_completion(instance_id)).output == output


WAITING_ENTITY = """
import asyncio, threading
import azure.durable_functions as df
app = df.DFApp()
met = threading.Event()
@app.entity_trigger(context_name="context")
def Waits(context):
    async def answer():
        await asyncio.sleep(0)
        return [met.wait(30), context.get_state(lambda: 0) + 1]
    seen, number = asyncio.run(answer())
    context.set_state(number)
    context.set_result([seen, number])
@app.activity_trigger(input_name="text")
def meet(text):
    met.set()
    return text
@app.orchestration_trigger(context_name="context")
def both(context):
    return (yield context.task_all([
        context.call_entity(df.EntityId("waits", "w"), "go"),
        context.call_sub_orchestrator("other"),
    ]))
@app.orchestration_trigger(context_name="context")
def other(context):
    return (yield context.call_activity("meet", "met"))
"""


async def test_an_operation_that_waits_for_something_outside_holds_nothing_up(tmp_path: Path) -> None:
    (tmp_path / "host.json").write_text("{}")
    (tmp_path / "function_app.py").write_text(WAITING_ENTITY)
    async with environment(load(tmp_path).app) as env:
        assert (await env.run("both")).output == [[True, 1], "met"]


PRIVATE_NAMES = """
import json
import azure.durable_functions as df
app = df.DFApp()
@app.orchestration_trigger(context_name="context")
def names(context):
    child = yield context.call_sub_orchestrator("child", {"a": 1}, "named")
    return [child, context._instance_id == context.instance_id, context._parent_instance_id]
@app.orchestration_trigger(context_name="context")
def child(context):
    same = context._current_utc_datetime == context.current_utc_datetime
    told = [context._instance_id, context._parent_instance_id, context._is_replaying, context._version]
    return [json.loads(context._input), *told, same]
"""


async def test_the_attributes_behind_the_public_ones_are_there(tmp_path: Path) -> None:
    (tmp_path / "host.json").write_text("{}")
    (tmp_path / "function_app.py").write_text(PRIVATE_NAMES)
    async with environment(load(tmp_path).app) as env:
        status = await env.run("names", instance_id="parent")
    expected = [[{"a": 1}, "named", "parent", False, None, True], True, None]
    assert status.output == expected, status.failure


OWN_TASKS = """
import azure.durable_functions as df
from azure.durable_functions.models.Task import CompoundTask, TaskBase, TaskState
from azure.durable_functions.models.actions.NoOpAction import NoOpAction
app = df.DFApp()
class Known(TaskBase):
    def __init__(self, value):
        super().__init__(-1, NoOpAction())
        self.set_value(is_error=False, value=value)
class Priced(CompoundTask):
    def __init__(self, task):
        super().__init__([task])
        self.action_repr, self.id = task.action_repr, task.id
    def try_set_value(self, child):
        failed = child.state is not TaskState.SUCCEEDED
        self.set_value(is_error=failed, value=child.result if failed else {"price": child.result})
@app.activity_trigger(input_name="n")
def double(n): return 2 * n
@app.orchestration_trigger(context_name="context")
def prices(context):
    one = yield Priced(context.call_activity("double", 4))
    known = yield Priced(Known(3))
    both = yield context.task_all([Priced(Known(1)), Priced(context.call_activity("double", 1))])
    first = yield context.task_any([Known("now"), context.call_activity("double", 7)])
    try:
        yield Priced(context.call_activity("double", None))
    except Exception as error:
        return [one, known, both, first.result, "double" in str(error)]
"""


async def test_tasks_of_the_programs_own_making_are_waited_for(tmp_path: Path) -> None:
    (tmp_path / "host.json").write_text("{}")
    (tmp_path / "function_app.py").write_text(OWN_TASKS)
    async with environment(load(tmp_path).app) as env:
        status = await env.run("prices")
    priced = [{"price": 8}, {"price": 3}, [{"price": 1}, {"price": 2}]]
    assert status.output == [*priced, "now", True], status.failure


UNHOSTED_INPUTS = """
import azure.durable_functions as df
import azure.functions as func
app = df.DFApp(http_auth_level=func.AuthLevel.ANONYMOUS)
@app.activity_trigger(input_name="text")
@app.generic_input_binding(arg_name="answer", type="textCompletion", prompt="{text}")
def summarise(text, answer: str): return answer
@app.activity_trigger(input_name="text")
@app.generic_input_binding(arg_name="answer", type="textCompletion", prompt="{text}")
async def soon(text, answer: str): return answer
@app.route(route="read")
@app.blob_input(arg_name="blob", path="in/a.txt", connection="AzureWebJobsStorage")
def read(req: func.HttpRequest, blob: func.InputStream): return "never"
@app.orchestration_trigger(context_name="context")
def asks(context):
    told = []
    for name in ("summarise", "soon"):
        try:
            yield context.call_activity(name, "a text")
        except Exception as error:
            told.append(str(error))
    return told
"""


async def test_a_function_whose_input_is_not_hosted_says_so_when_it_is_called(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "host.json").write_text("{}")
    (tmp_path / "function_app.py").write_text(UNHOSTED_INPUTS)
    app = load(tmp_path, partial=True).app
    async with environment(app) as env:
        told = (await env.run("asks")).output
    assert "summarise needs its input 'answer', and textCompletion is not hosted" in told[0]
    assert "soon needs its input 'answer', and textCompletion is not hosted" in told[1]
    host = app.asgi(store="memory:")
    async with host.lifespan():
        transport = httpx2.ASGITransport(app=host)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            assert (await client.get("/api/read")).status_code == 500
    assert "read needs its input 'blob', and blob is not hosted" in caplog.text
