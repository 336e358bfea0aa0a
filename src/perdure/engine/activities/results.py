"""The messages with the result of an attempt."""

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
    """The result of a body. A value that JSON cannot represent is a failure, without a retry.

    A value that does not pass `guard` fails too: the caller would not receive it without loss.
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
        f"{spoken(invocation.name)} has finished, but its result, a {type(value).__qualname__}, cannot be "
        f"recorded: {error}. It does not run again. Return a value that JSON can represent, then rewind the "
        "instance or correct the activity's effects by hand (PDR-010)",
        error.pointer,
    )


def succeeded(invocation: Invocation, body: Raw) -> ActivityResult:
    """The message of an encoded result."""
    return ActivityResult(
        instance_id=invocation.instance_id,
        execution_id=invocation.execution_id,
        task_id=invocation.task_id,
        result=body,
    )


def failed(invocation: Invocation, failure: Failure) -> ActivityResult:
    """The message of a failure."""
    return ActivityResult(
        instance_id=invocation.instance_id,
        execution_id=invocation.execution_id,
        task_id=invocation.task_id,
        failure=failure,
    )


def too_late(invocation: Invocation) -> Failure:
    """The failure of an attempt that exceeded its `timeout`."""
    return Failure(
        "TimeoutError",
        f"activity {invocation.name!r} (attempt {invocation.attempt}) exceeded its timeout of "
        f"{invocation.timeout / 1000000.0:g} s; its body may still be running and its result will be dropped",
    )


def too_silent(invocation: Invocation) -> Failure:
    """The failure of an attempt that exceeded its `heartbeat_timeout`."""
    return Failure(
        "TimeoutError",
        f"activity {invocation.name!r} (attempt {invocation.attempt}) sent no heartbeat for "
        f"{invocation.heartbeat / 1000000.0:g} s; its body may still be running and its result will be "
        "dropped. Call context.heartbeat() more often, or raise heartbeat_timeout=",
    )
