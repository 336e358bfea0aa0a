"""Retention: finished instances are purged after a configured time.

The engine purges on its loop, so that no separate job is needed and a virtual clock applies. From time to time
the sweeper queries the store's index for expired instances, the oldest first, and gives the loop a page of
purges, which are committed like everything else; the next page waits for other work. A purge names the time
before which its instance must have finished: an instance that was restarted or rewound in between is another
one and stays. A child is part of its parent's record, and a rewind of the parent may need it. So it stays as
long as the parent exists, in the execution that called it, and has not expired itself. Children of executions
that continued as new are not kept: an eternal parent does not keep them. The sweeper has no state: after a
crash in the middle some instances are purged completely, the others are unchanged, and the next sweep finds
them again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Final

from perdure.model.durations import Seconds, duration, micros
from perdure.model.instances import RuntimeStatus, execution_id_of
from perdure.model.messages import Purge
from perdure.model.records import InstanceRow
from perdure.model.settings import Unit
from perdure.store.port import EngineStore

PAGE: Final = 200  # instances purged in one batch, about ten milliseconds
PAUSE: Final = 50_000  # microseconds between two pages, for other work
EVERY: Final = 6 * 3_600_000_000  # microseconds between two sweeps at most,
SELDOM: Final = 60_000_000  # and at least, but no more than
SHARE: Final = 10  # a tenth of the time that is kept shortest
_FOR_EVER: Final = 2**62
S = RuntimeStatus
log = logging.getLogger("perdure.engine")

_FIELD_OF: Final[dict[RuntimeStatus, str]] = {
    S.Completed: "completed",
    S.Failed: "failed",
    S.Terminated: "terminated",
    S.Canceled: "terminated",
}


@dataclass(frozen=True)
class Retention:
    """How long finished instances are kept, by status: a timedelta or seconds; None keeps them for ever.

    A purge also deletes their history, bodies, custom status and undelivered messages. Entities are never
    purged by retention.
    """

    completed: Seconds | None = None
    failed: Seconds | None = None
    terminated: Seconds | None = None

    def __post_init__(self) -> None:
        for name, kept in self._given():
            if micros(kept) < 0:
                raise ValueError(f"retention: {name} takes a duration of zero or more, not {kept!r}")

    @classmethod
    def of(cls, given: Retention | Seconds | str | None) -> Retention | None:
        """Parse a retention: one duration for all, `30d`, or `completed=7d,failed=90d`.

        Raises ValueError.
        """
        if given is None or isinstance(given, Retention):
            return given
        if not isinstance(given, str):
            return cls(given, given, given)
        if "=" not in given:
            return cls.of(duration(given))
        pairs = dict(part.strip().split("=", 1) for part in given.split(",") if "=" in part)
        unknown = sorted(set(pairs) - {field.name for field in fields(cls)})
        if unknown or len(pairs) != given.count(",") + 1:
            raise ValueError(f"retention is 30d, or completed=7d,failed=90d,terminated=30d, not {given!r}")
        return cls(**{name: duration(value) for name, value in pairs.items()})

    def kept(self, status: RuntimeStatus) -> int | None:
        """How long an instance of this status is kept, in microseconds; None for ever."""
        chosen: Seconds | None = getattr(self, _FIELD_OF[status])
        return None if chosen is None else micros(chosen)

    def __str__(self) -> str:
        given = [f"{name} {timedelta(microseconds=micros(kept))}" for name, kept in self._given()]
        return ", ".join(given) or "for ever"

    def _given(self) -> list[tuple[str, Seconds]]:
        named = [(field.name, getattr(self, field.name)) for field in fields(self)]
        return [(name, kept) for name, kept in named if kept is not None]


AGES = Unit("a duration such as 30d, or completed=7d,failed=90d", "Retention", Retention.of)


class Sweeper:
    """Finds expired instances, a page at a time. On the loop's thread only."""

    def __init__(self, retention: Retention, store: EngineStore) -> None:
        self.next_at = 0
        self._store = store
        self._kept = {status: kept for status in _FIELD_OF if (kept := retention.kept(status)) is not None}
        self._shortest = min(self._kept.values(), default=EVERY)
        self._left: list[RuntimeStatus] = []
        self._after = (0, 0)
        self._chosen = 0

    def sweep(self, now: int) -> list[Purge]:
        """The next page of purges; sets `next_at`. Raises StoreError."""
        self.next_at = now + PAUSE  # set first, so that a failing store is not queried again at once
        if not self._left:
            self._left, self._chosen = list(self._kept), 0
        purges: list[Purge] = []
        room = PAGE
        while self._left and room:
            status = self._left[0]
            rows = self._page(status, now, room)
            room -= len(rows)
            purges += [
                Purge(instance_id=row.instance_id, finished_before=now - self._kept[status])
                for row in self._unneeded(rows, now)
            ]
        self._chosen += len(purges)
        if not self._left:
            self.next_at = self._next_sweep(now)
            if self._chosen:
                log.info("retention: %d finished instances were due for deletion", self._chosen)
        return purges

    def _page(self, status: RuntimeStatus, now: int, limit: int) -> list[InstanceRow]:
        rows = self._store.finished(status.value, now - self._kept[status], self._after, limit)
        if len(rows) == limit:
            self._after = rows[-1].completed_at or 0, rows[-1].instance_no
        else:
            self._after = 0, 0
            del self._left[0]
        return rows

    def _next_sweep(self, now: int) -> int:
        """When the next finished instance expires. Instances that finish later expire later."""
        due = [now + self._shortest]
        for status, kept in self._kept.items():
            following = self._store.finished(status.value, _FOR_EVER, (now - kept, -1), 1)
            due += [(row.completed_at or 0) + kept + 1 for row in following]
        seldom = min(SELDOM, self._shortest // SHARE)
        return min(max(min(due), now + max(seldom, PAUSE)), now + EVERY)

    def _unneeded(self, rows: Sequence[InstanceRow], now: int) -> list[InstanceRow]:
        """The instances that no ancestor keeps."""
        families = self._ancestors(rows)
        return [row for row in rows if not self._is_needed(row, families, now)]

    def _ancestors(self, rows: Sequence[InstanceRow]) -> dict[str, InstanceRow]:
        found: dict[str, InstanceRow] = {}
        wanted = {row.parent_id for row in rows if row.parent_id is not None}
        while wanted:
            parents = self._store.rows(sorted(wanted))
            found.update((row.instance_id, row) for row in parents)
            wanted = {row.parent_id for row in parents if row.parent_id is not None} - found.keys()
        return found

    def _is_needed(self, row: InstanceRow, families: dict[str, InstanceRow], now: int) -> bool:
        child, seen = row, {row.instance_no}
        while child.parent_id is not None:
            parent = families.get(child.parent_id)
            if parent is None or parent.instance_no in seen:
                return False
            if execution_id_of(parent.salt, parent.execution_no) != child.parent_execution:
                return False
            if not self._is_due(parent, now):
                return True
            seen.add(parent.instance_no)
            child = parent
        return False

    def _is_due(self, row: InstanceRow, now: int) -> bool:
        kept = self._kept.get(RuntimeStatus(row.status))
        return kept is not None and row.completed_at is not None and row.completed_at < now - kept


__all__ = ["Retention", "Sweeper"]
