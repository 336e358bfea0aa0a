"""Languages: what pages say to people outside the team, in the visitor's language.

Each language besides English is a catalogue of this folder, such as `de.po`. A new language is a new file. Texts in
the source are English and are the keys of the catalogues. The language, and the time zone of the visitor, hold for
the request that is being answered.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import cache
from gettext import c2py
from pathlib import Path
from typing import Any, Final

from babel import Locale, negotiate_locale
from babel.dates import format_skeleton, format_time
from babel.messages.pofile import read_po

ENGLISH: Final = "en"
FOLDER: Final = Path(__file__).parent
AVAILABLE: Final = (ENGLISH, *sorted(path.stem for path in FOLDER.glob("*.po")))
"""The codes of the languages."""


@dataclass(frozen=True)
class Speech:
    """The language of a request, and the time zone in which it shows times."""

    language: str = ENGLISH
    zone: tzinfo = UTC
    zone_name: str = "UTC"


_SPEECH: ContextVar[Speech] = ContextVar("perdure.speech", default=Speech())  # noqa: B039 - it is frozen


def speech() -> Speech:
    """The language and time zone of the present request."""
    return _SPEECH.get()


@contextmanager
def speaking(chosen: Speech) -> Iterator[None]:
    """Answer a request in this language and time zone."""
    before = _SPEECH.set(chosen)
    try:
        yield
    finally:
        _SPEECH.reset(before)


def say(text: str, **values: Any) -> str:
    """The text in the language of the request, with `%(name)s` replaced by the values."""
    translated = _catalogue(speech().language).get(text, text)
    return translated % values if values else translated


def say_number(one: str, many: str, number: int, **values: Any) -> str:
    """The text for a number of things. `%(number)s` is the number."""
    language = speech().language
    forms = _plurals(language).get(one)
    if forms is None:
        chosen = one if number == 1 else many
    else:
        chosen = forms[_plural_of(language)(number)]
    return chosen % {"number": number, **values}


def name_of(language: str) -> str:
    """The name of a language, in itself."""
    name = Locale.parse(language).get_display_name() or language
    return name[:1].upper() + name[1:]


def best_of(accepted: str) -> str:
    """The language for the value of an `Accept-Language` header."""
    wanted = sorted(_weighed(accepted), key=lambda pair: -pair[1])
    codes = [code.replace("-", "_") for code, weight in wanted if weight > 0]
    return negotiate_locale(codes, AVAILABLE) or ENGLISH


def clock_time(at: datetime) -> str:
    """A time of day: "20:00", with UTC behind it where that is the time zone."""
    shown = speech()
    text = format_time(at, "HH:mm", tzinfo=shown.zone, locale=shown.language)
    return f"{text} UTC" if shown.zone_name == "UTC" else text


def short_day(at: datetime) -> str:
    """A day without its year: "Tue 1 Dec"."""
    shown = speech()
    if shown.language == ENGLISH:
        local = at.astimezone(shown.zone)
        return f"{local:%a} {local.day} {local:%b}"
    return format_skeleton("MMMEd", at, tzinfo=shown.zone, locale=shown.language)


def exact(at: datetime) -> str:
    """A time with milliseconds and its zone, for the text that a page shows on hover."""
    local = at.astimezone(speech().zone)
    return f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03d} {speech().zone_name}"


def days_between(at: datetime, now: datetime) -> int:
    """How many midnights of the visitor's time zone lie between two times."""
    zone = speech().zone
    return (at.astimezone(zone).date() - now.astimezone(zone).date()).days


def _weighed(accepted: str) -> Iterator[tuple[str, float]]:
    for part in accepted[:500].split(","):
        code, _, weight = part.partition(";q=")
        try:
            yield code.strip(), float(weight or 1)
        except ValueError:
            continue


@cache
def _read(language: str) -> Any:
    with (FOLDER / f"{language}.po").open("rb") as file:
        return read_po(file, locale=language)


@cache
def _catalogue(language: str) -> dict[str, str]:
    if language == ENGLISH:
        return {}
    return {
        one.id: one.string for one in _read(language) if one.id and isinstance(one.id, str) and one.string
    }


@cache
def _plurals(language: str) -> dict[str, tuple[str, ...]]:
    if language == ENGLISH:
        return {}
    return {one.id[0]: tuple(one.string) for one in _read(language) if isinstance(one.id, tuple)}


@cache
def _plural_of(language: str) -> Any:
    """Which form a number takes, by the header of the catalogue."""
    return c2py(_read(language).plural_expr)


__all__ = [
    "AVAILABLE",
    "ENGLISH",
    "Speech",
    "best_of",
    "clock_time",
    "days_between",
    "exact",
    "name_of",
    "say",
    "say_number",
    "short_day",
    "speaking",
    "speech",
]
