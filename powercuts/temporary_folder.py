"""Where the files lie: in memory if there is room for them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_MEMORY = "/dev/shm"


@contextmanager
def folder() -> Iterator[str]:
    """An empty folder, gone afterwards."""
    in_memory = os.path.isdir(_MEMORY) and os.access(_MEMORY, os.W_OK)
    path = tempfile.mkdtemp(prefix="powercut-", dir=_MEMORY if in_memory else None)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
