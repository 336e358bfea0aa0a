"""What host.json and the app's settings say of how an app is run, as settings of perdure's."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, get_args

from perdure.engine.engine import Settings
from perdure.engine.functions.registry import Origins
from perdure.engine.functions.versions import FailureStrategy, MatchStrategy
from perdure.errors import HostedAppError
from perdure.hosts.azure_functions.folder import LOCAL_FILE, Folder, counted
from perdure.hosts.azure_functions.retrying import time_span
from perdure.http.cross_origin import ANY
from perdure.model.durations import micros

HEARD: Final = frozenset(
    {
        "version",
        "extensionbundle",
        "extensions",
        "functions",
        "functiontimeout",
        "logging",
        "extensions.durabletask",
        "extensions.durabletask.hubname",
        "extensions.durabletask.maxconcurrentactivityfunctions",
        "extensions.durabletask.defaultversion",
        "extensions.durabletask.versionmatchstrategy",
        "extensions.durabletask.versionfailurestrategy",
        "extensions.durabletask.overridableexistinginstancestates",
        "extensions.durabletask.onnondeterminism",
        "extensions.http",
        "extensions.http.routeprefix",
        "extensions.http.customheaders",
        "extensions.queues",
        "extensions.queues.maxdequeuecount",
        "extensions.queues.visibilitytimeout",
        "extensions.queues.batchsize",
        "logging.loglevel",
    }
)
"""The keys of host.json that count here, in lower case."""
MEANINGLESS: Final[Mapping[str, str]] = {
    "extensions.durabletask.storageprovider": "the store is --store",
    "extensions.durabletask.extendedsessionsenabled": "instances stay warm anyway",
    "extensions.durabletask.extendedsessionidletimeoutinseconds": "instances stay warm anyway",
    "extensions.durabletask.maxconcurrentorchestratorfunctions": "orchestrators run on one thread",
    "extensions.durabletask.maxconcurrententityfunctions": "operations of entities count as activities",
    "extensions.durabletask.partitioncount": "the hub has its own partitions",
    "extensions.durabletask.tracing": "perdure's log has it",
    "extensions.durabletask.notifications": "the pages and perdure watch show what happens to instances",
    "extensions.durabletask.httpsettings": "call_http polls as the response asks; --trusted-proxies names proxies",
    "extensions.durabletask.maxorchestrationactions": "an orchestrator may schedule any number",
    "extensions.durabletask.maxentityoperationbatchsize": "an entity runs its operations one at a time",
    "extensions.durabletask.entitymessagereorderwindowinminutes": "signals of one sender keep their order",
    "extensions.durabletask.rollbackentityoperationsonexceptions": "an operation that raises leaves the state",
    "extensions.durabletask.storeinputsinorchestrationhistory": "the history has the inputs",
    "extensions.durabletask.throwstatusexceptionsonraiseevent": "an event for a finished instance is an error",
    "extensions.durabletask.usegracefulshutdown": "the setting drain says how long a stop waits for activities",
    "extensions.durabletask.useapplease": "every worker serves the hub",
    "extensions.durabletask.appleaseoptions": "every worker serves the hub",
    "extensions.durabletask.localrpcendpointenabled": "client functions speak to the hub without a socket",
    "extensions.durabletask.maxgrpcmessagesizeinbytes": "there is no gRPC between the app and the engine",
    "extensions.durabletask.grpchttpclienttimeout": "there is no gRPC between the app and the engine",
    "extensions.http.maxconcurrentrequests": "the settings threads and rate_limit limit the load",
    "extensions.http.maxoutstandingrequests": "the settings threads and rate_limit limit the load",
    "extensions.http.dynamicthrottlesenabled": "the settings threads and rate_limit limit the load",
    "extensions.http.hsts": "the proxy that ends TLS sets it",
    "extensions.queues.messageencoding": "text is read with and without base64, and sent with it",
    "logging.console": "perdure's own settings say where the log goes",
    "logging.fileloggingmode": "perdure's own settings say where the log goes",
    "manageddependency": "it is for PowerShell",
    "retry": "a function has its own policy, by @app.retry or in its function.json",
    "singleton": "the store says which worker runs what",
    "telemetrymode": "nothing is sent to Application Insights",
    "aggregator": "nothing is sent to Application Insights",
    "sendcanceledinvocationstoworker": "a function that has begun runs to its end",
    "logging.applicationinsights": "nothing is sent to Application Insights",
    "extensions.queues.newbatchthreshold": "batchSize alone says how many messages are handled at a time",
    "extensions.queues.maxpollinginterval": "queues of the hub are not polled",
    "watchdirectories": "--reload watches the whole folder",
    "watchfiles": "--reload watches the whole folder",
    "concurrency": "the settings threads and tasks say it",
    "healthmonitor": "/healthz and /readyz tell",
}
"""Keys that are accepted and change nothing, and why."""
REFUSED: Final[Mapping[str, str]] = {
    "customhandler": "the app's functions are run by a program of another language, which perdure does not start",
}
"""Keys of apps that cannot be served, and why."""
STATES: Final = ("NonRunningStates", "AnyState")
_ORIGIN: Final = re.compile(r"https?://[^/?#\s,]+")
_LEVELS: Final = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "information": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
    "none": logging.CRITICAL + 1,
}


@dataclass(frozen=True)
class HostSettings:
    """How an app is to be run.

    Parameters:
        engine: settings of the engine.
        timeout: microseconds that a function may take; 0 for no limit.
        log_level: from which level on the app's own log lines are shown.
        told: a line for each key that means nothing here.
        origins: the origins whose pages can call the app.
        replaces_running: a start takes the id of an instance that has not finished.
        fails_on_nondeterminism: an instance fails when its code does not match its history, instead of being parked.
    """

    engine: Settings
    timeout: int
    log_level: int
    told: tuple[str, ...]
    origins: Origins = field(default_factory=Origins)
    replaces_running: bool = False
    fails_on_nondeterminism: bool = False


def read_settings(folder: Folder) -> HostSettings:
    """Read host.json and the app settings. Raises HostedAppError for a value that cannot be meant."""
    try:
        _refuse(folder.host)
        changed = _one_of(folder.extension("durableTask"), "onNondeterminism", "park", ("park", "fail"))
        origins = _origins(folder)
        existing = _one_of(folder.extension("durableTask"), "overridableExistingInstanceStates", "", STATES)
        return HostSettings(
            _engine(folder),
            _timeout(folder),
            _log_level(folder),
            (*_told(folder.host), *_told_of_origins(origins)),
            origins,
            existing == "AnyState",
            changed == "fail",
        )
    except (ValueError, TypeError) as error:
        raise HostedAppError(f"{folder.path / 'host.json'}: {error}") from error


def _refuse(host: Mapping[str, Any]) -> None:
    for key, value in host.items():
        if key.casefold() in REFUSED and value:
            raise ValueError(f"{key}: {REFUSED[key.casefold()]}")


def _origins(folder: Folder) -> Origins:
    """What local.settings.json says of pages of other origins. Raises HostedAppError."""
    said = folder.local.get("CORS") or ""
    listed = said if isinstance(said, list) else str(said).split(",")
    named = frozenset(str(one).strip().rstrip("/").lower() for one in listed if str(one).strip())
    with_credentials = str(folder.local.get("CORSCredentials") or "").casefold() == "true"
    wrong = sorted(one for one in named if one != ANY and not _ORIGIN.fullmatch(one))
    place = folder.path / LOCAL_FILE
    if wrong:
        raise HostedAppError(
            f"{place}: CORS names {', '.join(map(repr, wrong))}: an origin is https://host or http://host:port, "
            "or * for every origin"
        )
    if ANY in named and with_credentials:
        raise HostedAppError(
            f"{place}: CORSCredentials needs origins by their names: browsers send no credentials to a server "
            "that allows every origin"
        )
    return Origins(named, with_credentials)


def _told_of_origins(origins: Origins) -> Iterator[str]:
    if ANY in origins.named:
        yield (
            f"{LOCAL_FILE}: Host.CORS is {ANY}: any page in a browser on this machine can call the app's routes "
            "and, with a key, the management API. Name the origins of your pages instead"
        )


def _engine(folder: Folder) -> Settings:
    said, settings = folder.extension("durableTask"), Settings()
    usual = settings.concurrency
    most = folder.count("durableTask", "maxConcurrentActivityFunctions", 0)
    count = "PYTHON_THREADPOOL_THREAD_COUNT"
    concurrency = replace(
        settings.concurrency,
        threads=counted(folder.setting(count), count, most or usual.threads),
        tasks=most or usual.tasks,
    )
    versioning = replace(
        settings.versioning,
        default=str(said.get("defaultVersion") or ""),
        match=_one_of(said, "versionMatchStrategy", settings.versioning.match, get_args(MatchStrategy)),
        failure=_one_of(
            said, "versionFailureStrategy", settings.versioning.failure, get_args(FailureStrategy)
        ),
    )
    return replace(settings, concurrency=concurrency, versioning=versioning)


def _one_of(said: Mapping[str, Any], name: str, default: Any, known: tuple[str, ...]) -> Any:
    given = said.get(name)
    if given is None:
        return default
    found = next((one for one in known if one.casefold() == str(given).casefold()), None)
    if found is None:
        raise ValueError(f"{name} is one of {', '.join(known)}, not {given!r}")
    return found


def _timeout(folder: Folder) -> int:
    said = folder.host.get("functionTimeout")
    if said is None or str(said).strip() == "-1":
        return 0
    return micros(time_span(said))


def _log_level(folder: Folder) -> int:
    logs = folder.host.get("logging")
    levels = logs.get("logLevel") if isinstance(logs, Mapping) else None
    if not isinstance(levels, Mapping):
        return logging.INFO
    said = levels.get("Function.User") or levels.get("Function") or levels.get("default") or "Information"
    return _LEVELS.get(str(said).casefold(), logging.INFO)


def _told(host: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """A line for each key that changes nothing; of one that is unknown its members are not told."""
    for key, value in host.items():
        path = f"{above}{key}"
        folded = path.casefold()
        if folded in MEANINGLESS:
            yield f"host.json: {path} means nothing here: {MEANINGLESS[folded]}"
        elif folded not in HEARD:
            yield f"host.json: {path} is not known here, and changes nothing"
        elif isinstance(value, Mapping) and folded in ("extensions", "logging", *_EXTENSIONS):
            yield from _told(value, f"{path}.")


_EXTENSIONS: Final = tuple(one for one in HEARD if one.startswith("extensions.") and one.count(".") == 1)


__all__ = ["HostSettings", "read_settings"]
