"""Placement: where an activity is to run when several workers serve the hub.

Here, if a slot is free or soon will be; a result that need not cross the database is worth a short wait. Otherwise,
when somebody else could run it, it becomes a row that any worker may claim. Activities of a named pool are rows
from the beginning, unless this worker serves the pool itself.
A claim is the claimant's incarnation with a count: when it is lost, because the worker is taken for dead, somebody
else claims the row again, and the result that comes in late finds no row with its count and is dropped.
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

WORTH_WAITING: Final = 0.05  # seconds; to spill and claim costs about a tenth of it
CLAIMED_AT_ONCE: Final = 100
POOL_NAME: Final = "1 to 100 letters, digits, dots, dashes and underscores"
Key = tuple[str, int]  # execution id, task id

_encode = msgspec.json.Encoder().encode
_invocations = msgspec.json.Decoder(Invocation)


def is_pool_name(name: str) -> bool:
    """Whether a pool can be called that. Names are stored with spaces between them."""
    return re.fullmatch(r"[A-Za-z0-9._-]{1,100}", name) is not None


class Slots(Protocol):
    """The pool of activities as placement needs it."""

    def expected_wait(self, name: str, more: int) -> float:
        """Seconds until a slot is free for one more of this activity, about, after `more` others."""

    def free_slots(self) -> tuple[list[str], int]:
        """The activities that could begin now, and how many of them together."""

    def open_invocations(self) -> list[Invocation]:
        """Those that run or wait here."""


class Placement:
    """For the loop's thread."""

    def __init__(self, pools: Mapping[str, str], served: Sequence[str], pool: Slots) -> None:
        """`pools` says which pool each activity is of, `served` which named ones this worker serves."""
        self.served = tuple(dict.fromkeys(("", *served)))
        self.has_company = False  # whether another worker could run what is spilled
        self._pools = pools
        self._pool = pool
        self._claims: dict[Key, int] = {}
        self._taken: dict[str, int] = {}  # slots promised in the present batch, by activity

    def begin_batch(self) -> None:
        self._taken.clear()

    def is_local(self, invocation: Invocation) -> bool:
        """Whether it is to run here."""
        name = invocation.name
        pool = self._pools.get(name)
        if pool is not None and pool not in self.served:
            return False
        if not self.has_company:
            return True
        if pool is None:  # not a function of this worker's; somebody else may have it
            return False
        taken = self._taken.get(name, 0)
        if self._pool.expected_wait(name, taken) > WORTH_WAITING:
            return False
        self._taken[name] = taken + 1
        return True

    def row_of(self, invocation: Invocation, now: int, *, claimed_by: int | None = None) -> ActivityRow:
        """The row of an activity that is not, or no longer, its owner's alone."""
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
        """The activities that could begin here now, and how many of them together."""
        names, free = self._pool.free_slots()
        return names, min(free, CLAIMED_AT_ONCE)

    def claimed(self, rows: Iterable[ActivityRow], unread: list[str]) -> list[Invocation]:
        """These were claimed for this worker; `unread` is told of those whose rows are damaged."""
        invocations = []
        for row in rows:
            self._claims[row.execution_id, row.task_id] = row.attempt
            try:
                invocations.append(_invocations.decode(row.invocation))
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                unread.append(
                    f"the activity {row.name} of instance {row.instance_id} cannot be run, since its row in the "
                    f"table activities is damaged: {error}. Terminate or purge the instance"
                )
        return invocations

    def claim_of(self, result: ActivityResult) -> int | None:
        """The count of the claim under which this ran, if it ran under one."""
        return self._claims.get((result.execution_id, result.task_id))

    def reconcile(self, rows: Iterable[ActivityRow]) -> tuple[list[Key], list[ActivityRow]]:
        """Hold what is known here against the store's word. An answer of the store's may have got lost.

        Returns claims that are not there any more, whose results nobody wants, and rows that are claimed and do
        not run here.
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
        """Their results are durable, or dropped for good."""
        for result in results:
            self._claims.pop((result.execution_id, result.task_id), None)

    def unplaced(self, is_meant: Callable[[Invocation], bool]) -> list[Invocation]:
        """Activities running or waiting here without a row: those that are meant."""
        return [
            invocation
            for invocation in self._pool.open_invocations()
            if (invocation.execution_id, invocation.task_id) not in self._claims and is_meant(invocation)
        ]


def pulses_of(rows: Iterable[ActivityRow], census: Census) -> dict[Key, Pulse]:
    """What is known of activities from their rows: which worker has them, or why none has."""
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
