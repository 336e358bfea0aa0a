"""Fates: what becomes of operations that were not synced when the power failed. All of it is chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

from powercuts.content import Content
from powercuts.operations import LinkFile, Truncate, UnlinkFile, Write

SECTOR: Final = 512
_MOST_GARBAGE: Final = 64  # sectors

Change = tuple[int, bytes] | int
"""Bytes at an offset, or a truncation to a size."""


def surviving_names(changes: Sequence[LinkFile | UnlinkFile], chance: Random) -> list[LinkFile | UnlinkFile]:
    """Those changes of the directory that are found: all, none, the first few, or any of them."""
    if not changes:
        return []
    match chance.randrange(4):
        case 0:
            return []
        case 1:
            return list(changes)
        case 2:
            return list(changes[: chance.randint(0, len(changes))])
        case _:
            return [change for change in changes if chance.random() < 0.5]


def surviving_bytes(certain: Content, unsure: Sequence[Write | Truncate], chance: Random) -> Content:
    """What is found of a file."""
    content = certain.copy()
    if not unsure:
        return content
    changes = chance.choice(_FATES)([_plain(one) for one in unsure], chance)
    sizes = [one for one in changes if isinstance(one, int)]
    if not sizes and chance.random() < 0.4:
        _grow(content, max(_end(one) for one in unsure), chance)
    for change in changes:
        if isinstance(change, int):
            content.truncate(change)
        else:
            content.write(*change)
    return content


def _plain(one: Any) -> Change:
    return (one.offset, one.data) if len(one) == 3 else one.size


def _end(one: Any) -> int:
    return int(one.offset + len(one.data) if len(one) == 3 else one.size)


def _grow(content: Content, size: int, chance: Random) -> None:
    """The file's new length is found, its new bytes are not: zeros, or what lay there before."""
    before, content.size = content.size, max(content.size, size)
    if chance.random() < 0.5:
        return
    sectors = range(-(-before // SECTOR), content.size // SECTOR)
    for sector in sectors[: _MOST_GARBAGE * 4]:
        if chance.random() < 0.25:
            content.write(sector * SECTOR, chance.randbytes(SECTOR))


# ------------------------------------------------------------------------------------------------- the fates


def _nothing(changes: list[Change], chance: Random) -> list[Change]:
    return []


def _everything(changes: list[Change], chance: Random) -> list[Change]:
    return changes


def _the_first(changes: list[Change], chance: Random) -> list[Change]:
    """In their order, up to some point; the last one torn."""
    count = chance.randrange(len(changes))
    return changes[:count] + _torn(changes[count : count + 1], chance)


def _the_last(changes: list[Change], chance: Random) -> list[Change]:
    """The newest alone: it has overtaken all others."""
    return changes[-chance.randint(1, min(3, len(changes))) :]


def _some(changes: list[Change], chance: Random) -> list[Change]:
    """Each whole or not at all."""
    share = chance.choice((0.1, 0.5, 0.9))
    return [change for change in changes if chance.random() < share]


def _all_but_one(changes: list[Change], chance: Random) -> list[Change]:
    lost = chance.randrange(len(changes))
    return changes[:lost] + changes[lost + 1 :]


def _torn(changes: list[Change], chance: Random) -> list[Change]:
    """Each sector of each by itself."""
    share = chance.choice((0.1, 0.5, 0.9, 0.98))
    found: list[Change] = []
    for change in changes:
        if isinstance(change, int):
            if chance.random() < share:
                found.append(change)
            continue
        offset, data = change
        at = 0
        while at < len(data):
            end = min(len(data), at + SECTOR - (offset + at) % SECTOR)
            if chance.random() < share:
                found.append((offset + at, data[at:end]))
            at = end
    return found


def _in_any_order(changes: list[Change], chance: Random) -> list[Change]:
    """An older version of the same bytes may be what is found."""
    found = _torn(changes, chance) if chance.random() < 0.5 else _some(changes, chance)
    chance.shuffle(found)
    return found


_FATES: Final[tuple[Callable[[list[Change], Random], list[Change]], ...]] = (
    _nothing,
    _everything,
    _the_first,
    _the_last,
    _some,
    _all_but_one,
    _torn,
    _in_any_order,
)
