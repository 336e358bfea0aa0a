"""An Azure app as a `perdure.App`: only its functions come from elsewhere."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from msgspec import Raw

from perdure.app import App
from perdure.engine.client.client import Client
from perdure.engine.functions.callables import own_name, standing_for
from perdure.engine.functions.registry import Activity, Definition, Entity, Orchestrator
from perdure.errors import HostedAppError, PerdureError, RegistrationError
from perdure.hosts.azure_functions import sdk
from perdure.hosts.azure_functions.asking import Names, body_of
from perdure.hosts.azure_functions.bridge import bridged
from perdure.hosts.azure_functions.folder import Folder, export_settings, read_folder
from perdure.hosts.azure_functions.http_routes import routes_of
from perdure.hosts.azure_functions.in_process import HubDoor, install
from perdure.hosts.azure_functions.indexing import AppFunction, functions_in
from perdure.hosts.azure_functions.invoking import Callee, unfilled
from perdure.replay.activity_context import ActivityContext
from perdure.replay.entity import EntityContext

_CALLED: Final = {
    "orchestrationtrigger": "orchestration",
    "activitytrigger": "activity",
    "entitytrigger": "entityName",
}
"""The property of a trigger that names what others call."""


@dataclass(frozen=True)
class HostedApp:
    """An app that has been loaded: what is served, and what is left out."""

    app: App
    folder: Folder
    told: tuple[str, ...] = ()


def load(
    path: str | Path,
    *,
    partial: bool = False,
    links: Literal["full", "status"] = "full",
    events: Literal["text", "data"] = "text",
    enter: bool = False,
) -> HostedApp:
    """Load the app in a folder. Raises HostedAppError with every fault that was found.

    Parameters:
        partial: serve the rest where triggers or bindings are not hosted.
        links: which links to an instance the app's functions hand out: all of them, or the status alone.
        events: what the data are of an event that the SDK's client raises: JSON text, as on Azure, or the data.
        enter: change into the folder, where Azure's host runs an app.
    """
    folder = read_folder(Path(path).resolve())
    export_settings(folder)
    if enter:
        os.chdir(folder.path)  # the SDK is imported by now: it reads the host.json of where it is, strictly
    functions, left_out = functions_in(folder, partial=partial)
    install()
    app = App(_hub_of(folder), links="azure" if links == "full" else "caller")
    app.registry.events = events
    app.registry.route_prefix = _route_prefix(folder)
    app.registry.lifespans.append(Definition("azure", _door))
    _register(app, folder, functions)
    return HostedApp(app, folder, tuple(left_out))


def _route_prefix(folder: Folder) -> str:
    """What host.json says stands before the routes; it may be nothing."""
    said = folder.extension("http").get("routePrefix")
    prefix = "api" if said is None else str(said).strip("/")
    return f"/{prefix}" if prefix else ""


async def _door() -> AsyncIterator[HubDoor]:
    """While the app is served: the way of its client functions to its hub."""
    door = HubDoor()
    try:
        yield door
    finally:
        door.close()


def _hub_of(folder: Folder) -> str:
    asked = str(folder.extension("durableTask").get("hubName") or "default")
    try:
        return folder.resolved(asked)
    except KeyError as missing:
        raise HostedAppError(f"host.json: the hubName {asked!r} needs the setting {missing}") from None


def _register(app: App, folder: Folder, functions: list[AppFunction]) -> None:
    """Register every function. Raises HostedAppError with all that cannot be."""
    faults: list[str] = []
    names = Names(
        _folded(one for one in functions if one.trigger.kind == "activitytrigger"),
        _folded(one for one in functions if one.trigger.kind == "orchestrationtrigger"),
    )
    for function in functions:
        try:
            for definition in _definitions(function, names, folder):
                app.registry.add(definition)
        except (ValueError, PerdureError) as error:
            faults.append(f"{function.name}: {error}")
    if faults:
        told = "\n".join(f"  {fault}" for fault in faults)
        raise HostedAppError(f"the Azure app in {folder.path} cannot be served:\n{told}", tuple(faults))


def called_name(function: AppFunction) -> str:
    """The name by which orchestrators and clients call a function."""
    named = function.trigger.get(_CALLED.get(function.trigger.kind, ""))
    return str(named or function.name)


def _aliases(function: AppFunction) -> tuple[str, ...]:
    """The other names of a function: a call by its builder uses that of the Python function."""
    own = own_name(function.function)
    called = called_name(function)
    listed = dict.fromkeys([function.name, own] if _is_decorated(function) else [function.name])
    return tuple(one for one in listed if one.casefold() != called.casefold())


def _is_decorated(function: AppFunction) -> bool:
    return "direction" in function.trigger.properties and not function.trigger.properties.get("scriptFile")


def _folded(functions: Iterable[AppFunction]) -> dict[str, str]:
    return {
        name.casefold(): called_name(one) for one in functions for name in (*_aliases(one), called_name(one))
    }


def _definitions(function: AppFunction, names: Names, folder: Folder) -> Iterable[Definition]:
    callee = Callee.of(function, folder.path)
    match function.trigger.kind:
        case "orchestrationtrigger":
            return [_orchestrator(function, names)]
        case "entitytrigger":
            return [_entity(function)]
        case "activitytrigger":
            _refuse_unfilled(callee)
            return [_activity(function, callee)]
        case "httptrigger":
            _refuse_unfilled(callee)
            return list(routes_of(function, callee))
    return []  # what is not hosted is left out, where --partial says so


def _refuse_unfilled(callee: Callee) -> None:
    odd = unfilled(callee)
    if odd:
        raise RegistrationError(f"{'; '.join(odd)} ({callee.described.place})")


def _orchestrator(function: AppFunction, names: Names) -> Orchestrator:
    found = sdk.orchestrator_of(function.function)
    run = bridged(function.function, names) if found.is_handle else found.function
    return Orchestrator(called_name(function), run, None, _aliases(function))


def _activity(function: AppFunction, callee: Callee) -> Activity:
    return Activity(called_name(function), _activity_body(callee), None, _aliases(function))


def _activity_body(callee: Callee) -> Callable[..., Any]:
    """The activity as perdure calls it: JSON goes in and comes out through the SDK's converter."""

    def arguments(body: Raw, call: ActivityContext, client: Client | None, door: HubDoor | None) -> Any:
        given = sdk.activity_input(bytes(body).decode())
        number = f"{call.idempotency_key}:{call.attempt}"
        return callee.arguments(given, number, door=door, client=client, attempt=call.attempt)[0]

    def result(value: Any) -> Raw:
        return body_of(sdk.activity_output(value))

    return (
        _with_client(callee, arguments, result) if callee.wants_client else _plain(callee, arguments, result)
    )


def _plain(callee: Callee, arguments: Callable[..., Any], result: Callable[[Any], Raw]) -> Callable[..., Any]:
    async def on_loop(body: Raw, call: ActivityContext) -> Raw:
        return result(await callee.function(**arguments(body, call, None, None)))

    def on_thread(body: Raw, call: ActivityContext) -> Raw:
        return result(callee.function(**arguments(body, call, None, None)))

    return _typed(on_loop if callee.is_async else on_thread, callee, body=Raw, call=ActivityContext)


def _with_client(
    callee: Callee, arguments: Callable[..., Any], result: Callable[[Any], Raw]
) -> Callable[..., Any]:
    async def on_loop(body: Raw, call: ActivityContext, client: Client, door: HubDoor) -> Raw:
        return result(await callee.call(arguments(body, call, client, door)))

    return _typed(on_loop, callee, body=Raw, call=ActivityContext, client=Client, door=HubDoor)


def _typed(wrapper: Any, callee: Callee, **annotations: type) -> Callable[..., Any]:
    """A wrapper with its annotations, which names the user's function wherever people read of it."""
    wrapper.__annotations__ = {**annotations, "return": Raw}
    wrapper.__name__, wrapper.__doc__ = callee.described.name, callee.function.__doc__
    standing_for(wrapper, callee.function)
    return wrapper  # type: ignore[no-any-return]


class OperationFailed(Exception):
    """An operation of an entity has raised; the text is that of its exception."""


def _entity(function: AppFunction) -> Entity:
    found = sdk.entity_of(function.function)
    run = found.function
    if found.is_handle:
        run = functools.partial(_operate, function.function)
        run = _as_function(run, found.function)
    return Entity(called_name(function).lower(), run)


def _as_function(operate: Callable[[EntityContext], Any], own: Any) -> Callable[..., Any]:
    def run(context: EntityContext) -> Any:
        return operate(context)

    run.__annotations__ = {"context": EntityContext}
    run.__name__, run.__doc__ = own_name(own), own.__doc__
    standing_for(run, own)
    return run


def _operate(handle: Any, context: EntityContext) -> None:
    """One operation through the handle's JSON, which is the SDK's public contract."""
    before: Raw | None = context.get_state(None, expected_type=Raw)
    text = None if before is None else bytes(before).decode()
    name, key = context.entity_name, context.entity_key
    document = {
        "self": {"name": name, "key": key},
        "exists": before is not None,
        "state": text,
        "batch": [
            {"name": context.operation_name, "input": json.dumps(bytes(context.get_input(Raw)).decode())}
        ],
    }
    after = sdk.operated(handle, document)
    (outcome,) = after["results"]
    if outcome["isError"]:
        raise OperationFailed(json.loads(outcome["result"]))
    if not after["entityExists"]:
        context.destruct_on_exit()
    elif after["entityState"] != text:
        context.set_state(body_of(after["entityState"]))
    context.set_result(body_of(outcome["result"]))


__all__ = ["HostedApp", "load"]
