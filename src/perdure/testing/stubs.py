"""Observed activities: each call is recorded, and stubs replace some bodies."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perdure.engine.functions.callables import is_async, signature_of, standing_for
from perdure.engine.functions.registry import Activity, Registry
from perdure.replay.activity_context import ActivityContext

Stubs = Mapping[str | Callable[..., Any], Callable[..., Any]]
_NOTED = "_perdure_noted"
_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)


@dataclass(frozen=True)
class Call:
    """One run of an activity's body, with its arguments."""

    activity: str
    input: Any
    context: ActivityContext

    @property
    def attempt(self) -> int:
        """1 for the first try of this call, 2 for the first retry."""
        return self.context.attempt

    @property
    def idempotency_key(self) -> str:
        """The key of the logical call, the same for all its attempts."""
        return self.context.idempotency_key

    @property
    def instance_id(self) -> str:
        """The calling instance."""
        return self.context.instance_id


def observed(registry: Registry, stubs: Stubs, calls: list[Call]) -> Registry:
    """A copy of the registry whose activities record their calls and run the stubs.

    Raises FunctionNotFound for a stub of an unknown activity.
    """
    by_name = {registry.name_of(activity): stub for activity, stub in stubs.items()}
    for name in by_name:
        registry.activity(name)
    double = Registry()
    double.adopt(registry)
    double.orchestrators.update(registry.orchestrators)
    double.entities.update(registry.entities)
    double.versions.update(registry.versions)
    double.routes.extend(registry.routes)
    double.triggers.extend(registry.triggers)
    double.lifespans.extend(registry.lifespans)
    for name, activity in registry.activities.items():
        double.activities[name] = _observed(activity, by_name.get(name), calls)
    return double


def _observed(activity: Activity, stub: Callable[..., Any] | None, calls: list[Call]) -> Activity:
    function = activity.function if stub is None else stub
    parameters = signature_of(function) if stub is None else _parameters_of_stub(stub, activity)
    hints = activity.hints()
    if stub is not None:
        hints = _hints_of_stub(stub, parameters, activity, hints)
    by_place = [name for name, p in signature_of(function).items() if p.kind in _BY_PLACE]
    wrapper = _noting(activity.name, function, by_place, calls)
    noted = inspect.Parameter(_NOTED, inspect.Parameter.KEYWORD_ONLY, annotation=ActivityContext)
    named = [
        p.replace(kind=p.POSITIONAL_OR_KEYWORD) if p.kind is p.POSITIONAL_ONLY else p
        for p in parameters.values()
        if p.kind is not p.VAR_KEYWORD
    ]
    variable = [p for p in parameters.values() if p.kind is p.VAR_KEYWORD]
    wrapper.__signature__ = inspect.Signature([*named, noted, *variable])
    wrapper.__annotations__ = {**hints, _NOTED: ActivityContext}
    wrapper.__dict__.pop("__wrapped__", None)
    standing_for(wrapper, function)
    return Activity(
        activity.name,
        wrapper,
        None,
        activity.aliases,
        retry=activity.retry,
        timeout=activity.timeout,
        heartbeat=activity.heartbeat,
        concurrency=activity.concurrency,
    )


def _parameters_of_stub(stub: Callable[..., Any], activity: Activity) -> dict[str, inspect.Parameter]:
    """The parameters of a stub; the `*args` of one without named parameters, such as a Mock, take the input."""
    parameters = signature_of(stub)
    named = {name: p for name, p in parameters.items() if p.kind not in _VARIABLE}
    starred = [name for name, p in parameters.items() if p.kind is p.VAR_POSITIONAL]
    if named or not starred or not signature_of(activity.function):
        return named
    return {starred[0]: parameters[starred[0]].replace(kind=inspect.Parameter.KEYWORD_ONLY)}


def _hints_of_stub(
    stub: Callable[..., Any],
    parameters: Mapping[str, inspect.Parameter],
    activity: Activity,
    real: Mapping[str, Any],
) -> dict[str, Any]:
    """The stub's own annotations, completed by those of the real activity."""
    own = dict(Activity(activity.name, stub).hints())
    names = signature_of(activity.function)
    inputs = [real.get(name, Any) for name in names if real.get(name) is not ActivityContext]
    for name in parameters:
        if name not in own:
            own[name] = real.get(name, inputs[0] if inputs else Any)
    if "return" in real:
        own["return"] = real["return"]
    return own


def _noting(name: str, function: Callable[..., Any], by_place: Sequence[str], calls: list[Call]) -> Any:
    def noted(arguments: dict[str, Any]) -> list[Any]:
        """Record the call; returns the positional arguments, removed from `arguments`."""
        context: ActivityContext = arguments.pop(_NOTED)
        calls.append(Call(name, context.get_input(), context))
        return [arguments.pop(place) for place in by_place if place in arguments]

    if is_async(function):

        @functools.wraps(function)
        async def asynchronous(**arguments: Any) -> Any:
            front = noted(arguments)
            return await function(*front, **arguments)

        return asynchronous

    @functools.wraps(function)
    def plain(**arguments: Any) -> Any:
        front = noted(arguments)
        return function(*front, **arguments)

    return plain
