"""What went wrong, as data: it crosses processes, languages and years, so it is text and never pickled."""

from __future__ import annotations

import traceback

import msgspec

from perdure.errors import EngineSignal

MESSAGE_LIMIT = 4_000  # characters
STACK_LIMIT = 8_000  # characters; the end of a stack is the telling part
CAUSE_DEPTH = 4


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """Type, message, stack and cause of an exception; `cause` is what it was raised from."""

    type: str
    message: str = ""
    stack: str = ""
    cause: Failure | None = None

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type


def failure_of(error: BaseException, *, with_stack: bool = True, depth: int = CAUSE_DEPTH) -> Failure:
    """Describe an exception; a `TaskFailedError` keeps the recorded failure as its cause."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    recorded = getattr(error, "failure", None)
    return Failure(
        type=_type_name(type(error)),
        message=_text(_message(error))[:MESSAGE_LIMIT],
        stack=_stack(error)[-STACK_LIMIT:] if with_stack else "",
        cause=recorded
        if isinstance(recorded, Failure)
        else failure_of(cause, depth=depth - 1)
        if cause is not None and depth > 0
        else None,
    )


def chain_of(failure: Failure) -> list[Failure]:
    """The failure and its causes, outermost first."""
    found: list[Failure] = []
    current: Failure | None = failure
    while current is not None:
        found.append(current)
        current = current.cause
    return found


def _type_name(kind: type[BaseException]) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _message(error: BaseException) -> str:
    """Its text; an exception of the user's may fail to give one."""
    try:
        return str(error)
    except EngineSignal:
        raise
    except BaseException as second:
        return f"(its text cannot be had: {type(second).__name__})"


def _stack(error: BaseException) -> str:
    return _text("".join(traceback.format_tb(error.__traceback__)))


def _text(text: str) -> str:
    """Text that every store accepts: no NUL, no lone surrogates."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode("utf-8")
