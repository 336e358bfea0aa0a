"""Repeats: the scope of a caller's name for a request.

A caller names a request to be able to repeat it: `operation_id` in process, `Idempotency-Key` over HTTP. The
name is scoped to the caller, the operation and the target: the same name for another instance, another verb, or
from another caller is another request. Answers are kept in `seen` under a digest over these four parts, which a
caller cannot forge, together with a digest of the content. The same request with different content is rejected
and does nothing.

Requests of the application's own code have the caller "", because the code chooses their names; requests that
an activity derives from its idempotency key have `CAUSE`, which no request can have.

Rows written before names were scoped contain the name itself. They still answer repeats of their requests until
they expire: for the instance that they name, and only with an answer of the kind that the verb returns.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from hashlib import sha256
from struct import Struct
from typing import Any, Final, TypeVar

import msgspec

from perdure.engine.core.audit import NOTE
from perdure.engine.core.remembered import answer_in, damaged_answer
from perdure.errors import IdempotencyConflict, StoreError
from perdure.model import payload
from perdure.model.instances import execution_id_of
from perdure.model.messages import (
    CompleteTask,
    EntityOperation,
    Message,
    MoveTask,
    Purge,
    RaiseEvent,
    Resume,
    Rewind,
    Start,
    Suspend,
    Terminate,
)
from perdure.model.records import SeenRow

M = TypeVar("M")
CODE: Final = ""
"""The caller of requests that the application's own code names."""
CAUSE: Final = "cause"
"""The caller of requests whose names derive from an activity."""
LINK: Final = "link"
"""The caller of decisions by one-time links: the nonce of the link is the name."""
_PREFIX: Final = "op:"
_CALLER: Final = "caller "  # so that no caller has one of the names above
_ID_DIGITS, _CONTENT_DIGITS = 40, 32
_DERIVED: Final = re.compile(r"request-[0-9a-f]+|.*#[0-9]+", re.DOTALL)
_MET_AT_MOST: Final = 1_000

Parts = tuple[str | bytes, ...]


class _RequestKind(msgspec.Struct, frozen=True):
    """The identity of requests of one kind: the verb's name, the target, and the content."""

    name: str
    target: Callable[[Any], Parts]
    content: Callable[[Any], Parts]


def _of_instance(message: Any) -> Parts:
    return (message.instance_id,)


def _of_reason(message: Any) -> Parts:
    return (message.reason,)


def _start_target(message: Start) -> Parts:
    # A generated id differs in the repeat.
    return ("", message.name) if message.fresh else (message.instance_id,)


def _start_content(message: Start) -> Parts:
    # Without the version and the time: a repeat may follow a deployment, and compute "in an hour" again.
    tags = json.dumps(message.tags, sort_keys=True) if message.tags else "{}"
    return (message.name, bytes(message.input), tags)


_VERBS: Final[dict[type, _RequestKind]] = {
    Start: _RequestKind("start", _start_target, _start_content),
    RaiseEvent: _RequestKind("raise", lambda m: (m.instance_id, m.name), lambda m: (bytes(m.input),)),
    CompleteTask: _RequestKind(
        "complete_task",
        lambda m: (m.instance_id, str(m.task)),
        lambda m: (bytes(m.input), m.decided_by),
    ),
    MoveTask: _RequestKind(
        "move_task", lambda m: (m.instance_id, str(m.task)), lambda m: (m.verb, m.person, m.to)
    ),
    EntityOperation: _RequestKind(
        "operate", lambda m: (m.instance_id, m.operation), lambda m: (bytes(m.input), str(m.is_signal))
    ),
    Suspend: _RequestKind("suspend", _of_instance, _of_reason),
    Resume: _RequestKind("resume", _of_instance, _of_reason),
    Terminate: _RequestKind("terminate", _of_instance, lambda m: (m.reason, str(m.recursive))),
    Rewind: _RequestKind("rewind", _of_instance, _of_reason),
    Purge: _RequestKind("purge", _of_instance, lambda m: ()),
}


class Begun(str):
    """The id of an instance that a start created. `born` distinguishes it from every other instance with this
    id.
    """

    salt: bytes

    def __new__(cls, instance_id: str, salt: bytes) -> Begun:
        made = super().__new__(cls, instance_id)
        made.salt = salt
        return made

    @property
    def born(self) -> str:
        return born_of(self.salt)


class Met(str):
    """The id of an instance that a start did not create; `born` is that of the instance that its first attempt
    created, if any.
    """

    born: str

    def __new__(cls, instance_id: str, born: str = "") -> Met:
        made = super().__new__(cls, instance_id)
        made.born = born
        return made


def born_of(salt: bytes) -> str:
    """The digest that distinguishes an instance from every other with its id."""
    return execution_id_of(salt, 0)


@dataclass(slots=True)
class Occasion:
    """One request of a client function, or the record of one task outside client functions.

    Parameters:
        carries: its Idempotency-Key, "" for none.
        caller: the sender.
        content: a digest of the request; "" if unknown.
        starts: the number of starts named after the key.
        met: instances that its starts did not create, and that its key does not prove to be the caller's.
        is_full: whether starts met more instances than are kept; then every instance counts as met.
        task: the task of a route that perdure does not serve; None inside a client function.
        around: the occasion in which that task began, which receives what the task meets.
    """

    carries: str = ""
    caller: str = ""
    content: Callable[[], str] = str
    starts: int = 0
    met: set[str] = field(default_factory=set)
    is_full: bool = False
    task: object = None
    around: Occasion | None = None

    def meet(self, instance_id: str) -> None:
        """Note an instance that a start has met."""
        if len(self.met) < _MET_AT_MOST:
            self.met.add(instance_id)
        else:
            self.is_full = True
        if self.around is not None:
            self.around.meet(instance_id)

    def has_met(self, instance_id: str) -> bool:
        """Whether a start has met this instance."""
        return self.is_full or instance_id in self.met


OCCASION: ContextVar[Occasion | None] = ContextVar("perdure_occasion", default=None)


# ------------------------------------------------------------------------------------------------ naming


def named(message: M) -> M:
    """The message with the id under which its answer is kept. A message without a name, or with that id, is
    unchanged.
    """
    key = getattr(message, "operation_id", "")
    if not key or message.remembered_as:  # type: ignore[attr-defined]
        return message
    return bound(message, _caller_of(key))


def bound(message: M, caller: str, *, content: str | None = None) -> M:
    """The message with the id under which its answer is kept for this caller.

    `content` is a digest of the request, "" to skip the comparison; default is the digest of the message.
    """
    found: Any = message
    verb = _VERBS[type(message)]
    return msgspec.structs.replace(  # type: ignore[type-var]
        message,
        remembered_as=id_of(caller, verb.name, verb.target(message), found.operation_id),
        content=digest_of(*verb.content(message)) if content is None else content,
    )


def bound_by_key(start: Start) -> Start:
    """A start of a client function, named by the Idempotency-Key of its request, if any."""
    here = OCCASION.get()
    if here is None or not here.carries or start.operation_id:
        return start
    number, here.starts = here.starts, here.starts + 1
    return msgspec.structs.replace(
        start,
        operation_id=here.carries,
        remembered_as=id_of(here_caller(here), "start", (*_start_target(start), str(number)), here.carries),
        content=here.content() or digest_of(*_start_content(start)),
    )


def here_caller(here: Occasion) -> str:
    return _CALLER + here.caller


def is_carried(operation_id: str) -> bool:
    """Whether the current request has this Idempotency-Key."""
    here = OCCASION.get()
    return here is not None and bool(here.carries) and operation_id == here.carries


def _caller_of(name: str) -> str:
    note = NOTE.get()
    if note is not None:
        return _CALLER + note.who
    here = OCCASION.get()
    # A name that the code passes on belongs to its caller; every other name is its own.
    return here_caller(here) if here is not None and here.carries and name == here.carries else CODE


def send_named(message: Start, queue: str, key: str) -> Start:
    """The start for a queue's message, under the name of the request that sent it."""
    named_so = msgspec.structs.replace(message, operation_id=key)
    remembered_as = id_of(_caller_of(key), "send", (queue,), key)
    content = digest_of(*_start_content(named_so))
    return msgspec.structs.replace(named_so, remembered_as=remembered_as, content=content)


def restart_named(instance_id: str, key: str, *, fresh: bool) -> Start:
    """The start that restarts this instance, without its content, with a name if the request has one."""
    start = Start(instance_id=instance_id, name="", operation_id=key, fresh=fresh)
    if not key:
        return start
    remembered_as = id_of(_caller_of(key), "restart", (instance_id,), key)
    return msgspec.structs.replace(start, remembered_as=remembered_as, content=digest_of(str(fresh)))


def id_of(caller: str, verb: str, target: Parts, key: str) -> str:
    """The id under which the answer is kept."""
    return _PREFIX + digest_of(caller, verb, *target, key, digits=_ID_DIGITS)


def digest_of(*parts: str | bytes, digits: int = _CONTENT_DIGITS) -> str:
    """A digest over parts, each with its length before it, so that no two lists of parts have the same bytes."""
    try:
        encoded = [part if part.__class__ is bytes else part.encode() for part in parts]  # type: ignore[union-attr]
    except UnicodeEncodeError:  # a lone surrogate, which is rejected later and must be distinct until then
        encoded = [
            part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass") for part in parts
        ]
    framed = b"".join([_framing(len(part)) + part for part in encoded])
    return sha256(framed).hexdigest()[:digits]


_framing: Final = Struct(">Q").pack


# --------------------------------------------------------------------------------------------- answering


def id_in(message: Message) -> str:
    """The id under which the message's answer is kept, "" for a message without a name."""
    return getattr(message, "remembered_as", "") or getattr(message, "operation_id", "")


def former_id_in(message: Message) -> str:
    """The id under which an answer was kept before names were scoped, "" if there is none."""
    remembered_as = getattr(message, "remembered_as", "")
    key: str = getattr(message, "operation_id", "")
    if not remembered_as or (_DERIVED.fullmatch(key) and message.content):  # type: ignore[union-attr]
        return ""
    return key


def remembered(message: Message, value: Any) -> bytes:
    """The record of the answer: the message's content, the answer, and for a start the created instance."""
    kept = str(value) if isinstance(value, Begun | Met) else value
    if not getattr(message, "remembered_as", ""):
        return payload.encode(kept)
    made = [value.born if isinstance(value, Begun) else ""] if isinstance(value, str) else []
    return payload.encode([message.content, kept, *made])  # type: ignore[union-attr]


def recalled(row: SeenRow, message: Message) -> Any:
    """The first answer, for a repeat; an IdempotencyConflict if the message has different content.

    A StoreError if the row of the answer is damaged.
    """
    try:
        found = answer_in(row)
    except StoreError as damaged:
        return damaged
    if not row.operation_id.startswith(_PREFIX):
        return _again(found)
    if not isinstance(found, list) or not 2 <= len(found) <= 3:
        return damaged_answer(row, "it is not a recorded answer")
    content, value, *made = found
    asked = getattr(message, "content", "")
    if content and asked and content != asked:
        return _conflict(message)
    return _again(value, *made)


def answers(row: SeenRow, message: Message) -> bool:
    """Whether an old row, which has only the name, can be the answer to this message."""
    try:
        found = answer_in(row)
    except StoreError:
        return True  # the repeat gets the answer, and nothing runs twice
    is_same = row.instance_id == message.instance_id
    match message:
        case Start():
            return isinstance(found, str) and (is_same or message.fresh or not message.content)
        case Purge():
            return found == 1 and is_same
    return found is None and is_same


def _again(value: Any, born: str = "") -> Any:
    return Met(value, born) if isinstance(value, str) else value


def _conflict(message: Message) -> IdempotencyConflict:
    verb = _VERBS[type(message)].name
    about = message.name if isinstance(message, Start) and message.fresh else message.instance_id
    return IdempotencyConflict(
        f"the name {message.operation_id[:60]!r} was used for another {verb} "  # type: ignore[union-attr]
        f"of {about!r} with different "
        "content: nothing was done. Repeat a request unchanged, and give a new request a new Idempotency-Key "
        "(operation_id, event_id)"
    )


__all__ = [
    "CAUSE",
    "CODE",
    "LINK",
    "OCCASION",
    "Begun",
    "Met",
    "Occasion",
    "answers",
    "born_of",
    "bound",
    "bound_by_key",
    "digest_of",
    "former_id_in",
    "id_in",
    "id_of",
    "is_carried",
    "named",
    "recalled",
    "remembered",
    "restart_named",
    "send_named",
]
