"""Serves an application in a child process that restarts when a source file changes."""

from __future__ import annotations

import os
import secrets
import shlex
from typing import TYPE_CHECKING

from watchfiles import PythonFilter, run_process

from perdure.server.uvicorn_server import GRACE
from perdure.settings import MADE_UP

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from perdure.server.options import ServeOptions


def serve_reloading(folder: Path, command: Sequence[str], options: ServeOptions) -> None:
    """Run the command, and restart it whenever a Python file in the folder changes."""
    # The token stays the same after a restart, so that browsers stay signed in.
    if options.chosen["token"].value is None:
        os.environ.update({"PERDURE_TOKEN": secrets.token_urlsafe(24), MADE_UP: "1"})
    run_process(
        folder,
        target=shlex.join(command),
        target_type="command",
        watch_filter=PythonFilter(),
        debounce=200,
        sigint_timeout=GRACE + 5,
    )


__all__ = ["serve_reloading"]
