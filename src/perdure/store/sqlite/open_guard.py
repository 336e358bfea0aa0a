"""The guard: inside the engine's process, nothing but apsw may open the hub's file.

POSIX drops all of a process's locks on a file when *any* descriptor of that file is closed. A second SQLite
library (the standard `sqlite3`, another wheel) or a plain `open()` of the hub, closed again, therefore
silently unlocks it under the engine: another process can then write between its pages, a commit vanishes and
`integrity_check` still says ok. It was measured, and no test of one's own would notice.
So an audit hook refuses such an open while an engine of this process has the file open. It compares device
and inode, so that links do not help. Other processes have locks of their own and are free.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Final
from urllib.parse import unquote

from perdure.errors import StoreUnusable

_guarded: Final[dict[tuple[int, int], tuple[int, str]]] = {}  # (device, inode) -> pid, path
_installed: Final[list[bool]] = []  # audit hooks cannot be taken out again: one for the life of the process
_SIDES: Final = ("-wal", "-shm")


def protect(path: str) -> None:
    """Reject every open of this file from now on, except by apsw."""
    if not _installed:
        _installed.append(True)
        sys.addaudithook(_audit)
    _guarded[_identity(path)] = os.getpid(), path


def unprotect(path: str) -> None:
    """Allow opens again, after the engine has closed the file."""
    for key in [key for key, (_, guarded) in _guarded.items() if guarded == path]:
        del _guarded[key]


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if not _guarded or (event != "open" and event != "sqlite3.connect"):
        return
    path = _path_of(event, args)
    if not path:
        return
    if path.endswith(_SIDES):
        path = path[:-4]
    try:
        pid, guarded = _guarded.get(_identity(path), (0, ""))
    except (OSError, ValueError):  # it does not exist, so it is not ours
        return
    if pid == os.getpid():
        raise StoreUnusable(
            f"{guarded} is open in this process's engine: opening it again with "
            f"{'sqlite3' if event == 'sqlite3.connect' else 'open()'} would drop the engine's locks and lose "
            "commits. Use the client, or another process; make copies through SQLite's backup API"
        )


def _path_of(event: str, args: tuple[Any, ...]) -> str:
    path = args[0] if args else None
    if isinstance(path, bytes | os.PathLike):
        path = os.fsdecode(path)
    if not isinstance(path, str):  # an open descriptor
        return ""
    if event == "sqlite3.connect" and path.startswith("file:"):
        path = unquote(path[len("file:") :].split("?")[0].split("#")[0])
        return path[path.find("/", 2) :] if path.startswith("//") else path
    return path


def _identity(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino
