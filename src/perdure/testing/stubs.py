"""Activities under observation: each call is noted, and some are answered by a stub."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from perdure.engine.activities import ActivityContext
from perdure.engine.registry import Activity, Registry

Stubs = Mapping[str | Callable[..., Any], Callable[..., Any]]
_NOTED = "_perdure_noted"


@dataclass(frozen=True)
class Call:
    """One run of an activity's body: what it was given."""

    activity: str
    input: Any
    context: ActivityContext

    @property
    def attempt(self) -> int:
        """1 for the first try of this call, 2 for the first retry."""
        return self.context.attempt

    @property
    def idempotency_key(self) -> str:
        """The name of the logical call, the same for all its attempts."""
        return self.context.idempotency_key

    @property
    def instance_id(self) -> str:
        """The instance that called."""
        return self.context.instance_id


def observed(registry: Registry, stubs: Stubs, calls: list[Call]) -> Registry:
    """The same functions in a registry of their own, whose activities note their calls. Stubs take over.

    Raises FunctionNotFound for a stub whose activity the application does not have.
    """
    by_name = {registry.name_of(activity): stub for activity, stub in stubs.items()}
    for name in by_name:
        registry.activity(name)
    double = Registry()
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
    function = inspect.unwrap(activity.function) if stub is None else inspect.unwrap(stub)
    hints = activity.hints()
    signature = inspect.signature(function)
    if stub is not None:
        hints = _hints_of_stub(stub, signature, activity, hints)
    wrapper = _noting(activity.name, activity.function if stub is None else stub, calls)
    noted = inspect.Parameter(_NOTED, inspect.Parameter.KEYWORD_ONLY, annotation=ActivityContext)
    parameters = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    variable = [p for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD]
    wrapper.__signature__ = signature.replace(parameters=[*parameters, noted, *variable])
    wrapper.__annotations__ = {**hints, _NOTED: ActivityContext}
    wrapper.__dict__.pop("__wrapped__", None)
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


def _hints_of_stub(
    stub: Callable[..., Any], signature: inspect.Signature, activity: Activity, real: Mapping[str, Any]
) -> dict[str, Any]:
    """The stub's own annotations; what it leaves out is as the real activity has it."""
    own = dict(Activity(activity.name, _routine(stub)).hints())
    names = inspect.signature(inspect.unwrap(activity.function)).parameters
    inputs = [real.get(name, Any) for name in names if real.get(name) is not ActivityContext]
    for name in signature.parameters:
        if name not in own:
            own[name] = real.get(name, inputs[0] if inputs else Any)
    if "return" in real:
        own["return"] = real["return"]
    return own


def _routine(function: Any) -> Any:
    """What holds the annotations of a callable: a function, the one a partial is of, or an object's `__call__`."""
    if isinstance(function, functools.partial):
        return _routine(function.func)
    return function if inspect.isroutine(function) else function.__call__


def _noting(name: str, function: Callable[..., Any], calls: list[Call]) -> Any:
    def note(arguments: dict[str, Any]) -> None:
        context: ActivityContext = arguments.pop(_NOTED)
        calls.append(Call(name, context.get_input(), context))

    if inspect.iscoroutinefunction(inspect.unwrap(_routine(function))):

        @functools.wraps(function)
        async def asynchronous(**arguments: Any) -> Any:
            note(arguments)
            return await function(**arguments)

        return asynchronous

    @functools.wraps(function)
    def plain(**arguments: Any) -> Any:
        note(arguments)
        return function(**arguments)

    return plain
