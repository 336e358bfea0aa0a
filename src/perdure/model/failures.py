"""The recorded `Failure` of an exception."""

from __future__ import annotations

import traceback

from perdure.errors import EngineSignal
from perdure.failure import Failure, bases_of, name_of

MESSAGE_LIMIT = 4_000  # characters
STACK_LIMIT = 8_000  # characters; the end of a stack is the important part
CAUSE_DEPTH = 4
MEMBERS_LIMIT = 16  # of one exception group
HIDES = "__tracebackhide__"
"""Functions with a local variable of this name are left out of stacks: they only carry the code of users."""
TOLD_IN_MESSAGE = 5  # members named in a group's message


def failure_of(error: BaseException, *, with_stack: bool = True, depth: int = CAUSE_DEPTH) -> Failure:
    """Describe an exception; a `TaskFailedError` keeps the recorded failure as its cause."""
    context = None if error.__cause__ is not None or error.__suppress_context__ else error.__context__
    recorded = getattr(error, "failure", None)
    members = _members(error, with_stack, depth)
    return Failure(
        type=name_of(type(error)),
        message=_told(error, members)[:MESSAGE_LIMIT],
        stack=_stack(error)[-STACK_LIMIT:] if with_stack else "",
        cause=recorded if isinstance(recorded, Failure) else _described(error.__cause__, with_stack, depth),
        bases=bases_of(type(error)),
        members=members,
        context=_described(context, with_stack, depth),
    )


def _described(error: BaseException | None, with_stack: bool, depth: int) -> Failure | None:
    if error is None or depth <= 0:
        return None
    return failure_of(error, with_stack=with_stack, depth=depth - 1)


def _members(error: BaseException, with_stack: bool, depth: int) -> tuple[Failure, ...]:
    if not isinstance(error, BaseExceptionGroup) or depth <= 0:
        return ()
    return tuple(
        failure_of(member, with_stack=with_stack, depth=depth - 1)
        for member in error.exceptions[:MEMBERS_LIMIT]
    )


def _told(error: BaseException, members: tuple[Failure, ...]) -> str:
    """The message; a group's own message has only the number of its exceptions, so its members are added."""
    message = _text(_message(error))
    if not members:
        return message
    told = "; ".join(str(member) for member in members[:TOLD_IN_MESSAGE])
    left_out = len(error.exceptions) - TOLD_IN_MESSAGE if isinstance(error, BaseExceptionGroup) else 0
    return f"{message}: {told}{f'; and {left_out} more' if left_out > 0 else ''}"


def _message(error: BaseException) -> str:
    """The text of an exception; a user's `__str__` may fail."""
    try:
        return str(error)
    except EngineSignal:
        raise
    except BaseException as second:
        return f"(its text is not available: {type(second).__name__})"


def _stack(error: BaseException) -> str:
    frames = traceback.walk_tb(error.__traceback__)
    told = zip(traceback.extract_tb(error.__traceback__), frames, strict=True)
    shown = [line for line, (frame, _) in told if HIDES not in frame.f_code.co_varnames]
    return _text("".join(traceback.StackSummary.from_list(shown).format()))


def _text(text: str) -> str:
    """The text without characters that a store rejects: no NUL, no lone surrogates."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode("utf-8")
