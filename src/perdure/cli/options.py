"""Options that several commands share, and the functions that read their values."""

import inspect
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from msgspec import Raw

from perdure.cli.target import HubTarget
from perdure.errors import PayloadError
from perdure.model import payload
from perdure.settings import PlaceSettings

StoreOption = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="PERDURE_STORE",
        help="The store: sqlite:///file.db, a path, postgresql://user@host/database, or azure:.",
        show_default=True,
    ),
]
HubOption = Annotated[
    str | None,
    typer.Option(
        "--hub", envvar="PERDURE_HUB", help="The hub. Required if the store has several.", show_default=False
    ),
]
UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="PERDURE_URL",
        help="The address of a running server, to use instead of the store.",
        show_default=False,
    ),
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--key",
        envvar="PERDURE_KEY",
        help="An access key for the server.",
        show_default=False,
        show_envvar=True,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs. Its format is stable.")]
InputOption = Annotated[
    str | None,
    typer.Option(
        "--input",
        "-i",
        help="JSON. @FILE reads it from a file, - from standard input.",
        show_default=False,
    ),
]
ReasonOption = Annotated[str, typer.Option("--reason", help="A reason. It is stored with the instance.")]
InstanceArgument = Annotated[str, typer.Argument(metavar="ID", help="The instance id.", show_default=False)]

DEFAULT_STORE = PlaceSettings.store


def _options(
    store: StoreOption = DEFAULT_STORE,
    hub: HubOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """The options of every command that works on a hub."""


_OF_A_HUB = tuple(inspect.signature(_options).parameters.values())


def on_hub(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options --store, --hub, --url, --key and --json.

    The command gets their values as its first parameter, a `HubTarget`.
    """
    hints = get_type_hints(command, include_extras=True)
    _, *own = inspect.signature(command).parameters.values()

    @wraps(command)
    def run(**values: Any) -> None:
        target = HubTarget(**{one.name: values.pop(one.name) for one in _OF_A_HUB})
        command(target, **values)

    parameters = [*(one.replace(annotation=hints[one.name]) for one in own), *_OF_A_HUB]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


def read_input(given: str | None) -> Raw | None:
    """Read and check the payload of `--input`. Raises typer.BadParameter."""
    if given is None:
        return None
    try:
        return payload.check(_bytes(given))
    except PayloadError as error:
        raise typer.BadParameter(f"--input: {error}") from error
    except OSError as error:
        raise typer.BadParameter(f"--input cannot be read: {error}") from error


def read_tags(given: list[str]) -> dict[str, str] | None:
    """The tags of all `--tag name=value` options."""
    for pair in given:
        if "=" not in pair:
            raise typer.BadParameter(f"{pair!r} is not a tag. Write a tag as name=value")
    return dict(pair.split("=", 1) for pair in given) or None


def _bytes(given: str) -> bytes:
    if given == "-":
        return sys.stdin.buffer.read()
    if given.startswith("@"):
        return Path(given[1:]).read_bytes()
    return given.encode()
