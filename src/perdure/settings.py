"""All settings in one table. Each is an argument, a variable `PERDURE_*` and a flag.

A flag or an argument overrides the environment, the environment overrides the application (`App(settings=...)`), and
the application overrides the default. The rows are declared on the fields of dataclasses (`PlaceSettings` and
`ServerSettings` here, the engine's in the engine). Flags, documentation and checks are all made from `TABLE`, so that
none can miss a setting.
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
from perdure.model.instances import MOST_PARTITIONS, PARTITIONS
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
    """The store and the hub."""

    store: str = setting(
        "sqlite:///perdure.db",
        "the store: sqlite:///file.db, postgresql://user@host/database, azure:, or memory:",
        TEXT,
        secret=True,
    )
    hub: str | None = setting(None, "the hub in the store; by default the application's name", TEXT)
    encryption_keys: Encryption | None = setting(  # noqa: RUF009 (a frozen value)
        None,
        "the keys that encrypt payloads at rest; without keys, payloads are not encrypted",
        KEYS,
        secret=True,
    )
    file_access: str = setting(
        "narrow",
        "what to do with a SQLite file that other users can read: change its mode to 0600, or refuse to open it",
        one_of("narrow", "refuse"),
    )
    partitions: int = setting(
        PARTITIONS,
        "the partitions of a new hub in PostgreSQL, so many workers can share it; an existing hub keeps its number",
        COUNT,
        least=1,
        most=MOST_PARTITIONS,
    )
    replica_dir: str | None = setting(
        None,
        "the folder for the replica of a hub in Azure Storage; by default in the user's cache directory",
        TEXT,
    )
    standby: bool = setting(
        False, "whether to wait for as long as another engine holds the hub in Azure Storage", SWITCH
    )
    keep_log: float = setting(
        0.0, "how long a hub in Azure Storage can be restored to any moment", SECONDS, least=0
    )


@dataclass(frozen=True)
class ServerSettings:
    """The settings of the server."""

    host: str = setting("127.0.0.1", "the address to listen on", TEXT)
    port: int = setting(7071, "the port to listen on; 0 picks a free one", PORT)
    allowed_hosts: Sequence[str] = setting(
        (), "host names besides localhost that requests can have; others are rejected", NAMES
    )
    trusted_proxies: Sequence[str] = setting(
        (), "proxies whose X-Forwarded-For, -Proto and -Host headers are trusted", NETWORKS
    )
    public_url: str = setting("", "the public address of the server, for links", TEXT)
    access: str = setting(
        "keys", "whether callers need a key, or every caller is let in", one_of("keys", "open")
    )
    token: str | None = setting(
        None,
        "the full-access token for requests from this machine; by default generated at each start",
        SECRET,
        secret=True,
    )
    admin_key: str | None = setting(
        None, "a full-access key, in addition to the keys of the hub", SECRET, secret=True
    )
    rate_limit: int = setting(
        2_000, "the most requests per second of one caller; 0 means no limit", COUNT, least=0
    )
    trust_traceparent: str = setting(
        "keys",
        "whose trace a request continues: of callers with a key, of all callers, or of none; others get a link",
        one_of("keys", "all", "none"),
    )
    workers: int = setting(
        0,
        "the number of supervised processes that serve a hub in PostgreSQL; 0 means this process only",
        COUNT,
        least=0,
    )
    store_wait: float = setting(
        60.0,
        "how long `perdure run` waits at start-up for a database that does not answer",
        SECONDS,
        least=0,
    )


@dataclass(frozen=True)
class HostedSettings:
    """The settings of an Azure Functions app. They have no effect on other applications."""

    azure_events: str = setting(
        "text",
        "the data of an event from the SDK's client in an Azure app: JSON text, as on Azure, or the value",
        one_of("text", "data"),
    )
    azure_links: str = setting(
        "full",
        "the links in the responses of an Azure app: all links, as on Azure, or the status link only",
        one_of("full", "status"),
    )
    azure_queues: str = setting(
        "hub",
        "where to keep an Azure app's queues that use the storage emulator or no connection: hub or emulator",
        one_of("hub", "storage"),
    )
    partial: bool = setting(
        False, "serve an Azure app even if some of its triggers and bindings are not supported", SWITCH
    )


PLACE = tuple(settings_of(PlaceSettings))
ENGINE = tuple(settings_of(EngineSettings))
SERVING = tuple(settings_of(ServerSettings))
HOSTED = tuple(settings_of(HostedSettings))
TABLE: tuple[Setting, ...] = (*PLACE, *SERVING, *ENGINE, *HOSTED)
MADE_UP = "PERDURE_TOKEN_MADE_UP"
"""Marks a generated start-up token for a child of `perdure run`, which then shows it to people."""
OTHER_VARIABLES = frozenset({"PERDURE_URL", "PERDURE_KEY", "PERDURE_DEBUG", MADE_UP})
"""Variables of the commands. They are not settings of an engine."""


class ServingOverrides(TypedDict, total=False):
    """The server's settings as keyword arguments of `app.asgi()`."""

    allowed_hosts: Sequence[str] | None
    trusted_proxies: Sequence[str] | None
    public_url: str | None
    access: Literal["keys", "open"] | None
    token: str | None
    admin_key: str | None
    rate_limit: int | None
    trust_traceparent: Literal["keys", "all", "none"] | None


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
    tracking: bool
    tracking_replays: bool
    telemetry: Literal["auto", "off", "on", "otlp", "azure-monitor"]
    telemetry_messages: bool
    watchdog: bool
    interrupt_after: float | timedelta


class HostOverrides(EngineOverrides, ServingOverrides, total=False):
    """The keyword arguments of `app.asgi()` besides the store and the hub."""

    encryption_keys: Encryption | str | None
    file_access: Literal["narrow", "refuse"] | None
    partitions: int | None
    replica_dir: str | None
    standby: bool | None
    keep_log: float | str | None


@dataclass(frozen=True)
class Chosen:
    """The value of a setting and its source: flag, argument, environment, application or default."""

    setting: Setting
    value: Any
    source: str

    @property
    def shown(self) -> str:
        """The value for people, with passwords masked."""
        return self.setting.show(self.value)


def choose(
    rows: Sequence[Setting],
    given: Mapping[str, Any],
    *,
    coded: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    source: str = "argument",
) -> dict[str, Chosen]:
    """Resolve each setting of `rows`.

    Parameters:
        rows: the settings.
        given: the values from the call or the command line, by name. None means not given.
        coded: the parsed values from `App(settings=...)`.
        environment: the environment variables. Default: the process's own.
        source: the name of the source of `given`: argument or flag.

    Raises: SettingError for an invalid value, and for a name that is not a setting.
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
    """The keys from the argument, else PERDURE_ENCRYPTION_KEYS, else the application. Raises SettingError."""
    rows = [row for row in PLACE if row.name == "encryption_keys"]
    said = {"encryption_keys": coded} if coded is not None else {}
    found: Encryption | None = choose(rows, {"encryption_keys": given}, coded=said)["encryption_keys"].value
    return found


def refuses_open_files(given: str | None = None) -> bool:
    """Whether to refuse a file that other users can read, from the argument or else PERDURE_FILE_ACCESS."""
    rows = [row for row in PLACE if row.name == "file_access"]
    return bool(choose(rows, {"file_access": given})["file_access"].value == "refuse")


def partitions_given() -> int:
    """The number of partitions of a hub that a command creates, from PERDURE_PARTITIONS."""
    rows = [row for row in PLACE if row.name == "partitions"]
    return int(choose(rows, {})["partitions"].value)


def tells_messages() -> bool:
    """Whether spans contain the messages of errors, from PERDURE_TELEMETRY_MESSAGES."""
    rows = [row for row in ENGINE if row.name == "telemetry_messages"]
    return bool(choose(rows, {})["telemetry_messages"].value)


def coded_in(settings: EngineSettings) -> dict[str, Any]:
    """The settings of an application that differ from the defaults."""
    found = {}
    for row in ENGINE:
        holder = getattr(settings, row.group) if row.group else settings
        value = getattr(holder, row.field)
        if value != row.default:
            found[row.name] = value
    return found


def engine_settings(settings: EngineSettings, chosen: Mapping[str, Chosen]) -> EngineSettings:
    """The application's settings, replaced by the chosen values."""
    changes: dict[str, dict[str, Any]] = {}
    for row in ENGINE:
        changes.setdefault(row.group, {})[row.field] = chosen[row.name].value
    own = changes.pop("", {})
    nested = {group: replace(getattr(settings, group), **values) for group, values in changes.items()}
    return replace(settings, **own, **nested)


def strangers(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables that begin with PERDURE_ but are not settings, each with a similar setting, or ""."""
    known = {row.variable for row in TABLE}
    found = os.environ if environment is None else environment
    names = [name for name in found if name.startswith(PREFIX) and name not in known | OTHER_VARIABLES]
    return {name: (difflib.get_close_matches(name, known, 1) or [""])[0] for name in sorted(names)}


def markdown() -> str:
    """The table of settings for the documentation."""
    lines = ["| setting | flag | variable | value | default | what it is |", "|---|---|---|---|---|---|"]
    for row in TABLE:
        default = row.show(row.default) or "none"
        lines.append(
            f"| `{row.name}` | `{row.flag}` | `{row.variable}` | {row.unit.name} | {default} | {row.doc} |"
        )
    return "\n".join(lines) + "\n"


def _unknown(name: str, rows: Sequence[Setting]) -> str:
    close = difflib.get_close_matches(name, [row.name for row in rows], 1)
    return f"{name!r} is not a setting. " + (
        f"Did you mean {close[0]!r}?" if close else "`perdure settings` lists all settings"
    )
