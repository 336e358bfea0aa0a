"""Which functions an application has, under which names, and how each of them is called.

Registering returns the function itself, so that it can be tested by calling it, typed, and imported elsewhere;
its definition is remembered beside it. Annotations are resolved late, when the application starts, so that a
function may name types defined further down; mistakes are then reported all at once, before anything runs.
What a parameter receives is decided by its annotation: a context, the client, a request, a lifespan resource;
the one that remains is the input. The rule is the same for activities and client functions.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Raw

from perdure.engine.versions import newest
from perdure.errors import EventRefused, FunctionNotFound, RegistrationError
from perdure.model import payload
from perdure.model.http_calls import BUILT_IN
from perdure.model.retry import RetryPolicy
from perdure.model.times import Seconds, micros
from perdure.replay.context import OrchestrationContext

Function = Callable[..., Any]
D = TypeVar("D", bound="Definition")
_MARK = "__perdure__"


@dataclass(frozen=True)
class Definition:
    """A registered function: its name and the namespace its annotations are resolved in."""

    name: str
    function: Function
    localns: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)
    aliases: tuple[str, ...] = ()

    def hints(self) -> dict[str, Any]:
        """Its annotations, resolved. Raises RegistrationError for one that names nothing."""
        try:
            return typing.get_type_hints(_plain(self.function), localns=dict(self.localns or {}))
        except (NameError, AttributeError, TypeError) as error:
            raise RegistrationError(
                f"{where(self.function)}: cannot resolve its annotations ({error}); "
                "the types it names must exist at run time, at module level"
            ) from error


@dataclass(frozen=True)
class Activity(Definition):
    """An activity and how it is to be run. `concurrency` 0 means no limit of its own.

    `timeout` and `heartbeat` (how long it may be silent) are in microseconds, 0 for none. `executor` is an
    executor, a source of one, or the name of a registered source; None runs it in this process. `pool` names the
    workers that run it, "" for all.
    """

    retry: RetryPolicy | None = None
    timeout: int = 0
    concurrency: int = 0
    heartbeat: int = 0
    executor: Any = None
    pool: str = ""

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(_plain(self.function))


@dataclass(frozen=True)
class Orchestrator(Definition):
    """An orchestrator and its door: which events it admits (None admits all, unchecked)."""

    version: str = ""
    events: Mapping[str, Any] | None = None
    input_type: Any = Any

    def admit(self, event_name: str, body: Raw) -> None:
        """Raise EventRefused for an event whose name or shape the declared `events` do not admit."""
        if self.events is None:
            return
        expected = self._event_type(event_name)
        misfit = payload.fits(body if bytes(body) else Raw(b"null"), expected)
        if misfit is not None:
            raise EventRefused(
                f"event {event_name!r} of {self.name!r} does not have the declared shape: {misfit}",
                misfit.pointer,
            )

    def _event_type(self, event_name: str) -> Any:
        assert self.events is not None
        folded = event_name.casefold()
        for declared, expected in self.events.items():
            pattern = declared.casefold()
            if pattern == folded or (
                pattern.endswith("*") and fnmatchcase(folded, pattern.replace("[", "[[]"))
            ):
                return expected
        admitted = ", ".join(repr(name) for name in self.events) or "no events at all"
        raise EventRefused(f"{self.name!r} admits {admitted}; {event_name!r} is not among them")

    def schema(self, event_name: str) -> dict[str, Any] | None:
        """The JSON Schema declared for an event, when there is one."""
        try:
            return payload.schema_of(self._event_type(event_name)) if self.events is not None else None
        except EventRefused:
            return None


@dataclass(frozen=True)
class Entity(Definition):
    """An entity, as a class or a function. `offload`: its operations run like activities, outside the loop."""

    offload: bool = False


@dataclass(frozen=True)
class Route(Definition):
    """A client function behind HTTP, below /api."""

    path: str = "/"
    methods: tuple[str, ...] = ("GET",)
    auth: str = "function"  # anonymous | function | admin


@dataclass(frozen=True)
class Trigger(Definition):
    """A client function that a clock or a queue calls. It runs as an activity of a built-in orchestrator."""

    @property
    def activity(self) -> Activity:
        """The activity under which it runs."""
        raise NotImplementedError


class Registry:
    """The functions of one application, by kind and name."""

    def __init__(self) -> None:
        self.activities: dict[str, Activity] = {}
        self.orchestrators: dict[str, Orchestrator] = {}  # the newest version of each
        self.versions: dict[str, dict[str, Orchestrator]] = {}  # all of them, by name and version
        self.entities: dict[str, Entity] = {}
        self.routes: list[Route] = []
        self.triggers: list[Trigger] = []
        self.lifespans: list[Definition] = []
        self.executors: dict[str, Any] = {}  # sources, by name

    def add(self, definition: Definition) -> None:
        """Register; raises RegistrationError for a name or a route that is taken."""
        self._put(definition)
        if not isinstance(definition, Route | Trigger):
            remember(definition)

    def include(self, other: Registry) -> None:
        """Take over what another registry has, all of it or, with RegistrationError, nothing."""
        rehearsal = Registry()
        for registry in (self, other):
            for definition in registry.definitions():
                rehearsal._put(definition)
            for name, source in registry.executors.items():
                rehearsal.add_executor(name, source)
        for definition in other.definitions():
            self._put(definition)
        for name, source in other.executors.items():
            self.add_executor(name, source)

    def described(self, **more: str) -> str:
        """What is registered, as other workers and operators are told, and what else they are: JSON."""
        return msgspec.json.encode(
            {
                **more,
                "orchestrators": sorted(self.orchestrators),
                "activities": sorted(self.activities),
                "entities": sorted(self.entities),
            }
        ).decode()

    def add_executor(self, name: str, source: Any) -> None:
        """Register a source of executors; raises RegistrationError for a name that another one has."""
        if self.executors.setdefault(name, source) is not source:
            raise RegistrationError(f"the executor name {name!r} is already taken in this application")

    def supplement(self, definitions: Iterable[Definition]) -> None:
        """Add the functions that stand behind others, those whose names are not taken (by a stub, say)."""
        for definition in definitions:
            if definition.name not in self.activities and definition.name not in self.versions:
                self._put(definition)

    def definitions(self) -> Iterator[Definition]:
        """Everything registered, each kind in the order of registration."""
        yield from (one for name, one in self.activities.items() if name == one.name)
        for name, versions in self.versions.items():
            yield from (one for one in versions.values() if name == one.name)
        yield from self.entities.values()
        yield from self.routes
        yield from self.triggers
        yield from self.lifespans

    def _put(self, definition: Definition) -> None:
        match definition:
            case Activity():
                for name in (definition.name, *definition.aliases):
                    _put(self.activities, name, definition)
            case Orchestrator():
                for name in (definition.name, *definition.aliases):
                    versions = self.versions.setdefault(name, {})
                    _put(versions, definition.version, definition, name)
                    self.orchestrators[name] = versions[newest(versions)]
            case Entity():
                _put(self.entities, definition.name, definition)
            case Route():
                _check_route(self.routes, definition)
                self.routes.append(definition)
            case Trigger():
                _check_trigger(self.triggers, definition)
                self.triggers.append(definition)
            case _:
                self.lifespans.append(definition)

    def activity(self, name: str) -> Activity:
        return _get(self.activities, name, "activity")

    def orchestrator(self, name: str, version: str = "") -> Orchestrator:
        """The orchestrator of a name: of this version if there is one, else the newest."""
        return self.versions.get(name, {}).get(version) or _get(self.orchestrators, name, "orchestrator")

    def name_of(self, function: str | Function) -> str:
        """The name of a function reference here; of several names its own, else the first it was given."""
        if isinstance(function, str):
            return function
        known = [d for d in definitions_of(function) if d.name in self.activities or d.name in self.versions]
        return preferred(known).name if known else name_of(function)

    def check(self) -> None:
        """Resolve every annotation, so that mistakes show before anything runs."""
        for definition in self.definitions():
            if isinstance(definition, Activity | Orchestrator | Route):
                definition.hints()


def _put(into: dict[str, D], key: str, definition: D, name: str = "") -> None:
    if key in into and into[key].function is not definition.function:
        of_version = f" in version {key!r}" if name and key else ""
        raise RegistrationError(
            f"{where(definition.function)}: the name {name or key!r} is already taken{of_version} by "
            f"{where(into[key].function)}; give one of them name=..."
            + (" or another version=..." if name else "")
        )
    into[key] = definition


def _check_route(routes: list[Route], new: Route) -> None:
    for route in routes:
        shared = set(route.methods) & set(new.methods)
        if route.path == new.path and shared:
            raise RegistrationError(
                f"{where(new.function)}: the route {'/'.join(sorted(shared))} {new.path} is already taken by "
                f"{where(route.function)}"
            )


def _check_trigger(triggers: list[Trigger], new: Trigger) -> None:
    for trigger in triggers:
        if trigger.activity.name == new.activity.name:
            raise RegistrationError(
                f"{where(new.function)}: the name {new.name!r} is already taken by {where(trigger.function)}; "
                "give one of them name=..."
            )


def _get(source: Mapping[str, D], name: str, kind: str) -> D:
    found = source.get(name)
    if found is None:
        known = ", ".join(sorted(n for n in source if "::" not in n)[:10]) or f"no {kind} at all"
        raise FunctionNotFound(f"no {kind} named {name!r} is registered in this application; it has {known}")
    return found


def remember(definition: Definition) -> None:
    """Note the definition on the function, so that a reference to it can be used as its name."""
    others = [one for one in definitions_of(definition.function) if not _is_same(one, definition)]
    try:
        setattr(definition.function, _MARK, (*others, definition))
    except (AttributeError, TypeError) as error:
        raise RegistrationError(f"{definition.function!r} cannot be registered: {error}") from error


def definition_of(function: object) -> Definition | None:
    """The definition behind a function reference, if it was registered."""
    found = definitions_of(function)
    return preferred(found) if found else None


def definitions_of(function: object) -> tuple[Definition, ...]:
    """Every definition of a function, in the order in which they were registered."""
    found = getattr(function, _MARK, None) or getattr(_plain(function), _MARK, None)
    return found if isinstance(found, tuple) else ()


def preferred(definitions: Sequence[Definition]) -> Definition:
    """Of several definitions of one function the one under its own name, else the first."""
    own = getattr(definitions[0].function, "__name__", "")
    return next((one for one in reversed(definitions) if one.name == own), definitions[0])


def version_of(function: object) -> str:
    """The version that a function reference stands for; "" when it stands for several, or for none."""
    versions = {one.version for one in definitions_of(function) if isinstance(one, Orchestrator)}
    return versions.pop() if len(versions) == 1 else ""


def _is_same(one: Definition, other: Definition) -> bool:
    return (
        one.name == other.name
        and type(one) is type(other)
        and getattr(one, "version", "") == getattr(other, "version", "")
    )


def name_of(function: str | Function) -> str:
    """The registered name of a function reference; a string is taken as it is."""
    if isinstance(function, str):
        return function
    definition = definition_of(function)
    if definition is None:
        raise FunctionNotFound(
            f"{where(function)} is not registered: put @app.orchestrator or @app.activity on it, "
            "or pass its registered name"
        )
    return definition.name


def where(function: object) -> str:
    """A function for an error message: its name, file and line."""
    code = getattr(_plain(function), "__code__", None)
    name = getattr(function, "__qualname__", repr(function))
    return f"{name} ({code.co_filename}:{code.co_firstlineno})" if code else name


def _plain(function: Any) -> Any:
    return inspect.unwrap(function) if callable(function) else function


_DECORATORS = frozenset({"perdure.registration", "perdure.spelling"})


def caller_locals() -> Mapping[str, Any] | None:
    """The local names where a decorator was applied, unless at module level."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__") in _DECORATORS:
        frame = frame.f_back
    return None if frame.f_locals is frame.f_globals else frame.f_locals


# --------------------------------------------------------------------------------------- calling by type


@dataclass(frozen=True)
class Plan(Generic[D]):
    """How a function is called: which parameter takes which given value, and which takes the input.

    `given` maps parameter names to the type each was annotated with; `input_name` is None when there is none.
    """

    definition: D
    given: Mapping[str, type]
    input_name: str | None
    input_type: Any
    output_type: Any


def plan_of(definition: D, available: tuple[type, ...], apart: Collection[str] = ()) -> Plan[D]:
    """Decide by annotation what each parameter receives, but for those in `apart`, which others fill.

    Raises RegistrationError when two are left over.
    """
    hints = definition.hints()
    given: dict[str, type] = {}
    left: list[str] = []
    for name, parameter in inspect.signature(_plain(definition.function)).parameters.items():
        kind = _given_type(hints.get(name, Any), available)
        if name in apart:
            continue
        if kind is not None:
            given[name] = kind
        elif _needs_filling(parameter) or (not left and parameter.kind is parameter.POSITIONAL_OR_KEYWORD):
            left.append(name)
    if len(left) > 1:
        raise RegistrationError(
            f"{where(definition.function)} has {len(left)} parameters that nothing fills: {', '.join(left)}. "
            "One may take the input; the others must be annotated with a context or with the type of a "
            "lifespan resource. Put several inputs into one dataclass"
        )
    input_name = left[0] if left else None
    return Plan(
        definition=definition,
        given=given,
        input_name=input_name,
        input_type=hints.get(input_name, Any) if input_name else Any,
        output_type=hints.get("return", Any),
    )


def _needs_filling(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD


def _given_type(annotation: Any, available: tuple[type, ...]) -> type | None:
    for option in typing.get_args(annotation) or (annotation,):
        for kind in available:
            if isinstance(option, type) and option is not object and issubclass(kind, option):
                return kind
    return None


# ---------------------------------------------------------------------------------------- orchestrators


def orchestrator_parameters(function: Function) -> list[inspect.Parameter]:
    """The context's parameter and, if there is one, the input's. Raises RegistrationError for another arity."""
    parameters = list(inspect.signature(_plain(function)).parameters.values())
    positional = [p for p in parameters if p.kind in _POSITIONAL]
    required = [p for p in parameters if p.default is p.empty and p.kind not in _VARIABLE]
    if not parameters or parameters[0] not in positional or not all(p in positional[:2] for p in required):
        raise RegistrationError(
            f"{where(function)}: an orchestrator takes its context, or its context and one input"
        )
    return positional[:2]


def orchestrator_input(definition: Orchestrator) -> tuple[bool, Any]:
    """Whether the orchestrator takes an input beside its context, and of which type its input is.

    Raises RegistrationError unless it takes the context alone, or the context and one input.
    """
    parameters = orchestrator_parameters(definition.function)
    takes_input = len(parameters) > 1
    hints = definition.hints()
    first = hints.get(parameters[0].name, OrchestrationContext)
    if isinstance(first, type) and not issubclass(OrchestrationContext, first) and first is not object:
        raise RegistrationError(
            f"{where(definition.function)}: its first parameter is the OrchestrationContext, not {first!r}"
        )
    return takes_input, hints.get(parameters[1].name, Any) if takes_input else definition.input_type


_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def activity_timeout(timeout: Seconds | None, what: str = "timeout") -> int:
    """A timeout in microseconds, 0 for none. Raises RegistrationError unless it is positive."""
    if timeout is None:
        return 0
    try:
        value = micros(timeout)
    except ValueError as error:
        raise RegistrationError(str(error)) from error
    if value <= 0:
        raise RegistrationError(f"{what} must be more than 0 seconds, not {timeout!r}")
    return value


def checked_name(name: str, function: object) -> str:
    """A function name: 1 to 200 printable characters without / \\ # ?, not one of the reserved ones."""
    if name.casefold().startswith(BUILT_IN.casefold()):
        raise RegistrationError(f"{where(function)}: names that begin with {BUILT_IN} are reserved")
    if not name or len(name) > 200 or not name.isprintable() or set("/\\#?") & set(name):
        raise RegistrationError(
            f"{where(function)}: {name!r} is not a usable name: 1 to 200 printable characters, "
            "none of / \\ # ?"
        )
    return name


__all__ = [
    "Activity",
    "Definition",
    "Orchestrator",
    "Plan",
    "Registry",
    "Route",
    "Trigger",
    "activity_timeout",
    "caller_locals",
    "checked_name",
    "definition_of",
    "name_of",
    "orchestrator_input",
    "orchestrator_parameters",
    "plan_of",
    "where",
]
