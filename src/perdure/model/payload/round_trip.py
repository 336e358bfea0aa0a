"""Checks that a value survives the round trip through JSON as the expected type.

Decoding drops members that a class does not have, so a subclass loses its own fields where its base is
expected, and a Pydantic model may encode less than it has. A guard checks the places of a type where that can
happen; most types have none and cost nothing. To see the effect of a class's own validators, the guard decodes
the JSON once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin
from uuid import UUID

from msgspec import Struct, inspect

from perdure.errors import PayloadError
from perdure.model.payload.decoding import adapter_of, is_untyped, known_reader, title
from perdure.model.payload.text import COMPARABLE, Trail, is_model, read_plain, refusal, write_plain

Guard = Callable[[Trail, Any], None]
"""Raises PayloadError for a value that would change in the round trip."""

_ITEMS = (
    inspect.ListType,
    inspect.SetType,
    inspect.FrozenSetType,
    inspect.VarTupleType,
    inspect.CollectionType,
)
_CLASSES = (inspect.DataclassType, inspect.StructType, inspect.NamedTupleType)
_SURE: frozenset[Any] = frozenset(
    {str, int, float, bool, NoneType, datetime, date, time, timedelta, Decimal, UUID, bytes}
)
"""Types that survive unchanged."""
_NO_PARAMETERS: Mapping[str, Any] = {}


def guard_of(expected_type: Any) -> Guard | None:
    """The check that a value of a type survives; None if nothing can be lost."""
    try:
        return _known_guard(expected_type)
    except TypeError:  # unhashable
        return _guard(expected_type)


def _guard(expected_type: Any) -> Guard | None:
    if is_untyped(expected_type):
        return None
    if is_model(expected_type):
        return _of_class(expected_type, {})
    try:
        return _compiled(inspect.type_info(expected_type), {})
    except Exception:  # a union that Pydantic reads, or nothing that can be read
        adapter = adapter_of(expected_type)
        return _of_adapter(expected_type, adapter) if adapter else None


_known_guard = lru_cache(maxsize=512)(_guard)


@lru_cache(maxsize=512)
def own_guard(kind: Any) -> Guard | None:
    """The check that an object of a class survives as that class; None if its parts are builtins."""
    guard = guard_of(kind)
    return guard if guard is not None and _has_parts(kind) else None


def _has_parts(kind: Any) -> bool:
    try:
        node: Any = inspect.type_info(kind)
    except Exception:  # it cannot be read at all
        return False
    return any(_compiled(field.type, {}) is not None for field in getattr(node, "fields", ()))


def _compiled(node: Any, known: dict[int, Guard]) -> Guard | None:
    """The guard of a described type. `known` has the guards in progress, because types may contain themselves."""
    match node:
        case inspect.CustomType(cls=kind) if is_model(kind):
            return _of_class(kind, {})
        case inspect.UnionType(types=types):
            return _of_union(types, known)
        case inspect.TypedDictType():
            return _of_members({field.name: _compiled(field.type, known) for field in node.fields}, node.cls)
        case inspect.DictType(value_type=value):
            return _of_values(_compiled(value, known))
        case inspect.TupleType(item_types=types):
            return _of_places([_compiled(part, known) for part in types])
        case _ if isinstance(node, _CLASSES):
            return _of_described(node, known)
        case _ if isinstance(node, _ITEMS):
            return _of_items(_compiled(node.item_type, known))
        case _:
            return None


def _of_described(node: Any, known: dict[int, Guard]) -> Guard:
    if id(node) in known:
        return known[id(node)]
    parts: dict[str, Guard] = {}
    known[id(node)] = guard = _of_class(node.cls, parts)
    for field in node.fields:
        part = _compiled(field.type, known)
        if part is not None:
            parts[field.name] = part
    return guard


def _of_class(kind: Any, parts: dict[str, Guard]) -> Guard:
    own = _origin(kind)

    def check(trail: Trail, value: Any) -> None:
        if _origin(type(value)) is not own:
            if isinstance(value, own):
                raise _shrinking(trail, type(value), kind)
            return
        for name, part in parts.items():
            part((*trail, name), getattr(value, name, None))

    return check


def _origin(kind: Any) -> Any:
    """The class itself; for a parametrized class its generic one."""
    kind = get_origin(kind) or kind
    return getattr(kind, "__pydantic_generic_metadata__", _NO_PARAMETERS).get("origin") or kind


def _shrinking(trail: Trail, kind: Any, expected: Any) -> PayloadError:
    own = [name for name in _names(kind) if name not in set(_names(expected))]
    lost = f"lose {', '.join(map(repr, own))}" if own else f"come back as {title(expected)}"
    return refusal(
        f"{title(kind)} is passed where {title(expected)} is expected, and would {lost}: annotate with "
        f"{title(kind)}, or with a union of msgspec.Structs that have tag=True or of Pydantic models",
        trail,
    )


def _names(kind: Any) -> tuple[str, ...]:
    kind = _origin(kind)
    if isinstance(kind, type) and issubclass(kind, Struct):
        return kind.__struct_fields__
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    if hasattr(kind, "__attrs_attrs__"):
        return tuple(field.name for field in kind.__attrs_attrs__)
    names: Iterable[str] = kind.model_fields if is_model(kind) else getattr(kind, "_fields", ())
    return tuple(names)


def _of_union(types: Iterable[Any], known: dict[int, Guard]) -> Guard | None:
    by_class = {_class_of(node): _compiled(node, known) for node in types}
    classes = {_origin(kind): guard for kind, guard in by_class.items() if kind is not None}
    others = [guard for kind, guard in by_class.items() if kind is None and guard is not None]
    if not classes and not others:
        return None

    def check(trail: Trail, value: Any) -> None:
        exact = classes.get(_origin(type(value)))
        for guard in [exact] if exact is not None else [*classes.values(), *others]:
            if guard is not None:
                guard(trail, value)

    return check


def _class_of(node: Any) -> Any:
    is_class = isinstance(node, _CLASSES) or (isinstance(node, inspect.CustomType) and is_model(node.cls))
    return node.cls if is_class else None


def _of_items(item: Guard | None) -> Guard | None:
    if item is None:
        return None

    def check(trail: Trail, value: Any) -> None:
        if isinstance(value, list | tuple | set | frozenset):
            for number, part in enumerate(value):
                item((*trail, number), part)

    return check


def _of_places(items: list[Guard | None]) -> Guard | None:
    if not any(items):
        return None

    def check(trail: Trail, value: Any) -> None:
        if isinstance(value, list | tuple):
            for number, (guard, part) in enumerate(zip(items, value, strict=False)):
                if guard is not None:
                    guard((*trail, number), part)

    return check


def _of_values(item: Guard | None) -> Guard | None:
    if item is None:
        return None

    def check(trail: Trail, value: Any) -> None:
        if isinstance(value, dict):
            for key, part in value.items():
                item((*trail, str(key)), part)

    return check


def _of_members(members: dict[str, Guard | None], kind: Any) -> Guard:
    """The guard of a TypedDict, which drops unknown keys."""

    def check(trail: Trail, value: Any) -> None:
        if not isinstance(value, dict):
            return
        for name, part in value.items():
            if name not in members:
                raise refusal(f"{title(kind)} has no key {name!r}, which would be lost", (*trail, str(name)))
            guard = members[name]
            if guard is not None:
                guard((*trail, name), part)

    return check


def _of_adapter(expected_type: Any, adapter: Any) -> Guard:
    def check(trail: Trail, value: Any) -> None:
        if isinstance(value, str | int | float | bool | None):
            return
        try:
            back = adapter.validate_json(write_plain(value))
        except Exception:  # it does not fit; the decoder reports that
            return
        if is_model(type(value)) or dataclasses.is_dataclass(value):
            _compare(trail, value, back, expected_type)
        elif isinstance(value, list | tuple) and isinstance(back, list | tuple):
            for number, (sent, read) in enumerate(zip(value, back, strict=False)):
                _compare((*trail, number), sent, read, expected_type)
        elif isinstance(value, dict) and isinstance(back, dict):
            for key in value.keys() & back.keys():
                _compare((*trail, str(key)), value[key], back[key], expected_type)

    return check


def _compare(trail: Trail, sent: Any, read: Any, expected_type: Any) -> None:
    if (is_model(type(sent)) or dataclasses.is_dataclass(sent)) and type(sent) is not type(read):
        raise refusal(
            f"a {title(type(sent))} would be read as {title(type(read))}, because {title(expected_type)} does "
            "not distinguish them: give each a Literal field, and the union a discriminator",
            trail,
        )


# ------------------------------------------------------------------------------------ what a class does itself


@lru_cache(maxsize=512)
def is_transparent(kind: Any) -> bool:
    """Whether objects of a class consist of their fields: none is omitted, computed or renamed."""
    if is_model(kind):
        return _is_plain_model(kind)
    if hasattr(kind, "__attrs_attrs__"):
        has_hidden = any(field.name.startswith("_") for field in kind.__attrs_attrs__)
        return not has_hidden and not hasattr(kind, "__attrs_post_init__")
    return not hasattr(kind, "__post_init__")


def _is_plain_model(model: Any) -> bool:
    decorators = model.__pydantic_decorators__
    if any(getattr(decorators, name) for name in decorators.__slots__ if name != "__dict__"):
        return False
    if model.__private_attributes__:
        return False
    return all(
        not field.exclude
        and not field.metadata
        and field.validation_alias is None
        and field.serialization_alias is None
        and not _has_alternatives(field.annotation)
        for field in model.model_fields.values()
    )


def _has_alternatives(annotation: Any) -> bool:
    """Whether a value may decode as the wrong one of several types."""
    parts = get_args(annotation)
    if (
        get_origin(annotation) in (Union, UnionType)
        and len([part for part in parts if part is not NoneType]) > 1
    ):
        return True
    return any(_has_alternatives(part) for part in parts)


def is_surely_whole(model: Any) -> bool:
    """Whether the classes of a Pydantic model's parts prove that it survives unchanged."""
    kind: Any = type(model)
    if not is_transparent(kind) or model.__pydantic_extra__:
        return False
    return all(_is_sure(getattr(model, name, None), classes) for name, classes in _models_in(kind))


def _is_sure(value: Any, classes: frozenset[Any]) -> bool:
    kind: Any = type(value)
    if kind in _SURE:
        return True
    if kind in (list, tuple, set, frozenset):
        return all(_is_sure(part, classes) for part in value)
    if kind is dict:
        return all(type(key) is str for key in value) and all(
            _is_sure(part, classes) for part in value.values()
        )
    return kind in classes and is_surely_whole(value)


@lru_cache(maxsize=512)
def _models_in(kind: Any) -> tuple[tuple[str, frozenset[Any]], ...]:
    """The fields of a model, with the models that their types name."""
    return tuple((name, frozenset(_models(field.annotation))) for name, field in kind.model_fields.items())


def _models(annotation: Any) -> Iterator[Any]:
    if is_model(annotation):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def hold_against_itself(trail: Trail, value: Any, form: Any) -> None:
    """Raise PayloadError if an object differs after a round trip as its own class.

    `form` is the JSON form of the object, or the object.
    """
    kind: Any = type(value)
    try:
        back = known_reader(kind)(write_plain(form))
    except Exception:  # its own class cannot decode it; the expected type reports that
        return
    for place, name in _differences(value, back):
        what = f"{title(kind)}.{'.'.join(map(str, place))}" if place else title(kind)
        raise refusal(_changed(what, name), (*trail, *place))


def _changed(what: str, part: Any) -> str:
    if hasattr(part, "get_secret_value"):
        hidden = title(type(part))
        return f"{what} is a {hidden}, which hides its value in JSON: pass a name to look the secret up by"
    return (
        f"{what} does not survive JSON (it is private, excluded, of a subclass, or changed by a validator): "
        "make it a field that is written and read unchanged, or pass it separately"
    )


def _differences(sent: Any, read: Any, trail: Trail = ()) -> Iterator[tuple[Trail, Any]]:
    """The places where two objects of a class differ, with the sent values."""
    if _is_record(sent):
        if _origin(type(sent)) is not _origin(type(read)):
            if not _is_form(sent, read):
                yield trail, sent
            return
        for name, part in _parts(sent):
            yield from _differences(part, getattr(read, name, None), (*trail, name))
    elif isinstance(sent, list | tuple) and isinstance(read, list | tuple) and len(sent) == len(read):
        for number, (one, other) in enumerate(zip(sent, read, strict=True)):
            yield from _differences(one, other, (*trail, number))
    elif isinstance(sent, dict) and isinstance(read, dict) and sent.keys() == read.keys():
        for key, part in sent.items():
            yield from _differences(part, read[key], (*trail, str(key)))
    elif not _is_equal(sent, read) and not _is_form(sent, read):
        yield trail, sent


def _is_record(value: Any) -> bool:
    kind = type(value)
    return (
        is_model(kind)
        or isinstance(value, Struct)
        or dataclasses.is_dataclass(kind)
        or hasattr(kind, "__attrs_attrs__")
    )


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    for name in _names(type(value)):
        yield name, getattr(value, name, None)
    yield from (getattr(value, "__pydantic_extra__", None) or {}).items()
    yield from (getattr(value, "__pydantic_private__", None) or {}).items()


def _is_form(sent: Any, read: Any) -> bool:
    """Whether the decoded value is the JSON form of the sent one, as for the type Any."""
    try:
        return type(read) in COMPARABLE and bool(read == read_plain(write_plain(sent)))
    except Exception:  # it has no JSON form
        return False


def _is_equal(sent: Any, read: Any) -> bool:
    """Whether two values are equal, or have a class without equality and the same JSON."""
    try:
        if sent == read:
            return True
        knows_no_equality = getattr(type(sent), "__eq__", None) is object.__eq__
        return knows_no_equality and bool(write_plain(sent) == write_plain(read))
    except Exception:  # arrays and the like, whose equality is not a bool
        return True


__all__ = ["Guard", "guard_of", "hold_against_itself", "is_surely_whole", "is_transparent", "own_guard"]
