"""settings: list every setting with its value and source. Also derives the flags of commands from the table."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perdure.cli.app_loader import load_app
from perdure.cli.options import JsonOption
from perdure.cli.terminal import EXIT_CODES, errors, fail_with, print_json, print_table
from perdure.errors import PerdureError, SettingError
from perdure.model.settings import BYTES, COUNT, PORT, SECONDS, SWITCH, Setting
from perdure.settings import ENGINE, HOSTED, PLACE, SERVING, TABLE, Chosen, choose, coded_in, strangers

if TYPE_CHECKING:
    from collections.abc import Mapping

commands = typer.Typer()
METAVARS = {COUNT.name: "NUMBER", BYTES.name: "SIZE", SECONDS.name: "SECONDS", PORT.name: "PORT"}
PANELS = (
    (PLACE, "Store"),
    (SERVING, "Server"),
    (ENGINE, "Engine"),
    (HOSTED, "Azure Functions apps"),
)


def with_flags(rows: Sequence[Setting]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add a flag for each of these settings to a command. The command receives the values as the dict `given`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "given"]
        flags = [
            inspect.Parameter(row.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_option(row))
            for row in rows
        ]

        @functools.wraps(command)
        def wrapper(**arguments: Any) -> None:
            given = {row.name: arguments.pop(row.name) for row in rows}
            command(**arguments, given={name: value for name, value in given.items() if value is not None})

        keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
        described: Any = wrapper
        described.__signature__ = inspect.Signature([*keyword, *flags])
        described.__annotations__ = {p.name: p.annotation for p in [*keyword, *flags]}
        del described.__wrapped__
        return wrapper

    return decorate


def _option(row: Setting) -> Any:
    default = row.show(row.default)
    told = f"{row.doc[:1].upper()}{row.doc[1:]} ({row.variable}{f'; default {default}' if default else ''})."
    panel = next(name for rows, name in PANELS if row in rows)
    if row.unit is SWITCH:
        flags = f"{row.flag}/--no-{row.flag.removeprefix('--')}"
        return Annotated[
            bool | None, typer.Option(flags, help=told, show_default=False, rich_help_panel=panel)
        ]
    metavar = METAVARS.get(row.unit.name, "TEXT")
    return Annotated[
        str | None,
        typer.Option(row.flag, metavar=metavar, help=told, show_default=False, rich_help_panel=panel),
    ]


def flags_of(given: Mapping[str, Any]) -> list[str]:
    """The values as command-line arguments."""
    rows = {row.name: row for row in TABLE}
    found: list[str] = []
    for name, value in given.items():
        flag = rows[name].flag
        if isinstance(value, bool):
            found.append(flag if value else f"--no-{flag.removeprefix('--')}")
        else:
            found.append(f"{flag}={value}")
    return found


def chosen_of(given: Mapping[str, Any], coded: Mapping[str, Any] | None = None) -> dict[str, Chosen]:
    """Resolve every setting from flags, environment, application and defaults. Raises typer.BadParameter."""
    try:
        return choose(TABLE, given, coded=coded, source="flag")
    except SettingError as error:
        raise typer.BadParameter(str(error)) from None


@commands.command(epilog=EXIT_CODES)
@with_flags(TABLE)
def settings(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="APP",
            help="app.py or package.module:app. Its own settings are taken into account.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
    *,
    given: dict[str, Any],
) -> None:
    """List every setting with its value and source: flag, environment, application or default."""
    coded: dict[str, Any] = {}
    hub = None
    if target is not None:
        try:
            app = load_app(target)
        except PerdureError as error:
            fail_with(error)
        coded, hub = coded_in(app.settings), app.name
        if app.encryption is not None:
            coded["encryption_keys"] = app.encryption
    chosen = chosen_of(given, coded)
    if hub and chosen["hub"].value is None:
        chosen["hub"] = Chosen(chosen["hub"].setting, hub, "application")
    if as_json:
        print_json({name: _as_json(one) for name, one in chosen.items()})
    else:
        print_table(
            ("setting", "value", "from", "variable", "what it is"),
            [(n, one.shown, one.source, one.setting.variable, one.setting.doc) for n, one in chosen.items()],
        )
    for name, meant in strangers().items():
        errors().print(f"{name} is set but is not a setting.{f' Did you mean {meant}?' if meant else ''}")


def _as_json(one: Chosen) -> dict[str, Any]:
    row = one.setting
    return {
        "value": _plain(row, one.value),
        "source": one.source,
        "default": _plain(row, row.default),
        "flag": row.flag,
        "variable": row.variable,
        "doc": row.doc,
    }


def _plain(row: Setting, value: Any) -> Any:
    if value is None or (isinstance(value, bool | int | float | str | tuple) and not row.secret):
        return value
    return row.show(value)
