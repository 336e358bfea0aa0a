"""An Azure app as a `perdure.App`: only its functions come from elsewhere."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from perdure.app import App
from perdure.engine.functions.callables import own_name
from perdure.engine.functions.registry import Activity, Definition, Entity, Orchestrator, Route
from perdure.errors import HostedAppError, PerdureError, RegistrationError
from perdure.hosts.azure_functions import sdk, self_check
from perdure.hosts.azure_functions.activities import activity_body
from perdure.hosts.azure_functions.asking import Names, output_of_failure
from perdure.hosts.azure_functions.bridge import bridged
from perdure.hosts.azure_functions.entities import entity_body
from perdure.hosts.azure_functions.folder import Folder, export_settings, read_folder, refusal
from perdure.hosts.azure_functions.histories import reads_histories
from perdure.hosts.azure_functions.host_settings import HostSettings, read_settings
from perdure.hosts.azure_functions.http_routes import precedence, routes_of, without_covered
from perdure.hosts.azure_functions.in_process import HubDoor, install
from perdure.hosts.azure_functions.indexing import AppFunction, functions_in
from perdure.hosts.azure_functions.invoking import Callee, unfilled
from perdure.hosts.azure_functions.protocol import MOST_EVENTS, by_protocol
from perdure.hosts.azure_functions.queues import queue_of
from perdure.hosts.azure_functions.timers import schedule_of

_CALLED: Final = {
    "orchestrationtrigger": "orchestration",
    "activitytrigger": "activity",
    "entitytrigger": "entityName",
}
"""The property of a trigger that names what others call."""

Aliases = Mapping[tuple[str, str], tuple[str, ...]]
"""The other names of each function, by the kind of its trigger and its name."""


@dataclass(frozen=True)
class HostedApp:
    """An app that has been loaded: what is served, and what is left out."""

    app: App
    folder: Folder
    settings: HostSettings
    told: tuple[str, ...] = ()


def load(
    path: str | Path,
    *,
    partial: bool = False,
    links: Literal["full", "status"] = "full",
    events: Literal["text", "data"] = "text",
    queues: Literal["hub", "storage"] = "hub",
    enter: bool = False,
    serve: bool = False,
) -> HostedApp:
    """Load the app in a folder. Raises HostedAppError with every fault that was found.

    Parameters:
        partial: serve the rest where triggers or bindings are not hosted.
        links: which links to an instance the app's functions hand out: all of them, or the status alone.
        events: what the data are of an event that the SDK's client raises: JSON text, as on Azure, or the data.
        queues: where queues are whose connection is the emulator or none: in the hub, or in the emulator.
        enter: change into the folder, where Azure's host runs an app.
        serve: a server will serve it; functions that begin before the server is ready wait for it.
    """
    folder = read_folder(Path(path).resolve())
    export_settings(folder)
    if enter:
        os.chdir(folder.path)  # the SDK is imported by now: it reads the host.json of where it is, strictly
    settings = read_settings(folder)
    functions, left_out = functions_in(folder, partial=partial)
    install()
    try:
        app = App(_hub_of(folder), settings=settings.engine, links="azure" if links == "full" else "caller")
    except RegistrationError as error:
        raise HostedAppError(f"{folder.path / 'host.json'}: the hubName names the hub: {error}") from error
    app.registry.events = events
    app.registry.output_of_failure = output_of_failure
    app.registry.origins, app.registry.replaces_running = settings.origins, settings.replaces_running
    app.registry.fails_on_nondeterminism = settings.fails_on_nondeterminism
    app.registry.route_prefix = _route_prefix(folder)
    app.registry.lifespans.append(Definition("azure", _door(awaits_links=serve)))
    finding = self_check.finding()
    aliases = _aliases(functions)
    names = _names(functions, aliases)
    _register(app, Registering(names, aliases, folder, queues, finding, settings.timeout), functions)
    told = (*left_out, *settings.told, *_told_of_fallback(functions, finding))
    return HostedApp(app, folder, settings, told)


def _route_prefix(folder: Folder) -> str:
    """What host.json says stands before the routes; it may be nothing."""
    said = folder.extension("http").get("routePrefix")
    prefix = "api" if said is None else str(said).strip("/")
    return f"/{prefix}" if prefix else ""


def _told_of_fallback(functions: list[AppFunction], finding: str) -> Iterator[str]:
    """What people are told of orchestrators that are driven by the JSON protocol."""
    limit = f"by the JSON protocol, which is slower, and ends at {MOST_EVENTS:,} events"
    if finding:
        yield f"{sdk.packages()} is not as expected ({finding}): orchestrators are driven {limit}"
        return
    orchestrators = [one for one in functions if one.trigger.kind == "orchestrationtrigger"]
    for reason in _BY_PROTOCOL:
        if named := [one.name for one in orchestrators if reason.applies(sdk.orchestrator_of(one.function))]:
            yield f"{', '.join(named)}: {reason.told}: the server drives {_THEM[len(named) > 1]} {limit}"


@dataclass(frozen=True)
class _Reason:
    """Why an orchestrator is driven by the JSON protocol though the SDK is as expected."""

    told: str
    applies: Callable[[sdk.UserFunction], bool]


_BY_PROTOCOL: Final = (
    _Reason("the handle hides the generator function", lambda found: found.is_hidden),
    _Reason(
        "the code reads context.histories",
        lambda found: found.is_handle and reads_histories(found.function),
    ),
)
_THEM: Final = ("it", "them")


def _door(*, awaits_links: bool) -> Callable[[], AsyncIterator[HubDoor]]:
    """While the app is served: the way of its client functions to its hub."""

    async def door() -> AsyncIterator[HubDoor]:
        opened = HubDoor(awaits_links=awaits_links)
        try:
            yield opened
        finally:
            opened.close()

    return door


def _hub_of(folder: Folder) -> str:
    asked = str(folder.extension("durableTask").get("hubName") or "default")
    try:
        return folder.resolved(asked)
    except KeyError as missing:
        raise HostedAppError(f"host.json: the hubName {asked!r} needs the setting {missing}") from None


def _register(app: App, registering: Registering, functions: list[AppFunction]) -> None:
    """Register every function. Raises HostedAppError with all that cannot be."""
    faults: list[str] = []
    shortened: list[Route] = []
    for function in functions:
        try:
            for definition in registering.definitions(function):
                if isinstance(definition, Route) and definition.is_shortened:
                    shortened.append(definition)
                else:
                    app.registry.add(definition)
        except KeyError as missing:
            faults.append(
                f"{function.name}: it needs the setting {missing}, which is not set ({function.place})"
            )
        except (ValueError, PerdureError) as error:
            faults.append(f"{function.name}: {error}")
    for route in shortened:
        left = without_covered(route, app.registry.routes)
        if left is not None:
            app.registry.add(left)
    app.registry.routes.sort(key=precedence)
    if faults:
        raise refusal(registering.folder, faults)


def _names(functions: list[AppFunction], aliases: Aliases) -> Names:
    return Names(
        _folded((one for one in functions if one.trigger.kind == "activitytrigger"), aliases),
        _folded((one for one in functions if one.trigger.kind == "orchestrationtrigger"), aliases),
    )


def called_name(function: AppFunction) -> str:
    """The name by which orchestrators and clients call a function."""
    named = function.trigger.get(_CALLED.get(function.trigger.kind, ""))
    return str(named or function.name)


def _aliases(functions: list[AppFunction]) -> Aliases:
    """The other names of each function.

    A call by a builder uses the name of the Python function, which is an alias if no other function has it too.
    """
    bearers = Counter(
        (one.trigger.kind, name)
        for one in functions
        for name in {given.casefold() for given in (called_name(one), one.name, *_python_name(one))}
    )

    def others(one: AppFunction) -> tuple[str, ...]:
        kind, called = one.trigger.kind, called_name(one).casefold()
        own = [name for name in _python_name(one) if bearers[kind, name.casefold()] == 1]
        return tuple(name for name in dict.fromkeys([one.name, *own]) if name.casefold() != called)

    return {(one.trigger.kind, one.name): others(one) for one in functions}


def _python_name(function: AppFunction) -> tuple[str, ...]:
    """The name that a call by a builder uses; the first model has no builders."""
    return (own_name(function.function),) if function.is_decorated else ()


def _folded(functions: Iterable[AppFunction], aliases: Aliases) -> dict[str, str]:
    return {
        name.casefold(): called_name(one)
        for one in functions
        for name in (*aliases[one.trigger.kind, one.name], called_name(one))
    }


@dataclass(frozen=True)
class Registering:
    """What a function is registered with.

    Parameters:
        names: the app's functions by folded name.
        aliases: the other names of each function.
        folder: where the app is.
        storage: where queues are whose connection is the emulator or none.
        finding: why the SDK is not as expected; then orchestrators are driven by the JSON protocol.
        timeout: microseconds that a function may take; 0 for no limit.
    """

    names: Names
    aliases: Aliases
    folder: Folder
    storage: str
    finding: str
    timeout: int

    def aliases_of(self, function: AppFunction) -> tuple[str, ...]:
        return self.aliases[function.trigger.kind, function.name]

    def definitions(self, function: AppFunction) -> Iterable[Definition]:
        """The definitions of a function; none of what is not hosted, which --partial leaves out.

        Raises RegistrationError, ValueError, and KeyError with the name of a setting that is not there.
        """
        define = _DEFINE.get(function.trigger.kind)
        callee = Callee.of(function, self.folder, self.storage, self.timeout)
        odd = unfilled(callee) if function.trigger.kind not in _HANDLES else []
        if odd:
            raise RegistrationError(f"{'; '.join(odd)} ({function.place})")
        return () if define is None else define(self, function, callee)


def _orchestrator(this: Registering, function: AppFunction, callee: Callee) -> Iterable[Definition]:
    found = sdk.orchestrator_of(function.function)
    run = found.function
    if (found.is_handle and this.finding) or any(reason.applies(found) for reason in _BY_PROTOCOL):
        run = by_protocol(function.function, this.names)
    elif found.is_handle:
        run = bridged(function.function, this.names)
    return [Orchestrator(called_name(function), run, None, this.aliases_of(function))]


def _activity(this: Registering, function: AppFunction, callee: Callee) -> Iterable[Definition]:
    return [
        Activity(
            called_name(function),
            activity_body(callee),
            None,
            this.aliases_of(function),
            timeout=this.timeout,
        )
    ]


def _entity(this: Registering, function: AppFunction, callee: Callee) -> Iterable[Definition]:
    return [Entity(called_name(function).lower(), entity_body(function.function), offload=True)]


def _http(this: Registering, function: AppFunction, callee: Callee) -> Iterable[Definition]:
    return list(routes_of(function, callee))


def _timer(this: Registering, function: AppFunction, callee: Callee) -> Iterable[Definition]:
    return [schedule_of(function, callee)]


def _queue(this: Registering, function: AppFunction, callee: Callee) -> Iterable[Definition]:
    return [queue_of(function, callee)]


_DEFINE: Final[Mapping[str, Callable[[Registering, AppFunction, Callee], Iterable[Definition]]]] = {
    "orchestrationtrigger": _orchestrator,
    "activitytrigger": _activity,
    "entitytrigger": _entity,
    "httptrigger": _http,
    "timertrigger": _timer,
    "queuetrigger": _queue,
}
_HANDLES: Final = frozenset({"orchestrationtrigger", "entitytrigger"})
"""Of these the SDK made the function, whose parameter has a name of its own."""


__all__ = ["HostedApp", "load"]
