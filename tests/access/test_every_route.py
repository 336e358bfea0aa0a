"""Every route with every kind of key. The routes come from the router: a new one cannot escape."""

import re
from typing import Any

import pytest
from starlette.routing import Mount

from perdure.http.routing import GatedRoute
from perdure.model.access import INCLUDES, key_of
from tests.access.conftest import SCOPES, TOKEN, Door, as_key


def address_of(row: Any, key: str) -> str:
    return re.sub(r"\{\w+(:path)?\}", "some-1", row.path.replace("{credential}", key))


def knock(door: Door, row: Any, headers: dict[str, str], query: str = "") -> Any:
    key, headers = headers.get("x-functions-key", "none"), dict(headers)
    if "{credential}" in row.path:  # the path has the key in it
        headers.pop("x-functions-key", None)
    address = address_of(row, key or "none") + query
    return [door.http.request(method, address, headers=headers) for method in row.methods]


def is_refused(row: Any, answer: Any, status: int) -> bool:
    """Programs get the status; people who have shown nothing are led to the page to sign in at."""
    if row.is_page and status == 401 and answer.request.method == "GET":
        return answer.status_code == 303 and "/login?next=" in answer.headers["location"]
    return bool(answer.status_code == status)


def test_nothing_is_served_that_has_not_passed_the_gate(door: Door) -> None:
    others = [route for route in door.routes() if not isinstance(route, GatedRoute)]

    assert [route.path for route in others if isinstance(route, Mount)] == ["/static"]
    assert len(others) == 1
    assert len(door.rows()) > 40


def test_every_row_of_the_table_has_a_scope_and_a_name(door: Door) -> None:
    for row in door.rows():
        assert row.scope in {"open", *SCOPES}, row
        assert re.fullmatch(r"[a-z][a-z_]+", row.operation), row


def test_without_a_key_nothing_but_the_open_routes_answers(door: Door) -> None:
    for row in door.rows():
        for answer in knock(door, row, {}):
            if row.scope == "open":
                assert answer.status_code not in (401, 429), row
            else:
                assert is_refused(row, answer, 401), (row, answer)


@pytest.mark.parametrize("kind", ["wrong", "garbage", "empty", "expired", "revoked", "of-another-hub"])
def test_a_key_that_does_not_count_opens_nothing(door: Door, kind: str) -> None:
    key = door.key("admin", expires_in=3_600)
    match kind:
        case "wrong":
            key = key_of(key[4:12], 12345)
        case "garbage":
            key = "pdk_" + "x" * 60
        case "empty":
            key = ""
        case "of-another-hub":
            key = key_of("AAAAAAAA", 12345)
        case "revoked":
            door.revoke(key)
        case "expired":
            now = door.gate.keys.now
            door.gate.keys.now = lambda: now() + 3_600_000_000
    door.gate._failures.take = lambda _: 0  # how often one may try is another test

    for row in door.rows():
        for answer in knock(door, row, as_key(key)):
            assert row.scope == "open" or is_refused(row, answer, 401), (row, answer)


@pytest.mark.parametrize("scope", SCOPES)
def test_a_key_opens_what_its_scope_includes_and_nothing_else(door: Door, scope: str) -> None:
    key = door.key(scope)

    for row in door.rows():
        for answer in knock(door, row, as_key(key)):
            if row.scope == "open":
                continue
            if row.scope in INCLUDES[scope]:
                assert (
                    answer.status_code not in (401, 403) or is_form_error(answer) or is_no_person(answer)
                ), (
                    row,
                    answer.text,
                )
            else:
                assert is_refused(row, answer, 403), (row, answer)


def is_no_person(answer: Any) -> bool:
    """The scope was enough; the handler asks for a person."""
    return "task-refused" in answer.text


def is_form_error(answer: Any) -> bool:
    """A form of a page has a token of its own, which the key does not replace."""
    return answer.status_code == 403 and "Reload the page" in answer.text


def test_a_function_key_opens_one_function(door: Door) -> None:
    key = door.key("function:for_callers")

    assert door.http.post("/api/callers", headers=as_key(key)).status_code == 202
    assert door.http.get("/api/others", headers=as_key(key)).status_code == 403
    assert door.http.get("/api/admins", headers=as_key(key)).status_code == 403
    assert door.http.get("/api/anyone").text == "anyone"


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({"x-functions-key": "{key}"}, ""),
        ({"Authorization": "Bearer {key}"}, ""),
        ({"Authorization": "bearer  {key}"}, ""),
        ({}, "?code={key}"),
    ],
)
@pytest.mark.parametrize("kind", ["key", "token", "admin key"])
def test_a_key_is_taken_in_three_places(door: Door, headers: dict[str, str], query: str, kind: str) -> None:
    key = {"key": door.key("read"), "token": TOKEN, "admin key": "the-administrators-own-long-key"}[kind]
    shown = {name: value.format(key=key) for name, value in headers.items()}

    answer = door.http.get("/runtime/webhooks/durabletask/instances" + query.format(key=key), headers=shown)

    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ([("x-functions-key", TOKEN), ("x-functions-key", TOKEN)], ""),
        ([("x-functions-key", TOKEN), ("authorization", f"Bearer {TOKEN}")], ""),
        ([("x-functions-key", TOKEN)], f"?code={TOKEN}"),
        ([], f"?code={TOKEN}&code={TOKEN}"),
        ([], f"?code=wrong&code={TOKEN}"),
    ],
)
def test_a_key_that_is_shown_twice_is_refused(door: Door, headers: list[tuple[str, str]], query: str) -> None:
    answer = door.http.get("/runtime/webhooks/durabletask/instances" + query, headers=headers)

    assert answer.status_code == 400
    assert answer.json()["code"] == "ambiguous-credentials"


@pytest.mark.parametrize("value", ["Basic {}", "{}", "Bearer", "Bearer  ", "Bearer {} x", "Digest {}"])
def test_another_kind_of_authorization_opens_nothing(door: Door, value: str) -> None:
    headers = {"Authorization": value.format(TOKEN)}

    assert door.http.get("/runtime/webhooks/durabletask/instances", headers=headers).status_code == 401


def test_what_is_wrong_is_not_passed_over_for_what_is_right(door: Door) -> None:
    door.http.get(f"/?token={TOKEN}")  # a session

    assert door.http.get("/runtime/webhooks/durabletask/instances").status_code == 200
    assert door.http.get("/runtime/webhooks/durabletask/instances?code=wrong").status_code == 401


def test_refusals_tell_programs_how_and_tell_nothing_else(door: Door) -> None:
    door.start()
    there = door.http.get("/runtime/webhooks/durabletask/instances/a-1")
    absent = door.http.get("/runtime/webhooks/durabletask/instances/a-2")

    assert there.headers["www-authenticate"] == 'Bearer realm="perdure"'
    assert there.status_code == absent.status_code == 401
    assert there.text.replace("a-1", "a-2") == absent.text


def test_the_health_probe_is_open_and_says_nothing_else(door: Door) -> None:
    assert door.http.get("/healthz").json() == {"healthy": True}
