"""What goes into the audit log besides the operations themselves: questions, refusals, failures, uses of keys.

An operation's row is written with it, in one transaction (`perdure.engine.core.audit`). These others change nothing,
so nobody waits for them: they are gathered here, equal ones counted, and written a moment later beside whatever
the engine writes then. A crash may lose the last of them, and no operation. Someone polling an instance is one
row a minute, and someone trying keys one row every few seconds, so neither can fill the disk.
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

QUESTIONS: Final = 60.0  # seconds over which equal questions are counted together
TROUBLE: Final = 2.0  # ... and refusals and failures
MOST: Final = 10_000  # rows waiting; beyond them what comes is counted in the log of the process only
USED_EVERY: Final = 300_000_000  # microseconds between two notes that a key was used

log = logging.getLogger("perdure.http")


class AuditRecorder:
    """Gathers rows and writes them beside the engine's next batch."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._waiting: dict[tuple[Any, ...], AuditRow] = {}
        self._used: dict[str, int] = {}
        self._due: asyncio.TimerHandle | None = None
        self._due_at = 0.0
        self._writing: asyncio.Task[None] | None = None

    def add(self, row: AuditRow) -> None:
        """Have a row written soon; one like it that waits already is counted up instead."""
        key = row[1:-1]
        known = self._waiting.get(key)
        if known is not None:
            self._waiting[key] = known._replace(times=known.times + 1)
        elif len(self._waiting) < MOST:
            self._waiting[key] = row
        else:
            log.warning(
                "the audit log cannot keep up: %s by %s from %s, %s", row.operation, *row[1:3], row.outcome
            )
        self._within(QUESTIONS if row.outcome == "ok" else TROUBLE)

    def use(self, key_id: str, now: int, last: int | None) -> None:
        """Note that a key was used, unless that was noted lately."""
        if now - max(self._used.get(key_id, 0), last or 0) >= USED_EVERY:
            self._used[key_id] = now
            self._within(TROUBLE)

    async def write(self, row: AuditRow) -> None:
        """Write a row now; returns once it is durable."""
        await self._gateway.record(AuditMemo(audit=[row]))

    async def flush(self) -> None:
        """Write what waits; returns once it is durable. What cannot be written now waits again."""
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
            log.exception("%d rows of the audit log were refused by the store", len(waiting))
        except PerdureError as error:
            log.error("the audit log cannot be written now: %s", error)
            self._waiting = {**waiting, **self._waiting}
            self._within(TROUBLE)

    async def close(self) -> None:
        """Write what waits, for the last time."""
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
