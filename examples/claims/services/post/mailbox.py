"""The messages that have arrived, in one SQLite file: a row for each key.

The key is unique, so a message that the application sends again after a crash does not arrive again. A message that
cannot be delivered has a row in another table: it has not arrived.
"""

import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

Kind = Literal["mail", "text"]

SCHEMA = """
create table if not exists messages (
    number integer primary key,
    key text not null unique,
    kind text not null check (kind in ('mail', 'text')),
    recipient text not null,
    address text not null,
    claim_id text not null,
    subject text not null,
    text text not null,
    links text not null,
    at text not null,
    tries integer not null default 1,
    opened integer not null default 0
) strict;
create table if not exists refused (key text primary key) strict;
"""
COLUMNS = "number, key, kind, recipient, address, claim_id, subject, text, links, at, tries, opened"
COUNTERS = """
select count(*) as sent,
    count(*) filter (where kind = 'mail') as mails,
    count(*) filter (where kind = 'text') as texts,
    count(*) filter (where tries > 1) as tried_again,
    (select count(*) from refused) as refused,
    count(*) - count(distinct key) as arrived_twice,
    coalesce(sum(opened), 0) as opened
from messages
"""
EMPTY = """
update messages set recipient = 'erased', address = 'erased', subject = 'erased', text = '', links = '[]'
where claim_id = ? and address <> 'erased'
"""
SEARCH = """
from messages where coalesce(kind = :kind, true) and coalesce(claim_id = :claim, true)
    and instr(lower(claim_id || ' ' || recipient || ' ' || subject || ' ' || text), lower(:words)) > 0
"""


@dataclass(frozen=True)
class Link:
    """A link in a message: its words, its address, and what it can do."""

    label: str
    url: str
    about: str = ""


@dataclass(frozen=True)
class Message:
    """What is sent. `to` is a role or a reference, `address` where it goes."""

    key: str
    kind: Kind
    to: str
    address: str
    claim_id: str
    subject: str
    text: str
    links: tuple[Link, ...] = ()


@dataclass(frozen=True)
class Arrived:
    """A message on the page. `tries` counts how often it was sent, `opened` how often a link in it was followed."""

    message: Message
    number: int
    at: datetime
    tries: int
    opened: int


@dataclass(frozen=True)
class Search:
    """Which messages: of a kind, of a claim, with a text in them. None and "" match all."""

    kind: Kind | None = None
    claim: str | None = None
    words: str = ""


class Mailbox:
    """The messages in one file. Its methods block for the disk; several threads can call them."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        path.touch(mode=0o600)
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("pragma journal_mode = wal")
        self._connection.execute("pragma synchronous = full")
        self._connection.execute("pragma secure_delete = on")
        self._connection.executescript(SCHEMA)

    def deliver(self, message: Message) -> Arrived:
        """Let the message arrive, unless one with its key has."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        with self._lock:
            row = self._connection.execute(
                "insert into messages (key, kind, recipient, address, claim_id, subject, text, links, at) "
                "values (?, ?, ?, ?, ?, ?, ?, ?, ?) on conflict (key) do update set tries = tries + 1 "
                f"returning {COLUMNS}",
                (message.key, message.kind, message.to, message.address, message.claim_id, message.subject,
                 message.text, msgspec.json.encode(message.links).decode(), now),
            ).fetchone()  # fmt: skip
        return _arrived(row)

    def refuse(self, message: Message) -> None:
        """Count a message that cannot be delivered."""
        with self._lock:
            self._connection.execute("insert or ignore into refused values (?)", (message.key,))

    def open(self, number: int, link: int) -> Link | None:
        """Follow a link in a message, and count that."""
        found = self.find(number)
        if found is None or link >= len(found.message.links):
            return None
        with self._lock:
            self._connection.execute("update messages set opened = opened + 1 where number = ?", (number,))
        return found.message.links[link]

    def find(self, number: int) -> Arrived | None:
        with self._lock:
            row = self._connection.execute(
                f"select {COLUMNS} from messages where number = ?", (number,)
            ).fetchone()
        return _arrived(row) if row else None

    def messages(self, search: Search, limit: int) -> Sequence[Arrived]:
        """The newest messages first."""
        named = {"kind": search.kind, "claim": search.claim, "words": search.words, "limit": limit}
        with self._lock:
            rows = self._connection.execute(
                f"select {COLUMNS} {SEARCH} order by number desc limit :limit", named
            ).fetchall()
        return [_arrived(row) for row in rows]

    def erase(self, claim_id: str) -> int:
        """Empty the messages of a claim; returns how many. Their keys stay, so that none arrives a second time."""
        with self._lock:
            found = self._connection.execute(EMPTY, (claim_id,)).rowcount
            self._connection.execute("pragma wal_checkpoint(truncate)")
        return found

    def counters(self) -> dict[str, int]:
        """The counts of `GET /counters`."""
        with self._lock:
            return dict(self._connection.execute(COUNTERS).fetchone())

    def close(self) -> None:
        self._connection.close()


def _arrived(row: sqlite3.Row) -> Arrived:
    message = Message(
        key=row["key"],
        kind=row["kind"],
        to=row["recipient"],
        address=row["address"],
        claim_id=row["claim_id"],
        subject=row["subject"],
        text=row["text"],
        links=msgspec.json.decode(row["links"], type=tuple[Link, ...]),
    )
    return Arrived(message, row["number"], datetime.fromisoformat(row["at"]), row["tries"], row["opened"])
