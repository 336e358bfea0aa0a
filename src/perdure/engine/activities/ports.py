"""The ports of the activity pool, and its limits."""

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
    """Collects results of activities on the event loop and sends them to the engine together."""

    event_loop: asyncio.AbstractEventLoop

    def put(self, envelope: Envelope) -> None: ...


@dataclass(frozen=True)
class Concurrency:
    """The limits of what one worker runs concurrently."""

    threads: int = setting(16, "the most concurrent `def` activities", COUNT, least=1)
    tasks: int = setting(1_000, "the most concurrent `async def` activities", COUNT, least=1)
    abandoned: int = setting(
        16,
        "the most threads that are abandoned and replaced before the process counts as unhealthy",
        COUNT,
        least=0,
        name="abandoned_threads",
    )
