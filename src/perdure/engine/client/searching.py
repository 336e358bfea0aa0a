"""Finding instances: through an index where there is one, else in a stretch of time that the answer names.

A search without an index reads the instances in parts, from the newest on, until it has enough or its time is over.
The answer then says from when on it has searched, and its continuation goes on there. So no search takes longer than
a second or two, however many instances there are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, get_args

import msgspec

from perdure.errors import PayloadError, PerdureError
from perdure.failure import chain_of
from perdure.model import events as ev
from perdure.model.instances import FINISHED, RuntimeStatus
from perdure.model.records import InstanceFilter
from perdure.store.filters import has_index

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perdure.model.records import InstanceRow
    from perdure.store.port import ClientStore

PATIENCE: Final = 1.2  # seconds, after which no further part is read
PART: Final = 25_000  # instances of a part
FAILURES: Final = 200  # failed instances of a part whose errors are read
LAST_ENDED: Final = 1_000  # instances among which the longest are sought
Order = Literal["newest", "oldest", "ended", "duration"]
ORDERS: Final[tuple[Order, ...]] = get_args(Order)
Clock = Callable[[], float]


@dataclass(frozen=True)
class Found:
    """The rows that match, and the key of the next page.

    `searched_to` is the number of the last instance that was looked at if the time was over, None if the search is
    complete or found as many as it was asked for.
    """

    rows: list[InstanceRow]
    continuation: int | None = None
    searched_to: int | None = None


def search(store: ClientStore, wanted: InstanceFilter, clock: Clock = time.monotonic) -> Found:
    """One page of matching instances."""
    match wanted.order:
        case "ended":
            return Found(_last_ended(store, wanted))
        case "duration":
            ended = _last_ended(store, replace(wanted, top=LAST_ENDED))
            return Found(sorted(ended, key=_lasted, reverse=True)[: wanted.top])
        case "started":
            pass
    if not wanted.failure and has_index(wanted):
        rows = store.query(wanted)
        return Found(rows, _next(rows, wanted.top))
    rows, ended_at = [], clock() + PATIENCE
    for part, lowest in _parts(store, wanted, wanted.top):
        rows += part
        if len(rows) >= wanted.top:
            return Found(rows[: wanted.top], rows[wanted.top - 1].instance_no)
        if clock() >= ended_at:
            return Found(rows, lowest, lowest)
    return Found(rows)


def count(
    store: ClientStore, wanted: InstanceFilter, clock: Clock = time.monotonic
) -> tuple[int, int | None]:
    """How many instances match, and the number of the last one looked at if the time was over before the end."""
    wanted = replace(wanted, order="started", before_no=None, after_no=None)
    if not wanted.failure and (has_index(wanted) or wanted == InstanceFilter(kind=wanted.kind)):
        return store.count(wanted), None
    found, ended_at = 0, clock() + PATIENCE
    if wanted.failure:
        for part, lowest in _parts(store, wanted, FAILURES):
            found += len(part)
            if clock() >= ended_at:
                return found, lowest
        return found, None
    for bounds in _bounds(store, wanted):
        found += store.count(replace(wanted, within=bounds))
        if clock() >= ended_at:
            return found, bounds[0]
    return found, None


def _parts(store: ClientStore, wanted: InstanceFilter, top: int) -> Iterable[tuple[list[InstanceRow], int]]:
    """The matching rows of each part, with the key from which the next part goes on."""
    if not wanted.failure:
        for bounds in _bounds(store, wanted):
            yield (
                store.query(replace(wanted, within=bounds, top=top)),
                bounds[1 if wanted.oldest_first else 0],
            )
        return
    while True:
        rows = store.query(replace(wanted, failure="", top=FAILURES))
        if rows:
            last = rows[-1].instance_no
            wanted = (
                replace(wanted, after_no=last) if wanted.oldest_first else replace(wanted, before_no=last)
            )
            yield _with_failure(store, rows, wanted.failure), last
        if len(rows) < FAILURES:
            return


def _bounds(store: ClientStore, wanted: InstanceFilter) -> Iterable[tuple[int, int]]:
    """The numbers of each part. Gaps between numbers are skipped."""
    key = wanted.after_no if wanted.oldest_first else wanted.before_no
    while True:
        place = {"after_no": key} if wanted.oldest_first else {"before_no": key}
        nearest = store.query(InstanceFilter(kind="", oldest_first=wanted.oldest_first, top=1, **place))  # type: ignore[arg-type]
        if not nearest:
            return
        start = nearest[0].instance_no
        bounds = (start, start + PART - 1) if wanted.oldest_first else (max(start - PART + 1, 0), start)
        yield bounds
        key = bounds[1] if wanted.oldest_first else bounds[0]


def _with_failure(store: ClientStore, rows: list[InstanceRow], text: str) -> list[InstanceRow]:
    """Those whose error, or an error that caused it, contains the text in any case."""
    sought, ends = text.casefold(), store.ends(rows)
    return [
        row
        for row in rows
        if any(sought in error.casefold() for error in _errors(ends.get(row.instance_no, [])))
    ]


def _errors(ends: Sequence[bytes]) -> list[str]:
    try:
        last = ev.decode_events(ends[-1])[-1] if ends else None
    except (msgspec.MsgspecError, PerdureError, IndexError):
        return []  # damaged, or not to be decrypted
    return [str(one) for one in chain_of(last.failure)] if isinstance(last, ev.ExecutionFailed) else []


def _last_ended(store: ClientStore, wanted: InstanceFilter) -> list[InstanceRow]:
    """The instances that ended last, through an index that has each status by itself."""
    finished = [status.value for status in FINISHED]
    statuses = [status for status in wanted.status if status in finished] if wanted.status else finished
    ended_to = wanted.ended_to if wanted.ended_to is not None else 2**62
    one = replace(wanted, order="ended", ended_to=ended_to, failure="", before_no=None, after_no=None)
    rows = [row for status in sorted(statuses) for row in store.query(replace(one, status=(status,)))]
    if wanted.failure:
        rows = _with_failure(store, rows, wanted.failure)
    return sorted(rows, key=_ended_at, reverse=True)[: wanted.top]


def _ended_at(row: InstanceRow) -> tuple[int, int]:
    return row.completed_at or 0, row.instance_no


def _lasted(row: InstanceRow) -> int:
    return (row.completed_at or row.created_at) - row.created_at


def _next(rows: Sequence[InstanceRow], top: int) -> int | None:
    return rows[-1].instance_no if len(rows) == top else None


def ordered(wanted: InstanceFilter, order: Order) -> InstanceFilter:
    """The filter in this order. Raises PayloadError for an unknown one."""
    match order:
        case "newest":
            return wanted
        case "oldest":
            return replace(wanted, oldest_first=True, before_no=None, after_no=wanted.before_no)
        case "ended" | "duration":
            return replace(wanted, order=order)
        case _:
            raise PayloadError(f"instances are ordered by {', '.join(ORDERS)}, not by {order!r}")


def checked_statuses(statuses: tuple[str, ...], failure: str) -> tuple[str, ...]:
    """The statuses of a search by failure: only failed instances have one."""
    failed = RuntimeStatus.Failed.value
    return statuses if not failure or (statuses and failed not in statuses) else (failed,)


__all__ = ["ORDERS", "Found", "Order", "checked_statuses", "count", "ordered", "search"]
