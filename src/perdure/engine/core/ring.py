"""A worker's part of the ring: what its batches change, and the rows that they write for it.

The rows have absolute values, which the worker alone writes. So a batch that is repeated after a rollback cannot
count twice, and a commit whose outcome is unknown does no harm: opening the hub reads the rows again. See
`perdure.model.ring`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from perdure.model.ring import (
    HEAD,
    HOUR,
    MINUTE,
    RingRow,
    RingValue,
    encode,
    floor_of,
    value_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from perdure.model.records import Batch
    from perdure.store.port import Opening

_MINUTE_US = MINUTE * 1_000_000


class Ring:
    """For the loop's thread.

    Around each commit: `write_into(batch)`, then `committed()` or `rolled_back()`.
    """

    def __init__(self, counters: Mapping[str, int]) -> None:
        self._counters = counters
        self._replays = self._durable_replays = 0  # of the counters, those that the head has
        self._worker = ""
        self._incarnation = 0
        self._head = RingValue()
        self._hour = RingValue()  # what the minutes before the head's had in the same hour
        self._dead: list[
            tuple[RingRow, RingRow | None]
        ] = []  # heads to take over, with the rows of their hours
        self._ends = 0  # of the head's minute
        self._durable = self._written = encode(self._head), encode(self._hour)

    def opened(self, opening: Opening) -> None:
        """Go on from the rows of a hub that was just opened."""
        self._worker, self._incarnation = opening.worker, opening.incarnation
        hours = {(row.worker, row.start): row for row in opening.ring if row.resolution == HOUR}
        self._head, self._hour, self._dead = RingValue(), RingValue(), []
        self._replays = self._durable_replays = self._counters["replays"]
        for row in opening.ring:
            if row.resolution != HEAD:
                continue
            head = _read(row)
            hour = hours.get((row.worker, floor_of(head.at, HOUR)))
            if row.worker == self._worker:
                self._head = head
                self._hour = _read(hour) if hour is not None else RingValue()
            else:
                self._dead.append((row, hour))
        self._ends = self._head.at + _MINUTE_US
        self._durable = self._written = encode(self._head), encode(self._hour)

    def write_into(self, batch: Batch) -> None:
        """Add the rows for this batch's changes; none if it changes no count."""
        if not batch.moves:
            return
        rows: list[RingRow] = []
        if batch.at >= self._ends:
            self._begin_minute(batch.at, rows)
        if self._dead:
            self._take_over(batch, rows)
        head = self._head
        head.replays += self._counters["replays"] - self._replays
        self._replays = self._counters["replays"]
        for move in batch.moves:
            head.count(move)
        written = encode(head)
        rows.append(RingRow(self._worker, HEAD, 0, self._incarnation, written))
        self._written = written, self._written[1]
        batch.ring = rows

    def committed(self) -> None:
        """The rows are durable."""
        if self._written is not self._durable:
            self._durable, self._durable_replays = self._written, self._replays
            self._dead = []

    def rolled_back(self) -> None:
        """The rows were not stored, or nobody knows; then `opened` follows.

        Heads of dead workers are left to the next opening: another worker may have taken them over.
        """
        if self._written is not self._durable:
            self._written, self._replays = self._durable, self._durable_replays
            self._head, self._hour = map(msgspec.json.Decoder(RingValue).decode, self._durable)
            self._dead = []
            self._ends = self._head.at + _MINUTE_US

    def _begin_minute(self, at: int, rows: list[RingRow]) -> None:
        """The head's minute is over: it becomes a row, and a part of its hour."""
        head, minute = self._head, floor_of(at, MINUTE)
        if head.at:
            hour = floor_of(head.at, HOUR)
            self._hour.add(head)
            in_hour = encode(self._hour)
            rows += _finished(self._worker, self._incarnation, head, in_hour)
            if hour != floor_of(minute, HOUR):
                self._hour = RingValue()
            self._written = self._written[0], encode(self._hour)
        self._head = RingValue(
            at=minute,
            statuses={key: n for key, n in head.statuses.items() if n},
            built_in={key: n for key, n in head.built_in.items() if n},
        )
        self._ends = minute + _MINUTE_US

    def _take_over(self, batch: Batch, rows: list[RingRow]) -> None:
        """Add the net counts of dead workers to this one's, and end their minutes and hours."""
        for row, hour_row in self._dead:
            head = _read(row)
            self._head.add_statuses(head)
            if head.has_events():
                hour = _read(hour_row) if hour_row is not None else RingValue()
                hour.add(head)
                rows += _finished(row.worker, row.incarnation, head, encode(hour))
        batch.heads_removed = [row.worker for row, _ in self._dead]


def _finished(worker: str, incarnation: int, head: RingValue, hour: bytes) -> Iterable[RingRow]:
    """The rows of a head's minute, and of its hour so far."""
    minute = encode(msgspec.structs.replace(head, at=0))
    yield RingRow(worker, MINUTE, head.at, incarnation, minute)
    yield RingRow(worker, HOUR, floor_of(head.at, HOUR), incarnation, hour)


def _read(row: RingRow) -> RingValue:
    """The row's content; nothing if it is damaged, which `verify` reports."""
    try:
        return value_of(row)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return RingValue()


__all__ = ["Ring"]
