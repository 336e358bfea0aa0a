"""What the activities ask of the engine around them, and how much of everything there may be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from perdure.engine.core.envelope import Envelope
from perdure.model.messages import ActivityResult
from perdure.model.settings import COUNT, setting

Deliver = Callable[[ActivityResult], None]


class Outbox(Protocol):
    """Where results of the event loop's own activities go, to be handed over together."""

    event_loop: asyncio.AbstractEventLoop

    def put(self, envelope: Envelope) -> None: ...


@dataclass(frozen=True)
class Concurrency:
    """How much one worker runs at a time."""

    threads: int = setting(16, "the most concurrent `def` activities", COUNT, least=1)
    tasks: int = setting(1_000, "the most concurrent `async def` activities", COUNT, least=1)
    abandoned: int = setting(
        16,
        "the most threads that are abandoned and replaced before the process counts as unhealthy",
        COUNT,
        least=0,
        name="abandoned_threads",
    )
