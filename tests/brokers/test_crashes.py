"""The broker dies around the acknowledgement: what it had confirmed is handled, and nothing is started twice.

A broker is killed, all its processes at once, at one of the moments that matter in the life of a message, and
started again with what it had written. What it promised to keep comes again, under the same id; the hub finds the
instance that is there.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from azure.storage.queue.aio import QueueClient
from redis.asyncio import Redis

import perdure as df
from perdure.testing import environment
from perdure.triggers import broker_pump
from perdure.triggers.brokers import rabbitmq
from tests.brokers import servers
from tests.brokers.test_brokers import BENCHES, Bench, claims

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.xdist_group("brokers"),
    # A broker that is killed while its driver connects: the driver's own coroutine, thrown away.
    pytest.mark.filterwarnings("ignore:coroutine 'Connection:RuntimeWarning"),
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <coroutine object Connection:pytest.PytestUnraisableExceptionWarning"
    ),
]

NUMBERS = range(4)
MOMENTS = ("received", "accepted", "acknowledging", "acknowledged", "burying")
KINDS = ("rabbitmq", "redis", "azurite")
SHORT = {("redis", moment) for moment in MOMENTS} | {
    ("rabbitmq", "burying"),
    ("azurite", "acknowledging"),
}


@dataclass
class Broker:
    """A server that can be killed, a hand in its queues, and how much is left in one."""

    kind: str
    server: servers.Server
    bench: Callable[[str, str], Bench]

    async def again(self) -> None:
        """Kill it and start it anew, while the hub goes on, and whatever becomes of who has asked."""

        def kill_and_start() -> None:
            self.server.kill()
            self.server.start()

        await asyncio.to_thread(kill_and_start)

    async def keep(self, queue: str) -> None:
        """Return when what was sent is on disk. The other two say nothing before it is."""
        if self.kind != "azurite":
            return
        written = self.server.directory / "__azurite_db_queue__.json"
        async with asyncio.timeout(30):
            while not written.exists() or written.read_text().count(f'"queueName":"{queue}"') < len(NUMBERS):
                await asyncio.sleep(0.05)

    async def left(self, queue: str) -> int:
        """Messages that are not acknowledged."""
        url = self.server.url
        match self.kind:
            case "redis":
                async with Redis.from_url(url) as redis:
                    [group] = await redis.xinfo_groups(queue)
                    return int(group["pending"]) + int(group["lag"] or 0)
            case "rabbitmq":
                async with await aio_pika.connect(url) as connection:
                    channel = await connection.channel()
                    declared = await channel.declare_queue(queue, durable=True)
                    return int(declared.declaration_result.message_count or 0)
            case _:
                async with QueueClient.from_connection_string(url, queue, retry_total=0) as client:
                    return int((await client.get_queue_properties()).approximate_message_count or 0)


@pytest.fixture(scope="module")
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    directory: Path = tmp_path_factory.mktemp(f"{request.param}-crashes")
    with getattr(servers, request.param)(directory, durable=True) as server:
        yield Broker(request.param, server, BENCHES[request.param])


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits between attempts are for people's networks."""
    monkeypatch.setattr(broker_pump, "RECONNECT_AFTER", (0.05, 0.2))
    monkeypatch.setattr(rabbitmq, "WAIT", 0.2)


class Doomed:
    """A source whose broker is killed once, at one moment."""

    def __init__(self, source: Any, moment: str, again: Callable[[], Awaitable[None]]) -> None:
        self._source, self._moment, self._again = source, moment, again
        self.acknowledged: list[str] = []
        self.killed = self.buried = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    async def _at(self, moment: str) -> None:
        if moment == self._moment and not self.killed:
            self.killed = True
            await self._again()

    async def receive(self, most: int) -> list[df.Received]:
        found: list[df.Received] = await self._source.receive(most)
        if found:
            await self._at("received")
        return found

    async def keep(self, message: df.Received) -> None:
        await self._source.keep(message)

    async def acknowledge(self, message: df.Received) -> None:
        await self._at("accepted")
        if self._moment == "acknowledging" and not self.killed:
            self.killed = True
            sending = asyncio.ensure_future(self._source.acknowledge(message))
            await asyncio.sleep(0)  # it is on its way, and nobody knows how far it comes
            await self._again()
            with suppress(Exception):
                await asyncio.wait_for(sending, 1)
            raise ConnectionError("the broker went away")
        await self._source.acknowledge(message)
        self.acknowledged.append(message.message_id)
        await self._at("acknowledged")

    async def bury(self, message: df.Received, reason: str) -> None:
        await self._at("burying")
        await self._source.bury(message, reason)
        self.buried = True


@pytest.mark.parametrize(
    ("broker", "moment"),
    [
        pytest.param(kind, moment, marks=[] if (kind, moment) in SHORT else [pytest.mark.long])
        for kind in KINDS
        for moment in MOMENTS
    ],
    indirect=["broker"],
)
async def test_nothing_is_lost_and_nothing_starts_twice(broker: Broker, moment: str) -> None:
    queue = f"crash-{moment}"
    bench = broker.bench(broker.server.url, queue)
    poison = moment == "burying"
    for n in NUMBERS:
        number = -1 if poison and n == 0 else n
        await bench.put(f"m{n}", json.dumps({"n": number}).encode())
    await broker.keep(queue)
    source, seen = Doomed(bench.source(), moment, broker.again), []
    wanted = sorted(NUMBERS)[1:] if poison else sorted(NUMBERS)

    async with environment(claims(source, seen)) as env, asyncio.timeout(90):
        while len((await env.client.query(name="claim")).instances) < len(wanted):
            await asyncio.sleep(0.05)
        # RabbitMQ does not count what it has handed out, so the letter's funeral is waited for besides.
        while await is_left(broker, queue) or not source.killed or source.buried != poison:
            await env.advance(seconds=1) if poison else await asyncio.sleep(0.05)
        outputs = [
            (await env.client.wait_for_completion(one.instance_id)).output
            for one in (await env.client.query(name="claim")).instances
        ]
        messages = (await env.client.query(name="BuiltIn::Message")).instances
    assert sorted(outputs) == wanted
    assert len(messages) == len(NUMBERS), "each message is one instance, however often it came"
    assert sorted(n for n in seen if n >= 0) == wanted, "and its function ran once"
    letters = await bench.dead() if poison else []
    assert {body for body, _ in letters} == ({'{"n": -1}'} if poison else set())


async def is_left(broker: Broker, queue: str) -> bool:
    """Whether there is something left, as far as the broker can be asked."""
    try:
        return bool(await broker.left(queue))
    except Exception:
        return True
