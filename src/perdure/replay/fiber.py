"""A fiber drives one body, generator or coroutine, from one task to the next.

It is itself a task, so that a spawned branch can be awaited. The only loop is here: send the outcome of the
awaited task, get the next awaited task, until that task is pending.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from types import CoroutineType, GeneratorType
from typing import Any, Final

from perdure.errors import EngineSignal, Evicted, ForeignAwaitError, Interrupted
from perdure.replay.relay import DEEPEST, Standing
from perdure.replay.task import DONE, PENDING, Owner, T_co, Task

CLOSINGS = 3  # attempts to close code that swallows the exception
Body = Generator[Any, Any, Any] | Coroutine[Any, Any, Any]


class Fiber(Task[T_co]):
    """A running body. Its value is the return value of the body."""

    __slots__ = ("_body", "observed")

    def __init__(self, context: Owner, body: Body) -> None:
        super().__init__(context)
        self._body: Body | None = body
        self.observed = False

    def advance(self, task: Task[Any] | None) -> None:
        """Resume the body with the outcome of `task` and drive it until it blocks or ends."""
        body = self._body
        assert body is not None
        value: Any = None
        error: BaseException | None = None
        if task is not None:
            value, error = _outcome(task)
        while True:
            failure: BaseException | None = None
            try:
                awaited = body.send(value) if error is None else body.throw(error)
            except StopIteration as stop:
                awaited, value = None, stop.value
                self._body = None
            except BaseException as raised:
                if isinstance(raised, EngineSignal) and not self._is_strange(raised):
                    raise
                awaited, failure = None, _clearer(raised)
                self._body = None
            if (
                self._body is None
            ):  # outside the handlers: errors of other waiters were not caused by this body
                if failure is None:
                    self._context._branch_ended(self)
                    self._complete(value)
                else:
                    self._fail(failure)
                return
            value, error = None, None
            if not isinstance(awaited, Task) or awaited._context is not self._context:
                error = ForeignAwaitError(_foreign(awaited))
            elif awaited._state == PENDING:
                awaited._add_waiter(self)
                return
            else:
                value, error = _outcome(awaited)

    on_done = advance

    def close(self) -> list[Body]:
        """Close the body; returns the bodies that are still suspended after several tries.

        Its actions are ignored, because the caller has told the context so. Inner bodies are closed first: an
        outer body would drop an inner one that swallows its end, and Python warns about that on stderr.
        """
        body, self._body = self._body, None
        left: dict[int, Body] = {}
        for _ in range(CLOSINGS):
            if body is None or not is_suspended(body):
                break
            for part in _nested(body):
                left[id(part)] = part
                try:
                    part.close()
                except Interrupted:
                    self._body = body
                    raise
                except BaseException:
                    pass
        return [part for part in left.values() if is_suspended(part)]

    def _is_strange(self, signal: EngineSignal) -> bool:
        """Whether the signal is not for this code: the code used another instance's closed context."""
        return isinstance(signal, Evicted) and self._context._doom is None

    def _observe(self) -> None:
        if not self.observed:
            self.observed = True
            self._context._branch_ended(self)

    def _standing(self, depth: int = DEEPEST) -> Standing:
        """A branch runs by itself, so its tasks are awaited, unless the code has left the branch."""
        return Standing.LEFT if super()._standing(depth) is Standing.LEFT else Standing.AWAITED

    def _describe(self) -> str:
        return "this branch"


def is_suspended(body: Body) -> bool:
    """Whether it has neither returned nor raised."""
    if type(body) is GeneratorType:
        return body.gi_frame is not None
    frame = getattr(body, "cr_frame", None) or getattr(body, "gi_frame", None)
    return frame is not None


def _nested(body: Body) -> list[Body]:
    """The body and its inner bodies, the innermost first."""
    found: list[Body] = []
    part: Any = body
    while type(part) in _BODIES or isinstance(part, Generator | Coroutine):
        found.append(part)
        part = _delegate(part)
    return found[::-1]


def _delegate(body: Any) -> Any:
    """The inner body that a body delegates to, or None."""
    if type(body) is GeneratorType:
        return body.gi_yieldfrom
    return getattr(body, "cr_await", None) or getattr(body, "gi_yieldfrom", None)


_BODIES: Final = (GeneratorType, CoroutineType)  # checked first, because abstract classes are slow


def _outcome(task: Task[Any]) -> tuple[Any, BaseException | None]:
    task._observe()
    return (task._outcome, None) if task._state == DONE else (None, task._error())


def _foreign(awaited: object) -> str:
    if isinstance(awaited, Task):
        return (
            "an orchestrator can only wait for tasks of its own context; this one belongs to another instance"
        )
    advice = (
        "wait for several with context.task_all([...])"
        if isinstance(awaited, (list, tuple))
        else "run other asynchronous code in an activity; sleep with context.create_timer(...), "
        "run branches with context.spawn(...)"
    )
    return (
        f"an orchestrator can only wait for tasks of its context, not for {type(awaited).__name__}: {advice}"
    )


_NO_LOOP = ("no running event loop", "no current event loop")


def _clearer(error: BaseException) -> BaseException:
    """Replace the unclear error of asyncio's functions in an orchestrator."""
    if isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in _NO_LOOP):
        clearer = ForeignAwaitError(
            "an orchestrator runs without an event loop, so asyncio functions do not work there: "
            "use context.create_timer, context.task_all, context.spawn, or move this into an activity"
        )
        clearer.__cause__ = error
        return clearer
    return error
