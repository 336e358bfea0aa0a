"""Declaration of settings: once, on the field of the setting.

`setting(16, "threads for `def` activities", COUNT)` is the default, the doc, the unit and the reader of one
field. From this follow the keyword argument, the environment variable `PERDURE_THREADS`, the flag `--threads`,
the page of documentation, and the error for an invalid value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, dataclass, field, fields
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

from perdure.errors import SettingError

KEY = "perdure"


@dataclass(frozen=True)
class Unit:
    """The kind of value of a setting. `read` takes text or the value itself, and raises ValueError."""

    name: str
    type: str
    read: Callable[[Any], Any]
    show: Callable[[Any], str] = str


@dataclass(frozen=True)
class Setting:
    """One setting: its name, default, unit and documentation."""

    name: str
    default: Any
    doc: str
    unit: Unit
    least: float | None = None
    most: float | None = None
    secret: bool = False
    field: str = ""
    group: str = ""

    @property
    def variable(self) -> str:
        """The name of its environment variable."""
        return f"PERDURE_{self.name.upper()}"

    @property
    def flag(self) -> str:
        """Its flag of `perdure run`."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def range(self) -> str:
        """The limits of its values, for people; "" without any."""
        show = self.unit.show
        if self.least is not None and self.most is not None:
            return f", {show(self.least)} to {show(self.most)}"
        return "" if self.least is None else f", {show(self.least)} or more"

    def read(self, given: Any, place: str) -> Any:
        """Parse a value. Raises SettingError, which names the `place` of the value and the expected unit."""
        try:
            value = self.unit.read(given)
            if self.least is not None and value < self.least:
                raise ValueError
            if self.most is not None and value > self.most:
                raise ValueError
        except (ValueError, TypeError, OverflowError):
            shown = "***" if self.secret else repr(given)
            raise SettingError(
                f"{place} is {shown}, but {self.name} must be {self.unit.name}{self.range} ({self.doc})"
            ) from None
        return value

    def show(self, value: Any) -> str:
        """A value for people; secrets in it are masked."""
        return "" if value is None else mask(self.unit.show(value)) if self.secret else self.unit.show(value)


def setting(
    default: Any,
    doc: str,
    unit: Unit,
    *,
    least: float | None = None,
    most: float | None = None,
    secret: bool = False,
    name: str = "",
) -> Any:
    """Declare a field of a dataclass as a setting; `name` replaces the field's name if that says too little."""
    return field(default=default, metadata={KEY: (doc, unit, least, most, secret, name)})


def settings_of(kind: type[Any], group: str = "") -> Iterator[Setting]:
    """The settings that a dataclass declares, and those of the dataclasses in its fields."""
    for found in fields(kind):
        if KEY in found.metadata:
            yield _row(found, group)
        elif found.default_factory is not MISSING and isinstance(found.default_factory, type):
            yield from settings_of(found.default_factory, found.name)


def _row(found: Field[Any], group: str) -> Setting:
    doc, unit, least, most, secret, name = found.metadata[KEY]
    return Setting(name or found.name, found.default, doc, unit, least, most, secret, found.name, group)


def mask(text: str) -> str:
    """The text with passwords in URLs masked, even if they are not encoded correctly."""
    text = re.sub(r"(://[^:/@\s]*):\S*@", r"\1:***@", text)
    return re.sub(r"([?&](?:ssl)?password=)[^&\s]*", r"\1***", text)


# ---------------------------------------------------------------------------------------------- units


def _count(given: Any) -> int:
    if isinstance(given, str):
        return int(given.replace("_", "").replace(",", ""))
    if isinstance(given, bool) or not isinstance(given, int):
        raise TypeError
    return given


_SIZES = {"": 1, "b": 1, "kb": 1000, "mb": 10**6, "gb": 10**9, "kib": 1024, "mib": 1024**2, "gib": 1024**3}
_TIMES = {"": 1.0, "ms": 1e-3, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def _scaled(given: str, units: dict[str, Any]) -> float:
    found = re.fullmatch(r"\s*(-?[0-9][0-9_]*(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", given)
    if found is None or found[2].lower() not in units:
        raise ValueError
    scaled: float = float(found[1].replace("_", "")) * units[found[2].lower()]
    return scaled


def _bytes(given: Any) -> int:
    return int(_scaled(given, _SIZES)) if isinstance(given, str) else _count(given)


def _seconds(given: Any) -> float:
    if isinstance(given, timedelta):
        return given.total_seconds()
    value = _scaled(given, _TIMES) if isinstance(given, str) else float(given)
    if isinstance(given, bool) or value != value or value in (float("inf"), float("-inf")):
        raise ValueError
    return value


_SWITCH = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


def _switch(given: Any) -> bool:
    if isinstance(given, bool):
        return given
    if not isinstance(given, str) or given.strip().lower() not in _SWITCH:
        raise ValueError
    return _SWITCH[given.strip().lower()]


def _text(given: Any) -> str:
    if not isinstance(given, str) or not given.strip():
        raise ValueError
    return given.strip()


def _names(given: Any) -> tuple[str, ...]:
    parts = given.split(",") if isinstance(given, str) else list(given)
    return tuple(_text(part) for part in parts)


def _networks(given: Any) -> tuple[str, ...]:
    return tuple(str(ip_network(name, strict=False)) for name in _names(given))


def _port(given: Any) -> int:
    value = _count(given)
    if not 0 <= value <= 65_535:
        raise ValueError
    return value


def _size(value: float) -> str:
    for name, unit in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if value and value % unit == 0:
            return f"{value // unit:g} {name}"
    return f"{value:g} B"


def _secret(given: Any) -> str:
    if not isinstance(given, str) or len(given.strip()) < 24:
        raise ValueError
    return given.strip()


def one_of(*known: str) -> Unit:
    """The unit of a setting with a few possible words; case does not matter."""
    words = {word.casefold(): word for word in known}

    def read(given: Any) -> str:
        if not isinstance(given, str) or given.strip().casefold() not in words:
            raise ValueError
        return words[given.strip().casefold()]

    return Unit(f"one of {', '.join(known)}", f"Literal{list(known)}", read)


COUNT = Unit("a whole number", "int", _count, lambda value: f"{value:,}")
BYTES = Unit("a size, such as 4096 or 64MiB", "int", _bytes, _size)
SECONDS = Unit("a duration: seconds, or 90s, 5min, 12h", "float", _seconds, lambda value: f"{value:g} s")
SWITCH = Unit("true or false", "bool", _switch, lambda value: str(value).lower())
SECRET = Unit("a secret of at least 24 characters", "str", _secret, lambda _: "***")
TEXT = Unit("a non-empty text", "str", _text)
NAMES = Unit("comma-separated names", "Sequence[str]", _names, ", ".join)
NETWORKS = Unit(
    "comma-separated addresses or networks, such as 10.0.0.0/8",
    "Sequence[str]",
    _networks,
    ", ".join,
)
PORT = Unit("a port number from 0 to 65535", "int", _port)
