"""run: serve an application on this machine, with its API and its pages, in one process."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import secrets
import shlex
import signal
import socket
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
import uvicorn
from rich.table import Table
from rich.text import Text
from watchfiles import PythonFilter, run_process

from perdure import __version__
from perdure.cli.settings import chosen_of, flags_of, with_flags
from perdure.cli.source import load_app, watched_folder
from perdure.cli.terminal import EXIT_CODES, UNAVAILABLE, errors, fail, fail_with
from perdure.engine.access import ACCESS, shown_key
from perdure.errors import PerdureError, StoreError
from perdure.http.connections import Door
from perdure.http.functions import PREFIX
from perdure.http.host import access_by, application
from perdure.http.links import MANAGEMENT
from perdure.settings import SERVING, TABLE
from perdure.store import open_store
from perdure.triggers.definitions import Queue, Schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from perdure.app import App
    from perdure.engine.client import Client
    from perdure.settings import Chosen
    from perdure.store.encryption import Encryption

GRACE = 3  # seconds that requests in hand have when the server stops
commands = typer.Typer()


@dataclass(frozen=True)
class Plan:
    """What is served, and where."""

    target: str
    given: dict[str, Any]  # the flags, by the names of their settings
    chosen: dict[str, Chosen]

    @property
    def store(self) -> str:
        """Where the state is, for people."""
        return self.chosen["store"].shown

    @property
    def host(self) -> str:
        return str(self.chosen["host"].value)

    @property
    def port(self) -> int:
        return int(self.chosen["port"].value)

    @property
    def allowed_hosts(self) -> list[str]:
        return [self.host, *self.chosen["allowed_hosts"].value]

    @property
    def is_open(self) -> bool:
        return bool(self.chosen["access"].value == "open")

    @property
    def engine(self) -> dict[str, Any]:
        """What the command line says about store, hub and engine; the rest is for the application to choose."""
        return {name: value for name, value in self.given.items() if name not in SERVED}


SERVED = frozenset(row.name for row in SERVING)


@commands.command(epilog=EXIT_CODES)
@with_flags(TABLE)
def run(
    target: Annotated[
        str, typer.Argument(metavar="APP", help="app.py, package or package.module:app.", show_default=False)
    ] = "app.py",
    reload: Annotated[bool, typer.Option("--reload", help="Start again when a file changes.")] = False,
    *,
    given: dict[str, Any],
) -> None:
    """Serve an application: engine, HTTP API and pages in one process."""
    plan = Plan(target, given, chosen_of(given))
    if plan.is_open and not _is_loopback(plan.host):
        raise typer.BadParameter(f"{plan.host} can be reached by others: access=open is for loopback")
    if reload:
        _supervise(plan)
        return
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("perdure").setLevel(logging.INFO)
    try:
        app = load_app(target)
        _demand_keys(plan, plan.chosen["hub"].value or app.name)
        with _bound(plan.host, plan.port) as listener:
            _run(app, plan, listener)
    except PerdureError as error:
        fail_with(error)
    except KeyboardInterrupt:
        errors().print("stopped before it was serving")


def _demand_keys(plan: Plan, hub: str) -> None:
    """An address that others reach is served only when there are keys to ask them for."""
    if _is_loopback(plan.host) or plan.chosen["admin_key"].value:
        return
    if not _has_keys(plan.chosen["store"].value, hub, plan.chosen["encryption_keys"].value):
        raise typer.BadParameter(
            f"{plan.host} can be reached by others, and the hub {hub!r} has no access keys: everyone who reaches "
            "the server could start, read and end every instance. Make a key first, with `perdure keys create`, "
            "or set PERDURE_ADMIN_KEY; or listen on 127.0.0.1",
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


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    bare = host.strip("[]")
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    try:
        listener = socket.create_server((bare, port), family=family)
    except OSError as error:
        fail(f"cannot listen on {host}:{port}: {error.strerror}. Another port: --port 0", UNAVAILABLE)
    with listener:
        yield listener


# --------------------------------------------------------------------------------------------- serving


class Server(uvicorn.Server):
    """Uvicorn that says when it listens, and that keeps a signal to itself once it has obeyed it.

    The original raises the signal again, which would kill the process before the engine has closed its store.
    """

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._announce()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {sig: signal.signal(sig, self.handle_exit) for sig in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)


def _run(app: App, plan: Plan, listener: socket.socket) -> None:
    # The application is not known yet: it needs a running engine, which needs a running loop.
    factory = uvicorn.Config(_nothing, log_config=None).get_loop_factory()
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_serve(app, plan, listener))


async def _nothing(*_: Any) -> None:
    raise AssertionError("never called")


async def _serve(app: App, plan: Plan, listener: socket.socket) -> None:
    async with app.running(**plan.engine) as client:
        port = listener.getsockname()[1]
        shown = _address("localhost" if plan.host == "127.0.0.1" else plan.host, port)
        access = access_by(plan.chosen, client, address=shown)
        config = uvicorn.Config(
            application(
                client,
                allowed_hosts=plan.allowed_hosts,
                access=access,
                public_url=plan.chosen["public_url"].value,
                trusted_proxies=plan.chosen["trusted_proxies"].value,
            ),
            lifespan="off",
            http=cast("type[asyncio.Protocol]", Door()),
            ws="none",
            proxy_headers=False,  # perdure.http.proxies reads them, of listed proxies only
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE,
        )
        engine: Any = client.gateway
        engine.publish(_address(plan.host, port), access.token or "")
        counts = await client.counts()
        # The token is for this machine, and is printed only while nobody has a key.
        token = access.token if _is_loopback(plan.host) and not access.keys.has_keys() else None
        banner = _Banner(shown, token or "", counts)
        await Server(config, lambda: _announce(app, plan, client, banner)).serve(sockets=[listener])
        await access.close()
    errors().print("stopped")


def _address(host: str, port: int) -> str:
    bare = host.strip("[]")
    return f"http://[{bare}]:{port}" if ":" in bare else f"http://{bare}:{port}"


@dataclass(frozen=True)
class _Banner:
    """What is printed of a server: its address, the token that opens it, and what it has to do."""

    address: str
    token: str
    counts: dict[str, int]

    def url(self, path: str, parameter: str) -> str:
        return f"{self.address}{path}" + (f"?{parameter}={self.token}" if self.token else "")


def _announce(app: App, plan: Plan, client: Client, banner: _Banner) -> None:
    console = errors()
    routes = [f"{'/'.join(route.methods)} {PREFIX}{route.path}" for route in app.registry.routes]
    facts = [
        ("orchestrators", ", ".join(sorted(app.registry.orchestrators)) or "none"),
        ("activities", ", ".join(sorted(app.registry.activities)) or "none"),
        ("routes", "\n".join(routes)),
        ("schedules", "\n".join(_schedules(app))),
        ("queues", ", ".join(sorted(one.name for one in app.registry.triggers if isinstance(one, Queue)))),
        ("store", f"{plan.store}, hub {client.task_hub}"),
        ("retention", _kept(client)),
        ("instances", ", ".join(f"{n:,} {status}" for status, n in banner.counts.items() if n) or "none yet"),
        ("", ""),
        ("pages", banner.url("/", "token")),
        ("API", banner.url(f"{MANAGEMENT}/", "code")),
    ]
    console.print(Text.assemble(("perdure ", "bold"), __version__, (f"  serves {plan.target}", "dim")))
    _print_facts(console, facts)
    console.print("Ctrl-C stops it; nothing that was accepted is lost.", style="dim")


def _schedules(app: App) -> list[str]:
    plans = [one.plan for one in app.registry.triggers if isinstance(one, Schedule)]
    return [f"{plan.name}  {plan.when.explain()} ({plan.timezone})" for plan in plans]


def _kept(client: Client) -> str:
    engine: Any = client.gateway
    retention = engine.settings.retention
    return f"{retention}, then purged" if retention else ""


def _print_facts(console: Console, facts: list[tuple[str, str]]) -> None:
    table = Table.grid(padding=(0, 2))
    for name, value in facts:
        if value or not name:
            table.add_row(
                Text(f"  {name}", style="dim"), Text(value, "bold" if name in _LOUD else "", overflow="fold")
            )
    console.print(table)


_LOUD = frozenset({"pages", "API"})


# ------------------------------------------------------------------------------------------- reloading


def _supervise(plan: Plan) -> None:
    """Serve in a child process, and start it again when a source file changes."""
    folder = watched_folder(plan.target)
    if not folder.is_dir():
        fail(f"there is no folder {folder}", UNAVAILABLE)
    errors().print(Text(f"watching {_short(folder)} for changes", style="dim"))
    # The same token after a change, so that browsers stay signed in.
    os.environ.setdefault("PERDURE_TOKEN", secrets.token_urlsafe(24))
    run_process(
        folder,
        target=_command(plan),
        target_type="command",
        watch_filter=PythonFilter(),
        debounce=200,
        sigint_timeout=GRACE + 5,
    )


def _command(plan: Plan) -> str:
    return shlex.join([sys.executable, "-m", "perdure.cli", "run", plan.target, *flags_of(plan.given)])


def _short(folder: Path) -> str:
    return str(folder.relative_to(Path.cwd())) if folder.is_relative_to(Path.cwd()) else str(folder)
