"""Several workers in one process, on one hub in memory, and an application that tells what ran where."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import perdure as df
from perdure.engine.engine import Engine
from perdure.model.instances import PARTITIONS
from perdure.store.memory import MemoryStore


class DatabaseTime:
    """The database's clock, which a test may set forward."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def __call__(self) -> int:
        return 1_800_000_000_000_000 + int((time.monotonic() + self._ahead) * 1e6)

    def forward(self, seconds: float) -> None:
        self._ahead += seconds


@dataclass
class Worker:
    """One worker of a shop."""

    name: str
    store: MemoryStore
    client: df.Client

    @property
    def engine(self) -> Engine:
        engine = self.client.gateway
        assert isinstance(engine, Engine)
        return engine

    @property
    def owned(self) -> int:
        """How many partitions it has, as it knows itself."""
        territory = self.engine._territory
        return len(territory.owned) if territory is not None else 0

    @property
    def is_able(self) -> bool:
        """Whether it lives, and runs what it takes up."""
        return not (self.engine.settings.accept_only or self.engine.loop.stopping)

    def kill(self) -> None:
        """It does nothing more, and tells nobody: its incarnation stays until its lease has run out."""
        self.store.renew = _unreachable  # type: ignore[method-assign, assignment]
        self.store.close = lambda: None  # type: ignore[method-assign]
        self.engine.loop.stopping = True
        self.engine.loop.nudge()

    def own_id(self, prefix: str = "claim") -> str:
        """The id of an instance that is this worker's."""
        territory = self.engine._territory
        assert territory is not None
        return next(one for n in range(100_000) if not territory.is_elsewhere(one := f"{prefix}-{n}"))


def _unreachable() -> bool:
    raise df.StoreError("the database cannot be reached")


@dataclass
class Shop:
    """The workers of one hub."""

    clock: DatabaseTime
    workers: list[Worker] = field(default_factory=list)

    def __getitem__(self, at: int) -> Worker:
        return self.workers[at]

    async def until(self, is_so: Any) -> None:
        """Turn the event loop until something is the case; half a minute at most."""
        async with asyncio.timeout(30):
            while not is_so():
                await asyncio.sleep(0.002)

    async def shared_out(self) -> None:
        """Until every partition has an owner, and each worker its share."""
        able = [one for one in self.workers if one.is_able]
        await self.until(lambda: sum(one.owned for one in able) == PARTITIONS)
        await self.until(
            lambda: all(one.owned in (PARTITIONS // len(able), PARTITIONS // len(able) + 1) for one in able)
        )


@asynccontextmanager
async def shop(app: df.App, *workers: dict[str, Any], lease: float = 60.0) -> AsyncIterator[Shop]:
    """One worker for each set of settings, all on one hub. Leases are long, and a test sets the time forward."""
    clock = DatabaseTime()
    first = MemoryStore(app.name, clock)
    stores = [first, *(first.beside() for _ in workers[1:])]
    first.beside()  # also one worker alone is one of several that may come
    opened = Shop(clock)
    async with AsyncExitStack() as stack:
        for number, (settings, store) in enumerate(zip(workers, stores, strict=True)):
            chosen = {"lease": lease, "worker_name": f"worker-{number}", **settings}
            client = await stack.enter_async_context(app.running(store=store, **chosen))
            opened.workers.append(Worker(chosen["worker_name"], store, client))
        yield opened
