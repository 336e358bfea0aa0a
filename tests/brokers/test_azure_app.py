"""An Azure app whose queues are those of Azure Storage: its messages come from there, and go there."""

from __future__ import annotations

import base64
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from azure.core.exceptions import ResourceExistsError
from azure.storage.queue.aio import QueueClient

from perdure.hosts.azure_functions.application import load
from perdure.testing import environment
from tests.brokers import servers
from tests.hosted.isolation import taken_back
from tests.hosted.programs import APPS

__all__ = ["taken_back"]

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.xdist_group("brokers"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


async def test_messages_come_from_azure_storage_and_outputs_go_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with servers.azurite(tmp_path) as server:
        monkeypatch.setenv("AzureWebJobsStorage", server.url)
        monkeypatch.setenv("EVERY", "0 0 12 1 1 *")
        monkeypatch.setenv("SECOND", "to-storage")
        app = load(APPS / "triggers").app
        async with (
            environment(app) as env,
            QueueClient.from_connection_string(server.url, "orders") as orders,
        ):
            with suppress(ResourceExistsError):  # the trigger makes its queue, too
                await orders.create_queue()
            await orders.send_message(base64.b64encode(b'{"a": 1}').decode())
            async with QueueClient.from_connection_string(server.url, "to-storage") as written:
                with suppress(ResourceExistsError):
                    await written.create_queue()
                texts: list[str] = []
                while len(texts) < 2:
                    await env.settled()
                    found = [message.content async for message in written.receive_messages()]
                    texts += [base64.b64decode(content).decode() for content in found]
    assert sorted(texts) == ["no json", '{"a": 1}']
    [(_, attempt, body)] = [rest for kind, *rest in sys.modules["function_app"].seen if kind == "ordered"]
    assert (attempt, body) == (1, {"a": 1})
