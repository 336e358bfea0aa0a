"""The workers and partitions of a hub, as an operator sees them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from perdure.model.durations import moment
from perdure.model.http_calls import BUILT_IN
from perdure.model.workers import Partition, Worker
from perdure.store.port import Census

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perdure.engine.client.gateway import Gateway
    from perdure.model.records import WorkerRow


class WorkerFunctions(msgspec.Struct, frozen=True):
    """The functions that a worker has registered, from its row."""

    orchestrators: list[str] = []
    activities: list[str] = []
    entities: list[str] = []
    version: str = ""
    perdure: str = ""


_functions = msgspec.json.Decoder(WorkerFunctions)


class ClusterVerbs:
    """The client's verbs about workers and partitions."""

    gateway: Gateway

    async def workers(self) -> list[Worker]:
        """The workers of the hub, oldest first; empty when a single engine serves it."""
        return workers_of(await self._census())

    async def partitions(self) -> list[Partition]:
        """The hub's partitions and their owners; empty when a single engine serves it."""
        return partitions_of(await self._census())

    async def _census(self) -> Census:
        store: Any = self.gateway.store
        if not getattr(store, "is_shared", False):
            return Census(0, (), ())
        census: Census = await self.gateway.read(store.census)
        return census


def workers_of(census: Census) -> list[Worker]:
    owned = Counter(row.incarnation for row in census.partitions)
    return [_worker(row, owned[row.incarnation], census.now) for row in census.workers]


def _worker(row: WorkerRow, partitions: int, now: int) -> Worker:
    has = functions_of(row)
    return Worker(
        name=row.worker,
        role=row.role,
        state=row.state if row.lease_until >= now else "gone",
        pools=row.pools.split(),
        partitions=partitions,
        lease_left=max(row.lease_until - now, 0) / 1e6,
        since=moment(row.started_at),
        version=has.version,
        perdure=has.perdure,
        incarnation=row.incarnation,
        orchestrators=_own(has.orchestrators),
        activities=_own(has.activities),
        entities=_own(has.entities),
    )


def _own(names: list[str]) -> list[str]:
    """The names without perdure's built-in functions."""
    return [name for name in names if not name.startswith(BUILT_IN)]


def partitions_of(census: Census) -> list[Partition]:
    names = {row.incarnation: row.worker for row in census.workers}
    return [
        Partition(row.partition, names.get(row.incarnation or 0, ""), row.incarnation, row.epoch)
        for row in census.partitions
    ]


def functions_of(row: WorkerRow) -> WorkerFunctions:
    """The functions that a worker has registered; none if the row cannot be read."""
    try:
        return _functions.decode(row.functions)
    except (msgspec.MsgspecError, UnicodeDecodeError):  # written by another version of perdure
        return WorkerFunctions()


def any_worker_has(
    workers: Iterable[WorkerRow], kind: Literal["orchestrators", "entities"], function: str
) -> bool:
    """Whether a worker has a function of this kind and name."""
    wanted = function.casefold()
    return any(wanted == name.casefold() for row in workers for name in getattr(functions_of(row), kind))


__all__ = ["ClusterVerbs", "functions_of", "partitions_of", "any_worker_has", "workers_of"]
