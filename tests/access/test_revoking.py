"""Signing out and revoking a key end sessions, streams, and the links that the holder got."""

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

import perdure as df
from perdure.http.access import sessions
from perdure.http.api import streams
from perdure.http.api.instance_urls import MANAGEMENT as M
from tests.access.conftest import ADMIN, TOKEN, Door, as_key, guarded_app
from tests.access.test_limits import Reader, guarded, key_of
from tests.http.conftest import LOCAL


def signed_in(http: TestClient, key: str) -> str:
    """Sign in with a browser; returns the cookie's value."""
    opened = http.get(f"/?token={key}")
    assert opened.status_code == 303, opened.text
    [value] = [value for name, value in http.cookies.items() if "session" in name]
    return value


def sign_out(http: TestClient) -> None:
    page = http.get("/login")
    token = page.text.partition('name="csrf" value="')[2].partition('"')[0]
    assert http.post("/logout", data={"csrf": token}).status_code == 303


def opens(http: TestClient, cookie: str, path: str = "/") -> int:
    """What a copy of a cookie opens, in a browser of its own."""
    with_copy = {"cookie": f"perdure_session_7071={cookie}"}
    kept, http.cookies = http.cookies, type(http.cookies)()
    try:
        return http.get(path, headers=with_copy).status_code
    finally:
        http.cookies = kept


@pytest.mark.parametrize("who", ["key", "token", "environment"])
@pytest.mark.parametrize("path", ["/", "/keys", f"{M}/instances", "/audit"])
def test_a_copy_of_a_signed_out_cookie_opens_nothing(door: Door, who: str, path: str) -> None:
    key = {"key": door.key("admin"), "token": TOKEN, "environment": ADMIN}[who]
    cookie = signed_in(door.http, key)
    assert opens(door.http, cookie, path) == 200
    sign_out(door.http)
    assert opens(door.http, cookie, path) in (303, 401)
    assert door.audit(operation="logout")[0]["outcome"] == "ok"


def test_other_sessions_of_the_same_key_go_on(door: Door) -> None:
    key = door.key("read")
    first = signed_in(door.http, key)
    door.http.cookies.clear()
    second = signed_in(door.http, key)
    assert first != second
    sign_out(door.http)
    assert (opens(door.http, first), opens(door.http, second)) == (200, 303)


def test_signing_out_twice_or_with_a_made_up_cookie_is_no_error(door: Door) -> None:
    cookie = signed_in(door.http, door.key("read"))
    for _ in range(2):
        sign_out(door.http)
        door.http.cookies.set("perdure_session_7071", cookie, domain="localhost.local")
    door.http.cookies.set("perdure_session_7071", cookie[:-1] + "0", domain="localhost.local")
    sign_out(door.http)
    store = door.gate.signer.client.gateway.store
    assert len([name for name in store._tables.seen if name.startswith("session:")]) == 1


def test_a_session_signed_out_at_one_server_is_ended_at_all_and_after_a_restart(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/perdure.db"

    def served() -> TestClient:
        host = guarded_app().asgi(store=store, admin_key=ADMIN)
        return TestClient(host, base_url=LOCAL, follow_redirects=False)

    with served() as http:
        cookie = signed_in(http, ADMIN)
        other = signed_in(http, ADMIN)
    with served() as http:
        assert opens(http, cookie) == 200
        http.cookies.set("perdure_session_7071", cookie, domain="localhost.local")
        sign_out(http)
    with served() as http:
        assert (opens(http, cookie), opens(http, other)) == (303, 200)


def test_what_is_found_of_a_session_is_asked_again_after_a_second() -> None:
    """So another server of the hub knows of a sign-out within a second."""
    ended, now = set[str](), [0.0]
    known = sessions.Ended(lambda name: name in ended or None, lambda: now[0])  # type: ignore[arg-type, return-value]
    one = sessions.Session(1, "subject", "", "mac")
    assert not known.is_ended(one)
    ended.add(one.id)
    assert not known.is_ended(one)
    now[0] = 1.0
    assert known.is_ended(one)
    ended.clear()
    now[0] = 100.0
    assert known.is_ended(one)


def test_a_slow_read_does_not_revive_a_session_that_was_signed_out_meanwhile() -> None:
    one = sessions.Session(1, "subject", "", "mac")

    def signed_out_during_the_read(name: str) -> None:
        known.note(one, ended=True)

    known = sessions.Ended(signed_out_during_the_read, lambda: 0.0)
    assert known.is_ended(one)


def test_cookies_of_the_version_before_go_on_and_can_be_signed_out(door: Door) -> None:
    key = door.key("read")
    row = door.gate.keys._known[key[4:12]]
    expires_at = door.gate.keys.now() // 1_000_000 + 60
    old = f"{expires_at}.{row.key_id}.{sessions._mac(row.key_id, row.secret, expires_at, '')}"
    assert opens(door.http, old) == 200
    door.http.cookies.set("perdure_session_7071", old, domain="localhost.local")
    sign_out(door.http)
    assert opens(door.http, old) == 303


def test_signing_out_waits_for_the_store(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    signed_in(door.http, door.key("read"))

    async def away(memo: Any) -> None:
        raise df.StoreError("away")

    monkeypatch.setattr(door.gate._gateway, "record", away)
    page = door.http.get("/login")
    token = page.text.partition('name="csrf" value="')[2].partition('"')[0]
    assert door.http.post("/logout", data={"csrf": token}).status_code == 503


# ----------------------------------------------------------------------------------- a key is revoked


def test_a_revoked_key_takes_sessions_and_links_along(door: Door) -> None:
    key, other = door.key("operate"), door.key("operate")
    made = {
        name: door.http.post(f"{M}/orchestrators/sleeper/{name}", headers=as_key(secret)).json()
        for name, secret in (("mine", key), ("theirs", other))
    }
    event = door.http.post(
        f"{M}/instances/mine/links", json={"event": "ApproverDecision"}, headers=as_key(key)
    ).json()["url"]
    polled = door.http.get(f"{M}/instances/mine", headers=as_key(key)).headers["location"]
    again = made["mine"]["restartPostUri"]
    cookie = signed_in(door.http, key)
    door.http.cookies.clear()
    urls = [made["mine"]["statusQueryGetUri"], polled]
    assert [door.http.get(url).status_code for url in (*urls, event)] == [202, 202, 200]
    assert door.http.post(made["mine"]["terminatePostUri"].replace("{text}", "x")).status_code == 202
    restarted = door.http.post(again).json()["statusQueryGetUri"]
    assert door.http.get(restarted).status_code == 202

    door.revoke(key)

    assert [door.http.get(url).status_code for url in (*urls, event, restarted)] == [403] * 4
    assert door.http.post(again).status_code == 403
    assert opens(door.http, cookie) == 303
    assert door.http.get(made["theirs"]["statusQueryGetUri"]).status_code == 202
    door.revoke(other)
    assert door.http.get(made["theirs"]["statusQueryGetUri"]).status_code == 403


def test_links_end_with_the_key_that_expires(door: Door) -> None:
    key = door.key("operate", expires_in=60)
    links = door.http.post(f"{M}/orchestrators/sleeper/s-1", headers=as_key(key)).json()
    own = door.start("sleeper", "s-2")
    now = door.gate.keys.now
    door.gate.keys.now = lambda: now() + 61_000_000
    assert door.http.get(links["statusQueryGetUri"]).status_code == 403
    assert door.http.get(own["statusQueryGetUri"]).status_code == 202


def test_links_of_callers_without_a_key_end_with_no_key(door: Door) -> None:
    links = door.start("sleeper", "s-1")
    door.revoke(door.key("admin"))
    assert door.http.get(links["statusQueryGetUri"]).status_code == 202


@pytest.mark.parametrize("path", [f"{M}/events", f"{M}/tasks/events", f"{M}/instances/s-1/events"])
async def test_a_stream_ends_with_its_key_although_nothing_happens(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "CHECK", 0.01)
    async with guarded() as (host, access):
        await host.client.start_new("sleeper", "s-1")
        key, other = [await key_of(host, access, name) for name in ("one", "other")]
        one, two = Reader(host, path, key), Reader(host, path, other)
        await asyncio.gather(one.frames.get(), two.frames.get())
        await host.client.revoke_key(key[4:12])
        access.keys.refresh()
        await one.task
        assert not two.task.done() and access.shares._taken.total() == 1
        await two.close()
        assert access.shares._taken.total() == 0


@pytest.mark.parametrize("way", ["key", "link", "start"])
async def test_who_waits_is_told_nothing_once_their_key_is_revoked(way: str) -> None:
    async with guarded() as (host, access):
        key = (await host.client.create_key("operator", ["operate"])).secret
        access.keys.refresh()
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(host), base_url=LOCAL) as http:
            made = await http.post(f"{M}/orchestrators/approval/a-1", headers=as_key(key))
            request = {
                "key": http.build_request("GET", f"{M}/instances/a-1?wait=60", headers=as_key(key)),
                "link": http.build_request("GET", f"{made.json()['statusQueryGetUri']}&wait=60"),
                "start": http.build_request(
                    "POST",
                    f"{M}/orchestrators/approval/a-1?timeout=60&onExisting=return_existing",
                    headers=as_key(key),
                ),
            }[way]
            waiting = asyncio.create_task(http.send(request))
            while not access._in_hand._taken:  # until it has been let in
                await asyncio.sleep(0)
            await http.delete(f"{M}/keys/{key[4:12]}", headers=as_key(ADMIN))
            access.keys.refresh()  # as it does after a second
            event = f"{M}/instances/a-1/raiseEvent/ApproverDecision"
            assert (await http.post(event, json={"approved": True}, headers=as_key(ADMIN))).status_code == 202
            told = await waiting
            assert told.status_code == {"key": 401, "link": 403, "start": 202}[way]
            assert "APPROVED" not in told.text
            shown = await http.get(f"{M}/instances/a-1?wait=60", headers=as_key(ADMIN))
            assert shown.json()["output"] == "APPROVED"
