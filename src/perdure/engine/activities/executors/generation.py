"""One executor from its making to its end, and the attempts that were handed to it."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

from perdure.engine.activities.executors.factories import Opened
from perdure.engine.activities.runner import Attempt


class Generation:
    """One executor from its making to its end. `tries` are the attempts it has, and where they are."""

    def __init__(self, source: Any) -> None:
        self.opened = Opened(source)
        self.tries: dict[Attempt, Try] = {}
        self.has_begun = False  # anything at all
        self.is_retired = False  # gets nothing new

    def close(self) -> None:
        """End it with whatever still hangs in it."""
        unfinished = [one for one in self.tries.values() if one.future is None or not one.future.done()]
        if isinstance(self.opened.executor, ProcessPoolExecutor):
            pids = [one.pid for one in unfinished if one.pid]
            self.opened.close(wait=kill(pids) == len(pids))
        else:
            self.opened.close(wait=not unfinished)


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
