"""keys, audit, link: access keys, the audit log, and signed links for people without a key."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import typer

from perdure.cli.filters import read_duration
from perdure.cli.options import InstanceArgument, on_hub
from perdure.cli.target import HubTarget
from perdure.cli.terminal import EXIT_CODES, errors, print_json, print_table
from perdure.engine.client.client import Client
from perdure.engine.core.audit import NOTE, AuditMemo
from perdure.errors import SettingError
from perdure.http.formatting import plain
from perdure.http.remote.client import RemoteClient
from perdure.model.access import AccessKey, checked_scopes
from perdure.model.human_tasks import Person

commands = typer.Typer()
keys = typer.Typer(help="Create, list and revoke access keys.", no_args_is_help=True)
commands.add_typer(keys, name="keys")

ScopeOption = Annotated[
    list[str],
    typer.Option(
        "--scope",
        "-s",
        help="metrics, read, decide, operate, admin, function, function:NAME, or role:NAME. Can be repeated.",
    ),
]
ExpiresOption = Annotated[
    str | None,
    typer.Option(
        "--expires-in", help="How long the key is valid, such as 90d, 12h or 30m.", show_default=False
    ),
]


@keys.command(epilog=EXIT_CODES)
@on_hub
def create(
    target: HubTarget,
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="The person or program that will use it.", show_default=False),
    ],
    scope: ScopeOption,
    expires_in: ExpiresOption = None,
) -> None:
    """Create a key and print its secret. The secret is not stored and cannot be shown again.

    With --hub, the command creates the hub if it does not exist yet, so that
    its first server finds a key.
    """
    try:
        scopes = checked_scopes(scope)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--scope") from error
    lasts = read_duration(expires_in, "--expires-in") if expires_in else None
    made = replace(target, founds=True).tell(lambda client: client.create_key(name, scopes, expires_in=lasts))
    if target.as_json:
        print_json({**_document(made.key), "secret": made.secret})
        return
    until = f", valid until {_when(made.key.expires_time)}" if made.key.expires_time else ""
    errors().print(
        f"Created key {made.key.key_id} for {plain(name)} with scope {', '.join(scopes)}{until}:", style="dim"
    )
    typer.echo(made.secret)


@keys.command("list", epilog=EXIT_CODES)
@on_hub
def list_(
    target: HubTarget,
    links: Annotated[bool, typer.Option("--links", help="List the keys that sign links instead.")] = False,
) -> None:
    """List access keys, without their secrets. With --links, list the keys that sign links."""
    found = target.ask(lambda client: client.link_keys() if links else client.keys())
    if target.as_json:
        print_json([_document(one) for one in found])
        return
    now = datetime.now(UTC)
    if links:
        print_table(
            ("KEY", "STATE", "CREATED"),
            [(one.key_id, one.state(now), _when(one.created_time)) for one in found],
        )
        return
    print_table(
        ("KEY", "STATE", "SCOPES", "CREATED", "LAST USED", "NAME"),
        [
            (
                one.key_id,
                one.state(now),
                ",".join(one.scopes),
                _when(one.created_time),
                _when(one.last_used_time),
                one.name,
            )
            for one in found
        ],
    )


@keys.command(epilog=EXIT_CODES)
@on_hub
def revoke(
    target: HubTarget,
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="The key's id.", show_default=False)],
) -> None:
    """Revoke a key. Its sessions, and the links that depend on it, stop working too."""
    revoked = target.tell(lambda client: client.revoke_key(key_id))
    if target.as_json:
        print_json(_document(revoked))
    else:
        typer.echo(f"Key {key_id} of {plain(revoked.name)} is revoked.")


@keys.command("rotate-links", epilog=EXIT_CODES)
@on_hub
def rotate_links(target: HubTarget) -> None:
    """Create a new key for signing links. Existing links work until they expire or their key is revoked."""
    made = target.tell(lambda client: client.rotate_links())
    if target.as_json:
        print_json(_document(made))
    else:
        typer.echo(f"New links are signed with key {made.key_id}.")


@commands.command(epilog=EXIT_CODES)
@on_hub
def audit(
    target: HubTarget,
    who: Annotated[
        str | None, typer.Option("--who", help="Only calls of this caller.", show_default=False)
    ] = None,
    operation: Annotated[
        str | None,
        typer.Option(
            "--operation", help="Only this operation, such as terminate or create_key.", show_default=False
        ),
    ] = None,
    instance: Annotated[
        str | None, typer.Option("--instance", help="Only calls on this instance.", show_default=False)
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, max=1_000, help="The most entries to list.")] = 100,
    continuation: Annotated[
        str | None,
        typer.Option(
            "--continuation",
            help="Continue after the last page, with the value it printed.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """List the audit log of management calls, newest first, with time, outcome, operation, instance and caller."""
    page = target.ask(
        lambda client: client.audit(
            who=who, operation=operation, instance_id=instance, top=top, continuation=continuation
        )
    )
    if target.as_json:
        print_json(msgspec.to_builtins(page))
        return
    print_table(
        ("WHEN", "OUTCOME", "OPERATION", "INSTANCE", "FROM", "WHO", "ABOUT"),
        [
            (
                _when(one.time),
                one.outcome,
                one.operation + (f" ×{one.times}" if one.times > 1 else ""),
                one.instance_id,
                one.address,
                one.who,
                one.detail,
            )
            for one in page.records
        ],
    )
    if page.continuation:
        errors().print(f"More: --continuation {page.continuation}", style="dim")


@commands.command(epilog=EXIT_CODES)
@on_hub
def link(
    target: HubTarget,
    instance_id: InstanceArgument,
    event: Annotated[str, typer.Argument(metavar="EVENT", help="The event's name.", show_default=False)],
    expires_in: Annotated[
        str, typer.Option("--expires-in", help="How long the link is valid, such as 72h or 7d.")
    ] = "7d",
    once: Annotated[
        bool, typer.Option("--once/--many", help="Whether the link can be used once or many times.")
    ] = True,
    person: Annotated[
        str,
        typer.Option(
            "--for",
            metavar="PERSON",
            help="The person to whom you send the link, such as an e-mail address. Records name them.",
            show_default=False,
        ),
    ] = "",
    roles: Annotated[
        list[str] | None,
        typer.Option(
            "--role", metavar="ROLE", help="A role of this person. Repeat it for more.", show_default=False
        ),
    ] = None,
    public_url: Annotated[
        str,
        typer.Option(
            "--public-url",
            envvar="PERDURE_PUBLIC_URL",
            help="The public address of the server, for the link. A running server knows its own.",
            show_default=False,
        ),
    ] = "",
) -> None:
    """Print a signed link with which a person without a key can raise one event of one instance."""
    lasts = read_duration(expires_in, "--expires-in")
    if roles and not person:
        raise typer.BadParameter("a role needs the person who has it: give --for, too", param_hint="--role")
    made_for = Person(person, tuple(roles or ())) if person else None
    if public_url and not public_url.startswith(("http://", "https://")):
        raise typer.BadParameter("the address must begin with http:// or https://", param_hint="--public-url")

    async def make(client: Client) -> str:
        if not public_url and not isinstance(client, RemoteClient):
            raise SettingError(
                "the public address of the server is not known, because no server runs on this store. Give "
                "--public-url https://... (or PERDURE_PUBLIC_URL), or --url with the address of a running server"
            )
        link = await client.create_event_link(instance_id, event, expires_in=lasts, once=once, for_=made_for)
        note = NOTE.get()
        if note is not None:  # a server writes the entry itself
            written = replace(
                note, operation="create_link", detail=f"{event} for {person}" if person else event
            )
            await client.gateway.record(AuditMemo(audit=[written.row(client.gateway.now(), instance_id)]))
        return link

    made = replace(target, public_url=public_url).tell(make)
    if target.as_json:
        print_json({"url": made})
    else:
        typer.echo(made)


def _document(key: AccessKey) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(key)
    return found


def _when(at: datetime | None) -> str:
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S") if at else ""
