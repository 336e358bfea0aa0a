"""The callables that users register: functions, and objects that stand for one.

A partial, a bound method, a static method and an object with `__call__` are called as they are; `signature_of`
returns their parameters. Code, annotations and name come from the function behind them, which `plain` finds.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from types import FunctionType, MethodType
from typing import Any

from perdure.errors import RegistrationError

_MARK = "__perdure__"
_STANDS_FOR = "__perdure_for__"
_SIMPLE_KINDS = (functools.partial, staticmethod)
_KEYS = (str, FunctionType, MethodType)
_AT: dict[tuple[int, int], tuple[object, tuple[Any, ...]]] = {}
"""Marks of callables that accept no attributes, by identity; the object is kept so that its id is not reused."""


def plain(function: Any) -> Any:
    """The function whose code a call runs."""
    found = inspect.unwrap(function) if callable(function) else function
    if isinstance(found, functools.partial):
        return plain(found.func)
    if isinstance(found, classmethod):
        return plain(found.__func__)
    if inspect.isroutine(found) or inspect.isclass(found) or not callable(found):
        return found
    return plain(found.__call__)


def called(function: Any) -> Any:
    """The attribute of the class behind this function: for a static method the function itself."""
    return function.__func__ if isinstance(function, staticmethod) else function


def is_async(function: Any) -> bool:
    """Whether a call returns a coroutine."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(plain(function))


def is_unbound(function: Any) -> bool:
    """Whether it is a method of a class without an object to call it on."""
    if not inspect.isfunction(function) or not _is_in_class(function):
        return False
    first = next(iter(inspect.signature(function).parameters.values()), None)
    return first is not None and first.name in ("self", "cls") and first.annotation is first.empty


def _is_in_class(function: FunctionType) -> bool:
    outer = function.__qualname__.rpartition(".")[0]
    return bool(outer) and not outer.endswith("<locals>")


def yields(function: Any) -> bool:
    """Whether it is a generator function, synchronous or asynchronous."""
    found = plain(function)
    return inspect.isgeneratorfunction(found) or inspect.isasyncgenfunction(found)


def own_name(function: Any) -> str:
    """The default name: that of a partial's function, or of an object's class."""
    if isinstance(function, functools.partial):
        return own_name(function.func)
    return str(getattr(function, "__name__", None) or type(function).__name__)


def signature_of(function: Any) -> Mapping[str, inspect.Parameter]:
    """The parameters, without those that a partial has bound. Raises RegistrationError if Python cannot inspect
    them.
    """
    try:
        return inspect.signature(function).parameters
    except (ValueError, TypeError) as error:
        raise RegistrationError(
            f"{where(function)}: Python cannot inspect its parameters ({error}): call it from a function of "
            "your own"
        ) from error


def where(function: object) -> str:
    """A function for an error message: its name, file and line."""
    function = getattr(function, _STANDS_FOR, function)
    found = plain(function)
    code = getattr(found, "__code__", None)
    name = getattr(function, "__qualname__", None) or getattr(found, "__qualname__", None) or repr(function)
    return f"{name} ({code.co_filename}:{code.co_firstlineno})" if code else name


def standing_for(double: Any, original: object) -> None:
    """Make error messages about `double` name the original function."""
    setattr(double, _STANDS_FOR, original)


def presented(
    double: Any, original: Any, annotations: Mapping[str, Any], name: str = ""
) -> Callable[..., Any]:
    """Give a wrapper parameter types of its own, and the original's docstring and place in error messages.

    `functools.wraps` copies the original's annotations instead. Without `name` the wrapper gets the original's name.
    """
    double.__annotations__ = dict(annotations)
    double.__name__, double.__doc__ = name or own_name(original), original.__doc__
    standing_for(double, original)
    return double  # type: ignore[no-any-return]


def is_same(one: Any, other: Any) -> bool:
    """Whether two references mean the same function; each access to a bound method creates another object."""
    return one is other or (isinstance(one, MethodType) and bool(one == other))


def marks(function: Any) -> tuple[Any, ...]:
    """The marks of a function, or of the function that it wraps."""
    found = _noted_on(function)
    if found is None and hasattr(function, "__wrapped__"):
        found = _noted_on(inspect.unwrap(function))
    return found or ()


def _noted_on(function: Any) -> tuple[Any, ...] | None:
    noted = _AT.get(_place(function)) if _AT else None
    found = noted[1] if noted is not None else _attribute(function)
    return found if isinstance(found, tuple) else None


def _attribute(function: Any) -> Any:
    """The mark attribute; none for a bound method, which shows the attributes of its function instead of its
    own.
    """
    return None if isinstance(function, MethodType) else getattr(function, _MARK, None)


def mark(function: Any, noted: tuple[Any, ...]) -> None:
    """Mark a function, so that a reference to it can be used as its name."""
    if inspect.isfunction(function) or isinstance(function, _SIMPLE_KINDS):
        setattr(function, _MARK, noted)
    else:
        _AT[_place(function)] = (function, noted)


def _place(function: Any) -> tuple[int, int]:
    if isinstance(function, MethodType):
        return id(function.__self__), id(function.__func__)
    return id(function), 0


def reference(function: Any) -> Any:
    """The key of a reference in a table: itself, except for objects, which may be unhashable or equal to
    others.
    """
    return function if isinstance(function, _KEYS) else id(function)


def resolvable(function: Any) -> Any:
    """The object whose annotations `typing.get_type_hints` reads."""
    found = plain(function)
    return found.__func__ if isinstance(found, MethodType) else found
