"""Clients that send slowly, without an end, or never read: what `perdure run` bounds that its server does not."""

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from starlette.requests import Request
from starlette.responses import Response

import perdure as df
from perdure.server.limits import ClientTimeouts, ConnectionFactory
from tests.http.conftest import M, make_app
from tests.http.serving import served, serving

HASTY = ClientTimeouts(
    head=0.8, head_bytes=8_192, body=0.8, rate=100_000, reading=0.8, unread=100_000, crowd=4
)
LARGE = 32 * 1024 * 1024  # more than the kernel keeps for a client that does not read
ASK = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
START = f"POST {M}/orchestrators/echo HTTP/1.1\r\nHost: localhost\r\n".encode()


def app_with_much_to_say() -> df.App:
    app = make_app()

    @app.route("/much", auth="anonymous")
    async def much(client: df.Client) -> Response:
        return Response(b"x" * LARGE)

    @app.route("/shown", auth="anonymous")
    async def shown(request: Request) -> dict[str, str]:
        return dict(request.headers)

    @app.route("/deaf", methods=["POST"], auth="anonymous")
    async def deaf() -> str:
        return "not read"

    return app


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    host = app_with_much_to_say().asgi(store="memory:", access="open", rate_limit=100_000)
    with served(host, ConnectionFactory(HASTY)) as url:
        parts = urlsplit(url)
        yield "127.0.0.1", parts.port or 0


@contextmanager
def connected(address: tuple[str, int]) -> Iterator[socket.socket]:
    with socket.create_connection(address, timeout=10) as client:
        yield client


def all_of(client: socket.socket) -> bytes:
    """Everything until the server hangs up. A server that never does is a timeout, which fails the test."""
    found = b""
    try:
        while chunk := client.recv(65_536):
            found += chunk
    except ConnectionResetError:
        pass
    return found


def drip(client: socket.socket, bytes_: bytes, most: float = 30.0) -> bytes:
    """Send them over and over, a few each 20 ms, until the server hangs up; returns what it has said."""
    until = time.monotonic() + most
    client.settimeout(0.02)
    said = b""
    while time.monotonic() < until:
        try:
            client.sendall(bytes_)
            said += (chunk := client.recv(65_536))
            if not chunk:
                return said
        except TimeoutError:
            continue
        except (ConnectionResetError, BrokenPipeError):
            return said
    raise AssertionError(f"after {most} seconds the server still listens")


def answers(client: socket.socket) -> bytes:
    """The first line of an answer; the rest of it is read too."""
    client.sendall(ASK + b"\r\n")
    found = b""
    while not found.endswith(b"}"):
        found += client.recv(65_536)
    return found.split(b"\r\n")[0]


def test_who_says_nothing_is_not_kept(address: tuple[str, int]) -> None:
    with connected(address) as client:
        assert all_of(client) == b""


@pytest.mark.parametrize("begun", [b"G", b"GET /healthz HTTP/1.1\r\n", ASK, ASK + b"X-A: "])
def test_a_head_that_does_not_end_is_408(address: tuple[str, int], begun: bytes) -> None:
    with connected(address) as client:
        client.sendall(begun)
        assert all_of(client).startswith(b"HTTP/1.1 408 ")


def test_a_head_that_comes_byte_by_byte_is_408(address: tuple[str, int]) -> None:
    with connected(address) as client:
        client.sendall(ASK)
        assert drip(client, b"X-A: b\r\n").startswith(b"HTTP/1.1 408 ")


def test_the_second_head_of_a_connection_is_no_exception(address: tuple[str, int]) -> None:
    with connected(address) as client:
        assert answers(client) == b"HTTP/1.1 200 OK"
        client.sendall(b"GET /")
        assert all_of(client).startswith(b"HTTP/1.1 408 ")


def test_empty_lines_between_requests_keep_no_connection(address: tuple[str, int]) -> None:
    with connected(address) as client:
        assert answers(client) == b"HTTP/1.1 200 OK"
        client.sendall(b"\r\n")
        assert all_of(client) == b""  # after the time that idle connections are kept


@pytest.mark.parametrize(
    "endless", [b"X-A: " + b"a" * 4_000, b"X-A: a\r\n" * 500], ids=["one header", "many headers"]
)
def test_a_head_without_an_end_is_431_before_it_is_all_in_memory(
    address: tuple[str, int], endless: bytes
) -> None:
    with connected(address) as client:
        client.sendall(ASK)
        said = drip(client, endless)
        assert said.startswith(b"HTTP/1.1 431 ") or said == b""


@pytest.mark.parametrize(
    ("header", "part"),
    [
        (b"Content-Length: 1000000\r\n\r\n", b" "),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        (b"Transfer-Encoding: chunked\r\n\r\n", b""),
    ],
    ids=["with a length", "in chunks", "not at all"],
)
def test_a_body_that_does_not_come_is_408_and_starts_nothing(
    address: tuple[str, int], header: bytes, part: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with connected(address) as client:
        client.sendall(START + header)
        assert drip(client, part).startswith(b"HTTP/1.1 408 ")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR], caplog.text


def test_a_body_that_comes_is_taken_however_large(address: tuple[str, int]) -> None:
    """The pace is asked for, and no time for the whole."""
    body = b'"' + b"x" * 900_000 + b'"'
    with connected(address) as client:
        client.sendall(START + f"Content-Length: {len(body)}\r\n\r\n".encode())
        for at in range(0, len(body), 100_000):
            client.sendall(body[at : at + 100_000])
        assert client.recv(12) == b"HTTP/1.1 202"


@pytest.mark.parametrize(
    "chunk",
    [b"1;" + b"x" * 9_000 + b"\r\n \r\n", b"0\r\n" + b"X-A: b\r\n" * 2_000],
    ids=["extension", "trailers"],
)
def test_what_surrounds_a_body_has_an_end_too(address: tuple[str, int], chunk: bytes) -> None:
    with connected(address) as client:
        client.sendall(START + b"Transfer-Encoding: chunked\r\n\r\n")
        said = drip(client, chunk)
        assert said == b"" or said[:13] in (b"HTTP/1.1 413 ", b"HTTP/1.1 400 "), said


def test_a_body_that_nobody_reads_is_not_taken_for_ever(address: tuple[str, int]) -> None:
    request = b"POST /api/deaf HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connected(address) as client:
        client.sendall(request)
        client.sendall(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
        said = drip(client, b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
        assert said.startswith(b"HTTP/1.1 200 ") or said == b""


def test_what_follows_a_body_is_no_header(address: tuple[str, int]) -> None:
    """A proxy that takes a header out of the head would not find it there."""
    request = (
        ASK.replace(b"/healthz", b"/api/shown") + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with connected(address) as client:
        client.sendall(request + b"0\r\nX-Forwarded-For: 10.0.0.1\r\nx-functions-key: smuggled\r\n\r\n")
        said = all_of(client)
    assert said.startswith(b"HTTP/1.1 200 ") and b"transfer-encoding" in said
    assert b"smuggled" not in said


def test_who_does_not_read_what_they_asked_for_is_not_waited_for(address: tuple[str, int]) -> None:
    with connected(address) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.sendall(b"GET /api/much HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with connected(address) as other:  # and does not block other clients
            assert answers(other) == b"HTTP/1.1 200 OK"
        until = time.monotonic() + 30
        while True:
            try:
                client.send(b"G")  # writing to a closed connection raises
            except (ConnectionResetError, BrokenPipeError):
                break
            assert time.monotonic() < until


def test_a_crowd_that_says_nothing_keeps_nobody_out(address: tuple[str, int]) -> None:
    crowd = [socket.create_connection(address, timeout=10) for _ in range(20)]
    try:
        with connected(address) as client:
            assert answers(client) == b"HTTP/1.1 200 OK"
        assert all_of(crowd[0]) == b""
    finally:
        for one in crowd:
            one.close()


@pytest.mark.parametrize(
    "request_",
    [
        b"GET http://localhost/healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"GET http://evil.example HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost, evil.example\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost : localhost\r\n\r\n",
        b"GET /healthz\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"G\xcbT /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /h\xe9 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: a\x00b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX\x00: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        START + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n1",
        START + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        START + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        START + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        START + b"Content-Length: -1\r\n\r\n",
        START + b"Content-Length: +1\r\n\r\n1",
        START + b"Content-Length: 0x1\r\n\r\n1",
        START + b"Content-Length: 99999999999999999999999\r\n\r\n",
        START + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        START + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
    ],
)
def test_requests_that_two_readers_might_read_differently_are_refused(
    address: tuple[str, int], request_: bytes
) -> None:
    with connected(address) as client:
        client.sendall(request_)
        client.shutdown(socket.SHUT_WR)
        said = all_of(client)
    statuses = [line.split()[1] for line in said.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
    assert statuses == [] or (len(statuses) == 1 and statuses[0][:1] == b"4"), said
    assert b"Traceback" not in said


@pytest.mark.parametrize("upgrade", [b"websocket", b"h2c"])
def test_no_other_protocol_is_spoken(address: tuple[str, int], upgrade: bytes) -> None:
    with connected(address) as client:
        client.sendall(
            ASK
            + b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZQ==\r\n"
            b"Upgrade: " + upgrade + b"\r\n\r\n" + ASK + b"\r\n"
        )
        said = all_of(client)
    assert said.startswith(b"HTTP/1.1 200 ") and said.count(b"HTTP/1.1") == 1


def test_what_is_asked_in_one_breath_is_answered_in_turn(address: tuple[str, int]) -> None:
    with connected(address) as client:
        client.sendall(
            (ASK + b"\r\n") * 20 + b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        said = all_of(client)
    assert said.count(b"HTTP/1.1 200 ") == 20 and said.count(b"HTTP/1.1 404 ") == 1


def test_a_server_that_stops_answers_what_is_on_its_way() -> None:
    host = make_app().asgi(store="memory:", access="open")
    with serving(host, ConnectionFactory(ClientTimeouts(parting=10.0))) as one:
        address = "127.0.0.1", urlsplit(one.address).port or 0
        with connected(address) as kept, connected(address) as fresh:
            kept.sendall(ASK + b"\r\n")
            first = b""
            while not first.endswith(b'{"healthy":true}'):
                first += kept.recv(65_536)
            assert first.startswith(b"HTTP/1.1 200 ")
            one.stop()
            while is_let_in(address):
                time.sleep(0.01)
            for client in (kept, fresh):
                client.sendall(ASK + b"\r\n")
                said = all_of(client)
                assert said.startswith(b"HTTP/1.1 200 ") and b"connection: close" in said


def test_a_server_that_stops_does_not_wait_for_who_does_not_ask() -> None:
    host = make_app().asgi(store="memory:", access="open")
    with (
        serving(host, ConnectionFactory(ClientTimeouts(parting=0.05))) as one,
        connected(("127.0.0.1", urlsplit(one.address).port or 0)) as client,
    ):
        one.stop()
        assert all_of(client) == b""


def is_let_in(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=10).close()
    except ConnectionRefusedError:
        return False
    return True
