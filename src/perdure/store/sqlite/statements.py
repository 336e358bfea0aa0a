"""Statements: SQL read from the .sql files, and the trick that keeps many rows cheap.

Each step of a statement releases the interpreter's lock, and with busy threads about, reacquiring it costs up
to a switch interval: `executemany` over 500 rows waits 500 times. So a statement carries many rows, as `values
(..), (..)`. A text for every number of rows would overflow the cache of prepared statements; a batch is
therefore split into powers of two, and each statement exists in at most nine sizes.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from perdure.model.records import InstanceRow, InstanceUpdate
from perdure.store.filters import PARKED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MOST_ROWS: Final = 256
CACHED: Final = 600  # prepared statements a connection keeps: all of them, in all their sizes

_PLACEHOLDERS: Final = {
    "{instance_columns}": ", ".join(InstanceRow._fields),
    "{instance_marks}": ", ".join("?" * len(InstanceRow._fields)),
    "{update_columns}": ", ".join(InstanceUpdate._fields),
    "{update_marks}": ", ".join("?" * len(InstanceUpdate._fields)),
    "{parked}": PARKED,
}


@cache
def read_sql(file_name: str) -> str:
    """A file of this package."""
    return resources.files(__package__).joinpath(file_name).read_text("utf-8")


@cache
def blocks(file_name: str) -> dict[str, str]:
    """The statements of a file by name: on one line, without comments, placeholders filled in but {hub}."""
    text = read_sql(file_name)
    for mark, value in _PLACEHOLDERS.items():
        text = text.replace(mark, value)
    parts = re.split(r"^-- name: (\w+)$", text, flags=re.MULTILINE)
    return {name: _one_line(body) for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def _one_line(body: str) -> str:
    return " ".join(" ".join(line for line in body.splitlines() if not line.startswith("--")).split())


class Repeated:
    """A statement with one part in square brackets, which is repeated for every row.

    Without spaces, because apsw does not cache texts of more than 16 KiB.
    """

    def __init__(self, text: str) -> None:
        self._before, rest = text.split("[")
        part, self._after = rest.split("]")
        self._part = part.replace(", ", ",")
        self._texts: dict[int, str] = {}

    def use_for_one(self, text: str) -> None:
        """Take another statement, with the same parameters, for a single row."""
        self._texts[1] = text

    def text(self, count: int) -> str:
        found = self._texts.get(count)
        if found is None:
            found = self._before + ",".join([self._part] * count) + self._after
            self._texts[count] = found
        return found

    def rows(
        self, execute: Callable[..., Any], rows: Sequence[tuple[Any, ...]], *, after: tuple[Any, ...] = ()
    ) -> None:
        """Execute for all rows, a power of two at a time."""
        if len(rows) == 1:
            execute(self.text(1), rows[0] + after if after else rows[0])
            return
        for part in powers_of_two(rows):
            execute(self.text(len(part)), (*chain.from_iterable(part), *after))

    def values(
        self, execute: Callable[..., Any], values: Sequence[Any], *, before: tuple[Any, ...] = ()
    ) -> list[Any]:
        """Execute for single values, and collect the rows."""
        if len(values) == 1:  # most reads are of one instance
            one: list[Any] = execute(self.text(1), (*before, *values)).fetchall()
            return one
        return [
            row
            for part in powers_of_two(values)
            for row in execute(self.text(len(part)), (*before, *part)).fetchall()
        ]

    def pairs(self, execute: Callable[..., Any], rows: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Execute for rows of values, and collect the rows."""
        if len(rows) == 1:
            one: list[Any] = execute(self.text(1), tuple(rows[0])).fetchall()
            return one
        return [
            row
            for part in powers_of_two(rows)
            for row in execute(self.text(len(part)), tuple(chain.from_iterable(part))).fetchall()
        ]


@cache
def query(name: str) -> str:
    """A statement of queries.sql without repetition."""
    return blocks("queries.sql")[name]


@cache
def query_many(name: str) -> Repeated:
    """A statement of queries.sql for many values or rows."""
    return Repeated(query(name))


def powers_of_two(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """The rows in runs of 256, 256, ..., and the rest in decreasing powers of two."""
    at, left = 0, len(rows)
    while left:
        size = min(MOST_ROWS, 1 << (left.bit_length() - 1))
        yield rows[at : at + size]
        at += size
        left -= size
