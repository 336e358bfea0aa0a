"""Queues: the one in the hub's own store, and the pump in front of a broker's, with a broker in the test's hands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

import perdure as df
from perdure.errors import InvalidInstanceId, PayloadError, RegistrationError
from perdure.testing import environment
from perdure.triggers import Queues


@dataclass
class Claim:
    id: str
    amount: int


def claims(handler: Any = None, source: Any = "claims-in", **options: Any) -> tuple[df.App, list[Any]]:
    app = df.App("queues")
    seen: list[Any] = []

    @app.orchestrator
    async def claim(context: df.OrchestrationContext, claim: Claim) -> str:
        return claim.id

    @app.queue(source, **options)
    async def take(message: Claim, client: df.Client) -> str:
        seen.append(message)
        if handler is not None:
            handler(message)
        return await client.start_new(claim, None, message)

    return app, seen


async def test_a_message_is_handled_once_and_starts_once() -> None:
    app, seen = claims()
    async with environment(app) as env:
        queues = Queues(env.client)
        first = await queues.send("claims-in", {"id": "c1", "amount": 5}, message_id="m1")
        again = await queues.send("claims-in", {"id": "c1", "amount": 5}, message_id="m1")
        await env.settled()
        assert first == again == "queue:claims-in:m1"
        assert seen == [Claim("c1", 5)]
        assert len((await env.client.query(name="claim")).instances) == 1
        status = await queues.status("claims-in")
        assert (status.open, status.handled, status.dead) == (0, 1, 0)


@pytest.mark.parametrize("wild", ["orders/7", "a#b", "a::b", "tab\tbed", "x" * 400, "?"])
async def test_an_id_of_any_kind_names_an_instance_that_can_be_reached(wild: str) -> None:
    app, seen = claims()
    async with environment(app) as env:
        queues, body = Queues(env.client), {"id": "c1", "amount": 5}
        sent = {await queues.send("claims-in", body, message_id=wild) for _ in range(2)}
        other = await queues.send("claims-in", body, message_id=wild[:-1] + "-")
        await env.settled()

        [instance_id] = sent
        assert not set("/\\#?\t") & set(instance_id) and "::" not in instance_id and len(instance_id) < 256
        assert other != instance_id
        assert len(seen) == 2


async def test_a_queue_whose_name_cannot_be_is_refused() -> None:
    app, _ = claims()
    async with environment(app) as env:
        with pytest.raises(InvalidInstanceId):
            await Queues(env.client).send("a/b", {})


async def test_a_body_that_fails_is_tried_again_and_starts_nothing_twice() -> None:
    failures = iter([True, True, False])

    def handler(_: Any) -> None:
        if next(failures):
            raise ConnectionError("not now")

    app, seen = claims(handler)
    async with environment(app) as env:
        await Queues(env.client).send("claims-in", {"id": "c1", "amount": 5})
        await env.advance(minutes=1)
        assert len(seen) == 3
        assert len((await env.client.query(name="claim")).instances) == 1


async def test_what_never_succeeds_is_a_dead_letter_with_its_reason() -> None:
    def handler(_: Any) -> None:
        raise ValueError("unknown policy")

    app, seen = claims(handler)
    async with environment(app) as env:
        queues = Queues(env.client)
        await queues.send("claims-in", {"id": "c1", "amount": 5}, message_id="m1")
        await queues.send("claims-in", {"id": "c2"}, message_id="m2")
        await env.advance(minutes=1)
        dead = {letter.instance_id: letter async for letter in queues.dead_letters("claims-in")}
        assert "unknown policy" in dead["queue:claims-in:m1"].reason
        unfit = dead["queue:claims-in:m2"].reason
        assert "amount" in unfit, "it does not fit the function's type"
        assert "MessageRefused: the message for the function of the queue" in unfit
        assert unfit.endswith("(PDR-057)")
        assert len([claim for claim in seen if claim.id == "c1"]) == 5
        assert (await queues.status("claims-in")).dead == 2


async def test_a_message_may_be_for_later() -> None:
    app, seen = claims()
    async with environment(app) as env:
        later = env.now + timedelta(hours=2)
        await Queues(env.client).send("claims-in", {"id": "c1", "amount": 5}, at=later)
        await env.advance(hours=1)
        assert seen == []
        await env.advance(hours=1)
        assert len(seen) == 1


async def test_a_message_that_nobody_takes_says_that_its_queue_s_function_is_missing() -> None:
    app, _ = claims()
    async with environment(app) as env:
        message = await Queues(env.client).send("clams-in", {}, message_id="m1")
        await env.settled()
        status = await env.client.get_status(message)

    assert status is not None
    assert status.waiting_for == "waiting for a worker that has its queue's function (PDR-072)"


async def test_a_body_that_is_no_json_is_refused() -> None:
    app, _ = claims()
    async with environment(app) as env:
        with pytest.raises(PayloadError):
            await Queues(env.client).send("claims-in", object())


class Broker:
    """A queue in memory that behaves like a broker: what is not acknowledged comes again."""

    name = "claims-in"

    def __init__(self) -> None:
        self.waiting: list[df.Received] = []
        self.unacknowledged: dict[str, df.Received] = {}
        self.acknowledged: list[str] = []
        self.buried: list[tuple[str, str]] = []
        self.connections = 0
        self.break_at = -1

    def put(self, message_id: str, body: bytes) -> None:
        self.waiting.append(df.Received(message_id, body))

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        self.connections += 1
        try:
            yield
        finally:
            self.waiting += [replace(m, deliveries=m.deliveries + 1) for m in self.unacknowledged.values()]
            self.unacknowledged.clear()

    async def receive(self, most: int) -> list[df.Received]:
        await asyncio.sleep(0)
        if self.connections == self.break_at:
            raise ConnectionError("the broker went away")
        taken, self.waiting = self.waiting[:most], self.waiting[most:]
        self.unacknowledged.update((message.message_id, message) for message in taken)
        return taken

    async def acknowledge(self, message: df.Received) -> None:
        del self.unacknowledged[message.message_id]
        self.acknowledged.append(message.message_id)

    async def give_back(self, message: df.Received) -> None:
        self.waiting.append(self.unacknowledged.pop(message.message_id))

    async def bury(self, message: df.Received, reason: str) -> None:
        del self.unacknowledged[message.message_id]
        self.buried.append((message.message_id, reason))

    async def keep(self, message: df.Received) -> None:
        pass


async def until(condition: Any) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0)


async def test_a_broker_s_message_is_acknowledged_after_what_it_caused() -> None:
    broker = Broker()
    app, seen = claims(source=broker)
    broker.put("m1", b'{"id": "c1", "amount": 5}')
    async with environment(app) as env:
        await until(lambda: broker.acknowledged)
        assert seen == [Claim("c1", 5)]
        assert len((await env.client.query(name="claim")).instances) == 1


async def test_a_redelivered_message_starts_nothing_twice() -> None:
    broker = Broker()
    app, seen = claims(source=broker)
    async with environment(app) as env:
        for _ in range(3):
            broker.put("m1", b'{"id": "c1", "amount": 5}')
            before = len(broker.acknowledged)
            await until(lambda before=before: len(broker.acknowledged) > before)
        assert len(seen) == 1
        assert len((await env.client.query(name="claim")).instances) == 1


async def test_poison_is_buried_with_its_reason_and_the_others_go_on() -> None:
    broker = Broker()

    def handler(claim: Claim) -> None:
        if claim.id == "bad":
            raise ValueError("unknown policy")

    app, _ = claims(handler, broker, retry=df.RetryPolicy(first_interval=0.001, max_attempts=2))
    broker.put("m1", b"\xff not JSON")
    broker.put("m2", b'{"id": "bad", "amount": 1}')
    broker.put("m3", b'{"id": "good", "amount": 1}')
    async with environment(app) as env:
        await until(lambda: broker.acknowledged)
        await env.advance(seconds=5)
        await until(lambda: len(broker.buried) == 2)
    reasons = dict(broker.buried)
    assert "cannot be delivered" in reasons["m1"]
    assert "unknown policy" in reasons["m2"]
    assert broker.acknowledged == ["m3"]


async def test_a_message_that_can_never_fit_is_buried_at_once_with_a_number() -> None:
    broker = Broker()
    app, seen = claims(None, broker, retry=df.RetryPolicy(first_interval=3_600, max_attempts=5))
    broker.put("m1", b'{"id": "c1", "amount": "much"}')
    broker.put("m2", b'{"id": "c2"')
    async with environment(app) as env:
        began = env.now
        await until(lambda: len(broker.buried) == 2)
        assert env.now == began
    reasons = dict(broker.buried)
    assert "the queue 'claims-in' does not fit its parameter 'message'" in reasons["m1"]
    assert all("PDR-057" in reason for reason in reasons.values())
    assert seen == []


async def test_a_broker_that_goes_away_is_connected_to_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.triggers.broker_pump.RECONNECT_AFTER", (0.001,))
    broker = Broker()
    broker.break_at = 1
    app, _ = claims(source=broker)
    broker.put("m1", b'{"id": "c1", "amount": 5}')
    async with environment(app):
        await until(lambda: broker.acknowledged)
    assert broker.connections == 2


def test_a_queue_has_one_function() -> None:
    app, _ = claims()
    with pytest.raises(RegistrationError, match="already taken"):
        app.queue("claims-in")(lambda message: None)
    with pytest.raises(RegistrationError, match="concurrency must be 1 or more"):
        app.queue("other", concurrency=0)(lambda message: None)
