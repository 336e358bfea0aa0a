"""Damaged rows: replaced by harmless values, so that damage stays with its instance.

A disk error or another program may leave anything in a row: text that is not UTF-8, an unknown status, invalid
JSON, a time in the year 300,000. Stores pass every row through this module. A valid row stays unchanged. In an
invalid row, each wrong cell is replaced by a harmless value, and the row says so: an instance becomes a
`DamagedRow`, whose reason begins with "damaged" and names the cells, and which does not run; a wait becomes a
`DamagedWait`. So lists, pages, counts, polls and the loop continue with all other rows. History has its own
digests: see `perdure.model.recorded`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from perdure.model import hash_chain
from perdure.model.encryption import DAMAGED as SHOWN_DAMAGED
from perdure.model.encryption import Unreadable
from perdure.model.entities import ENTITY, ORCHESTRATION, decode_record
from perdure.model.instances import FINISHED, RuntimeStatus
from perdure.model.messages import Request, decode_message
from perdure.model.recorded import DAMAGED
from perdure.model.records import AuditRow, DroppedRow, HistoryRow, InstanceRow, KeyRow, SeenRow, WaitRow
from perdure.model.ring import HEAD, HOUR, MINUTE, RingRow, value_of

UNNAMED: Final = "damaged::"
"""The prefix of the substitute id of an instance with an unreadable id; its number in the store follows."""
UNNAMED_ENTITY: Final = "@damaged@"
"""The same for an entity."""
UNREADABLE: Final = "<damaged>"
"""The placeholder for a damaged body."""
LATEST: Final = 253_402_300_799_999_999  # microseconds: the last of the year 9999
_MOST: Final = 2**53
_STATUSES: Final = {status.value: status in FINISHED for status in RuntimeStatus}
_KINDS: Final = frozenset({ENTITY, ORCHESTRATION})
_tags = msgspec.json.Decoder(dict[str, str])
_json = msgspec.json.Decoder()
_object = msgspec.json.Decoder(dict[str, Any])


class Garbled(str):
    """Text that is not UTF-8, with its bytes shown as `\\xff`."""

    __slots__ = ()

    @classmethod
    def of(cls, stored: bytes) -> Garbled:
        return cls(stored.decode("utf-8", "backslashreplace"))


class DamagedRow(InstanceRow):
    """The row of an instance with damaged cells; `reason` names them."""

    __slots__ = ()


class DamagedWait(WaitRow):
    """An open wait with a damaged row."""

    __slots__ = ()


# ----------------------------------------------------------------------------------------------- cells

Check = Callable[[Any], bool]


def _is_text(cell: Any) -> bool:
    return type(cell) is str


def _is_id(cell: Any) -> bool:
    return type(cell) is str and cell != ""


def _is_count(cell: Any) -> bool:
    return type(cell) is int and 0 <= cell < _MOST


def _is_late(cell: Any) -> bool:
    """Whether the cell is a time, however distant."""
    return type(cell) is int and cell >= 0


def _is_time(cell: Any) -> bool:
    return type(cell) is int and 0 <= cell <= LATEST


def _is_flag(cell: Any) -> bool:
    return cell in (0, 1)


def _is_bytes(cell: Any) -> bool:
    return isinstance(cell, bytes)


def _is_json(cell: Any) -> bool:
    if isinstance(cell, Unreadable):
        return cell.shown != SHOWN_DAMAGED
    try:
        _json.decode(cell)
    except (msgspec.MsgspecError, TypeError, UnicodeDecodeError):
        return False
    return isinstance(cell, bytes)


def _is_object(cell: Any) -> bool:
    try:
        _object.decode(cell)
    except (msgspec.MsgspecError, TypeError, UnicodeDecodeError):
        return False
    return isinstance(cell, bytes)


def _is_tags(cell: Any) -> bool:
    try:
        _tags.decode(cell)
    except (msgspec.MsgspecError, TypeError, UnicodeDecodeError):
        return False
    return True


def _or_none(check: Check) -> Check:
    return lambda cell: cell is None or check(cell)


_INSTANCE: Final[Mapping[str, tuple[Check, Any]]] = {
    "partition": (_is_count, 0),
    "kind": (_KINDS.__contains__, ORCHESTRATION),
    "name": (_is_text, ""),
    "version": (_is_text, ""),
    "status": (_STATUSES.__contains__, RuntimeStatus.Suspended.value),
    "reason": (_is_text, ""),
    "execution_no": (_is_count, 0),
    "episodes": (_is_count, 0),
    "created_at": (_is_time, 0),
    "updated_at": (_is_time, 0),
    "completed_at": (_or_none(_is_time), None),
    "due_at": (_or_none(_is_late), None),
    "local_work": (_is_flag, 0),
    "parent_id": (_or_none(_is_text), None),
    "parent_execution": (_or_none(_is_text), None),
    "parent_task": (_or_none(_is_count), None),
    "tags": (_or_none(_is_tags), None),
    "salt": (_is_bytes, b""),
    "head": (_is_bytes, b""),
    "replays": (_is_count, 0),
    "replay_reason": (_is_text, ""),
}
"""For each column a check of valid values, and the substitute for others."""

_OTHERS: Final[Mapping[str, Mapping[str, tuple[Check, Any]]]] = {
    "history": {
        "execution_no": (_is_count, 0),
        "episode": (_is_count, 0),
        "at": (_is_time, 0),
        "events": (_is_bytes, b""),
        "digest": (_is_bytes, b""),
        "hash": (_is_bytes, b""),
    },
    "waits": {
        "name": (_is_text, ""),
        "since": (_is_time, 0),
        "deadline": (_is_time, 0),
        "schema": (_or_none(_is_object), None),
        "task": (_or_none(_is_json), None),
        "roles": (_is_text, ""),
        "holder": (_is_text, ""),
        "held_since": (_is_time, 0),
        "assignee": (_is_text, ""),
    },
    "state": {"custom_status": (_or_none(_is_json), None), "entity_state": (_or_none(_is_json), None)},
    "inbox": {"instance_id": (_is_id, ""), "visible_at": (_or_none(_is_time), None)},
    "seen": {
        "operation_id": (_is_text, ""),
        "instance_id": (_is_text, ""),
        "answer": (_is_json, b"null"),
        "expires_at": (_is_count, 0),
    },
    "dropped": {
        "instance_id": (_is_text, ""),
        "at": (_is_time, 0),
        "kind": (_is_text, ""),
        "name": (_is_text, ""),
        "operation_id": (_is_text, ""),
        "reason": (_is_text, ""),
        "body": (_is_bytes, b""),
    },
    "keys": {
        "key_id": (_is_text, ""),
        "kind": (_is_text, ""),
        "name": (_is_text, ""),
        "scopes": (_is_text, ""),
        "secret": (_is_bytes, b""),
        "created_at": (_is_time, 0),
        "created_by": (_is_text, ""),
        "expires_at": (_or_none(_is_time), None),
        "revoked_at": (_or_none(_is_time), None),
        "last_used_at": (_or_none(_is_time), None),
    },
    "ring": {
        "worker": (_is_text, ""),
        "resolution": ({HEAD, MINUTE, HOUR}.__contains__, HEAD),
        "start": (_is_time, 0),
        "incarnation": (_is_count, 0),
        "value": (_is_bytes, b""),
    },
    "audit": {
        "at": (_is_time, 0),
        "who": (_is_text, ""),
        "address": (_is_text, ""),
        "operation": (_is_text, ""),
        "instance_id": (_is_text, ""),
        "detail": (_is_text, ""),
        "outcome": (_is_text, ""),
        "times": (_is_count, 1),
    },
}


# ----------------------------------------------------------------------------------------------- instances


def instance_of(cells: tuple[Any, ...]) -> InstanceRow:
    """The row of an instance; a `DamagedRow` if the cells are invalid."""
    row = InstanceRow._make(cells)
    return row if _is_sound(row) else _mended(row)


def instances_of(rows: Iterable[tuple[Any, ...]]) -> list[InstanceRow]:
    return [instance_of(cells) for cells in rows]


def why_damaged(row: InstanceRow) -> str:
    """The damage of a row, in a sentence; "" for a valid one."""
    return row.reason if isinstance(row, DamagedRow) else ""


def known_status(status: str) -> str:
    """The status shown and counted for a stored status; "" stays unchanged."""
    return status if not status or status in _STATUSES else RuntimeStatus.Suspended.value


def number_of(instance_id: str) -> int | None:
    """The number in a substitute id, or None."""
    if not instance_id.startswith((UNNAMED, UNNAMED_ENTITY)):
        return None
    for mark in (UNNAMED, UNNAMED_ENTITY):
        number = instance_id.removeprefix(mark)
        if number != instance_id and number.isdigit() and number.isascii() and len(number) < 20:
            return int(number)
    return None


def _is_sound(row: InstanceRow) -> bool:
    """The checks of the table above, in their fastest form, because every row passes them."""
    finished = _STATUSES.get(row.status)
    try:
        return (
            finished is not None
            and row.kind in _KINDS
            and (row.completed_at is not None) == finished
            and type(row.instance_id) is str
            and row.instance_id != ""
            and type(row.name) is type(row.version) is type(row.reason) is type(row.replay_reason) is str
            and 0 <= row.created_at <= LATEST
            and 0 <= row.updated_at <= LATEST
            and (row.completed_at is None or 0 <= row.completed_at <= LATEST)
            and (row.due_at is None or row.due_at >= 0)
            and 0 <= row.execution_no < _MOST
            and 0 <= row.episodes < _MOST
            and 0 <= row.replays < _MOST
            and row.partition >= 0
            and row.local_work in (0, 1)
            and isinstance(row.salt, bytes)
            and isinstance(row.head, bytes)
            and (row.tags is None or _is_tags(row.tags))
            and (row.parent_id is None or _has_parent(row))
        )
    except TypeError:  # compared with a number, but is not one
        return False


def _has_parent(row: InstanceRow) -> bool:
    return (
        type(row.parent_id) is str
        and (row.parent_execution is None or type(row.parent_execution) is str)
        and (row.parent_task is None or _is_count(row.parent_task))
    )


def _mended(row: InstanceRow) -> InstanceRow:
    """The row with substitutes for its wrong cells, and a reason that names them."""
    wrong = {
        column: cell
        for column, cell in zip(row._fields, row, strict=True)
        if column in _INSTANCE and not _passes(_INSTANCE[column][0], cell)
    }
    whole = row._replace(**{column: _INSTANCE[column][1] for column in wrong})
    if not _is_id(row.instance_id):
        wrong["instance_id"] = row.instance_id
        mark = UNNAMED_ENTITY if whole.kind == ENTITY else UNNAMED
        whole = whole._replace(instance_id=f"{mark}{row.instance_no}")
    if "kind" in wrong and whole.instance_id.startswith("@"):
        whole = whole._replace(kind=ENTITY)
    if "status" in wrong and whole.completed_at is not None:
        whole = whole._replace(status=RuntimeStatus.Failed.value)
    if not wrong and not _agrees(whole):
        wrong = {"status": row.status, "completed_at": row.completed_at}
    if not wrong:
        return row
    finished = _STATUSES[whole.status]
    return DamagedRow._make(
        whole._replace(
            status=whole.status if finished else RuntimeStatus.Suspended.value,
            completed_at=(whole.completed_at or whole.updated_at) if finished else None,
            due_at=None,
            local_work=0,
            reason=f"{DAMAGED}: in the row of the instance (instance_no {row.instance_no}) {_listed(wrong)}; "
            "the disk or another program has changed it",
        )
    )


def _agrees(row: InstanceRow) -> bool:
    return (row.completed_at is not None) == _STATUSES[row.status]


def _listed(wrong: Mapping[str, Any]) -> str:
    return " and ".join(f"{column} is {_shown(cell)}" for column, cell in wrong.items())


def _shown(cell: Any) -> str:
    text = f"'{cell}'" if isinstance(cell, str) else repr(cell)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _passes(check: Check, cell: Any) -> bool:
    try:
        return check(cell)
    except TypeError:  # not hashable or not comparable
        return False


# ----------------------------------------------------------------------------------------------- the rest


def history_of(cells: tuple[Any, ...]) -> HistoryRow:
    """A row of history. Only the types are checked here; the digest covers the events."""
    row = HistoryRow._make(cells)
    if _is_time(row.at) and _is_count(row.episode) and _is_count(row.execution_no):
        if isinstance(row.events, bytes) and isinstance(row.digest, bytes) and isinstance(row.hash, bytes):
            return row
    # Without its hash, so that the comparison fails.
    return row._replace(**(_stand_ins("history", _wrong("history", row._fields, cells)) | {"hash": b""}))


def body_of(cell: Any) -> bytes:
    """A large body; its digest is checked elsewhere."""
    return cell if isinstance(cell, bytes) else b""


def end_of(row: InstanceRow, one: HistoryRow) -> bytes:
    """The events of the first or the last row of an execution; `Unreadable` if they do not match their digest."""
    locked = isinstance(row.salt, Unreadable) or isinstance(one.events, Unreadable)
    if locked or hash_chain.digest_of(row.salt, one.events) == one.digest:
        return one.events
    why = f"episode {one.episode} of its history is damaged: its events do not match their digest"
    return Unreadable.of(one.events, UNREADABLE, why)


def wait_of(cells: tuple[Any, ...]) -> WaitRow:
    row = WaitRow(*cells)  # a file of an earlier version has fewer columns
    wrong = _wrong("waits", row._fields, row)
    if not wrong:
        return row
    name = row.name if isinstance(row.name, str) else ""
    return DamagedWait._make(row._replace(**(_stand_ins("waits", wrong) | {"name": str(name)})))


def key_of(cells: tuple[Any, ...]) -> KeyRow:
    """A key; a damaged one has no scopes."""
    row = KeyRow._make(cells)
    wrong = _wrong("keys", row._fields, cells)
    if not wrong:
        return row
    mended = row._replace(**_stand_ins("keys", wrong))
    return mended._replace(
        key_id=str(row.key_id),
        name=f"(damaged) {row.name}",
        revoked_at=mended.revoked_at or mended.created_at,
    )


def audit_of(cells: Iterable[Any]) -> AuditRow:
    return AuditRow._make(_plain("audit", AuditRow._fields, tuple(cells)))


def dropped_of(cells: tuple[Any, ...]) -> DroppedRow:
    return DroppedRow._make(_plain("dropped", DroppedRow._fields, cells))


def seen_of(cells: tuple[Any, ...]) -> SeenRow:
    """A stored answer. An undecodable one stays unchanged, and the repeat of its request gets an error."""
    row = SeenRow._make(cells)
    return row if isinstance(row.answer, bytes) else row._replace(answer=b"")


def _plain(table: str, columns: Iterable[str], cells: tuple[Any, ...]) -> tuple[Any, ...]:
    """The cells, with garbled text made readable and placeholders for undisplayable values."""
    checks = _OTHERS[table]
    return tuple(
        cell if _passes(checks[name][0], cell) else _shown_as(cell, *checks[name])
        for name, cell in zip(columns, cells, strict=True)
    )


def _shown_as(cell: Any, check: Check, stand_in: Any) -> Any:
    return str(cell) if isinstance(cell, str) and check in (_is_text, _is_id) else stand_in


def _wrong(table: str, columns: Iterable[str], cells: Iterable[Any]) -> dict[str, Any]:
    checks = _OTHERS[table]
    return {
        name: cell
        for name, cell in zip(columns, cells, strict=True)
        if name in checks and not _passes(checks[name][0], cell)
    }


def _stand_ins(table: str, wrong: Iterable[str]) -> dict[str, Any]:
    return {name: _OTHERS[table][name][1] for name in wrong}


def flaw_in(table: str, columns: tuple[str, ...], cells: tuple[Any, ...]) -> str:
    """The damage of a row of a table without history, as a sentence; "" for a valid row."""
    wrong = _wrong(table, columns, cells) if table in _OTHERS else {}
    named = f"the row of {table} ({columns[0]} {_shown(cells[0])})"
    if wrong:
        return f"{named} is damaged: {_listed(wrong)}"
    why = _CONTENTS[table](cells) if table in _CONTENTS else ""
    return f"{named} is damaged: {why}" if why else ""


def _message_flaw(cells: tuple[Any, ...]) -> str:
    instance_id, stored = cells[1], cells[3]
    if isinstance(stored, Unreadable):
        return stored.why if stored.shown == SHOWN_DAMAGED else ""
    try:
        message = decode_message(stored)
        if isinstance(message, Request):
            message = decode_message(message.body)
    except (msgspec.MsgspecError, TypeError) as error:
        return f"its message to {_shown(instance_id)} cannot be read: {error}"
    if message.instance_id != instance_id:
        return f"it is for {_shown(instance_id)}, and its message for {_shown(message.instance_id)}"
    return ""


def _record_flaw(cells: tuple[Any, ...]) -> str:
    stored = cells[2]
    if stored is None or isinstance(stored, Unreadable):
        return ""
    try:
        decode_record(stored)
    except (msgspec.MsgspecError, TypeError) as error:
        return f"its entity_state is not an entity's record: {error}"
    return ""


def _ring_flaw(cells: tuple[Any, ...]) -> str:
    try:
        value_of(RingRow._make(cells))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return f"its value cannot be read: {error}"
    return ""


_CONTENTS: Final[Mapping[str, Callable[[tuple[Any, ...]], str]]] = {
    "inbox": _message_flaw,
    "state": _record_flaw,
    "ring": _ring_flaw,
}

__all__ = [
    "LATEST",
    "UNNAMED",
    "UNREADABLE",
    "DamagedRow",
    "DamagedWait",
    "Garbled",
    "audit_of",
    "body_of",
    "dropped_of",
    "end_of",
    "flaw_in",
    "history_of",
    "instance_of",
    "instances_of",
    "key_of",
    "known_status",
    "number_of",
    "seen_of",
    "wait_of",
    "why_damaged",
]
