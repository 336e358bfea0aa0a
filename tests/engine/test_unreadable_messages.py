"""A row of the inbox that nobody can read: it stays there, and the others go on."""

import perdure as df
from perdure.model.records import Batch, InboxRow
from perdure.store.memory import MemoryStore
from perdure.testing import environment


async def test_a_message_that_cannot_be_read_stops_nobody_else(caplog) -> None:
    app = df.App("unreadable")

    @app.orchestrator
    async def greet(context: df.OrchestrationContext) -> str:
        return await context.wait_for_external_event("Name", str)

    store = MemoryStore("unreadable")
    async with environment(app, store=store) as env:
        await env.client.start_new(greet, "mine")
    store.open()
    store.commit(
        Batch(
            1,
            inbox_added=[
                InboxRow(900, "mine", 1, b'{"type":"RaiseEvent","name":'),
                InboxRow(901, "mine", None, b"no JSON"),
            ],
        )
    )
    async with environment(app, store=store) as env:
        await env.client.raise_event("mine", "Name", "Ada")
        status = await env.client.wait_for_completion("mine")

    assert status.output == "Ada"
    assert "message 900 for mine cannot be read" in caplog.text
    assert "message 901 for mine cannot be read" in caplog.text
