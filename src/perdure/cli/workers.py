"""workers and partitions: who serves a hub that several processes share, and who owns how much of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from perdure.cli.options import DEFAULT_STORE, HubOption, JsonOption, KeyOption, StoreOption, UrlOption
from perdure.cli.target import HubTarget
from perdure.cli.terminal import EXIT_CODES, print_json, print_table
from perdure.http.api.workers import partition_document, worker_document
from perdure.http.formatting import ago, lasting

if TYPE_CHECKING:
    from perdure.model.workers import Worker

commands = typer.Typer()


@commands.command(epilog=EXIT_CODES)
def workers(
    store: StoreOption = DEFAULT_STORE,
    hub: HubOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the processes that serve a hub in PostgreSQL: role, state, partitions, lease, since when, version."""
    found = HubTarget(store, hub, url, as_json, key).ask(lambda client: client.workers())
    if as_json:
        print_json([worker_document(one) for one in found])
    elif not found:
        typer.echo("Nobody serves this hub among others just now.")
    else:
        now = datetime.now(UTC)
        heads = ("WORKER", "ROLE", "STATE", "PARTITIONS", "LEASE", "SINCE", "VERSION", "POOLS")
        print_table(heads, [_row(one, now) for one in found])


def _row(one: Worker, now: datetime) -> tuple[str, ...]:
    return (
        one.name,
        one.role,
        one.state,
        str(one.partitions),
        lasting(one.lease_left),
        ago(one.since, now),
        " ".join(filter(None, (one.version, f"perdure {one.perdure}"))),
        ", ".join(one.pools),
    )


@commands.command(epilog=EXIT_CODES)
def partitions(
    store: StoreOption = DEFAULT_STORE,
    hub: HubOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the shares of a hub in PostgreSQL: partition, epoch, owner. The epoch counts how often it was taken.

    In a pipe, these are the columns of each line, without a heading; `nobody` owns what is free.
    """
    found = HubTarget(store, hub, url, as_json, key).ask(lambda client: client.partitions())
    if as_json:
        print_json([partition_document(one) for one in found])
    elif not found:
        typer.echo("This hub is not shared out: one process at a time serves it.")
    else:
        rows = [(str(one.partition), str(one.epoch), one.owner or "nobody", "") for one in found]
        print_table(("PARTITION", "EPOCH", "OWNER", ""), rows)
