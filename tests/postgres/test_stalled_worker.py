"""A worker without a supervisor, held up by a call into C that keeps the interpreter to itself.

Nothing of it runs meanwhile, not even the thread that prolongs its lease. So it loses its partitions, and that is
safe: what it believes afterwards is not written.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

import perdure as df
from perdure.model.instances import PARTITIONS

ROOT = Path(__file__).parents[2]
LEASE = 1.0
HELD_FOR = 8  # seconds; several leases
app = df.App("held")


@app.activity
def hold(_: None) -> str:
    """Where HOLD says so, no other thread of the process runs for a while."""
    if os.environ.get("HOLD") == "1":
        Path(os.environ["HOLD_MARK"]).touch()
        ctypes.PyDLL(None).sleep(HELD_FOR)  # PyDLL does not let the interpreter go
        return "held"
    return "free"


@app.orchestrator
async def holding(context: df.OrchestrationContext) -> str:
    return await context.call_activity(hold)


async def serve(url: str) -> None:
    async with app.running(store=url, lease=LEASE, worker_name="held"):
        await asyncio.Event().wait()


def begin(url: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.postgres.test_stalled_worker", url], cwd=ROOT, env=environment
    )


def owners(url: str) -> dict[str, int]:
    with psycopg.connect(url) as looking:
        return dict(
            looking.execute(
                "select w.worker, count(*) from perdure.partitions p join perdure.workers w using (incarnation) "
                "where w.state <> 'void' group by w.worker"
            ).fetchall()
        )


async def until(is_so: object, seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not is_so():  # type: ignore[operator]
            await asyncio.sleep(0.05)


@pytest.mark.timeout(90)
async def test_without_a_supervisor_it_loses_its_partitions_safely(newest_url: str, tmp_path: Path) -> None:
    mark = tmp_path / "holding"
    environment = {**os.environ, "HOLD": "1", "HOLD_MARK": str(mark)}
    held = begin(newest_url, environment)
    try:
        async with app.running(store=newest_url, lease=LEASE, accept_only=True, worker_name="door") as door:
            await until(lambda: owners(newest_url).get("held") == PARTITIONS)
            await door.start_new(holding, "one")
            await until(mark.exists)
            held_since = time.monotonic()
            async with app.running(store=newest_url, lease=LEASE, worker_name="free") as free:
                await until(lambda: owners(newest_url) == {"free": PARTITIONS})
                took_over = time.monotonic() - held_since
                status = await free.wait_for_completion("one", 60)
                assert status.output == "free"
                assert took_over < HELD_FOR
                await until(
                    lambda: owners(newest_url) == {"free": PARTITIONS // 2, "held": PARTITIONS // 2}
                )  # it is back, as another
            history = (await door.get_status("one", show_history=True)).history or []  # type: ignore[union-attr]
            assert [event["type"] for event in history].count("TaskCompleted") == 1
    finally:
        held.kill()
        held.wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
