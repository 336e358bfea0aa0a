"""Who serves a hub, for people: its workers, and how the hub is shared out among them."""

from __future__ import annotations

from datetime import datetime

import msgspec


class Worker(msgspec.Struct, frozen=True, rename="camel"):
    """One process that serves a hub beside others."""

    name: str
    role: str  # worker: runs functions; api: takes requests only
    state: str  # living, draining, or gone: its lease has run out and nobody has taken over yet
    pools: list[str]
    partitions: int  # how many it owns
    lease_left: float  # seconds
    since: datetime
    version: str  # the default version of its application, "" if it has none
    perdure: str  # the version of perdure
    incarnation: int
    orchestrators: list[str]
    activities: list[str]
    entities: list[str]


class Partition(msgspec.Struct, frozen=True, rename="camel"):
    """A share of a hub's instances, and who owns it at present."""

    partition: int
    owner: str  # the worker's name; "" for nobody
    incarnation: int | None
    epoch: int  # grows whenever it is taken


__all__ = ["Partition", "Worker"]
