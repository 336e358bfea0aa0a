"""Errors: one table, one shape, and never a 2xx for what was not done."""

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from perdure import errors
from perdure.failure import Failure
from perdure.http.problem import STATUS, problem_of, status_of
from perdure.model import payload
from tests.http.conftest import M, finish, start

JSON = {"Content-Type": "application/json"}


def family(kind: type[errors.PerdureError]) -> Iterator[type[errors.PerdureError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__.startswith("perdure.errors"):
            yield from family(child)


@pytest.mark.parametrize("kind", list(family(errors.PerdureError)))
def test_every_error_has_a_status_that_is_no_success(kind: type[errors.PerdureError]) -> None:
    given = (Failure("ValueError"),) if kind is errors.TaskFailedError else ()
    answer = problem_of(kind("it went wrong", *given))

    assert 400 <= answer.status_code <= 599
    assert answer.problem["code"] == kind.code
    assert answer.problem["detail"] == answer.problem["ExceptionMessage"]
    assert (answer.problem["detail"] == "it went wrong") is not issubclass(kind, errors.StoreError)


def test_a_subclass_that_is_not_in_the_table_answers_as_its_parent() -> None:
    assert errors.EventRefused not in STATUS
    assert status_of(errors.EventRefused("no")) == 400
    assert status_of(errors.StoreInUse("no")) == 503


def test_a_problem_document_bears_azures_members_too(http: TestClient) -> None:
    answer = http.get(f"{M}/instances/nobody")

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == "/errors/PDR-020"
    assert problem["title"] == "Not Found"
    assert problem["status"] == 404
    assert problem["code"] == "instance-not-found"
    assert problem["instance"] == f"{M}/instances/nobody"
    assert "nobody" in problem["detail"]
    assert problem["ExceptionMessage"] == problem["detail"]
    assert problem["Message"] == "Not Found"
    assert problem["ExceptionType"] == "perdure.errors.InstanceNotFound"


BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.mark.parametrize("path", ["/nope", "/partitions", "/instances/nobody", "/errors/PDR-999"])
def test_a_browser_that_asks_for_no_page_gets_one_that_leads_on(http: TestClient, path: str) -> None:
    answer = http.get(path, headers=BROWSER)

    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")
    assert 'href="/"' in answer.text and 'href="/errors/PDR-' in answer.text
    assert "Not Found." not in answer.text
    assert "http-equiv" not in answer.text  # looking again would not help


@pytest.mark.parametrize(
    ("path", "accept"),
    [
        (f"{M}/instances/nobody", BROWSER["Accept"]),
        ("/runtime/nope", BROWSER["Accept"]),
        ("/RUNTIME/nope", BROWSER["Accept"]),
        ("/api/nope", BROWSER["Accept"]),
        ("/static/nope.css", BROWSER["Accept"]),
        ("/nope", "*/*"),
        ("/nope", "application/json"),
        ("/nope", "application/json, text/html;q=0.5"),
        ("/nope", "application/problem+json"),
        ("/instances/nobody", "application/json"),
    ],
)
def test_a_program_gets_a_problem_document(http: TestClient, path: str, accept: str) -> None:
    answer = http.get(path, headers={"Accept": accept})

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == 404


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/orchestrators/unknown/u-1", 400, "function-not-found"),
        ("POST", "/orchestrators/echo/@entity", 400, "invalid-instance-id"),
        ("POST", "/orchestrators/echo/a%3Fb", 400, "invalid-instance-id"),
        ("POST", "/orchestrators/echo/a%0Ab", 400, "invalid-instance-id"),
        ("POST", "/orchestrators/echo/" + "x" * 257, 400, "invalid-instance-id"),
        ("POST", "/orchestrators/sleeper/running", 409, "instance-exists"),
        ("POST", "/orchestrators/echo/done?onExisting=reject", 409, "instance-exists"),
        ("POST", "/orchestrators/echo?onExisting=sometimes", 400, "payload"),
        ("POST", "/orchestrators/echo?startAt=tomorrow", 400, "payload"),
        ("POST", "/orchestrators/echo?tag=colour", 400, "payload"),
        ("GET", "/instances/nobody", 404, "instance-not-found"),
        ("GET", "/instances/nobody?wait=1", 404, "instance-not-found"),
        ("GET", "/instances/running?showInput=perhaps", 400, "payload"),
        ("GET", "/instances?top=0", 400, "payload"),
        ("GET", "/instances?top=many", 400, "payload"),
        ("GET", "/instances?top=1001", 400, "payload"),
        ("GET", "/instances?runtimeStatus=Sleeping", 400, "payload"),
        ("GET", "/instances?createdTimeFrom=yesterday", 400, "payload"),
        ("DELETE", "/instances/nobody", 404, "instance-not-found"),
        ("DELETE", "/instances/running", 409, "illegal-transition"),
        ("POST", "/instances/nobody/raiseEvent/e", 404, "instance-not-found"),
        ("POST", "/instances/done/raiseEvent/e", 410, "instance-finished"),
        ("POST", "/instances/asking/raiseEvent/Other", 400, "event-refused"),
        ("POST", "/instances/nobody/terminate", 404, "instance-not-found"),
        ("POST", "/instances/done/terminate", 410, "instance-finished"),
        ("POST", "/instances/done/suspend", 410, "instance-finished"),
        ("POST", "/instances/done/resume", 410, "instance-finished"),
        ("POST", "/instances/nobody/suspend", 404, "instance-not-found"),
        ("POST", "/instances/nobody/restart", 404, "instance-not-found"),
        ("POST", "/instances/running/restart", 409, "illegal-transition"),
    ],
)
def test_what_is_refused_is_told_by_status_and_code(
    http: TestClient, method: str, path: str, status: int, code: str
) -> None:
    start(http, "sleeper", "running")
    start(http, "approval", "asking")
    start(http, "echo", "done")
    finish(http, "done")

    answer = http.request(method, M + path)

    assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"{'single': 1}",
        b"[1, 2,]",
        b'{"a": 1, "a": 2}',
        b"NaN",
        b"1e400",
        b'"\\u0000"',
        b'"\\ud800"',
        b"\xff",
        b"[" * 100_000,
        b"9" * 5_000,
        b"1 2",
    ],
)
def test_a_body_that_is_not_strict_json_is_400_and_starts_nothing(http: TestClient, body: bytes) -> None:
    answer = http.post(f"{M}/orchestrators/echo/x-1", content=body, headers=JSON)

    assert answer.status_code == 400
    assert answer.json()["code"] == "payload"
    assert http.get(f"{M}/instances/x-1").status_code == 404


def test_a_misfit_points_at_its_place(http: TestClient) -> None:
    start(http, "approval", "a-1")

    answer = http.post(f"{M}/instances/a-1/raiseEvent/ApproverDecision", json={"approved": "perhaps"})

    assert answer.status_code == 400
    assert answer.json()["pointer"] == "/approved"


def test_an_event_of_another_content_type_is_refused(http: TestClient) -> None:
    start(http, "open_door", "o-1")

    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = http.post(f"{M}/instances/o-1/raiseEvent/anything at all", content=b"1", headers=form)

    assert answer.status_code == 400
    assert "application/json" in answer.json()["detail"]


def test_a_body_announced_to_be_too_large_is_413_before_it_is_read(http: TestClient) -> None:
    read = []

    def body() -> Iterator[bytes]:
        read.append(1)
        yield b"1"

    headers = {**JSON, "Content-Length": str(payload.MAX_BYTES + 1)}
    answer = http.post(f"{M}/orchestrators/echo/x-1", content=body(), headers=headers)

    assert answer.status_code == 413
    assert answer.json()["code"] == "content-too-large"


async def test_a_body_of_unknown_length_is_cut_off_at_the_limit() -> None:
    from starlette.exceptions import HTTPException
    from starlette.requests import Request

    from perdure.http.request_body import read_body

    received = 0

    async def receive() -> dict[str, object]:
        nonlocal received
        received += 1
        return {"type": "http.request", "body": b"x" * 1_000, "more_body": True}

    request = Request({"type": "http", "method": "POST", "headers": []}, receive)
    with pytest.raises(HTTPException) as refused:
        await read_body(request, 10_000)

    assert refused.value.status_code == 413
    assert received == 11


def test_compressed_bodies_are_refused(http: TestClient) -> None:
    headers = {**JSON, "Content-Encoding": "gzip"}

    assert http.post(f"{M}/orchestrators/echo", content=b"x", headers=headers).status_code == 415


def test_an_error_nobody_expected_says_nothing_of_its_insides(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.http.conftest import LOCAL, make_app

    app = make_app()
    with TestClient(
        app.asgi(store="memory:", access="open"), base_url=LOCAL, raise_server_exceptions=False
    ) as http:
        client = http.app._serving.app.app.state.client  # type: ignore[attr-defined]
        monkeypatch.setattr(client.gateway, "read", None)
        answer = http.get(f"{M}/instances/a")

    assert answer.status_code == 500
    assert answer.json()["code"] == "internal"
    assert "NoneType" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
