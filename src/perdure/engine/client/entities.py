"""The client's verbs for entities: signal an operation, read a state, query entities."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from perdure.engine.client.paging import number_in
from perdure.engine.client.starting import body_of
from perdure.errors import PayloadError
from perdure.model import payload
from perdure.model.damaged import UNREADABLE
from perdure.model.durations import instant, moment
from perdure.model.encryption import Unreadable
from perdure.model.entities import (
    ENTITY,
    EntityId,
    EntityPage,
    EntityRecord,
    EntityState,
    checked_operation,
    decode_record,
    encode_record,
    entity_id_of,
)
from perdure.model.messages import EntityOperation
from perdure.model.recorded import DAMAGED
from perdure.model.records import InstanceFilter, InstanceRow
from perdure.replay.inputs import NO_INPUT

if TYPE_CHECKING:
    from perdure.engine.client.gateway import Gateway
    from perdure.store.port import ClientStore


class EntityVerbs:
    """The entity verbs of `Client`."""

    gateway: Gateway

    async def signal_entity(
        self,
        entity_id: EntityId | str,
        operation_name: str,
        operation_input: Any = NO_INPUT,
        *,
        input: Any = NO_INPUT,
        at: datetime | None = None,
        operation_id: str | None = None,
    ) -> None:
        """Signal an entity to do an operation; returns once the signal is durable, before the operation runs.

        The entity need not exist: its first operation creates it. A failed operation leaves a record among the
        undelivered messages.

        Parameters:
            entity_id: the entity, as an id or as text.
            operation_input: anything strict JSON can carry; `input` is its name in 2.x of Azure's package.
            at: an aware datetime at which the operation runs.
            operation_id: an id that makes a repeat safe: a repeat within 24 hours does nothing.

        Raises: FunctionNotFound for an entity that is not registered, InvalidInstanceId, PayloadError,
            Overloaded, EngineStopped, OutcomeUnknown.
        """
        chosen = entity_id_of(entity_id)
        name = EntityId.parse(chosen).name
        self.gateway.has_entity(name)
        given = operation_input if input is NO_INPUT else input
        guard = self.gateway.operation_guard(name, checked_operation(operation_name))
        if guard is not None and given is not NO_INPUT:
            guard((), given)
        await self.gateway.accept(
            EntityOperation(
                instance_id=chosen,
                operation=checked_operation(operation_name),
                input=body_of(given),
                is_signal=True,
                visible_at=instant(at, "at") if at is not None else 0,
                operation_id=operation_id or "",
            )
        )

    async def read_entity_state(self, entity_id: EntityId | str) -> EntityState:
        """The last committed state of an entity; `exists` is False when the entity does not exist."""
        store, instance_id = self.gateway.store, entity_id_of(entity_id)
        return await self.gateway.read(lambda: entity_state_of(store, instance_id), brief=True)

    async def query_entities(
        self,
        *,
        name: str | None = None,
        key_prefix: str = "",
        last_operation_from: datetime | None = None,
        last_operation_to: datetime | None = None,
        fetch_state: bool = False,
        top: int = 100,
        continuation: str | None = None,
    ) -> EntityPage:
        """Entities that exist or have waiting operations, newest first, at most `top` (1 to 1000) a page.

        Parameters:
            name: only entities of this name; with `key_prefix` only entities whose key starts with it.
            last_operation_from, last_operation_to: aware datetimes that enclose the last use.
            fetch_state: fill in `state` too.
            continuation: the continuation of the previous page.

        A page may hold fewer than `top` and still have a continuation.
        """
        if not 1 <= top <= 1_000:
            raise PayloadError(f"top is 1 to 1000, not {top}")
        if key_prefix and name is None:
            raise PayloadError("key_prefix requires a name")
        wanted = InstanceFilter(
            kind=ENTITY,
            prefix=None if name is None else f"@{name.lower()}@{key_prefix}",
            before_no=number_in(continuation),
            top=top,
        )
        since = instant(last_operation_from, "last_operation_from") if last_operation_from else 0
        until = instant(last_operation_to, "last_operation_to") if last_operation_to else 2**62
        store = self.gateway.store
        return await self.gateway.read(lambda: entities_of(store, wanted, (since, until), fetch_state))


def entity_state_of(store: ClientStore, instance_id: str) -> EntityState:
    stored = store.get(instance_id)
    if stored is None or stored.row.kind != ENTITY:
        return EntityState(exists=False, entity_id=EntityId.parse(instance_id))
    return _state(stored.row, stored.entity_state, with_state=True)


def entities_of(
    store: ClientStore, wanted: InstanceFilter, between: tuple[int, int], with_state: bool
) -> EntityPage:
    rows = store.query(wanted)
    since, until = between
    shown = [row for row in rows if since <= row.updated_at <= until]
    records = store.entity_states([row.instance_no for row in shown])
    entities = [_state(row, records.get(row.instance_no), with_state=with_state) for row in shown]
    return EntityPage(entities, str(rows[-1].instance_no) if len(rows) == wanted.top else None)


def _state(row: InstanceRow, stored: bytes | None, *, with_state: bool) -> EntityState:
    if isinstance(stored, Unreadable):
        stored = encode_record(EntityRecord(Raw(payload.encode(stored.shown))))
    reason = row.reason
    try:
        record = decode_record(stored)
    except msgspec.MsgspecError as error:
        record = EntityRecord(Raw(payload.encode(UNREADABLE)))
        reason = f"{DAMAGED}: the record of the entity cannot be read: {error}"
    exists = bool(bytes(record.state))
    return EntityState(
        exists=exists,
        state=payload.decode(record.state) if exists and with_state else None,
        entity_id=EntityId.parse(row.instance_id),
        last_operation_time=moment(row.updated_at),
        locked_by=record.lock.instance_id if record.lock is not None else "",
        reason=reason,
    )
