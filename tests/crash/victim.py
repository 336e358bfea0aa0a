"""A process that lives to be killed: claims on a SQLite hub, paid into a ledger of its own.

    python tests/crash/victim.py DIRECTORY

Requests come in on standard input and answers go out on standard output, a JSON object a line. An answer is
written when the engine has given it, and not before; the parent believes no other sign.
The ledger is another SQLite file, with one row per idempotency key. The witness is a file of lines, appended
whenever the body of an activity is entered.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sqlite3
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import perdure as df

app = df.App("victim")
DIRECTORY = Path(sys.argv[1] if len(sys.argv) > 1 else ".")


@dataclass
class Claim:
    id: str
    amount: int
    waits: bool
    flaky: bool


def witness(what: str, key: str) -> None:
    """One line, whole or not at all: appended by a single write."""
    file = os.open(DIRECTORY / "witness.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, f"{what} {key} {os.getpid()}\n".encode())
    finally:
        os.close(file)


@app.activity
async def check(claim: Claim, context: df.ActivityContext) -> float:
    witness("check", context.idempotency_key)
    await asyncio.sleep(random.random() * 0.01)
    return claim.amount / 1_000


@app.activity(retry=df.RetryPolicy(first_interval=0.05, max_attempts=6, backoff=1.5))
def pay(claim: Claim, context: df.ActivityContext) -> str:
    """Charge once for a key. The answer of the gateway may be lost, and the process may die right after."""
    witness("pay", context.idempotency_key)
    with closing(sqlite3.connect(DIRECTORY / "ledger.db", timeout=10)) as ledger, ledger:
        ledger.execute(
            "insert or ignore into paid (key, claim, amount) values (?, ?, ?)",
            (context.idempotency_key, claim.id, claim.amount),
        )
    time.sleep(random.random() * 0.02)
    if claim.flaky and context.attempt < 3:
        raise ConnectionError("the answer of the gateway was lost")
    return context.idempotency_key


@app.activity
async def notify(text: str, context: df.ActivityContext) -> None:
    witness("notify", context.idempotency_key)


@app.orchestrator
async def tell_everybody(context: df.OrchestrationContext, text: str) -> int:
    await context.task_all([context.call_activity(notify, f"{text} {n}") for n in range(2)])
    await context.create_timer(0.01)
    return 2


@app.orchestrator(events={"Decision": bool})
async def claims(context: df.OrchestrationContext, claim: Claim) -> dict[str, Any]:
    risks = await context.task_all(context.call_activity(check, claim), context.call_activity(check, claim))
    approved = True
    if claim.waits:
        context.set_custom_status("waiting")
        approved = await context.wait_for_external_event("Decision", bool)
    if not approved:
        return {"status": "denied", "risks": risks}
    key = await context.call_activity(pay, claim)
    told = await context.call_sub_orchestrator(tell_everybody, claim.id)
    return {"status": "paid", "key": key, "told": told}


async def answer(client: df.Client, request: dict[str, Any]) -> Any:
    match request["do"]:
        case "file":
            claim = request["claim"]
            return await client.start_new(claims, claim["id"], claim, operation_id=f"file {claim['id']}")
        case "decide":
            name = request["id"]
            return await client.raise_event(name, "Decision", request["approved"], event_id=f"decide {name}")
        case "outcome":
            statuses = [await client.get_status(instance_id) for instance_id in request["ids"]]
            return [None if s is None else [s.runtime_status.value, s.output, s.reason] for s in statuses]


async def serve(client: df.Client) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=2**24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    tasks: set[asyncio.Task[None]] = set()

    async def handle(request: dict[str, Any]) -> None:
        reply: dict[str, Any] = {"n": request["n"]}
        try:
            reply["ok"] = await answer(client, request)
        except df.PerdureError as error:
            reply["error"] = type(error).__name__
        say(reply)

    say({"ready": os.getpid()})
    while line := await reader.readline():
        task = asyncio.create_task(handle(json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)


def say(reply: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()


async def main() -> None:
    with closing(sqlite3.connect(DIRECTORY / "ledger.db")) as ledger:
        ledger.execute("pragma journal_mode = wal")
        ledger.execute("create table if not exists paid (key text primary key, claim text, amount integer)")
        ledger.commit()
    store = os.environ.get("VICTIM_STORE") or f"sqlite:///{DIRECTORY}/hub.db"
    async with app.running(store=store, hub="victim") as client:
        await serve(client)


if __name__ == "__main__":
    asyncio.run(main())
