"""Books of payments in SQLite files: the insurer's ledger, and what the bank of the stand-ins has paid.

Each payment has an idempotency key and a book has each key once: for a repeat it returns the payment that it has
already. An activity can run more than once, and the customer is still paid once.
"""

import sqlite3
import threading
from contextlib import closing
from hashlib import sha256
from pathlib import Path

from examples.claims.model import Payment

SCHEMA = """
create table if not exists payments (
    idempotency_key text primary key,
    payment_id text not null,
    claim_id text not null,
    amount integer not null,
    reversed integer not null default 0
) strict
"""


class Ledger:
    """A book in one file. Several processes can have it open."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        Path(path).touch(mode=0o600)
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("pragma journal_mode = wal")
        self._connection.execute("pragma synchronous = full")
        self._connection.execute(SCHEMA)

    def enter(self, payment: Payment) -> Payment:
        """Enter a payment, or return the earlier one of its key."""
        with self._lock:
            self._connection.execute(
                "insert into payments values (?, ?, ?, ?, 0) on conflict do nothing",
                (payment.key, payment.payment_id, payment.claim_id, payment.amount),
            )
            found = self._connection.execute(
                "select payment_id, claim_id, amount, idempotency_key from payments where idempotency_key = ?",
                (payment.key,),
            ).fetchone()
        return Payment(*found)

    def reverse(self, key: str) -> None:
        """Mark a payment as reversed. Repeating it has no effect."""
        with self._lock:
            self._connection.execute("update payments set reversed = 1 where idempotency_key = ?", (key,))

    def standing(self) -> dict[str, Payment]:
        """The payments that were not reversed, by key."""
        with self._lock:
            rows = self._connection.execute(
                "select payment_id, claim_id, amount, idempotency_key from payments where reversed = 0"
            ).fetchall()
        return {row[3]: Payment(*row) for row in rows}

    def close(self) -> None:
        self._connection.close()


def payment_id_of(key: str) -> str:
    """The number of the payment with this key, the same for each repeat."""
    return "pay-" + sha256(key.encode()).hexdigest()[:16]


def payments_per_claim(path: Path) -> dict[str, int]:
    """How often a book has a payment of each claim that was not reversed."""
    with closing(sqlite3.connect(path.resolve().as_uri() + "?mode=ro", uri=True)) as connection:
        query = "select claim_id, count(*) from payments where reversed = 0 group by claim_id"
        return dict(connection.execute(query))
