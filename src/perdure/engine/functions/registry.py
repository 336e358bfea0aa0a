"""The registry: the functions of an application, their names, and how each is called.

A decorator returns the function unchanged, so that it can be tested by calling it, typed, and imported
elsewhere; the definition is stored beside it. Annotations are resolved when the application starts, so that a
function may use types defined further down; all mistakes are reported together, before anything runs. The
annotation of a parameter decides its argument: a context, the client, a request, a lifespan resource; the
remaining parameter is the input. Activities and client functions follow the same rule.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Collection, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from types import UnionType
from typing import Any, Final, Generic, Literal, TypeVar

import msgspec
from msgspec import Raw

from perdure.engine.functions.callables import (
    is_async,
    is_same,
    mark,
    marks,
    own_name,
    resolvable,
    signature_of,
    where,
)
from perdure.engine.functions.versions import newest
from perdure.errors import EventRefused, FunctionNotFound, PayloadError, RegistrationError
from perdure.failure import Failure
from perdure.model import payload
from perdure.model.access import Identify
from perdure.model.announcements import Subscription
from perdure.model.durations import Seconds, micros
from perdure.model.http_calls import BUILT_IN
from perdure.model.readings import Reading
from perdure.model.retry import RetryPolicy
from perdure.replay.context import OrchestrationContext
from perdure.replay.inputs import Input

Function = Callable[..., Any]
D = TypeVar("D", bound="Definition")


@dataclass(frozen=True)
class Definition:
    """A registered function: its name and the namespace of its annotations."""

    name: str
    function: Function
    localns: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)
    aliases: tuple[str, ...] = ()

    def hints(self) -> dict[str, Any]:
        """Its resolved annotations. Raises RegistrationError for an unresolvable one."""
        try:
            return typing.get_type_hints(
                resolvable(self.function), localns=dict(self.localns or {}), include_extras=True
            )
        except (NameError, AttributeError, TypeError) as error:
            raise RegistrationError(
                f"{where(self.function)}: cannot resolve its annotations ({error}); "
                "the types it names must exist at run time, at module level"
            ) from error

    def output_type(self) -> Any:
        """The type of its result: Any if it is not annotated or never returns."""
        output = self.hints().get("return", Any)
        return Any if output in _NEVER else output


@dataclass(frozen=True)
class Activity(Definition):
    """An activity and its options. `concurrency` 0 means no limit of its own.

    `timeout` and `heartbeat` (the longest silence) are in microseconds, 0 for none. `executor` is an executor,
    a source of one, or the name of a registered source; None runs it in this process. `pool` names the workers
    that run it, "" for all.
    """

    retry: RetryPolicy | None = None
    timeout: int = 0
    concurrency: int = 0
    heartbeat: int = 0
    executor: Any = None
    pool: str = ""

    @property
    def is_async(self) -> bool:
        return is_async(self.function)


@dataclass(frozen=True)
class Orchestrator(Definition):
    """An orchestrator and the events that it admits (None admits all, unchecked)."""

    version: str = ""
    events: Mapping[str, Any] | None = None
    input_type: Any = Any
    summary: Callable[[Any], str] | None = None

    @cached_property
    def input_guard(self) -> payload.Guard | None:
        """The check of an input for loss; cached, because each start uses it."""
        return payload.guard_of(orchestrator_input(self)[1])

    def admit(self, event_name: str, body: Raw, known: Reading | None = None) -> Reading | None:
        """Raise EventRefused for an event whose name or shape the declared `events` do not admit.

        Returns the body as the declared type; `known` is what an earlier call returned for it.
        """
        if self.events is None:
            return None
        expected = self._event_type(event_name)
        if known is not None and known.is_as(expected):
            return known
        try:
            return Reading(body if bytes(body) else Raw(b"null"), expected)
        except PayloadError as error:
            misfit = error
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

    def refusal_of(self, event_name: str) -> str:
        """Why an event of this name is rejected; "" if it is admitted."""
        try:
            self._event_type(event_name)
        except EventRefused as refused:
            return str(refused)
        return ""

    def schema(self, event_name: str) -> dict[str, Any] | None:
        """The JSON Schema declared for an event, or None."""
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
    links: tuple[str, ...] = ("status",)  # the links for callers without the scope operate
    has_client: bool = True  # without one it cannot hand out links
    folded: bool = False  # ignore case and a trailing slash, as Azure does
    constraints: str = (
        ""  # what the values in the path have to fit; a path can serve several routes that differ in it
    )
    fits: Callable[[Mapping[str, Any]], bool] | None = None  # whether they fit
    is_shortened: bool = False  # a path without its optional part, which yields to other functions


@dataclass(frozen=True)
class Trigger(Definition):
    """A client function that a schedule or a queue calls. It runs as an activity of a built-in orchestrator."""

    @property
    def activity(self) -> Activity:
        raise NotImplementedError


HANDED_OUT: Final = ("status", "raise", "terminate", "purge", "restart", "suspend", "resume", "rewind")
"""The links to an instance that a route may hand out."""
NAMED_EVENT: Final = "raise:"
"""The prefix of an event's name in a link for this event alone."""
LinksFor = Literal["caller", "azure"]
ROUTE_PREFIX: Final = "/api"
"""The default prefix of the paths of routes, as on Azure."""


@dataclass(frozen=True)
class TaskPanel:
    """An application's own panel beside the facts of a task.

    Parameters:
        event: the event whose tasks have the panel.
        template: a Jinja template of the application.
        values: makes the template's values from the task; can be `async`.
        on_links: whether the pages of signed links show it, too.
    """

    event: str
    template: Path
    values: Callable[[Any], Any]
    on_links: bool = False


@dataclass(frozen=True)
class Origins:
    """The origins whose pages can call the application's routes.

    Parameters:
        named: such as "https://example.org", in lower case; "*" for every origin.
        with_credentials: whether they can send cookies and client certificates.
    """

    named: frozenset[str] = frozenset()
    with_credentials: bool = False


class Registry:
    """The functions of one application, by kind and name.

    `links` decides who gets links to an instance: each caller those for its own permissions, or, as in Azure,
    everyone all.

    `route_prefix` precedes the path of each route. `events` decides the data of an event that Azure's own client
    raises: the data themselves, or, as on Azure, their JSON text. `output_of_failure` makes the output of a failed
    instance from the name of its orchestrator and its failure. `origins` are those whose pages can call the routes.
    `replaces_running` lets a start take the id of an instance that has not finished, which it terminates.
    `fails_on_nondeterminism` fails an instance whose code does not match its history, instead of parking it.
    """

    def __init__(self) -> None:
        self.activities: dict[str, Activity] = {}
        self.orchestrators: dict[str, Orchestrator] = {}  # the newest version of each
        self.versions: dict[str, dict[str, Orchestrator]] = {}  # all of them, by name and version
        self.entities: dict[str, Entity] = {}
        self.routes: list[Route] = []
        self.triggers: list[Trigger] = []
        self.lifespans: list[Definition] = []
        self.executors: dict[str, Any] = {}  # sources, by name
        self.panels: dict[str, TaskPanel] = {}  # by event
        self.links: LinksFor = "caller"
        self.identify: Identify | None = None  # the application's own sign-in
        self.webhooks: Sequence[Subscription] = ()  # who is told of tasks and instances
        self.route_prefix = ROUTE_PREFIX
        self.events: Literal["data", "text"] = "data"
        self.output_of_failure: Callable[[str, Failure], str] = lambda name, failure: str(failure)
        self.origins = Origins()
        self.replaces_running = False
        self.fails_on_nondeterminism = False

    def add(self, definition: Definition) -> None:
        """Register a function; raises RegistrationError for a name or a route that is taken."""
        self._put(definition)
        if not isinstance(definition, Route | Trigger):
            remember(definition)

    def rename(self, function: Function, name: str) -> None:
        """Give a registered function another name; it keeps its old one as an alias.

        Raises RegistrationError for a name that is taken, and for a function that is not registered here.
        """
        found = [one for one in self.definitions() if is_same(one.function, function)]
        if not found:
            raise RegistrationError(
                f"{where(function)} is not registered: put function_name above the decorator that registers it"
            )
        checked_name(name, function)
        for definition in found:
            self._remove(definition)
            aliases = definition.aliases
            if isinstance(definition, Activity | Orchestrator) and definition.name != name:
                aliases = (definition.name, *aliases)
            renamed = replace(definition, name=name, aliases=aliases)
            if isinstance(definition, Entity):
                renamed = replace(renamed, name=name.lower())
            self.add(renamed)

    def _remove(self, definition: Definition) -> None:
        match definition:
            case Activity():
                for name in (definition.name, *definition.aliases):
                    del self.activities[name]
            case Orchestrator():
                for name in (definition.name, *definition.aliases):
                    versions = self.versions[name]
                    del versions[definition.version]
                    if versions:
                        self.orchestrators[name] = versions[newest(versions)]
                    else:
                        del self.versions[name], self.orchestrators[name]
            case Entity():
                del self.entities[definition.name]
            case Route():
                self.routes.remove(definition)
            case Trigger():
                raise RegistrationError(
                    f"{where(definition.function)}: give its name to its own decorator, as name="
                )
            case _:
                raise RegistrationError(f"{where(definition.function)} has no name of its own")

    def include(self, other: Registry) -> None:
        """Add all functions of another registry, or none, with RegistrationError."""
        rehearsal = Registry()
        for registry in (self, other):
            for definition in registry.definitions():
                rehearsal._put(definition)
            for name, source in registry.executors.items():
                rehearsal.add_executor(name, source)
            for panel in registry.panels.values():
                rehearsal.add_panel(panel)
        for definition in other.definitions():
            self._put(definition)
        for name, source in other.executors.items():
            self.add_executor(name, source)
        for panel in other.panels.values():
            self.add_panel(panel)

    def adopt(self, other: Registry) -> None:
        """Take over the settings of another registry."""
        self.links, self.route_prefix, self.events = other.links, other.route_prefix, other.events
        self.output_of_failure = other.output_of_failure
        self.origins, self.replaces_running = other.origins, other.replaces_running
        self.fails_on_nondeterminism = other.fails_on_nondeterminism
        self.identify = other.identify
        self.webhooks = other.webhooks

    def described(self, **more: str) -> str:
        """The registered names and `more`, as JSON for other workers and operators."""
        return msgspec.json.encode(
            {
                **more,
                "orchestrators": sorted(self.orchestrators),
                "activities": sorted(self.activities),
                "entities": sorted(self.entities),
            }
        ).decode()

    def add_panel(self, panel: TaskPanel) -> None:
        """Register a panel; raises RegistrationError for an event that has one, and for a template that is absent."""
        if not panel.template.is_file():
            raise RegistrationError(
                f"{where(panel.values)}: the panel of {panel.event!r} has no template {str(panel.template)!r}"
            )
        known = self.panels.setdefault(panel.event, panel)
        if known != panel:
            raise RegistrationError(
                f"{where(panel.values)}: tasks of {panel.event!r} have a panel already, {where(known.values)}"
            )

    def add_executor(self, name: str, source: Any) -> None:
        """Register a source of executors; raises RegistrationError for a name that is taken."""
        if self.executors.setdefault(name, source) is not source:
            raise RegistrationError(f"the executor name {name!r} is already taken in this application")

    def supplement(self, definitions: Iterable[Definition]) -> None:
        """Add built-in functions whose names are not taken (by a stub, for example)."""
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

    def entity(self, name: str) -> Entity:
        """The entity with this lower-case name, as in ids."""
        return _get(self.entities, name, "entity")

    def orchestrator(self, name: str, version: str = "") -> Orchestrator:
        """The orchestrator with this name: this version if it is registered, else the newest."""
        return self.versions.get(name, {}).get(version) or _get(self.orchestrators, name, "orchestrator")

    def name_of(self, function: str | Function) -> str:
        """The name of a function reference here; of several names its own, else the first registered."""
        if isinstance(function, str):
            return function
        known = [d for d in definitions_of(function) if d.name in self.activities or d.name in self.versions]
        return preferred(known).name if known else name_of(function)

    def check(self) -> None:
        """Resolve every annotation, so that mistakes show before anything runs."""
        for definition in self.definitions():
            if isinstance(definition, Activity | Route):
                definition.hints()
            elif isinstance(definition, Orchestrator):
                _check_orchestrator(definition)


def _put(into: dict[str, D], key: str, definition: D, name: str = "") -> None:
    if key in into and not is_same(into[key].function, definition.function):
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
        if route.path == new.path and route.constraints == new.constraints and shared:
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
    """Mark the function with its definition, so that a reference to it can be used as its name."""
    others = [one for one in definitions_of(definition.function) if not _is_same(one, definition)]
    mark(definition.function, (*others, definition))


def definition_of(function: object) -> Definition | None:
    """The definition of a function reference, or None."""
    found = definitions_of(function)
    return preferred(found) if found else None


def definitions_of(function: object) -> tuple[Definition, ...]:
    """Every definition of a function, in the order of registration."""
    return marks(function)


def preferred(definitions: Sequence[Definition]) -> Definition:
    """The definition under the function's own name, else the first."""
    if len(definitions) == 1:
        return definitions[0]
    own = own_name(definitions[0].function)
    return next((one for one in reversed(definitions) if one.name == own), definitions[0])


def version_of(function: object) -> str:
    """The version that a function reference stands for; "" when it has several, or none."""
    return version_among(definitions_of(function))


def version_among(definitions: Sequence[Definition]) -> str:
    """The version of these definitions of one function; "" when they have several, or none."""
    versions = {one.version for one in definitions if isinstance(one, Orchestrator)}
    return versions.pop() if len(versions) == 1 else ""


def _is_same(one: Definition, other: Definition) -> bool:
    return (
        one.name == other.name
        and type(one) is type(other)
        and getattr(one, "version", "") == getattr(other, "version", "")
    )


def name_of(function: str | Function) -> str:
    """The registered name of a function reference; a string is returned unchanged."""
    return function if isinstance(function, str) else preferred(registered(function)).name


def registered(function: Function) -> tuple[Definition, ...]:
    """Every definition of a function, as `definitions_of`. Raises FunctionNotFound if it has none."""
    found = definitions_of(function)
    if not found:
        raise FunctionNotFound(
            f"{where(function)} is not registered: put @app.orchestrator or @app.activity on it, "
            "or pass its registered name"
        )
    return found


_DECORATORS = frozenset({"perdure.blueprint", "perdure.azure_names"})


def caller_locals() -> Mapping[str, Any] | None:
    """The local names at the place of a decorator, unless at module level."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__") in _DECORATORS:
        frame = frame.f_back
    return None if frame.f_locals is frame.f_globals else dict(frame.f_locals)


# --------------------------------------------------------------------------------------- calling by type


@dataclass(frozen=True)
class CallPlan(Generic[D]):
    """The argument plan of a function: the parameters that take given values, and the one that takes the input.

    `given` maps parameter names to their annotated types; `positional` are positional-only parameters with
    their defaults.
    """

    definition: D
    given: Mapping[str, type]
    input: Input | None
    output_type: Any
    positional: Mapping[str, Any]

    @property
    def input_name(self) -> str | None:
        return self.input.name if self.input is not None else None

    @property
    def input_type(self) -> Any:
        return self.input.type if self.input is not None else Any

    @property
    def by_name(self) -> Callable[..., Any]:
        """The function, which is called with all its arguments by name."""
        return self._by_place if self.positional else self.definition.function

    def _by_place(self, /, **arguments: Any) -> Any:
        by_place = [arguments.pop(name, default) for name, default in self.positional.items()]
        return self.definition.function(*by_place, **arguments)


def plan_of(definition: D, available: tuple[type, ...], apart: Collection[str] = ()) -> CallPlan[D]:
    """Decide by annotation the argument of each parameter, except for those in `apart`.

    Raises RegistrationError when two parameters are left over, and for an input or result type that JSON cannot
    represent.
    """
    hints = definition.hints()
    parameters = signature_of(definition.function)
    given: dict[str, type] = {}
    left: list[inspect.Parameter] = []
    for name, parameter in parameters.items():
        kind = _given_type(hints.get(name, Any), available)
        if name in apart or parameter.kind in _VARIABLE:
            continue
        if kind is not None:
            given[name] = kind
        else:
            left.append(parameter)
    chosen = _input_parameter(definition, left, hints)
    if chosen is None and isinstance(definition, Activity):
        refuse_dropping(definition.function, (p for p in parameters.values() if p.kind in _VARIABLE))
    taken = {*given, *apart} | ({chosen.name} if chosen is not None else set())
    output = definition.output_type()
    if isinstance(definition, Activity):
        _check_returned(definition.function, "its result", output)
    return CallPlan(
        definition=definition,
        given=given,
        input=_input_of(definition, chosen, hints) if chosen is not None else None,
        output_type=output,
        positional=_by_place(parameters, taken),
    )


def _input_parameter(
    definition: Definition, left: list[inspect.Parameter], hints: Mapping[str, Any]
) -> inspect.Parameter | None:
    """The parameter for the input: the required one of those left, else the first optional one."""
    required = [parameter for parameter in left if parameter.default is parameter.empty]
    if len(required) > 1:
        raise RegistrationError(
            f"{where(definition.function)} has {len(required)} parameters that nothing fills: "
            f"{', '.join(parameter.name for parameter in required)}. One may take the input; annotate the "
            "others with a context or with the type of a lifespan resource. Combine several inputs in one "
            "dataclass"
        )
    if required:
        return required[0]
    by_place = [parameter for parameter in left if parameter.kind in _POSITIONAL]
    by_name = [
        parameter
        for parameter in left
        if parameter.kind is parameter.KEYWORD_ONLY
        and payload.why_unreadable(hints.get(parameter.name, Any)) is None
    ]
    return next(iter(by_place or by_name), None)


def _input_of(definition: Definition, parameter: inspect.Parameter, hints: Mapping[str, Any]) -> Input:
    kind = hints.get(parameter.name, Any)
    check_readable(definition.function, f"its parameter {parameter.name!r}", kind)
    return Input(parameter.name, kind, parameter.default)


def _by_place(parameters: Mapping[str, inspect.Parameter], taken: Collection[str]) -> dict[str, Any]:
    """The positional-only parameters up to the last one with an argument."""
    only = [one for one in parameters.values() if one.kind is one.POSITIONAL_ONLY]
    while only and only[-1].name not in taken:
        only.pop()
    return {one.name: one.default for one in only}


def likely_input(definition: Activity) -> Any:
    """The likely type of an activity's input, without knowledge of the resources."""
    hints = definition.hints()
    kinds = [
        (parameter.default is parameter.empty, hints.get(name, Any))
        for name, parameter in signature_of(definition.function).items()
        if parameter.kind not in _VARIABLE
    ]
    kinds = [one for one in kinds if payload.why_unreadable(one[1]) is None]
    required = [kind for is_required, kind in kinds if is_required] or [kind for _, kind in kinds[:1]]
    return required[0] if len(required) == 1 else Any


def check_readable(function: object, what: str, kind: Any) -> None:
    """Raise RegistrationError for a type that JSON cannot represent."""
    flaw = payload.why_unreadable(kind)
    if flaw is not None:
        raise RegistrationError(f"{where(function)}: {what} is annotated {payload.title(kind)}. {flaw}")


def _check_returned(function: object, what: str, kind: Any) -> None:
    """The same for a result. A plain class may be annotated: only a value shows that JSON cannot represent it,
    and that value is rejected when it is returned, without a retry.
    """
    if not payload.is_plain_class(kind):
        check_readable(function, what, kind)


def _given_type(annotation: Any, available: tuple[type, ...]) -> type | None:
    for option in _options(annotation):
        for kind in available:
            if isinstance(option, type) and option not in (object, Hashable) and is_kind_of(kind, option):
                return kind
    return None


def _options(annotation: Any) -> tuple[Any, ...]:
    """The types of an annotation: several for a union."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _options(typing.get_args(annotation)[0])
    return typing.get_args(annotation) if origin in (typing.Union, UnionType) else (annotation,)


def is_kind_of(kind: type, option: type) -> bool:
    """Whether a value of this kind may be passed for `option`."""
    try:
        return issubclass(kind, option)
    except TypeError:  # a TypedDict, a Protocol without runtime checks, a generic alias
        return False


# ---------------------------------------------------------------------------------------- orchestrators


def orchestrator_parameters(function: Function) -> list[inspect.Parameter]:
    """The context's parameter and, if there is one, the input's. Raises RegistrationError for another arity."""
    parameters = list(signature_of(function).values())
    positional = [p for p in parameters if p.kind in _POSITIONAL]
    required = [p for p in parameters if p.default is p.empty and p.kind not in _VARIABLE]
    if not parameters or parameters[0] not in positional or not all(p in positional[:2] for p in required):
        raise RegistrationError(
            f"{where(function)}: an orchestrator takes its context, or its context and one input"
        )
    if len(positional) == 1:
        refuse_dropping(function, parameters)
    return positional[:2]


def refuse_dropping(function: object, parameters: Iterable[inspect.Parameter]) -> None:
    """Raise RegistrationError for a function that seems to take an input but cannot."""
    for parameter in parameters:
        if parameter.kind in _VARIABLE:
            raise RegistrationError(
                f"{where(function)}: nothing fills {str(parameter).partition(':')[0]}. Give it one parameter for "
                "the input; a wrapper around another function needs functools.wraps"
            )
        if parameter.kind is parameter.KEYWORD_ONLY:
            raise RegistrationError(
                f"{where(function)}: the input is passed by position, and {parameter.name!r} can only be "
                "passed by name: remove the `*` in front of it"
            )


def orchestrator_input(definition: Orchestrator) -> tuple[bool, Any]:
    """Whether the orchestrator takes an input, and the type of its input.

    Raises RegistrationError unless it takes the context alone, or the context and one input.
    """
    parameters = orchestrator_parameters(definition.function)
    takes_input = len(parameters) > 1
    hints = definition.hints()
    first = hints.get(parameters[0].name, OrchestrationContext)
    if isinstance(first, type) and not is_kind_of(OrchestrationContext, first) and first is not object:
        raise RegistrationError(
            f"{where(definition.function)}: its first parameter is the OrchestrationContext, "
            f"not {payload.title(first)}"
        )
    return takes_input, hints.get(parameters[1].name, Any) if takes_input else definition.input_type


def input_parameter_of(definition: Orchestrator) -> Input | None:
    """The orchestrator's parameter for the input, or None."""
    takes_input, kind = orchestrator_input(definition)
    if not takes_input:
        return None
    parameter = orchestrator_parameters(definition.function)[1]
    return Input(parameter.name, kind, parameter.default)


def orchestrator_output(definition: Orchestrator) -> Any:
    """The type of its output; for a generator, the type of its return value."""
    output = definition.output_type()
    origin = typing.get_origin(output) or output
    if origin in _GENERATORS:
        parts = typing.get_args(output)
        return parts[2] if len(parts) == 3 and parts[2] not in _NEVER else Any
    return output


def _check_orchestrator(definition: Orchestrator) -> None:
    _, kind = orchestrator_input(definition)
    check_readable(definition.function, "its input", kind)
    _check_returned(definition.function, "its output", orchestrator_output(definition))
    for name, expected in (definition.events or {}).items():
        check_readable(definition.function, f"its event {name!r}", expected)


_NEVER = (typing.NoReturn, typing.Never)
_GENERATORS = (Generator, Iterator, Iterable)
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
    "CallPlan",
    "Registry",
    "Route",
    "Trigger",
    "activity_timeout",
    "caller_locals",
    "checked_name",
    "check_readable",
    "definition_of",
    "input_parameter_of",
    "is_kind_of",
    "likely_input",
    "name_of",
    "orchestrator_input",
    "orchestrator_output",
    "orchestrator_parameters",
    "plan_of",
    "refuse_dropping",
    "where",
]
