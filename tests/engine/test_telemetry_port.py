"""What the engine tells about itself: batches once they are durable, and bodies if somebody follows them."""

import asyncio

from perdure import App, OrchestrationContext
from perdure.engine.core.telemetry import SILENCE, together
from perdure.engine.engine import Engine
from perdure.errors import TaskFailedError
from perdure.store import open_store


class Witness:
    """Keeps what it was told."""

    def __init__(self, follows_bodies=False):
        self.follows_bodies = follows_bodies
        self.batches = []
        self.bodies = []

    def committed(self, durable):
        self.batches.append(durable)

    def begun(self, attempt):
        self.bodies.append(("begun", attempt.invocation.name, attempt.outcome))

    def ended(self, attempt, result):
        self.bodies.append(("ended", attempt.invocation.name, result.failure is None))


class Deaf(Witness):
    def committed(self, durable):
        raise RuntimeError("the disk of the telemetry is full")


def claims_app() -> App:
    app = App("told")

    @app.activity
    async def estimate(claim: int) -> int:
        return claim * 2

    @app.activity
    def pay(claim: int) -> int:
        raise ValueError("no account")

    @app.orchestrator
    async def settle(context: OrchestrationContext, claim: int) -> int:
        value = await context.call_activity(estimate, claim)
        try:
            await context.call_activity(pay, claim)
        except TaskFailedError:
            pass
        return value

    return app


async def run_with(telemetry, claims=1):
    engine = Engine(claims_app().registry, open_store("memory:", "told"), "told", telemetry=telemetry)
    client = await engine.start()
    try:
        ids = [await client.start_new("settle", None, no) for no in range(claims)]
        return await asyncio.gather(*(client.wait_for_completion(one) for one in ids))
    finally:
        await engine.stop()


async def test_every_batch_is_told_once_with_its_rows_its_ends_and_the_attempts_that_ended_in_it():
    witness = Witness()
    await run_with(witness, claims=3)

    born = [row.name for told in witness.batches for row in told.batch.new_instances]
    ended = [one.name for told in witness.batches for one in told.released.finished]
    attempts = [one for told in witness.batches for one in told.attempts]
    assert born == ended == ["settle"] * 3
    assert sorted((one.invocation.name, one.outcome, one.where) for one in attempts) == [
        *[("estimate", "completed", "event loop")] * 3,
        *[("pay", "failed", "thread")] * 3,
    ]
    assert all(one.since > 0 and one.seconds >= 0 for one in attempts)
    assert all(told.seconds is not None and told.seconds >= 0 for told in witness.batches)
    assert witness.bodies == []  # not followed: no call for each attempt


async def test_who_follows_bodies_learns_when_each_begins_and_ends():
    witness = Witness(follows_bodies=True)
    await run_with(witness)

    assert witness.bodies == [
        ("begun", "estimate", ""),
        ("ended", "estimate", True),
        ("begun", "pay", ""),
        ("ended", "pay", False),
    ]


async def test_several_listen_as_one_and_only_followers_hear_of_bodies():
    first, second = Witness(), Witness(follows_bodies=True)
    await run_with(together([first, SILENCE, second]))

    assert len(first.batches) == len(second.batches) > 0
    assert first.bodies == []
    assert len(second.bodies) == 4


async def test_telemetry_that_raises_does_not_reach_the_work():
    (status,) = await run_with(Deaf())
    assert status.output == 0


def test_nothing_listens_by_default():
    assert together([]) is together([SILENCE]) is SILENCE
    alone = Witness()
    assert together([SILENCE, alone]) is alone


async def test_without_listeners_the_engine_calls_nothing_and_measures_nothing():
    engine = Engine(claims_app().registry, open_store("memory:", "told"), "told")
    await engine.start()
    try:
        assert engine.loop._tell is None
        assert engine.loop.pool is not None
        assert engine.loop.pool._telemetry is None
        assert engine.loop._began == engine.loop._let_out_took == 0.0
    finally:
        await engine.stop()


async def test_a_listener_that_fails_keeps_no_other_from_the_batches():
    witness = Witness()
    await run_with(together([Deaf(), witness]))
    assert witness.batches
