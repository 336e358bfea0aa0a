"""One connection, with several prepared statements per round trip.

Statements sent together are one transaction: the server commits at its end, or, if a statement failed, rolls
all back. So a batch is a few plain statements, each of which sees the effects of the previous ones, and still
costs one round trip (libpq's pipeline mode, without an explicit BEGIN). libpq is used below the driver's
cursors: parameters are already binary (`binary.py`), and while the server works the interpreter's lock is
released once for the wait, not once per statement.
"""

from __future__ import annotations

import select
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg
from psycopg import pq
from psycopg.adapt import Transformer

from perdure.store.postgres.statements import statement

if TYPE_CHECKING:
    from collections.abc import Sequence

    Row = tuple[Any, ...]

_BINARY: Final = [1]
_NO_HUB: Final = -1


class Statement(NamedTuple):
    """A statement, by name or, with `sql`, by text, and its parameters in binary form."""

    name: str
    values: tuple[bytes | None, ...] = ()
    sql: str = ""


class StatementResult(NamedTuple):
    """The returned rows, and the number of affected rows."""

    rows: list[Row]
    touched: int


class Backend(NamedTuple):
    """The server's process of a session. Process ids are reused; with its start time it is unique."""

    pid: int
    started: str


class Wire:
    """For one thread at a time. After an error that does not come from the server it is broken and must be
    closed.
    """

    def __init__(
        self, connection: psycopg.Connection[Any], schema: str, patience: float, backend: Backend
    ) -> None:
        self.hub_no = _NO_HUB
        self.backend = backend
        self._connection = connection
        self._pgconn = connection.pgconn
        self._schema = schema
        self._patience = patience
        self._prepared: set[bytes] = set()
        self._transformer = Transformer(connection)
        self._in_use = False
        self._pgconn.enter_pipeline_mode()

    @property
    def is_broken(self) -> bool:
        return (
            self._in_use
            or self._connection.closed
            or self._pgconn.transaction_status
            not in (pq.TransactionStatus.IDLE, pq.TransactionStatus.INTRANS)
        )

    @property
    def socket(self) -> int:
        return self._pgconn.socket

    def close(self) -> None:
        with suppress(psycopg.Error):
            self._connection.close()

    def ask(self, calls: Sequence[Statement]) -> list[StatementResult]:
        """Run all in one round trip. Raises psycopg.Error: of the first failed statement, or of the connection."""
        if self._in_use:
            raise psycopg.OperationalError("the connection was interrupted during a query")
        self._in_use = True
        asked = self._send(calls)
        answers, failure = self._receive(asked)
        self._in_use = False
        if failure is not None:
            raise failure
        return answers

    def one(self, name: str, *values: bytes | None) -> list[Row]:
        """Run one statement and return its rows."""
        return self.ask((Statement(name, values),))[0].rows

    def text(self, sql: str, *values: bytes | None) -> StatementResult:
        """Run a statement by its text."""
        return self.ask((Statement("", values, sql),))[0]

    def notified(self) -> bool:
        """Whether a notification has come since the last call. Reads arrived data, and never waits."""
        self._pgconn.consume_input()
        heard = False
        while self._pgconn.notifies() is not None:
            heard = True
        return heard

    # ------------------------------------------------------------------------------------------------ inside

    def _send(self, calls: Sequence[Statement]) -> list[bytes]:
        """Put all statements into libpq's buffer. Returns, for each expected result, the statement that it
        prepares, or b"".
        """
        pgconn, hub = self._pgconn, self.hub_no
        asked: list[bytes] = []
        preparing: set[bytes] = set()
        for name, values, sql in calls:
            formats = _BINARY * len(values)
            if sql:
                pgconn.send_query_params(sql.encode(), values, None, formats, 1)
                asked.append(b"")
                continue
            known = b"%s %d" % (name.encode(), hub)
            if known not in self._prepared and known not in preparing:
                preparing.add(known)
                pgconn.send_prepare(known, statement(name, self._schema, hub).encode())
                asked.append(known)
            pgconn.send_query_prepared(known, values, formats, 1)
            asked.append(b"")
        pgconn.pipeline_sync()
        return asked

    def _receive(self, asked: list[bytes]) -> tuple[list[StatementResult], psycopg.Error | None]:
        deadline = time.monotonic() + self._patience
        while self._pgconn.flush():
            self._wait(deadline, writing=True)
            self._pgconn.consume_input()
        answers: list[StatementResult] = []
        failure: psycopg.Error | None = None
        position = 0
        while True:
            result = self._next_result(deadline)
            if result is None:
                continue
            status = result.status
            if status == pq.ExecStatus.PIPELINE_SYNC:
                return answers, failure
            if status == pq.ExecStatus.FATAL_ERROR:
                failure = failure or psycopg.errors.error_from_result(result)
            elif status != pq.ExecStatus.PIPELINE_ABORTED:
                prepares = asked[position]
                if prepares:
                    self._prepared.add(prepares)
                else:
                    answers.append(self._answer(result))
            position += 1

    def _next_result(self, deadline: float) -> pq.abc.PGresult | None:
        pgconn = self._pgconn
        while pgconn.is_busy():
            self._wait(deadline)
            pgconn.consume_input()
        result = pgconn.get_result()
        if result is None and pgconn.status == pq.ConnStatus.BAD:
            raise psycopg.OperationalError(pgconn.get_error_message())
        return result

    def _wait(self, deadline: float, *, writing: bool = False) -> None:
        """Wait until the socket is ready; get_result itself would wait while it holds the interpreter's lock."""
        left = deadline - time.monotonic()
        if left <= 0 or not ready([self._pgconn.socket], left, writing=writing):
            raise psycopg.OperationalError(f"no answer within {self._patience:.0f} s")

    def _answer(self, result: pq.abc.PGresult) -> StatementResult:
        count = result.ntuples
        if not count or result.status != pq.ExecStatus.TUPLES_OK:
            return StatementResult([], result.command_tuples or 0)
        self._transformer.set_pgresult(result)
        return StatementResult(self._transformer.load_rows(0, count, tuple), count)


def ready(sockets: Sequence[int], seconds: float, *, writing: bool = False) -> bool:
    """Wait until one of the sockets is readable (or writable). Returns False on a timeout."""
    if not hasattr(select, "poll"):  # Windows
        return any(select.select(sockets, sockets if writing else (), (), seconds))
    poll = select.poll()
    for one in sockets:
        poll.register(one, select.POLLIN | (select.POLLOUT if writing else 0))
    return bool(poll.poll(seconds * 1_000))


__all__ = ["StatementResult", "Backend", "Statement", "Wire", "ready"]
