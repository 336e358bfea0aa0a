"""Catching up: a replica becomes equal to its log.

A replica is used again if the last record that it has is in the log. If it is behind what the log still has, it
begins with the newest snapshot. If the log ends before it, or has another record in that place, the storage account
was restored or failed over: a person has to say which is true.
"""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Final, NoReturn

from perdure.errors import StoreError, StoreUnusable
from perdure.store.log.port import Missing, Trimmed
from perdure.store.log.records import blob_of, digest_of
from perdure.store.log.replica import Place, empty_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from perdure.store.log.appending import Patience
    from perdure.store.log.port import Log, Record
    from perdure.store.log.records import MovedTo
    from perdure.store.log.replica import Replica
    from perdure.store.log.snapshots import Listed, Shelf

_TRIES: Final = 5  # a snapshot may be replaced by a newer one while it is looked for


class CatchUp:
    """Brings one replica up to date, from one log."""

    def __init__(self, replica: Replica, log: Log, shelf: Shelf, patience: Patience) -> None:
        self._replica, self._log, self._shelf, self._patience = replica, log, shelf, patience

    def run_exactly(self, wanted: Callable[[Record], bool]) -> None:
        """Apply the records before the first one that is not wanted. Raises Trimmed."""
        self._apply_rest(wanted)

    def run(self) -> None:
        """Apply all records."""
        for _ in range(_TRIES):
            try:
                return self._apply_rest(lambda record: True)
            except Trimmed:
                self.begin_with(self._shelf.newest())
        raise StoreError(f"{self._shelf.where}: records were deleted again and again before they were read")

    def run_to(self, position: int) -> None:
        """Apply the records before this position, which are all there. Raises Trimmed."""
        while (at := self._replica.place.position) < position:
            records, _ = self._read(at)
            self._apply([record.content for record in records[: position - at]])

    def check(self) -> None:
        """Begin again unless the replica is a beginning of this log. Raises StoreUnusable if it is ahead of it."""
        place = self._replica.place
        if place.is_dirty:
            return self.begin_with(self._shelf.newest())
        if place.position == 0:
            newest = self._shelf.newest()
            return None if newest is None else self.begin_with(newest)
        try:
            records, end = self._read(place.position - 1)
        except Trimmed:
            return self._check_against_snapshots()
        if end < place.position or digest_of(records[0].content) != place.digest:
            self._refuse()
        return None

    def _check_against_snapshots(self) -> None:
        place = self._replica.place
        snapshots = self._shelf.read()[0].snapshots
        if not any((listed.position, listed.digest) == place[:2] for listed in snapshots):
            self.begin_with(snapshots[-1] if snapshots else None)

    def begin_with(self, listed: Listed | None) -> None:
        """Replace the replica by a snapshot, or by an empty file."""
        if listed is None:
            with tempfile.TemporaryDirectory(prefix="perdure-") as folder:
                path = os.path.join(folder, "empty.db")
                empty_file(path)
                return self._replica.replace(path, Place())
        try:
            with self._shelf.fetched(listed.blob, listed.content) as path:
                return self._replica.replace(path, listed.place)
        except Missing:
            raise Trimmed from None  # a newer one has replaced it

    def _apply_rest(self, is_wanted: Callable[[Record], bool]) -> None:
        while True:
            at = self._replica.place.position
            records, end = self._read(at)
            wanted = records[
                : next((no for no, record in enumerate(records) if not is_wanted(record)), len(records))
            ]
            if wanted:
                self._apply([record.content for record in wanted])
            if len(wanted) < len(records) or self._replica.place.position >= end:
                if end < self._replica.place.position:
                    self._refuse()
                return

    def _apply(self, records: list[bytes]) -> None:
        at = self._replica.place.position
        target = self._replica.apply([(record, self._body_of(record)) for record in records])
        if target is not None:
            self._move(target, records[self._replica.place.position - at])

    def _move(self, target: MovedTo, record: bytes) -> None:
        place = self._replica.place.after(record, 0)
        try:
            with self._shelf.fetched(target.blob, target.digest) as path:
                self._replica.replace(path, place)
        except Missing:
            raise Trimmed from None

    def _body_of(self, record: bytes) -> bytes | None:
        named = blob_of(record)
        if named is None:
            return None
        try:
            found = self._patience.asked(lambda: self._shelf.blobs.get(named.blob), self._shelf.where)
        except Missing:
            raise Trimmed from None
        if digest_of(found) != named.digest:
            raise StoreUnusable(
                f"the blob {named.blob} of {self._shelf.where} is damaged: its hash is another one"
            )
        return found

    def _read(self, at: int) -> tuple[list[Record], int]:
        return self._patience.asked(lambda: self._log.read(at), self._shelf.where)

    def _refuse(self) -> NoReturn:
        path, place = self._replica.path, self._replica.place
        raise StoreUnusable(
            f"{self._shelf.where} does not contain the commit {place.position - 1} that the replica {path} has: the "
            "storage account was restored to an earlier time, failed over, or the hub was deleted and created "
            f"again. If what the account has is right, delete the folder {os.path.dirname(path)} and start again. "
            f"If the replica is right, copy the hub from sqlite:///{path} to a new one with `perdure copy`"
        )


__all__ = ["CatchUp"]
