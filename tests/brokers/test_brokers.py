"""What a pump needs of a broker, against RabbitMQ, Redis and Azurite."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from azure.core.exceptions import ResourceExistsError
from azure.storage.queue.aio import QueueClient
from redis.asyncio import Redis

import perdure as df
from perdure.testing import environment
from perdure.triggers.brokers import AzureStorageQueue, RabbitMQ, RedisStream
from tests.brokers import servers

pytestmark = [pytest.mark.timeout(120), pytest.mark.xdist_group("brokers")]


@dataclass
class Bench:
    """One broker's queue: ours, and a hand of our own to put messages in and look at dead letters."""

    source: Callable[[], Any]  # another consumer of the same queue, which takes over after about a second
    put: Callable[[str, bytes], Awaitable[None]]
    dead: Callable[[], Awaitable[list[tuple[str, str]]]]  # body, reason
    numbered: bool  # the broker gives the ids itself


@pytest.fixture(scope="module", params=["rabbitmq", "redis", "azurite"])
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    directory: Path = tmp_path_factory.mktemp(request.param)
    with getattr(servers, request.param)(directory) as server:
        yield BENCHES[request.param], server.url


@pytest.fixture
async def bench(broker: Any, request: pytest.FixtureRequest) -> Bench:
    make, url = broker
    queue = "q-" + request.node.name.split("[")[0].replace("_", "-")[-40:].strip("-")
    return make(url, queue)  # type: ignore[no-any-return]


def rabbit_bench(url: str, queue: str) -> Bench:
    async def put(message_id: str, body: bytes) -> None:
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            await channel.declare_queue(queue, durable=True)
            message = aio_pika.Message(
                body, message_id=message_id, delivery_mode=aio_pika.DeliveryMode.PERSISTENT
            )
            await channel.default_exchange.publish(message, routing_key=queue)

    async def dead() -> list[tuple[str, str]]:
        found = []
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            letters = await channel.declare_queue(f"{queue}.dead", durable=True)
            while (letter := await letters.get(fail=False)) is not None:
                found.append((letter.body.decode("latin-1"), str(letter.headers["x-reason"])))
        return found

    return Bench(lambda: RabbitMQ(url, queue), put, dead, numbered=False)


def redis_bench(url: str, stream: str) -> Bench:
    async def put(_: str, body: bytes) -> None:
        async with Redis.from_url(url) as redis:
            await redis.xadd(stream, {"body": body})

    async def dead() -> list[tuple[str, str]]:
        async with Redis.from_url(url) as redis:
            entries = await redis.xrange(f"{stream}:dead")
        return [(fields[b"body"].decode("latin-1"), fields[b"reason"].decode()) for _, fields in entries]

    return Bench(lambda: RedisStream(url, stream, visibility=0.5), put, dead, numbered=True)


def azure_bench(connection: str, queue: str) -> Bench:
    async def put(_: str, body: bytes) -> None:
        async with QueueClient.from_connection_string(connection, queue) as client:
            with suppress(ResourceExistsError):
                await client.create_queue()
            await client.send_message(base64.b64encode(body).decode())

    async def dead() -> list[tuple[str, str]]:
        async with QueueClient.from_connection_string(connection, f"{queue}-poison") as client:
            letters = [json.loads(base64.b64decode(m.content)) async for m in client.receive_messages()]
        return [(letter["message"], letter["reason"]) for letter in letters]

    return Bench(lambda: AzureStorageQueue(connection, queue, visibility=1), put, dead, numbered=True)


BENCHES = {"rabbitmq": rabbit_bench, "redis": redis_bench, "azurite": azure_bench}


async def receive(source: Any, count: int) -> list[df.Received]:
    found: list[df.Received] = []
    async with asyncio.timeout(60):
        while len(found) < count:
            found += await source.receive(count - len(found))
    return found


async def test_what_is_not_acknowledged_comes_again_under_the_same_id(bench: Bench) -> None:
    await bench.put("m1", b'{"n": 1}')
    first = bench.source()
    async with first.connected():
        [taken] = await receive(first, 1)
        assert json.loads(taken.body) == {"n": 1}
        assert bench.numbered or taken.message_id == "m1"
    second = bench.source()
    async with second.connected():
        [again] = await receive(second, 1)
        assert (again.message_id, again.body) == (taken.message_id, taken.body)
        await second.acknowledge(again)


async def test_what_is_acknowledged_never_comes_again(bench: Bench) -> None:
    for n in range(3):
        await bench.put(f"m{n}", str(n).encode())
    source = bench.source()
    async with source.connected():
        for message in await receive(source, 3):
            await source.acknowledge(message)
    await bench.put("m9", b"9")
    source = bench.source()
    async with source.connected():
        [last] = await receive(source, 1)
        assert last.body == b"9"
        await source.acknowledge(last)


async def test_what_is_given_back_comes_again(bench: Bench) -> None:
    await bench.put("m1", b"1")
    source = bench.source()
    async with source.connected():
        [taken] = await receive(source, 1)
        await source.keep(taken)
        await source.give_back(taken)
        [again] = await receive(source, 1)
        assert again.message_id == taken.message_id
        await source.acknowledge(again)


async def test_what_is_buried_is_a_dead_letter_with_its_reason(bench: Bench) -> None:
    await bench.put("m1", b'{"n": 1}')
    source = bench.source()
    async with source.connected():
        [taken] = await receive(source, 1)
        await source.bury(taken, "unknown policy")
    assert await bench.dead() == [('{"n": 1}', "unknown policy")]


def claims(source: Any, seen: list[int]) -> df.App:
    app = df.App("claims")

    @app.orchestrator
    async def claim(context: df.OrchestrationContext, n: int) -> int:
        return n

    @app.queue(source, retry=df.RetryPolicy(first_interval=0.001, max_attempts=2))
    async def take(message: dict[str, int], client: df.Client) -> None:
        seen.append(message["n"])
        if message["n"] < 0:
            raise ValueError("a negative claim")
        await client.start_new(claim, None, message["n"])

    return app


@pytest.fixture
async def put_ten(bench: Bench) -> Bench:
    for n in range(10):
        await bench.put(f"m{n}", json.dumps({"n": n}).encode())
    return bench


async def test_messages_become_orchestrations_and_poison_is_buried(put_ten: Bench) -> None:
    bench = put_ten
    await bench.put("bad", json.dumps({"n": -1}).encode())
    await bench.put("worse", b"\x00 not JSON")
    seen: list[int] = []
    async with environment(claims(bench.source(), seen)) as env, asyncio.timeout(30):
        while len((await env.client.query(name="claim")).instances) < 10:
            await asyncio.sleep(0.02)
        letters: list[tuple[str, str]] = []
        while len(letters) < 2:
            await env.advance(seconds=1)
            letters += await bench.dead()
        outputs = [
            (await env.client.wait_for_completion(one.instance_id)).output
            for one in (await env.client.query(name="claim")).instances
        ]
    assert sorted(outputs) == list(range(10))
    assert sorted(n for n in seen if n >= 0) == list(range(10)), "each handled once"
    reasons = " ".join(reason for _, reason in letters)
    assert "a negative claim" in reasons and "cannot be delivered" in reasons


async def test_a_message_taken_by_a_process_that_died_starts_once(bench: Bench, tmp_path: Path) -> None:
    """The first hub accepted it and died before it could acknowledge; the second finds the instance."""
    await bench.put("m1", json.dumps({"n": 7}).encode())
    seen: list[int] = []
    url = f"sqlite:///{tmp_path}/hub.db"

    class Deaf:
        """Never gets to acknowledge."""

        def __init__(self, source: Any) -> None:
            self._source = source

        def __getattr__(self, name: str) -> Any:
            return getattr(self._source, name)

        async def acknowledge(self, message: df.Received) -> None:
            raise ConnectionError("the process died here")

    async with environment(claims(Deaf(bench.source()), seen), store=url) as env, asyncio.timeout(60):
        while not (await env.client.query(name="claim")).instances:
            await asyncio.sleep(0.02)
    source = bench.source()
    acknowledged = []
    original = source.acknowledge

    async def acknowledge(message: df.Received) -> None:
        await original(message)
        acknowledged.append(message)

    source.acknowledge = acknowledge
    async with environment(claims(source, seen), store=url) as env, asyncio.timeout(60):
        while not acknowledged:
            await asyncio.sleep(0.02)
        assert len((await env.client.query(name="claim")).instances) == 1
    assert seen == [7]
