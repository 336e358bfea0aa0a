"""The orchestration of a message: accepted after its commit, retried by its policy, dead after the last failure.

The instance id is derived from the queue and the message id, so a redelivery finds the existing instance and starts
nothing. The function runs as an activity whose client derives the ids of the instances it starts from the message. So
a body that runs twice after a crash starts nothing twice. A message that fails its last attempt is a failed instance
with its reason. This is the dead letter, and a rewind redelivers it.
A queue of the hub consists of these instances only. A broker's queue has a pump too, which acknowledges a message
when its instance has finished.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import msgspec
from msgspec import Raw

from perdure.replay.context import OrchestrationContext
from perdure.replay.inputs import NO_INPUT
from perdure.replay.task import Task
from perdure.triggers.names import message_activity


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message, as stored in its instance: the name of the queue, and the body as JSON, unless it is empty."""

    queue: str
    body: Raw = Raw(b"null")
    empty: bool = False


def message(context: OrchestrationContext, message: Message) -> Generator[Task[Any], Any, Any]:
    """The built-in orchestrator of one message."""
    body = NO_INPUT if message.empty else message.body
    result = yield context.call_activity(message_activity(message.queue), body)
    return result
