"""run: serve an application on this machine, with its API and pages, in one process or several."""

from __future__ import annotations

import io
import logging
import os
import shlex
import sys
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from perdure.cli.app_loader import load_app, watched_files, watched_folder
from perdure.cli.azure_app import at_home, is_azure_app
from perdure.cli.banner import AppTerminal, Terminal
from perdure.cli.importing import told_while_importing
from perdure.cli.settings import chosen_of, flags_of, with_flags
from perdure.cli.terminal import EXIT_CODES, UNAVAILABLE, errors, fail, fail_with
from perdure.engine.client.access import ACCESS, shown_key
from perdure.errors import PerdureError, StoreError
from perdure.server.child import tether
from perdure.server.options import ServeOptions
from perdure.server.reloading import serve_reloading
from perdure.server.serving import ServedApp
from perdure.server.sockets import bind, is_loopback
from perdure.server.store_opening import await_store
from perdure.server.workers import supervise
from perdure.settings import TABLE, coded_in
from perdure.store import is_postgres, open_store

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Mapping

    from perdure.server.child import Tether
    from perdure.store.encryption import Encryption

commands = typer.Typer()


@commands.command(epilog=EXIT_CODES)
@with_flags(TABLE)
def run(
    target: Annotated[
        str,
        typer.Argument(
            metavar="APP",
            help="app.py, package, package.module:app, or the folder of an Azure Functions app.",
            show_default=False,
        ),
    ] = "app.py",
    reload: Annotated[bool, typer.Option("--reload", help="Restart when a source file changes.")] = False,
    *,
    given: dict[str, Any],
) -> None:
    """Serve an application: engine, HTTP API and pages, in one process or several (--workers)."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # so that a log shows the output of activities at once
    exported: list[str] = []
    try:
        if is_azure_app(target):
            target, given, exported = at_home(target, given)
    except PerdureError as error:
        fail_with(error)
    options, tied = ServeOptions(target, given, chosen_of(given)), tether()
    _check(options, reload=reload)
    try:
        if reload:
            _unset(exported)
            _reload(options)
        elif options.workers and tied is None:
            _unset(exported)
            _supervise(options)
        else:
            _serve_here(options, tied)
    except PerdureError as error:
        fail_with(error)
    except KeyboardInterrupt:
        errors().print("stopped before the server was ready")


def _unset(names: list[str]) -> None:
    """Take the app's settings out of the environment: each child process reads the app's files again."""
    for name in names:
        os.environ.pop(name, None)


def _check(options: ServeOptions, *, reload: bool) -> None:
    """Raise typer.BadParameter for settings that exclude each other."""
    if options.is_open and not is_loopback(options.host):
        raise typer.BadParameter(
            f"access=open lets every caller in, and other machines can reach {options.host}. "
            "Listen on 127.0.0.1, or leave access=open out"
        )
    if options.workers and reload:
        raise typer.BadParameter("--reload works with one process only. Leave --workers out")
    shared = {"--workers": options.workers, "--role": options.role != "all"}
    for flag, is_given in shared.items():
        if is_given and not is_postgres(options.chosen["store"].value):
            raise typer.BadParameter(
                f"{flag} needs a hub in PostgreSQL (--store postgresql://...), because only one process can serve "
                f"{options.store}. `perdure copy` copies a hub to PostgreSQL",
                param_hint=flag,
            )


def _serve_here(options: ServeOptions, tied: Tether | None) -> None:
    """Serve in this process."""
    number = "" if tied is None else f" [{tied.number}]"
    logging.basicConfig(format=f"%(levelname)s{number} %(name)s: %(message)s")
    logging.getLogger("perdure").setLevel(logging.INFO)
    with told_while_importing(options.target):
        app = load_app(options.target, options.chosen, tells=tied is None or tied.is_first)
    options = ServeOptions(options.target, options.given, chosen_of(options.given, coded_in(app.settings)))
    terminal = AppTerminal(options, app)
    await_store(options.chosen["store"].value, options.store_wait, terminal.waiting)
    serving = ServedApp(app, options, terminal, tied)
    if not options.listens:
        serving.run(None)
        return
    _demand_keys(options, options.chosen["hub"].value or app.name)
    if tied is not None and tied.listener is not None:
        serving.run(tied.listener)
        return
    with _bound(options) as listener:
        serving.run(listener)


def _demand_keys(options: ServeOptions, hub: str) -> None:
    """Refuse to listen on an address that other machines can reach while the hub has no access keys."""
    if is_loopback(options.host) or options.chosen["admin_key"].value:
        return
    if not _has_keys(options.chosen["store"].value, hub, options.chosen["encryption_keys"].value):
        raise typer.BadParameter(
            f"other machines can reach {options.host}, and the hub {hub!r} has no access keys. Everyone who reaches "
            "the server could start, read and end every instance. Create a key first, with `perdure keys create "
            f"NAME --scope admin --hub {shlex.quote(hub)}` on the same store, or set PERDURE_ADMIN_KEY, or listen "
            "on 127.0.0.1",
            param_hint="--host",
        )


def _has_keys(store: str, hub: str, encryption: Encryption | None) -> bool:
    """Whether the hub has an active key. Opens the store for reading only."""
    try:
        found = open_store(store, hub, encryption).keys()
    except StoreError:
        return False  # the store does not exist yet
    now = datetime.now(UTC)
    return any(row.kind == ACCESS and shown_key(row).state(now) == "active" for row in found)


@contextmanager
def _bound(options: ServeOptions) -> Iterator[socket.socket]:
    """Bind the socket. If the default port is taken, the next free one is used, on loopback addresses only."""
    host, port = options.host, options.port
    try:
        listener = bind(host, port, may_move=options.may_move)
    except OSError as error:
        fail(
            f"cannot listen on {host}:{port}: {error.strerror or error}. Another server may be using the port. Stop "
            "it, or choose another port with --port. --port 0 picks a free one",
            UNAVAILABLE,
        )
    with listener:
        moved = listener.getsockname()[1]
        if port and moved != port:
            told = f"port {port} is in use, so this server listens on port {moved} (choose one with --port)"
            errors().print(told, soft_wrap=True)
        yield listener


def _reload(options: ServeOptions) -> None:
    """Serve in a child process and restart it when a source file changes."""
    folder = watched_folder(options.target)
    if not folder.is_dir():
        fail(f"there is no folder {folder}", UNAVAILABLE)
    errors().print(Text(f"restarting on changes in {_short(folder)}", style="dim"))
    serve_reloading(folder, _command(options.target, options.given), options, watched_files(options.target))


def _supervise(options: ServeOptions) -> None:
    """Serve in several processes."""
    with _bound(options) if options.listens else nullcontext() as listener:
        code = supervise(options, lambda given: _command(options.target, given), listener, Terminal(options))
    if code:
        raise typer.Exit(code)
    errors().print("stopped")


def _command(target: str, given: Mapping[str, Any]) -> list[str]:
    return [sys.executable, "-m", "perdure.cli", "run", target, *flags_of(given)]


def _short(folder: Path) -> str:
    return str(folder.relative_to(Path.cwd())) if folder.is_relative_to(Path.cwd()) else str(folder)
