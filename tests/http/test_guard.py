"""What keeps foreign pages in the same machine's browser out."""

import pytest
from starlette.testclient import TestClient

from perdure.http.api import management
from perdure.http.guard import HEADERS, SAFE
from perdure.http.host import HEALTH, asgi
from perdure.http.pages import instance_actions, instances
from tests.http.conftest import M, make_app, start


@pytest.mark.parametrize("host", ["localhost:7071", "LOCALHOST", "127.0.0.1:7071", "[::1]:7071", "[::1]"])
def test_this_machines_names_are_answered(http: TestClient, host: str) -> None:
    assert http.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:7071",
        "localhost.evil.example",
        "localhost@evil.example",
        "127.0.0.1.nip.io",
        "localhost:port",
        "::1",
        "",
        "localhost/../",
    ],
)
@pytest.mark.parametrize("path", ["/", "/healthz", f"{M}/instances", "/static/perdure.css"])
def test_a_name_rebound_to_this_machine_gets_nothing(http: TestClient, host: str, path: str) -> None:
    answer = http.get(path, headers={"Host": host})

    assert answer.status_code == 403
    assert answer.json()["code"] == "foreign-host"
    assert "--allowed-hosts" in answer.json()["detail"]


def test_another_name_is_answered_when_it_is_allowed() -> None:
    with TestClient(
        asgi(make_app(), store="memory:", access="open", allowed_hosts=["claims.example"])
    ) as http:
        assert http.get("/healthz", headers={"Host": "claims.example"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "http://localhost"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/orchestrators/echo/x-1"), ("DELETE", "/instances/s-1")]
)
def test_a_foreign_page_changes_nothing(
    http: TestClient, headers: dict[str, str], method: str, path: str
) -> None:
    start(http, "sleeper", "s-1")

    answer = http.request(method, M + path, headers=headers)

    assert answer.status_code == 403
    assert answer.json()["code"] == "foreign-origin"
    assert http.get(f"{M}/instances/x-1").status_code == 404


@pytest.mark.parametrize(
    "headers",
    [{}, {"Origin": "http://localhost:7071", "Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}],
)
def test_our_own_pages_and_programs_may(http: TestClient, headers: dict[str, str]) -> None:
    assert http.post(f"{M}/orchestrators/echo", headers=headers).status_code == 202


def test_there_is_no_cors(http: TestClient) -> None:
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}

    for answer in (
        http.options(f"{M}/orchestrators/echo", headers=asked),
        http.get("/healthz", headers=asked),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/instances/none",
        "/healthz",
        f"{M}/instances",
        f"{M}/instances/none",
        "/nowhere",
        "/static/perdure.css",
    ],
)
def test_every_response_bears_the_headers_that_take_powers_away(http: TestClient, path: str) -> None:
    answer = http.get(path)

    for name, value in HEADERS.items():
        assert answer.headers[name] == value
    assert "unsafe" not in answer.headers["content-security-policy"]


def test_websockets_are_refused(http: TestClient) -> None:
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), http.websocket_connect("/"):
        pass


def test_what_may_change_something_needs_more_than_the_right_to_read() -> None:
    for endpoint in (*management.ENDPOINTS, *instances.ENDPOINTS, *instance_actions.ENDPOINTS, *HEALTH):
        reads = set(endpoint.methods) <= SAFE
        assert (endpoint.scope in ("open", "read")) is reads, endpoint.path
