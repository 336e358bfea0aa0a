"""What stands in an app's folder beside its code: host.json, local.settings.json, and the settings of the app."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from perdure.errors import HostedAppError

HOST_FILE: Final = "host.json"
LOCAL_FILE: Final = "local.settings.json"
OVERRIDE: Final = "azurefunctionsjobhost"
"""What a setting begins with, in any case, that overrides a key of host.json."""
_TOKEN: Final = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
_NAMED: Final = re.compile(r"%([^%]+)%")


class AnyCase(dict[str, Any]):
    """A JSON object whose members `get` finds without regard to case, as Azure's host does."""

    def get(self, name: str, default: Any = None) -> Any:
        found = _member(self, name)
        return default if found is None else found


@dataclass(frozen=True)
class Folder:
    """An app's folder, read.

    Parameters:
        path: where it is.
        host: what host.json says.
        settings: the app's settings: the environment, and local.settings.json where that does not tell.
        local: the member `Host` of local.settings.json.
    """

    path: Path
    host: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    local: Mapping[str, Any] = field(default_factory=dict)

    def extension(self, name: str) -> Mapping[str, Any]:
        """What host.json says of an extension: durableTask, http or queues."""
        found = _member(self.host.get("extensions"), name)
        return found if isinstance(found, Mapping) else {}

    def count(self, extension: str, name: str, default: int) -> int:
        """A number of an extension that is 1 or more. Raises ValueError for anything else."""
        return counted(self.extension(extension).get(name), name, default)

    def setting(self, name: str) -> str | None:
        """An app setting, without regard to case, as on Windows and in Azure's host."""
        found: str | None = _member(self.settings, name)
        return found

    def resolved(self, text: str) -> str:
        """A binding's property with each %NAME% replaced. Raises KeyError with the name of a setting not there."""

        def value(found: re.Match[str]) -> str:
            setting = self.setting(found[1])
            if setting is None:
                raise KeyError(found[1])
            return setting

        return _NAMED.sub(value, text)


def read_folder(path: Path) -> Folder:
    """Read the files of a folder. Raises HostedAppError for one that cannot be read."""
    host = read_json(path / HOST_FILE)
    local = read_json(path / LOCAL_FILE) if (path / LOCAL_FILE).is_file() else {}
    values = local.get("Values")
    given = {str(k): str(v) for k, v in values.items()} if isinstance(values, dict) else {}
    hosting = local.get("Host")
    settings = {**given, **os.environ}
    _override(host, settings)
    return Folder(path, host, settings, hosting if isinstance(hosting, dict) else {})


def _override(host: dict[str, Any], settings: Mapping[str, str]) -> None:
    """Put the settings that override host.json into it: AzureFunctionsJobHost__extensions__http__routePrefix."""
    for name, value in settings.items():
        prefix, *path = name.split("__")
        if prefix.casefold() != OVERRIDE or not all(path) or not path:
            continue
        place = host
        for part in path[:-1]:
            inner = _member(place, part)
            if not isinstance(inner, dict):
                inner = place[_spelled(place, part)] = AnyCase()
            place = inner
        place[_spelled(place, path[-1])] = value


def _spelled(place: Mapping[str, Any], name: str) -> str:
    """The member that is there in any case, else the name as it is given."""
    return next((key for key in place if key.casefold() == name.casefold()), name)


def read_json(path: Path) -> dict[str, Any]:
    """The first JSON object of a file, with comments, and names in any case. Raises HostedAppError."""
    try:
        text = _TOKEN.sub(_without_comments, path.read_text(encoding="utf-8-sig"))
        document, _ = json.JSONDecoder(object_hook=AnyCase).raw_decode(text.lstrip())
    except (OSError, ValueError) as error:
        raise HostedAppError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(document, dict):
        raise HostedAppError(f"{path} holds a {type(document).__name__}, and no JSON object")
    return document


def counted(value: Any, name: str, default: int) -> int:
    """A setting that is a whole number of 1 or more, also as text; `default` where it is not given."""
    if value is None or value == "":
        return default
    text = str(value).strip()
    if isinstance(value, bool) or not text.isascii() or not text.isdigit() or not int(text):
        raise ValueError(f"{name} is a whole number of 1 or more, not {value!r}")
    return int(text)


def refusal(folder: Folder, faults: Iterable[str], advice: str = "") -> HostedAppError:
    """The error of an app that cannot be served: one line for each fault, then the advice."""
    listed = tuple(faults)
    lines = [f"the Azure app in {folder.path} cannot be served:", *(f"  {fault}" for fault in listed)]
    return HostedAppError("\n".join([*lines, advice] if advice else lines), listed)


def export_settings(folder: Folder) -> list[str]:
    """Put the app's settings into the environment, where they are not set. Returns the names of those."""
    missing = [name for name in folder.settings if name not in os.environ]
    os.environ.update({name: folder.settings[name] for name in missing})
    return missing


def _without_comments(found: re.Match[str]) -> str:
    return found[0] if found[0].startswith('"') else " "


def _member(found: Any, name: str) -> Any:
    if not isinstance(found, Mapping):
        return None
    if name in found:
        return found[name]
    return next((value for key, value in found.items() if key.casefold() == name.casefold()), None)


__all__ = [
    "HOST_FILE",
    "LOCAL_FILE",
    "Folder",
    "counted",
    "export_settings",
    "read_folder",
    "read_json",
    "refusal",
]
