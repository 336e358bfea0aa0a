"""A message is an orchestration: accepted once it is durable, tried again by policy, dead when it has failed.

Its id is derived from the queue and the message, so a redelivery finds the instance that is there and starts
nothing. The function runs as an activity whose client derives the ids of what it starts from the message, so a
body that runs twice after a crash starts nothing twice either. What is still failing after the last attempt is
an instance that has failed, with its reason: that is the dead letter, and a rewind delivers it again.
The queue in the hub's own store is nothing but this; a broker's queue has a pump in front of it, which
acknowledges a message once its instance has come to its end.
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
    """A message as its instance keeps it: the queue's name, and the body as JSON, unless it is empty."""

    queue: str
    body: Raw = Raw(b"null")
    empty: bool = False


def message(context: OrchestrationContext, message: Message) -> Generator[Task[Any], Any, Any]:
    """The built-in orchestrator of one message."""
    body = NO_INPUT if message.empty else message.body
    result = yield context.call_activity(message_activity(message.queue), body)
    return result
