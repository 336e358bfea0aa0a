"""A plan: everything a seed decides beforehand. It is data, so that it can be shrunk and shown."""

from __future__ import annotations

from dataclasses import dataclass

from simulation.program import Program


@dataclass(frozen=True)
class Order:
    """One operation of a client. `key` names it for ever; with an id of its own it may be repeated."""

    key: int
    verb: str  # start | raise | signal | suspend | resume | terminate[-child] | restart | rewind | purge | decide ...
    target: str
    pause: float = 0.0  # seconds after the order before it
    with_id: bool = True
    lost: int = 0  # so many answers do not reach the client
    body: int = 0
    on_existing: str = "replace_finished"
    delay: float = 0.0  # start_at, in seconds from then
    event: str = ""
    recursive: bool = False
    new_id: bool = False
    operation: str = ""
    person: str = ""  # who does it; "" for a sender without a proven name


@dataclass(frozen=True)
class Client:
    """Does its orders one after the other. `after_start` waits until its target has been started."""

    orders: tuple[Order, ...]
    after_start: bool = False


@dataclass(frozen=True)
class Fault:
    """At the nth occurrence of `kind`, `effect` happens. What `amount` and `target` mean depends on the kind."""

    kind: str
    nth: int
    effect: str
    amount: float = 0
    target: str = ""


@dataclass(frozen=True)
class Knobs:
    """The bounds of the engine, and the manners of the world."""

    store: str = "memory"  # memory | sqlite | log | shared
    episodes: int = 1_000
    feeds: int = 100
    row_bytes: int = 4 * 1024 * 1024
    inline_bytes: int = 16 * 1024
    buffered_events: int = 2_000
    keep_executions: int = 1
    creeping: float = 0.0  # seconds that each look at the monotonic clock takes: cuts batches by time
    drift: float = 0.0
    gap: float = 0.001  # seconds that messages pile up before the loop's next turn
    commit: float = 0.001  # seconds that a commit takes
    slow: float = 0.0  # share of slow activities
    duplicated: float = 0.0  # share of activity results that come twice
    evicts_always: bool = False
    heals_at: float = 60.0
    restarts_when_healed: bool = True
    # Only where several workers serve the hub.
    workers: int = 0  # 0 for an engine that has the hub to itself
    doors: int = 0  # additional workers that only accept messages
    lease: float = 10.0
    slots: int = 100  # activities that a worker runs at once
    pooled: int = 0  # workers, the last ones, that serve the named pool; 0 for no such pool
    doze: float = 0.5  # seconds between two turns of an idle worker


@dataclass(frozen=True)
class Plan:
    """One run of the world."""

    seed: int
    knobs: Knobs
    program: Program
    clients: tuple[Client, ...]
    faults: tuple[Fault, ...]
