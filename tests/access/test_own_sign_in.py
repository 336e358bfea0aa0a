"""`App(identify=...)`: people are signed in by the application, not by a key."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

import perdure as df
from perdure.http.api.instance_urls import MANAGEMENT as M
from tests.access.conftest import ADMIN, TOKEN, Door, as_key
from tests.access.test_tasks import ADA, BEN, desk_app
from tests.http.conftest import LOCAL

PROXY, STRANGER = "10.0.0.9", "10.9.9.9"


@contextmanager
def served(identify: Any, *, peer: str = PROXY, **options: Any) -> Iterator[Door]:
    app = desk_app()
    app.registry.identify = identify
    host = app.asgi(store="memory:", token=TOKEN, admin_key=ADMIN, **options)
    with TestClient(host, base_url=LOCAL, follow_redirects=False, client=(peer, 4711)) as http:
        yield Door(http, host)


def by_header(request: Any) -> df.Identity | None:
    """A sign-in as only a test has it: every client can send the header."""
    name = request.headers.get("x-test-user", "")
    roles = tuple(request.headers.get("x-test-roles", "adjuster").split(","))
    return df.Identity(name, roles) if name else None


async def by_header_async(request: Any) -> df.Identity | None:
    return by_header(request)


def signed_in(name: str, **more: str) -> dict[str, str]:
    return {"x-test-user": name, **more}


@pytest.mark.parametrize("identify", [by_header, by_header_async])
def test_people_decide_with_their_own_accounts(identify: Callable[..., Any]) -> None:
    with served(identify) as door:
        door.start("review", "r-1")
        [task] = door.http.get(f"{M}/tasks", headers=signed_in(ADA)).json()
        for name, approve in ((ADA, True), (BEN, False)):
            sent = door.http.post(
                f"{M}/tasks/{task['id']}/complete", json={"approve": approve}, headers=signed_in(name)
            )
            assert sent.status_code == 202, sent.text
        status = door.http.get(f"{M}/instances/r-1?wait=30", headers=as_key(ADMIN)).json()
        assert status["output"] == [[True, False], [ADA, BEN]]
        assert {row["who"] for row in door.audit(operation="complete_task")} == {
            f"{ADA} (signed in)",
            f"{BEN} (signed in)",
        }


def test_a_person_has_no_other_rights_than_the_sign_in_gives() -> None:
    def identify(request: Any) -> df.Identity | None:
        return df.Identity(ADA, ("adjuster",), tuple(request.headers.get("x-test-scopes", "decide").split()))

    with served(identify) as door:
        door.start("review", "r-1")
        for path in ("/instances/r-1", "/keys", "/audit", "/instances"):
            assert door.http.get(M + path).status_code == 403, path
        assert door.http.get("/", headers={"accept": "text/html"}).status_code == 403
        assert door.http.post(f"{M}/instances/r-1/terminate").status_code == 403
        operator = {"x-test-scopes": "decide operate"}
        assert door.http.get(f"{M}/instances/r-1", headers=operator).status_code == 202
        assert door.http.get(f"{M}/keys", headers=operator).status_code == 403
        assert door.http.post(f"{M}/instances/r-1/terminate", headers=operator).status_code == 202


def test_the_pages_know_the_person_and_their_forms_are_protected() -> None:
    with served(by_header) as door:
        door.start("review", "r-1")
        page = door.http.get("/inbox/r-1:0", headers=signed_in(ADA))
        assert page.status_code == 200
        assert ADA in page.text
        unprotected = door.http.post("/inbox/r-1:0/claim", headers=signed_in(ADA), data={})
        assert unprotected.status_code == 403
        csrf = door.http.cookies["perdure_csrf"]
        claimed = door.http.post("/inbox/r-1:0/claim", headers=signed_in(ADA), data={"csrf": csrf})
        assert claimed.status_code == 303, claimed.text
        [task] = door.http.get(f"{M}/tasks", headers=signed_in(BEN)).json()
        assert task["holder"] == ADA


@pytest.mark.parametrize(
    "headers",
    [{"origin": "https://elsewhere.example"}, {"sec-fetch-site": "cross-site"}, {"origin": "null"}],
)
def test_the_page_of_another_site_acts_in_the_name_of_no_person(headers: dict[str, str]) -> None:
    with served(by_header) as door:
        door.start("review", "r-1")
        answer = door.http.post(
            f"{M}/tasks/r-1:0/complete", json={"approve": True}, headers=signed_in(ADA) | headers
        )
        assert answer.status_code == 403
        embedded = door.http.get(f"{M}/tasks", headers=signed_in(ADA) | headers)
        assert embedded.status_code in (401, 403)
        followed = signed_in(ADA) | {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
        assert door.http.get("/inbox", headers=followed).status_code == 200


def test_a_key_or_a_link_in_the_request_says_who_sends_it() -> None:
    with served(by_header) as door:
        door.start("review", "r-1")
        ben = door.key("decide", "role:adjuster", name=BEN)
        sent = door.http.post(f"{M}/tasks/r-1:0/claim", headers=signed_in(ADA) | as_key(ben))
        assert sent.status_code == 202
        [task] = door.http.get(f"{M}/tasks", headers=signed_in(ADA)).json()
        assert task["holder"] == BEN
        wrong = door.http.get(f"{M}/tasks", headers=signed_in(ADA) | as_key("pdk_wrong"))
        assert wrong.status_code == 401


def broken(request: Any) -> df.Identity | None:
    raise RuntimeError("the directory is away")


@pytest.mark.parametrize(
    "identify",
    [
        broken,
        lambda request: "ada",
        lambda request: df.Identity("a\nb"),
        lambda request: df.Identity(""),
        lambda request: df.Identity(ADA, ("",)),
        lambda request: df.Identity(ADA, scopes=("everything",)),
        lambda request: df.Identity(ADA, scopes=()),
    ],
)
def test_a_sign_in_that_fails_rejects_the_request(identify: Any, caplog: pytest.LogCaptureFixture) -> None:
    with served(identify) as door:
        door.start("review", "r-1")
        answers = [door.http.get(f"{M}/tasks"), door.http.get("/inbox"), door.http.get(f"{M}/keys")]
        assert [one.status_code for one in answers] == [500, 500, 500]
        assert "the application's own sign-in failed" in answers[0].json()["detail"]
        assert "App(identify=...) failed" in caplog.text
        assert {row["outcome"] for row in door.audit(who="unknown")} == {"sign-in-failed"}
        assert door.http.get(f"{M}/tasks", headers=as_key(ADMIN)).status_code == 200, "keys still work"


def test_a_request_without_a_person_needs_a_key() -> None:
    with served(lambda request: None) as door:
        door.key("read")
        assert door.http.get(f"{M}/tasks").status_code == 401


def test_behind_an_access_control_of_the_application_the_person_has_a_name() -> None:
    with served(by_header, access="open") as door:
        door.http.post(f"{M}/orchestrators/review/r-1")
        assert door.http.post(f"{M}/tasks/r-1:0/claim", headers=signed_in(ADA)).status_code == 202
        [task] = door.http.get(f"{M}/tasks").json()
        assert task["holder"] == ADA


# ------------------------------------------------------------------------------------------- a reverse proxy

BY_PROXY = df.proxy_identity(
    "X-Auth-Request-Email", roles_header="X-Auth-Request-Groups", scopes={"ops": ("operate",)}
)


def through(name: str, groups: str = "adjuster", **more: str) -> dict[str, str]:
    told = {"x-auth-request-email": name, "x-auth-request-groups": groups, "x-forwarded-for": "203.0.113.7"}
    return told | more


def test_a_listed_proxy_says_who_is_signed_in() -> None:
    with served(BY_PROXY, trusted_proxies=[PROXY]) as door:
        door.start("review", "r-1")
        [task] = door.http.get(f"{M}/tasks", headers=through(ADA)).json()
        assert task["roles"] == ["adjuster"]
        assert door.http.get(f"{M}/tasks", headers=through(ADA, "other, supervisor")).json() == []
        assert door.http.get(f"{M}/instances/r-1", headers=through(ADA)).status_code == 403
        assert door.http.get(f"{M}/instances/r-1", headers=through(ADA, "adjuster,ops")).status_code == 202
        assert door.http.get(f"{M}/tasks", headers=through("")).status_code == 401


@pytest.mark.parametrize("trusted", [[], ["10.0.0.0/30"]])
def test_the_header_of_any_other_peer_is_ignored(trusted: list[str]) -> None:
    with served(BY_PROXY, peer=STRANGER, trusted_proxies=trusted) as door:
        door.key("read")
        for headers in (through(ADA), through(ADA) | {"x-forwarded-for": PROXY}, through(ADA, "ops")):
            assert door.http.get(f"{M}/tasks", headers=headers).status_code == 401


def test_a_proxy_that_passes_on_the_header_of_its_client_is_not_believed() -> None:
    with served(BY_PROXY, trusted_proxies=[PROXY]) as door:
        doubled = [*httpx2.Headers(through(ADA)).raw, (b"x-auth-request-email", BEN.encode())]
        answer = door.http.get(f"{M}/tasks", headers=doubled)
        assert (answer.status_code, answer.json()["code"]) == (500, "sign-in-failed")


def test_the_application_takes_the_sign_in() -> None:
    assert df.App("a", identify=by_header).registry.identify is by_header
    assert df.App("a").registry.identify is None


def test_the_page_of_keys_gives_roles(door: Door) -> None:
    door.http.post("/login", data={"key": ADMIN, "csrf": csrf_of(door)})
    form = {"csrf": csrf_of(door), "name": ADA, "scope.decide": "1", "roles": "adjuster, supervisor,"}
    made = door.http.post("/keys", data=form)
    assert made.status_code == 201, made.text
    [key] = [one for one in door.http.get(f"{M}/keys", headers=as_key(ADMIN)).json() if one["name"] == ADA]
    assert key["scopes"] == ["decide", "role:adjuster", "role:supervisor"]
    wrong = door.http.post("/keys", data=form | {"scope.decide": "", "roles": "two words"})
    assert wrong.status_code == 400


def csrf_of(door: Door) -> str:
    door.http.get("/login")
    return door.http.cookies["perdure_csrf"]
