"""Claims: what a worker runs for another is told when nobody wants it, and claimed anew when an answer got lost."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import perdure as df
from perdure.engine.upkeep.verification import verify
from perdure.model.records import Poll
from tests.cluster.shop import shop


class Bodies:
    """What ran where, and what it heard."""

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()
        self.cancelled: Counter[str] = Counter()
        self.over = threading.Event()


def application(bodies: Bodies) -> df.App:
    app = df.App("claims")

    @app.activity(pool="far")
    def far(name: str, context: df.ActivityContext) -> str:
        bodies.begun[name] += 1
        while not bodies.over.wait(0.005):
            if context.is_cancelled:
                bodies.cancelled[name] += 1
                break
        return name

    @app.orchestrator
    async def calling(context: df.OrchestrationContext) -> str:
        return await context.call_activity(far, context.instance_id)

    @app.orchestrator
    async def impatient(context: df.OrchestrationContext) -> str:
        call = context.call_activity(far, context.instance_id)
        await context.wait_for_external_event("Enough")
        call.cancel()
        return "enough"

    @app.orchestrator
    async def patient(context: df.OrchestrationContext) -> str:
        call = context.call_activity(far, context.instance_id)
        await context.wait_for_external_event("Go on")
        return await call

    return app


async def test_a_body_elsewhere_hears_that_its_instance_was_terminated() -> None:
    bodies = Bodies()
    async with shop(application(bodies), {}, {"pool": ["far"]}) as opened:
        await opened.shared_out()
        mine = opened[0].own_id()
        await opened[0].client.start_new("calling", mine)
        await opened.until(lambda: bodies.begun[mine] == 1)
        await opened[0].client.terminate(mine, "no more")
        await opened.until(lambda: bodies.cancelled[mine] == 1)
        assert not any(opened[0].store._tables.activities.values())


async def test_an_instance_that_comes_back_while_a_result_is_on_its_way_does_not_ask_for_it_again() -> None:
    bodies = Bodies()
    async with shop(application(bodies), {}, {"pool": ["far"]}) as opened:
        await opened.shared_out()
        mine, [owner, _] = opened[0].own_id(), opened.workers
        await owner.client.start_new("patient", mine)
        await opened.until(lambda: bodies.begun[mine] == 1)
        assert verify(owner.store).ok
        owner.engine.loop.idle_before = owner.engine.clock.now() + 1
        owner.engine.loop.nudge()
        await opened.until(lambda: not owner.engine.health()["warm"])

        looks = owner.store.poll
        owner.store.poll = lambda *_: Poll()  # type: ignore[method-assign]
        bodies.over.set()
        await opened.until(lambda: owner.store._tables.inbox)
        assert verify(owner.store).ok
        await owner.client.raise_event(mine, "Go on")
        owner.store.poll = looks  # type: ignore[method-assign]

        assert (await owner.client.wait_for_completion(mine, 20)).output == mine
        assert bodies.begun[mine] == 1
        assert not any(owner.store._tables.activities.values())


async def test_a_body_elsewhere_hears_that_its_call_was_cancelled() -> None:
    bodies = Bodies()
    async with shop(application(bodies), {}, {"pool": ["far"]}) as opened:
        await opened.shared_out()
        mine = opened[0].own_id()
        await opened[0].client.start_new("impatient", mine)
        await opened.until(lambda: bodies.begun[mine] == 1)
        await opened[0].client.raise_event(mine, "Enough")
        assert (await opened[0].client.wait_for_completion(mine, 20)).output == "enough"
        await opened.until(lambda: bodies.cancelled[mine] == 1)


async def test_a_claim_whose_answer_got_lost_is_given_back_and_runs() -> None:
    bodies = Bodies()
    bodies.over.set()
    async with shop(application(bodies), {}, {"pool": ["far"]}) as opened:
        await opened.shared_out()
        store, lost = opened[1].store, []
        claim = store.claim

        def losing(*wanted: Any) -> Any:
            rows = claim(*wanted)
            if rows and not lost:
                lost.extend(rows)
                raise df.StoreError("the connection broke before the answer came")
            return rows

        store.claim = losing  # type: ignore[method-assign]
        mine = opened[0].own_id()
        await opened[0].client.start_new("calling", mine)
        assert (await opened[0].client.wait_for_completion(mine, 20)).output == mine
        assert len(lost) == 1
        assert bodies.begun == {mine: 1}


async def test_what_is_cancelled_before_anybody_claims_it_never_runs() -> None:
    bodies = Bodies()
    async with shop(application(bodies), {}) as opened:
        await opened.shared_out()
        mine = opened[0].own_id()
        await opened[0].client.start_new("impatient", mine)
        await opened.until(lambda: any(opened[0].store._tables.activities.values()))
        await opened[0].client.raise_event(mine, "Enough")
        assert (await opened[0].client.wait_for_completion(mine, 20)).output == "enough"
        assert not any(opened[0].store._tables.activities.values())
        assert not bodies.begun
