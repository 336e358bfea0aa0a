"""The audit log is complete: each verb, by each door, done or refused, is one row with who, what and how it ended.

The verbs come from the router. One that is not in the table below fails the test, so a new one cannot escape.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from starlette.testclient import TestClient

import perdure as df
from perdure.http.access import audit
from perdure.http.api.instance_urls import MANAGEMENT as M
from tests.access.conftest import ADMIN, TOKEN, Door, as_key, guarded_app
from tests.http.conftest import LOCAL

AWAY = datetime(2020, 1, 1, tzinfo=UTC)
READS = {"GET", "HEAD"}
MANY = {
    "redeliver_message",
    *(f"{verb}_many" for verb in ("suspend", "resume", "terminate", "rewind", "purge")),
}
COOKIES_ONLY = {"logout", "choose_look", "save_view", "save_list_view"}


def app_with_triggers() -> df.App:
    app = guarded_app()

    @app.entity
    class Counter:
        def __init__(self) -> None:
            self.count = 0

        def add(self, n: int) -> None:
            self.count += n

    @app.schedule("0 0 1 1 *", name="yearly")
    async def yearly(client: df.Client) -> None: ...

    @app.queue("claims-in", retry=df.RetryPolicy(first_interval=0.001, max_attempts=1))
    async def take(message: Any, client: df.Client) -> None:
        raise ValueError("not this one")

    return app


@pytest.fixture
def door() -> Iterator[Door]:
    host = app_with_triggers().asgi(store="memory:", token=TOKEN, admin_key=ADMIN, rate_limit=100_000)
    with TestClient(host, base_url=LOCAL, follow_redirects=False) as http:
        yield Door(http, host)


def running(door: Door, id_: str) -> dict[str, str]:
    door.start("approval", id_)
    return {"id": id_, "event": "ApproverDecision"}


def task(door: Door, id_: str) -> dict[str, str]:
    running(door, id_)
    return {"task": f"{id_}:0"}


def suspended(door: Door, id_: str) -> dict[str, str]:
    found = running(door, id_)
    assert door.http.post(f"{M}/instances/{id_}/suspend", headers=as_key(ADMIN)).status_code == 202
    return found


def ended(name: str) -> Callable[[Door, str], dict[str, str]]:
    def prepare(door: Door, id_: str) -> dict[str, str]:
        door.start(name, id_)
        assert door.http.get(f"{M}/instances/{id_}?wait=60", headers=as_key(ADMIN)).status_code == 200
        return {"id": id_}

    return prepare


def unknown(_: Door, id_: str) -> dict[str, str]:
    return {"id": id_, "name": "echo"}


def entity(door: Door, id_: str) -> dict[str, str]:
    found = door.http.post(f"{M}/entities/Counter/{id_}?op=add", json=1, headers=as_key(ADMIN))
    assert found.status_code == 202, found.text
    return {"name": "Counter", "key": id_}


def key(door: Door, _: str) -> dict[str, str]:
    return {"key_id": door.key("read", name="spare")[4:12]}


def dead_letter(door: Door, id_: str) -> dict[str, str]:
    sent = door.http.post(f"{M}/queues/claims-in?messageId={id_}", json=1, headers=as_key(ADMIN)).json()["id"]
    assert (
        door.http.get(f"{M}/instances/{sent}?wait=60", headers=as_key(ADMIN)).json()["runtimeStatus"]
        == "Failed"
    )
    return {"queue": "claims-in", "id": sent}


def named(**names: str) -> Callable[[Door, str], dict[str, str]]:
    return lambda *_: names


DONE: dict[str, tuple[Callable[[Door, str], dict[str, str]], dict[str, Any]]] = {
    "start": (unknown, {}),
    "raise_event": (running, {"json": {"approved": True}}),
    "claim_task": (task, {}),
    "open_decisions": (task, {}),
    "release_task": (task, {}),
    "assign_task": (task, {"params": {"to": "ben@example.org"}}),
    "complete_task": (task, {"json": {"approved": True}}),
    "terminate": (running, {}),
    "suspend": (running, {}),
    "resume": (suspended, {}),
    "rewind": (ended("broken"), {}),
    "restart": (ended("echo"), {}),
    "purge": (ended("echo"), {}),
    "purge_many": (
        ended("echo"),
        {"params": {"createdTimeFrom": AWAY.isoformat(), "instanceIdPrefix": "{id}"}},
    ),
    "suspend_many": (running, {"params": {"instanceIdPrefix": "{id}"}}),
    "resume_many": (suspended, {"params": {"instanceIdPrefix": "{id}"}}),
    "terminate_many": (running, {"params": {"instanceIdPrefix": "{id}"}}),
    "rewind_many": (ended("broken"), {"params": {"instanceIdPrefix": "{id}"}}),
    "signal_entity": (entity, {"params": {"op": "add"}, "json": 1}),
    "delete_entity": (entity, {}),
    "pause_schedule": (named(name="yearly"), {}),
    "resume_schedule": (named(name="yearly"), {}),
    "run_schedule": (named(name="yearly"), {}),
    "backfill_schedule": (
        named(name="yearly"),
        {"params": {"after": AWAY.isoformat(), "until": (AWAY + timedelta(days=400)).isoformat()}},
    ),
    "send_message": (named(queue="claims-in"), {"json": 1}),
    "redeliver_message": (dead_letter, {}),
    "create_key": (named(), {"json": {"name": "new", "scopes": ["read"]}}),
    "rotate_links": (named(), {}),
    "revoke_key": (key, {}),
    "create_link": (running, {"json": {"event": "ApproverDecision"}}),
    "decide": (running, {"json": {"approved": True}}),
}
FORMS: dict[str, dict[str, str]] = {
    "suspend_many": {"filter": "?name=approval"},
    "resume_many": {"filter": "?name=approval&status=Suspended"},
    "terminate_many": {"filter": "?name=approval"},
    "rewind_many": {"filter": "?name=broken"},
    "purge_many": {"filter": "?name=echo"},
    "raise_event": {"event": "ApproverDecision", "field.approved": "true", "field.": '{"approved": true}'},
    "complete_task": {"field.approved": "true"},
    "assign_task": {"to": "ben@example.org"},
    "create_key": {"name": "new", "scope.read": "1"},
    "backfill_schedule": {"after": "2020-01-01T00:00", "until": "2021-02-04T00:00"},
    "send_message": {"message": "1", "body": "1", "field.": "1"},
}


def verbs(door: Door) -> list[tuple[Any, str]]:
    """Every route that changes something, with its method."""
    return [
        (row, method)
        for row in door.rows()
        for method in row.methods
        if method not in READS and not row.function and row.operation not in COOKIES_ONLY | {"login"}
    ]


def rows_of(door: Door, who: str) -> list[dict[str, Any]]:
    return [row for row in door.audit(top="1000") if row["who"].startswith(who)]


def filled(path: str, names: dict[str, str]) -> str:
    for name, value in names.items():
        path = path.replace(f"{{{name}}}", value).replace(f"{{{name}:path}}", value)
    assert "{" not in path, path
    return path


def prepared(door: Door, row: Any, number: int, key: str) -> tuple[str, dict[str, Any]]:
    """Where to send it, and what, so that it succeeds."""
    make, sent = DONE[row.operation]
    names = make(door, f"n{number}")
    parameters = {name: filled(value, names) for name, value in sent.get("params", {}).items()}
    return filled(row.path, {**names, "credential": key}), {**sent, "params": parameters}


def by_form(row: Any, sent: dict[str, Any], door: Door) -> dict[str, Any]:
    """The same from a page: a session, and a form that bears its token."""
    token = door.http.cookies["perdure_csrf"]
    return {"data": {**FORMS.get(row.operation, {}), "csrf": token}, "params": sent["params"]}


def as_row(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["operation"], row["outcome"], row["times"], row["address"]


def test_each_verb_by_api_rpc_and_page_is_one_row(door: Door) -> None:
    key = door.key("admin", "decide", name="actor")
    done: list[tuple[str, str]] = []
    for number, (row, method) in enumerate(verbs(door)):
        path, sent = prepared(door, row, number, key)
        before = len(rows_of(door, "actor"))
        headers = {} if "{credential}" in row.path or row.is_page else as_key(key)
        if row.is_page:
            door.http.cookies.clear()
            door.http.get("/login")
            login = {"key": key, "csrf": door.http.cookies["perdure_csrf"]}
            assert door.http.post("/login", data=login).status_code == 303
            before = len(rows_of(door, "actor"))
            sent = by_form(row, sent, door)
            if row.operation == "decide":
                sent = {"data": {"csrf": sent["data"]["csrf"], "field.approved": "true"}}

        answer = door.http.request(method, path, headers=headers, **sent)

        assert answer.status_code < 400, (row.path, answer.text)
        found = rows_of(door, "actor")
        new = found[: len(found) - before]
        assert {as_row(one) for one in new} == {(row.operation, "ok", 1, "testclient")}, (row.path, new)
        touched = [one["instance_id"] for one in new]  # what acts on many has a row for each
        assert len(new) == len(set(touched)) and (len(new) == 1 or row.operation in MANY), row.path
        done.append((method, row.path))
    assert len(done) > 40


def test_each_verb_that_is_refused_is_one_row_too(door: Door) -> None:
    """A rejected request of a known caller is recorded with caller and instance, any other only as an attempt."""
    key = door.key("function", name="nosy")
    for number, (row, method) in enumerate(verbs(door)):
        names = {"id": f"n{number}", "name": "x", "key": "x", "queue": "x", "key_id": "x", "event": "e"}
        names["task"] = "x:0"
        path = filled(row.path, {**names, "credential": key})
        before = len(rows_of(door, "nosy"))

        refused = door.http.request(method, path, headers={} if "{credential}" in row.path else as_key(key))

        assert refused.status_code == 403, row.path
        found = rows_of(door, "nosy")
        [new] = found[: len(found) - before]
        assert as_row(new) == (row.operation, "forbidden", 1, "testclient"), row.path
        assert new["instance_id"] == (f"n{number}" if "{id}" in row.path else "")


def test_each_verb_that_fails_is_one_row_with_the_error(door: Door) -> None:
    key = door.key("admin", name="actor")
    for verb in ("terminate", "suspend", "resume", "rewind", "restart"):
        for base in (M, f"/durabletask/{key}"):
            before = len(rows_of(door, "actor"))
            headers = as_key(key) if base == M else {}
            assert (
                door.http.post(f"{base}/instances/{base[1:4]}-none/{verb}", headers=headers).status_code
                == 404
            )
            found = rows_of(door, "actor")
            [new] = found[: len(found) - before]
            assert as_row(new) == (verb, "instance-not-found", 1, "testclient")


def test_strangers_leave_one_row_however_often_they_knock(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "TROUBLE", 3600.0)  # all of it is one moment, however slow the machine is
    door.gate._failures.take = lambda _: 0
    for n in range(300):
        door.http.post(f"{M}/instances/n{n}/terminate?reason={n}", headers=as_key(f"wrong-{n}"))
        door.http.post(f"{M}/instances/n{n}/terminate?sig={n}")
        door.http.post(f"{M}/instances/n{n}/terminate?reason={n}")

    found = rows_of(door, "unknown")

    assert sum(row["times"] for row in found) == 900
    assert sorted(row["times"] for row in found) == [300, 600], "equal ones are counted"
    assert {(row["instance_id"], row["outcome"]) for row in found} == {
        ("", "unauthenticated"),
        ("", "bad-link"),
    }


def test_each_signed_link_leaves_its_row(door: Door) -> None:
    links = {}
    for number, verb in enumerate(
        ("raise_event", "terminate", "suspend", "resume", "rewind", "restart", "purge")
    ):
        DONE[verb][0](door, f"l{number}")
        made = door.gate.signer.sign("raise" if verb == "raise_event" else verb, f"l{number}")
        path = f"{M}/instances/l{number}" + {"purge": "", "raise_event": "/raiseEvent/ApproverDecision"}.get(
            verb, f"/{verb}"
        )
        links[verb] = f"{path}?sig={made}"
    for number, (verb, url) in enumerate(links.items()):
        method = "DELETE" if verb == "purge" else "POST"
        assert door.http.request(method, url, **DONE[verb][1]).status_code < 300, verb
        [row] = [row for row in rows_of(door, "link") if row["operation"] == verb]
        assert (row["outcome"], row["times"]) == ("ok", 1)
        assert row["detail" if verb == "restart" else "instance_id"] == f"l{number}", (
            "a restart is a new instance"
        )


def test_signing_in_and_failing_to_are_written_down(door: Door) -> None:
    key = door.key("read", name="visitor")
    door.http.get("/login")
    token = door.http.cookies["perdure_csrf"]
    for shown in (key, "wrong", "wrong"):
        door.http.post("/login", data={"key": shown, "csrf": token})
    door.http.get(f"/?token={TOKEN}")

    found = {
        (row["who"].split(" (")[0], row["outcome"], row["times"]) for row in door.audit(operation="login")
    }

    assert found == {("visitor", "ok", 1), ("unknown", "unauthenticated", 2), ("start-up-token", "ok", 1)}


@pytest.mark.parametrize("trouble", ["expired", "spent", "another event", "another instance", "changed"])
def test_a_link_that_decides_nothing_is_written_down(door: Door, trouble: str) -> None:
    running(door, "a-1")
    running(door, "a-2")
    url = urlsplit(door.link())
    path, query = url.path, url.query
    match trouble:
        case "spent":
            assert door.http.post(f"{path}?{query}", json={"approved": True}).status_code == 202
        case "expired":
            now = door.gate.keys.now
            door.gate.keys.now = lambda: now() + 8 * 24 * 3_600 * 1_000_000
        case "another event":
            path = path.replace("ApproverDecision", "Other")
        case "another instance":
            path = path.replace("a-1", "a-2")
        case "changed":
            query = query[:-1] + ("A" if query[-1] != "A" else "B")

    looked, pressed = (
        door.http.get(f"{path}?{query}"),
        door.http.post(f"{path}?{query}", json={"approved": True}),
    )

    status, outcome = (410, "link-spent") if trouble == "spent" else (403, "bad-link")
    assert (looked.status_code, pressed.status_code) == (status, status)
    rows = door.audit(operation="decide")
    assert [row["outcome"] for row in rows] == [outcome] + ["ok"] * (trouble == "spent")
    assert door.http.get(f"{M}/instances/a-2", headers=as_key(ADMIN)).json()["runtimeStatus"] == "Running"


def test_parameters_of_a_link_are_in_its_row_without_its_signature(door: Door) -> None:
    running(door, "a-1")
    url = door.link()
    door.http.post(url, json={"approved": True})
    [(_, sig)] = parse_qsl(urlsplit(url).query)

    assert sig not in str(door.audit())
