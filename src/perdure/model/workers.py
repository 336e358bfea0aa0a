"""The workers of a hub and their partitions, for people."""

from __future__ import annotations

from datetime import datetime

import msgspec


class Worker(msgspec.Struct, frozen=True, rename="camel"):
    """One worker of a shared hub."""

    name: str
    role: str  # worker: runs functions; api: accepts requests only
    state: str  # living, draining, or gone: its lease has expired and no worker has taken over yet
    pools: list[str]
    partitions: int  # the number that it owns
    lease_left: float  # seconds
    since: datetime
    version: str  # the default version of its application, "" if it has none
    perdure: str  # the version of perdure
    incarnation: int
    orchestrators: list[str]
    activities: list[str]
    entities: list[str]


class Partition(msgspec.Struct, frozen=True, rename="camel"):
    """A share of a hub's instances, and its current owner."""

    partition: int
    owner: str  # the worker's name; "" without an owner
    incarnation: int | None
    epoch: int  # increases each time it is taken


__all__ = ["Partition", "Worker"]
