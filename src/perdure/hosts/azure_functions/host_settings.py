"""What host.json and the app's settings say of how an app is run, as settings of perdure's."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, get_args

from perdure.engine.engine import Settings
from perdure.engine.functions.versions import FailureStrategy, MatchStrategy
from perdure.errors import HostedAppError
from perdure.hosts.azure_functions.folder import Folder
from perdure.hosts.azure_functions.retrying import time_span
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
        "extensions.http",
        "extensions.http.routeprefix",
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
    "extensions.durabletask.maxconcurrententityfunctions": "entities run on one thread",
    "extensions.durabletask.partitioncount": "the hub has its own partitions",
    "extensions.durabletask.tracing": "perdure's log has it",
    "logging.applicationinsights": "nothing is sent to Application Insights",
    "extensions.queues.newbatchthreshold": "batchSize alone says how many messages are handled at a time",
    "extensions.queues.maxpollinginterval": "queues of the hub are not polled",
    "watchdirectories": "--reload watches the whole folder",
    "watchfiles": "--reload watches the whole folder",
    "concurrency": "the settings threads and tasks say it",
    "healthmonitor": "/healthz and /readyz tell",
}
"""Keys that are accepted and change nothing, and why."""
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
    """

    engine: Settings
    timeout: int
    log_level: int
    told: tuple[str, ...]


def read_settings(folder: Folder) -> HostSettings:
    """Read host.json and the app settings. Raises HostedAppError for a value that cannot be meant."""
    try:
        return HostSettings(_engine(folder), _timeout(folder), _log_level(folder), tuple(_told(folder.host)))
    except (ValueError, TypeError) as error:
        raise HostedAppError(f"{folder.path / 'host.json'}: {error}") from error


def _engine(folder: Folder) -> Settings:
    said, settings = folder.extension("durableTask"), Settings()
    most = said.get("maxConcurrentActivityFunctions")
    threads = folder.setting("PYTHON_THREADPOOL_THREAD_COUNT") or most
    concurrency = replace(
        settings.concurrency,
        threads=int(threads or settings.concurrency.threads),
        tasks=int(most or settings.concurrency.tasks),
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
    levels = (folder.host.get("logging") or {}).get("logLevel") or {}
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
