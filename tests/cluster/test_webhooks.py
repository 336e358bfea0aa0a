"""Webhooks where several workers serve a hub: each event once, whichever worker delivers it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import perdure as df
from perdure.model.announcements import DELIVERY as WEBHOOK
from tests.cluster.shop import shop
from tests.outbound.conftest import Server, answer, server

__all__ = ["server"]


async def test_each_event_is_delivered_once(server: Server) -> None:
    server.answers["/hook"] = answer(200)
    app = df.App(
        "shop",
        http=df.HttpPolicy(allow=[f"127.0.0.1:{server.port}"], secrets={"HOOK": "a text"}, timeout=30),
        webhooks=[df.Webhook(f"{server.url}/hook", secret=df.Secret("HOOK"), events=["instance.completed"])],
    )

    @app.orchestrator
    async def short(context: df.OrchestrationContext) -> None:
        return None

    async with shop(app, {}, {}) as opened:
        await opened.shared_out()
        client = opened.workers[0].client
        ids = [f"claim-{n}" for n in range(20)]
        await asyncio.gather(*(client.start_new("short", one) for one in ids))
        await asyncio.gather(*(client.wait_for_completion(one) for one in ids))
        while (await client.query(name=WEBHOOK, top=1)).instances:
            await asyncio.sleep(0)
    told = Counter(json.loads(one.body)["data"]["instanceId"] for one in server.asked)
    assert told == dict.fromkeys(ids, 1)
