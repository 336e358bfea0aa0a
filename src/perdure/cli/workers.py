"""workers and partitions: the processes that share a PostgreSQL hub, and the partitions each of them owns."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from perdure.cli.options import on_hub
from perdure.cli.target import HubTarget
from perdure.cli.terminal import EXIT_CODES, print_json, print_table
from perdure.http.api.workers import partition_document, worker_document
from perdure.http.formatting import ago, lasting

if TYPE_CHECKING:
    from perdure.model.workers import Worker

commands = typer.Typer()


@commands.command(epilog=EXIT_CODES)
@on_hub
def workers(target: HubTarget) -> None:
    """List the workers of a PostgreSQL hub with their role, state, partitions, lease, start time and version."""
    found = target.ask(lambda client: client.workers())
    if target.as_json:
        print_json([worker_document(one) for one in found])
    elif not found:
        typer.echo("No worker is registered for this hub. Only PostgreSQL hubs have a list of workers.")
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
@on_hub
def partitions(target: HubTarget) -> None:
    """List the partitions of a PostgreSQL hub with their epoch and owner.

    The epoch counts how often the partition changed its owner. In a pipe, each
    line has these three columns and there is no heading. The owner of a free
    partition is printed as `nobody`.
    """
    found = target.ask(lambda client: client.partitions())
    if target.as_json:
        print_json([partition_document(one) for one in found])
    elif not found:
        typer.echo(
            "This hub has no partitions: a single process serves it. Only PostgreSQL hubs have partitions."
        )
    else:
        rows = [(str(one.partition), str(one.epoch), one.owner or "nobody", "") for one in found]
        print_table(("PARTITION", "EPOCH", "OWNER", ""), rows)
