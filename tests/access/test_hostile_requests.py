"""Tricks tried at every route there is, from the router: paths, headers, bodies, foreign pages.

What a route is for does not matter here. Whatever comes in, nothing opens that a key does not open, nothing
fails in the server, and every answer bears the headers that keep a browser from being used against its owner.
"""

import gzip
import json
import pickle
import re
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

import perdure as df
from perdure.http.api.instance_urls import MANAGEMENT as M
from perdure.http.guard import HEADERS
from perdure.model import payload
from tests.access.conftest import ADMIN, TOKEN, Door, as_key, guarded_app
from tests.access.test_links import _raw
from tests.http.conftest import LOCAL, Decision

SAFE = {"GET", "HEAD"}
NAMES = {
    "id": "a-1",
    "name": "echo",
    "event": "e",
    "key": "k",
    "key_id": "k",
    "queue": "q",
    "number": "7",
    "task": "a-1:0",
}


def app_with_bodies() -> df.App:
    app = guarded_app()

    @app.route("/typed", methods=["POST"])
    async def typed(decision: Decision, client: df.Client) -> str:
        return decision.comment

    @app.route("/read", methods=["POST"])
    async def read(request: Request) -> str:
        return str(len(await request.body()))

    @app.route("/json", methods=["POST"])
    async def as_json(request: Request) -> str:
        return str(await request.json())

    @app.route("/form", methods=["POST"])
    async def form(request: Request) -> str:
        return str(sorted((await request.form()).keys()))

    @app.route("/streamed", methods=["POST"])
    async def streamed(request: Request) -> str:
        return str(sum([len(chunk) async for chunk in request.stream()]))

    return app


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    host = app_with_bodies().asgi(store="memory:", token=TOKEN, admin_key=ADMIN, rate_limit=1_000_000)
    with TestClient(host, base_url=LOCAL, follow_redirects=False, raise_server_exceptions=False) as http:
        found = Door(http, host)
        found.gate._failures.take = lambda _: 0  # how often one may try is another test
        yield found


@pytest.fixture(autouse=True)
def afresh(door: Door) -> None:
    """No cookies; and the instance, which a test may have ended or purged."""
    door.http.cookies.clear()
    door.http.post(f"{M}/orchestrators/sleeper/a-1", headers=as_key(ADMIN))


def path_of(row: Any, credential: str = "none") -> str:
    names = {**NAMES, "credential": credential}
    return re.sub(r"\{(\w+)(:\w+)?\}", lambda found: names[found[1]], row.path)


def knocks(door: Door, *, changing: bool | None = None) -> Iterator[tuple[Any, str, str]]:
    """Every route with each of its methods, and its path."""
    for route in door.routes():
        row = getattr(route, "row", None)
        for method in sorted(route.methods or ()) if row else ():
            if changing is None or changing is (method not in SAFE):
                yield row, method, path_of(row)


def signed_in(door: Door, scope: str = "admin") -> None:
    door.http.cookies.clear()
    door.http.get("/login")
    form = {"key": door.key(scope), "csrf": door.http.cookies["perdure_csrf"]}
    assert door.http.post("/login", data=form).status_code == 303


# ---------------------------------------------------------------------------------------- what comes out


def assert_harmless(answer: Any) -> None:
    shown = (str(answer.request.method), str(answer.request.url), answer.status_code)
    for name, value in HEADERS.items():
        if name == "Referrer-Policy" and re.search("sig=|code=|token=", str(answer.request.url)):
            value = "strict-origin"
        assert answer.headers.get(name) == value, (name, shown)
    assert not [name for name in answer.headers if name.startswith("access-control-")], shown
    assert "server" not in answer.headers and "x-powered-by" not in answer.headers
    for cookie in answer.headers.get_list("set-cookie"):
        assert "httponly" in cookie.lower() and "samesite" in cookie.lower(), shown
    kind = answer.headers.get("content-type", "")
    if answer.content:
        assert re.fullmatch(
            r"(application/(problem\+)?json|text/(html|plain|css|javascript|event-stream)|image/svg\+xml)"
            r"(; version=0\.0\.4)?(; charset=utf-8)?",  # the version is that of Prometheus' text format
            kind,
        ), (kind, shown)
    if answer.headers.get("location"):
        assert answer.headers["location"].startswith(("/", LOCAL)), shown
        assert not answer.headers["location"].startswith("//"), shown


@pytest.mark.parametrize("shown", [None, "wrong", "function", "read", "admin"])
def test_every_answer_takes_powers_away(door: Door, shown: str | None) -> None:
    """Every response has the headers against clickjacking, sniffing, caches and foreign scripts."""
    key = door.key(shown) if shown in ("function", "read", "admin") else shown
    asked = 0
    for row, method, _ in knocks(door):
        headers = as_key(key) if key and "{credential}" not in row.path else {}
        answer = door.http.request(method, path_of(row, key or "none"), headers=headers)
        assert answer.status_code < 500, (method, row.path, answer.text)
        assert_harmless(answer)
        asked += 1
    assert asked > 120


@pytest.mark.parametrize(
    "path",
    [
        "/nowhere",
        "/static/perdure.css",
        "/static/none",
        "/static/",
        "/api/none",
        f"{M}/none",
        "/favicon.ico",
        "//",
    ],
)
@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"]
)
def test_so_does_what_is_not_there(door: Door, method: str, path: str) -> None:
    answer = door.http.request(method, path, headers=as_key(ADMIN))

    assert answer.status_code in (200, 404, 405)
    assert_harmless(answer)


@pytest.mark.parametrize(
    "value", ["a\r\nSet-Cookie: x=1", "a\nb", "\r\n\r\n<script>", "é\u2028", "\x00", "\x1b[31m"]
)
def test_nothing_that_is_sent_becomes_a_header(door: Door, value: str) -> None:
    signed_in(door)
    for row, method, path in knocks(door):
        query = dict.fromkeys(("next", "reason", "done", "taskHub", "name", "waitingFor", "version"), value)
        answer = door.http.request(method, path, params=query, headers={"Idempotency-Key": "x"})
        assert answer.status_code < 500, (method, row.path, answer.text)
        assert_harmless(answer)
        assert "set-cookie" not in answer.headers or "x=1" not in answer.headers["set-cookie"]


# ------------------------------------------------------------------------------------ paths and headers

SPELLINGS = (
    lambda path: path.upper(),
    lambda path: path + "/",
    lambda path: path + "%2f",
    lambda path: path + "%00",
    lambda path: path + "%20",
    lambda path: path + ".",
    lambda path: path + "..;/",
    lambda path: path + ";x=1",
    lambda path: path + ".json",
    lambda path: path + "?code",
    lambda path: path + "#",
    lambda path: "/" + path,
    lambda path: "/." + path,
    lambda path: "/healthz/.." + path,
    lambda path: "/healthz/%2e%2e" + path,
    lambda path: "/healthz%2f..%2f" + path[1:],
    lambda path: "/static/.." + path,
    lambda path: "/static/%2e%2e" + path,
    lambda path: "/login/..;" + path,
    lambda path: path.replace("/", "//"),
    lambda path: path.replace("/", "/./"),
    lambda path: path.replace("/", "%2f"),
    lambda path: path.replace("/", "\\"),
    lambda path: path.replace("a", "%61"),
    lambda path: path.replace("a", "%2561"),
    lambda path: path.replace("s", "%c5%bf"),  # ſ, which folds to s
    lambda path: path.replace("k", "%e2%84%aa"),  # the sign for kelvin, which folds to k
    lambda path: path.replace("i", "%c4%b0"),
)


def test_no_spelling_of_a_path_goes_round_the_gate(door: Door) -> None:
    """With no key: what answers at all is what is open, or the way to the form to sign in at."""
    open_ = {path for row, _, path in knocks(door) if row.scope == "open"}
    tried = 0
    for row, method, path in knocks(door):
        if row.scope == "open":
            continue
        for spell in SPELLINGS:
            spelled, _, query = spell(path).partition("?")
            status = _raw(door, method, spelled.encode(), query.encode())
            assert status in (303, 400, 401, 404, 405), (method, spelled, status)
            tried += 1
    assert tried > 3_000 and open_


def test_a_line_break_in_a_name_does_not_go_past_the_gate(door: Door) -> None:
    tried = 0
    for row, method, path in knocks(door):
        for name in ("a-1", "e"):
            broken = f"/{quoted(name)}%0a{quoted(name)}"
            if row.scope != "open" and "{credential}" not in row.path and path.endswith(f"/{name}"):
                status = _raw(door, method, (path.removesuffix(f"/{name}") + broken).encode(), b"")
                assert status in (303, 401), (method, row.path, status)
                tried += 1
    assert tried


@pytest.mark.parametrize(
    "path",
    [
        "/static/../host.py",
        "/static/%2e%2e/host.py",
        "/static/..%2fhost.py",
        "/static/%2e%2e%2fhost.py",
        "/static/..%5chost.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/....//host.py",
        "/static/perdure.css%00.py",
        "/static/%c0%ae%c0%ae/host.py",
    ],
)
def test_what_is_not_static_is_not_served(door: Door, path: str) -> None:
    assert _raw(door, "GET", path.encode(), b"") in (400, 404)


@pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "_method"])
def test_a_method_is_what_the_request_line_says(door: Door, name: str) -> None:
    read = door.key("read")
    for method in ("DELETE", "POST", "PURGE"):
        for sent in ({"headers": {name: method}}, {"params": {name: method}}):
            headers = {**as_key(read), **sent.get("headers", {})}
            answer = door.http.get(f"{M}/instances/a-1", headers=headers, params=sent.get("params"))
            assert answer.json()["runtimeStatus"] == "Running"


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "127.0.0.1"},
        {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"},
        {"Forwarded": "for=127.0.0.1;host=evil.example"},
        {"X-Real-IP": "127.0.0.1"},
        {"X-Original-URL": f"{M}/keys"},
        {"X-Rewrite-URL": f"{M}/keys"},
        {"X-Forwarded-Prefix": "//evil.example"},
        {"X-Forwarded-User": "admin", "X-Remote-User": "admin", "Remote-User": "admin"},
        {"X-MS-CLIENT-PRINCIPAL": "e30="},
        {"x_functions_key": ADMIN},
        {"X-Functions-Key-2": ADMIN},
        {"Proxy-Authorization": f"Bearer {ADMIN}"},
        {"Cookie": f"x-functions-key={ADMIN}; code={ADMIN}; token={TOKEN}"},
        {"Referer": f"{LOCAL}/?code={ADMIN}"},
        {"Authorization": f"Basic {ADMIN}"},
    ],
)
def test_no_other_header_opens_anything(door: Door, headers: dict[str, str]) -> None:
    for row, method, path in knocks(door):
        if row.scope != "open" and "{credential}" not in row.path:
            answer = door.http.request(method, path, headers=headers)
            assert answer.status_code in (303, 401), (method, path, headers)
            assert "evil.example" not in answer.text + str(answer.headers)


PLACES: dict[str, tuple[dict[str, str], str]] = {
    "x-functions-key": ({"x-functions-key": "{}"}, ""),
    "bearer": ({"Authorization": "Bearer {}"}, ""),
    "code": ({}, "code={}"),
}


@pytest.mark.parametrize("one", PLACES)
@pytest.mark.parametrize("other", [*PLACES, "path"])
@pytest.mark.parametrize("keys", [(ADMIN, ADMIN), (ADMIN, "wrong"), ("wrong", ADMIN), ("", ADMIN)])
def test_a_key_in_two_places_is_refused_whichever_is_right(
    door: Door, one: str, other: str, keys: tuple[str, str]
) -> None:
    headers, queries = [], []
    for place, key in zip((one, other), keys, strict=True):
        given, query = PLACES.get(place, ({}, ""))
        headers += [(name, value.format(key)) for name, value in given.items()]
        queries += [query.format(key)] if query else []
    base = f"/durabletask/{keys[1]}" if other == "path" else M
    answer = door.http.get(f"{base}/counts?{'&'.join(queries)}", headers=headers)

    assert answer.status_code == 400
    assert answer.json()["code"] == "ambiguous-credentials"


def test_a_key_and_a_signature_together_open_no_more_than_the_key(door: Door) -> None:
    sig = door.gate.signer.sign("terminate", "a-1")
    url = f"{M}/instances/a-1/terminate?sig={sig}"

    assert door.http.post(url, headers=as_key(door.key("read"))).status_code == 403
    assert door.http.post(url, headers=as_key("wrong")).status_code == 401


# ---------------------------------------------------------------------------------------- foreign pages

FOREIGN = (
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://["},
    {"Origin": "http://localhost:7072"},
    {"Origin": "http://localhost:7071.evil.example"},
    {"Origin": "http://localhost:7071@evil.example"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
)
SIMPLE = (
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/json",
)


def test_a_foreign_page_changes_nothing_with_somebodys_session(door: Door) -> None:
    """Whatever it sends: the session is there, and the request is refused before anybody looks at it."""
    signed_in(door)
    for row, method, path in knocks(door, changing=True):
        if row.function:
            continue
        for foreign in FOREIGN:
            answer = door.http.request(method, path, headers=foreign, content=b"{}")
            assert answer.status_code == 403, (method, row.path, foreign)
            assert answer.json()["code"] == "foreign-origin"
    assert door.http.get("/keys").status_code == 200, "the session was good all the while"


def test_nor_does_one_whose_browser_says_nothing_of_it(door: Door) -> None:
    """An old browser sends no Origin with a form. The API takes no session, and forms of pages have a token."""
    signed_in(door)
    token = door.http.cookies["perdure_csrf"]
    for row, method, path in knocks(door, changing=True):
        if row.scope == "open" or row.function or "{credential}" in row.path:
            continue
        for kind in SIMPLE:
            body = b"csrf=" + token[:-1].encode() + b"A&event=e&key=k"
            answer = door.http.request(method, path, headers={"Content-Type": kind}, content=body)
            if row.is_page:
                refused = answer.status_code == 403 or (kind == SIMPLE[-1] and answer.status_code == 400)
                assert refused, (method, row.path, kind, answer.text)
            else:
                assert answer.status_code == 401, (method, row.path, kind)


@pytest.mark.parametrize("foreign", FOREIGN[:1] + FOREIGN[3:4] + FOREIGN[6:])
def test_a_foreign_page_embeds_nothing_with_somebodys_session(door: Door, foreign: dict[str, str]) -> None:
    """Streams, JSON as a script, pages in frames: the session does not count for them. A link to a page does."""
    signed_in(door)
    for row, method, path in knocks(door, changing=False):
        if row.scope in ("read", "admin") and "{credential}" not in row.path:
            answer = door.http.request(method, path, headers={**foreign, "Accept": "text/event-stream"})
            assert answer.status_code in (303, 401), (method, row.path)
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert door.http.get("/", headers=followed).status_code == 200


# ----------------------------------------------------------------------------------------------- bodies

DEEP = 100_000
TRAPS = {
    "deep arrays": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "open": b"[" * DEEP,
    "a huge integer": b"9" * 100_000,
    "a huge negative": b"-" + b"9" * 100_000,
    "a huge exponent": b"1e999999999",
    "NaN": b"NaN",
    "Infinity": b"-Infinity",
    "twice": b'{"approved":true,"approved":false}',
    "twice, escaped": b'{"approved":true,"\\u0061pproved":false}',
    "a lone surrogate": b'"\\ud800"',
    "half a pair": b'"\\ud83dx"',
    "a surrogate in UTF-8": b'"\xed\xa0\x80"',
    "a name that is one": b'{"\\udfff":1}',
    "NUL": b'"\\u0000"',
    "a bare NUL": b'"\x00"',
    "a control character": b'"\x1b"',
    "broken UTF-8": b'"\xff\xfe"',
    "overlong UTF-8": b'"\xc0\xaf"',
    "UTF-16": '{"approved":true}'.encode("utf-16"),
    "a BOM": b"\xef\xbb\xbf{}",
    "two values": b"{}{}",
    "a comment": b"{/*x*/}",
    "single quotes": b"{'approved':true}",
    "a trailing comma": b'{"approved":true,}',
    "unquoted": b"{approved:true}",
    "pickle": pickle.dumps({"approved": True}),
    "XML": b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>',
    "YAML": b"!!python/object/apply:os.system [id]",
}


def takes_bodies(door: Door) -> list[tuple[Any, str]]:
    """What reads JSON: rows that describe a body, and client functions that take one."""
    found = [
        (row, method)
        for row, method, _ in knocks(door, changing=True)
        if row.contract.body is not None or row.function == "as_json"
    ]
    assert len(found) > 8
    return found


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_in_a_body_is_400_at_every_route_that_reads_one(door: Door, trap: str) -> None:
    for row, method in takes_bodies(door):
        path, headers = path_of(row, ADMIN), as_key(ADMIN) if "{credential}" not in row.path else {}
        answer = door.http.request(method, path, params={"op": "add"}, content=TRAPS[trap], headers=headers)
        assert answer.status_code == 400, (method, row.path, answer.status_code, answer.text[:300])
        assert answer.json()["code"] == "payload" and len(answer.text) < 2_000


def test_names_that_other_languages_trip_over_are_data(door: Door) -> None:
    body = {
        "__proto__": {"admin": True},
        "constructor": 1,
        "__class__": "x",
        "$ref": "#",
        "": 0,
        "a.b[0]": [[]],
    }
    door.http.post(f"{M}/orchestrators/echo/p-1", json=body, headers=as_key(ADMIN))

    assert door.http.get(f"{M}/instances/p-1?wait=60", headers=as_key(ADMIN)).json()["output"] == body


def test_numbers_beyond_other_languages_come_back_as_they_were(door: Door) -> None:
    body = b"[9007199254740993,123456789012345678901234567890,1e-400,-0.0]"
    door.http.post(f"{M}/orchestrators/echo/n-1", content=body, headers=as_key(ADMIN))

    text = door.http.get(f"{M}/instances/n-1?wait=60", headers=as_key(ADMIN)).text
    assert "9007199254740993,123456789012345678901234567890," in text


def reads_bodies(door: Door) -> Iterator[tuple[Any, str, dict[str, str]]]:
    """What reads any body at all: JSON, forms of pages, client functions."""
    reading = {"read", "as_json", "form", "streamed", "typed"}
    for row, method, _ in knocks(door, changing=True):
        if row.contract.body is not None or row.is_page or row.function in reading:
            yield row, method, as_key(ADMIN) if "{credential}" not in row.path and row.scope != "open" else {}


FORM = {"Content-Type": "application/x-www-form-urlencoded"}
MULTIPART = {"Content-Type": "multipart/form-data; boundary=x"}


@pytest.mark.parametrize("kind", [{}, {"Content-Type": "application/json"}, FORM, MULTIPART])
@pytest.mark.parametrize("announced", [True, False])
def test_a_body_above_the_limit_is_413_at_every_route_that_reads_one(
    door: Door, kind: dict[str, str], announced: bool
) -> None:
    part = (
        b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'
        if kind is MULTIPART
        else b'"'
    )
    sizes = []

    def body() -> Iterator[bytes]:
        sizes.append(0)
        yield part
        for _ in range(3 * payload.MAX_BYTES // 65_536 + 8):
            sizes[-1] += 65_536
            yield b"x" * 65_536

    asked = 0
    for row, method, headers in reads_bodies(door):
        length = {"Content-Length": str(4 * payload.MAX_BYTES)} if announced else {}
        if announced and row.function in ("form", "streamed"):
            continue  # they are refused while it comes
        if row.function == "form" and kind not in (FORM, MULTIPART):
            continue  # it reads nothing then
        answer = door.http.request(
            method,
            path_of(row, ADMIN),
            params={"op": "add"},
            headers={**headers, **kind, **length},
            content=b"x" if announced else body(),
        )
        assert answer.status_code == 413, (method, row.path, answer.status_code, answer.text[:300])
        asked += 1
    assert asked > 15


BOMB = b'"' + b"0" * (20 * 1024 * 1024) + b'"'


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(BOMB)),
        ("deflate", zlib.compress(BOMB)),
        ("GZIP", b"x"),
        ("br", b"x"),
        ("x-gzip", b"x"),
    ],
    ids=["gzip", "deflate", "GZIP", "br", "x-gzip"],
)
def test_nothing_is_unpacked(door: Door, encoding: str, body: bytes) -> None:
    for row, method, headers in reads_bodies(door):
        if row.function in ("form", "streamed"):
            continue  # what a function streams is as it was sent
        answer = door.http.request(
            method,
            path_of(row, ADMIN),
            params={"op": "add"},
            headers={**headers, "Content-Encoding": encoding},
            content=body,
        )
        assert answer.status_code == 415, (method, row.path, answer.status_code)


# -------------------------------------------------------------------------------------- ids and names

HOSTILE = (
    "x" * 300,
    "a\nb",
    "a\rb",
    "a\x00b",
    "a\x1b[31mb",
    "a\x7fb",
    "a\u202eb",
    "a\u2028b",
    "a\ufeffb",
    "a\ud7ffb\ue000",
    "../a",
    "a/../../b",
    "..",
    ".",
    "a\\b",
    "a?b",
    "a#b",
    "@counter@a",
    "a::0",
)


def quoted(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode("utf-8"))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_id_starts_nothing_and_breaks_nothing(door: Door, name: str) -> None:
    before = door.http.get(f"{M}/counts", headers=as_key(ADMIN)).json()
    for row, method, path in knocks(door):
        if "{id}" in row.path and "{credential}" not in row.path and row.operation != "redeliver_message":
            spelled = path.replace("a-1", quoted(name))
            query = b"code=" + ADMIN.encode()
            status = _raw(door, method, spelled.encode(), query)
            assert 400 <= status < 500, (method, row.path, name, status)
    assert door.http.get(f"{M}/counts", headers=as_key(ADMIN)).json() == before


@pytest.mark.parametrize("name", [*HOSTILE[:10], "x" * 100_000])
def test_a_hostile_name_of_anything_else_is_refused_or_only_text(door: Door, name: str) -> None:
    asked = [
        ("POST", f"/instances/a-1/raiseEvent/{quoted(name)[:12_000]}", {}, None),
        ("POST", "/keys", {}, {"name": name, "scopes": ["read"]}),
        ("POST", "/keys", {}, {"name": "x", "scopes": [name]}),
        ("POST", "/instances/a-1/links", {}, {"event": name}),
        ("POST", f"/orchestrators/{quoted(name)[:12_000]}", {}, None),
        ("POST", "/orchestrators/echo", {"tag": f"colour={name[:9_000]}"}, None),
        ("POST", "/orchestrators/echo", {"version": name[:9_000]}, None),
        ("POST", "/instances/a-1/suspend", {"reason": name[:9_000]}, None),
        ("POST", f"/entities/{quoted(name)[:12_000]}/k", {"op": "add"}, None),
        ("POST", "/entities/Counter/k", {"op": name[:9_000]}, None),
        ("POST", f"/queues/{quoted(name)[:12_000]}", {}, 1),
        ("POST", "/queues/q", {"messageId": name[:9_000]}, 1),
        ("GET", "/instances", {"instanceIdPrefix": name[:9_000]}, None),
        ("GET", "/audit", {"who": name[:9_000], "operation": name[:4_000]}, None),
    ]
    for method, path, query, body in asked:
        sent = {"json": body} if body is not None else {}
        answer = door.http.request(method, M + path, params=query, headers=as_key(ADMIN), **sent)
        assert answer.status_code < 500, (path, query, answer.text)
        assert_harmless(answer)
        if not name.isprintable() and "reason" not in query:  # a reason may have lines
            assert answer.status_code in (400, 404, 414), (path, query, answer.text)
        assert len(answer.text) < 50_000
    signed_in(door)
    for page in ("/instances/a-1", "/audit", "/keys", "/triggers", "/"):
        answer = door.http.get(page)
        assert answer.status_code == 200 and not set(answer.text) & {"\x00", "\x1b", "\x7f"}, page


@pytest.mark.parametrize(
    "token", ["9" * 5_000, "9" * 19, "-1", "1.0", "0x1", "٣", "²", "1_000", "+1", "a", "1 1", "\x00"]
)
def test_a_list_goes_on_only_where_a_page_ended(door: Door, token: str) -> None:
    """Also where a number is one, and larger than any row's."""
    for row, method, path in knocks(door):
        names = {taken.name for taken in row.contract.takes}
        if not names & {"x-ms-continuation-token", "continuation"} or "{credential}" in row.path:
            continue
        key = as_key(ADMIN)
        encoded = {**key, "x-ms-continuation-token": token.encode()}
        in_query = door.http.request(method, path, params={"continuation": token, "all": "true"}, headers=key)
        in_header = door.http.request(method, path, params={"all": "true"}, headers=encoded)
        assert in_query.status_code == 400 or "continuation" not in names, (path, in_query.text)
        assert in_header.status_code == 400 or "continuation" in names, (path, in_header.text)


@pytest.mark.parametrize("prefix", ["%", "_", "a_", "a%1", "'", "' OR 1=1 --", "\\", "a*", "[a-z]"])
def test_a_prefix_is_a_prefix_and_no_pattern(door: Door, prefix: str) -> None:
    found = door.http.get(f"{M}/instances", params={"instanceIdPrefix": prefix}, headers=as_key(ADMIN))

    assert found.json() == []


def test_what_a_caller_cannot_set_is_not_set(door: Door) -> None:
    """Mass assignment: a status, a hub or an instant in the body is input; in the query it is passed over."""
    wanted = {
        "runtimeStatus": "Completed",
        "createdTime": "2001-01-01T00:00:00Z",
        "hub": "other",
        "output": 1,
    }
    query = {**{name: str(value) for name, value in wanted.items()}, "salt": "x", "executionId": "x"}
    door.http.post(f"{M}/orchestrators/sleeper/m-1", json=wanted, params=query, headers=as_key(ADMIN))

    found = door.http.get(f"{M}/instances/m-1", headers=as_key(ADMIN)).json()

    assert (found["runtimeStatus"], found["output"], found["input"]) == ("Running", None, wanted)
    assert found["createdTime"] > "2020"


def test_input_that_is_not_to_be_shown_is_nowhere_in_the_answer(door: Door) -> None:
    door.http.post(f"{M}/orchestrators/sleeper/h-1", json="hidden-9d1f", headers=as_key(ADMIN))
    for query in ("showInput=false", "showInput=false&showHistory=true", "showInput=0&showInput=false"):
        shown = door.http.get(f"{M}/instances/h-1?{query}", headers=as_key(ADMIN))
        assert shown.status_code == 202 and "hidden-9d1f" not in shown.text, query
    listed = door.http.get(f"{M}/instances?showInput=false&instanceIdPrefix=h-", headers=as_key(ADMIN)).text
    streamed = door.http.get(f"{M}/instances/h-1/events", headers=as_key(ADMIN)).text
    assert "h-1" in listed and "h-1" in streamed
    assert "hidden-9d1f" not in json.dumps([listed, streamed])
