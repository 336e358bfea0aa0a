"""The worker's side of an executor: another process runs one attempt of an activity.

The function's place (`module:qualname`), the invocation as JSON, and a card with the address of the engine's
channel go to the worker; the result returns as JSON. No user data is pickled. Over the channel, a local socket,
the worker asks whether to begin (the call may have been cancelled on the way), sends heartbeats, and receives
cancellations. A worker on another machine has no channel: it checks the attempt's deadlines itself, its
progress is not visible, and it does not learn of a cancellation.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import threading
from contextvars import copy_context
from functools import lru_cache
from queue import SimpleQueue
from typing import Any

import msgspec

from perdure.engine.activities.deadlines import Deadlines
from perdure.engine.activities.executors.child_channel import ChildAttempt, attempt_of, hub_on
from perdure.engine.activities.results import completed, failed
from perdure.engine.activities.runner import Attempt, Runner
from perdure.engine.activities.signals import AttemptSignals
from perdure.engine.functions.registry import Activity, definition_of, plan_of
from perdure.engine.running_code import note_activity
from perdure.errors import FunctionNotFound
from perdure.model.failures import failure_of
from perdure.model.messages import ActivityResult
from perdure.replay.activity_context import ActivityContext
from perdure.replay.settle import Invocation

_invocations = msgspec.json.Decoder(Invocation)


def carry_out(place: str, invocation: bytes, card: bytes) -> bytes:
    """Run one attempt; returns its ActivityResult as JSON, or b"" if the result was no longer wanted."""
    return copy_context().run(_carried_out, place, invocation, card)


def _carried_out(place: str, invocation: bytes, card: bytes) -> bytes:
    """In a context of its own, like every body: its context variables must not reach the next one in the process."""
    asked = _invocations.decode(invocation)
    note_activity(hub_on(card), asked)
    call = attempt_of(card)
    if call is None:
        return msgspec.json.encode(_without_line(place, asked))
    with call:
        return msgspec.json.encode(_run(place, asked, call.signals, call)) if call.begin() else b""


def _without_line(place: str, invocation: Invocation) -> ActivityResult:
    """Run an attempt on another machine, with its deadlines checked here. The first result counts."""
    if not (invocation.timeout or invocation.heartbeat):
        return _run(place, invocation, AttemptSignals(), None)
    try:
        attempt = Attempt(_runner(place), invocation)
    except Exception as error:
        return failed(invocation, failure_of(error, with_stack=False))
    answers: SimpleQueue[ActivityResult] = SimpleQueue()
    deadlines = Deadlines(lambda _, failure: answers.put(failed(invocation, failure)))
    deadlines.watch(attempt)
    body = threading.Thread(
        target=copy_context().run,
        args=(lambda: answers.put(_run(place, invocation, attempt, None)),),
        name="perdure-activity",
        daemon=True,
    )
    body.start()
    answer = answers.get()
    attempt.settled = True
    if answer.failure is not None:
        attempt.cancel(answer.failure.message)
    deadlines.close()
    return answer


def _run(
    place: str, invocation: Invocation, signals: AttemptSignals, call: ChildAttempt | None
) -> ActivityResult:
    """Run one attempt in its own context: context variables of one body must not reach the next in the same
    process.
    """
    return copy_context().run(_result_of, place, invocation, signals, call)


def _result_of(
    place: str, invocation: Invocation, signals: AttemptSignals, call: ChildAttempt | None
) -> ActivityResult:
    try:
        runner = _runner(place)
        value = runner.call(invocation, signals)
        if inspect.isawaitable(value):
            value = asyncio.run(_until_cancelled(value, call))
        return completed(invocation, value, runner.guard)
    except BaseException as error:
        return failed(invocation, failure_of(error))


async def _until_cancelled(body: Any, call: ChildAttempt | None) -> Any:
    """On the event loop of this activity: turn a cancellation from the channel into CancelledError in the body."""
    event_loop, task = asyncio.get_running_loop(), asyncio.ensure_future(body)
    if call is not None:

        def cancel() -> None:
            event_loop.call_soon_threadsafe(task.cancel)

        call.on_cancel(cancel)
    return await task


@lru_cache
def _runner(place: str) -> Runner:
    module, _, qualname = place.partition(":")
    try:
        function: Any = importlib.import_module(module)
        for part in qualname.split("."):
            function = getattr(function, part)
    except Exception as error:
        raise FunctionNotFound(
            f"the process that should run {place} cannot import it ({type(error).__name__}: {error}): put the "
            "activity into a module that is importable there"
        ) from error
    definition = definition_of(function)
    if not isinstance(definition, Activity):
        definition = Activity(qualname, function)
    return Runner(plan_of(definition, (ActivityContext,)), {})


__all__ = ["carry_out"]
