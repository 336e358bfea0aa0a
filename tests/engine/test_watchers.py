"""Who waits for an end is told of it, also of one that was committed while its answer got lost."""

from __future__ import annotations

import asyncio

import pytest

import perdure as df
from perdure.errors import OutcomeUnknown, StoreError
from perdure.store.memory import MemoryStore


def application() -> df.App:
    app = df.App("watched")

    @app.orchestrator
    async def waiting(context: df.OrchestrationContext) -> int:
        return await context.wait_for_external_event("Go", int)

    return app


@pytest.mark.parametrize("begins", ["before", "after"])
async def test_an_end_whose_commit_lost_its_answer(begins: str) -> None:
    store = MemoryStore("watched")
    async with application().running(store=store) as client:
        one = await client.start_new("waiting")
        waiting = asyncio.create_task(client.wait_for_completion(one, 10)) if begins == "before" else None
        await asyncio.sleep(0)
        original, lost = store.commit, []

        def losing(batch: object) -> None:
            original(batch)  # type: ignore[arg-type]
            if not lost:
                lost.append(batch)
                raise StoreError("the answer got lost")

        store.commit = losing  # type: ignore[method-assign]
        with pytest.raises(OutcomeUnknown):
            await client.raise_event(one, "Go", 7)
        assert len(lost) == 1
        status = await (waiting or client.wait_for_completion(one, 10))
        assert status.output == 7
