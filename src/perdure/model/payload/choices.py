"""Choices in a JSON Schema: in the order of their declaration, each with what its docstring says.

msgspec sorts the values of an `Enum` and of a `Literal`. People read a choice in the order in which the program
declares it. The text below a member of an `Enum` says what the choice causes, as forms show it:

    class Choice(Enum):
        APPROVE = "approve"
        "The claim is paid at once."
"""

from __future__ import annotations

import ast
import inspect
import typing
from enum import Enum
from functools import cache
from textwrap import dedent
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MEANINGS: Final = "x-enum-descriptions"
"""The keyword for what each choice means: an object from the choice, as text, to its description."""


def in_order(schema: dict[str, Any], declared: Any) -> dict[str, Any]:
    """The schema of a type, with the choices of its enums and literals as they are declared."""
    known: dict[frozenset[Any], tuple[list[Any], dict[str, str]]] = {}
    for values, meanings in _choices_in(declared, set()):
        known.setdefault(frozenset(map(repr, values)), (values, meanings))
    if known:
        for part in _parts(schema):
            found = known.get(frozenset(map(repr, part["enum"])))
            if found is not None:
                part["enum"] = list(found[0])
                if found[1]:
                    part[MEANINGS] = found[1]
    return schema


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    """Every part of a schema with a list of choices."""
    if isinstance(schema, dict):
        if isinstance(schema.get("enum"), list):
            yield schema
        for inner in schema.values():
            yield from _parts(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from _parts(inner)


def _choices_in(declared: Any, seen: set[Any]) -> Iterator[tuple[list[Any], dict[str, str]]]:
    """The choices of every enum and literal within a type, each with the meanings of its members."""
    if typing.get_origin(declared) is Literal:
        yield list(typing.get_args(declared)), {}
        return
    for argument in typing.get_args(declared):
        yield from _choices_in(argument, seen)
    if not isinstance(declared, type) or declared in seen:
        return
    seen.add(declared)
    if issubclass(declared, Enum):
        yield [member.value for member in declared], _meanings(declared)
        return
    for part in _annotations(declared).values():
        yield from _choices_in(part, seen)


def _annotations(kind: type) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(kind, include_extras=True)
    except Exception:  # forward references that lead nowhere: the order stays that of msgspec
        return {}


@cache
def _meanings(kind: type[Enum]) -> dict[str, str]:
    """The docstring of each member: its own, or the text below it in the source."""
    written = _texts_below(kind)
    found = {member: _own_text(member, kind) or written.get(member.name, "") for member in kind}
    return {str(member.value): " ".join(text.split()) for member, text in found.items() if text}


def _own_text(member: Enum, kind: type[Enum]) -> str:
    own = vars(member).get("__doc__")
    return own if isinstance(own, str) and own != kind.__doc__ else ""


def _texts_below(kind: type[Enum]) -> dict[str, str]:
    """The text below each member. Python keeps it in the source only, which may not be there."""
    try:
        [body] = ast.parse(dedent(inspect.getsource(kind))).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return {}
    if not isinstance(body, ast.ClassDef):
        return {}
    texts = {}
    for statement, below in zip(body.body, body.body[1:], strict=False):
        if not isinstance(statement, ast.Assign) or not isinstance(below, ast.Expr):
            continue
        name, text = statement.targets[0], below.value
        if isinstance(name, ast.Name) and isinstance(text, ast.Constant) and isinstance(text.value, str):
            texts[name.id] = text.value
    return texts


__all__ = ["MEANINGS", "in_order"]
