"""Sizes that decide when the store does what, drawn by the seed.

A small workload never fills a log of eight megabytes. So most seeds run the same code with smaller numbers: the
log is then moved, restarted and cut off within a few dozen commits. Some seeds run with the product's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

from perdure.engine.core.ports import Limits
from perdure.store.sqlite import connection, wal

KIB = 1024


@dataclass(frozen=True)
class Tuning:
    """One seed's sizes; None leaves the product's own."""

    limits: Limits
    zeros: int | None = None
    backlog: int | None = None
    restart_above: int | None = None
    log_kept: int | None = None

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The store's modules have these sizes for a while."""
        kept = wal._ZEROS, wal._BACKLOG, wal._RESTART_ABOVE, wal.LOG_KEPT
        wanted = self.zeros, self.backlog, self.restart_above, self.log_kept
        values = [old if new is None else new for old, new in zip(kept, wanted, strict=True)]
        _put(*values)
        try:
            yield
        finally:
            _put(*kept)


def _put(zeros: int, backlog: int, restart_above: int, log_kept: int) -> None:
    wal._ZEROS, wal._BACKLOG, wal._RESTART_ABOVE = zeros, backlog, restart_above  # type: ignore[misc]
    vars(connection)["LOG_KEPT"] = log_kept


def drawn(chance: Random) -> Tuning:
    limits = Limits(
        episodes=chance.choice((2, 10, 1_000)),
        feeds=chance.choice((1, 3, 100)),
        row_bytes=chance.choice((2 * KIB, 4_096 * KIB)),
        inline_bytes=chance.choice((200, 2 * KIB, 16 * KIB)),
        keep_executions=chance.choice((1, 3)),
    )
    if chance.random() < 0.05:
        return Tuning(limits)
    backlog = chance.choice((5, 30, 100))
    return Tuning(
        limits,
        zeros=chance.choice((0, 64 * KIB, 256 * KIB, 512 * KIB)),
        backlog=backlog,
        restart_above=backlog + chance.choice((0, 20, 60)),
        log_kept=chance.choice((0, 64 * KIB, 200 * KIB, 64 * KIB * KIB)),
    )
