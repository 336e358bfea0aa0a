"""Rows of the audit log about queries, rejected requests, failures and uses of keys.

The row of an operation is written with the operation, in one transaction (`perdure.engine.core.audit`). The rows here
belong to requests that change nothing, so no request waits for them. They are collected, equal rows are counted, and
all are written a moment later with the engine's next batch. A crash can lose the last of them, but no operation. A
caller that polls an instance makes one row a minute, and a caller that tries keys one row every few seconds, so
neither can fill the disk.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from perdure.engine.core.audit import AuditMemo
from perdure.errors import CommitRefused, PerdureError

if TYPE_CHECKING:
    from perdure.engine.client.gateway import Gateway
    from perdure.model.records import AuditRow

QUESTIONS: Final = 60.0  # seconds over which equal queries are counted together
TROUBLE: Final = 2.0  # the same for rejected requests and failures
MOST: Final = 10_000  # waiting rows; further ones appear only in the log of the process
USED_EVERY: Final = 300_000_000  # microseconds between two records of the use of a key

log = logging.getLogger("perdure.http")


class AuditRecorder:
    """Collects rows and writes them with the engine's next batch."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._waiting: dict[tuple[Any, ...], AuditRow] = {}
        self._used: dict[str, int] = {}
        self._due: asyncio.TimerHandle | None = None
        self._due_at = 0.0
        self._writing: asyncio.Task[None] | None = None

    def add(self, row: AuditRow) -> None:
        """Write a row soon. If an equal row is waiting, increase its count instead."""
        key = row[1:-1]
        known = self._waiting.get(key)
        if known is not None:
            self._waiting[key] = known._replace(times=known.times + 1)
        elif len(self._waiting) < MOST:
            self._waiting[key] = row
        else:
            log.warning(
                "the audit log cannot keep up; a row is only logged here: %s by %s from %s, %s",
                row.operation,
                *row[1:3],
                row.outcome,
            )
        self._within(QUESTIONS if row.outcome == "ok" else TROUBLE)

    def use(self, key_id: str, now: int, last: int | None) -> None:
        """Record that a key was used, unless that was recorded recently."""
        if now - max(self._used.get(key_id, 0), last or 0) >= USED_EVERY:
            self._used[key_id] = now
            self._within(TROUBLE)

    async def write(self, row: AuditRow) -> None:
        """Write a row now. Returns when it is durable."""
        await self._gateway.record(AuditMemo(audit=[row]))

    async def flush(self) -> None:
        """Write the waiting rows. Returns when they are durable. After an error they wait again."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        waiting, self._waiting = self._waiting, {}
        used, self._used = self._used, {}
        if not waiting and not used:
            return
        try:
            await self._gateway.record(AuditMemo(audit=list(waiting.values()), keys_used=list(used.items())))
        except CommitRefused:
            log.exception("the store rejected %d rows of the audit log; they are lost", len(waiting))
        except PerdureError as error:
            log.error("the audit log cannot be written now and is retried: %s", error)
            self._waiting = {**waiting, **self._waiting}
            self._within(TROUBLE)

    async def close(self) -> None:
        """Write the waiting rows and stop."""
        await self.flush()
        if self._due is not None:
            self._due.cancel()

    def _within(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        at = loop.time() + seconds
        if self._due is None or at < self._due_at:
            if self._due is not None:
                self._due.cancel()
            self._due, self._due_at = loop.call_at(at, self._begin), at

    def _begin(self) -> None:
        self._due = None
        self._writing = asyncio.get_running_loop().create_task(self.flush())


__all__ = ["AuditRecorder"]
