"""Output and exit codes of the commands.

Results go to stdout, everything else to stderr. On a terminal, results are tables and sentences. In a pipe, tables
are lines of tab-separated cells. With `--json`, results are JSON in a stable format.
Exit codes: 0 done, 1 rejected or failed, 2 wrong usage, 3 not found, 4 unavailable.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from perdure.error_numbers import number_of
from perdure.errors import (
    EngineStopped,
    FunctionNotFound,
    HostedAppError,
    InstanceNotFound,
    OutcomeUnknown,
    Overloaded,
    PerdureError,
    StoreError,
)
from perdure.http.formatting import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

EXIT_CODES = "Exit codes: 0 done, 1 rejected or failed, 2 wrong usage, 3 not found, 4 unavailable."
REFUSED, USAGE, NOT_FOUND, UNAVAILABLE = 1, 2, 3, 4

_CODES: dict[type[BaseException], int] = {
    PerdureError: REFUSED,
    TimeoutError: REFUSED,
    HostedAppError: USAGE,
    InstanceNotFound: NOT_FOUND,
    FunctionNotFound: NOT_FOUND,
    EngineStopped: UNAVAILABLE,
    OutcomeUnknown: UNAVAILABLE,
    Overloaded: UNAVAILABLE,
    StoreError: UNAVAILABLE,
}
Cell = str | Text
_STYLES = {
    "Running": "blue",
    "Suspended": "yellow",
    "Completed": "green",
    "Failed": "red",
    "Terminated": "magenta",
    "Canceled": "magenta",
}


def output() -> Console:
    return Console(highlight=False, markup=False, emoji=False)


def errors() -> Console:
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def can_move() -> bool:
    """Whether to show progress bars: only on a terminal. FORCE_COLOR asks for colours, not for bars in a log."""
    return sys.stderr.isatty()


def can_ask() -> bool:
    """Whether the command can ask a question, because both stdin and stderr are a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def exit_code(error: BaseException) -> int:
    """The exit code for an error."""
    return next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), REFUSED)


def fail(message: str, code: int, *, as_json: bool = False, kind: str = "error") -> NoReturn:
    """Print an error and end the command."""
    complain(message, as_json=as_json, kind=kind)
    raise typer.Exit(code)


def fail_with(error: BaseException, *, as_json: bool = False) -> NoReturn:
    """Print one of perdure's errors and end the command with its exit code."""
    warn_of(error, as_json=as_json)
    raise typer.Exit(exit_code(error))


def warn_of(error: BaseException, *, as_json: bool = False) -> None:
    """Print one of perdure's errors and continue."""
    kind = error.code if isinstance(error, PerdureError) else "timeout"
    complain(str(error), as_json=as_json, kind=kind)


def complain(message: str, *, as_json: bool = False, kind: str = "error") -> None:
    """Print an error with the number of the page that explains it."""
    number = number_of(kind)
    if as_json:
        told = {"code": kind, "message": message, **({"number": number} if number else {})}
        typer.echo(json.dumps({"error": told}), err=True)
    else:
        page = (f" ({number})", "dim") if number else ""
        errors().print(Text.assemble(("error: ", "bold red"), plain(message), page), soft_wrap=True)


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """One JSON value, indented; with None on one line."""
    typer.echo(json.dumps(value, indent=indent, ensure_ascii=False, default=str))


def print_table(heads: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Print a table on a terminal, tab-separated lines in a pipe.

    The last column can be long. On a terminal it is printed below its row.
    """
    console = output()
    if not console.is_terminal:
        for row in rows:
            typer.echo("\t".join(plain(str(cell)).replace("\n", " ").replace("\t", " ") for cell in row))
        return
    table = [[cell if isinstance(cell, Text) else Text(plain(cell)) for cell in row] for row in rows]
    head = [Text(name, style="dim") for name in heads]
    widths = [max(map(len, column)) for column in zip(head, *table, strict=True)]
    console.print(_line(head[:-1], widths), no_wrap=True, overflow="ellipsis")
    for row in table:
        console.print(_line(row[:-1], widths), no_wrap=True, overflow="ellipsis")
        if row[-1]:
            console.print(Padding(Text(row[-1].plain, style="dim"), (0, 0, 0, 4)))


def _line(cells: Sequence[Text], widths: Sequence[int]) -> Text:
    *first, last = cells
    padded = [
        Text.assemble(cell, " " * (width - len(cell))) for cell, width in zip(first, widths, strict=False)
    ]
    return Text("  ").join([*padded, last])


def status_text(status: str) -> Text:
    """A status in its colour."""
    return Text(status, style=_STYLES.get(status, ""))
