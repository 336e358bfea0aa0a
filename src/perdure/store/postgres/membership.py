"""Opening a hub: exclusively, or as one of several workers.

*Presence* is an advisory lock of the session, shared by workers and exclusive for a single engine; it ends with
the session. *The fence* is the row of an incarnation: a commit locks it FOR KEY SHARE, a takeover FOR UPDATE,
so the takeover waits for a commit in progress, and a commit after it finds the row void. A renewal changes no
key of the row, so neither blocks it. After a reconnect a store ends its former session before it reads
anything: a commit of that session may still be in progress, and would otherwise come after the read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import psycopg

from perdure.errors import StoreInUse
from perdure.model.records import PartitionRow, WorkerRow
from perdure.store.memory_cluster import NUMBERS_EACH
from perdure.store.port import Census, Opening
from perdure.store.postgres.binary import number, numbers, text
from perdure.store.postgres.errors import translated
from perdure.store.postgres.migrating import lock_key
from perdure.store.postgres.pipeline import Statement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perdure.store.port import Profile
    from perdure.store.postgres.address import Address
    from perdure.store.postgres.pipeline import Backend, Wire

_LOCK_TIMEOUT: Final = "55P03"
_PATIENCE_MS: Final = 500  # for a session that has just died
_LONG_PATIENCE_MS: Final = 10_000  # for a session of this store
_TAKEOVER_MS: Final = 500


def end_session(wire: Wire, former: Backend) -> None:
    """Make the server end a former session of this store, which it may consider alive after a network failure."""
    wire.text(
        "select pg_terminate_backend(pid) from pg_stat_get_activity($1::bigint::integer) "
        "where backend_start::text = $2::text",
        number(former.pid),
        text(former.started),
    )


def be_present(wire: Wire, address: Address, hub: str, *, alone: bool, again: bool) -> None:
    """Take the hub's lock, for as long as the session lives. Raises StoreInUse."""
    lock = "pg_advisory_lock" if alone else "pg_advisory_lock_shared"
    patience = _LONG_PATIENCE_MS if again else _PATIENCE_MS
    try:
        wire.ask(
            [
                Statement("", (), f"select set_config('lock_timeout', '{patience}', true)"),
                Statement("", (number(lock_key(address.schema, hub)),), f"select {lock}($1::bigint)"),
            ]
        )
    except psycopg.Error as error:
        if error.sqlstate != _LOCK_TIMEOUT:
            raise translated(error, address.shown) from error
        who = "workers serve it, or another process has it" if alone else "an engine or a tool has it"
        raise StoreInUse(
            f"hub {hub!r} of {address.shown} cannot be opened: {who} exclusively. Stop that first; PostgreSQL "
            "detects a lost connection after half a minute"
        ) from error


def open_alone(wire: Wire) -> Opening:
    """Open the hub exclusively and void all incarnations: with the exclusive lock, none of them is in a
    transaction.
    """
    *_, numbers_ = wire.ask(
        [
            Statement("void_all"),
            Statement("free_claims"),
            Statement("free_partitions"),
            Statement("next_numbers"),
        ]
    )
    return Opening(*numbers_.rows[0])


def enter(
    wire: Wire, profile: Profile, state: str, own: Sequence[int], incarnation: int, partitions: int
) -> Opening:
    """Register this incarnation. The store's earlier ones, `own`, become void, and their shares move to it."""
    values = (
        number(incarnation),
        text(profile.worker),
        text(profile.role),
        text(" ".join(profile.pools)),
        text(profile.functions),
        text(state),
        number(profile.lease),
    )
    before = numbers(list(own))
    _, entered, owned = wire.ask(
        [
            Statement("end_own", (before,)),
            Statement("enter", values),
            Statement("void_own", (before, number(incarnation))),
        ]
    )
    first = incarnation * NUMBERS_EACH
    kept = frozenset(row[0] for row in owned.rows)
    return Opening(first, first, incarnation, partitions, kept, entered.rows[0][0])


def next_incarnation(wire: Wire) -> int:
    """A new incarnation with unused row numbers, even in a copied hub."""
    given, numbers_ = wire.ask([Statement("next_incarnation", (number(1),)), Statement("next_numbers")])
    incarnation, highest = int(given.rows[0][0]), (max(numbers_.rows[0]) - 1) // NUMBERS_EACH
    if incarnation > highest:
        return incarnation
    return int(wire.one("next_incarnation", number(highest + 1 - incarnation))[0][0])


def leave(wire: Wire, own: Sequence[int]) -> None:
    """Void these incarnations, after a commit in progress, and free their shares."""
    before = numbers(list(own))
    wire.ask([Statement("end_own", (before,)), Statement("void_own", (before, None))])


def void(wire: Wire, incarnation: int) -> bool:
    """Take over from an incarnation whose lease has expired by the database's clock. See `SharedStore.void`."""
    try:
        *_, expired = wire.ask(
            [
                Statement("", (), "begin"),
                Statement("", (), f"select set_config('lock_timeout', '{_TAKEOVER_MS}', true)"),
                Statement("lock_expired", (number(incarnation),)),
            ]
        )
    except psycopg.Error as error:
        if error.sqlstate != _LOCK_TIMEOUT:
            raise
        wire.text("rollback")
        return False
    if not expired.rows:
        wire.text("rollback")
        return False
    wire.ask([Statement("void_own", (numbers([incarnation]), None)), Statement("", (), "commit")])
    return True


def census(answers: Sequence[Any]) -> Census:
    """The census from the answers to `now`, `workers` and `partitions`."""
    now, workers, partitions = answers
    return Census(
        now[0][0],
        tuple(WorkerRow._make(row) for row in workers),
        tuple(PartitionRow._make(row) for row in partitions),
    )


__all__ = ["be_present", "census", "end_session", "enter", "leave", "next_incarnation", "open_alone", "void"]
