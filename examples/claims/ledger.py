"""The payments, in a separate SQLite file that plays the bank.

Each payment has an idempotency key, and the ledger pays each key once: for a repeat it returns the payment it has
already made. The activity can run more than once, and the customer is still paid once.
"""

import sqlite3
import threading
from contextlib import closing
from hashlib import sha256
from pathlib import Path

from examples.claims.model import Payment, PaymentOrder

SCHEMA = """
create table if not exists payments (
    idempotency_key text primary key,
    payment_id text not null,
    claim_id text not null,
    amount integer not null
) strict
"""


class GatewayDown(Exception):
    """The bank is unreachable."""


class Ledger:
    """The bank. While the file `switch` exists, it is down."""

    def __init__(self, path: Path, switch: Path) -> None:
        self.switch = switch
        self._lock = threading.Lock()
        Path(path).touch(mode=0o600)
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("pragma journal_mode = wal")
        self._connection.execute("pragma synchronous = full")
        self._connection.execute(SCHEMA)

    def pay(self, order: PaymentOrder, key: str) -> Payment:
        """Pay, or return the earlier payment of this key. Raises GatewayDown."""
        if self.switch.exists():
            raise GatewayDown(f"the bank does not answer (remove {self.switch} to bring it back)")
        payment_id = "pay-" + sha256(key.encode()).hexdigest()[:16]
        with self._lock:
            self._connection.execute(
                "insert into payments values (?, ?, ?, ?) on conflict do nothing",
                (key, payment_id, order.claim_id, order.amount),
            )
            found = self._connection.execute(
                "select payment_id, claim_id, amount from payments where idempotency_key = ?", (key,)
            ).fetchone()
        return Payment(*found)

    def close(self) -> None:
        self._connection.close()


def payments_per_claim(path: Path) -> dict[str, int]:
    """How often the bank behind a ledger file has paid each claim."""
    with closing(sqlite3.connect(path.resolve().as_uri() + "?mode=ro", uri=True)) as connection:
        return dict(connection.execute("select claim_id, count(*) from payments group by claim_id"))
