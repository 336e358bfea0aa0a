"""Placement: decides where an activity runs when several workers serve the hub.

It runs locally if a slot is free or soon will be, because a result that need not cross the database is worth a
short wait. Otherwise, if another worker could run it, it becomes a row that any worker may claim. Activities of
a named pool are rows from the start, unless this worker serves the pool. A claim is the claimant's incarnation
with a count. If a claim is lost because its worker is dead, another worker claims the row again; the late
result of the first finds no row with its count and is dropped.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from perdure.model.records import ANSWERED, ActivityRow
from perdure.model.waiting import Pulse
from perdure.replay.settle import Invocation

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping, Sequence

    from perdure.model.messages import ActivityResult
    from perdure.store.port import Census

WORTH_WAITING: Final = 0.05  # seconds; spilling and claiming cost about a tenth of that
CLAIMED_AT_ONCE: Final = 100
POOL_NAME: Final = "1 to 100 letters, digits, dots, dashes and underscores"
Key = tuple[str, int]  # execution id, task id

_encode = msgspec.json.Encoder().encode
_invocations = msgspec.json.Decoder(Invocation)


def is_pool_name(name: str) -> bool:
    """Whether this is a valid pool name. Names are stored separated by spaces."""
    return re.fullmatch(r"[A-Za-z0-9._-]{1,100}", name) is not None


class Slots(Protocol):
    """The activity pool, as placement uses it."""

    def expected_wait(self, name: str, more: int) -> float:
        """The estimated seconds until a slot is free for this activity, after `more` others."""

    def free_slots(self) -> tuple[list[str], int]:
        """The activities that can start now, and the number of free slots."""

    def open_invocations(self) -> list[Invocation]:
        """The activities that run or wait on this worker."""


class Placement:
    """For the loop's thread."""

    def __init__(self, pools: Mapping[str, str], served: Sequence[str], pool: Slots) -> None:
        """`pools` maps activities to their pools, `served` are the named pools that this worker serves."""
        self.served = tuple(dict.fromkeys(("", *served)))
        self.has_company = False  # whether another worker could run spilled activities
        self._pools = pools
        self._pool = pool
        self._claims: dict[Key, int] = {}
        self._taken: dict[str, int] = {}  # slots promised in the current batch, by activity

    def begin_batch(self) -> None:
        self._taken.clear()

    def is_local(self, invocation: Invocation) -> bool:
        """Whether the activity runs on this worker."""
        name = invocation.name
        pool = self._pools.get(name)
        if pool is not None and pool not in self.served:
            return False
        if not self.has_company:
            return True
        if pool is None:  # not a function of this worker; another worker may have it
            return False
        taken = self._taken.get(name, 0)
        if self._pool.expected_wait(name, taken) > WORTH_WAITING:
            return False
        self._taken[name] = taken + 1
        return True

    def row_of(self, invocation: Invocation, now: int, *, claimed_by: int | None = None) -> ActivityRow:
        """The row of an activity that any worker may claim."""
        return ActivityRow(
            invocation.instance_id,
            invocation.execution_id,
            invocation.task_id,
            self._pools.get(invocation.name, ""),
            invocation.name,
            now,
            1 if claimed_by is not None else 0,
            claimed_by,
            _encode(invocation),
        )

    # ------------------------------------------------------------------------------------------- claims

    def wanted(self) -> tuple[list[str], int]:
        """The activities that this worker can claim now, and the number of free slots."""
        names, free = self._pool.free_slots()
        return names, min(free, CLAIMED_AT_ONCE)

    def claimed(self, rows: Iterable[ActivityRow], unread: list[str]) -> list[Invocation]:
        """The invocations of rows claimed for this worker; damaged rows are reported in `unread`."""
        invocations = []
        for row in rows:
            self._claims[row.execution_id, row.task_id] = row.attempt
            try:
                invocations.append(_invocations.decode(row.invocation))
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                unread.append(
                    f"the activity {row.name} of instance {row.instance_id} cannot run, because its row in "
                    f"the table activities is damaged: {error}. Terminate or purge the instance"
                )
        return invocations

    def claim_of(self, result: ActivityResult) -> int | None:
        """The count of the claim behind a result, if there was one."""
        return self._claims.get((result.execution_id, result.task_id))

    def reconcile(self, rows: Iterable[ActivityRow]) -> tuple[list[Key], list[ActivityRow]]:
        """Compare the known claims with the store, because an answer of the store may have been lost.

        Returns claims that no longer exist, whose results are not wanted, and claimed rows that do not run
        here.
        """
        held = {(row.execution_id, row.task_id): row for row in rows}
        lost = [key for key in self._claims if key not in held]
        for key in lost:
            del self._claims[key]
        running = {(one.execution_id, one.task_id) for one in self._pool.open_invocations()} if held else ()
        idle = [row for key, row in held.items() if key not in running]
        self._claims.update((key, row.attempt) for key, row in held.items() if key in running)
        return lost, idle

    def forget(self, results: Iterable[ActivityResult]) -> None:
        """Forget activities whose results are durable or dropped."""
        for result in results:
            self._claims.pop((result.execution_id, result.task_id), None)

    def unplaced(self, is_meant: Callable[[Invocation], bool]) -> list[Invocation]:
        """The matching activities that run or wait here without a row."""
        return [
            invocation
            for invocation in self._pool.open_invocations()
            if (invocation.execution_id, invocation.task_id) not in self._claims and is_meant(invocation)
        ]


def pulses_of(rows: Iterable[ActivityRow], census: Census) -> dict[Key, Pulse]:
    """The state of activities from their rows: the worker that runs each, or why none does."""
    names = {one.incarnation: one.worker for one in census.workers}
    served = {"", *(name for one in census.workers for name in one.pools.split())}
    return {
        (row.execution_id, row.task_id): Pulse(row.name, max(row.attempt, 1), _where(row, names, served))
        for row in rows
        if row.incarnation != ANSWERED
    }


def _where(row: ActivityRow, names: Mapping[int, str], served: Container[str]) -> str:
    claimant = names.get(row.incarnation) if row.incarnation is not None else None
    if claimant is not None:
        return f"worker {claimant}"
    if not row.pool:
        return "queue"
    return f"pool {row.pool}" if row.pool in served else f"pool {row.pool}, which no worker serves"


__all__ = ["POOL_NAME", "Placement", "is_pool_name", "pulses_of"]
