"""Options that select instances, and the filter they form together."""

import inspect
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import wraps
from typing import Annotated, Any, get_type_hints

import typer

from perdure.cli.options import read_tags
from perdure.cli.target import HubTarget
from perdure.engine.client.bulk import Which
from perdure.model.durations import duration
from perdure.model.instances import RuntimeStatus


def _status(given: str) -> RuntimeStatus:
    """The status of that name, in any case. Raises typer.BadParameter with the statuses that exist."""
    by_name = {status.value.lower(): status for status in RuntimeStatus}
    found = by_name.get(given.lower())
    if found is None:
        close = get_close_matches(given.lower(), by_name, 1)
        hint = f"Did you mean {by_name[close[0]].value}? " if close else ""
        raise typer.BadParameter(
            f"{given!r} is not a status. {hint}The statuses are {', '.join(RuntimeStatus)}"
        )
    return found


def _statuses(incomplete: str) -> list[str]:
    return [status.value for status in RuntimeStatus if status.value.lower().startswith(incomplete.lower())]


StatusOption = Annotated[
    list[RuntimeStatus] | None,
    typer.Option(
        "--status",
        metavar="STATUS",
        help=f"Only instances with this status: {', '.join(RuntimeStatus)}. Can be repeated.",
        parser=_status,
        autocompletion=_statuses,
        show_default=False,
    ),
]
NameOption = Annotated[
    str | None, typer.Option("--name", help="Only instances of this orchestrator.", show_default=False)
]
PrefixOption = Annotated[
    str | None, typer.Option("--prefix", help="Only ids with this prefix.", show_default=False)
]
TagOption = Annotated[
    list[str] | None,
    typer.Option(
        "--tag",
        metavar="NAME=VALUE",
        help="Only instances with this tag. Can be repeated.",
        show_default=False,
    ),
]
WaitingForOption = Annotated[
    str | None,
    typer.Option("--waiting-for", help="Only instances that wait for this event.", show_default=False),
]
ParkedOption = Annotated[
    bool,
    typer.Option("--parked", help="Only instances that the engine has parked.", show_default=False),
]
EndedBeforeOption = Annotated[
    datetime | None,
    typer.Option("--ended-before", help="Only instances that ended before this time.", show_default=False),
]
EndedAfterOption = Annotated[
    datetime | None,
    typer.Option("--ended-after", help="Only instances that ended after this time.", show_default=False),
]
FailureOption = Annotated[
    str | None,
    typer.Option(
        "--failure",
        metavar="TEXT",
        help="Only failed instances whose error contains this.",
        show_default=False,
    ),
]
ParentOption = Annotated[
    str | None,
    typer.Option("--parent", metavar="ID", help="Only instances that this one called.", show_default=False),
]
BuiltInOption = Annotated[
    bool,
    typer.Option(
        "--built-in", help="Also perdure's own orchestrations, of schedules and queues.", show_default=False
    ),
]
OlderThanOption = Annotated[
    str | None,
    typer.Option(
        "--older-than",
        metavar="3d",
        help="Only instances older than this, such as 90m, 12h or 3d.",
        show_default=False,
    ),
]
CreatedBeforeOption = Annotated[
    datetime | None,
    typer.Option("--created-before", help="Only instances created before this time.", show_default=False),
]
CreatedAfterOption = Annotated[
    datetime | None,
    typer.Option("--created-after", help="Only instances created after this time.", show_default=False),
]


def read_duration(given: str, option: str) -> timedelta:
    """Read the duration of an option. Raises typer.BadParameter."""
    try:
        return duration(given)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def read_selection(
    status: StatusOption = None,
    name: NameOption = None,
    prefix: PrefixOption = None,
    tag: TagOption = None,
    waiting_for: WaitingForOption = None,
    parked: ParkedOption = False,
    older_than: OlderThanOption = None,
    created_before: CreatedBeforeOption = None,
    created_after: CreatedAfterOption = None,
    ended_before: EndedBeforeOption = None,
    ended_after: EndedAfterOption = None,
    failure: FailureOption = None,
    parent: ParentOption = None,
) -> Which:
    """The filter that the options form; empty if no option was given."""
    if older_than is not None and created_before is not None:
        raise typer.BadParameter("--older-than and --created-before exclude each other. Give one of them")
    if older_than is not None:
        created_before = datetime.now(UTC) - read_duration(older_than, "--older-than")
    given: Which = {
        "status": status or (),
        "name": name,
        "prefix": prefix,
        "tags": read_tags(tag or []),
        "created_from": created_after.astimezone(UTC) if created_after else None,
        "created_to": created_before.astimezone(UTC) if created_before else None,
        "ended_from": ended_after.astimezone(UTC) if ended_after else None,
        "ended_to": ended_before.astimezone(UTC) if ended_before else None,
        "waiting_for": waiting_for,
        "parked": parked,
        "failure": failure,
        "parent": parent,
    }
    return given if any(given.values()) else {}


ALL: Which = {}
"""The selection of a command without filters."""
_SELECTION = tuple(inspect.signature(read_selection).parameters.values())


def selecting(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that select instances, in the place of its parameter `which`.

    The command gets the filter that they form. `on_hub` comes above this decorator.
    """
    hints = get_type_hints(command, include_extras=True)
    target, *own = inspect.signature(command).parameters.values()

    @wraps(command)
    def run(target: HubTarget, **values: Any) -> None:
        which = read_selection(**{one.name: values.pop(one.name) for one in _SELECTION})
        command(target, which=which, **values)

    parameters = [target]
    for one in own:
        parameters += _SELECTION if one.name == "which" else [one.replace(annotation=hints[one.name])]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run
