"""A disk that forgets what was not synced.

1. What has been asked of the disk is a log of operations; a cut may fall before, between and within any of them.
2. A file's bytes are certain once a sync of that file has returned; a name is certain once a sync of the
   directory has. A file's own sync says nothing about its name.
3. The directory is synced when SQLite's unix layer does it: with the first sync of a journal or log that was
   opened with leave to create it, and after a deletion that asks for it. Nobody else syncs it.
4. At a cut, each file's writes since its last sync are kept, lost, kept up to some point, or each kept or
   lost by chance in any order: the last write alone may be there, or an older version of the same bytes.
5. Any of them may be torn: each of its sectors of 512 bytes is then there or not, independently. Bytes of the
   same sector that were not written stay as they were; SQLite counts on that too ("powersafe overwrite").
6. A file that grew without a sync may be found grown or not; where its new bytes were lost it shows zeros or
   garbage. A truncation without a sync may be lost, with the writes that followed it kept, or the reverse.
7. Names linked or unlinked since the last sync of the directory may each be there or not, by chance: a new
   file is gone, a deleted one is back with whatever its last sync and the cut left of it.
8. A cut during a sync counts as no sync: everything under way has the fates of 4 to 7.
9. The shared memory file (`-shm`) and the side files of the process never survive; the store must not need them.
10. After a failed sync the bytes under way have met their fate: a process still reads them, the disk may not have
   them, and a later sync that succeeds says nothing about them. Only writing them again does.
11. Not modelled: a disk that lies about syncs (but see `Disk.lies`, the switch that shows that the tests
   bite), bytes that rot after they were synced, sectors that become unreadable, renames (SQLite makes none).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from random import Random

from powercuts.content import Content
from powercuts.operations import FailedSync, LinkFile, Operation, Sync, SyncNames, Truncate, UnlinkFile, Write
from powercuts.survival import surviving_bytes, surviving_names

Image = Mapping[str, Content]
"""What a disk holds, by file name."""


class Disk:
    """The names that are there now, and the log of everything that was asked. `before` may raise a failure."""

    def __init__(self, found: Image | None = None, *, lies: bool = False) -> None:
        self.found: Image = dict(found or {})
        self.log: list[Operation] = []
        self.phases: list[tuple[int, str]] = [(0, "opening")]
        self.lies = lies
        self.before: Callable[[Operation], None] | None = None
        self._names = {name: number for number, name in enumerate(self.found)}
        self._next = len(self._names)

    def do(self, operation: Operation) -> None:
        """Note an operation, before it is carried out; raises what it fails with."""
        if self.before is not None:
            self.before(operation)
        if self.lies and isinstance(operation, Sync | SyncNames):
            return
        self.log.append(operation)

    def has(self, name: str) -> bool:
        return name in self._names

    def file(self, name: str) -> int:
        """The number of the file of this name; a new one is made if need be."""
        number = self._names.get(name)
        if number is None:
            number = self._next
            self.do(LinkFile(name, number))
            self._next += 1
            self._names[name] = number
        return number

    def unlink(self, name: str) -> None:
        self.do(UnlinkFile(name))
        self._names.pop(name, None)

    def phase(self, name: str) -> None:
        """What happens from here on, for the tables."""
        self.phases.append((len(self.log), name))


class Platter:
    """What a disk holds for certain after the operations it was given, and what hangs in the balance."""

    def __init__(self, found: Image, seed: int = 0) -> None:
        self._chance = Random(seed)
        self._names = {name: number for number, name in enumerate(found)}
        self._unsure_names: list[LinkFile | UnlinkFile] = []
        self._certain = {self._names[name]: content.copy() for name, content in found.items()}
        self._unsure: dict[int, list[Write | Truncate]] = {}

    def take(self, operations: Iterable[Operation]) -> None:
        """These have happened."""
        for operation in operations:
            match operation:
                case Write() | Truncate():
                    self._unsure.setdefault(operation.file, []).append(operation)
                case Sync():
                    content = self._certain.setdefault(operation.file, Content())
                    for one in self._unsure.pop(operation.file, ()):
                        content.apply(one)
                case FailedSync():
                    content = self._certain.setdefault(operation.file, Content())
                    unsure = self._unsure.pop(operation.file, ())
                    self._certain[operation.file] = surviving_bytes(content, unsure, self._chance)
                case LinkFile() | UnlinkFile():
                    self._unsure_names.append(operation)
                case SyncNames():
                    _apply_names(self._names, self._unsure_names)
                    self._unsure_names = []

    def cut(self, chance: Random, under_way: Operation | None = None) -> dict[str, Content]:
        """The power fails: what is found when it is back. The platter itself stays as it is."""
        names, doubtful = dict(self._names), list(self._unsure_names)
        if isinstance(under_way, LinkFile | UnlinkFile):
            doubtful.append(under_way)
        _apply_names(names, surviving_names(doubtful, chance))
        image: dict[str, Content] = {}
        for name, number in names.items():
            unsure = list(self._unsure.get(number, ()))
            if isinstance(under_way, Write | Truncate) and under_way.file == number:
                unsure.append(under_way)
            image[name] = surviving_bytes(self._certain.get(number) or Content(), unsure, chance)
        return image


def _apply_names(names: dict[str, int], changes: Iterable[LinkFile | UnlinkFile]) -> None:
    for change in changes:
        if isinstance(change, LinkFile):
            names[change.name] = change.file
        else:
            names.pop(change.name, None)
