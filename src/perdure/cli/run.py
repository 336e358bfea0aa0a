"""run: serve an application on this machine, with its API and its pages, in one process or in several."""

from __future__ import annotations

import asyncio
import io
import ipaddress
import logging
import os
import secrets
import shlex
import signal
import socket
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
import uvicorn
from rich.table import Table
from rich.text import Text
from watchfiles import PythonFilter, run_process

from perdure.cli.app_loader import load_app, watched_folder
from perdure.cli.missing_functions import lacking
from perdure.cli.settings import chosen_of, flags_of, with_flags
from perdure.cli.terminal import EXIT_CODES, UNAVAILABLE, errors, fail, fail_with
from perdure.engine.client.access import ACCESS, shown_key
from perdure.errors import (
    PerdureError,
    StoreError,
    StoreFull,
    StoreInUse,
    StoreTooNew,
    StoreUnusable,
    WrongEncryptionKey,
)
from perdure.http.api.functions import PREFIX
from perdure.http.api.instance_urls import MANAGEMENT
from perdure.http.formatting import plain
from perdure.http.host import access_by, application, hindrance
from perdure.http.running_engine import engine_of
from perdure.server.accept import Listener
from perdure.server.child import Report, Tether, tether
from perdure.server.forced_exit import LastResort
from perdure.server.lease_keeper import Oversight
from perdure.server.limits import Door
from perdure.server.supervision import Launch, Supervisor
from perdure.settings import MADE_UP, SERVING, TABLE, coded_in
from perdure.store import is_postgres, open_overseer, open_store, reach, sqlite_path
from perdure.store.sqlite.lock import server_path
from perdure.triggers.definitions import Queue, Schedule
from perdure.version import __version__

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from types import FrameType

    from rich.console import Console

    from perdure.app import App
    from perdure.engine.client.client import Client
    from perdure.settings import Chosen
    from perdure.store.encryption import Encryption

GRACE = 3  # seconds that requests in hand have when the server stops
PORTS_TRIED = 20  # from the default port on, when that one is taken
_FINAL = (StoreUnusable, StoreInUse, StoreTooNew, StoreFull, WrongEncryptionKey)
"""What waiting does not help against."""
_LOOK_EVERY = 0.5  # seconds between two looks at a database that does not answer
commands = typer.Typer()


@dataclass(frozen=True)
class Plan:
    """What is served, and where."""

    target: str
    given: dict[str, Any]  # the flags, by the names of their settings
    chosen: dict[str, Chosen]
    began: float = field(default_factory=time.monotonic)

    @property
    def patient_until(self) -> float:
        """Until when a database that does not answer is waited for, by the monotonic clock."""
        return self.began + float(self.chosen["store_wait"].value)

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
    def workers(self) -> int:
        return int(self.chosen["workers"].value)

    @property
    def role(self) -> str:
        return str(self.chosen["role"].value)

    @property
    def listens(self) -> bool:
        """Whether there is an API, and pages."""
        return self.role != "worker"

    @property
    def allowed_hosts(self) -> list[str]:
        return [self.host, *self.chosen["allowed_hosts"].value]

    def where_token_is(self, is_needed: bool) -> str:
        """Where people find the start-up token; "" when it is to be printed, "-" when they need none.

        It is printed on a terminal only, never into a file or a pipe; one that was given is never printed.
        """
        if not is_needed:
            return "-"
        is_made_up = self.chosen["token"].source == "default" or os.environ.get(MADE_UP) == "1"
        if not is_made_up:
            return "the one that was given (PERDURE_TOKEN)"
        if sys.stderr.isatty():
            return ""
        path = sqlite_path(self.chosen["store"].value)
        if not path:
            return (
                "not shown outside of a terminal: set PERDURE_TOKEN, or make a key with `perdure keys create`"
            )
        return f"in {server_path(path)}, which this user alone may read; commands on this machine find it"

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
    """Serve an application: engine, HTTP API and pages, in one process or in --workers."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # what activities print is in a log at once
    plan, tied = Plan(target, given, chosen_of(given)), tether()
    _check(plan, reload=reload)
    try:
        if reload:
            _reload(plan)
        elif plan.workers and tied is None:
            _supervise(plan)
        else:
            _serve_here(plan, tied)
    except PerdureError as error:
        fail_with(error)
    except KeyboardInterrupt:
        errors().print("stopped before it was serving")


def _check(plan: Plan, *, reload: bool) -> None:
    """Raise typer.BadParameter for settings that do not go together."""
    if plan.is_open and not _is_loopback(plan.host):
        raise typer.BadParameter(f"{plan.host} can be reached by others: access=open is for loopback")
    if plan.workers and reload:
        raise typer.BadParameter("--reload is for one process: leave --workers out")
    shared = {"--workers": plan.workers, "--role": plan.role != "all"}
    for flag, is_given in shared.items():
        if is_given and not is_postgres(plan.chosen["store"].value):
            raise typer.BadParameter(
                f"one process serves {plan.store}, and does everything: {flag} is for hubs in PostgreSQL "
                "(--store postgresql://...); `perdure copy` takes a hub there",
                param_hint=flag,
            )


def _serve_here(plan: Plan, tied: Tether | None) -> None:
    """Serve in this process."""
    number = "" if tied is None else f" [{tied.number}]"
    logging.basicConfig(format=f"%(levelname)s{number} %(name)s: %(message)s")
    logging.getLogger("perdure").setLevel(logging.INFO)
    app = load_app(plan.target)
    plan = Plan(plan.target, plan.given, chosen_of(plan.given, coded_in(app.settings)))
    _await_store(plan.chosen["store"].value, plan.chosen["store_wait"].value)
    if not plan.listens:
        _run(app, plan, None, tied)
        return
    _demand_keys(plan, plan.chosen["hub"].value or app.name)
    if tied is not None and tied.listener is not None:
        _run(app, plan, tied.listener, tied)
        return
    with _bound(plan) as listener:
        _run(app, plan, listener, tied)


def _await_store(store: str, seconds: float) -> None:
    """Wait for a database that does not answer, which may only be starting. Raises StoreError when it is too long."""
    until, said = time.monotonic() + seconds, ""
    while True:
        try:
            reach(store)
            return
        except StoreUnusable:
            raise
        except StoreError as error:
            if time.monotonic() >= until:
                raise
            said = _say_waiting(seconds, error, said)
        time.sleep(min(_LOOK_EVERY, max(until - time.monotonic(), 0.0)))


def _demand_keys(plan: Plan, hub: str) -> None:
    """An address that others reach is served only when there are keys to ask them for."""
    if _is_loopback(plan.host) or plan.chosen["admin_key"].value:
        return
    if not _has_keys(plan.chosen["store"].value, hub, plan.chosen["encryption_keys"].value):
        raise typer.BadParameter(
            f"{plan.host} can be reached by others, and the hub {hub!r} has no access keys: everyone who reaches "
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


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@contextmanager
def _bound(plan: Plan) -> Iterator[socket.socket]:
    """The socket to listen on. A port that was not chosen gives way to the next free one, on this machine only."""
    chosen, port = plan.chosen["port"], plan.port
    may_move = chosen.source == "default" and _is_loopback(plan.host)
    for candidate in range(port, port + PORTS_TRIED if may_move else port + 1):
        try:
            listener = _listener(plan.host, candidate)
        except OSError as error:
            taken = error
        else:
            if candidate != port:
                told = f"port {port} is taken, so this server listens on {candidate} (--port chooses one)"
                errors().print(told, soft_wrap=True)
            break
    else:
        why = taken.strerror or str(taken)
        fail(
            f"cannot listen on {plan.host}:{port}: {why}. Another server may have the port: stop it, or choose "
            "another with --port; --port 0 takes any that is free",
            UNAVAILABLE,
        )
    with listener:
        yield listener


def _listener(host: str, port: int) -> socket.socket:
    bare = host.strip("[]")
    return socket.create_server((bare, port), family=socket.AF_INET6 if ":" in bare else socket.AF_INET)


# --------------------------------------------------------------------------------------------- serving


class Server(uvicorn.Server):
    """Uvicorn that says when it listens, and that keeps a signal to itself once it has obeyed it.

    The original raises the signal again, which would kill the process before the engine has closed its store.
    """

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None], last_resort: LastResort) -> None:
        super().__init__(config)
        self._announce = announce
        self._last_resort = last_resort

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([])
        listeners = [Listener(sock, self._connection) for sock in sockets or ()]
        self.servers = cast("list[asyncio.Server]", listeners)
        self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Whom this process has accepted it serves; whoever comes now is accepted by others, if there are any."""
        for listener in self.servers:
            listener.close()
            await listener.wait_closed()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._last_resort.begin()
        super().handle_exit(sig, frame)

    def _connection(self) -> asyncio.Protocol:
        make = cast("Callable[..., asyncio.Protocol]", self.config.http_protocol_class)
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {sig: signal.signal(sig, self.handle_exit) for sig in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)


def _run(app: App, plan: Plan, listener: socket.socket | None, tied: Tether | None) -> None:
    # The application is not known yet: it needs a running engine, which needs a running loop.
    factory = uvicorn.Config(_nothing, log_config=None).get_loop_factory()
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_serve(app, plan, listener, tied))


async def _nothing(*_: Any) -> None:
    raise AssertionError("never called")


async def _serve(app: App, plan: Plan, listener: socket.socket | None, tied: Tether | None) -> None:
    async with AsyncExitStack() as stack:
        client = await _opened(stack, app, plan)
        if listener is None:
            await _work(app, plan, client, tied)
        else:
            await _listen(app, plan, client, listener, tied)
    if tied is None:
        errors().print("stopped")


async def _opened(stack: AsyncExitStack, app: App, plan: Plan) -> Client:
    """Start the engine; a database that goes away while it is being opened is waited for like one that is away."""
    until, said = plan.patient_until, ""
    while True:
        try:
            return await stack.enter_async_context(app.running(**plan.engine))
        except _FINAL:
            raise
        except StoreError as error:
            if time.monotonic() >= until:
                raise
            said = _say_waiting(plan.chosen["store_wait"].value, error, said)
        await asyncio.sleep(min(_LOOK_EVERY, max(until - time.monotonic(), 0.0)))


def _say_waiting(seconds: float, error: StoreError, said: str) -> str:
    """Tell people once why nothing happens yet; returns what was told last."""
    if str(error) != said:
        told = f"waiting for the database, {seconds:g} s at most (--store-wait): {error}"
        errors().print(plain(told), soft_wrap=True)
    return str(error)


async def _listen(app: App, plan: Plan, client: Client, listener: socket.socket, tied: Tether | None) -> None:
    """Serve the API until told to stop."""
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
    # What one request puts into context variables, the next on its connection must not see. As an attribute, since
    # older versions of uvicorn do not take the argument.
    config.reset_contextvars = True
    engine = engine_of(client)
    engine.publish(_address(plan.host, port), access.token or "")
    is_needed = _is_loopback(plan.host) and not access.keys.has_keys() and access.token is not None
    facts = await _facts(
        app, plan, client, _Opening(shown, access.token or "", plan.where_token_is(is_needed))
    )
    async with _ready(plan, client, facts, tied, lambda: setattr(server, "should_exit", True)) as announce:
        server = Server(config, announce, LastResort(engine.settings.drain))
        await server.serve(sockets=[listener])
    await access.close()


async def _work(app: App, plan: Plan, client: Client, tied: Tether | None) -> None:
    """Run functions, and listen to nobody, until told to stop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    last_resort = LastResort(engine_of(client).settings.drain)

    def told(*_: object) -> None:  # not as a handler of the event loop's: an activity may block that
        last_resort.begin()
        loop.call_soon_threadsafe(stop.set)

    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, told)
    async with _ready(plan, client, await _facts(app, plan, client, None), tied, stop.set) as announce:
        announce()
        await stop.wait()


@asynccontextmanager
async def _ready(
    plan: Plan, client: Client, facts: Facts, tied: Tether | None, stop: Callable[[], object]
) -> AsyncIterator[Callable[[], None]]:
    """Gives what is to be called when this process serves: people are told, or the supervisor once it is true."""
    if tied is None:
        yield lambda: _print_banner(plan, facts)
        return
    tied.when_cut(stop)
    telling: list[asyncio.Task[None]] = []
    yield lambda: telling.append(asyncio.create_task(_report(client, facts, tied)))
    for task in telling:
        task.cancel()


async def _report(client: Client, facts: Facts, tied: Tether) -> None:
    engine = engine_of(client)
    while await hindrance(engine):  # noqa: ASYNC110 (nobody tells when it is back)
        await asyncio.sleep(_LOOK_EVERY)
    settings = engine.settings
    tied.tell(Report(settings.drain, settings.belonging.lease, facts))


def _address(host: str, port: int) -> str:
    bare = host.strip("[]")
    return f"http://[{bare}]:{port}" if ":" in bare else f"http://{bare}:{port}"


@dataclass(frozen=True)
class _Opening:
    """Where a server is reached, and the token that opens it."""

    address: str
    token: str
    where: str = ""  # the token is, where it is not shown; "" where it is, and "-" where nobody needs it

    @property
    def pages(self) -> str:
        return f"{self.address}/" + (f"?token={self.token}" if self.token and not self.where else "")

    @property
    def told(self) -> str:
        return "" if self.where == "-" else self.where


Facts = list[tuple[str, str]]


async def _facts(app: App, plan: Plan, client: Client, opening: _Opening | None) -> Facts:
    """What is printed of a server: what it serves, how much there is, and where it is reached."""
    counts = await client.counts()
    routes = [f"{'/'.join(route.methods)} {PREFIX}{route.path}" for route in app.registry.routes]
    facts = [
        ("orchestrators", ", ".join(sorted(app.registry.orchestrators)) or "none"),
        ("activities", ", ".join(sorted(app.registry.activities)) or "none"),
        ("routes", "\n".join(routes) if opening is not None else ""),
        ("schedules", "\n".join(_schedules(app))),
        ("queues", ", ".join(sorted(one.name for one in app.registry.triggers if isinstance(one, Queue)))),
        ("store", f"{plan.store}, hub {client.task_hub}"),
        ("retention", _kept(client)),
        ("instances", ", ".join(f"{n:,} {status}" for status, n in counts.items() if n) or "none yet"),
        ("attention", "\n".join(await lacking(client)) if plan.role != "api" else ""),
        ("role", "" if plan.role == "all" else plan.role),
    ]
    if opening is not None:
        facts += [
            ("", ""),
            ("pages", opening.pages),
            ("API", f"{opening.address}{MANAGEMENT}/"),
            ("token", opening.told),
        ]
    return facts


def _print_banner(plan: Plan, facts: Facts) -> None:
    console = errors()
    serves = Text.assemble(("perdure ", "bold"), __version__, (f"  serves {plan.target}", "dim"))
    console.print(serves, soft_wrap=True)
    (_print_facts if console.is_terminal else _write_facts)(console, facts)
    stop = f"Ctrl-C stops it (process {os.getpid()}); nothing that was accepted is lost."
    console.print(stop, style="dim", soft_wrap=True)


def _schedules(app: App) -> list[str]:
    plans = [one.plan for one in app.registry.triggers if isinstance(one, Schedule)]
    return [f"{plan.name}  {plan.when.explain()} ({plan.timezone})" for plan in plans]


def _kept(client: Client) -> str:
    retention = engine_of(client).settings.retention
    return f"{retention}, then purged" if retention else ""


def _print_facts(console: Console, facts: list[tuple[str, str]]) -> None:
    table = Table.grid(padding=(0, 2))
    for name, value in facts:
        if value or not name:
            table.add_row(
                Text(f"  {name}", style="dim"), Text(value, "bold" if name in _LOUD else "", overflow="fold")
            )
    console.print(table)


def _write_facts(console: Console, facts: Facts) -> None:
    """For a file or a pipe: as wide as it is, so that no address is broken."""
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        first, *rest = value.split("\n")
        if value or not name:
            console.print(f"  {name:<{width}}  {first}".rstrip(), soft_wrap=True)
        for line in rest:
            console.print(f"  {'':<{width}}  {line}", soft_wrap=True)


_LOUD = frozenset({"pages", "API"})


# --------------------------------------------------------------------------------------- other processes


def _reload(plan: Plan) -> None:
    """Serve in a child process, and start it again when a source file changes."""
    folder = watched_folder(plan.target)
    if not folder.is_dir():
        fail(f"there is no folder {folder}", UNAVAILABLE)
    errors().print(Text(f"watching {_short(folder)} for changes", style="dim"))
    # The same token after a change, so that browsers stay signed in.
    if plan.chosen["token"].value is None:
        os.environ.update({"PERDURE_TOKEN": secrets.token_urlsafe(24), MADE_UP: "1"})
    run_process(
        folder,
        target=shlex.join(_command(plan.target, plan.given)),
        target_type="command",
        watch_filter=PythonFilter(),
        debounce=200,
        sigint_timeout=GRACE + 5,
    )


def _supervise(plan: Plan) -> None:
    """Serve in several processes, and see to them."""
    name = f"{plan.chosen['worker_name'].value or socket.gethostname()}-{secrets.token_hex(2)}"
    overseer, lease = open_overseer(plan.chosen["store"].value), plan.chosen["lease"].value
    # What is secret is not for everybody who lists processes. One token opens all workers.
    hidden = {row.variable: plan.given[row.name] for row in TABLE if row.secret and row.name in plan.given}
    given = plan.chosen["token"].value
    token, made_up = given or secrets.token_urlsafe(24), "" if given else "1"
    told = {k: v for k, v in plan.given.items() if k not in _OWN and f"PERDURE_{k.upper()}" not in hidden}
    with _bound(plan) if plan.listens else nullcontext() as listener:
        supervisor = Supervisor(
            Launch(
                lambda called: _command(plan.target, {**told, "worker_name": called}),
                {**os.environ, **hidden, "PERDURE_TOKEN": token, MADE_UP: made_up},
                listener,
            ),
            name,
            plan.workers,
            say=lambda line: errors().print(Text(plain(line), style="dim"), soft_wrap=True),
            announce=lambda report: _print_banner(plan, report.facts),
            oversee=lambda at_work: Oversight(overseer, at_work, lease) if overseer is not None else None,
        )
        code = supervisor.run()
    if code:
        raise typer.Exit(code)
    errors().print("stopped")


_OWN = frozenset({"workers", "worker_name"})
"""Settings of the supervisor's own, or that it gives each worker a value of."""


def _command(target: str, given: Mapping[str, Any]) -> list[str]:
    return [sys.executable, "-m", "perdure.cli", "run", target, *flags_of(given)]


def _short(folder: Path) -> str:
    return str(folder.relative_to(Path.cwd())) if folder.is_relative_to(Path.cwd()) else str(folder)
