"""host.json, local.settings.json and the settings that override them: what they change, by what one sees of it."""

from __future__ import annotations

import json
import re
import sys
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest

from perdure.errors import HostedAppError, InstanceExists
from perdure.hosts.azure_functions import host_settings
from perdure.hosts.azure_functions.application import load
from perdure.testing import environment
from tests.hosted.test_loading import HEAD

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "azure-functions-app.md"
APP = """
@app.route(route="start", auth_level=func.AuthLevel.ANONYMOUS)
@app.durable_client_input(client_name="client")
async def start(req: func.HttpRequest, client):
    await client.start_new("waits", "one", req.get_json())
    return client.create_check_status_response(req, "one")
@app.orchestration_trigger(context_name="context")
def waits(context):
    yield context.wait_for_external_event("Go")
    return context.get_input()
"""
OURS = "https://app.example"


def folder_of(place: Path, host: str = "{}", local: str = "{}", code: str = APP) -> Path:
    (place / "host.json").write_text(host)
    (place / "local.settings.json").write_text(local)
    (place / "function_app.py").write_text(HEAD + code)
    return place


def served(place: Path) -> tuple[httpx2.AsyncClient, object]:
    host = load(place).app.asgi(store="memory:", access="open")
    return httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=host), base_url="http://localhost"
    ), host.lifespan()


@pytest.mark.parametrize(
    ("said", "credentials"), [(f"https://other.example/, {OURS.upper()}", True), ("*", False)]
)
async def test_a_page_of_an_allowed_origin_starts_an_instance_and_follows_its_status(
    tmp_path: Path, said: str, credentials: bool
) -> None:
    local = json.dumps({"Host": {"CORS": said, "CORSCredentials": credentials}})
    http, running = served(folder_of(tmp_path, local=local))
    async with running, http:  # type: ignore[attr-defined]
        asking = {"Origin": OURS, "Access-Control-Request-Method": "POST"}
        allowed = await http.options("/api/start", headers=asking)
        started = await http.post("/api/start", json=1, headers={"Origin": OURS})
        followed = await http.get(started.json()["statusQueryGetUri"], headers={"Origin": OURS})
        page = await http.get("/", headers={"Origin": OURS})
    assert allowed.status_code == 200 and "POST" in allowed.headers["access-control-allow-methods"]
    assert started.status_code == followed.status_code == 202
    for answer in (allowed, started, followed):
        assert answer.headers["access-control-allow-origin"] == ("*" if said == "*" else OURS)
        assert answer.headers.get("access-control-allow-credentials") == ("true" if credentials else None)
    assert "access-control-allow-origin" not in page.headers


async def test_a_page_of_another_origin_is_refused_as_ever(tmp_path: Path) -> None:
    local = json.dumps({"Host": {"CORS": OURS}})
    http, running = served(folder_of(tmp_path, local=local))
    async with running, http:  # type: ignore[attr-defined]
        foreign = {"Origin": "https://elsewhere.example"}
        asked = await http.options("/api/start", headers={**foreign, "Access-Control-Request-Method": "POST"})
        started = await http.post("/api/start", json=1, headers=foreign)
        pages = await http.post("/login", headers={"Origin": OURS})
        own = await http.post("/api/start", json=1, headers={"Origin": "http://localhost"})
    assert asked.status_code == 400 and started.status_code == pages.status_code == 403
    assert own.status_code == 202


def test_a_server_that_is_open_to_every_page_says_so(tmp_path: Path) -> None:
    told = load(folder_of(tmp_path, local='{"Host": {"CORS": "*"}}')).told
    assert len(told) == 1 and told[0].startswith("local.settings.json: Host.CORS is *: any page")
    sys.modules.pop("function_app")
    assert load(folder_of(tmp_path, local=json.dumps({"Host": {"CORS": OURS}}))).told == ()


@pytest.mark.parametrize(
    ("hosting", "told"),
    [
        ({"CORS": "*", "CORSCredentials": True}, "CORSCredentials needs origins by their names"),
        ({"CORS": "https://a.example,b.example"}, "CORS names 'b.example'"),
    ],
)
def test_a_cors_that_browsers_would_not_follow_is_refused(
    tmp_path: Path, hosting: dict[str, object], told: str
) -> None:
    with pytest.raises(HostedAppError, match=re.escape(told)):
        load(folder_of(tmp_path, local=json.dumps({"Host": hosting})))


@pytest.mark.parametrize("states", ["AnyState", "anystate"])
async def test_any_state_lets_a_start_replace_a_running_instance(tmp_path: Path, states: str) -> None:
    host = json.dumps({"extensions": {"durableTask": {"overridableExistingInstanceStates": states}}})
    async with environment(load(folder_of(tmp_path, host)).app) as env:
        for number in range(3):
            assert await env.client.start_new("waits", "one", number) == "one"
            await env.settled()
        with pytest.raises(InstanceExists):
            await env.client.start_new("waits", "one", 9, on_existing="reject")
        assert await env.client.start_new("waits", "one", 9, on_existing="return_existing") == "one"
        await env.client.raise_event("one", "Go")
        assert (await env.client.wait_for_completion("one")).output == 2


@pytest.mark.parametrize("said", [None, "NonRunningStates"])
async def test_else_a_running_instance_keeps_its_id(tmp_path: Path, said: str | None) -> None:
    host = json.dumps({"extensions": {"durableTask": {"overridableExistingInstanceStates": said}}})
    async with environment(load(folder_of(tmp_path, host)).app) as env:
        await env.client.start_new("waits", "one", 0)
        with pytest.raises(InstanceExists):
            await env.client.start_new("waits", "one", 1)


async def test_the_sdks_client_replaces_a_running_instance_too(tmp_path: Path) -> None:
    host = json.dumps({"extensions": {"durableTask": {"overridableExistingInstanceStates": "AnyState"}}})
    http, running = served(folder_of(tmp_path, host))
    async with running, http:  # type: ignore[attr-defined]
        answers = [(await http.post("/api/start", json=number)).status_code for number in range(2)]
        status = (await http.get("/runtime/webhooks/durabletask/instances/one")).json()
    assert (answers, status["input"], status["runtimeStatus"]) == ([202, 202], 1, "Running")


async def test_custom_headers_are_on_the_responses_of_functions(tmp_path: Path) -> None:
    code = """
@app.route(route="own", auth_level=func.AuthLevel.ANONYMOUS)
def own(req): return func.HttpResponse("x", headers={"X-Frame-Options": "SAMEORIGIN"})
@app.route(route="text", auth_level=func.AuthLevel.ANONYMOUS)
def text(req): return "y"
"""
    host = '{"extensions": {"http": {"customHeaders": {"X-Frame-Options": "ALLOWALL", "X-Team": "claims"}}}}'
    http, running = served(folder_of(tmp_path, host, code=code))
    async with running, http:  # type: ignore[attr-defined]
        answers = [(await http.get(f"/api/{path}")).headers for path in ("own", "text")]
    assert [one["x-frame-options"] for one in answers] == ["SAMEORIGIN", "ALLOWALL"]
    assert [one["x-team"] for one in answers] == ["claims", "claims"]


def test_settings_override_host_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AzureFunctionsJobHost__extensions__durableTask__hubName", "from-a-setting")
    monkeypatch.setenv("AzureFunctionsJobHost__Extensions__Http__routePrefix", "v2")
    monkeypatch.setenv("AzureFunctionsJobHost__functionTimeout", "00:02:00")
    local = json.dumps(
        {"Values": {"AzureFunctionsJobHost__extensions__durableTask__maxConcurrentActivityFunctions": "5"}}
    )
    hosted = load(folder_of(tmp_path, '{"extensions": {"durableTask": {"HubName": "written"}}}', local))
    assert (hosted.app.name, hosted.app.registry.route_prefix) == ("from-a-setting", "/v2")
    assert hosted.settings.timeout == 120_000_000
    assert hosted.app.settings.concurrency.tasks == 5
    monkeypatch.setenv("AzureFunctionsJobHost__functions__0", "start")
    assert not load(tmp_path).app.registry.orchestrators


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ('{"customHandler": {"description": {}}}', "a program of another language"),
        (
            '{"extensions": {"durableTask": {"overridableExistingInstanceStates": "All"}}}',
            "overridableExistingInstanceStates is one of NonRunningStates, AnyState, not 'All'",
        ),
    ],
)
def test_what_cannot_be_meant_here_is_refused(tmp_path: Path, host: str, told: str) -> None:
    with pytest.raises(HostedAppError, match=re.escape(told)):
        load(folder_of(tmp_path, host))


CODE_WITH_A_QUEUE = """
@app.queue_trigger(arg_name="m", queue_name="q", connection="")
def q(m): ...
@app.route(route="a")
def a(req): return "x"
"""
WRONG: tuple[object, ...] = (1, -1, 0, 1.5, "x", "", [], [1], {}, {"a": 1}, True, False, None)


@pytest.mark.parametrize("key", sorted(host_settings.HEARD))
def test_a_value_that_a_key_cannot_have_is_taken_or_refused_and_never_a_traceback(
    tmp_path: Path, key: str
) -> None:
    for value in WRONG:
        document: dict[str, object] = {}
        place = document
        *path, last = key.split(".")
        for part in path:
            place[part] = place = {}
        place[last] = value
        sys.modules.pop("function_app", None)
        with suppress(HostedAppError):
            load(folder_of(tmp_path, json.dumps(document), code=CODE_WITH_A_QUEUE))


@pytest.mark.parametrize("value", [-1, 0, True, "many", 1.5, [1]])
@pytest.mark.parametrize(
    "key", ["durableTask.maxConcurrentActivityFunctions", "queues.batchSize", "queues.maxDequeueCount"]
)
def test_a_count_is_a_whole_number_of_one_or_more(tmp_path: Path, key: str, value: object) -> None:
    extension, _, name = key.partition(".")
    host = json.dumps({"extensions": {extension: {name: value}}})
    with pytest.raises(HostedAppError, match=f"{name} is a whole number of 1 or more"):
        load(folder_of(tmp_path, host, code=CODE_WITH_A_QUEUE))


def test_the_guide_lists_every_key_that_is_known() -> None:
    text = PAGE.read_text().casefold()
    known = {*host_settings.HEARD, *host_settings.MEANINGLESS, *host_settings.REFUSED}
    groups = {"extensions", "logging", "extensions.durabletask", "extensions.http", "extensions.queues"}
    missing = [key for key in known - groups if f"`{key.rpartition('.')[2]}`" not in text]
    assert missing == []


def test_a_key_that_changes_nothing_is_told_with_the_reason(tmp_path: Path) -> None:
    host = '{"extensions": {"durableTask": {"UseGracefulShutdown": true}, "http": {"hsts": {"isEnabled": true}}}}'
    told = load(folder_of(tmp_path, host)).told
    assert [line.partition(" means nothing here: ")[0] for line in told] == [
        "host.json: extensions.durableTask.UseGracefulShutdown",
        "host.json: extensions.http.hsts",
    ]
