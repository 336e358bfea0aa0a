"""The book of the bank, in one SQLite file: a row for each idempotency key, whatever became of the payment.

The key is unique, so a repeat finds the first one's row, and money moves once. A refusal has a row, too: what was
refused under a key is never paid under it.
"""

import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Literal

State = Literal["paid", "refused", "reversed"]

SCHEMA = """
create table if not exists payments (
    number integer primary key,
    key text not null unique,
    claim_id text not null,
    amount integer not null check (amount > 0),
    account text not null,
    state text not null check (state in ('paid', 'refused', 'reversed')),
    refusal text not null,
    at text not null,
    repeats integer not null default 0
) strict;
create index if not exists payments_by_claim on payments (claim_id); -- for the count of claims paid twice
"""
COLUMNS = "number, key, claim_id, amount, account, state, refusal, at, repeats"
COUNTERS = """
select count(*) filter (where state = 'paid') as payments,
    coalesce(sum(amount) filter (where state = 'paid'), 0) as amount,
    count(*) filter (where state = 'reversed') as reversed,
    count(*) filter (where state = 'refused') as refused,
    coalesce(sum(repeats), 0) as repeats,
    (select count(*) from (
        select claim_id from payments where state = 'paid' group by claim_id having count(*) > 1
    )) as paid_twice
from payments
"""


@dataclass(frozen=True)
class Order:
    """What a customer of the bank asks for."""

    key: str
    claim_id: str
    amount: int
    account: str


@dataclass(frozen=True)
class Entry:
    """One row of the book."""

    number: int
    key: str
    claim_id: str
    amount: int
    account: str
    state: State
    refusal: str
    at: str
    repeats: int

    @property
    def payment_id(self) -> str:
        return "pay-" + sha256(self.key.encode()).hexdigest()[:16]

    def is_for(self, order: Order) -> bool:
        return (self.claim_id, self.amount, self.account) == (order.claim_id, order.amount, order.account)


class KeyTaken(Exception):
    """The key of an order belongs to another payment."""


class Ledger:
    """The book in a file. Its methods block for the disk; several threads can call them."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        path.touch(mode=0o600)
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("pragma journal_mode = wal")
        self._connection.execute(
            "pragma synchronous = full"
        )  # what the bank has answered, it still knows after a power cut
        self._connection.executescript(SCHEMA)

    def enter(self, order: Order, refusal: str = "") -> tuple[Entry, bool]:
        """Pay the order, or refuse it; returns the row of its key, and whether it is new. Raises KeyTaken."""
        state: State = "refused" if refusal else "paid"
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        with self._lock, self._connection:
            self._connection.execute("begin immediate")
            inserted = self._connection.execute(
                "insert into payments (key, claim_id, amount, account, state, refusal, at) "
                "values (:key, :claim_id, :amount, :account, :state, :refusal, :at) on conflict (key) do nothing",
                {**asdict(order), "state": state, "refusal": refusal, "at": now},
            )
            is_new = inserted.rowcount == 1
            entry = self._of(order.key)
            assert entry is not None
            if not entry.is_for(order):
                raise KeyTaken(f"key {order.key!r} was used for ${entry.amount:,} for {entry.claim_id}")
            if not is_new:
                self._connection.execute(
                    "update payments set repeats = repeats + 1 where key = ?", (order.key,)
                )
        return entry, is_new

    def reverse(self, key: str) -> Entry | None:
        """Take a payment back. Returns the row, or None if the key has none. A refused payment stays refused."""
        with self._lock, self._connection:
            self._connection.execute(
                "update payments set state = 'reversed' where key = ? and state = 'paid'", (key,)
            )
            return self._of(key)

    def entries(self, after: int, limit: int, state: str | None, claim_id: str | None) -> list[Entry]:
        """Rows with a number above `after`, the oldest first."""
        return list(self._read(
            f"select {COLUMNS} from payments where number > ? and coalesce(state = ?, true) "
            "and coalesce(claim_id = ?, true) order by number limit ?",
            after, state, claim_id, limit,
        ))  # fmt: skip

    def newest(self, limit: int) -> list[Entry]:
        """The last rows, the newest first."""
        return list(self._read(f"select {COLUMNS} from payments order by number desc limit ?", limit))

    def counters(self) -> dict[str, int]:
        """The counts of `GET /counters`."""
        with self._lock:
            return dict(self._connection.execute(COUNTERS).fetchone())

    def close(self) -> None:
        self._connection.close()

    def _of(self, key: str) -> Entry | None:
        found = self._connection.execute(f"select {COLUMNS} from payments where key = ?", (key,)).fetchone()
        return Entry(*found) if found else None

    def _read(self, query: str, *values: object) -> Iterator[Entry]:
        with self._lock:
            rows = self._connection.execute(query, values).fetchall()
        return (Entry(*row) for row in rows)
