"""Registered entities as the engine runs them: the operations of a class, and the arguments of a function."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

import msgspec

from perdure.engine.functions.callables import is_async, resolvable, signature_of, where, yields
from perdure.engine.functions.registry import Entity, check_readable, is_kind_of, refuse_dropping
from perdure.errors import RegistrationError
from perdure.replay.entity import ClassStyle, EntityCode, EntityContext, FunctionStyle, Method
from perdure.replay.inputs import Input

_FOREIGN: Final = ("builtins", "typing", "abc", "pydantic", "msgspec", "dataclasses")
"""Packages whose methods are not operations."""
_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def code_of(definition: Entity) -> EntityCode:
    """The entity, ready to be run. Raises RegistrationError for unresolvable annotations."""
    function = definition.function
    if inspect.isclass(function):
        return _class_style(definition, function)
    rest, hints = _parameters(function)[1:], definition.hints()
    parameter = _input(function, rest[0], hints) if rest else None
    return FunctionStyle(definition.name, function, parameter, definition.offload, is_async(function))


def input_of(code: EntityCode, operation: str) -> Input | None:
    """The parameter that takes the input of an operation."""
    match code:
        case FunctionStyle(parameter=parameter):
            return parameter
        case ClassStyle(methods=methods):
            method = methods.get(operation.casefold())
            return next((one for one in method.parameters if one is not None), None) if method else None
        case _:
            return None


def check_entity(function: Any, offload: bool) -> None:
    """Raise RegistrationError for an invalid entity, as far as the decorator can see."""
    if inspect.isclass(function):
        _check_class(function, offload)
    elif callable(function):
        parameters = _parameters(function)
        if not 1 <= len(parameters) <= 2:
            raise RegistrationError(
                f"{where(function)}: an entity function takes its EntityContext, or its EntityContext and the "
                "operation's input"
            )
        _refuse_dropping(function, bool(parameters[1:]))
        _check_body(function, offload)
    else:
        raise RegistrationError(f"{function!r} is neither a class nor a function")


def _check_class(found: type, offload: bool) -> None:
    required = [
        p.name
        for p in _signature(found).parameters.values()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if required:
        raise RegistrationError(
            f"the entity {found.__qualname__} cannot be created without arguments ({', '.join(required)}): a "
            "new entity starts with defaults, so give each parameter a default"
        )
    if not _is_whole(found) and not hasattr(found, "__dict__"):
        raise RegistrationError(f"the entity {found.__qualname__} has __slots__: make it a dataclass")
    for method in _methods(found).values():
        _check_body(method, offload)
        _method(method, {})


def _signature(found: type) -> inspect.Signature:
    try:
        return inspect.signature(found)
    except ValueError:
        return inspect.Signature()


def _check_body(function: Callable[..., Any], offload: bool) -> None:
    if yields(function):
        raise RegistrationError(f"{where(function)} yields: an entity's operation must return its result")
    if is_async(function) and not offload:
        raise RegistrationError(
            f"{where(function)} is async: operations run on the engine's own thread and must not wait. "
            "Register the entity with offload=True if it does I/O; otherwise write `def`"
        )


def _class_style(definition: Entity, found: type) -> ClassStyle:
    methods = {
        name.casefold(): _method(method, _hints(definition, method))
        for name, method in _methods(found).items()
    }
    whole = _is_whole(found)
    attributes = {} if whole else _attributes(definition, found)
    for name, kind in attributes.items() if not whole else [("state", found)]:
        check_readable(found, f"its {name if whole else f'attribute {name!r}'}", kind)
    return ClassStyle(definition.name, found, methods, attributes, whole, definition.offload)


def _attributes(definition: Entity, found: type) -> dict[str, Any]:
    """The annotations of the state attributes, without class variables and constants."""
    try:
        hints = typing.get_type_hints(found, localns=dict(definition.localns or {}), include_extras=True)
    except (NameError, AttributeError, TypeError) as error:
        raise RegistrationError(
            f"the entity {found.__qualname__}: cannot resolve its annotations ({error}); "
            "the types it names must exist at run time, at module level"
        ) from error
    return {
        name: kind
        for name, kind in hints.items()
        if not name.startswith("_") and typing.get_origin(kind) is not ClassVar and kind is not ClassVar
    }


def _is_whole(found: type) -> bool:
    """Whether its objects are encoded to JSON directly."""
    return (
        dataclasses.is_dataclass(found)
        or issubclass(found, msgspec.Struct)
        or hasattr(found, "__pydantic_fields__")
    )


def _methods(found: type) -> dict[str, Callable[..., Any]]:
    """Its public methods, inherited ones included, without those of base libraries."""
    methods: dict[str, Callable[..., Any]] = {}
    for kind in reversed(found.__mro__):
        if kind.__module__.split(".")[0] in _FOREIGN:
            continue
        methods |= {
            name: value
            for name, value in vars(kind).items()
            if not name.startswith("_") and inspect.isfunction(value)
        }
    return methods


def _method(method: Callable[..., Any], hints: Mapping[str, Any]) -> Method:
    parameters = _parameters(method)[1:]
    inputs = [p for p in parameters if not _is_context(p, hints)]
    if len(inputs) > 1:
        raise RegistrationError(
            f"{where(method)}: an operation takes one input (and its EntityContext, annotated so); combine "
            "several inputs in one dataclass"
        )
    _refuse_dropping(method, bool(inputs))
    filled = (_input(method, p, hints) if p in inputs else None for p in parameters)
    return Method(method, tuple(filled), is_async(method))


def _input(function: Callable[..., Any], parameter: inspect.Parameter, hints: Mapping[str, Any]) -> Input:
    kind = hints.get(parameter.name, Any)
    check_readable(function, f"its parameter {parameter.name!r}", kind)
    return Input(parameter.name, kind, parameter.default)


def _refuse_dropping(function: Callable[..., Any], takes_input: bool) -> None:
    """Raise RegistrationError for required keyword-only parameters, or for ones that seem to take the input."""
    others = [p for p in signature_of(function).values() if p.kind not in _POSITIONAL]
    required = (p for p in others if p.kind is p.KEYWORD_ONLY and p.default is p.empty)
    refuse_dropping(function, required if takes_input else others)


def _is_context(parameter: inspect.Parameter, hints: Mapping[str, Any]) -> bool:
    annotation = hints.get(parameter.name, parameter.annotation)
    if isinstance(annotation, str):
        return annotation.rsplit(".", 1)[-1] in ("EntityContext", "DurableEntityContext")
    return isinstance(annotation, type) and is_kind_of(EntityContext, annotation) and annotation is not object


def _hints(definition: Entity, method: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(
            resolvable(method), localns=dict(definition.localns or {}), include_extras=True
        )
    except (NameError, AttributeError, TypeError) as error:
        raise RegistrationError(
            f"{where(method)}: cannot resolve its annotations ({error}); "
            "the types it names must exist at run time, at module level"
        ) from error


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return [p for p in signature_of(function).values() if p.kind in _POSITIONAL]
