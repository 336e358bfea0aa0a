"""What `perdure run` says while the import of an application takes long."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import FrameType

FIRST: Final = 5.0
"""Seconds until the first line."""
EVERY: Final = 30.0
"""Seconds between the lines after it."""
log = logging.getLogger("perdure.cli")


@contextmanager
def told_while_importing(target: str, wait: Callable[[float], bool] | None = None) -> Iterator[None]:
    """Log now and then how long the import lasts, and which line it is at. Nothing ends an import.

    Parameters:
        target: the application that is imported.
        wait: waits for seconds, and returns whether the import has ended.
    """
    ended = threading.Event()
    importer = threading.get_ident()
    thread = threading.Thread(
        target=_tell, args=(target, importer, wait or ended.wait), name="perdure-import", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        ended.set()


def _tell(target: str, importer: int, has_ended: Callable[[float], bool]) -> None:
    waited = 0.0
    for seconds in chain((FIRST,), repeat(EVERY)):
        if has_ended(seconds):
            return
        waited += seconds
        log.info("%s is being imported, since %.0f s%s", target, waited, _place(target, importer))


def _place(target: str, importer: int) -> str:
    """The innermost line of the application's own that the import is at; "" if there is none."""
    path = Path(target).resolve()
    folder = str(path if path.is_dir() else path.parent)
    frame: FrameType | None = sys._current_frames().get(importer)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(folder) and "site-packages" not in file:
            return f": it is at line {frame.f_lineno} of {file}"
        frame = frame.f_back
    return ""


__all__ = ["told_while_importing"]
