"""Serves an application in a child process that restarts when a source file changes."""

from __future__ import annotations

import os
import secrets
import shlex
from typing import TYPE_CHECKING

from watchfiles import DefaultFilter, PythonFilter, run_process

from perdure.server.uvicorn_server import GRACE
from perdure.settings import MADE_UP

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from watchfiles import Change

    from perdure.server.options import ServeOptions


class SourceFilter(PythonFilter):
    """Python files, and files of these names. Folders such as .venv and node_modules do not count."""

    def __init__(self, names: Collection[str]) -> None:
        super().__init__()
        self._names = names

    def __call__(self, change: Change, path: str) -> bool:
        if os.path.basename(path) in self._names:
            return DefaultFilter.__call__(self, change, path)
        return super().__call__(change, path)


def serve_reloading(
    folder: Path, command: Sequence[str], options: ServeOptions, names: Collection[str] = ()
) -> None:
    """Run the command, and restart it whenever a Python file in the folder changes, or a file of one of the names."""
    # The token stays the same after a restart, so that browsers stay signed in.
    if options.chosen["token"].value is None:
        os.environ.update({"PERDURE_TOKEN": secrets.token_urlsafe(24), MADE_UP: "1"})
    run_process(
        folder,
        target=shlex.join(command),
        target_type="command",
        watch_filter=SourceFilter(names),
        debounce=200,
        sigint_timeout=GRACE + 5,
    )


__all__ = ["SourceFilter", "serve_reloading"]
