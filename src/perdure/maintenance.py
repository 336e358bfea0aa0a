"""Care for whole stores: backups, copies from one store to another, and encrypting again with a new key.

The first two end with a check of what they made: every history read back, its chain, and that each row agrees
with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol, cast

from perdure.engine.upkeep.verification import Report, verify
from perdure.errors import SettingError, StoreUnusable
from perdure.model.settings import mask
from perdure.settings import encryption_given, refuses_open_files
from perdure.store import file_of, hubs_of, is_postgres, open_store, sqlite_path
from perdure.store.encryption import Encryption
from perdure.store.port import ClientStore, Store
from perdure.store.rekeying import Encrypting
from perdure.store.transfer import Movable, transfer

Progress = Callable[[str, int, int], object]
"""Told what is being done, how much of it is done, and of how much; 0 when that is not known."""
SHOWN: Final = 3  # problems that an error tells


@dataclass(frozen=True)
class Backup:
    """A backup that was made and checked."""

    file: str
    size: int  # bytes
    hubs: dict[str, Report] = field(default_factory=dict)

    @property
    def instances(self) -> int:
        return sum(report.instances for report in self.hubs.values())

    @property
    def problems(self) -> list[str]:
        """What is damaged in it, as it is in the store."""
        return [problem for report in self.hubs.values() for problem in report.problems]


def backup(
    store: str,
    file: str | os.PathLike[str],
    *,
    encryption: Encryption | None = None,
    with_damage: bool = False,
    progress: Progress = lambda *_: None,
) -> Backup:
    """Copy a SQLite store to a new file, as it is at one moment, while an engine may be serving it.

    The file gets its name when it is complete, on disk and checked; a store is opened at it like any other.
    It blocks: in an event loop use `asyncio.to_thread`.

    Parameters:
        store: `sqlite:///file.db` or a path.
        file: where the copy goes; nothing may be there. What is encrypted is so in the copy, under the same keys.
        encryption: the keys to check the copy with, default `PERDURE_ENCRYPTION_KEYS`; without them the order
            and the chain of what is encrypted are checked, not its content.
        with_damage: keep the copy also when rows of it are damaged, as they are in the store; the reports of its
            hubs name them. A file that SQLite itself finds damaged is refused all the same.
        progress: told "pages" as they are copied, then "instances checked".

    Raises:
        StoreUnusable when the store cannot be backed up so, when the file exists, or when the copy, and then
        the store itself, is damaged. StoreFull.
    """
    from perdure.store.sqlite.backup import back_up

    source, target = _file_of(store), os.path.abspath(os.fspath(file))
    hubs: dict[str, Report] = {}
    keys = encryption_given(encryption)

    def check(copied: str) -> None:
        for hub in hubs_of(copied):
            hubs[hub] = _checked(copied, hub, keys, progress, with_damage=with_damage)

    size = back_up(source, target, check, lambda done, total: progress("pages", done, total))
    return Backup(target, size, hubs)


@dataclass(frozen=True)
class Copy:
    """A hub that was copied: how many rows of each table, and what checking it found."""

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
    """Copy a hub, with all that is in flight in it, into another, empty, store.

    Nobody may be serving the source. Afterwards serve one of the two: both would do the same work. A copy that
    is cut off leaves nothing to be seen at the destination; do it again. It blocks: in an event loop use
    `asyncio.to_thread`.

    Parameters:
        source, destination: URLs or paths as for `app.running()`, or stores that are not open.
        hub: which hub; default the only one of the source.
        encryption: the keys that the source is read with, and the current one of which the copy is encrypted
            with; default `PERDURE_ENCRYPTION_KEYS`. Stores that are handed over have their own.
        plain: leave the copy unencrypted.
        progress: told "instances to copy checked", each table's name with its rows as they are copied, then
            "instances checked".

    Raises:
        StoreInUse when a server has the source or the destination; StoreUnusable when rows of the source are damaged,
        when the destination is not empty, or when what was copied is not sound.
    """
    name = _hub_of(source, hub)
    keys = encryption_given(encryption)
    origin = _movable(source, name, keys)
    goal = _movable(destination, name, None if plain else keys)
    if origin.location and os.path.realpath(origin.location) == os.path.realpath(goal.location):
        raise StoreUnusable(f"{origin.location} cannot be copied into itself")
    try:
        origin.open()
        _demand_undamaged(origin, name, progress)
        goal.open()
        rows = transfer(origin, goal, progress)
        report = demand_sound(goal, f"the copy of hub {name!r}", progress)
    finally:
        for store in (goal, origin):
            store.close_reader()
            store.close()
    return Copy(name, rows, report)


@dataclass(frozen=True)
class Rekeying:
    """A store that was encrypted again: for each hub the rows by table, and what could not be decrypted."""

    key: str  # the id of the key that everything is encrypted with now
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
    """Encrypt what a store holds with the current key: plain rows, and rows of other keys.

    Nobody may be serving it. It goes page by page; cut off at any moment, the next run goes on where it stopped, and
    the store can be served in between with the keys both old and new. Digests and chain stay as they are. It
    blocks: in an event loop use `asyncio.to_thread`.

    Parameters:
        store: `sqlite:///file.db`, a path, or `postgresql://`.
        hub: which hub; default all that are there.
        encryption: the keys, default `PERDURE_ENCRYPTION_KEYS`; those that rows are encrypted with now among them.
        vacuum: write the file, or the tables, anew at the end, so that plain text deleted long ago is not left in
            their free space.
        progress: told tables and columns, with their rows as they are encrypted.

    Raises:
        StoreInUse when a server has the store; WrongEncryptionKey; SettingError when there are no keys.
    """
    keys = encryption_given(encryption)
    if keys is None:
        raise SettingError(
            "no key to encrypt with: set PERDURE_ENCRYPTION_KEYS. `perdure encryption-key` makes one"
        )
    names = [name for name in hubs_of(store) if hub in (None, name)]
    if not names:
        raise StoreUnusable(f"there is no hub {hub!r} in {mask(store)}")
    done = Rekeying(keys.current, {}, 0, [])
    for name in names:
        opened = open_store(store, name, keys, refuse_open_files=refuses_open_files())
        if not isinstance(opened, Encrypting):
            raise StoreUnusable(f"a {type(opened).__name__} cannot be encrypted again")
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
    """A store whose hub can be moved."""


def _movable(store: str | Store, hub: str, keys: Encryption | None) -> _MovableStore:
    if isinstance(store, str):
        opened = open_store(store, hub, keys, refuse_open_files=refuses_open_files())
    else:
        opened = store
    if not isinstance(opened, Movable):
        raise StoreUnusable(f"a {type(opened).__name__} cannot be copied from or to")
    return cast("_MovableStore", opened)


def _hub_of(source: str | Store, hub: str | None) -> str:
    """The hub that was named, or the only one there is."""
    if not isinstance(source, str):
        return hub or str(getattr(source, "hub", ""))
    names = hubs_of(source)
    listed = ", ".join(names) or "none"
    if hub is not None and hub not in names:
        raise StoreUnusable(f"there is no hub {hub!r} in {mask(source)}; it has {listed}")
    if hub is None and len(names) != 1:
        raise StoreUnusable(f"{mask(source)} does not have one hub, it has {listed}: say which one to copy")
    return hub or names[0]


def _checked(
    file: str, hub: str, keys: Encryption | None, progress: Progress, *, with_damage: bool
) -> Report:
    opened = open_store(file, hub, keys)
    try:
        if with_damage:
            return verified(opened, progress)
        return demand_sound(
            opened,
            f"the copy of hub {hub!r}",
            progress,
            cure=". Remove the damaged instances, or keep the copy as it is: `perdure backup --with-damage`",
        )
    finally:
        opened.close_reader()


def _demand_undamaged(origin: ClientStore, hub: str, progress: Progress) -> None:
    """Verify a hub that is to be copied: the destination would refuse a damaged row without telling whose it is."""
    report = verified(origin, progress, "instances to copy checked")
    if report.ok:
        return
    told = "; ".join(report.problems[:SHOWN])
    raise StoreUnusable(
        f"hub {hub!r} is damaged and was not copied ({len(report.problems)} problems): {told}. `perdure verify` "
        "tells all of them. Remove a damaged instance (`perdure export --raw`, `perdure terminate` if it is not "
        "finished, `perdure purge`) and copy again. `perdure backup --with-damage` keeps a file as it is"
    )


def verified(store: ClientStore, progress: Progress, what: str = "instances checked") -> Report:
    """What verifying a store at rest finds."""
    total = sum(store.counts().values())

    def tell(done: int) -> None:
        progress(what, done, total)

    return verify(store, tell)


def demand_sound(store: ClientStore, what: str, progress: Progress, cure: str = "") -> Report:
    """Verify a store at rest. Raises StoreUnusable naming the first problems; `cure` says what can be done."""
    report = verified(store, progress)
    if not report.ok:
        told = "; ".join(report.problems[:SHOWN])
        raise StoreUnusable(
            f"{what} has {len(report.problems)} problems, which its origin must have, too: {told}. "
            f"`perdure verify` tells all of them{cure}"
        )
    return report


def _file_of(store: str) -> str:
    """The file of a store that is backed up by copying a file. Raises StoreUnusable."""
    if is_postgres(store):
        raise StoreUnusable(
            f"{mask(store)} is not a file: PostgreSQL has its own tools for backups, pg_dump for the schema as it is "
            "now and pg_basebackup with archived WAL for any moment; `perdure copy` makes a SQLite file of a hub"
        )
    if not sqlite_path(store):
        raise StoreUnusable(
            f"only a SQLite file is backed up this way, not {mask(store)!r}: use its database's own tools, or copy"
        )
    return file_of(store)
