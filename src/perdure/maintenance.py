"""Maintenance of whole stores: backups, copies to another store, and encryption with a new key.

A backup and a copy end with a check of the result: it reads back every history and checks its hash chain and rows.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol, cast

from perdure.engine.upkeep.verification import Report, verify
from perdure.errors import SettingError, StoreUnusable
from perdure.model.settings import mask
from perdure.settings import encryption_given, partitions_given, refuses_open_files
from perdure.store import copy_from_log, file_of, hubs_of, is_azure, is_postgres, open_store, sqlite_path
from perdure.store.encryption import Encryption
from perdure.store.port import ClientStore, Store
from perdure.store.rekeying import Encrypting
from perdure.store.transfer import Movable, transfer

Progress = Callable[[str, int, int], object]
"""Called with the kind of work, the amount that is done, and the total, which is 0 if it is not known."""
SHOWN: Final = 3  # problems in the message of an error
NOT_COPIED: Final = (
    "it was not copied. Remove a damaged instance (`perdure export --raw`, `perdure terminate` if it is not "
    "finished, `perdure purge`) and copy again. `perdure backup --with-damage` keeps a file as it is"
)
COPIED_WITH_DAMAGE: Final = "its copy has these problems, so the original has them too"
NOT_BACKED_UP: Final = (
    f"{COPIED_WITH_DAMAGE}. Purge the damaged instances, or keep the backup as it is with "
    "`perdure backup --with-damage`"
)


@dataclass(frozen=True)
class Backup:
    """A complete and checked backup."""

    file: str
    size: int  # bytes
    hubs: dict[str, Report] = field(default_factory=dict)

    @property
    def instances(self) -> int:
        return sum(report.instances for report in self.hubs.values())

    @property
    def problems(self) -> list[str]:
        """The damaged rows, which are damaged in the store too."""
        return [problem for report in self.hubs.values() for problem in report.problems]


def backup(
    store: str,
    file: str | os.PathLike[str],
    *,
    encryption: Encryption | None = None,
    with_damage: bool = False,
    hub: str | None = None,
    at: datetime | None = None,
    progress: Progress = lambda *_: None,
) -> Backup:
    """Back up a SQLite store, or a hub in Azure Storage, to a new SQLite file, as a snapshot of one moment.

    An engine can serve the store meanwhile.

    The file appears after it is complete, on disk and checked. It is a store like any other. The function blocks, so
    use `asyncio.to_thread` in an event loop.

    Parameters:
        store: `sqlite:///file.db`, a path, or `azure:`.
        file: the new file, which must not exist. Encrypted content stays encrypted with the same keys.
        encryption: the keys to check the backup with. Default: `PERDURE_ENCRYPTION_KEYS`. Without them, the check
            covers the order and the hash chain of encrypted rows, but not their content.
        with_damage: keep the backup even if rows are damaged in the store. The reports of the hubs list them. A file
            that SQLite itself reports as damaged is rejected nevertheless.
        hub: of a storage account with several hubs, the one to back up. A file is backed up with all of its hubs.
        at: of a hub in Azure Storage, the moment to go back to. `keep_log` is how far the hub can go back.
        progress: called for "pages" while they are copied, and then for "instances checked".

    Raises:
        StoreUnusable if the store cannot be backed up in this way, if the file exists, or if the backup, and so the
        store, is damaged. StoreFull.
    """
    from perdure.store.sqlite.backup import back_up

    target = os.path.abspath(os.fspath(file))
    if is_azure(store):
        with tempfile.TemporaryDirectory(prefix="perdure-") as folder:
            restored = os.path.join(folder, "hub.db")
            copy_from_log(store, _hub_of(store, hub), restored, at=at)
            return backup(restored, target, encryption=encryption, with_damage=with_damage, progress=progress)
    if at is not None or hub is not None:
        raise StoreUnusable(f"{mask(store)} is not in Azure Storage: only such a store has `hub` and `at`")
    source = _file_of(store)
    hubs: dict[str, Report] = {}
    keys = encryption_given(encryption)

    def check(copied: str) -> None:
        for hub in hubs_of(copied):
            hubs[hub] = _checked(copied, hub, keys, progress, with_damage=with_damage)

    size = back_up(source, target, check, lambda done, total: progress("pages", done, total))
    return Backup(target, size, hubs)


@dataclass(frozen=True)
class Copy:
    """A copied hub: the number of rows of each table, and the report of the check."""

    hub: str
    rows: dict[str, int]
    report: Report


def copy(
    source: str | Store,
    destination: str | Store,
    *,
    hub: str | None = None,
    encryption: Encryption | None = None,
    plain: bool = False,
    progress: Progress = lambda *_: None,
) -> Copy:
    """Copy a hub, with its unfinished instances, to another, empty store.

    The source must not be running. Afterwards serve only one of the two stores. If both are served, both do the same
    work. An interrupted copy leaves nothing visible at the destination, so run it again. The function blocks, so use
    `asyncio.to_thread` in an event loop.

    Parameters:
        source, destination: URLs or paths as for `app.running()`, or stores that are not open.
        hub: the name of the hub. Default: the only hub of the source.
        encryption: the keys to read the source with. The first of them encrypts the copy. Default:
            `PERDURE_ENCRYPTION_KEYS`. A store object has its own keys.
        plain: leave the copy unencrypted.
        progress: called for "instances to copy checked", for each table while its rows are copied, and then for
            "instances checked".

    Raises:
        StoreInUse if a server runs on the source or the destination. StoreUnusable if rows of the source are damaged,
        if the destination is not empty, or if the check finds problems in the copy.
    """
    name = _hub_of(source, hub)
    keys = encryption_given(encryption)
    origin = _movable(source, name, keys)
    goal = _movable(destination, name, None if plain else keys)
    if origin.location and os.path.realpath(origin.location) == os.path.realpath(goal.location):
        raise StoreUnusable(f"{origin.location} cannot be copied into itself")
    try:
        origin.open()
        # before the copy, because the destination rejects a damaged row without its instance id
        demand_sound(verified(origin, progress, "instances to copy checked"), name, NOT_COPIED)
        goal.open()
        rows = transfer(origin, goal, progress)
        report = demand_sound(verified(goal, progress), name, COPIED_WITH_DAMAGE)
    finally:
        for store in (goal, origin):
            store.close_reader()
            store.close()
    return Copy(name, rows, report)


@dataclass(frozen=True)
class Rekeying:
    """The result of `rekey`: for each hub the encrypted rows by table, and the rows that could not be decrypted."""

    key: str  # the id of the key that encrypts everything now
    hubs: dict[str, dict[str, int]]
    plain: int  # rows that had not been encrypted before
    unreadable: list[str]

    @property
    def rows(self) -> int:
        return sum(sum(rows.values()) for rows in self.hubs.values())


def rekey(
    store: str,
    *,
    hub: str | None = None,
    encryption: Encryption | None = None,
    vacuum: bool = False,
    progress: Progress = lambda *_: None,
) -> Rekeying:
    """Encrypt a store with the current key: plain rows, and rows that other keys encrypt.

    The store must not be running. The work proceeds page by page. After an interruption, the next run continues where
    it stopped. In between, the store can be served with both the old and the new keys. Digests and hash chains do not
    change. The function blocks, so use `asyncio.to_thread` in an event loop.

    Parameters:
        store: `sqlite:///file.db`, a path, or `postgresql://`.
        hub: the name of the hub. Default: all hubs of the store.
        encryption: the keys, the current one first, with all keys that encrypt rows now. Default:
            `PERDURE_ENCRYPTION_KEYS`.
        vacuum: rewrite the file or the tables at the end, so that their free space contains no deleted plain text.
        progress: called for tables and columns while their rows are encrypted.

    Raises:
        StoreInUse if a server runs on the store. WrongEncryptionKey. SettingError if there are no keys.
    """
    keys = encryption_given(encryption)
    if keys is None:
        raise SettingError(
            "there is no key to encrypt with. Set PERDURE_ENCRYPTION_KEYS. `perdure encryption-key` prints a new key"
        )
    names = [name for name in hubs_of(store) if hub in (None, name)]
    if not names:
        raise StoreUnusable(f"there is no hub {hub!r} in {mask(store)}")
    done = Rekeying(keys.current, {}, 0, [])
    for name in names:
        opened = open_store(store, name, keys, refuse_open_files=refuses_open_files())
        if not isinstance(opened, Encrypting):
            raise StoreUnusable(f"a {type(opened).__name__} does not support encryption with a new key")
        try:
            opened.open()
            found = opened.rekey(progress)
            if vacuum and name == names[-1]:
                opened.vacuum()
        finally:
            opened.close()
        done = Rekeying(
            keys.current,
            {**done.hubs, name: found.rows},
            done.plain + found.plain,
            [*done.unreadable, *found.unreadable],
        )
    return done


class _MovableStore(Store, Movable, Protocol):
    """A store whose hub can be copied."""


def _movable(store: str | Store, hub: str, keys: Encryption | None) -> _MovableStore:
    if isinstance(store, str):
        opened = open_store(
            store, hub, keys, refuse_open_files=refuses_open_files(), partitions=partitions_given()
        )
    else:
        opened = store
    if not isinstance(opened, Movable):
        raise StoreUnusable(f"a {type(opened).__name__} does not support copies")
    return cast("_MovableStore", opened)


def _hub_of(source: str | Store, hub: str | None) -> str:
    """The given hub, or the only hub of the source."""
    if not isinstance(source, str):
        return hub or str(getattr(source, "hub", ""))
    names = hubs_of(source)
    listed = ", ".join(names) or "none"
    if hub is not None and hub not in names:
        raise StoreUnusable(f"there is no hub {hub!r} in {mask(source)}. Its hubs: {listed}")
    if hub is None and len(names) != 1:
        raise StoreUnusable(
            f"{mask(source)} does not have exactly one hub. Name the hub to copy. Its hubs: {listed}"
        )
    return hub or names[0]


def _checked(
    file: str, hub: str, keys: Encryption | None, progress: Progress, *, with_damage: bool
) -> Report:
    opened = open_store(file, hub, keys)
    try:
        report = verified(opened, progress)
        return report if with_damage else demand_sound(report, hub, NOT_BACKED_UP)
    finally:
        opened.close_reader()


def verified(store: ClientStore, progress: Progress, what: str = "instances checked") -> Report:
    """Verify a store that no engine serves."""
    total = sum(store.counts().values())

    def tell(done: int) -> None:
        progress(what, done, total)

    return verify(store, tell)


def demand_sound(report: Report, hub: str, outcome: str) -> Report:
    """Raise StoreUnusable with the first problems of a report and what became of the copy, if it has any."""
    if report.ok:
        return report
    told = "; ".join(report.problems[:SHOWN])
    raise StoreUnusable(
        f"hub {hub!r} is damaged ({len(report.problems)} problems): {told}. `perdure verify` lists all of them; "
        f"{outcome}"
    )


def _file_of(store: str) -> str:
    """The file of a SQLite store. Raises StoreUnusable for any other store."""
    if is_postgres(store):
        raise StoreUnusable(
            f"{mask(store)} is not a file, and `backup` is for SQLite files only. Back up PostgreSQL with its own "
            "tools: pg_dump for the current state, pg_basebackup with archived WAL for any point in time. "
            "`perdure copy` copies a hub to a SQLite file"
        )
    if not sqlite_path(store):
        raise StoreUnusable(
            f"{mask(store)!r} is not a SQLite file, and `backup` is for SQLite files only. Use the database's own "
            "tools, or `perdure copy`"
        )
    return file_of(store)
