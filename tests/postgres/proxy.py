"""A proxy on loopback between a client and PostgreSQL, with the faults of a network at the turn of a switch.

    with Proxy(server) as proxy:
        connection = psycopg.connect(proxy.url(url))
        cut = proxy.cut_commit(when="answered")       # the next one is durable, and its client will never know
        ...
        assert cut.happened.wait(60)

Nothing here is left to chance: a fault comes at the n-th commit, or when the test says so, and stays until `heal`.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, Protocol, Self
from urllib.parse import urlsplit

from tests.postgres.conversation import WRITING, Answers, Burst, Client
from tests.postgres.servers import free_port

When = Literal["before", "forwarded", "answered"]
Direction = Literal["both", "up", "down"]  # up: from client to server
CHUNK = 65_536


class Endpoint(Protocol):
    """What a proxy can stand before: a `Server`, a `Pooler`, another proxy."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...


@dataclass
class Marked:
    """A commit to which something is to happen: the n-th from now on of those that have a statement like this."""

    nth: int
    matching: re.Pattern[str] | None
    statements: tuple[str, ...] = field(default=(), init=False)  # of its transaction, when it has come
    happened: threading.Event = field(default_factory=threading.Event, init=False)

    def concerns(self, burst: Burst) -> bool:
        return self.matching is None or any(map(self.matching.search, burst.statements))


@dataclass
class Cut(Marked):
    """A commit that is cut off.

    before: the server never hears of it. forwarded: the server gets it and may not be done with it when the client
    finds its connection closed. answered: it is durable, and the server's answer was withheld.
    """

    when: When = "answered"


@dataclass
class Held(Marked):
    """A commit that is on its way for as long as it takes: `happened` says that it has set out."""

    released: threading.Event = field(default_factory=threading.Event, init=False)

    def release(self) -> None:
        """Let it arrive."""
        self.released.set()


class Proxy:
    """A door to a server. Connections through it can be cut, held up and refused."""

    def __init__(self, server: Endpoint, *, host: str = "127.0.0.1", writing: str = WRITING) -> None:
        """`writing` is what a statement looks like that changes something, to tell commits outside transactions."""
        self.host, self.port = host, free_port()
        self._server = server
        self._writing = writing
        self._lock = threading.Lock()
        self._links: set[_Link] = set()
        self._marked: list[Marked] = []
        self._held: list[Held] = []
        self._commits = 0
        self._delay = 0.0
        self._flows = {"up": threading.Event(), "down": threading.Event()}
        self._listener: socket.socket | None = None
        self._threads: set[threading.Thread] = set()
        self._closed = False

    def __enter__(self) -> Self:
        self.heal()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self.refuse()
        self.cut_all()
        self._resume()
        for thread in list(self._threads):
            thread.join(60)

    def url(self, url: str) -> str:
        """The same database, through this door."""
        parts = urlsplit(url)
        account = f"{parts.username}@" if parts.username else ""
        return parts._replace(netloc=f"{account}{self.host}:{self.port}").geturl()

    @property
    def commits(self) -> int:
        """How many have come by, those included that were cut."""
        return self._commits

    @property
    def connections(self) -> int:
        """How many are open."""
        with self._lock:
            return len(self._links)

    def cut_commit(self, nth: int = 1, *, when: When = "answered", matching: str | None = None) -> Cut:
        """Cut the n-th commit from now on, counting those only that have a statement like `matching`."""
        cut = Cut(nth, _pattern(matching), when)
        with self._lock:
            self._marked.append(cut)
        return cut

    def hold_commit(self, nth: int = 1, *, matching: str | None = None) -> Held:
        """Have the n-th commit from now on, counted as for `cut_commit`, wait until it is released, or all heals."""
        held = Held(nth, _pattern(matching))
        with self._lock:
            self._marked.append(held)
        return held

    def cut_all(self) -> int:
        """Cut every connection there is; returns how many. New ones are welcome."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.cut()
        return len(links)

    def refuse(self) -> None:
        """Refuse new connections, as a host does where nobody listens. Those there are stay."""
        with self._lock:
            listener, self._listener = self._listener, None
        if listener is not None:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def stall(self, direction: Direction = "both") -> None:
        """Let nothing through any more, and close nothing: a black hole. What was sent into it arrives at `heal`."""
        for name in self._flows if direction == "both" else (direction,):
            self._flows[name].clear()

    def delay(self, seconds: float) -> None:
        """Hold up whatever is sent, in both directions."""
        self._delay = seconds

    def heal(self) -> None:
        """All switches off: connections are taken, and everything flows."""
        self._delay = 0.0
        with self._lock:
            self._marked.clear()
        self._resume()
        if self._listener is None:
            self._listener = _listening(self.host, self.port)
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _resume(self) -> None:
        for flow in self._flows.values():
            flow.set()
        for held in self._held:
            held.release()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._threads.add(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        try:
            self._flows["up"].wait()
            if self._closed:
                return
            with socket.create_connection((self._server.host, self._server.port), timeout=60) as server:
                link = _Link(self, client, server, self._writing)
                with self._lock:
                    self._links.add(link)
                link.run()
                with self._lock:
                    self._links.discard(link)
        except OSError:  # the server takes nobody at present
            pass
        finally:
            client.close()
            self._threads.discard(threading.current_thread())

    # What links ask.

    def _passes(self, direction: Literal["up", "down"]) -> None:
        if self._delay:
            time.sleep(self._delay)
        self._flows[direction].wait()

    def _fate(self, burst: Burst) -> Marked | None:
        """Whether this commit is one that something is to happen to."""
        with self._lock:
            self._commits += 1
            fate: Marked | None = None
            for marked in [one for one in self._marked if one.concerns(burst)]:
                marked.nth -= 1
                if marked.nth == 0:
                    self._marked.remove(marked)
                    marked.statements = burst.statements
                    fate = fate or marked
            if isinstance(fate, Held):
                self._held.append(fate)
            return fate


class _Link:
    """One client's connection and ours to the server, a thread for each direction."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket, writing: str) -> None:
        for end in (client, server):
            end.settimeout(None)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._proxy, self._client, self._server = proxy, client, server
        self._lock = threading.Lock()  # of what both threads know about the conversation
        self._says = Client(writing)
        self._answers = Answers()
        self._answered = 0
        self._withheld: tuple[int, Cut] | None = None  # the number of the answer that never arrives

    def run(self) -> None:
        down = threading.Thread(target=self._down, daemon=True)
        down.start()
        self._up()
        down.join()

    def cut(self) -> None:
        for end in (self._client, self._server):
            _shut(end, socket.SHUT_RDWR)

    def _up(self) -> None:
        with suppress(OSError):
            while data := self._client.recv(CHUNK):
                self._proxy._passes("up")
                with self._lock:
                    bursts = list(self._says.feed(data))
                for said in bursts:
                    if isinstance(said, bytes):
                        self._client.sendall(said)
                    elif not self._forward(said):
                        return
        _shut(self._server, socket.SHUT_WR)

    def _forward(self, burst: Burst) -> bool:
        """Returns whether the connection goes on."""
        match self._proxy._fate(burst) if burst.commits else None:
            case Cut() as cut:
                self._cut(cut, burst)
                return False
            case Held() as held:
                held.happened.set()
                held.released.wait()
        self._server.sendall(burst.data)
        return True

    def _cut(self, cut: Cut, burst: Burst) -> None:
        if cut.when == "before":
            self.cut()
            cut.happened.set()
            return
        self._withheld = burst.number, cut
        self._server.sendall(burst.data)
        if cut.when == "forwarded":
            _shut(self._client, socket.SHUT_RDWR)
            _shut(
                self._server, socket.SHUT_WR
            )  # the server reads what it was sent, and then that we are gone
            cut.happened.set()

    def _down(self) -> None:
        with suppress(OSError):
            while data := self._server.recv(CHUNK):
                self._proxy._passes("down")
                passing = bytearray()
                for kind, whole in self._answers.feed(data):
                    withheld = self._withheld
                    if withheld is None or self._answered + 1 < withheld[0]:
                        passing += whole
                    self._note(kind, whole)
                if passing:
                    self._client.sendall(passing)
        _shut(self._client, socket.SHUT_RDWR)
        if self._withheld is not None and not self._withheld[1].happened.is_set():
            self._withheld[1].happened.set()  # the server died over it

    def _note(self, kind: bytes, whole: bytes) -> None:
        withheld = self._withheld
        self._answered += kind == b"Z"
        if withheld is not None and withheld[1].when == "answered":
            if self._answered >= withheld[0] or whole[5:] == b"COMMIT\0":
                self.cut()
                withheld[1].happened.set()
        elif kind == b"Z":
            with self._lock:
                if self._answered == self._says.asked:
                    self._says.corrected(whole[5:6])


def _pattern(matching: str | None) -> re.Pattern[str] | None:
    return re.compile(matching, re.IGNORECASE) if matching else None


def _listening(host: str, port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(128)
    return listener


def _shut(end: socket.socket, how: int) -> None:
    with suppress(OSError):
        end.shutdown(how)
