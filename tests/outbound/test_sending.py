"""Sending over a real connection: what goes over the wire, what comes back, and where it stops."""

from __future__ import annotations

import gzip
import zlib

import pytest

import perdure as df
from perdure.errors import HttpCallError, HttpDenied, SecretNotFound
from perdure.outbound import HttpPolicy
from tests.outbound.conftest import Server, answer, asking, send


async def test_a_request_as_it_goes_over_the_wire(server: Server, local):
    server.answers["/pay?x=1"] = answer(201, b'{"id":7}', Content_Type="application/json")
    request = asking(f"{server.url}/pay?x=1", "POST", {"amount": 5, "who": "Zoë"}, {"X-Claim": "7"})
    response = await send(local, request, key="claim-7:5f3a-1:0")
    [asked] = server.asked
    assert (asked.method, asked.target) == ("POST", "/pay?x=1")
    assert asked.body == '{"amount":5,"who":"Zoë"}'.encode()
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["idempotency-key"] == "claim-7:5f3a-1:0"
    assert asked.headers["x-claim"] == "7"
    assert asked.headers["user-agent"] == "perdure"
    assert "cookie" not in asked.headers
    assert (response.status_code, response.json()) == (201, {"id": 7})
    assert response.url == f"{server.url}/pay?x=1"


async def test_text_bytes_and_an_unprintable_key(server: Server, local):
    await send(local, asking(server.url, "PUT", b"\0\1"), key="Schäden/1")
    assert server.asked[0].body == b"\0\1"
    assert server.asked[0].headers["idempotency-key"] == "Sch%C3%A4den%2F1"


@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        ("grün".encode("latin-1"), "text/plain; charset=latin-1", "grün"),
        ("grün".encode(), "text/plain", "grün"),
        ("grün".encode(), "application/problem+json", "grün"),
        ("grün".encode(), "text/plain; charset=klingon", "grün"),
        (b"gr\\xfcn", "text/plain; charset=unicode_escape", "gr\\xfcn"),
        (b"gr+APw-n", "text/plain; charset=utf-7", "gr+APw-n"),
        (b"abc", "text/plain; charset=hex", "abc"),
        (b"\x89PNG\0\xff", "image/png", None),
        (b"\xff\xfe", "text/plain", None),
    ],
)
async def test_text_is_text_and_the_rest_base64(server: Server, local, body, kind, expected):
    server.answers["/"] = answer(200, body, Content_Type=kind)
    response = await send(local, asking(f"{server.url}/"))
    assert response.is_base64 is (expected is None)
    assert response.body == body if expected is None else response.content == expected


@pytest.mark.parametrize("status", [204, 301, 400, 404, 418, 500, 503])
async def test_every_status_is_a_response(server: Server, local, status):
    server.answers["/"] = answer(status)
    assert (await send(local, asking(f"{server.url}/"))).status_code == status


# ------------------------------------------------------------------------------------------- limits


async def test_a_response_beyond_the_limit_is_given_up_while_it_comes(server: Server, local):
    server.answers["/"] = answer(200, b"x" * 2_000_000)
    with pytest.raises(HttpDenied, match="max_response"):
        await send(local, asking(f"{server.url}/"))


async def test_a_head_that_lies_about_the_length_does_not_help(server: Server, local):
    chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    server.answers["/"] = b"HTTP/1.1 200 -\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 64
    with pytest.raises(HttpDenied, match="max_response"):
        await send(local, asking(f"{server.url}/"))


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", lambda b: zlib.compress(b)[2:-4])],
)
async def test_packed_bodies_are_unpacked_and_bombs_are_not(server: Server, local, encoding, pack):
    server.answers["/"] = answer(
        200, pack(b"hello" * 1000), Content_Encoding=encoding, Content_Type="text/plain"
    )
    response = await send(local, asking(f"{server.url}/"))
    assert response.content == "hello" * 1000
    assert response.header("content-encoding") is None
    server.answers["/"] = answer(200, pack(b"\0" * 50_000_000), Content_Encoding=encoding)
    with pytest.raises(HttpDenied, match="max_response"):
        await send(local, asking(f"{server.url}/"))


async def test_a_packed_body_that_breaks_off_or_is_none_is_an_error_not_a_short_answer(server: Server, local):
    server.answers["/"] = answer(200, gzip.compress(b"hello" * 1000)[:-12], Content_Encoding="gzip")
    with pytest.raises(HttpCallError, match="is incomplete"):
        await send(local, asking(f"{server.url}/"))
    server.answers["/"] = answer(200, b"no gzip", Content_Encoding="gzip")
    with pytest.raises(HttpCallError, match="cannot be read"):
        await send(local, asking(f"{server.url}/"))
    server.answers["/"] = answer(200, b"", Content_Encoding="br")
    with pytest.raises(HttpCallError, match="did not accept"):
        await send(local, asking(f"{server.url}/"))


async def test_a_request_beyond_the_limit_is_not_sent(server: Server):
    policy = HttpPolicy(allow=["127.0.0.1"], max_request=10)
    with pytest.raises(HttpDenied, match="max_request"):
        await send(policy, asking(server.url, "POST", "x" * 20))
    assert not server.asked


async def test_a_server_that_does_not_answer_is_not_waited_for(server: Server):
    server.answers["/"] = None
    with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
        await send(HttpPolicy(allow=["127.0.0.1"], timeout=0.05), asking(f"{server.url}/"))


async def test_a_connection_that_is_refused_or_broken_says_so(server: Server, local):
    with pytest.raises(HttpCallError, match="got no response"):
        await send(local, asking("http://127.0.0.1:1/"))
    server.answers["/"] = b"HTTP/1.1 200 -\r\nContent-Length: 10\r\n\r\nhalf"
    with pytest.raises(HttpCallError, match="got no response"):
        await send(local, asking(f"{server.url}/"))
    server.answers["/"] = b"no http at all\r\n\r\n"
    with pytest.raises(HttpCallError, match="got no response"):
        await send(local, asking(f"{server.url}/"))


# ---------------------------------------------------------------------------------------- redirects


@pytest.mark.parametrize(
    ("status", "method", "after", "body"),
    [
        (301, "POST", "GET", b""),
        (302, "POST", "GET", b""),
        (303, "PUT", "GET", b""),
        (303, "HEAD", "HEAD", b""),
        (302, "PUT", "PUT", b'{"a":1}'),
        (307, "POST", "POST", b'{"a":1}'),
        (308, "POST", "POST", b'{"a":1}'),
    ],
)
async def test_redirects_follow_the_rules_for_methods(server: Server, local, status, method, after, body):
    server.answers["/a"] = answer(status, Location="/b")
    server.answers["/b"] = answer(200)
    request = asking(f"{server.url}/a", method, None if method == "HEAD" else {"a": 1})
    assert (await send(local, request)).url == f"{server.url}/b"
    assert (server.asked[1].method, server.asked[1].body) == (after, body)
    assert ("content-type" in server.asked[1].headers) is bool(body)


async def test_a_redirect_into_the_private_network_is_denied(server: Server):
    policy = HttpPolicy(allow=[f"127.0.0.1:{server.port}"], timeout=30)
    for place in ("http://127.0.0.1:1/", "http://169.254.169.254/latest/", "http://[::1]/", "//10.0.0.1/"):
        server.answers["/"] = answer(302, Location=place)
        with pytest.raises(HttpDenied):
            await send(policy, asking(f"{server.url}/"))
    for place in ("file:///etc/passwd", "gopher://127.0.0.1/", "http://a:b@127.0.0.1/"):
        server.answers["/"] = answer(302, Location=place)
        with pytest.raises(HttpDenied, match="does not follow"):
            await send(policy, asking(f"{server.url}/"))


async def test_redirects_are_followed_a_few_times_and_not_for_ever(server: Server, local):
    server.answers["/"] = answer(302, Location="/")
    with pytest.raises(HttpCallError, match="more than 5 times"):
        await send(local, asking(f"{server.url}/"))
    assert len(server.asked) == 6
    none = HttpPolicy(allow=["127.0.0.1"], max_redirects=0)
    assert (await send(none, asking(f"{server.url}/"))).status_code == 302


async def test_another_origin_gets_nothing_that_was_meant_for_the_first(server: Server, monkeypatch):
    monkeypatch.setenv("TOKEN", "canary-7b1f")
    policy = HttpPolicy(allow=["127.0.0.1", "localhost"], tokens={"api://x": "bearer-canary"}.get, timeout=30)
    elsewhere = f"http://localhost:{server.port}/b"
    server.answers["/a"] = answer(302, Location=elsewhere)
    server.answers["/same"] = answer(302, Location="/b")
    headers = {"Authorization": "Basic x", "X-Token": df.Secret("TOKEN"), "Cookie": "a=b", "X-Plain": "1"}
    await send(policy, asking(f"{server.url}/same", headers=headers))
    await send(policy, asking(f"{server.url}/a", headers=headers))
    _, same, _, other = server.asked
    assert (same.headers["authorization"], same.headers["x-token"]) == ("Basic x", "canary-7b1f")
    assert other.headers["x-plain"] == "1"
    assert not {"authorization", "x-token", "cookie"} & set(other.headers)


async def test_content_with_a_secret_is_not_carried_to_another_origin(server: Server, monkeypatch):
    monkeypatch.setenv("TOKEN", "canary-7b1f")
    policy = HttpPolicy(allow=["127.0.0.1", "localhost"], timeout=30)
    server.answers["/a"] = answer(307, Location=f"http://localhost:{server.port}/b")
    with pytest.raises(HttpDenied, match="another origin"):
        await send(policy, asking(f"{server.url}/a", "POST", {"token": df.Secret("TOKEN")}))
    assert len(server.asked) == 1


# ------------------------------------------------------------------------------------------ secrets


async def test_secrets_are_put_in_when_it_is_sent_wherever_they_stand(server: Server, local, monkeypatch):
    monkeypatch.setenv("TOKEN", 'ca"nary')
    content = {"a": [1, {"b/c~": df.Secret("TOKEN")}], "d": df.Secret("TOKEN", form="<{}>")}
    request = asking(server.url, "POST", content, {"X-T": df.Secret("TOKEN", form="Bearer {}")})
    await send(local, request)
    assert server.asked[0].headers["x-t"] == 'Bearer ca"nary'
    assert server.asked[0].body == b'{"a":[1,{"b/c~":"ca\\"nary"}],"d":"<ca\\"nary>"}'
    await send(local, asking(server.url, "POST", df.Secret("TOKEN")))
    assert server.asked[1].body == b'ca"nary'


async def test_data_that_looks_like_a_reference_is_data(server: Server, local, monkeypatch):
    monkeypatch.setenv("TOKEN", "canary-7b1f")
    for content in (
        {"$secret": "TOKEN"},
        {"name": "TOKEN", "form": "{}"},
        "Secret('TOKEN')",
        "${TOKEN}",
        "{}",
    ):
        await send(local, asking(server.url, "POST", content))
    assert not any(b"canary" in asked.body for asked in server.asked)


@pytest.mark.parametrize(
    "source",
    [{"TOKEN": "from-a-vault"}, {"TOKEN": "from-a-vault"}.get, "async"],
    ids=["dict", "def", "async def"],
)
async def test_the_application_says_where_secrets_come_from(server: Server, source):
    async def vault(name: str) -> str | None:
        return {"TOKEN": "from-a-vault"}.get(name)

    policy = HttpPolicy(allow=["127.0.0.1"], secrets=vault if source == "async" else source)
    await send(policy, asking(server.url, headers={"X-T": df.Secret("TOKEN")}))
    assert server.asked[0].headers["x-t"] == "from-a-vault"
    with pytest.raises(SecretNotFound, match="'OTHER' in HttpPolicy.secrets"):
        await send(policy, asking(server.url, headers={"X-T": df.Secret("OTHER")}))
    assert len(server.asked) == 1


@pytest.mark.parametrize("value", ["", "two\nlines", "bell\a", None])
async def test_a_secret_that_cannot_be_sent_is_not_shown_in_the_error(server: Server, value):
    policy = HttpPolicy(allow=["127.0.0.1"], secrets=lambda name: value)
    with pytest.raises(SecretNotFound) as caught:
        await send(policy, asking(server.url, headers={"X-T": df.Secret("TOKEN")}))
    assert not value or value not in str(caught.value)


async def test_a_server_that_repeats_a_secret_does_not_get_it_into_the_response(
    server: Server, monkeypatch, local
):
    monkeypatch.setenv("TOKEN", 'canary"7b1f')
    server.answers["/"] = lambda asked: answer(
        200,
        asked.body + asked.headers["x-t"].encode(),
        X_Echo=asked.headers["x-t"],
        Content_Type="text/plain",
    )
    request = asking(f"{server.url}/", "POST", [df.Secret("TOKEN")], {"X-T": df.Secret("TOKEN")})
    response = await send(local, request)
    assert "canary" not in repr(response)
    assert response.content == '["[secret]"][secret]'


async def test_a_token_is_sent_as_bearer(server: Server):
    import msgspec

    policy = HttpPolicy(allow=["127.0.0.1"], tokens=lambda resource: f"token-for-{resource}")
    request = msgspec.structs.replace(asking(server.url), token_resource="api://x")
    await send(policy, request)
    assert server.asked[0].headers["authorization"] == "Bearer token-for-api://x"


async def test_the_managed_identity_is_asked_as_app_service_serves_it(server: Server):
    from perdure.outbound.tokens import ManagedIdentity

    server.answers["/msi/token?api-version=2019-08-01&resource=api%3A%2F%2Fx"] = answer(
        200, b'{"access_token":"t0ken","expires_on":"9999999999"}'
    )
    identity = ManagedIdentity({"IDENTITY_ENDPOINT": f"{server.url}/msi/token", "IDENTITY_HEADER": "proof"})
    assert await identity("api://x") == await identity("api://x") == "t0ken"
    [asked] = server.asked
    assert asked.headers["x-identity-header"] == "proof"
    with pytest.raises(HttpCallError, match=r"HttpPolicy\.tokens") as caught:
        await identity("api://other")
    assert "proof" not in str(caught.value)


# ------------------------------------------------------------------------------------------ proxies


async def test_the_environments_proxy_is_not_used_unless_asked_for(server: Server, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert (await send(HttpPolicy(allow=["127.0.0.1"]), asking(f"{server.url}/"))).status_code == 404
    monkeypatch.setenv("http_proxy", server.url)
    through = HttpPolicy(proxy="environment", only=["jobs.example"], timeout=30)
    await send(through, asking("http://jobs.example/x"))
    assert server.asked[-1].target == "http://jobs.example/x"
    for place in ("http://other.example/", "http://169.254.169.254/"):
        with pytest.raises(HttpDenied):
            await send(through, asking(place))
    with pytest.raises(HttpDenied):
        await send(HttpPolicy(proxy=server.url), asking("http://169.254.169.254/"))
