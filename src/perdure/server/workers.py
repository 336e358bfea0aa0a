"""Serves an application in several worker processes."""

from __future__ import annotations

import os
import secrets
import socket
from typing import TYPE_CHECKING, Any

from perdure.server.lease_keeper import LeaseKeeper
from perdure.server.supervision import Launch, Supervisor
from perdure.settings import MADE_UP, TABLE
from perdure.store import open_overseer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from perdure.server.options import ServeOptions
    from perdure.server.serving import Announcer

_OWN = frozenset({"workers", "worker_name"})
"""Settings that the supervisor uses itself, or sets for each worker."""


def supervise(
    options: ServeOptions,
    command: Callable[[Mapping[str, Any]], list[str]],
    listener: socket.socket | None,
    announcer: Announcer,
) -> int:
    """Serve in several processes and restart a process that ends. Returns the exit code.

    Parameters:
        options: the settings.
        command: makes the command line of a worker from its settings.
        listener: the socket that the workers share, or None for workers without an API.
        announcer: prints the progress.
    """
    place = options.chosen["worker_name"].value or socket.gethostname()
    name = f"{place}-{secrets.token_hex(2)}"
    overseer, lease = open_overseer(options.chosen["store"].value), options.chosen["lease"].value
    hidden = _hidden(options)
    told = {k: v for k, v in options.given.items() if k not in _OWN and f"PERDURE_{k.upper()}" not in hidden}
    supervisor = Supervisor(
        Launch(
            lambda called: command({**told, "worker_name": called}),
            {**os.environ, **hidden, **_token(options)},
            listener,
        ),
        name,
        options.workers,
        say=announcer.say,
        announce=lambda report: announcer.serving(report.facts),
        place=place,
        oversee=lambda at_work: LeaseKeeper(overseer, at_work, lease) if overseer is not None else None,
    )
    return supervisor.run()


def _hidden(options: ServeOptions) -> dict[str, Any]:
    """Secret settings as environment variables, because other users can see the arguments of a process."""
    return {
        row.variable: options.given[row.name] for row in TABLE if row.secret and row.name in options.given
    }


def _token(options: ServeOptions) -> dict[str, str]:
    """The variables of the start-up token. All workers share one token."""
    given = options.chosen["token"].value
    return {"PERDURE_TOKEN": given or secrets.token_urlsafe(24), MADE_UP: "" if given else "1"}


__all__ = ["supervise"]
