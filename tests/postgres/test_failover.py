"""A primary that dies and a standby that takes its place: the hub goes on there, with all that was acknowledged."""

from __future__ import annotations

import asyncio

import pytest

import perdure as df
from tests.postgres.servers import Server
from tests.postgres.standby import Standby
from tests.postgres.test_outages import flows, until_answered


@pytest.mark.timeout(120)
async def test_the_hub_goes_on_at_a_promoted_standby() -> None:
    with Server(15) as primary, primary.database() as there, Standby(primary) as standby:
        database = there.rpartition("/")[2]
        hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
        url = f"postgresql://postgres@{hosts}/{database}?target_session_attrs=read-write"
        app = flows()
        async with app.running(store=url, lease=3.0) as client:
            for n in range(20):
                await client.start_new("flow", f"flow-{n}", n)
            await client.raise_event("flow-0", "Go", 1)
            await asyncio.to_thread(primary.kill9)
            # What is asked for now is done when there is somebody to do it.
            asking = asyncio.create_task(
                until_answered(lambda: client.start_new("flow", "flow-20", 20, operation_id="twenty"))
            )
            await asyncio.to_thread(standby.promote)
            assert await asking == "flow-20"
            for n in range(1, 21):
                await until_answered(lambda n=n: client.raise_event(f"flow-{n}", "Go", 1, event_id=f"go-{n}"))  # type: ignore[misc]
            done = [
                await until_answered(lambda n=n: client.wait_for_completion(f"flow-{n}", 60))  # type: ignore[misc]
                for n in range(21)
            ]
            assert [status.output for status in done] == [n + 3 for n in range(21)]
            assert {status.runtime_status for status in done} == {df.RuntimeStatus.Completed}
        await asyncio.to_thread(primary.start)  # so that its database can be dropped
        primary.sql("alter system reset synchronous_standby_names")
        primary.sql("select pg_reload_conf()")
