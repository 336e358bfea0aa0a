"""Signed links: what they open, and that nothing about them can be changed."""

import base64
import hashlib
import re
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.http.access.signed_urls import (
    OPERATIONS,
    BadLink,
    Target,
    fingerprint_of,
    sign_all,
    verify,
)
from perdure.http.api.instance_urls import MANAGEMENT as M
from tests.access.conftest import ADMIN, Door, as_key

SECRET = bytes(range(32))
NOW = 1_800_000_000
TARGET = Target("raise", "claims", "claim-1", "ApproverDecision")


def made(target: Target = TARGET, nonce: bytes = b"", expires_at: int = NOW + 60) -> str:
    signed = sign_all(
        [target.operation],
        target.hub,
        target.instance_id,
        target.event,
        kid="key-0001",
        secret=SECRET,
        expires_at=expires_at,
        fingerprint=b"\1\2\3\4",
        nonce=nonce,
    )
    return signed[target.operation]


@pytest.mark.parametrize("nonce", [b"", bytes(range(9))])
def test_links_that_are_made_together_are_what_each_would_be_alone(nonce: bytes) -> None:
    together = sign_all(
        list(OPERATIONS),
        "claims",
        "claim-1",
        "Decision",
        kid="key-0001",
        secret=SECRET,
        expires_at=NOW + 60,
        fingerprint=b"\1\2\3\4",
        nonce=nonce,
    )

    assert len(set(together.values())) == len(OPERATIONS)
    for operation, sig in together.items():
        target = Target(operation, "claims", "claim-1", "Decision")
        assert sig == made(target, nonce)
        assert verify(sig, target, {"key-0001": SECRET}, NOW).nonce == nonce.hex()


def by_hand(target: Target, record: bytes) -> bytes:
    """The MAC as the module describes it, put together without the module."""
    parts = [b"perdure link", record, OPERATIONS[target.operation].encode(), target.operation.encode()]
    parts += [target.hub.encode(), target.instance_id.encode(), target.event.encode()]
    text = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in SECRET.ljust(64, b"\0")) + text).digest()
    return hashlib.sha256(bytes(b ^ 0x5C for b in SECRET.ljust(64, b"\0")) + inner).digest()[:18]


@pytest.mark.parametrize("nonce", [b"", bytes(range(9))])
@pytest.mark.parametrize("target", [TARGET, Target("decide", "h", "ä/ü", "x"), Target("status", "", "", "")])
def test_a_signature_is_what_rfc_2104_says_it_is(target: Target, nonce: bytes) -> None:
    raw = base64.urlsafe_b64decode(made(target, nonce))

    assert (
        raw[:-18]
        == bytes([0x81 if nonce else 0x01])
        + b"key-0001"
        + (NOW + 60).to_bytes(5, "big")
        + b"\1\2\3\4"
        + nonce
    )
    assert raw[-18:] == by_hand(target, raw[:-18])


def test_openssl_makes_the_same_signature() -> None:
    """Its record and fields, each with its length, through `openssl dgst -sha256 -mac HMAC`."""
    assert made() == "AWtleS0wMDAxAGtJ0jwBAgMEZUzTjiNqgftYC7cIEDdAjgga"


def test_a_link_is_found_true_until_the_second_it_expires() -> None:
    sig = made()

    assert verify(sig, TARGET, {"key-0001": SECRET}, NOW + 59).fingerprint == b"\1\2\3\4"
    for now in (NOW + 60, NOW + 61, NOW + 10**9):
        with pytest.raises(BadLink, match="expired"):
            verify(sig, TARGET, {"key-0001": SECRET}, now)


@pytest.mark.parametrize("nonce", [b"", bytes(range(9))])
def test_every_bit_of_a_signature_counts(nonce: bytes) -> None:
    sig = made(nonce=nonce)

    for at in range(len(sig)):
        for bit in range(8):
            changed = sig[:at] + chr(ord(sig[at]) ^ 1 << bit) + sig[at + 1 :]
            with pytest.raises(BadLink):
                verify(changed, TARGET, {"key-0001": SECRET}, NOW)


@pytest.mark.parametrize(
    "spoiled",
    ["", "=", "A", " {}", "{} ", "{}=", "{}==", "{}\n", "{}AAAA", "{0}{0}", "é{}", "{}%00", "\0{}"],
)
def test_one_record_has_one_spelling(spoiled: str) -> None:
    with pytest.raises(BadLink):
        verify(spoiled.format(made()), TARGET, {"key-0001": SECRET}, NOW)


TEXTS = st.text(max_size=6)
TARGETS = st.builds(Target, st.sampled_from(sorted(OPERATIONS)), TEXTS, TEXTS, TEXTS)


@given(TARGETS, TARGETS)
def test_a_link_for_one_thing_is_none_for_another(one: Target, other: Target) -> None:
    if one == other:
        assert verify(made(one), other, {"key-0001": SECRET}, NOW).kid == "key-0001"
    else:
        with pytest.raises(BadLink):
            verify(made(one), other, {"key-0001": SECRET}, NOW)


def test_where_a_name_ends_counts() -> None:
    with pytest.raises(BadLink):
        verify(
            made(Target("raise", "ab", "c", "d")), Target("raise", "a", "bc", "d"), {"key-0001": SECRET}, NOW
        )


def test_another_key_or_none_verifies_nothing() -> None:
    for keys in ({}, {"key-0002": SECRET}, {"key-0001": SECRET[::-1]}, {"key-0001": b""}):
        with pytest.raises(BadLink, match="its key was revoked"):
            verify(made(), TARGET, keys, NOW)


def test_an_instance_is_known_by_its_chance_and_not_by_its_id() -> None:
    assert fingerprint_of(b"salt-1") != fingerprint_of(b"salt-2")
    assert len(fingerprint_of(b"salt-1")) == 4


# --------------------------------------------------------------------------------------- over HTTP


def test_a_start_hands_out_links_that_each_open_one_operation(door: Door) -> None:
    links = door.start()
    filled = {"{eventName}": "ApproverDecision", "{text}": "why"}
    urls = {name: re.sub(r"\{\w+\}", lambda found: filled[found[0]], url) for name, url in links.items()}

    for name, url in urls.items():
        if name != "id":
            assert "code=" not in url and ADMIN not in url
    assert door.http.get(urls["statusQueryGetUri"]).status_code == 202
    for name in ("suspendPostUri", "resumePostUri"):
        assert door.http.post(urls[name]).status_code == 202, name
    assert door.http.post(urls["sendEventPostUri"], json={"approved": True}).status_code == 202
    door.http.get(f"{M}/instances/a-1?wait=60", headers=as_key(ADMIN))
    assert door.http.post(urls["restartPostUri"]).status_code == 202
    assert door.http.delete(urls["purgeHistoryDeleteUri"]).status_code == 200


def test_a_leaked_status_link_shows_one_instance_and_operates_nothing(door: Door) -> None:
    door.start("sleeper", "a-2")
    links = door.start()
    sig = parse_qsl(urlsplit(links["statusQueryGetUri"]).query)[0][1]
    tried = 0

    door.gate._failures.take = lambda _: 0
    for row in door.rows():
        for instance_id in ("a-1", "a-2"):
            for method in row.methods:
                path = row.path.replace("{id}", instance_id).replace("{event:path}", "ApproverDecision")
                path = path.replace("{name}", "echo").replace("{key}", "k").replace("{key_id}", "k")
                answer = door.http.request(method, f"{path}?sig={sig}")
                tried += 1
                if (row.path, method, instance_id) == (f"{M}/instances/{{id}}", "GET", "a-1"):
                    assert answer.status_code == 202
                elif row.scope != "open":
                    # Where the path has a key in it, that is what is wrong.
                    refused = 401 if "{credential}" in row.path else 403
                    assert answer.status_code == refused, (row, method, answer)
    assert tried > 80


def test_no_bit_of_a_signed_url_can_be_changed(door: Door) -> None:
    url = urlsplit(door.start()["statusQueryGetUri"])
    address = f"{url.path}?{url.query}"
    door.gate._failures.take = lambda _: 0
    assert door.http.get(address).status_code == 202

    for at in range(len(address)):
        for bit in range(7):
            changed = address[:at] + chr(ord(address[at]) ^ 1 << bit) + address[at + 1 :]
            assert _asked(door, changed) in (400, 401, 403, 404, 405, 303), (at, bit, changed)


def _asked(door: Door, address: str) -> int:
    """Send it as it is: a client that tidies up would undo what the test has changed."""
    path, _, query = address.partition("?")
    return _raw(door, "GET", path.encode(), query.encode())


def _raw(door: Door, method: str, path: bytes, query: bytes) -> int:
    """One request with exactly these bytes for its path and query, as a server would hand it over."""
    status: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            status.append(message["status"])

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote_to_bytes(path).decode("utf-8", "surrogateescape"),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": [(b"host", b"localhost:7071")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 7071),
    }
    door.http.portal.call(door.host, scope, receive, send)
    return status[0]


@pytest.mark.parametrize(
    "spelling",
    [
        "{m}/Instances/a-1?{q}",
        "{m}/instances/A-1?{q}",
        "{m}/instances/a-1/?{q}",
        "{m}//instances/a-1?{q}",
        "{m}/instances//a-1?{q}",
        "{m}/instances/./a-1?{q}",
        "{m}/instances/a-2/../a-1?{q}",
        "{m}/instances/a-2/%2e%2e/a-1?{q}",
        "{m}/instances/a-1%00?{q}",
        "{m}/instances/a-1%20?{q}",
        "{m}/instances/a-1.?{q}",
        "{m}/instances/a-1;x=1?{q}",
        "{m}/instances/a-1%2f?{q}",
        "{m}/instances/%ff%fe?{q}",
        "{m}/instances/a-1?{q}&{q}",
        "{m}/instances/a-1?{q}&sig=x",
        "{m}/instances/a-1?sig=x&{q}",
        "{m}/instances/a-1?{q}&code=x",
        "{m}/instances/a-1?SIG={s}",
        "{m}/instances/a-1?sig[]={s}",
        "{m}/instances/a-1?sig={s}%3D",
        "{m}/instances/a-1?sig=%20{s}",
        "{m}/instances/a-1#?{q}",
    ],
)
def test_tricks_with_path_and_query_open_nothing(door: Door, spelling: str) -> None:
    query = urlsplit(door.start()["statusQueryGetUri"]).query
    address = spelling.format(m=M, q=query, s=query.removeprefix("sig="))

    assert _asked(door, address) in (400, 401, 403, 404), address


def test_headers_that_claim_another_path_or_method_change_nothing(door: Door) -> None:
    url = door.start()["statusQueryGetUri"]
    claims = {
        "X-HTTP-Method-Override": "DELETE",
        "X-Original-URL": f"{M}/instances",
        "X-Rewrite-URL": f"{M}/instances",
        "X-Forwarded-For": "127.0.0.1",
    }

    assert door.http.get(url, headers=claims).json()["instanceId"] == "a-1"


def test_a_link_dies_with_its_instance_and_does_not_open_the_next_of_that_name(door: Door) -> None:
    links = door.start("echo")
    status, terminate = links["statusQueryGetUri"], links["terminatePostUri"]
    door.http.get(f"{M}/instances/a-1?wait=60", headers=as_key(ADMIN))
    assert door.http.delete(f"{M}/instances/a-1", headers=as_key(ADMIN)).status_code == 200
    gone = door.http.get(status)
    again = door.start()

    assert gone.status_code == 404
    assert door.http.get(status).status_code == 404
    assert door.http.post(terminate).status_code == 404
    assert door.http.get(again["statusQueryGetUri"]).status_code == 202


def test_links_outlive_a_new_signing_key_and_end_with_the_revoked_one(door: Door) -> None:
    old = door.start()["statusQueryGetUri"]
    [first] = door.http.get(f"{M}/keys/links", headers=as_key(ADMIN)).json()
    assert door.http.post(f"{M}/keys/links", headers=as_key(ADMIN)).status_code == 201
    new = door.start(instance_id="a-2")["statusQueryGetUri"]
    assert [door.http.get(url).status_code for url in (old, new)] == [202, 202]

    door.http.delete(f"{M}/keys/{first['key_id']}", headers=as_key(ADMIN))

    assert [door.http.get(url).status_code for url in (old, new)] == [403, 202]


def test_revoking_the_only_signing_key_calls_its_links_back_and_leaves_one_to_sign_with(door: Door) -> None:
    old = door.start()["statusQueryGetUri"]

    def signing() -> list[dict[str, Any]]:
        keys = door.http.get(f"{M}/keys/links", headers=as_key(ADMIN)).json()
        return [key for key in keys if key["revoked_time"] is None]

    [first] = signing()
    door.revoke(f"pdk_{first['key_id']}")
    door.revoke(f"pdk_{first['key_id']}")  # once more changes nothing
    new = door.start(instance_id="a-2")["statusQueryGetUri"]

    assert [door.http.get(url).status_code for url in (old, new)] == [403, 202]
    [second] = signing()
    assert second["key_id"] != first["key_id"]


def test_a_signing_key_is_no_access_key_and_its_secret_is_never_told(door: Door) -> None:
    door.start()
    [row] = [row for row in door.gate.keys._rows() if row.kind == "link"]
    listed = door.http.get(f"{M}/keys/links", headers=as_key(ADMIN)).text

    assert "secret" not in listed
    assert door.http.get(f"{M}/instances", headers=as_key(row.secret.hex())).status_code == 401


def test_a_link_lasts_as_long_as_it_says(door: Door) -> None:
    url = door.link(door.start()["id"], expires_in=60)
    now = door.gate.keys.now

    door.gate.keys.now = lambda: now() + 58_000_000
    assert door.http.get(url).status_code == 200
    door.gate.keys.now = lambda: now() + 61_000_000
    assert door.http.get(url).status_code == 403
