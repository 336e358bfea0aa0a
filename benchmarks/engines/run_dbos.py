"""DBOS Transact in one process: on SQLite as it comes (journal_mode=DELETE, synchronous=FULL), or on PostgreSQL.

A URL among the arguments is the database. `sync` runs its `def` workflows on threads instead of its `async` ones:
they are its faster half for W1, W2 and W4, and cannot be asked for parallel steps.
"""

from __future__ import annotations

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

from dbos import DBOS, SetWorkflowID
from wire import EngineOverWire, bounded, serve

FOLDER = sys.argv[1]
ON_THREADS = "sync" in sys.argv[2:]
DATABASE = next((one for one in sys.argv[2:] if "://" in one), "")
THREADS = 16
waiting = 0

DBOS(
    config={
        "name": "bench",
        "system_database_url": DATABASE or f"sqlite:///{os.path.join(FOLDER, 'dbos.sqlite')}",
        "log_level": "ERROR",
        "application_version": "1",
    }
)


@DBOS.step()
async def echo(value: Any) -> Any:
    return value


@DBOS.step()
def plain_echo(value: Any) -> Any:
    return value


@DBOS.workflow()
async def hello(key: str) -> list[str]:
    return [await echo(f"a{key}"), await echo(f"b{key}"), await echo(f"c{key}")]


@DBOS.workflow()
def plain_hello(key: str) -> list[str]:
    return [plain_echo(f"a{key}"), plain_echo(f"b{key}"), plain_echo(f"c{key}")]


@DBOS.workflow()
async def fan(count: int) -> int:
    return len(await asyncio.gather(*[echo(no) for no in range(count)]))


@DBOS.workflow()
async def sequence(count: int) -> int:
    seen = 0
    for no in range(count):
        await echo(no)
        seen += 1
    return seen


@DBOS.workflow()
def plain_sequence(count: int) -> int:
    return sum(plain_echo(no) >= 0 for no in range(count))


@DBOS.workflow()
async def idle(key: str) -> str:
    global waiting
    waiting += 1
    return f"{key} {await DBOS.recv_async('go', timeout_seconds=72 * 3600)}"


class Dbos(EngineOverWire):
    name = "dbos-sync" if ON_THREADS else "dbos"
    workloads = ("W1", "W2", "W4") if ON_THREADS else ("W1", "W2", "W3", "W4", "W5")
    most_together = THREADS if ON_THREADS else 1_000
    most_waiting = 2_000

    async def open(self, folder: str) -> dict[str, str]:
        self._threads = ThreadPoolExecutor(THREADS)
        self._handles: dict[str, Any] = {}
        await asyncio.to_thread(DBOS.launch)
        return {"dbos": version("dbos")}

    async def hello(self, key: str) -> list[str]:
        if ON_THREADS:
            return await self._on_thread(plain_hello, key)
        return await (await DBOS.start_workflow_async(hello, key)).get_result()

    async def fan(self, count: int) -> int:
        return await (await DBOS.start_workflow_async(fan, count)).get_result()

    async def sequence(self, count: int) -> int:
        if ON_THREADS:
            return await self._on_thread(plain_sequence, count)
        return await (await DBOS.start_workflow_async(sequence, count)).get_result()

    async def start_waiting(self, keys: list[str]) -> None:
        async def start(key: str) -> None:
            with SetWorkflowID(key):
                self._handles[key] = await DBOS.start_workflow_async(idle, key)

        before = waiting
        await bounded(start, keys, 32)
        while waiting - before < len(keys):  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    async def finish_waiting(self, keys: list[str]) -> None:
        await bounded(lambda key: DBOS.send_async(key, "yes", "go"), keys, 32)
        await asyncio.gather(*[self._handles.pop(key).get_result() for key in keys])

    async def _on_thread(self, workflow: Any, argument: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, workflow, argument)


if __name__ == "__main__":
    serve(Dbos())
