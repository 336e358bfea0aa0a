"""Entities: their ids, the stored record, and the state that a client sees.

An entity is an instance of kind `entity` whose id is `@name@key`. Names ignore case and are lower case in the
id; keys are case-sensitive.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

import msgspec
from msgspec import Raw

from perdure.errors import InvalidInstanceId
from perdure.model.encryption import refuse_unreadable
from perdure.model.events import ABSENT, ParentLink
from perdure.model.instances import ID_LIMIT

Caller = ParentLink
"""The caller of an entity: call `task_id` of one execution of an instance, or another entity."""

ENTITY: Final = "entity"
ORCHESTRATION: Final = "orchestration"
DELETE: Final = "delete"
"""The built-in operation of every class-style entity: it deletes the entity."""
OPERATION_LIMIT: Final = 200  # characters of an operation's name
_FORBIDDEN: Final = frozenset("/\\#?")


@dataclass(frozen=True, slots=True, order=True)
class EntityId:
    """The id of an entity: its registered name, and the key that distinguishes it from others with that name.

    Parameters:
        name: case does not matter; must not contain "@" or any of / \\ # ?.
        key: any printable text without / \\ # ?, may be empty.

    Raises InvalidInstanceId for a name or key that breaks these rules or is longer than 256 characters.
    """

    name: str
    key: str

    def __post_init__(self) -> None:
        broken = _broken_rule(self.name, self.key)
        if broken:
            raise InvalidInstanceId(f"entity id ({self.name!r}, {self.key!r}): {broken}"[:400])
        object.__setattr__(self, "name", self.name.lower())

    def __str__(self) -> str:
        return f"@{self.name}@{self.key}"

    @property
    def instance_id(self) -> str:
        """The id of the entity's instance, `@name@key`."""
        return str(self)

    @staticmethod
    def parse(instance_id: str) -> EntityId:
        """The entity behind an instance id. Raises InvalidInstanceId for any other id."""
        parts = instance_id.split("@", 2) if isinstance(instance_id, str) else []
        if len(parts) != 3 or parts[0]:
            raise InvalidInstanceId(
                f"{instance_id!r} is not the id of an entity: an entity id has the form '@name@key'"
            )
        return EntityId(parts[1], parts[2])

    @staticmethod
    def get_scheduler_id(entity_id: EntityId) -> str:
        """The instance id, as Azure spells it."""
        return str(entity_id)

    @staticmethod
    def get_entity_id_url_path(entity_id: EntityId) -> str:
        """The entity's path below the management API's base, as Azure spells it."""
        return f"entities/{entity_id.name}/{entity_id.key}"

    @staticmethod
    def get_entity_id(scheduler_id: str) -> EntityId:
        """The entity behind an instance id, as Azure spells it."""
        return EntityId.parse(scheduler_id)


def entity_id_of(entity: EntityId | str) -> str:
    """The instance id of an entity given as `EntityId` or as "@name@key". Raises InvalidInstanceId."""
    return _checked_id(entity) if type(entity) is str else _id_of(entity)


def _id_of(entity: EntityId | str) -> str:
    return str(entity if isinstance(entity, EntityId) else EntityId.parse(entity))


_checked_id = lru_cache(1_024)(_id_of)  # code often calls the same entity many times


def name_in(instance_id: str) -> str:
    """The entity's name in the id of its instance."""
    return instance_id.split("@", 2)[1]


def checked_operation(operation: object) -> str:
    """An operation's name: 1 to 200 printable characters. Raises InvalidInstanceId."""
    if (
        not isinstance(operation, str)
        or not operation
        or len(operation) > OPERATION_LIMIT
        or not operation.isprintable()
    ):
        raise InvalidInstanceId(
            f"an operation's name must be 1 to {OPERATION_LIMIT} printable characters, not "
            f"{str(operation)[:60]!r}"
        )
    return operation


def _broken_rule(name: object, key: object) -> str:
    if not isinstance(name, str) or not isinstance(key, str):
        return "name and key must be strings"
    if not name or "@" in name:
        return "the name must not be empty or contain '@'"
    if len(name) + len(key) + 2 > ID_LIMIT:
        return f"name and key together exceed {ID_LIMIT} characters"
    if not _FORBIDDEN.isdisjoint(name + key):
        return "it contains one of / \\ # ?, which are reserved in URLs"
    if not (name + key).isprintable():
        return "it contains a control or other unprintable character"
    return ""


class EntityRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """The record of an entity in `state.entity_state`: its state and the holder of its lock.

    `applied` counts the operations that ran outside the loop (`offload=True`), so that each result counts once.
    """

    state: Raw = ABSENT
    lock: Caller | None = None
    applied: int = 0


encode_record = msgspec.json.Encoder().encode
_record_decoder = msgspec.json.Decoder(EntityRecord)


def decode_record(data: bytes | None) -> EntityRecord:
    """A stored record; the empty record for an entity without one."""
    refuse_unreadable(data)
    try:
        return _record_decoder.decode(data) if data is not None else EntityRecord()
    except UnicodeDecodeError as error:  # from a damaged row
        raise msgspec.DecodeError(str(error)) from error


class EntityState(msgspec.Struct, frozen=True, kw_only=True):
    """The state of an entity, as a client sees it.

    `exists` is False for an entity that was never used or was deleted. `state` consists of JSON builtins.
    `locked_by` is the instance that holds its lock in a critical section; `reason` says why the entity is on
    hold, if it is.
    """

    exists: bool
    state: Any = None
    entity_id: EntityId
    last_operation_time: datetime | None = None
    locked_by: str = ""
    reason: str = ""

    @property
    def entity_exists(self) -> bool:
        """`exists`, as Azure spells it."""
        return self.exists

    @property
    def entity_state(self) -> Any:
        """`state`, as Azure spells it."""
        return self.state


@dataclass(frozen=True)
class EntityPage:
    """One page of a query for entities; `continuation` is the token of the next page, None on the last."""

    entities: list[EntityState]
    continuation: str | None = None
