"""Behind a proxy: forwarded headers count from listed ones only, and links lead where callers can go."""

from typing import Any

import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

import perdure as df
from perdure.http.proxies import NOBODY
from tests.http.conftest import LOCAL, M, make_app


def app_that_tells() -> df.App:
    app = make_app()

    @app.route("/seen")
    async def seen(request: Request, client: df.Client) -> object:
        host = request.client.host if request.client else ""
        links = client.create_http_management_payload("x", request)
        forwarded = [name for name in request.headers if "forwarded" in name]
        return {"caller": host, "link": links["statusQueryGetUri"], "headers": forwarded}

    return app


def seen(peer: str, headers: list[tuple[str, str]], **settings: Any) -> Any:
    host = app_that_tells().asgi(store="memory:", access="open", **settings)
    with TestClient(host, base_url=LOCAL, client=(peer, 4711)) as http:
        return http.get("/api/seen", headers=headers)


LISTED: dict[str, Any] = {"trusted_proxies": ["10.0.0.0/8", "::1"], "allowed_hosts": ["claims.example"]}
TOLD = [
    ("X-Forwarded-For", "203.0.113.7"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "claims.example"),
]


def test_a_listed_proxy_is_believed() -> None:
    found = seen("10.1.2.3", TOLD, **LISTED).json()

    assert found["caller"] == "203.0.113.7"
    assert found["link"].startswith("https://claims.example/runtime/")
    assert found["headers"] == []


@pytest.mark.parametrize("peer", ["127.0.0.1", "192.0.2.1", "unix"])
def test_nobody_else_is(peer: str) -> None:
    found = seen(peer, TOLD, **LISTED).json()

    assert found["caller"] == peer
    assert found["link"].startswith(LOCAL)
    assert found["headers"] == []


@pytest.mark.parametrize(
    ("hops", "caller"),
    [
        ("127.0.0.1, 203.0.113.7", "203.0.113.7"),  # what is left of the caller is the caller's invention
        ("127.0.0.1, 203.0.113.7, 10.9.9.9", "203.0.113.7"),
        ("203.0.113.7:50000", "203.0.113.7"),
        ("[2001:db8::7]:50000, ::1", "2001:db8::7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("unknown", NOBODY),
        ("127.0.0.1, not-an-address", NOBODY),
        ("10.0.0.1", NOBODY),
        ("", NOBODY),
    ],
)
def test_the_caller_is_the_rightmost_that_is_no_proxy(hops: str, caller: str) -> None:
    assert seen("10.1.2.3", [("X-Forwarded-For", hops)], **LISTED).json()["caller"] == caller


def test_several_lines_of_a_header_are_one_list() -> None:
    headers = [("X-Forwarded-For", "127.0.0.1"), ("X-Forwarded-For", "203.0.113.9")]

    assert seen("10.1.2.3", headers, **LISTED).json()["caller"] == "203.0.113.9"


def test_a_forwarded_host_has_to_be_one_of_ours() -> None:
    headers = [("X-Forwarded-Host", "evil.example")]

    assert seen("10.1.2.3", headers, **LISTED).status_code == 403


@pytest.mark.parametrize("scheme", ["javascript", "ftp", "https evil"])
def test_another_scheme_is_none(scheme: str) -> None:
    assert seen("10.1.2.3", [("X-Forwarded-Proto", scheme)], **LISTED).json()["link"].startswith("http://")


def test_who_comes_through_a_proxy_is_not_this_machine() -> None:
    token = "the-token-of-this-very-start"
    host = make_app().asgi(store="memory:", token=token, trusted_proxies=["127.0.0.1"])
    with TestClient(host, base_url=LOCAL, client=("127.0.0.1", 4711)) as http:
        for headers in ({}, {"X-Forwarded-For": "203.0.113.7"}, {"X-Forwarded-For": "127.0.0.1"}):
            answer = http.get(f"{M}/counts", headers={**headers, "x-functions-key": token})
            assert answer.status_code in (401, 403), headers


def test_links_begin_with_the_public_address() -> None:
    found = seen("192.0.2.1", [("Host", "claims.example")], public_url="https://claims.example/durable/")

    assert found.json()["link"].startswith("https://claims.example/durable/runtime/webhooks/")


def test_a_proxy_is_an_address_or_a_network() -> None:
    with pytest.raises(df.SettingError, match="trusted_proxies"):
        make_app().asgi(store="memory:", trusted_proxies=["the-proxy"])
