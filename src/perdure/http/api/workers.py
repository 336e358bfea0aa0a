"""Workers and partitions of the hub over the management API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

import msgspec

from perdure.http.api.management import endpoint
from perdure.http.api.status_json import Instant
from perdure.http.contract import Answer, Contract
from perdure.http.responses import json_response
from perdure.http.routing import client_of
from perdure.model.durations import stamp
from perdure.model.workers import Partition, Worker

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


class WorkerDocument(TypedDict):
    """One worker of a hub in PostgreSQL."""

    name: str
    role: str
    state: str
    pools: list[str]
    partitions: int
    leaseLeft: float
    since: Instant
    version: str
    perdure: str
    incarnation: int
    orchestrators: list[str]
    activities: list[str]
    entities: list[str]


class PartitionDocument(TypedDict):
    """One partition of the hub's instances."""

    partition: int
    owner: str
    incarnation: int | None
    epoch: int


async def list_workers(request: Request) -> Response:
    """GET workers: list the workers of a hub in PostgreSQL. Other hubs have none."""
    return json_response([worker_document(one) for one in await client_of(request).workers()])


async def list_partitions(request: Request) -> Response:
    """GET partitions: list the partitions of a hub in PostgreSQL with their owners. Other hubs have none."""
    return json_response([partition_document(one) for one in await client_of(request).partitions()])


def worker_document(one: Worker) -> dict[str, Any]:
    """A worker as JSON-ready data."""
    return {**msgspec.to_builtins(one), "since": stamp(one.since)}


def partition_document(one: Partition) -> dict[str, Any]:
    """A partition as JSON-ready data."""
    return dict(msgspec.to_builtins(one))


ENDPOINTS = (
    endpoint(
        "/workers",
        "GET",
        list_workers,
        "read",
        Contract((), None, (Answer(200, list[WorkerDocument], "The workers, the oldest first."),)),
    ),
    endpoint(
        "/partitions",
        "GET",
        list_partitions,
        "read",
        Contract((), None, (Answer(200, list[PartitionDocument], "The partitions, by number."),)),
    ),
)
"""Below /runtime/webhooks/durabletask."""

__all__ = ["ENDPOINTS", "partition_document", "worker_document"]
