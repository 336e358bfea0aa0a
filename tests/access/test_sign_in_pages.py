"""Signing in with a browser, what a session opens, and the pages about keys and the audit log."""

import re

import pytest

from perdure.http.api.instance_urls import MANAGEMENT as M
from tests.access.conftest import ADMIN, TOKEN, Door, as_key


def form_token(door: Door, path: str = "/login") -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', door.http.get(path).text)
    assert found
    return found[1]


def sign_in(door: Door, key: str, wanted: str = "") -> int:
    form = {"key": key, "csrf": form_token(door), "next": wanted}
    return door.http.post("/login", data=form).status_code


def test_the_printed_address_signs_in_and_drops_its_token(door: Door) -> None:
    answer = door.http.get(f"/?token={TOKEN}&status=Running")

    assert answer.status_code == 303
    assert answer.headers["location"] == "/?status=Running"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=lax" in cookie and TOKEN not in cookie
    assert door.http.get("/").status_code == 200


def test_a_wrong_token_signs_nobody_in(door: Door) -> None:
    assert door.http.get("/?token=wrong").status_code == 303
    assert door.http.get("/").status_code == 303


def test_a_page_leads_to_the_form_and_back(door: Door) -> None:
    door.start()
    there = door.http.get("/instances/a-1?x=1").headers["location"]
    assert there == "/login?next=%2Finstances%2Fa-1%3Fx%3D1"

    form = {"key": door.key("read"), "csrf": form_token(door, there), "next": "/instances/a-1?x=1"}
    answer = door.http.post("/login", data=form)

    assert answer.headers["location"] == "/instances/a-1?x=1"
    assert door.http.get("/instances/a-1").status_code == 200


@pytest.mark.parametrize(
    "wanted", ["//evil.example", "/\\evil.example", "https://evil.example", "javascript:x", ""]
)
def test_signing_in_leads_to_no_other_site(door: Door, wanted: str) -> None:
    form = {"key": TOKEN, "csrf": form_token(door), "next": wanted}

    assert door.http.post("/login", data=form).headers["location"] == "/"


def test_a_session_looks_but_the_api_changes_nothing_for_it(door: Door) -> None:
    """A foreign page can make a browser send a cookie; it cannot make it send a key."""
    assert sign_in(door, door.key("admin")) == 303

    assert door.http.get(f"{M}/instances").status_code == 200
    assert door.http.post(f"{M}/orchestrators/echo/x-1").status_code == 401
    assert door.http.delete(f"{M}/instances/x-1").status_code == 401
    assert door.http.post("/keys", data={"name": "x", "scope.read": "1"}).status_code == 403


def test_the_pages_show_only_what_the_caller_may(door: Door) -> None:
    door.start()
    sign_in(door, door.key("read"))
    page = door.http.get("/instances/a-1").text

    assert "Terminate" not in page
    assert 'name="event"' not in page
    assert 'href="/keys"' not in page
    assert door.http.get("/keys").status_code == 403

    sign_in(door, door.key("operate"))
    assert "Terminate" in door.http.get("/instances/a-1").text


def test_a_session_ends_with_its_key_and_when_signing_out(door: Door) -> None:
    key = door.key("read")
    sign_in(door, key)
    assert door.http.get("/").status_code == 200
    door.revoke(key)
    assert door.http.get("/").status_code == 303

    sign_in(door, TOKEN)
    door.http.post("/logout", data={"csrf": form_token(door, "/")})
    assert door.http.get("/").status_code == 303


def test_a_session_cannot_be_made_up_or_stretched(door: Door) -> None:
    sign_in(door, door.key("read"))
    [(name, value)] = [(k, v) for k, v in door.http.cookies.items() if "session" in k]
    expires, subject, mac = value.split(".")
    door.http.cookies.clear()

    for forged in (
        f"{int(expires) + 9}.{subject}.{mac}",
        f"{expires}.start-up-token.{mac}",
        f"{expires}.{subject}.{'0' * 64}",
        f"{expires}.{subject}.{mac[:-1]}",
        "",
    ):
        assert door.http.get("/", headers={"Cookie": f"{name}={forged}"}).status_code == 303
    assert door.http.get("/", headers={"Cookie": f"{name}={value}"}).status_code == 200
    now = door.gate.keys.now
    door.gate.keys.now = lambda: now() + 13 * 3_600 * 1_000_000
    assert door.http.get("/", headers={"Cookie": f"{name}={value}"}).status_code == 303


def test_a_key_is_made_on_the_page_shown_once_and_revoked(door: Door) -> None:
    sign_in(door, TOKEN)
    token = form_token(door, "/keys")
    made = door.http.post("/keys", data={"csrf": token, "name": "Ada", "scope.read": "1", "expires": "86400"})
    found = re.search(r"pdk_(\w{8})_\w+", made.text)
    assert made.status_code == 201 and found

    assert door.http.get(f"{M}/instances", headers=as_key(found[0])).status_code == 200
    assert found[0] not in door.http.get("/keys").text
    assert door.http.post(f"/keys/{found[1]}/revoke", data={"csrf": token}).status_code == 303
    assert door.http.get(f"{M}/instances", headers=as_key(found[0])).status_code == 401


def test_the_audit_page_tells_who_did_what(door: Door) -> None:
    key = door.key("operate", name="support <desk>")
    door.http.post(f"{M}/orchestrators/approval/a-1", headers=as_key(key))
    sign_in(door, TOKEN)

    page = door.http.get("/audit?instance=a-1").text

    assert "support &lt;desk&gt;" in page
    assert "start" in page and "testclient" in page


# ------------------------------------------------------------------------------------ the audit log


def test_every_management_call_is_written_down(door: Door) -> None:
    key = door.key("operate", name="desk")
    headers = as_key(key)
    door.http.post(f"{M}/orchestrators/approval/a-1", headers=headers)
    door.http.post(f"{M}/instances/a-1/suspend?reason=lunch", headers=headers)
    door.http.post(f"{M}/instances/none/terminate", headers=headers)
    for _ in range(3):
        door.http.get(f"{M}/instances/a-1", headers=headers)
    door.http.delete(f"{M}/instances/a-1", headers=headers)

    rows = door.audit()

    found = {(r["operation"], r["instance_id"], r["detail"], r["outcome"], r["times"]) for r in rows}
    assert ("start", "a-1", "approval", "ok", 1) in found
    assert ("suspend", "a-1", "lunch", "ok", 1) in found
    assert ("terminate", "none", "", "instance-not-found", 1) in found
    assert ("get_instance", "a-1", "", "ok", 3) in found
    assert ("purge", "a-1", "", "forbidden", 1) in found
    assert {r["who"] for r in rows if r["operation"] == "start"} == {f"desk (key {key[4:12]})"}


def test_the_audit_log_goes_on_page_by_page(door: Door) -> None:
    for n in range(5):
        door.start("echo", f"e-{n}")
    first = door.http.get(f"{M}/audit?operation=start&top=3", headers=as_key(ADMIN)).json()
    rest = door.audit(operation="start", continuation=first["continuation"])

    assert [r["instance_id"] for r in [*first["records"], *rest]] == ["e-4", "e-3", "e-2", "e-1", "e-0"]


@pytest.mark.parametrize("query", ["top=0", "top=x", "top=9999", "since=yesterday", "continuation=x"])
def test_a_question_that_cannot_be_meant_is_refused(door: Door, query: str) -> None:
    assert door.http.get(f"{M}/audit?{query}", headers=as_key(ADMIN)).status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        {"name": "", "scopes": ["read"]},
        {"name": "x", "scopes": []},
        {"name": "x", "scopes": ["root"]},
        {"name": "x\n", "scopes": ["read"]},
        {"name": "x", "scopes": ["read"], "expires_in": -1},
        {"name": "x", "scopes": ["read"], "secret": "mine"},
        {"name": "x", "scopes": ["read"], "created_by": "me"},
        {"scopes": ["read"]},
        [],
        None,
    ],
)
def test_a_key_that_cannot_be_is_not_made(door: Door, body: object) -> None:
    assert door.http.post(f"{M}/keys", json=body, headers=as_key(ADMIN)).status_code == 400


# ------------------------------------------------------------------------------------------ secrets


def test_no_secret_is_written_anywhere(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    """A canary in keys, links and inputs: not in logs, errors, the audit log, metrics or other people's pages."""
    caplog.set_level(0)
    key, canary = door.key("operate"), "canary-7f3a"
    door.http.post(f"{M}/orchestrators/echo/e-1", json=canary, headers=as_key(key))
    door.http.post(f"{M}/orchestrators/broken/b-1", json=canary, headers=as_key(key))
    link = door.link(door.start()["id"])
    sig = link.partition("sig=")[2]
    answers = [
        door.http.get(f"{M}/instances?code={key[:-1]}"),
        door.http.post(f"{M}/orchestrators/none/x-1", json=canary, headers=as_key(key)),
        door.http.post(f"{M}/instances/a-1/raiseEvent/ApproverDecision", json=canary, headers=as_key(key)),
        door.http.get(link.replace("sig=", "sig=A")),
        door.http.post(link, json={"approved": canary}),
        door.http.get(f"/nowhere?code={key}"),
        door.http.get(f"/durabletask/{key}/instances/none"),
        door.http.get(f"/durabletask/{key}/instances?top=x"),
    ]
    assert all(answer.status_code >= 400 for answer in answers), answers
    said = [answer.text for answer in answers] + [record.getMessage() for record in caplog.records]
    said += [str(door.audit()), door.http.get("/healthz").text]
    said += [door.http.get(f"{M}/keys", headers=as_key(ADMIN)).text]
    own = f"http://localhost:7071{M}"  # httpx logs its own requests; that is the client, not the server
    for text in said:
        if "HTTP Request:" in text and (own in text or "localhost" in text):
            continue
        for secret in (key, key[13:], canary, sig, ADMIN, TOKEN):
            assert secret not in text, text


def test_what_is_stored_of_a_key_does_not_open(door: Door) -> None:
    key = door.key("read")
    [row] = [row for row in door.gate.keys._rows() if row.key_id == key[4:12]]

    assert key.encode() not in row.secret and len(row.secret) == 32
    assert door.http.get(f"{M}/instances", headers=as_key(row.secret.hex())).status_code == 401


# ------------------------------------------------------------------------------------------- limits


def test_failed_attempts_are_slowed_down_and_the_right_key_still_opens(door: Door) -> None:
    key = door.key("read")
    answers = [door.http.get(f"{M}/instances", headers=as_key("wrong")) for _ in range(25)]

    assert [answer.status_code for answer in answers] == [401] * 20 + [429] * 5
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert door.http.get(f"{M}/instances", headers=as_key(key)).status_code == 200
    assert len(door.audit(operation="list_instances")) <= 4


def test_a_caller_who_asks_too_much_is_told_when_to_come_back() -> None:
    from starlette.testclient import TestClient

    from tests.access.conftest import LOCAL, guarded_app

    host = guarded_app().asgi(store="memory:", admin_key=ADMIN, rate_limit=1)
    with TestClient(host, base_url=LOCAL) as http:
        found = [http.get(f"{M}/counts", headers=as_key(ADMIN)) for _ in range(4)]
        open_ = http.get("/healthz")

    assert [answer.status_code for answer in found] == [200, 200, 429, 429]
    assert found[-1].headers["retry-after"] == "1"
    assert open_.status_code == 200  # another caller


@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        ({"x-long": "x" * 40_000}, "", 431),
        ({f"x-{n}": "y" * 100 for n in range(400)}, "", 431),
        ({}, "?" + "a=1&" * 10_000, 414),
        ({}, "?" + "x" * 20_000, 414),
    ],
)
def test_oversized_requests_are_refused_before_anybody_reads_them(
    door: Door, headers: dict[str, str], query: str, status: int
) -> None:
    assert door.http.get(f"{M}/instances{query}", headers=headers).status_code == status


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip"])
def test_compressed_bodies_are_refused(door: Door, encoding: str) -> None:
    headers = {**as_key(ADMIN), "Content-Encoding": encoding}

    assert door.http.post(f"{M}/orchestrators/echo", content=b"x", headers=headers).status_code == 415


@pytest.mark.parametrize(
    "body", [b"[" * 5_000, b'{"a":1,"a":2}', b"NaN", b'"\xff"', b"1e999999", b"\x80\x04K\x01."]
)
def test_traps_in_bodies_are_refused(door: Door, body: bytes) -> None:
    answer = door.http.post(f"{M}/orchestrators/echo/t-1", content=body, headers=as_key(ADMIN))

    assert answer.status_code == 400
