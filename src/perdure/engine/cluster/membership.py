"""Membership: this worker among the workers of a hub.

A worker holds a lease, and owns its partitions as long as the lease is valid. A thread of the worker renews the
lease; if that thread is blocked, the supervisor does. Before each commit the worker checks its own clock: if
the lease may have expired, counted from the moment before the last renewal was sent, it renews first. That
saves work; the fence in the commit is what rejects rows of a stale worker. No coordinator assigns partitions.
Every worker reads the list of workers and computes the same shares: a worker with too many partitions releases
the surplus, and a worker with too few takes free ones. The first worker that sees an expired lease takes over:
it voids the incarnation, which waits for a commit in progress, and only then reads anything of the partitions.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from perdure.engine.clock import SharedClock
from perdure.engine.core.partitions import Partitions
from perdure.engine.upkeep.crash_file import name_of
from perdure.errors import FenceLost, StoreError
from perdure.model.settings import NAMES, SECONDS, TEXT, one_of, setting

if TYPE_CHECKING:
    from perdure.engine.clock import Clock
    from perdure.model.records import WorkerRow
    from perdure.store.port import Census, Opening, SharedStore

MOST_BETWEEN: Final = 1_000_000  # microseconds between two reads of the census, at most
JUST_AFTER: Final = 20_000  # microseconds between the end of a lease and the check for it
log = logging.getLogger("perdure.engine")


@dataclass(frozen=True)
class ClusterSettings:
    """The settings of a worker among several; ignored by a single engine."""

    pools: Sequence[str] = setting(
        (),
        "among several workers: the pools whose activities this worker runs, besides activities without a pool",
        NAMES,
        name="pool",
    )
    lease: float = setting(
        10.0,
        "among several workers: how long a worker keeps its partitions without renewing its lease",
        SECONDS,
        least=0.5,
    )
    worker_name: str | None = setting(
        None,
        "among several workers: the name of this worker; by default host:pid, or host-1a2b/1 under a supervisor",
        TEXT,
    )
    role: str = setting(
        "all",
        "among several workers: whether this worker does everything (all), only accepts requests (api), or only runs "
        "functions (worker)",
        one_of("all", "api", "worker"),
    )


@dataclass(frozen=True)
class Changes:
    """The result of a census: partitions gained, and partitions to release."""

    gained: frozenset[int] = frozenset()
    surplus: frozenset[int] = frozenset()
    gone: tuple[str, ...] = ()  # workers whose partitions were taken over


class Membership:
    """For the loop's thread; `renew` for any."""

    def __init__(
        self, store: SharedStore, territory: Partitions, clock: Clock, *, lease: float, is_worker: bool
    ) -> None:
        self.next_at = 0
        self.other_workers: tuple[WorkerRow, ...] = ()  # the other live workers
        self.is_leaving = False
        self._store = store
        self._territory = territory
        self._clock = clock
        self._lease = lease
        self._is_worker = is_worker
        self._valid_until = 0.0

    def opened(self, opening: Opening, since: float) -> None:
        """Record the registration, sent at `since` (monotonic seconds)."""
        self._territory.settle(opening.incarnation, opening.partitions, opening.owned)
        self._valid_until = since + self._lease
        self.next_at = 0
        self._hear(opening.now)

    def _hear(self, now: int) -> None:
        """Record the database's time."""
        clock = self._clock
        if now and isinstance(clock, SharedClock):
            clock.heard(now, clock.monotonic())

    # --------------------------------------------------------------------------------------------- leases

    def renew(self) -> None:
        """Renew the lease. Raises FenceLost when another worker has taken over, StoreError when the outcome is
        unknown.
        """
        since = self._clock.monotonic()
        if not self._store.renew():
            self._valid_until = 0.0
            raise FenceLost(
                "this worker's lease ran out and other workers have taken over its partitions: it was "
                f"blocked for longer than {self._lease:g} seconds, or could not reach the database. It "
                "registers again"
            )
        self._valid_until = max(self._valid_until, since + self._lease)

    def confirm(self) -> None:
        """Before a commit: renew a lease that may have expired. Raises as `renew` does."""
        if self._clock.monotonic() >= self._valid_until:
            self.renew()

    @property
    def may_tire(self) -> bool:
        return self._clock.monotonic() > self._valid_until - self._lease * 2 / 3

    # --------------------------------------------------------------------------------------------- shares

    def tend(self) -> Changes:
        """Read the census, take over from dead workers, take missing partitions and name surplus ones.

        Raises FenceLost, StoreError.
        """
        if self.may_tire:
            self.renew()
        store, territory = self._store, self._territory
        census = store.census()
        self._hear(census.now)
        gone = tuple(one.worker for one in census.workers if self._is_over(one, census) and self._void(one))
        if gone:
            census = store.census()
        self._know(census)
        share = 0
        if self._is_worker and not self.is_leaving:
            share = share_of(territory.incarnation, census.workers, territory.partitions)
        wanted = share - len(territory.owned)
        gained: list[int] = []
        if wanted > 0:
            free = [row.partition for row in census.partitions if row.incarnation is None]
            gained = store.take(_beginning_at(free, territory.incarnation)[:wanted]) if free else []
        surplus = sorted(territory.owned)[share:] if wanted < 0 else []
        self.next_at = self._next_look(census)
        return Changes(frozenset(gained), frozenset(surplus), gone)

    def expire_dead(self, files: Sequence[str]) -> None:
        """Expire the leases of the workers with these crash files, whose processes are dead."""
        if not files:
            return
        workers = self._store.census().workers
        dead = [one.incarnation for one in workers if name_of(one.incarnation, one.worker) in files]
        if dead:
            self._store.expire(dead)
            self.next_at = 0

    def _is_over(self, other: WorkerRow, census: Census) -> bool:
        return other.lease_until < census.now and other.incarnation != self._territory.incarnation

    def _void(self, other: WorkerRow) -> bool:
        if not self._store.void(other.incarnation):
            return False
        log.log(
            logging.WARNING if self._is_worker else logging.INFO,
            "worker %s is dead (lease expired or reported by its supervisor); its partitions are released",
            other.worker,
        )
        return True

    def _know(self, census: Census) -> None:
        territory = self._territory
        own = territory.incarnation
        if all(one.incarnation != own for one in census.workers):
            raise FenceLost("this worker's lease expired, and other workers have taken over its partitions")
        self.other_workers = tuple(
            one for one in census.workers if one.incarnation != own and one.lease_until >= census.now
        )
        territory.others = {
            row.partition: row.incarnation
            for row in census.partitions
            if row.incarnation is not None and row.incarnation != own
        }

    def _next_look(self, census: Census) -> int:
        ends = [one.lease_until + JUST_AFTER for one in census.workers if one.lease_until >= census.now]
        usual = census.now + min(int(self._lease * 1e6 / 4), MOST_BETWEEN)
        own = self._clock.now() - census.now
        return min([usual, *ends]) + own

    def look_soon(self) -> None:
        """Read the census at the next turn, because the workers have changed."""
        self.next_at = 0

    @property
    def has_helpers(self) -> bool:
        """Whether another live worker runs activities."""
        return any(one.role == "worker" and one.state == "living" for one in self.other_workers)


def share_of(incarnation: int, workers: Sequence[WorkerRow], partitions: int) -> int:
    """This worker's share of the partitions: equal shares, and the remainder goes to the oldest workers."""
    eligible = sorted(one.incarnation for one in workers if one.role == "worker" and one.state == "living")
    if incarnation not in eligible:
        return 0
    each, rest = divmod(partitions, len(eligible))
    return each + (eligible.index(incarnation) < rest)


def _beginning_at(partitions: list[int], incarnation: int) -> list[int]:
    """The partitions, rotated differently for each worker, so that two workers seldom want the same ones."""
    at = incarnation * 7 % len(partitions)
    return partitions[at:] + partitions[:at]


def default_name() -> str:
    """The default name of a worker."""
    return f"{socket.gethostname()}:{os.getpid()}"


def quietly_renewed(membership: Membership) -> bool:
    """Renew the lease from a thread beside the loop; on a failure the loop finds out by itself."""
    try:
        membership.renew()
    except StoreError as error:
        log.warning("the lease could not be renewed: %s", error)
        return False
    return True


__all__ = ["ClusterSettings", "Membership", "Changes", "default_name", "quietly_renewed", "share_of"]
