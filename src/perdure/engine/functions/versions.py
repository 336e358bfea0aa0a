"""Versions: the code that an instance runs, and the instances that a worker runs.

An orchestrator may be registered several times under one name, each time with another `version=`. An instance
is pinned to the version it started with: it runs the code registered for exactly that version, or else code
registered without a version, which serves all versions and may read `context.version`. An instance without code
on this worker waits, visibly. Azure's three settings decide the rest. The default version is that of starts
without a version; without it they get the newest registered. The match strategy selects the versions that a
worker runs: every one (None), only the default (Strict), or the default and older ones (CurrentOrOlder). The
failure strategy decides about the other instances: they wait (Reject), or they fail (Fail). Versions compare as
Azure's do: an empty one is the oldest, dotted numbers compare as numbers, others as text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cmp_to_key
from typing import Literal, get_args

from perdure.errors import RegistrationError
from perdure.model.settings import Unit, one_of, setting

MatchStrategy = Literal["None", "Strict", "CurrentOrOlder"]
FailureStrategy = Literal["Reject", "Fail"]
VERSION_LIMIT = 100  # characters


def compare(one: str, other: str) -> int:
    """Negative when `one` is older than `other`, 0 when neither is."""
    numbers, others = _numbers(one), _numbers(other)
    if numbers is not None and others is not None:
        return (numbers > others) - (numbers < others)
    if not one or not other:
        return bool(one) - bool(other)
    folded, also_folded = one.casefold(), other.casefold()
    return (folded > also_folded) - (folded < also_folded)


def newest(versions: Iterable[str]) -> str:
    return max(versions, key=cmp_to_key(compare))


def _numbers(version: str) -> tuple[int, ...] | None:
    parts = version.split(".")
    if not all(part.isascii() and part.isdigit() for part in parts):
        return None
    numbers = [int(part) for part in parts]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def checked_version(version: object) -> str:
    """A version: text of at most 100 printable characters. Raises RegistrationError."""
    if not isinstance(version, str) or len(version) > VERSION_LIMIT or not (version.isprintable()):
        raise RegistrationError(
            f"a version is text of at most {VERSION_LIMIT} printable characters, such as '2.1', "
            f"not {str(version)[:60]!r}"
        )
    return version


VERSION = Unit("a version, such as 2.1", "str", checked_version)


@dataclass(frozen=True)
class Versioning:
    """Azure's `defaultVersion`, `versionMatchStrategy` and `versionFailureStrategy`.

    Without a default version a worker runs every version.
    """

    default: str = setting(
        "", "the version of instances that are started without one", VERSION, name="default_version"
    )
    match: MatchStrategy = setting(  # noqa: RUF009 (a frozen value)
        "CurrentOrOlder",
        "which instances a worker with a default version runs",
        one_of(*get_args(MatchStrategy)),
        name="version_match_strategy",
    )
    failure: FailureStrategy = setting(  # noqa: RUF009 (a frozen value)
        "Reject",
        "whether other instances wait for another worker (Reject), or fail (Fail)",
        one_of(*get_args(FailureStrategy)),
        name="version_failure_strategy",
    )

    def __post_init__(self) -> None:
        checked_version(self.default)
        for value, known in ((self.match, MatchStrategy), (self.failure, FailureStrategy)):
            if value not in get_args(known):
                raise RegistrationError(f"{value!r} is not one of {', '.join(get_args(known))}")

    def takes(self, version: str) -> bool:
        """Whether a worker with these settings runs instances of this version."""
        if not self.default or self.match == "None":
            return True
        return version == self.default if self.match == "Strict" else compare(version, self.default) <= 0
