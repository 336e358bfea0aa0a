"""`python -m benchmarks.azure_storage`: a hub in Azure Storage, over Azurite, with a delay before each commit.

W1 is three activities in a row, 100 instances at once; W2 is the same, one at a time; hello5 has five activities. CPU
is this process's, without Azurite. Azurite shares the machine and says nothing about Azure's time: the delay stands
for the way to the service. Requests are counted, because they are what Azure charges for.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import perdure as df
from benchmarks.report import table
from examples.claims import process
from examples.claims.demo.report import ENDINGS, standing_of, trail_of
from examples.claims.demo.traffic import Desk
from examples.claims.model import Claim
from examples.claims.source import claims_of, made_up
from examples.claims.staff import STAFF
from perdure.model.records import InstanceFilter
from perdure.store.log.azure import AzureLog, AzureService
from perdure.store.log.requests import Answer, Requests
from perdure.store.log.store import LogStore
from tests.store.log.azurite import account_at, azurite

ECHO = 20_000  # bytes of a record that the client alone appends
IDLE = 30.0  # seconds


def app_of(steps: int) -> df.App:
    app = df.App(f"hello{steps}")

    @app.activity
    async def echo(value: str) -> str:
        return value

    @app.orchestrator
    async def hello(context: df.OrchestrationContext, key: str) -> list[str]:
        return [await context.call_activity(echo, f"{no}{key}") for no in range(steps)]

    return app


@contextmanager
def counted(delay: float) -> Iterator[Counter[str]]:
    """Count the requests by verb and kind, and delay those of commits."""
    real, found = Requests.ask, Counter[str]()

    def ask(self: Requests, verb: str, path: str, *given: Any) -> Answer:
        found[path.partition("(")[0].partition("?")[0].rpartition("/")[2] if verb != "POST" else path] += 1
        if path == "$batch":
            time.sleep(delay)
        return real(self, verb, path, *given)

    Requests.ask = ask  # type: ignore[assignment, method-assign]
    try:
        yield found
    finally:
        Requests.ask = real  # type: ignore[method-assign]


async def run(
    client: df.Client, count: int, together: int, requests: Counter[str]
) -> tuple[float, float, float]:
    """Instances a second, milliseconds of CPU each, requests each."""
    left = iter(range(count))

    async def go() -> None:
        for no in left:
            await client.wait_for_completion(await client.start_new("hello", None, str(no)))

    before, cpu, began = requests.total(), time.process_time(), time.perf_counter()
    await asyncio.gather(*(go() for _ in range(together)))
    seconds = time.perf_counter() - began
    return count / seconds, (time.process_time() - cpu) / count * 1e3, (requests.total() - before) / count


async def measured(connection: str, folder: str, delay: float, count: int) -> list[tuple[str, str]]:
    rows = []
    with counted(delay) as requests:
        for title, steps, share, together in (
            ("hello3, 100 at once", 3, 1.0, 100),
            ("hello5, 500 at once", 5, 1.0, 500),
            ("hello3, one at a time", 3, 0.02, 1),
        ):
            store = store_of(connection, f"hello{steps}x{together}", folder)
            async with app_of(steps).running(store=store) as client:
                await run(client, 300, 100, requests)
                fast, cpu, asked = await run(client, round(count * share), together, requests)
                rows.append(
                    (title, f"{fast:,.0f} a second, {cpu:.3f} ms of CPU each, {asked:.3f} requests each")
                )
                if together == 100:
                    before = requests.total()
                    await asyncio.sleep(IDLE)
                    rows.append(("idle", f"{(requests.total() - before) / IDLE:.2f} requests a second"))
    return rows


async def claims(connection: str, folder: str, delay: float, count: int, together: int) -> tuple[str, str]:
    """What the claims of the example cost: from filing to payment, people's decisions included."""
    os.environ["CLAIMS_HOME"] = f"{folder}/claims{together}"
    os.makedirs(os.environ["CLAIMS_HOME"])
    store = store_of(connection, f"claims{together}", folder)
    given = list(claims_of(made_up(count)))
    with counted(delay) as requests:
        async with process.app.running(store=store) as client:
            before = requests.total()
            for first in range(0, count, together):
                await _filed(client, given[first : first + together])
                await _settled(client, given[: first + together])
            asked = (requests.total() - before) / count
            written = store._before.written / count
            copy = store._shelf.put(store.location).size / count
    return (
        f"{count} claims, {together} at once",
        f"{asked:.2f} requests, {written:,.0f} bytes of records, {copy:,.0f} bytes of a snapshot each",
    )


async def _filed(client: df.Client, given: list[Claim]) -> None:
    await asyncio.gather(*(client.start_new("claims_orchestrator", one.claim_id, one) for one in given))


async def _settled(client: df.Client, given: list[Claim]) -> None:
    """Decide until each claim has ended or waits for a second person."""
    desk = Desk(dict.fromkeys(STAFF, client), {one.claim_id: one for one in given})
    ids, left = [one.claim_id for one in given], len(given)
    while left:
        _, alone = await desk.work()
        found = [status for name in ids if (status := await client.get_status(name)) is not None]
        living = [one for one in found if standing_of(one, trail_of(one)) not in (*ENDINGS, "failed")]
        left = len(ids) - len(found) + len(living) - alone
        await asyncio.sleep(0.05)


def store_of(connection: str, hub: str, folder: str) -> LogStore:
    return LogStore(AzureService(account_at(connection), hub), hub, directory=folder)


def replayed(connection: str, folder: str) -> tuple[str, str]:
    """How fast an empty machine has the hub."""
    store = store_of(connection, "hello3x100", f"{folder}/empty")
    cpu, began = time.process_time(), time.perf_counter()
    store.open()
    cpu, seconds = time.process_time() - cpu, time.perf_counter() - began
    count = store.count(InstanceFilter())
    store.close_reader()
    store.close()
    return (
        "replay on an empty machine",
        f"{count / cpu:,.0f} instances a second of CPU, {count / seconds:,.0f} a second",
    )


def appended(connection: str) -> tuple[str, str]:
    """The client alone: CPU of a commit of 20 KB."""
    log = AzureService(account_at(connection), "client").log()
    assert isinstance(log, AzureLog)
    log.create()
    log.head()
    record, count = os.urandom(ECHO), 300
    cpu = time.process_time()
    for no in range(count):
        log.append(no, record)
    cpu = (time.process_time() - cpu) / count * 1e3
    log.close()
    return "the client alone, a commit of 20 KB", f"{cpu:.3f} ms of CPU"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.azure_storage", description=__doc__)
    parser.add_argument("--delay", type=float, default=8.0, help="milliseconds before each commit's request")
    parser.add_argument("--count", type=int, default=5_000, help="instances of a workload")
    parser.add_argument("--claims", type=int, default=300, help="claims of the example")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, azurite(Path(folder)) as connection:
        rows = asyncio.run(measured(connection, folder, given.delay / 1e3, given.count))
        for many, together in ((given.claims, given.claims), (given.claims // 10, 1)):
            rows.append(asyncio.run(claims(connection, folder, given.delay / 1e3, many, together)))
        print(table(["", "measured"], [*rows, replayed(connection, folder), appended(connection)]))


if __name__ == "__main__":
    main()
