"""`sys.exit()` in a task that a body creates itself, with `asyncio.create_task`, `gather` or a `TaskGroup`.

asyncio keeps SystemExit and KeyboardInterrupt as the task's exception, and also raises them out of the running
event loop. That ends the process, even if the body that awaits the task handles the exception. While async
activities run, a task factory therefore wraps the tasks that bodies create: such a task fails with `TaskExit`
instead, which asyncio keeps like any other exception. Tasks created elsewhere stay unchanged, and so does a
factory that the application has set: it still creates the tasks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from contextvars import ContextVar
from typing import Any, Final

_in_body: Final = ContextVar("perdure_in_body", default=False)


class TaskExit(BaseException):
    """A task that an activity's body created has raised SystemExit or KeyboardInterrupt, which is the cause."""


class _Contained(Coroutine[Any, Any, Any]):
    """A coroutine that raises TaskExit instead of exiting."""

    __slots__ = ("_coroutine",)

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine

    def send(self, value: Any) -> Any:
        try:
            return self._coroutine.send(value)
        except (SystemExit, KeyboardInterrupt) as error:
            raise TaskExit("a task that the activity created has exited") from error

    def throw(self, *raised: Any) -> Any:
        try:
            return self._coroutine.throw(*raised)
        except (SystemExit, KeyboardInterrupt) as error:
            raise TaskExit("a task that the activity created has exited") from error

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coroutine, name)  # `cr_frame` and the like, for tools that inspect tasks


class _Factory:
    """The task factory of an event loop that runs bodies."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.users = 0

    def __call__(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        if _in_body.get() and asyncio.iscoroutine(coroutine):
            coroutine = _Contained(coroutine)
        if self.inner is None:
            return asyncio.Task(coroutine, loop=loop, **options)
        return self.inner(loop, coroutine, **options)


def enter_body() -> None:
    """Mark the current context as that of a body."""
    _in_body.set(True)


def create_driver(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None], context: Any
) -> asyncio.Task[None]:
    """Create a task of the host itself, even from the context of a body."""
    factory: Any = loop.get_task_factory()
    if type(factory) is _Factory and factory.inner is None:  # it would make the same
        return asyncio.Task(coroutine, loop=loop, context=context)
    before = _in_body.set(False)
    try:
        return loop.create_task(coroutine, context=context)
    finally:
        _in_body.reset(before)


def contain(loop: asyncio.AbstractEventLoop) -> None:
    """Wrap the tasks that bodies create on this loop, until `release`."""
    factory: Any = loop.get_task_factory()
    if not isinstance(factory, _Factory):
        factory = _Factory(factory)
        loop.set_task_factory(factory)
    factory.users += 1


def release(loop: asyncio.AbstractEventLoop) -> None:
    """Undo one `contain`; the last one restores the previous factory."""
    factory: Any = loop.get_task_factory()
    if isinstance(factory, _Factory):
        factory.users -= 1
        if not factory.users:
            loop.set_task_factory(factory.inner)


def exit_of(error: BaseException) -> BaseException:
    """The exception of a body: the exit itself, if one of its tasks exited."""
    return error.__cause__ if isinstance(error, TaskExit) and error.__cause__ is not None else error


__all__ = ["TaskExit", "contain", "create_driver", "enter_body", "exit_of", "release"]
