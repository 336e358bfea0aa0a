"""A worker that lives to be killed: claims on a PostgreSQL hub, several of these processes side by side.

    python -m tests.postgres.victim --store URL --ledger FILE --name w1.1 --lease 2

It says `ready` on standard output when it serves, ends in order when its standard input does, and dies with its
parent. What its activities do to the world is a line each in the ledger, written by one write that cannot be torn.
What an activity returns stands there too, so that each result in a history can be held against it.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import logging
import os
import random
import secrets
import signal
import sys
import time
from dataclasses import dataclass
from typing import Any

import perdure as df

PR_SET_PDEATHSIG = 1
TALLIES = 4
HEAVY = "heavy"  # the pool of appraisals

app = df.App("victim")
_ledger = -1
_name = ""


@dataclass
class Claim:
    id: str
    number: int
    amount: int
    checks: int
    waits: bool
    flaky: bool


@dataclass
class Receipt:
    """The result of an activity: which logical call, and which run of its body."""

    key: str
    run: str


class Doing:
    """A line in the ledger when an activity's body begins, and one when it has done what it does."""

    def __init__(self, activity: str, subject: str, context: df.ActivityContext) -> None:
        self.receipt = Receipt(context.idempotency_key, secrets.token_hex(6))
        self._facts = {"activity": activity, "subject": subject, "worker": _name}
        self._write("began")

    def done(self) -> Receipt:
        self._write("ended")
        return self.receipt

    def _write(self, what: str) -> None:
        facts = {"what": what, "key": self.receipt.key, "run": self.receipt.run, **self._facts}
        os.write(_ledger, json.dumps({**facts, "at": time.time()}).encode() + b"\n")


@app.activity
async def check(claim: Claim, context: df.ActivityContext) -> Receipt:
    doing = Doing("check", claim.id, context)
    await asyncio.sleep(random.random() * 0.03)
    return doing.done()


@app.activity(retry=df.RetryPolicy(first_interval=0.05, max_attempts=6, backoff=1.5))
def pay(claim: Claim, context: df.ActivityContext) -> Receipt:
    """Charge once for a key. The gateway's answer may be lost, and the process may die right after."""
    doing = Doing("pay", claim.id, context)
    time.sleep(random.random() * 0.05)
    receipt = doing.done()
    if claim.flaky and context.attempt < 3:
        raise ConnectionError("the answer of the gateway was lost")
    return receipt


@app.activity(pool=HEAVY)
async def appraise(claim: Claim, context: df.ActivityContext) -> Receipt:
    """Long enough to be going on when its worker dies, or the worker whose instance asked for it."""
    doing = Doing("appraise", claim.id, context)
    await asyncio.sleep(0.05 + random.random() * 0.3)
    return doing.done()


@app.activity
async def notify(text: str, context: df.ActivityContext) -> Receipt:
    return Doing("notify", text, context).done()


@app.entity
class Tally:
    """What was paid; an operation that is applied twice or never shows."""

    total: int = 0

    def add(self, amount: int) -> int:
        self.total += amount
        return self.total


@app.orchestrator
async def tell_everybody(context: df.OrchestrationContext, text: str) -> int:
    await context.task_all([context.call_activity(notify, f"{text} {n}") for n in range(2)])
    await context.create_timer(0.01)
    return 2


@app.orchestrator(events={"Decision": bool})
async def claims(context: df.OrchestrationContext, claim: Claim) -> dict[str, Any]:
    await context.task_all([context.call_activity(check, claim) for _ in range(claim.checks)])
    approved = True
    if claim.waits:
        approved = await context.wait_for_external_event("Decision", bool)
    if not approved:
        return {"status": "denied"}
    receipt = await context.call_activity(pay, claim)
    await context.call_activity(appraise, claim)
    await context.call_entity(tally_of(claim.number), "add", claim.amount)
    await context.call_sub_orchestrator(tell_everybody, claim.id)
    return {"status": "paid", "key": receipt.key}


def tally_of(number: int) -> df.EntityId:
    return df.EntityId("Tally", f"tally-{number % TALLIES}")


async def serve(given: argparse.Namespace) -> None:
    belonging: dict[str, Any] = {"lease": given.lease, "worker_name": given.name, "pool": given.pool}
    async with app.running(store=given.store, drain=2.0, **belonging):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        await reader.read()


def die_with_parent() -> None:
    """Also when stopped, or held up so that it would not see its standard input end."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    global _ledger, _name
    parser = argparse.ArgumentParser(prog="python -m tests.postgres.victim")
    parser.add_argument("--store", required=True)
    parser.add_argument("--ledger", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--lease", type=float, required=True)
    parser.add_argument("--pool", action="append", default=[])
    given = parser.parse_args()
    die_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    _ledger = os.open(given.ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    _name = given.name
    asyncio.run(serve(given))


if __name__ == "__main__":
    main()
