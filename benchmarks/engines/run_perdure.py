"""perdure in one process: client, engine and activities.

On SQLite, `synchronous=FULL`, in a file of its own; or, as one worker of maybe several, on the store whose URL is the
second argument.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import apsw
from wire import EngineOverWire, bounded, serve, timed

import perdure as df

STORE = sys.argv[2] if len(sys.argv) > 2 else ""
app = df.App("bench")
enough = threading.Event()
burning = 0


@app.activity
async def echo(value: Any) -> Any:
    return value


@app.activity
def burn() -> int:
    """A CPU-bound body in pure Python: it never lets the interpreter go of its own accord."""
    global burning
    rounds, burning = 0, burning + 1
    while not enough.is_set():
        rounds += sum(range(50)) & 1
    return rounds


@app.activity(executor=df.process_pool(workers=4))
def burn_elsewhere(context: df.ActivityContext) -> int:
    """The same in another process, until its instance is terminated."""
    rounds = 0
    context.heartbeat("burning")
    while not context.is_cancelled:
        rounds += sum(range(50)) & 1
    return rounds


@app.orchestrator
async def hello(context: df.OrchestrationContext, key: str) -> list[str]:
    return [
        await context.call_activity(echo, f"a{key}"),
        await context.call_activity(echo, f"b{key}"),
        await context.call_activity(echo, f"c{key}"),
    ]


@app.orchestrator
async def fan(context: df.OrchestrationContext, count: int) -> int:
    return len(await context.task_all([context.call_activity(echo, no) for no in range(count)]))


@app.orchestrator
async def sequence(context: df.OrchestrationContext, count: int) -> int:
    seen = 0
    for no in range(count):
        await context.call_activity(echo, no)
        seen += 1
    return seen


@app.orchestrator
async def idle(context: df.OrchestrationContext, key: str) -> str:
    claim = {"claim_id": key, "amount": 1250, "currency": "EUR"}
    decision: str = await context.wait_for_external_event("go", str, timeout=72 * 3600)
    return f"{claim['claim_id']} {decision}"


@app.orchestrator
async def burner(context: df.OrchestrationContext) -> int:
    rounds: int = await context.call_activity(burn)
    return rounds


@app.orchestrator
async def burner_elsewhere(context: df.OrchestrationContext) -> int:
    rounds: int = await context.call_activity(burn_elsewhere)
    return rounds


class Perdure(EngineOverWire):
    name = "perdure-postgres" if STORE else "perdure"
    client: df.Client
    _burning: list[str]

    async def open(self, folder: str) -> dict[str, str]:
        self._running = app.running(store=STORE or f"sqlite:///{os.path.join(folder, 'bench.db')}")
        self.client = await self._running.__aenter__()
        try:
            own = version("perdure")
        except PackageNotFoundError:
            own = "from source"
        return {"perdure": own, "sqlite": apsw.sqlite_lib_version(), "apsw": apsw.apsw_version()}

    async def close(self) -> None:
        enough.set()
        await self._running.__aexit__(None, None, None)

    async def hello(self, key: str) -> list[str]:
        return await self._run(hello, key)

    async def fan(self, count: int) -> int:
        return await self._run(fan, count)

    async def sequence(self, count: int) -> int:
        return await self._run(sequence, count)

    async def start_waiting(self, keys: list[str]) -> None:
        await bounded(lambda key: self.client.start_new(idle, key, key), keys, 100)

    async def finish_waiting(self, keys: list[str]) -> None:
        await bounded(lambda key: self.client.raise_event(key, "go", "yes"), keys, 100)
        await bounded(self.client.wait_for_completion, keys, 100)

    async def _run(self, orchestrator: Callable[..., Any], argument: object) -> Any:
        instance_id = await self.client.start_new(orchestrator, None, argument)
        status = await self.client.wait_for_completion(instance_id)
        if status.failure is not None:
            raise RuntimeError(f"{instance_id} failed: {status.failure}")
        return status.output

    # ------------------------------------------------------------------------------- what only perdure is asked

    async def do_burn(self, count: int) -> dict[str, Any]:
        """Have so many CPU-bound activities running in this engine; 0 ends them."""
        global burning
        if not count:
            enough.set()
            await bounded(self.client.wait_for_completion, self._burning, 4)
            return {}
        enough.clear()
        burning = 0
        self._burning = [await self.client.start_new(burner) for _ in range(count)]
        while burning < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return {"switch_interval": sys.getswitchinterval()}

    async def do_burn_elsewhere(self, count: int) -> dict[str, Any]:
        """The same on a process pool."""
        if not count:
            for instance_id in self._burning:
                await self.client.terminate(instance_id)
            return {}
        self._burning = [await self.client.start_new(burner_elsewhere) for _ in range(count)]
        for instance_id in self._burning:
            while "burning" not in (await self.client.get_status(instance_id)).waiting_for:  # type: ignore[union-attr]  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return {}

    async def do_settle(self, workers: int) -> dict[str, Any]:
        """Wait until so many workers share the hub evenly."""
        territory: Any = self.client.gateway.loop.sharing.territory  # type: ignore[attr-defined]
        until = time.monotonic() + 60
        while len(territory.owned) != territory.partitions // workers:
            if time.monotonic() > until:
                raise RuntimeError(f"it has {len(territory.owned)} partitions after a minute")
            await asyncio.sleep(0.01)
        return {"partitions": len(territory.owned)}

    async def do_evict(self) -> dict[str, Any]:
        """Put every suspended execution out of memory, as idleness would."""
        engine: Any = self.client.gateway
        until = time.monotonic() + 60
        while engine.health()["warm"] and time.monotonic() < until:
            engine.loop.idle_before = engine.clock.now() + 1
            engine.loop.nudge()
            await asyncio.sleep(0.002)
        await self.do_tidy()
        return {"warm": engine.health()["warm"]}

    async def do_tidy(self) -> dict[str, Any]:
        """Give back what is free, so that memory can be compared."""
        gc.collect()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
        return {"warm": self.client.gateway.health()["warm"]}  # type: ignore[attr-defined]

    async def do_ask(self) -> dict[str, Any]:
        """How long the questions take that lists and pages ask, in milliseconds: the first time, and the median."""
        client, store = self.client, self.client.gateway.store
        newest = (await client.query(top=1)).instances[0].instance_id
        questions: dict[str, Callable[[], Awaitable[Any]]] = {
            "one status": lambda: client.get_status(newest),
            "first page of 100": lambda: client.query(top=100),
            "100 running": lambda: client.query(status="Running", top=100),
            "100 failed (there are none)": lambda: client.query(status="Failed", top=100),
            "100 by name": lambda: client.query(name="idle", top=100),
            "100 by prefix": lambda: client.query(prefix=newest[:3], top=100),
            "100 waiting for go": lambda: client.query(waiting_for="go", top=100),
            "counts by status": lambda: asyncio.to_thread(store.counts),
        }
        answers = {}
        for name, question in questions.items():
            times = sorted([first := await timed(question()), *[await timed(question()) for _ in range(4)]])
            answers[name] = {"first_ms": round(first * 1e3, 2), "median_ms": round(times[2] * 1e3, 2)}
        return {"questions": answers}


if __name__ == "__main__":
    serve(Perdure())
