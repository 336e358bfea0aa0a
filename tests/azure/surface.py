"""The public names of the installed official package, found by looking at it; and where they are here."""

import inspect
from collections.abc import Iterator
from typing import Any

from tests.azure import official

RETURNED = {  # classes that its methods return and that it does not list
    "DurableOrchestrationStatus": "models.DurableOrchestrationStatus",
    "PurgeHistoryResult": "models.PurgeHistoryResult",
    "EntityStateResponse": "models.EntityStateResponse",
    "TaskBase": "models.Task",
    "TimerTask": "models.Task",
    "TaskState": "models.Task",
}
OURS = {"DFApp": "App", "TaskBase": "Task", "EntityStateResponse": "EntityState"}
"""Classes that have another name here."""
HTTP = ("HttpRequest", "HttpResponse")
"""Classes of azure.functions that client functions meet."""
STANDARD = {"name", "value", "args", "add_note", "with_traceback"}  # of every enum, of every exception


def classes() -> dict[str, Any]:
    """Every class a program may meet, by name."""
    package = official.package()
    listed = {name: getattr(package, name) for name in package.__all__}
    models = official.module("models")
    listed |= {name: getattr(models, name) for name in models.__all__}
    return listed | {name: getattr(official.module(place), name) for name, place in RETURNED.items()}


def names() -> dict[str, str]:
    """Every public name, and how it is written in the table: with its parameters, if it is called."""
    found = {f"testing.{name}": f"testing.{name}(generator)" for name in official.module("testing").__all__}
    found |= {f"azure.functions.{name}": f"azure.functions.{name}" for name in HTTP}
    for name, kind in classes().items():
        found[name] = name + _parameters(kind)
        for member in members(name, kind):
            value = getattr(kind, member, None)
            written = _parameters(value) if callable(value) and _is_durable(kind, member) else ""
            found[f"{name}.{member}"] = f"{name}.{member}{written}"
    return found


def members(name: str, kind: Any) -> Iterator[str]:
    """The public members of a class and of its objects; those of Blueprint are among those of DFApp."""
    if name == "Blueprint":
        return
    inherited = vars(kind) if name == "TimerTask" else dir(kind)
    standard = STANDARD if _is_standard(kind) else set()
    own = {one for one in inherited if not one.startswith("_") and one not in standard}
    yield from sorted(own | {one for one in _attributes(name, kind) if not one.startswith("_")})


def parameters(function: Any) -> list[str]:
    """The names of what a function takes, in order."""
    return [
        one.name
        for one in inspect.signature(function).parameters.values()
        if one.name != "self" and one.kind is not one.VAR_KEYWORD
    ]


def _attributes(name: str, kind: Any) -> set[str]:
    match name:
        case "EntityId":
            return set(vars(kind("name", "key")))
        case "TaskBase":
            return set(vars(kind(0, [])))
        case _:
            return set()


def _parameters(called: Any) -> str:
    if inspect.isclass(called) and _is_standard(called):
        return ""
    return f"({', '.join(parameters(called))})"


def _is_standard(kind: type) -> bool:
    return issubclass(kind, Warning) or hasattr(kind, "__members__")


def _is_durable(kind: Any, member: str) -> bool:
    """Not one of the many bindings that Azure Functions itself adds to an application."""
    owner = next((base for base in kind.__mro__ if member in vars(base)), kind)
    return str(owner.__module__).startswith("azure.durable_functions")
