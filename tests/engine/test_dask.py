"""Dask as the executor: a real cluster on this machine."""

import asyncio
import os

from distributed import Client, LocalCluster

from tests.engine import elsewhere
from tests.engine.test_executors import app_on, appears, run, served


async def test_activities_run_on_a_dask_cluster_with_progress_and_cancellation(tmp_path):
    app = app_on("dask", elsewhere.describe, elsewhere.fail, elsewhere.wait_for_file)
    ended = []

    @app.executor("dask")
    def dask():
        with (
            LocalCluster(
                n_workers=1, threads_per_worker=2, processes=True, dashboard_address=":0"
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client.get_executor()
        ended.append(True)

    path = f"{tmp_path}/never"
    async with served(app) as client:
        described = (await run(client, "describe", {"path": "a.jpg", "width": 3})).output
        assert described["photo"] == ["a.jpg", 3]
        assert described["pid"] != os.getpid()
        assert (await run(client, "fail", 7)).failure.cause.message == "no 7"

        instance = await client.start_new("stop", None, ["wait_for_file", path])
        await appears(f"{path}.1.begun")
        while " of 0, last heartbeat 0 s ago)" not in (await client.get_status(instance)).waiting_for:
            await asyncio.sleep(0.02)
        (activity,) = (await client.get_status(instance)).waiting.activities
        await client.raise_event(instance, "Stop")
        await client.wait_for_completion(instance, 60)
        await appears(f"{path}.cancelled")

    assert activity.where == "executor 'dask'"
    assert ended == [True]


def test_a_worker_that_cannot_reach_the_engine_keeps_the_deadlines_itself(tmp_path):
    """As on another machine: no line, so neither leave to begin nor heartbeats, but time-outs all the same."""
    import msgspec
    from msgspec import Raw

    from perdure.engine.activities.executors.channel import Card
    from perdure.engine.activities.executors.child import carry_out
    from perdure.model.messages import ActivityResult
    from perdure.replay.settle import Invocation

    def carried(name, input_, timeout=0, heartbeat=0):
        invocation = Invocation(
            "one", "e-1", 0, 0, 1, name, Raw(msgspec.json.encode(input_)), timeout, heartbeat
        )
        card = Card(f"{tmp_path}/no-such-socket", b"key", "e-1.0.1")
        place = f"tests.engine.elsewhere:{name}"
        answer = carry_out(place, msgspec.json.encode(invocation), msgspec.json.encode(card))
        return msgspec.json.decode(answer, type=ActivityResult)

    assert bytes(carried("quick", None).result) == str(os.getpid()).encode()
    path = f"{tmp_path}/never"
    late = carried("wait_for_file", path, timeout=50_000)
    silent = carried("wait_for_file", path, heartbeat=1_000_000, timeout=1_200_000)

    assert "exceeded its timeout of 0.05 s" in late.failure.message
    assert "exceeded its timeout of 1.2 s" in silent.failure.message  # it beats, so it is not its silence
    assert carried("nowhere", None).failure.type == "perdure.errors.FunctionNotFound"
