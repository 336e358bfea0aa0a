"""What a client and PostgreSQL say to each other, as far as a proxy must know to tell a commit when it passes.

A message is a type byte, a length and a body; only the first one a client sends has no type. Messages are gathered
into *bursts*: what a client sends before it waits, which ends with a simple query (Q), a Sync (S) or a Flush (H). A
burst commits when it says so in words (COMMIT, END), or when it ends outside a transaction and something in it
wrote: then the server commits by itself at the Sync. Whether a transaction is open follows from what the client said,
and is corrected by the server's own word (ReadyForQuery) whenever nothing is on its way.

COPY is passed on and not understood.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

SSL, GSS = 80877103, 80877104  # asked for before the start; both are declined
WRITING = r"\b(insert|update|delete|merge|truncate|create|alter|drop|grant|revoke|call|do)\b"

_QUOTED = re.compile(r"'(?:[^']|'')*'|\$(\w*)\$.*?\$\1\$|\"[^\"]*\"|--[^\n]*|/\*.*?\*/", re.DOTALL)
_LOCKING = re.compile(r"\bfor\s+(?:no\s+key\s+)?update\b", re.IGNORECASE)
_PARTLY = re.compile(r"\brollback\s+(?:transaction\s+|work\s+)?to\b")  # a savepoint: the transaction goes on
_OPENING = ("begin", "start")
_ENDING = ("commit", "end")
_UNDOING = ("rollback", "abort")


@dataclass(frozen=True)
class Burst:
    """Bytes to be passed on at once; `commits` with the statements of the transaction that ends here."""

    data: bytes
    commits: bool = False
    statements: tuple[str, ...] = ()
    number: int = 0  # of the answer (ReadyForQuery) that says it is done; the start's is 1


class Client:
    """What the client says, cut into bursts."""

    def __init__(self, writing: str = WRITING) -> None:
        self._writing = re.compile(writing, re.IGNORECASE)
        self._input = bytearray()
        self._burst = bytearray()
        self._started = False
        self._prepared: dict[bytes, str] = {}
        self._portals: dict[bytes, str] = {}
        self._said: list[str] = []  # since the transaction began
        self._new: list[str] = []  # of this burst
        self._open = False  # a transaction that the client began
        self.asked = 1  # answers due, the one to the start included

    def feed(self, data: bytes) -> Iterator[Burst | bytes]:
        """Bursts to pass on; bytes are an answer that the client gets at once and the server never sees."""
        self._input += data
        while (message := self._next()) is not None:
            kind, whole = message
            if kind in (b"ssl", b"gss"):
                yield b"N"
                continue
            self._burst += whole
            self._note(kind, whole[5:])
            if kind not in b"PBDCE":
                yield self._end(kind)

    def corrected(self, status: bytes) -> None:
        """The server has answered everything, and says whether a transaction is open."""
        self._open = status != b"I"
        if not self._open:
            self._said.clear()

    def _next(self) -> tuple[bytes, bytes] | None:
        head = 5 if self._started else 4
        if len(self._input) < head:
            return None
        (length,) = struct.unpack_from("!I", self._input, head - 4)
        length += head - 4
        if len(self._input) < length:
            return None
        whole = bytes(self._input[:length])
        del self._input[:length]
        if self._started:
            return whole[:1], whole
        code = struct.unpack_from("!I", whole, 4)[0]
        if code in (SSL, GSS):
            return (b"ssl" if code == SSL else b"gss"), whole
        self._started = True
        return b"start", whole

    def _note(self, kind: bytes, body: bytes) -> None:
        match kind:
            case b"Q":
                self._new.append(_text(body))
            case b"P":
                name, query = body.split(b"\0", 2)[:2]
                self._prepared[name] = _text(query)
            case b"B":
                portal, name = body.split(b"\0", 2)[:2]
                self._portals[portal] = self._prepared.get(name, "")
            case b"E":
                self._new.append(self._portals.get(body.split(b"\0", 1)[0], ""))

    def _end(self, kind: bytes) -> Burst:
        data, self._burst = bytes(self._burst), bytearray()
        new, self._new = self._new, []
        self._said += new
        self.asked += kind in (b"Q", b"S")
        commits, said = False, tuple(self._said)
        for verb in (verb for text in new for verb in _verbs(text)):
            commits = commits or verb in _ENDING
            self._open = verb in _OPENING or (self._open and verb not in (*_ENDING, *_UNDOING))
        if not self._open and kind in (b"Q", b"S"):
            commits = commits or (self._wrote() and not _undone(self._said))
        if commits or (not self._open and kind in (b"Q", b"S")):
            self._said.clear()
        return Burst(data, commits, said if commits else (), self.asked + (kind == b"H"))

    def _wrote(self) -> bool:
        return any(self._writing.search(_LOCKING.sub(" ", _bare(text))) for text in self._said)


class Answers:
    """What the server says, message by message."""

    def __init__(self) -> None:
        self._input = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """(type, whole message)."""
        self._input += data
        while len(self._input) >= 5:
            (length,) = struct.unpack_from("!I", self._input, 1)
            if len(self._input) < length + 1:
                return
            whole = bytes(self._input[: length + 1])
            del self._input[: length + 1]
            yield whole[:1], whole


def _text(query: bytes) -> str:
    return query.rstrip(b"\0").decode(errors="replace")


def _bare(text: str) -> str:
    """Without what is quoted or commented on."""
    return _QUOTED.sub(" ", text)


def _verbs(text: str) -> list[str]:
    bare = _PARTLY.sub("savepoint", _bare(text).lower())
    words = (statement.split(None, 1) for statement in bare.split(";"))
    return [found[0] for found in words if found]


def _undone(said: list[str]) -> bool:
    return any(verb in _UNDOING for text in said for verb in _verbs(text))
