"""One executor from its making to its end, and the attempts that were handed to it."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import Future
from typing import Any

from perdure.engine.activities.runner import Attempt
from perdure.engine.activities.sources import Opened


class Generation:
    """One executor from its making to its end. `tries` are the attempts it has, and where they are."""

    def __init__(self, source: Any) -> None:
        self.opened = Opened(source)
        self.tries: dict[Attempt, Try] = {}
        self.has_begun = False  # anything at all
        self.is_retired = False  # gets nothing new

    def close(self) -> None:
        """End it with whatever still hangs in it."""
        hanging = [found for found in self.tries.values() if found.future is None or not found.future.done()]
        killed = kill([found.pid for found in hanging if found.pid])
        self.opened.close(wait=killed == len(hanging))


class Try:
    """One attempt handed to one executor."""

    def __init__(self, place: str, token: str) -> None:
        self.place = place
        self.token = token
        self.future: Future[bytes] | None = None
        self.pid = 0


def kill(pids: list[int]) -> int:
    """End those worker processes of ours that are still there; returns how many that were."""
    found = [child for child in multiprocessing.active_children() if child.pid in pids]
    for child in found:
        child.kill()
    return len(found)
