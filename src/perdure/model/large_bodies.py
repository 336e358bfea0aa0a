"""Large bodies: moved out of a history row's events, and restored. The digest of each stays in the event."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import msgspec
from msgspec import Raw

from perdure.model import hash_chain
from perdure.model.encryption import refuse_unreadable
from perdure.model.events import ABSENT, BODY_FIELD, BodyRef, EventRaised, ExecutionStarted, HistoryEvent


def outline(
    events: Sequence[HistoryEvent], above: int, salt: bytes
) -> tuple[list[HistoryEvent], list[bytes]]:
    """The events with every body of more than `above` bytes replaced by a reference, and those bodies."""
    if not _has_large(events, above):  # a hundred thousand small ones are left alone
        return list(events), []
    bodies: list[bytes] = []
    return [_outlined(event, above, salt, bodies) for event in events], bodies


def inline(events: list[HistoryEvent], bodies: Mapping[int, bytes]) -> list[HistoryEvent]:
    """The events with the bodies of their row, by `BodyRef.no`, in the fields where small ones are.

    A reference to an erased body stays.
    """
    return [_inlined(event, bodies) for event in events] if bodies else events


def body_of(event: HistoryEvent) -> bytes:
    """The inline body of an event, b"" without one."""
    name = BODY_FIELD.get(type(event))
    return bytes(getattr(event, name)) if name is not None else b""


def _has_large(events: Iterable[HistoryEvent], above: int) -> bool:
    """Whether an event may have a large body."""
    field_of = BODY_FIELD.get
    for event in events:
        name = field_of(type(event))
        if name is not None and len(bytes(getattr(event, name))) > above:
            return True
        if type(event) is ExecutionStarted and event.carried:
            return True
    return False


def _outlined(event: HistoryEvent, above: int, salt: bytes, bodies: list[bytes]) -> HistoryEvent:
    changes: dict[str, object] = {}
    if isinstance(event, ExecutionStarted) and event.carried:
        changes["carried"] = tuple(_outlined(carried, above, salt, bodies) for carried in event.carried)
    body = body_of(event)
    if len(body) > above:
        ref = BodyRef(len(bodies), len(body), hash_chain.digest_of(salt, body).hex())
        bodies.append(body)
        changes |= {BODY_FIELD[type(event)]: ABSENT, "body": ref}
    return _changed(event, changes)


def _inlined(event: HistoryEvent, bodies: Mapping[int, bytes]) -> HistoryEvent:
    changes: dict[str, object] = {}
    if isinstance(event, ExecutionStarted) and event.carried:
        changes["carried"] = tuple(cast("EventRaised", _inlined(c, bodies)) for c in event.carried)
    ref: BodyRef | None = getattr(event, "body", None)
    if ref is not None and ref.no in bodies:
        refuse_unreadable(bodies[ref.no])
        changes |= {BODY_FIELD[type(event)]: Raw(bodies[ref.no]), "body": None}
    return _changed(event, changes)


def _changed(event: HistoryEvent, changes: dict[str, object]) -> HistoryEvent:
    return msgspec.structs.replace(event, **changes) if changes else event
