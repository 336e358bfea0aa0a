"""The coordinator: the loop's duties when several workers serve the hub.

It reads the inbox often, because other workers write into it: more often after recent messages, and at once
after a hint. Polling is authoritative; hints only wake it. Between two batches it maintains its membership: it
takes partitions and releases them. For a released partition, running activities become claimed rows in the
releasing commit, so that the next owner waits for them instead of running them again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from perdure.engine.cluster.membership import Membership
from perdure.engine.cluster.pending_requests import Requests
from perdure.engine.core.instance import open_activities
from perdure.engine.core.partitions import Partitions
from perdure.engine.core.placement import Placement
from perdure.model.messages import ActivityResult
from perdure.model.records import Batch
from perdure.replay.settle import Invocation

if TYPE_CHECKING:
    from perdure.engine.clock import Clock
    from perdure.engine.core.dispatcher import Dispatcher
    from perdure.engine.core.envelope import Envelope
    from perdure.engine.core.ports import Released
    from perdure.store.port import Opening, SharedStore

SOONEST: Final = 5_000  # microseconds between two reads of the inbox after recent messages
LATEST: Final = 200_000  # the same after a long silence
AWAITED: Final = 20_000  # the same while a client waits for another worker
SOUGHT_AT_ONCE: Final = 200
log = logging.getLogger("perdure.engine")


class Sharing:
    """For the loop's thread; `heard` for any."""

    def __init__(
        self,
        store: SharedStore,
        dispatcher: Dispatcher,
        clock: Clock,
        territory: Partitions,
        membership: Membership,
        placement: Placement | None,
    ) -> None:
        self.requests = Requests()
        self.territory = territory
        self.membership = membership
        self.placement = placement
        self.sought: Callable[[], list[str]] = (
            list  # instances of other workers that this worker's clients wait for
        )
        self.found: Callable[[list[str]], None] = lambda _: None
        self.is_visiting = False  # this is a command that only leaves a message
        self.withdrawn: Callable[[list[tuple[str, int]]], object] = lambda _: (
            None
        )  # claims that are no longer wanted
        self.tended: Callable[[], None] = lambda: None
        self.took_over: Callable[[], None] = lambda: None
        self._store = store
        self._dispatcher = dispatcher
        self._clock = clock
        self._pace = SOONEST
        self._hungry = False
        self._heard = False
        self._is_new = True
        self.leases_lost = 0
        self.takeovers = 0  # leases of dead workers that this one ended
        self.nudge: Callable[[], None] = lambda: None

    def opened(self, opening: Opening, since: float) -> None:
        if (
            self.territory.owned and not opening.owned
        ):  # a worker that keeps its lease inherits its partitions
            self.leases_lost += 1
        self.membership.opened(opening, since)
        self._is_new = True
        self._store.listen(self._listened)

    # ------------------------------------------------------------------------------------------ the inbox

    def _listened(self) -> None:
        self._heard = True
        self.nudge()

    def has_heard(self) -> bool:
        """Whether a hint has come since the last call."""
        heard, self._heard = self._heard, False
        if heard:
            self._pace = SOONEST
            self.membership.look_soon()
        return heard

    def next_look(self, now: int, *, found: bool) -> int:
        """When to read the inbox again."""
        if found or self._hungry:
            self._pace = SOONEST
        else:
            self._pace = min(self._pace * 2, LATEST)
        if self.requests or self.sought():
            return now + min(self._pace, AWAITED)
        return now + self._pace

    def answers(self, now: int) -> list[tuple[Any, Any]]:
        """The answers of owners, with the clients' futures."""
        sought = self.sought()[:SOUGHT_AT_ONCE]
        if sought:
            done = [row.instance_id for row in self._store.rows(sought) if row.completed_at is not None]
            if done:
                self.found(done)
        if not self.requests:
            return []
        hurried = self.is_visiting and not self.membership.has_helpers
        return self.requests.collect(self._store, now, hurried=hurried)

    # ----------------------------------------------------------------------------------------- activities

    def claim(self) -> list[Invocation]:
        """Claim unclaimed activities that can start here now."""
        placement = self.placement
        if placement is None or self.membership.is_leaving:
            return []
        names, free = placement.wanted()
        if not free:
            self._hungry = False
            return []
        rows = self._store.claim(placement.served, names, free)
        self._hungry = len(rows) == free
        unread: list[str] = []
        claimed = placement.claimed(rows, unread)
        for why in unread:
            log.error("%s", why)
        return claimed

    # ---------------------------------------------------------------------------------------- partitions

    def is_of(self, envelope: Envelope, partitions: frozenset[int]) -> bool:
        """Whether the message is for an instance in one of these partitions."""
        return self.territory.partition_of(envelope.message.instance_id) in partitions

    def tend(self) -> frozenset[int]:
        """Check the other workers and this worker's share; returns the gained partitions.

        Raises FenceLost, StoreError.
        """
        tidings = self.membership.tend()
        if tidings.gone:
            self.takeovers += len(tidings.gone)
            self.took_over()
        if self.placement is not None:
            self.placement.has_company = self.membership.has_helpers
            self._reconcile(self.placement)
        self.tended()
        if tidings.gained:
            self.territory.gain(tidings.gained)
            if tidings.gone or not self._is_new:
                self._dispatcher.tenure.took(tidings.gained, self._clock.now())
            log.info("%d partitions taken, %d in all", len(tidings.gained), len(self.territory.owned))
        if tidings.gained or self._is_new:
            self._is_new = False
            self._tell_all()
        if tidings.surplus:
            self.give_up(tidings.surplus)
        return tidings.gained

    def _reconcile(self, placement: Placement) -> None:
        lost, idle = placement.reconcile(self._store.claims())
        if lost:
            self.withdrawn(lost)
        if idle:
            self._store.unclaim([row[:3] for row in idle])

    def give_up(self, partitions: Iterable[int]) -> None:
        """Release partitions for other workers. Raises the errors of a commit."""
        given = frozenset(partitions)
        dispatcher, territory, placement = self._dispatcher, self.territory, self.placement
        batch = Batch(self._clock.now(), partitions_released=sorted(given))
        if placement is not None:
            running = placement.unplaced(
                lambda one: territory.partition_of(one.instance_id) in given and dispatcher.cache.awaits(one)
            )
            batch.activities_placed = [
                placement.row_of(one, batch.at, claimed_by=territory.incarnation)
                for one in self._known_to_be_open(running)
            ]
        self._store.commit(batch)
        if placement is not None:
            placement.claimed(batch.activities_placed, [])  # made here, so each is readable
        territory.lose(given)
        dispatcher.cache.evict_where(lambda instance: instance.partition in given)
        self._tell_all()
        log.info("%d partitions released, %d left", len(given), len(territory.owned))

    def _known_to_be_open(self, running: list[Invocation]) -> list[Invocation]:
        """The running activities that are still open; the store decides for instances that are not warm,
        because the answer of a commit may have been lost.
        """
        cold = {one.instance_id for one in running if one.instance_id not in self._dispatcher.cache.warm}
        if not cold:
            return running
        open_ = dict(map(open_activities, self._store.load(list(cold))))
        return [
            one
            for one in running
            if one.instance_id not in cold or one.task_id in open_.get(one.execution_id, ())
        ]

    def _tell_all(self) -> None:
        """Notify the other workers that owners change, so that they check workers and free partitions."""
        self._store.notify([one.incarnation for one in self.membership.other_workers])

    def leave(self) -> None:
        """Release all partitions and take no more; running activities still finish here. Raises the errors of a
        commit.
        """
        if not self.membership.is_leaving:
            self.membership.is_leaving = True
            self._store.drain()
        if self.territory.owned:
            self.give_up(self.territory.owned)

    def health(self) -> dict[str, int]:
        """Numbers for a health page. From any thread."""
        return {
            "partitions": len(self.territory.owned),
            "other_workers": len(self.membership.other_workers),
            "late_results": self._store.late_results,
        }

    # ------------------------------------------------------------------------------------------- batches

    def committed(self, released: Released, results: Sequence[Envelope]) -> None:
        """After a durable batch: send hints, await answers, release claims."""
        self.requests.sent(released.asked)
        if self.placement is not None and results:
            self.placement.forget(e.message for e in results if isinstance(e.message, ActivityResult))
        others = released.hints - {0, self.territory.incarnation}
        if others:
            self._store.notify(sorted(others))


__all__ = ["Sharing"]
