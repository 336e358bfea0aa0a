"""Membership: one worker among those that serve a hub.

A worker holds a lease, and its partitions as long as the lease lives. It prolongs the lease from a thread of its own
and, for the case that this thread is held up, by its supervisor. Before each commit it looks at its own clock: a
lease that may have run out, counted from the moment before the renewal was sent, is asked for first. That spares
work; what keeps a stale worker's rows out is the fence in the commit itself.
Nobody assigns partitions. Every worker reads who is there, and computes the same shares from it: whoever has too
many gives the surplus up, whoever has too few takes what is free. Of a worker whose lease has run out the first that
sees it takes over: it voids the incarnation, which waits for a commit still under way, and only then is anything
of its partitions read.
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

MOST_BETWEEN: Final = 1_000_000  # microseconds between two looks at the others at most
JUST_AFTER: Final = 20_000  # microseconds after a lease has run out that its end is looked for
log = logging.getLogger("perdure.engine")


@dataclass(frozen=True)
class ClusterSettings:
    """What a worker is among others; without meaning for an engine that has its hub to itself."""

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
    """What a look at the others has come to: partitions gained, and those to be given up."""

    gained: frozenset[int] = frozenset()
    surplus: frozenset[int] = frozenset()
    gone: tuple[str, ...] = ()  # workers whose work was taken over


class Membership:
    """For the loop's thread; `renew` for any."""

    def __init__(
        self, store: SharedStore, territory: Partitions, clock: Clock, *, lease: float, is_worker: bool
    ) -> None:
        self.next_at = 0
        self.other_workers: tuple[WorkerRow, ...] = ()  # the others that live
        self.is_leaving = False
        self._store = store
        self._territory = territory
        self._clock = clock
        self._lease = lease
        self._is_worker = is_worker
        self._valid_until = 0.0

    def opened(self, opening: Opening, since: float) -> None:
        """The worker was registered by a call that was made at `since` (monotonic seconds)."""
        self._territory.settle(opening.incarnation, opening.partitions, opening.owned)
        self._valid_until = since + self._lease
        self.next_at = 0
        self._hear(opening.now)

    def _hear(self, now: int) -> None:
        """The database has said what time it is."""
        clock = self._clock
        if now and isinstance(clock, SharedClock):
            clock.heard(now, clock.monotonic())

    # --------------------------------------------------------------------------------------------- leases

    def renew(self) -> None:
        """Prolong the lease. Raises FenceLost when somebody has taken over, StoreError when nobody knows."""
        since = self._clock.monotonic()
        if not self._store.renew():
            self._valid_until = 0.0
            raise FenceLost(
                "this worker's lease ran out and others have taken over its partitions: it was held up for "
                f"longer than {self._lease:g} seconds, or could not reach the database. It registers anew"
            )
        self._valid_until = max(self._valid_until, since + self._lease)

    def confirm(self) -> None:
        """Before a commit: nothing is written on a lease that may have run out. Raises as `renew` does."""
        if self._clock.monotonic() >= self._valid_until:
            self.renew()

    @property
    def may_tire(self) -> bool:
        """Whether a third of the lease is over."""
        return self._clock.monotonic() > self._valid_until - self._lease * 2 / 3

    # --------------------------------------------------------------------------------------------- shares

    def tend(self) -> Changes:
        """Look who is there; take over from the dead, and take or name partitions until the shares are right.

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
        """Of the workers that have left these files behind the processes are dead: nobody waits for their leases."""
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
            "worker %s has gone without a word, or its supervisor said so; what it had is free",
            other.worker,
        )
        return True

    def _know(self, census: Census) -> None:
        territory = self._territory
        own = territory.incarnation
        if all(one.incarnation != own for one in census.workers):
            raise FenceLost("this worker was taken for dead, and others have taken over its partitions")
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
        """Something has changed among the workers."""
        self.next_at = 0

    @property
    def has_helpers(self) -> bool:
        """Whether another living worker runs activities."""
        return any(one.role == "worker" and one.state == "living" for one in self.other_workers)


def share_of(incarnation: int, workers: Sequence[WorkerRow], partitions: int) -> int:
    """How many partitions are this worker's: the same for all, the rest to those that came first."""
    eligible = sorted(one.incarnation for one in workers if one.role == "worker" and one.state == "living")
    if incarnation not in eligible:
        return 0
    each, rest = divmod(partitions, len(eligible))
    return each + (eligible.index(incarnation) < rest)


def _beginning_at(partitions: list[int], incarnation: int) -> list[int]:
    """The same partitions, begun at another place by each worker, so that two seldom want the same ones."""
    at = incarnation * 7 % len(partitions)
    return partitions[at:] + partitions[:at]


def default_name() -> str:
    """What a worker is called that nobody has named."""
    return f"{socket.gethostname()}:{os.getpid()}"


def quietly_renewed(membership: Membership) -> bool:
    """Prolong the lease from a thread beside the loop; the loop itself finds out when that did not work."""
    try:
        membership.renew()
    except StoreError as error:
        log.warning("the lease could not be prolonged: %s", error)
        return False
    return True


__all__ = ["ClusterSettings", "Membership", "Changes", "default_name", "quietly_renewed", "share_of"]
