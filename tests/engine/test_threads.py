"""Threads of `def` activities: none waits behind another while a thread may still be made."""

import threading
from queue import SimpleQueue
from types import SimpleNamespace

from msgspec import Raw

from perdure.engine.activities import thread_host
from perdure.engine.activities.ports import Concurrency
from perdure.engine.activities.runner import Attempt
from perdure.replay.settle import Invocation


def attempt_of(body) -> Attempt:
    runner = SimpleNamespace(call=lambda invocation, signals: body(), hub="claims", guard=None)
    return Attempt(runner, Invocation("i", "e-1", 0, 0, 1, "work", Raw(b"null"), 0))


def test_work_does_not_wait_behind_what_a_thread_has_just_taken(monkeypatch) -> None:
    """The thread had taken a long activity off the queue and still counted as idle when the next one came."""
    taken, go_on = threading.Event(), threading.Event()
    armed: list[bool] = []

    class Lingering(SimpleQueue):
        def get(self, *args, **kwargs):
            item = super().get(*args, **kwargs)
            if armed and armed.pop():
                taken.set()
                go_on.wait(30)
            return item

    monkeypatch.setattr(thread_host, "SimpleQueue", Lingering)
    ended: dict[str, threading.Event] = {name: threading.Event() for name in ("first", "long", "quick")}
    pool = thread_host.Threads(lambda _: None, lambda *_: None, Concurrency(threads=2))
    pool.put(attempt_of(ended["first"].set))
    assert ended["first"].wait(60)
    while not pool._idle:  # the only thread waits for work again
        pass

    armed.append(True)
    pool.put(attempt_of(lambda: (go_on.wait(30), ended["long"].set())))
    assert taken.wait(60)
    pool.put(attempt_of(ended["quick"].set))
    quick_did_not_wait = ended["quick"].wait(60)
    go_on.set()

    assert quick_did_not_wait
    assert ended["long"].wait(60)
    pool.close()
