"""One executor from creation to end, and its attempts."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

from perdure.engine.activities.executors.factories import Opened
from perdure.engine.activities.runner import Attempt


class Generation:
    """One executor from creation to end. `tries` are its attempts and their places."""

    def __init__(self, source: Any) -> None:
        self.opened = Opened(source)
        self.tries: dict[Attempt, Try] = {}
        self.has_begun = False  # any attempt
        self.is_retired = False  # gets no new attempts

    def close(self) -> None:
        """End the executor, with attempts that still hang in it."""
        unfinished = [one for one in self.tries.values() if one.future is None or not one.future.done()]
        if isinstance(self.opened.executor, ProcessPoolExecutor):
            pids = [one.pid for one in unfinished if one.pid]
            self.opened.close(wait=kill(pids) == len(pids))
        else:
            self.opened.close(wait=not unfinished)


class Try:
    """One attempt on one executor."""

    def __init__(self, place: str, token: str) -> None:
        self.place = place
        self.token = token
        self.future: Future[bytes] | None = None
        self.pid = 0


def kill(pids: list[int]) -> int:
    """Kill the given worker processes that still run; returns their number."""
    found = [child for child in multiprocessing.active_children() if child.pid in pids]
    for child in found:
        child.kill()
    return len(found)
