"""Reads a stored history and checks it: the source for everything that replays or folds one.

Each row has its digest and its link in the chain (`perdure.model.hash_chain`), and each event with a large body
the digest of that body. Reading compares them, so that a flipped bit never becomes a result for user code.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from perdure.model import hash_chain
from perdure.model.encryption import Unreadable, refuse_unreadable
from perdure.model.events import BodyRef, ExecutionStarted, HistoryEvent, decode_events
from perdure.model.large_bodies import inline
from perdure.model.records import HistoryRow, InstanceRow, StoredInstance

DAMAGED: Final = "damaged"
"""The parking kind of an instance with damaged rows."""

_CAUSE: Final = "the disk or another program has changed it"


class HistoryDamaged(msgspec.DecodeError):
    """A row of history, or one of its bodies, is damaged."""


def read(stored: StoredInstance) -> list[tuple[int, list[HistoryEvent]]]:
    """(time, events) of each row, with bodies restored. Raises HistoryDamaged, msgspec.DecodeError.

    The instance's row, its history and its bodies must be read while nothing writes them.
    """
    row, history = stored.row, stored.history
    refuse_unreadable(row.salt)
    check_rows(stored)
    if (row.episodes, row.head) != _end(stored):
        raise HistoryDamaged(
            f"the row of the instance counts {row.episodes} rows of history, but history has {len(history)}, "
            f"or its newest row differs; {_CAUSE}"
        )
    bodies = _by_episode(stored)
    recorded = []
    for one in history:
        events = decode_events(one.events)
        own = bodies.get(one.episode, {})
        _check_bodies(row, one, events, own)
        recorded.append((one.at, inline(events, own)))
    for _, events in recorded:
        _check_start(row, events)
    return recorded


def _check_start(row: InstanceRow, events: list[HistoryEvent]) -> None:
    """Raise HistoryDamaged if the row names another orchestrator than its history."""
    for event in events:
        if isinstance(event, ExecutionStarted):
            if event.name == row.name and event.version == row.version and event.parent == row.parent:
                continue
            began = {"name": event.name, "version": event.version, "parent": event.parent}
            for column, value in began.items():
                if getattr(row, column) != value:
                    raise HistoryDamaged(
                        f"the row of the instance has a different {column} than its history, which began with "
                        f"{value!r}; {_CAUSE}"
                    )


def damage_in(stored: StoredInstance) -> str:
    """The damage of a history that may have grown while it was read; "" without damage.

    Rows that cannot be decrypted or decoded are skipped.
    """
    if isinstance(stored.row.salt, Unreadable):
        return ""
    try:
        check_rows(stored)
        for one in stored.history[:1]:
            if one.execution_no == stored.row.execution_no:
                _check_start(stored.row, decode_events(one.events))
        bodies = _by_episode(stored)
        for one in stored.history if bodies else ():
            _check_bodies(stored.row, one, decode_events(one.events), bodies.get(one.episode, {}), gone=False)
    except HistoryDamaged as damage:
        return str(damage)
    except msgspec.MsgspecError:
        return ""
    return ""


def check_rows(stored: StoredInstance) -> None:
    """Raise HistoryDamaged for the first row that is damaged or out of place."""
    row = stored.row
    salt, digest_of, link = row.salt, hash_chain.digest_of, hash_chain.link
    head, execution_no = b"", 0
    for expected, one in enumerate(stored.history):
        if not expected:
            execution_no = one.execution_no
            head = hash_chain.base_of(salt, execution_no)
        refuse_unreadable(one.events)
        head = link(head, execution_no, expected, one.at, one.digest)
        if digest_of(salt, one.events) != one.digest or head != one.hash or one.episode != expected:
            raise HistoryDamaged(f"{_name_of(one)} {_what(salt, one, expected)}; {_CAUSE}")


def _what(salt: bytes, one: HistoryRow, expected: int) -> str:
    if one.episode != expected:
        return f"follows a gap: episode {expected} is missing"
    if hash_chain.digest_of(salt, one.events) != one.digest:
        return "is damaged: its events do not match their digest"
    return "is damaged: its time, its digest or its hash has changed"


def _end(stored: StoredInstance) -> tuple[int, bytes]:
    row, history = stored.row, stored.history
    return len(history), history[-1].hash if history else hash_chain.base_of(row.salt, row.execution_no)


def _by_episode(stored: StoredInstance) -> dict[int, dict[int, bytes]]:
    found: dict[int, dict[int, bytes]] = {}
    for (episode, no), body in stored.bodies.items():
        found.setdefault(episode, {})[no] = body
    return found


def _check_bodies(
    row: InstanceRow,
    one: HistoryRow,
    events: list[HistoryEvent],
    bodies: dict[int, bytes],
    *,
    gone: bool = True,
) -> None:
    """Compare the bodies of a row with the references in its events. With `gone`, a missing body is damage."""
    for ref in references(events) if bodies or b'"body":{' in one.events else ():
        body = bodies.get(ref.no)
        if body is None and gone:
            raise HistoryDamaged(
                f"body {ref.no} of {_name_of(one)} is missing from the table payloads; {_CAUSE}"
            )
        if body is None:
            continue
        refuse_unreadable(body)
        if hash_chain.digest_of(row.salt, body).hex() != ref.digest:
            raise HistoryDamaged(
                f"body {ref.no} of {_name_of(one)}, in the table payloads, is damaged: it does not match its "
                f"digest; {_CAUSE}"
            )


def references(events: list[HistoryEvent]) -> Iterator[BodyRef]:
    """The references of these events to large bodies."""
    for event in events:
        carried = event.carried if isinstance(event, ExecutionStarted) else ()
        for one in (event, *carried):
            ref: BodyRef | None = getattr(one, "body", None)
            if ref is not None:
                yield ref


def _name_of(one: HistoryRow) -> str:
    place = f"instance_no {one.instance_no}, execution_no {one.execution_no}, episode {one.episode}"
    return f"the row of history ({place})"


__all__ = ["DAMAGED", "HistoryDamaged", "check_rows", "damage_in", "read", "references"]
