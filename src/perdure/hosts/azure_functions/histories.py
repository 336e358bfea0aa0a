"""Whether an orchestrator decides by `context.histories`, which only the JSON protocol has.

Such a program expects Azure's way of replay: each turn begins it again, with the events so far. The SDK's own support
for OpenAI agents is one. The warm way would show it an empty list and go on with a generator that has ended.
"""

from __future__ import annotations

import dis
import inspect
from collections.abc import Iterator
from types import CodeType, FunctionType, MethodType
from typing import Any, Final

NAMES: Final = frozenset({"histories", "_histories"})
MOST_LOOKED_AT: Final = 200
"""How many functions and classes behind one orchestrator are read."""


def reads_histories(function: Any) -> bool:
    """Whether a function reads the attribute, or a function or class that its code names."""
    seen: set[int] = set()
    open_ones = [function]
    while open_ones and len(seen) < MOST_LOOKED_AT:
        one = open_ones.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        for plain in _functions_of(one):
            if any(_reads(code) for code in _codes_of(plain.__code__)):
                return True
            open_ones.extend(_behind(plain))
    return False


def _functions_of(one: Any) -> Iterator[FunctionType]:
    """The Python functions that a function, a method or a class has."""
    match one:
        case FunctionType():
            yield one
        case MethodType():
            yield from _functions_of(one.__func__)
        case property():
            yield from _functions_of(one.fget)
        case staticmethod() | classmethod():
            yield from _functions_of(one.__func__)
        case type():
            for member in vars(one).values():
                if not isinstance(member, type):
                    yield from _functions_of(member)


def _codes_of(code: CodeType) -> Iterator[CodeType]:
    """The code of a function, and of the functions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes_of(constant)


def _reads(code: CodeType) -> bool:
    """Whether code reads the attribute. A global of that name is another thing."""
    return not NAMES.isdisjoint(code.co_names) and any(
        one.argval in NAMES and one.opname in ("LOAD_ATTR", "LOAD_METHOD")
        for one in dis.get_instructions(code)
    )


def _behind(function: FunctionType) -> Iterator[Any]:
    """What a function may call: what it wraps, what it closes over, and the globals that it names."""
    wrapped = inspect.unwrap(function)
    if wrapped is not function:
        yield wrapped
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a name that is not bound yet
            continue
    for name in (name for code in _codes_of(function.__code__) for name in code.co_names):
        found = function.__globals__.get(name)
        if isinstance(found, FunctionType | type):
            yield found


__all__ = ["reads_histories"]
