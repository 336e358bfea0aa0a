"""The shared parts of the readers of SQLite and PostgreSQL."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import msgspec

from perdure.errors import StoreUnusable
from perdure.model.damaged import UNREADABLE, flaw_in, known_status
from perdure.model.encryption import Unreadable
from perdure.model.events import decode_events, encode_events
from perdure.model.hash_chain import digest_of
from perdure.model.large_bodies import inline
from perdure.model.recorded import references
from perdure.store.column_encryption import opened
from perdure.store.transfer import BESIDE, TABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from perdure.store.column_encryption import Vault

    Page = Callable[[str, tuple[Any, ...], int], tuple[list[Any], tuple[Any, ...]]]

_EXAMINED_AT_ONCE: Final = 1_000


class OneProcess:
    """Connections belong to the process that opened them: a forked child must not use them."""

    def __init__(self) -> None:
        self._pid = 0  # of the process that used it first

    def is_another(self) -> bool:
        """Whether this is a forked child, which leaves the connections to its parent."""
        return self._pid not in (0, os.getpid())

    def forget(self) -> None:
        """Forget the process after its connections are closed, so that any process may open new ones."""
        self._pid = 0

    def check(self, where: str) -> None:
        """Raises StoreUnusable in another process than the first."""
        pid = os.getpid()
        self._pid = self._pid or pid
        if self._pid != pid:
            raise StoreUnusable(
                f"{where} was opened by process {self._pid}; a forked child must not use its "
                "connections. Start child processes with the spawn or forkserver method"
            )


def with_bodies(events: bytes, bodies: dict[int, bytes], salt: bytes) -> bytes:
    """The events of a row with the bodies that are stored beside it; `Unreadable` where a body was changed."""
    if not bodies or isinstance(events, Unreadable):
        return events
    unreadable = next((body for body in bodies.values() if isinstance(body, Unreadable)), None)
    if unreadable is not None:
        return unreadable
    try:
        decoded = decode_events(events)
        if not isinstance(salt, Unreadable):
            for ref in references(decoded):
                if ref.no in bodies and digest_of(salt, bodies[ref.no]).hex() != ref.digest:
                    why = f"body {ref.no} of its history, in the table payloads, does not match its digest"
                    return Unreadable.of(events, UNREADABLE, why)
        return encode_events(inline(decoded, bodies))
    except msgspec.MsgspecError:  # written by a newer version: shown without its body
        return events


def counted(rows: Iterable[tuple[Any, int]]) -> dict[str, int]:
    """The number of instances by status. Unknown statuses count as one."""
    counts: dict[str, int] = {}
    for status, count in rows:
        counts[known_status(status)] = counts.get(known_status(status), 0) + count
    return counts


def flaws_of(page: Page, vault: Vault | None) -> Iterator[tuple[int, str]]:
    """The damaged rows of the tables other than `instances`: the number of the instance, or 0, and a sentence.

    Parameters:
        page: reads a page of a table after a key; returns the rows and the last key.
    """
    for table in BESIDE:
        columns, after = TABLES[table].columns, ()
        while True:
            rows, after = page(table, after, _EXAMINED_AT_ONCE)
            for cells in opened(vault, table, rows):
                flaw = flaw_in(table, columns, cells)
                if flaw:
                    yield (cells[0] if columns[0] == "instance_no" else 0), flaw
            if len(rows) < _EXAMINED_AT_ONCE:
                break


__all__ = ["OneProcess", "counted", "flaws_of", "with_bodies"]
