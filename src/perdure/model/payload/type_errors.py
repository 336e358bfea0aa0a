"""Locates the place where a body does not fit its type."""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import Any

import msgspec

from perdure.errors import PayloadError
from perdure.model.payload.errors import Reader, Token, refusal
from perdure.model.payload.locating import malformed
from perdure.model.payload.shapes import title
from perdure.model.payload.writing import at, holds, read_plain, write_plain

_AT_PATH = re.compile(r"(.*) - at `(key` in `)?\$(.*)`", re.DOTALL)

_STEP = re.compile(r"\[(\d+)\]|(\[\.\.\.\])|\.([^.\[]+)")


def misfit(body: bytes, expected_type: Any, read: Reader, error: BaseException) -> PayloadError:
    """The error for a body that does not fit its type, with the place."""
    try:
        form = read_plain(body)
    except Exception:
        return malformed(body, error)
    model_error = _model_error(error)
    trail = _trail(form, read, error) if isinstance(error, msgspec.ValidationError) else []
    reason = _reason(error)
    if model_error is not None:
        first, *others = model_error.errors(include_url=False, include_context=False, include_input=False)
        trail += _located(at(form, trail), first)
        reason = first["msg"] + (f" (and {len(others)} more)" if others else "")
    return refusal(f"the value does not fit {title(expected_type)}: {reason}", trail)


def _model_error(error: BaseException) -> Any:
    """Pydantic's ValidationError, if it is the error or its cause."""
    causes = (error, error.__cause__)
    return next((cause for cause in causes if hasattr(cause, "error_count")), None)


def _reason(error: BaseException) -> str:
    if not isinstance(error, msgspec.ValidationError):
        return f"{type(error).__name__}: {error}"
    found = _AT_PATH.fullmatch(str(error))
    return found[1] if found else str(error)


def _path(error: Exception) -> list[Token]:
    """msgspec's path; None stands for a dict member, whose key msgspec does not report."""
    found = _AT_PATH.fullmatch(str(error))
    if found is None:
        return []
    steps: list[Token] = [int(step[1]) if step[1] else step[3] for step in _STEP.finditer(found[3])]
    return [*steps, None] if found[2] else steps


def _trail(form: Any, read: Reader, error: Exception) -> list[Token]:
    """msgspec's path with its keys filled in, as far as they can be found. Removes members of `form`."""
    trail: list[Token] = []
    steps = _path(error)
    node = form
    for step in steps:
        token = _refused_key(form, node, read, steps) if step is None else step
        if not holds(node, token):
            break
        trail.append(token)
        node = node[token]
    return trail


def _refused_key(form: Any, node: Any, read: Reader, steps: list[Token]) -> Token:
    """The first member of `node` whose presence makes the reader reject `form` at the same path.

    Afterwards it is the only member.
    """
    if not isinstance(node, dict):
        return None
    members = list(node.items())

    def refused_with(many: int) -> bool:
        node.clear()
        node.update(members[:many])
        return _refused_path(form, read) == steps

    first = bisect_left(range(1, len(members) + 1), True, key=refused_with)
    node.clear()
    node.update(members[first : first + 1])
    return next(iter(node), None)


def _refused_path(form: Any, read: Reader) -> list[Token] | None:
    try:
        read(write_plain(form))
    except Exception as error:
        return _path(error)
    return None


def _located(form: Any, flaw: dict[str, Any]) -> list[Token]:
    """Pydantic's loc without the names of union members and the like, which are not places in the body."""
    *outer, last = flaw["loc"] or (None,)
    trail: list[Token] = []
    for token in outer:
        if holds(form, token):
            trail.append(token)
            form = form[token]
    is_place = flaw["type"] == "missing" or holds(form, last)
    return [*trail, last] if is_place else trail
