"""The claims example on PostgreSQL: three workers, killed while they work, and the bank's own book at the end.

    python -m tests.postgres.claims [--claims 1000] [--kills 50] [--version 18] [--seed 1]

Customers and adjusters talk to an engine that accepts only, in this process, and repeat what was not answered. The
ledger is a file of its own, which all workers write to: what it says was paid, was paid.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import perdure as df
from examples.claims.connections import BANK_BOOK
from examples.claims.demo.report import ENDINGS, Audit, audit, book_in, standing_of, trail_of
from examples.claims.demo.traffic import Desk, statuses, until_answered
from examples.claims.model import Claim
from examples.claims.process import app, claims_orchestrator
from examples.claims.source import claims_of, made_up
from examples.claims.staff import STAFF
from tests.postgres.servers import NEWEST, VERSIONS, Server

ROOT = Path(__file__).parents[2]
LEASE = 2.0
WORKERS = 3
STUCK_AFTER = 120.0  # seconds without a change after which it is given up
CUSTOMERS = 16


class Workforce:
    """Three processes, of which a random one dies now and then and is replaced a moment later."""

    def __init__(self, url: str, home: Path, seed: int) -> None:
        self.kills = 0
        self._url = url
        self._environment = {**os.environ, "CLAIMS_HOME": str(home)}
        self._log = (home / "workers.log").open("ab")
        self._chance = random.Random(seed)
        self._processes = [self._begin() for _ in range(WORKERS)]

    def _begin(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.postgres.claims", "--serve", self._url]
        return subprocess.Popen(command, cwd=ROOT, env=self._environment, stdout=self._log, stderr=self._log)

    async def kill(self, times: int, gap: float) -> None:
        """Kill so often, with random pauses of `gap` seconds on average in between."""
        for _ in range(times):
            await asyncio.sleep(self._chance.uniform(0.5, 1.5) * gap)
            place = self._chance.randrange(WORKERS)
            self._processes[place].send_signal(signal.SIGKILL)
            self._processes[place].wait()
            self.kills += 1
            self._processes[place] = self._begin()

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        self._log.close()


async def processed(
    url: str, home: Path, claims: Sequence[Claim], kills: int, *, gap: float, seed: int = 1
) -> tuple[Audit, int]:
    """File, decide, pay, with kills meanwhile; returns the accounts and how many workers died."""
    workforce = Workforce(url, home, seed)
    try:
        async with app.running(store=url, accept_only=True, lease=LEASE) as client:
            async with asyncio.TaskGroup() as group:
                killing = group.create_task(workforce.kill(kills, gap))
                await _filed(client, claims)
                await _settled(client, claims, killing)
            return await audit(
                client, [claim.claim_id for claim in claims], book_in(home / BANK_BOOK)
            ), workforce.kills
    finally:
        workforce.end()


async def _filed(client: df.Client, claims: Sequence[Claim]) -> None:
    waiting_line = iter(claims)

    async def customer() -> None:
        for claim in waiting_line:
            start = partial(client.start_new, claims_orchestrator, claim.claim_id, claim)
            await until_answered(partial(start, operation_id=f"file-{claim.claim_id}"))

    async with asyncio.TaskGroup() as group:
        for _ in range(CUSTOMERS):
            group.create_task(customer())


async def _settled(client: df.Client, claims: Sequence[Claim], killing: asyncio.Task[None]) -> None:
    """Decide until the killing is over, and every claim has ended or is left to a person."""
    desk = Desk(dict.fromkeys(STAFF, client), {claim.claim_id: claim for claim in claims})
    before, since = (-1, -1), time.monotonic()
    while time.monotonic() - since < STUCK_AFTER:
        _, left_alone = await desk.work()
        standings = [standing_of(status, trail_of(status)) async for status in statuses(client)]
        living = sum(standing not in (*ENDINGS, "failed") for standing in standings)
        if living == left_alone and len(standings) >= len(claims) and killing.done():
            return
        if (living, left_alone) != before:
            before, since = (living, left_alone), time.monotonic()
        await asyncio.sleep(0.1)
    raise TimeoutError(f"nothing has moved for {STUCK_AFTER:g} s: {await client.counts()}")


async def serve(url: str) -> None:
    """One worker, until it is killed."""
    async with app.running(store=url, lease=LEASE):
        await asyncio.Event().wait()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.postgres.claims", description=__doc__)
    parser.add_argument("--serve", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--claims", type=int, default=1_000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--gap", type=float, default=1.5, help="seconds between kills on average")
    parser.add_argument("--version", type=int, default=NEWEST, choices=VERSIONS)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.serve:
        with suppress(KeyboardInterrupt):
            asyncio.run(serve(options.serve))
        return 0
    claims = list(claims_of(made_up(options.claims)))
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, Server(options.version) as server:
        os.environ["CLAIMS_HOME"] = folder
        with server.database() as url:
            found, kills = asyncio.run(
                processed(url, Path(folder), claims, options.kills, gap=options.gap, seed=options.seed)
            )
    took = time.monotonic() - began
    print(f"{len(claims)} claims, {kills} kills, {took:.0f} s: {found.verdict}; {dict(found.numbers)}")  # noqa: T201
    return 0 if found.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
