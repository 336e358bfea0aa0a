"""The messages that tell how an attempt ended."""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from perdure.errors import PayloadError
from perdure.failure import Failure
from perdure.model import payload
from perdure.model.activity_names import spoken
from perdure.model.failures import failure_of
from perdure.model.messages import ActivityResult
from perdure.replay.settle import Invocation

_NULL = Raw(b"null")


def completed(invocation: Invocation, value: Any, guard: payload.Guard | None = None) -> ActivityResult:
    """What the body returned; a value that JSON cannot carry is a failure, and no reason to run it again.

    So is one that does not pass `guard`: the caller would not get it whole.
    """
    if value is None:
        return succeeded(invocation, _NULL)
    try:
        if guard is not None:
            guard((), value)
        return succeeded(invocation, Raw(payload.encode(value)))
    except PayloadError as error:
        return failed(invocation, failure_of(_refused(invocation, value, error), with_stack=False))


def _refused(invocation: Invocation, value: Any, error: PayloadError) -> PayloadError:
    return PayloadError(
        f"{spoken(invocation.name)} has done its work, but what it returned, a {type(value).__qualname__}, "
        f"cannot be recorded: {error}. It is not run again. Return what JSON can carry, then rewind the instance "
        "or make good by hand what the activity did (PDR-010)",
        error.pointer,
    )


def succeeded(invocation: Invocation, body: Raw) -> ActivityResult:
    """What the body returned, encoded already."""
    return ActivityResult(
        instance_id=invocation.instance_id,
        execution_id=invocation.execution_id,
        task_id=invocation.task_id,
        result=body,
    )


def failed(invocation: Invocation, failure: Failure) -> ActivityResult:
    """What went wrong."""
    return ActivityResult(
        instance_id=invocation.instance_id,
        execution_id=invocation.execution_id,
        task_id=invocation.task_id,
        failure=failure,
    )


def too_late(invocation: Invocation) -> Failure:
    """It took longer than its `timeout`."""
    return Failure(
        "TimeoutError",
        f"activity {invocation.name!r} (attempt {invocation.attempt}) took longer than its "
        f"{invocation.timeout / 1e6:g} s; its body may still be running and its result will be dropped",
    )


def too_silent(invocation: Invocation) -> Failure:
    """It said nothing for longer than its `heartbeat_timeout`."""
    return Failure(
        "TimeoutError",
        f"activity {invocation.name!r} (attempt {invocation.attempt}) sent no heartbeat for "
        f"{invocation.heartbeat / 1e6:g} s; its body may still be running and its result will be dropped. "
        "Call context.heartbeat() more often, or allow more with heartbeat_timeout=",
    )
