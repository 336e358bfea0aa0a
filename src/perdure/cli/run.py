"""run: serve an application on this machine, with its API and its pages, in one process or in several."""

from __future__ import annotations

import io
import logging
import shlex
import sys
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from perdure.cli.app_loader import load_app, watched_folder
from perdure.cli.azure_app import at_home, is_azure_app
from perdure.cli.banner import AppTerminal, Terminal
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
    reload: Annotated[bool, typer.Option("--reload", help="Start again when a file changes.")] = False,
    *,
    given: dict[str, Any],
) -> None:
    """Serve an application: engine, HTTP API and pages, in one process or in --workers."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # what activities print is in a log at once
    try:
        if is_azure_app(target):
            target, given = at_home(target, given)
    except PerdureError as error:
        fail_with(error)
    options, tied = ServeOptions(target, given, chosen_of(given)), tether()
    _check(options, reload=reload)
    try:
        if reload:
            _reload(options)
        elif options.workers and tied is None:
            _supervise(options)
        else:
            _serve_here(options, tied)
    except PerdureError as error:
        fail_with(error)
    except KeyboardInterrupt:
        errors().print("stopped before it was serving")


def _check(options: ServeOptions, *, reload: bool) -> None:
    """Raise typer.BadParameter for settings that do not go together."""
    if options.is_open and not is_loopback(options.host):
        raise typer.BadParameter(f"{options.host} can be reached by others: access=open is for loopback")
    if options.workers and reload:
        raise typer.BadParameter("--reload is for one process: leave --workers out")
    shared = {"--workers": options.workers, "--role": options.role != "all"}
    for flag, is_given in shared.items():
        if is_given and not is_postgres(options.chosen["store"].value):
            raise typer.BadParameter(
                f"one process serves {options.store}, and does everything: {flag} is for hubs in PostgreSQL "
                "(--store postgresql://...); `perdure copy` takes a hub there",
                param_hint=flag,
            )


def _serve_here(options: ServeOptions, tied: Tether | None) -> None:
    """Serve in this process."""
    number = "" if tied is None else f" [{tied.number}]"
    logging.basicConfig(format=f"%(levelname)s{number} %(name)s: %(message)s")
    logging.getLogger("perdure").setLevel(logging.INFO)
    app = load_app(options.target, options.chosen)
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
    """An address that others reach is served only when there are keys to ask them for."""
    if is_loopback(options.host) or options.chosen["admin_key"].value:
        return
    if not _has_keys(options.chosen["store"].value, hub, options.chosen["encryption_keys"].value):
        raise typer.BadParameter(
            f"{options.host} can be reached by others, and the hub {hub!r} has no access keys: everyone who reaches "
            f"the server could start, read and end every instance. Make a key first, with `perdure keys create NAME "
            f"--scope admin --hub {shlex.quote(hub)}` and the same store, or set PERDURE_ADMIN_KEY; or listen on "
            "127.0.0.1",
            param_hint="--host",
        )


def _has_keys(store: str, hub: str, encryption: Encryption | None) -> bool:
    """Whether the hub has a key that counts, without opening it for writing."""
    try:
        found = open_store(store, hub, encryption).keys()
    except StoreError:
        return False  # there is no such store yet
    now = datetime.now(UTC)
    return any(row.kind == ACCESS and shown_key(row).state(now) == "active" for row in found)


@contextmanager
def _bound(options: ServeOptions) -> Iterator[socket.socket]:
    """The socket to listen on. A port that was not chosen gives way to the next free one, on this machine only."""
    host, port = options.host, options.port
    try:
        listener = bind(host, port, may_move=options.may_move)
    except OSError as error:
        fail(
            f"cannot listen on {host}:{port}: {error.strerror or error}. Another server may have the port: stop it, "
            "or choose another with --port; --port 0 takes any that is free",
            UNAVAILABLE,
        )
    with listener:
        moved = listener.getsockname()[1]
        if port and moved != port:
            told = f"port {port} is taken, so this server listens on {moved} (--port chooses one)"
            errors().print(told, soft_wrap=True)
        yield listener


def _reload(options: ServeOptions) -> None:
    """Serve in a child process, and start it again when a source file changes."""
    folder = watched_folder(options.target)
    if not folder.is_dir():
        fail(f"there is no folder {folder}", UNAVAILABLE)
    errors().print(Text(f"watching {_short(folder)} for changes", style="dim"))
    serve_reloading(folder, _command(options.target, options.given), options)


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
