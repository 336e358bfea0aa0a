"""The start-up output of `perdure run`: addresses, functions, and the reasons why instances cannot continue."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

from perdure.cli.missing_functions import lacking
from perdure.cli.terminal import errors
from perdure.http.api.instance_urls import MANAGEMENT
from perdure.http.formatting import plain
from perdure.http.running_engine import engine_of
from perdure.settings import MADE_UP
from perdure.store import sqlite_path
from perdure.store.sqlite.lock import server_path
from perdure.triggers.definitions import Queue, Schedule
from perdure.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from perdure.app import App
    from perdure.engine.client.client import Client
    from perdure.engine.functions.registry import Definition
    from perdure.errors import StoreError
    from perdure.server.options import ServeOptions
    from perdure.server.serving import Facts, Reached

_LOUD: Final = frozenset({"pages", "API"})


@dataclass(frozen=True)
class Terminal:
    """The `Announcer` of the command line. It writes to standard error."""

    options: ServeOptions

    def waiting(self, error: StoreError) -> None:
        told = f"waiting for the database, up to {self.options.store_wait:g} s (--store-wait): {error}"
        errors().print(plain(told), soft_wrap=True)

    def serving(self, facts: Facts) -> None:
        console = errors()
        serves = Text.assemble(("perdure ", "bold"), __version__, (f"  serves {self.options.target}", "dim"))
        console.print(serves, soft_wrap=True)
        (_print_facts if console.is_terminal else _write_facts)(console, facts)
        stop = f"Ctrl-C stops the server (process {os.getpid()}). Accepted work is stored and is not lost."
        console.print(stop, style="dim", soft_wrap=True)

    def stopped(self) -> None:
        errors().print("stopped")

    def say(self, line: str) -> None:
        errors().print(Text(plain(line), style="dim"), soft_wrap=True)


@dataclass(frozen=True)
class AppTerminal(Terminal):
    """A `Terminal` for a process that has loaded the application and can list its functions."""

    app: App

    async def facts(self, client: Client, reached: Reached | None) -> Facts:
        """The lines about a server: its functions, its instances and its addresses."""
        registry, role = self.app.registry, self.options.role
        counts = await client.counts()
        routes = [
            f"{'/'.join(route.methods)} {registry.route_prefix}{route.path}" for route in registry.routes
        ]
        facts = [
            ("orchestrators", _named(registry.orchestrators) or "none"),
            ("activities", _named(registry.activities) or "none"),
            ("entities", _named(registry.entities)),
            ("routes", "\n".join(routes) if reached is not None else ""),
            ("schedules", "\n".join(_schedules(self.app))),
            ("queues", ", ".join(sorted(one.name for one in registry.triggers if isinstance(one, Queue)))),
            ("store", f"{self.options.store}, hub {client.task_hub}"),
            ("retention", _kept(client)),
            ("instances", ", ".join(f"{n:,} {status}" for status, n in counts.items() if n) or "none yet"),
            ("attention", "\n".join(await lacking(client)) if role != "api" else ""),
            ("role", "" if role == "all" else role),
        ]
        return facts if reached is None else [*facts, *_where(self.options, reached)]


def _where(options: ServeOptions, reached: Reached) -> Facts:
    where = _where_token_is(options) if reached.needs_token else ""
    is_printed = bool(reached.token) and reached.needs_token and not where
    shown = f"?token={reached.token}" if is_printed else ""
    return [
        ("", ""),
        ("pages", f"{reached.address}/{shown}"),
        ("API", f"{reached.address}{MANAGEMENT}/"),
        ("token", where),
    ]


def _where_token_is(options: ServeOptions) -> str:
    """A text that says where to find the start-up token; "" if the token itself is printed.

    The token is printed on a terminal only, never into a file or a pipe. A token from the settings is never printed.
    """
    is_made_up = options.chosen["token"].source == "default" or os.environ.get(MADE_UP) == "1"
    if not is_made_up:
        return "as set with --token or PERDURE_TOKEN"
    if sys.stderr.isatty():
        return ""
    path = sqlite_path(options.chosen["store"].value)
    if not path:
        return "only shown on a terminal. Set PERDURE_TOKEN, or create a key with `perdure keys create`"
    return f"in {server_path(path)}, which only this user can read. Commands on this machine find it there"


def _named(functions: Mapping[str, Definition]) -> str:
    """The functions by their own names. What else a call can name, such as a former name, is not repeated."""
    return ", ".join(sorted(name for name, one in functions.items() if name == one.name))


def _schedules(app: App) -> list[str]:
    plans = [one.plan for one in app.registry.triggers if isinstance(one, Schedule)]
    return [f"{plan.name}  {plan.when.explain()} ({plan.timezone})" for plan in plans]


def _kept(client: Client) -> str:
    retention = engine_of(client).settings.retention
    return f"{retention}, then purged" if retention else ""


def _print_facts(console: Console, facts: Facts) -> None:
    table = Table.grid(padding=(0, 2))
    for name, value in facts:
        if value or not name:
            table.add_row(
                Text(f"  {name}", style="dim"), Text(value, "bold" if name in _LOUD else "", overflow="fold")
            )
    console.print(table)


def _write_facts(console: Console, facts: Facts) -> None:
    """Write to a file or a pipe without wrapping, so that no address is broken."""
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        first, *rest = value.split("\n")
        if value or not name:
            console.print(f"  {name:<{width}}  {first}".rstrip(), soft_wrap=True)
        for line in rest:
            console.print(f"  {'':<{width}}  {line}", soft_wrap=True)


__all__ = ["AppTerminal", "Terminal"]
