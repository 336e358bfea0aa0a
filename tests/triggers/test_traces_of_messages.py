"""Where each broker's message carries its trace. `tests/telemetry` has what becomes of it."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from perdure.triggers.brokers import AzureStorageQueue, RabbitMQ, RedisStream
from perdure.triggers.source import Received

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def of_rabbitmq(headers: dict[str, Any]) -> Received:
    message = SimpleNamespace(headers=headers, redelivered=False, message_id="1", body=b"1")
    return RabbitMQ("amqp://localhost", "orders")._received(message)  # type: ignore[arg-type]


def of_redis(fields: dict[bytes, bytes]) -> Received:
    return RedisStream("redis://localhost", "orders")._received((b"1-0", {b"body": b"1", **fields}), 1)


def of_azure(body: object) -> Received:
    queue = AzureStorageQueue("UseDevelopmentStorage=true", "orders")
    content = body if isinstance(body, str) else json.dumps(body)
    return queue._received(SimpleNamespace(id="1", pop_receipt="r", content=content, dequeue_count=1))


@pytest.mark.parametrize(
    "received",
    [
        of_rabbitmq({"traceparent": PARENT, "tracestate": "congo=1"}),
        of_redis({b"traceparent": PARENT.encode(), b"tracestate": b"congo=1"}),
        of_azure({"specversion": "1.0", "data": 1, "traceparent": PARENT, "tracestate": "congo=1"}),
    ],
    ids=["RabbitMQ", "Redis", "CloudEvent in Azure Storage"],
)
def test_a_message_brings_the_trace_of_its_publisher(received: Received) -> None:
    assert received.attributes["traceparent"] == PARENT
    assert received.attributes["tracestate"] == "congo=1"


@pytest.mark.parametrize(
    "received",
    [
        of_rabbitmq({}),
        of_redis({b"other": PARENT.encode()}),
        of_azure({"traceparent": PARENT}),
        of_azure(["specversion", "traceparent"]),
        of_azure({"specversion": "1.0", "traceparent": 1}),
        of_azure('"specversion" and "traceparent" in a text that is no JSON'),
    ],
)
def test_other_messages_bring_none(received: Received) -> None:
    assert "traceparent" not in received.attributes
