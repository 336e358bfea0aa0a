"""Every setting in one table, whatever way it is given: argument = `PERDURE_*` = flag.

What is given nearest to the act wins: a flag or an argument, then the environment, then what the application says
of itself (`App(settings=...)`), then the default. The rows are declared on the fields that hold them (`PlaceSettings`
and `ServerSettings` here, the engine's in the engine); everything that speaks of settings is made from `TABLE`, so
that nothing can be forgotten.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal, TypedDict

from perdure.engine.engine import Settings as EngineSettings
from perdure.engine.functions.versions import FailureStrategy, MatchStrategy
from perdure.engine.upkeep.retention import Retention
from perdure.errors import SettingError
from perdure.model.settings import (
    COUNT,
    NAMES,
    NETWORKS,
    PORT,
    SECONDS,
    SECRET,
    SWITCH,
    TEXT,
    Setting,
    Unit,
    one_of,
    setting,
    settings_of,
)
from perdure.store.encryption import Encryption

PREFIX = "PERDURE_"
KEYS = Unit("keys such as k2:BASE64,k1:BASE64, the current one first", "Encryption", Encryption.read)


@dataclass(frozen=True)
class PlaceSettings:
    """Where the state is."""

    store: str = setting(
        "sqlite:///perdure.db",
        "where the state is kept: sqlite:///file.db, postgresql://user@host/database, or memory:",
        TEXT,
        secret=True,
    )
    hub: str | None = setting(None, "the hub within the store; by default the application's name", TEXT)
    encryption_keys: Encryption | None = setting(  # noqa: RUF009 (a frozen value)
        None, "what payloads are encrypted with at rest; by default they are not", KEYS, secret=True
    )
    file_access: str = setting(
        "narrow",
        "what happens to a SQLite file that other users may read: its mode becomes 0600, or it is not opened",
        one_of("narrow", "refuse"),
    )


@dataclass(frozen=True)
class ServerSettings:
    """Where the server listens."""

    host: str = setting("127.0.0.1", "the address to listen on", TEXT)
    port: int = setting(7071, "the port to listen on; 0 picks a free one", PORT)
    allowed_hosts: Sequence[str] = setting(
        (), "names besides localhost by which the server may be addressed", NAMES
    )
    trusted_proxies: Sequence[str] = setting(
        (), "proxies whose X-Forwarded-For, -Proto and -Host are believed", NETWORKS
    )
    public_url: str = setting(
        "", "the address by which others reach the server; links begin with it, also in mails", TEXT
    )
    access: str = setting(
        "keys", "whether callers are asked for a key, or everybody is let in", one_of("keys", "open")
    )
    token: str | None = setting(
        None, "what opens everything to this machine; by default made up at each start", SECRET, secret=True
    )
    admin_key: str | None = setting(
        None, "a key that opens everything, beside those of the hub", SECRET, secret=True
    )
    rate_limit: int = setting(
        2_000, "requests a second that one caller may send; 0 is no limit", COUNT, least=0
    )
    workers: int = setting(
        0,
        "how many supervised processes serve the hub, in PostgreSQL; 0 is this one process, alone",
        COUNT,
        least=0,
    )
    store_wait: float = setting(
        60.0,
        "how long `perdure run` waits at its start for a database that does not answer",
        SECONDS,
        least=0,
    )


@dataclass(frozen=True)
class HostedSettings:
    """How an app that was written for Azure Functions is served; other applications have no use for these."""

    azure_events: str = setting(
        "text",
        "what an Azure app gets of an event that the SDK's client raises: JSON text, as on Azure, or the data",
        one_of("text", "data"),
    )
    azure_links: str = setting(
        "full",
        "the links to an instance that an Azure app's functions hand out: all, as on Azure, or the status alone",
        one_of("full", "status"),
    )
    azure_queues: str = setting(
        "hub",
        "where the queues of an Azure app are whose connection is the emulator or none: in the hub, or the emulator",
        one_of("hub", "storage"),
    )
    partial: bool = setting(
        False, "whether an Azure app is served without the triggers and bindings that are not hosted", SWITCH
    )


PLACE = tuple(settings_of(PlaceSettings))
ENGINE = tuple(settings_of(EngineSettings))
SERVING = tuple(settings_of(ServerSettings))
HOSTED = tuple(settings_of(HostedSettings))
TABLE: tuple[Setting, ...] = (*PLACE, *SERVING, *ENGINE, *HOSTED)
MADE_UP = "PERDURE_TOKEN_MADE_UP"
"""Tells a child of `perdure run` that its start-up token was made up, so that people have to be shown it."""
OTHER_VARIABLES = frozenset({"PERDURE_URL", "PERDURE_KEY", "PERDURE_DEBUG", MADE_UP})
"""Variables of the client's commands; they configure no engine."""


class ServingOverrides(TypedDict, total=False):
    """The settings of an application that somebody else serves, as keyword arguments of `app.asgi()`."""

    allowed_hosts: Sequence[str] | None
    trusted_proxies: Sequence[str] | None
    public_url: str | None
    access: Literal["keys", "open"] | None
    token: str | None
    admin_key: str | None
    rate_limit: int | None


class EngineOverrides(TypedDict, total=False):
    """The engine's settings as keyword arguments of `app.running()` and `app.asgi()`."""

    batch_episodes: int
    batch_feeds: int
    batch_seconds: float | timedelta
    batch_bytes: int
    inline_bytes: int
    buffered_events: int
    warm_bytes: int
    keep_executions: int
    threads: int
    tasks: int
    abandoned_threads: int
    queued_requests: int
    drain: float | timedelta | None
    retention: Retention | float | timedelta | str | None
    accept_only: bool
    default_version: str
    version_match_strategy: MatchStrategy
    version_failure_strategy: FailureStrategy
    pool: Sequence[str]
    lease: float | timedelta
    worker_name: str | None
    role: Literal["all", "api", "worker"]
    watchdog: bool
    interrupt_after: float | timedelta


class HostOverrides(EngineOverrides, ServingOverrides, total=False):
    """What `app.asgi()` takes besides the store and the hub."""

    encryption_keys: Encryption | str | None
    file_access: Literal["narrow", "refuse"] | None


@dataclass(frozen=True)
class Chosen:
    """The value of a setting, and where it comes from: flag, argument, environment, application or default."""

    setting: Setting
    value: Any
    source: str

    @property
    def shown(self) -> str:
        """The value for people; passwords are masked."""
        return self.setting.show(self.value)


def choose(
    rows: Sequence[Setting],
    given: Mapping[str, Any],
    *,
    coded: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    source: str = "argument",
) -> dict[str, Chosen]:
    """Decide each setting of `rows`.

    Parameters:
        given: what the call or the command line gives, by name; None is nothing given.
        coded: what `App(settings=...)` says; read already.
        environment: default the process's own.
        source: what `given` is called: argument or flag.

    Raises: SettingError for a value that cannot be meant, and for a name that is no setting.
    """
    unknown = set(given) - {row.name for row in rows}
    if unknown:
        raise SettingError(_unknown(min(unknown), rows))
    variables = os.environ if environment is None else environment
    return {row.name: _choose(row, given.get(row.name), coded or {}, variables, source) for row in rows}


def _choose(
    row: Setting, given: Any, coded: Mapping[str, Any], variables: Mapping[str, str], source: str
) -> Chosen:
    if given is not None:
        place = row.flag if source == "flag" else f"{row.name}="
        return Chosen(row, row.read(given, place), source)
    found = variables.get(row.variable, "")
    if found.strip():
        return Chosen(row, row.read(found, row.variable), "environment")
    if row.name in coded:
        return Chosen(row, coded[row.name], "application")
    return Chosen(row, row.default, "default")


def encryption_given(
    given: Encryption | str | None = None, coded: Encryption | None = None
) -> Encryption | None:
    """The keys that an argument gives, else PERDURE_ENCRYPTION_KEYS, else the application. Raises SettingError."""
    rows = [row for row in PLACE if row.name == "encryption_keys"]
    said = {"encryption_keys": coded} if coded is not None else {}
    found: Encryption | None = choose(rows, {"encryption_keys": given}, coded=said)["encryption_keys"].value
    return found


def refuses_open_files(given: str | None = None) -> bool:
    """Whether a file that other users may read is not opened: as an argument says, else PERDURE_FILE_ACCESS."""
    rows = [row for row in PLACE if row.name == "file_access"]
    return bool(choose(rows, {"file_access": given})["file_access"].value == "refuse")


def coded_in(settings: EngineSettings) -> dict[str, Any]:
    """What an application's own settings say otherwise than the defaults."""
    found = {}
    for row in ENGINE:
        holder = getattr(settings, row.group) if row.group else settings
        value = getattr(holder, row.field)
        if value != row.default:
            found[row.name] = value
    return found


def engine_settings(settings: EngineSettings, chosen: Mapping[str, Chosen]) -> EngineSettings:
    """The application's settings with what was chosen in their places."""
    changes: dict[str, dict[str, Any]] = {}
    for row in ENGINE:
        changes.setdefault(row.group, {})[row.field] = chosen[row.name].value
    own = changes.pop("", {})
    nested = {group: replace(getattr(settings, group), **values) for group, values in changes.items()}
    return replace(settings, **own, **nested)


def strangers(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables that begin with PERDURE_ and are no setting, with the setting that was probably meant."""
    known = {row.variable for row in TABLE}
    found = os.environ if environment is None else environment
    names = [name for name in found if name.startswith(PREFIX) and name not in known | OTHER_VARIABLES]
    return {name: (difflib.get_close_matches(name, known, 1) or [""])[0] for name in sorted(names)}


def markdown() -> str:
    """The table as the documentation shows it."""
    lines = ["| setting | flag | variable | value | default | what it is |", "|---|---|---|---|---|---|"]
    for row in TABLE:
        default = row.show(row.default) or "none"
        lines.append(
            f"| `{row.name}` | `{row.flag}` | `{row.variable}` | {row.unit.name} | {default} | {row.doc} |"
        )
    return "\n".join(lines) + "\n"


def _unknown(name: str, rows: Sequence[Setting]) -> str:
    close = difflib.get_close_matches(name, [row.name for row in rows], 1)
    return f"{name!r} is no setting" + (f": {close[0]!r} is" if close else "; `perdure settings` lists them")
