"""Secrets as they are made, kept, compared, exchanged and called back."""

import ast
import hashlib
import math
import secrets
import statistics
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

import perdure
from perdure.http.access.keys import FRESH, Keyring
from perdure.http.access.signed_urls import BadLink, Target, sign_all, verify
from perdure.http.api.instance_urls import MANAGEMENT as M
from perdure.http.principal import Refused
from perdure.model.access import digest_of, id_of, key_of
from perdure.model.records import KeyRow
from tests.access.conftest import ADMIN, LOCAL, TOKEN, Door, as_key, guarded_app
from tests.http.conftest import make_app
from tests.http.serving import served

SOURCE = Path(perdure.__file__).parent
SECRET_NAMES = {
    *("mac", "digest", "secret", "expected", "token", "key", "cookie", "sig", "signature", "password"),
    *("_token", "_admin", "_secret", "salt", "fingerprint_secret"),
}
DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


# -------------------------------------------------------------------------------------------- what a key is


def base62(number: int, length: int) -> str:
    text = ""
    for _ in range(length):
        number, digit = divmod(number, 62)
        text = DIGITS[digit] + text
    return text


def test_a_key_is_what_the_documentation_says(door: Door) -> None:
    key = door.key("read")
    body, check = key[:-6], key[-6:]

    assert len(key) == 4 + 8 + 1 + 43 + 6 and key.startswith("pdk_")
    assert base62(zlib.crc32(body.encode()), 6) == check
    assert math.log2(62**43) >= 256
    [row] = [row for row in door.gate.keys._rows() if row.key_id == key[4:12]]
    assert row.secret == hashlib.sha256(key.encode()).digest() == digest_of(key)


def test_a_key_with_a_wrong_checksum_is_none_before_anybody_looks_it_up() -> None:
    key = key_of("abcdefgh", 2**255 + 12345)

    assert id_of(key) == "abcdefgh"
    for at in range(len(key)):
        changed = key[:at] + ("x" if key[at] != "x" else "y") + key[at + 1 :]
        assert id_of(changed) is None, changed


def test_what_is_made_by_chance_is_not_made_twice(door: Door) -> None:
    keys = {door.key("read") for _ in range(20)}
    started = [
        door.http.post(f"{M}/orchestrators/echo", headers=as_key(ADMIN)).json()["id"] for _ in range(50)
    ]

    assert len({key[13:] for key in keys}) == 20
    assert len(set(started)) == 50 and all(len(bytes.fromhex(one)) == 16 for one in started)
    varying = [sum(a != b for a, b in zip(*two, strict=True)) for two in pairwise(started)]
    assert statistics.mean(varying) > 12, "most of an id is chance, not time or a count"


def test_nothing_that_is_secret_comes_with_the_package() -> None:
    for file in SOURCE.rglob("*"):
        if file.suffix in (".py", ".html", ".js", ".css", ".sql"):
            text = file.read_text()
            assert "pdk_" not in text or not [word for word in text.split('"') if id_of(word)], file
            assert "BEGIN PRIVATE KEY" not in text, file


# --------------------------------------------------------------------------------------- how it is compared


def compared_plainly(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Names of secrets on either side of == or !=, `in` and `startswith` included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
            for side in (node.left, *node.comparators):
                name = side.id if isinstance(side, ast.Name) else getattr(side, "attr", "")
                if name in SECRET_NAMES:
                    yield node.lineno, name
        if isinstance(node, ast.Attribute) and node.attr in ("startswith", "endswith"):
            name = node.value.id if isinstance(node.value, ast.Name) else ""
            if name in SECRET_NAMES - {"key"}:
                yield node.lineno, name


def test_no_module_compares_a_secret_as_if_it_were_text() -> None:
    found = {
        (file.name, name)
        for folder in ("http", "server", "engine", "model", "cli")
        for file in sorted((SOURCE / folder).rglob("*.py"))
        for _, name in compared_plainly(ast.parse(file.read_text()))
    }
    # Keys of entities; a form's token beside its own cookie; a signature's spelling, before it is judged; digests
    # of the hash chain, which everybody may know; a token that a command has read from a file of its own user.
    innocent = {
        ("entities.py", "key"),
        ("watching.py", "key"),
        ("csrf.py", "token"),
        ("signed_urls.py", "sig"),
    }
    innocent |= {
        (file, name)
        for file in ("verification.py", "recorded.py", "damaged.py")
        for name in ("digest", "expected")
    }
    innocent.add(("readings.py", "expected"))  # a type
    innocent |= {("azure_binding.py", name) for name in ("secret", "token")}
    assert found <= innocent


@pytest.mark.parametrize("module", ["access/keys", "access/signed_urls", "access/sessions", "pages/csrf"])
def test_what_decides_uses_the_comparison_in_constant_time(module: str) -> None:
    tree = ast.parse((SOURCE / "http" / f"{module}.py").read_text())
    assert [
        node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "compare_digest"
    ]


def medians(tries: dict[str, Callable[[], object]], rounds: int = 400) -> dict[str, float]:
    """The median time of each, taken in turns, so that what the machine does meanwhile hits all alike."""
    times: dict[str, list[int]] = {name: [] for name in tries}
    for _ in range(rounds):
        for name, attempt in tries.items():
            began = time.perf_counter_ns()
            attempt()
            times[name].append(time.perf_counter_ns() - began)
    return {name: statistics.median(found) for name, found in times.items()}


def refused(attempt: Callable[[], object]) -> Callable[[], object]:
    def run() -> None:
        try:
            attempt()
        except (Refused, BadLink):
            return
        raise AssertionError("it was let in")

    return run


def row_of(key: str, **changes: Any) -> KeyRow:
    found = KeyRow(key[4:12], "access", "x", "read", digest_of(key), 0, "", None, None, None)
    return found._replace(**changes)


def test_how_long_it_takes_does_not_tell_how_much_of_a_key_was_right() -> None:
    """A smoke test: the first digit wrong, the last one, all of them, or no such key take about the same time."""
    right = key_of("abcdefgh", secrets.randbits(256))
    ring = Keyring(lambda: [row_of(right)], lambda: 0, lambda: 0.0, token=TOKEN, admin_key=ADMIN)
    number = int.from_bytes(secrets.token_bytes(32), "big")
    tries = {
        "another secret": key_of("abcdefgh", number),
        "the next secret": key_of("abcdefgh", number + 1),
        "another id": key_of("hgfedcba", number),
    }
    found = medians(
        {name: refused(lambda key=key: ring.identify(key, is_local=True)) for name, key in tries.items()}
    )

    assert max(found.values()) < 2 * min(found.values()), found


def test_how_long_it_takes_does_not_tell_how_much_of_a_signature_was_right() -> None:
    target, known = Target("status", "hub", "a-1"), {"key-0001": bytes(32)}
    key: Any = {"kid": "key-0001", "secret": bytes(32)}
    sig = sign_all(["status"], "hub", "a-1", **key, expires_at=100, fingerprint=b"1234")["status"]
    near = [sig[:-at] + ("A" if sig[-at] != "A" else "B") + (sig[len(sig) - at + 1 :]) for at in (1, 12, 24)]
    tries = {f"wrong {n}": one for n, one in enumerate(near)}
    found = medians(
        {name: refused(lambda one=one: verify(one, target, known, 0)) for name, one in tries.items()}
    )

    assert max(found.values()) < 2 * min(found.values()), found


# ----------------------------------------------------------------------------------- exchanged, called back


def test_a_key_is_exchanged_under_load_and_nobody_is_refused(door: Door) -> None:
    """Two count at the same time: first the new one, then the old one goes."""
    old = door.key("operate", name="shop")
    new = door.key("operate", name="shop")

    def ask(number: int) -> int:
        key = old if number < 100 else new
        status: int = door.http.get(f"{M}/counts", headers=as_key(key)).status_code
        return status

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(ask, range(200))) == {200}
    door.revoke(old)
    assert door.http.get(f"{M}/counts", headers=as_key(old)).status_code == 401
    assert door.http.get(f"{M}/counts", headers=as_key(new)).status_code == 200


def test_a_key_that_is_revoked_elsewhere_opens_nothing_after_a_second() -> None:
    """Every server of a hub reads the rows again; a clock in the test's hands says when."""
    key, now = key_of("abcdefgh", 7), [0.0]
    rows = [row_of(key)]
    ring = Keyring(lambda: list(rows), lambda: 10**6, lambda: now[0])
    assert ring.identify(key, is_local=False).key_id == "abcdefgh"

    rows[0] = rows[0]._replace(revoked_at=1)
    now[0] += FRESH
    with pytest.raises(Refused, match="revoked"):
        ring.identify(key, is_local=False)
    assert FRESH <= 5


def test_a_new_key_opens_at_once_on_servers_that_have_not_seen_it() -> None:
    key, now = key_of("abcdefgh", 7), [0.0]
    rows: list[KeyRow] = []
    ring = Keyring(lambda: list(rows), lambda: 10**6, lambda: now[0])
    with pytest.raises(Refused):
        ring.identify(key, is_local=False)

    rows.append(row_of(key))
    now[0] += 0.2
    assert ring.identify(key, is_local=False).key_id == "abcdefgh"


def test_a_slow_read_does_not_bring_a_revoked_key_back() -> None:
    """Threads read the rows side by side: the read that began last counts, and not the one that ended last."""
    key, now = key_of("abcdefgh", 7), [0.0]
    rows, overtaken = [row_of(key)], [False]

    def read() -> list[KeyRow]:
        seen = list(rows)
        if overtaken[0]:
            overtaken[0] = False
            rows[0] = rows[0]._replace(revoked_at=1)
            now[0] += 0.1
            ring.refresh()
        return seen

    ring = Keyring(read, lambda: 10**6, lambda: now[0])
    assert ring.identify(key, is_local=False).key_id == "abcdefgh"

    now[0], overtaken[0] = now[0] + FRESH, True
    ring.refresh()
    with pytest.raises(Refused, match="revoked"):
        ring.identify(key, is_local=False)


def test_a_stream_says_nothing_more_when_its_key_is_called_back() -> None:
    host = guarded_app().asgi(store="memory:", token=TOKEN, admin_key=ADMIN)
    with served(host) as address, httpx2.Client(base_url=address, trust_env=False, timeout=20) as http:
        made = http.post(f"{M}/keys", json={"name": "x", "scopes": ["read"]}, headers=as_key(ADMIN)).json()
        http.post(f"{M}/orchestrators/sleeper/s-1", headers=as_key(ADMIN))
        live = {**as_key(made["secret"]), "Accept": "text/event-stream"}
        with http.stream("GET", f"{M}/instances/s-1/events", headers=live) as stream:
            lines = stream.iter_lines()
            assert "id:" in next(line for line in lines if line.startswith("id"))
            http.delete(f"{M}/keys/{made['key_id']}", headers=as_key(ADMIN))
            http.post(f"{M}/instances/s-1/suspend?reason=secret-9a", headers=as_key(ADMIN))
            rest = "\n".join(lines)
    assert "secret-9a" not in rest and "Suspended" not in rest


# --------------------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize("who", ["key", "function key", "link", "nobody", "session"])
def test_each_caller_has_a_rate_and_is_told_when_to_come_back(who: str) -> None:
    host = guarded_app().asgi(store="memory:", token=TOKEN, admin_key=ADMIN, rate_limit=2)
    with TestClient(host, base_url=LOCAL, follow_redirects=False) as http:
        door = Door(http, host)
        door.gate._requests._monotonic = lambda: 0.0
        door.start()
        match who:
            case "key":
                path, headers = f"{M}/counts", as_key(door.key("read"))
            case "function key":
                path, headers = "/api/others", as_key(door.key("function"))
            case "link":
                path, headers = f"{M}/instances/a-1?sig={door.gate.signer.sign('status', 'a-1')}", {}
            case "session":
                http.get(f"/?token={TOKEN}")
                path, headers = "/", {}
            case _:
                path, headers = "/healthz", {}
        door.gate._requests._buckets.clear()
        answers = [http.get(path, headers=headers) for _ in range(7)]
        statuses = [answer.status_code for answer in answers]
        other = http.get(f"{M}/counts", headers=as_key(ADMIN))

    assert [status < 400 for status in statuses] == [True] * 4 + [False] * 3, statuses
    assert statuses[4:] == [429] * 3
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers[4:])
    assert other.status_code == 200, "another caller has a rate of their own"


def test_guessing_in_every_way_is_slowed_down_alike(door: Door) -> None:
    """Keys, signatures, tokens and the form share one count for each address."""
    door.gate._failures._monotonic = lambda: 0.0
    door.start()
    door.http.get("/login")
    token = door.http.cookies["perdure_csrf"]
    guesses: list[Callable[[], Any]] = [
        lambda: door.http.get(f"{M}/counts", headers=as_key("wrong")),
        lambda: door.http.get(f"{M}/counts?code=wrong"),
        lambda: door.http.get(f"{M}/instances/a-1?sig=wrong"),
        lambda: door.http.get("/?token=wrong"),
        lambda: door.http.get("/durabletask/wrong/counts"),
        lambda: door.http.post("/login", data={"key": "wrong", "csrf": token}),
    ]
    statuses = [guess().status_code for _ in range(5) for guess in guesses]

    assert set(statuses[:20]) <= {200, 303, 401, 403} and set(statuses[20:]) == {429}
    assert door.http.get(f"{M}/counts", headers=as_key(ADMIN)).status_code == 200


async def test_a_hub_is_served_with_its_own_keys_and_no_other_hubs(tmp_path: Path) -> None:
    """Two hubs in one store: a key or link of one opens nothing of the other, whatever the query says."""
    store = f"sqlite:///{tmp_path}/two.db"
    async with make_app().running(store=store, hub="one") as client:
        key = await client.create_key("x", ["admin"])
        await client.start_new("sleeper", "s-1")
    host = make_app().asgi(store=store, hub="two", admin_key=ADMIN)
    async with (
        host.lifespan(),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(host), base_url="http://localhost") as http,
    ):
        for query in ("", "?taskHub=one", "?hub=one"):
            opened = await http.get(f"{M}/instances/s-1{query}", headers=as_key(key.secret))
            seen = await http.get(f"{M}/instances/s-1{query}", headers=as_key(ADMIN))
            assert (opened.status_code, seen.status_code) == (401, 404)
