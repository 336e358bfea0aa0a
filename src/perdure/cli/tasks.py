"""tasks: list people's tasks, show one, claim, release, assign and answer one."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from perdure.cli.options import InputOption, on_hub, read_input, read_tags
from perdure.cli.target import HubTarget
from perdure.cli.terminal import EXIT_CODES, NOT_FOUND, fail, print_json, print_table
from perdure.engine.client.client import Client
from perdure.engine.client.tasks import OpenTask
from perdure.http.api.tasks import document_of
from perdure.http.formatting import ago, compact, plain
from perdure.http.remote.client import RemoteClient
from perdure.http.task_sentences import deadline_sentence, due_in_short
from perdure.model.human_tasks import Person
from perdure.replay.inputs import given

commands = typer.Typer()
tasks = typer.Typer(help="List, claim and answer people's tasks.", no_args_is_help=True)
commands.add_typer(tasks, name="tasks", epilog=EXIT_CODES)

TaskArgument = Annotated[
    str,
    typer.Argument(metavar="TASK", help="The id of the task, as `tasks list` prints it.", show_default=False),
]
AsOption = Annotated[
    str,
    typer.Option(
        "--as",
        metavar="PERSON",
        help="The person who acts, on a hub that this command opens itself. A server takes the person from the key.",
        show_default=False,
    ),
]
RoleOption = Annotated[
    list[str] | None,
    typer.Option("--role", help="A role of the person who acts. Can be repeated.", show_default=False),
]


@tasks.command("list", epilog=EXIT_CODES)
@on_hub
def list_(
    target: HubTarget,
    person: Annotated[
        str,
        typer.Option("--person", help="Only tasks this person holds, or that are assigned to this person."),
    ] = "",
    role: Annotated[str, typer.Option("--role", help="Only tasks this role may decide now.")] = "",
    orchestrator: Annotated[
        str, typer.Option("--orchestrator", help="Only tasks of this orchestrator.")
    ] = "",
    text: Annotated[str, typer.Option("--text", help="Only tasks whose title contains this.")] = "",
    tag: Annotated[
        list[str] | None,
        typer.Option(
            "--tag", metavar="NAME=VALUE", help="Only tasks of instances with this tag.", show_default=False
        ),
    ] = None,
    top: Annotated[
        int, typer.Option("--top", help="The most tasks to list, 1 to 1000.", min=1, max=1000)
    ] = 50,
) -> None:
    """List open tasks, due first."""
    page = target.ask(
        lambda client: client.list_tasks(
            person=person,
            role=role,
            orchestrator=orchestrator,
            text=text,
            tags=read_tags(tag or []),
            top=top,
        )
    )
    if target.as_json:
        print_json([document_of(task) for task in page.tasks])
        return
    now = datetime.now(UTC)
    print_table(
        ("TASK", "TITLE", "DUE", "FOR", "HELD BY", "SINCE"),
        [
            (task.id, task.title, due_in_short(task, now), _for(task), task.holder, ago(task.since, now))
            for task in page.tasks
        ],
    )


@tasks.command(epilog=EXIT_CODES)
@on_hub
def show(target: HubTarget, task: TaskArgument) -> None:
    """Show one open task: what is asked, of whom, until when, and the shape of the answer."""
    found = target.ask(lambda client: client.get_task(task))
    if found is None:
        fail(f"there is no open task {task}: it was decided, has expired, or never existed", NOT_FOUND)
    if target.as_json:
        print_json(document_of(found))
        return
    now = datetime.now(UTC)
    typer.echo(plain(found.title))
    for label, value in _lines(found, now):
        if value:
            typer.echo(f"  {label:<10} {plain(value)}")


@tasks.command(epilog=EXIT_CODES)
@on_hub
def claim(target: HubTarget, task: TaskArgument, as_: AsOption = "", role: RoleOption = None) -> None:
    """Claim a task, so that no other person decides it."""
    target.order(lambda client: client.claim_task(task, _person(client, as_, role)))
    _done(target, task, "claimed")


@tasks.command(epilog=EXIT_CODES)
@on_hub
def release(target: HubTarget, task: TaskArgument, as_: AsOption = "", role: RoleOption = None) -> None:
    """Give a claimed task back."""
    target.order(lambda client: client.release_task(task, _person(client, as_, role)))
    _done(target, task, "released")


@tasks.command(epilog=EXIT_CODES)
@on_hub
def assign(
    target: HubTarget,
    task: TaskArgument,
    to: Annotated[str, typer.Argument(metavar="PERSON", help="The person who gets it.", show_default=False)],
    as_: AsOption = "",
    role: RoleOption = None,
) -> None:
    """Assign a task to another person."""
    target.order(lambda client: client.assign_task(task, _person(client, as_, role), to))
    _done(target, task, f"assigned to {to}")


@tasks.command(epilog=EXIT_CODES)
@on_hub
def complete(
    target: HubTarget,
    task: TaskArgument,
    input_: InputOption = None,
    as_: AsOption = "",
    role: RoleOption = None,
) -> None:
    """Answer a task."""
    person = Person(as_, tuple(role or ())) if as_ else None
    body = read_input(input_)
    target.order(lambda client: client.complete_task(task, person, given(body)))
    _done(target, task, "answered")


def _person(client: Client, name: str, roles: list[str] | None) -> Person:
    """The person who acts. A server takes the person from the key, so any name will do for it."""
    if not name and not isinstance(client, RemoteClient):
        raise typer.BadParameter("name the person who acts, because no server is asked", param_hint="--as")
    return Person(name or "caller", tuple(roles or ()))


def _done(target: HubTarget, task: str, what: str) -> None:
    if target.as_json:
        print_json({"id": task})
    else:
        typer.echo(f"Task {task} was {what}.")


def _for(task: OpenTask) -> str:
    return task.assignee or ", ".join(task.roles)


def _lines(task: OpenTask, now: datetime) -> list[tuple[str, str]]:
    return [
        ("deadline", deadline_sentence(task, now)),
        ("for", _for(task)),
        ("held by", task.holder),
        ("decided", f"{len(task.given_by)} of {task.decisions}" if task.decisions > 1 else ""),
        (
            "waits",
            f"{task.orchestrator} {task.instance_id}, event {task.event}, since {ago(task.since, now)}",
        ),
        *[(name, compact(value)) for name, value in task.facts.items()],
        ("answer", compact(task.schema) if task.schema else ""),
    ]
