"""Connections that come at a listening socket: none is lost, none waits for the others, also when it stops."""

import asyncio
import errno
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import uvloop

from perdure.server import accept
from perdure.server.accept import Listener

LOOPS = pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


class Party(asyncio.Protocol):
    """Everybody who was let in."""

    def __init__(self, guests: list[asyncio.BaseTransport]) -> None:
        self.guests = guests

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.guests.append(transport)


class Crowded(socket.socket):
    """A socket of a process that has no descriptors left, for so many times."""

    left = 0

    def accept(self) -> Any:
        if self.left:
            self.left -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


@contextmanager
def door() -> Iterator[Crowded]:
    with Crowded(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(128)
        yield sock


@contextmanager
def knocking(at: socket.socket, count: int) -> Iterator[None]:
    """So many clients, connected as far as the kernel goes."""
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(socket.create_connection(at.getsockname(), timeout=10))
        yield


def run(loop_factory: LoopFactory, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@LOOPS
def test_many_that_come_at_once_do_not_wait_for_one_another(loop_factory: LoopFactory) -> None:
    guests: list[asyncio.BaseTransport] = []

    async def main() -> None:
        with door() as sock, knocking(sock, 40):
            listener = Listener(sock, lambda: Party(guests))
            await turns(12)
            listener.close()

    run(loop_factory, main)
    assert len(guests) == 40


@LOOPS
@pytest.mark.parametrize("after", range(8))
def test_whoever_was_accepted_is_served_however_early_it_stops(loop_factory: LoopFactory, after: int) -> None:
    """A connection that was not accepted is left for the next listener."""
    guests: list[asyncio.BaseTransport] = []

    async def main() -> None:
        with door() as sock, knocking(sock, 40):
            listener = Listener(sock, lambda: Party(guests))
            await turns(after)
            listener.close()
            await listener.wait_closed()
            let_in = len(guests)
            await turns(20)
            assert len(guests) == let_in
            Listener(sock, lambda: Party(guests))
            await turns(20)
            assert len(guests) == 40
            listener.close()

    run(loop_factory, main)


@LOOPS
def test_without_descriptors_it_tries_again(
    loop_factory: LoopFactory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(accept, "_PAUSE", 0.0)
    guests: list[asyncio.BaseTransport] = []

    async def main() -> None:
        with door() as sock, knocking(sock, 3):
            sock.left = 2
            listener = Listener(sock, lambda: Party(guests))
            while len(guests) < 3:
                await asyncio.sleep(0)
            listener.close()

    run(loop_factory, main)
    assert caplog.text.count("Too many open files") == 2


@LOOPS
def test_the_second_part_of_an_answer_does_not_wait_for_the_receipt_of_the_first(
    loop_factory: LoopFactory,
) -> None:
    guests: list[asyncio.BaseTransport] = []

    async def main() -> None:
        with door() as sock, knocking(sock, 1):
            listener = Listener(sock, lambda: Party(guests))
            while not guests:
                await asyncio.sleep(0)
            listener.close()
            peer = guests[0].get_extra_info("socket")
            assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    run(loop_factory, main)


def test_a_server_may_have_as_many_connections_as_the_machine_lets_it() -> None:
    code = (
        "import resource; from perdure.server.sockets import OPEN_FILES, allow_open_files\n"
        "_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard)); allow_open_files()\n"
        "soft, after = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "assert after == hard and soft == (OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
