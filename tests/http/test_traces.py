"""The trace of an instance as a route and on its page."""

import json

from starlette.testclient import TestClient

from perdure.telemetry.otlp import spans_in
from tests.http.conftest import LOCAL, M, make_app, start


def test_a_trace_has_the_sub_orchestrations_and_no_payload(http: TestClient) -> None:
    start(http, "family", "f-1", {"secret": "s3cret-payload"})
    http.get(f"{M}/instances/f-1?wait=30")

    answer = http.get(f"{M}/instances/f-1/trace")

    spans = spans_in(answer.json())
    assert answer.status_code == 200
    assert [span.name for span in spans] == [
        "orchestration:echo",
        "orchestration:family",
        "orchestration:echo",
    ]
    assert {span.trace_id for span in spans} == {spans[0].trace_id}
    assert "s3cret-payload" not in json.dumps(answer.json())


def test_an_unfinished_span_ends_now_and_says_that_it_is_open(http: TestClient) -> None:
    start(http, "sleeper", "s-1")

    [root, timer] = spans_in(http.get(f"{M}/instances/s-1/trace").json())

    assert root.is_open and timer.is_open
    assert timer.parent_id == root.span_id


def test_messages_of_errors_can_be_left_out() -> None:
    host = make_app().asgi(store="memory:", access="open", telemetry_messages=False)
    with TestClient(host, base_url=LOCAL) as http:
        start(http, "broken", "b-1")
        http.get(f"{M}/instances/b-1?wait=30")

        [root] = spans_in(http.get(f"{M}/instances/b-1/trace").json())

    assert (root.message, root.attributes["error.type"]) == ("", "ValueError")
    assert "alert" not in repr(root)


def test_an_unknown_instance_is_not_found(http: TestClient) -> None:
    answer = http.get(f"{M}/instances/nowhere/trace")

    assert (answer.status_code, answer.json()["code"]) == (404, "instance-not-found")


def test_the_page_of_an_instance_exports_the_trace(http: TestClient) -> None:
    start(http, "echo", "e-1")

    page = http.get("/instances/e-1").text

    assert f'<a href="{M}/instances/e-1/trace" download="trace.json">Export this trace</a>' in page
