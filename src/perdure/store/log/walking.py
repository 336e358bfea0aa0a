"""Walking a log: for `perdure verify`, whether its records are one chain, and its snapshots what the chain says.

Each record has the hash of the record before it, so a changed, lost or foreign record shows at the next one. A batch
names the epoch that it was written in: one that names another epoch was written by an engine that was fenced.
Snapshots are compared with their hash in the list, with the chain at their position, and row by row with the older
snapshot plus the records in between. It only reads, and takes no lock.
"""

from __future__ import annotations

import os
import tempfile
import zlib
from contextlib import closing
from typing import TYPE_CHECKING, Final

import apsw

from perdure.errors import StoreUnusable
from perdure.store.log.catching_up import CatchUp
from perdure.store.log.port import Missing, Trimmed
from perdure.store.log.records import BEGINNING, Kind, blob_of, content_of, digest_of, header_of
from perdure.store.log.replica import Replica, empty_file, read_place
from perdure.store.log.snapshots import Shelf
from perdure.store.port import Walked
from perdure.store.sqlite.errors import translating

if TYPE_CHECKING:
    from perdure.store.log.appending import Patience
    from perdure.store.log.port import Log, Record, Service
    from perdure.store.log.snapshots import Listed

_OWN_TABLES: Final = ("log_place",)


def walk(service: Service, hub: str, patience: Patience) -> Walked:
    """Walk the log of a hub. Raises StoreError if the service does not answer, StoreTooNew for a newer format."""
    shelf = Shelf(service, hub, patience)
    with closing(service.log()) as log:
        while True:
            snapshots = shelf.read()[0].snapshots
            found = _walked(shelf, log, patience, hub, snapshots)
            # An engine that makes a snapshot meanwhile deletes records and blobs that this walk still needed.
            if not found.problems or shelf.read()[0].snapshots == snapshots:
                return found


def _walked(shelf: Shelf, log: Log, patience: Patience, hub: str, snapshots: list[Listed]) -> Walked:
    found = _Walk(shelf, log, patience, snapshots)
    try:
        found.run()
    except Missing:
        raise StoreUnusable(f"{shelf.where} does not have the hub {hub!r}") from None
    found.check_snapshots()
    if not found.walked.problems:
        _compare(shelf, log, patience, hub, snapshots, found.walked)
    return found.walked


class _Walk:
    """One walk, from the oldest record that is needed to the end."""

    def __init__(self, shelf: Shelf, log: Log, patience: Patience, snapshots: list[Listed]) -> None:
        self._shelf, self._log, self._patience, self._snapshots = shelf, log, patience, snapshots
        self._listed = {listed.position: listed for listed in snapshots}
        self._epoch: int | None = None
        self._digest = BEGINNING
        self.walked = Walked()

    def run(self) -> None:
        at, self._digest = self._start()
        self.walked.first = self.walked.end = at
        while True:
            try:
                records, end = self._patience.asked(lambda at=at: self._log.read(at), self._shelf.where)  # type: ignore[misc]
            except (Trimmed, StoreUnusable):
                self._tell(f"record {at} of the log is missing; the records from there on were not checked")
                return
            for record in records:
                self._look(at, record)
                at += 1
            self.walked.end = at
            if at >= end:
                break
        self._check_listed(at)
        if end < at or any(position > at for position in self._listed):
            self._tell(f"the log ends at {end}, before a snapshot of it")

    def _start(self) -> tuple[int, bytes]:
        """Where the walk begins: at the first record, or, if that was deleted, at the oldest snapshot."""
        try:
            self._patience.asked(lambda: self._log.read(0), self._shelf.where)
        except Trimmed:
            if self._snapshots:
                oldest = self._snapshots[0]
                return oldest.position, oldest.digest
        except StoreUnusable:
            pass  # told by the walk
        return 0, BEGINNING

    def _look(self, at: int, record: Record) -> None:
        self._check_listed(at)
        try:
            self._check(at, record.content)
        except StoreUnusable as error:
            self._tell(f"record {at} of the log cannot be read: {error}")
        self._digest = digest_of(record.content)

    def _check(self, at: int, record: bytes) -> None:
        header = header_of(record)
        if header.before != self._digest:
            self._tell(
                f"record {at} of the log does not follow record {at - 1}: one of them was changed or replaced"
                if at
                else "record 0 of the log does not begin a log"
            )
        if header.kind == Kind.EPOCH:
            self._epoch = at
        elif self._epoch is not None and header.incarnation != self._epoch:
            self._tell(
                f"record {at} of the log is of the epoch {header.incarnation}, after the epoch {self._epoch}: the "
                "engine that wrote it no longer held the hub"
            )
        content_of(record, self._body(at, record))

    def _body(self, at: int, record: bytes) -> bytes | None:
        named = blob_of(record)
        if named is None:
            return None
        self.walked.bodies += 1
        try:
            found = self._patience.asked(lambda: self._shelf.blobs.get(named.blob), self._shelf.where)
        except Missing:
            raise StoreUnusable(f"its body {named.blob} is missing") from None
        if digest_of(found) != named.digest:
            raise StoreUnusable(f"its body {named.blob} was changed: its hash is another one")
        return found

    def _check_listed(self, at: int) -> None:
        """Whether the snapshot at this position, if there is one, is listed with the hash of the record before."""
        listed = self._listed.get(at)
        if listed is not None and listed.digest != self._digest:
            self._tell(f"the snapshot {listed.blob} does not follow record {at - 1} of the log")

    def check_snapshots(self) -> None:
        """Whether each snapshot is there, unchanged, and of the position that the list says."""
        for listed in self._snapshots:
            self.walked.snapshots += 1
            try:
                with self._shelf.fetched(listed.blob, listed.content) as path:
                    flaw = _flaw(path, listed)
            except Missing:
                flaw = "is missing"
            except (StoreUnusable, zlib.error, apsw.Error) as error:
                flaw = f"cannot be read: {error}"
            if flaw:
                self._tell(f"the snapshot {listed.blob} {flaw}")

    def _tell(self, what: str) -> None:
        self.walked.problems.append(what)


def _flaw(path: str, listed: Listed) -> str:
    """What is wrong with a snapshot's file. One that was made outside of batches is of the record before."""
    with closing(apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)) as copy:
        place = read_place(copy.execute)
        broken = [said for (said,) in copy.execute("pragma quick_check(1)") if said != "ok"]
    if broken:
        return f"is damaged: {broken[0]}"
    expected = listed.position - bool(place.is_dirty)
    if place.position != expected or not (place.is_dirty or place.digest == listed.digest):
        return f"is of the position {place.position} of the log, and listed for {listed.position}"
    return ""


def _compare(
    shelf: Shelf, log: Log, patience: Patience, hub: str, snapshots: list[Listed], walked: Walked
) -> None:
    """Whether each snapshot has the rows of the one before it plus the records in between."""
    with tempfile.TemporaryDirectory(prefix="perdure-") as folder:
        path = os.path.join(folder, "walk.db")
        empty_file(path)
        with translating(path), closing(Replica(path, hub)) as replica:
            catching_up = CatchUp(replica, log, shelf, patience)
            for listed in snapshots:
                if walked.first > replica.place.position:
                    catching_up.begin_with(listed)  # the records before it were deleted
                    continue
                try:
                    catching_up.run_to(listed.position)
                    with shelf.fetched(listed.blob, listed.content) as snapshot:
                        unlike = _differing(path, snapshot)
                except (StoreUnusable, Trimmed, Missing) as error:
                    walked.problems.append(
                        f"the snapshot {listed.blob} cannot be compared with the records before it: {error}"
                    )
                    return
                if unlike:
                    walked.problems.append(
                        f"the snapshot {listed.blob} has other rows than the records before it: {', '.join(unlike)}"
                    )
                    return


def _differing(path: str, snapshot: str) -> list[str]:
    """The tables whose rows differ. Files of two versions of the schema are not compared."""
    with closing(apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        connection.execute("attach ? as snapshot", (snapshot,))
        versions = {connection.pragma("user_version", schema=name) for name in ("main", "snapshot")}
        if len(versions) > 1:
            return []
        found = connection.execute(
            "select name from main.sqlite_schema where type = 'table' and name not like 'sqlite_%'"
        )
        names = sorted(str(name) for (name,) in found.fetchall() if name not in _OWN_TABLES)
        return [name for name in names if _differs(connection, name)]


def _differs(connection: apsw.Connection, table: str) -> bool:
    ours, theirs = f'select * from main."{table}"', f'select * from snapshot."{table}"'
    sql = f"select exists ({ours} except {theirs}) or exists ({theirs} except {ours})"
    return bool(connection.execute(sql).fetchall()[0][0])


__all__ = ["walk"]
