"""Functions that unfinished instances need and the application lacks. `perdure run` lists them at its start."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from perdure.http.running_engine import engine_of
from perdure.model.instances import FINISHED, RuntimeStatus
from perdure.model.records import InstanceFilter
from perdure.model.waiting import is_parked

if TYPE_CHECKING:
    from perdure.engine.client.client import Client
    from perdure.model.records import InstanceRow
    from perdure.store.port import ClientStore

LOOKED_AT: Final = 5_000  # the newest unfinished instances; a start must not wait for a million
PAGE: Final = 500
_OPEN: Final = tuple(status.value for status in RuntimeStatus if status not in FINISHED)
_NEEDED: Final = re.compile(r"^no_worker: .*?(?:named|orchestrator|entity) '([^']*)'")


async def lacking(client: Client) -> list[str]:
    """One line for each missing function, and one with the number of parked instances."""
    engine = engine_of(client)
    return await engine.read(lambda: list(_lines(engine.store, engine.has)))


def _lines(store: ClientStore, has: Callable[[str, str], bool]) -> Iterator[str]:
    needed: Counter[str] = Counter()
    parked = 0
    for row in _in_flight(store):
        name = _needs(row, has)
        if name:
            needed[name] += 1
        elif is_parked(row.reason):
            parked += 1
    for name, count in sorted(needed.items()):
        yield f"{_instances(count)} in flight need{'' if count > 1 else 's'} {name!r}, which this application lacks"
    if parked:
        yield f"{_instances(parked)} {'are' if parked > 1 else 'is'} parked: perdure list --parked"


def _in_flight(store: ClientStore) -> Iterator[InstanceRow]:
    yield from _pages(store, InstanceFilter(status=_OPEN))
    yield from _pages(store, InstanceFilter(kind="entity", parked=True))


def _pages(store: ClientStore, wanted: InstanceFilter) -> Iterator[InstanceRow]:
    before: int | None = None
    for _ in range(LOOKED_AT // PAGE):
        rows = store.query(replace(wanted, before_no=before, top=PAGE))
        yield from rows
        if len(rows) < PAGE:
            return
        before = rows[-1].instance_no


def _needs(row: InstanceRow, has: Callable[[str, str], bool]) -> str:
    """The name of the function that the instance needs and this application lacks; "" if none is known."""
    if row.kind != "entity" and not has(row.name, row.version):
        return " ".join(filter(None, (row.name, row.version)))
    missing = _NEEDED.match(row.reason)
    return missing[1] if missing is not None and not has(missing[1], "") else ""


def _instances(count: int) -> str:
    return f"{count:,} instance{'s' if count > 1 else ''}"


__all__ = ["lacking"]
