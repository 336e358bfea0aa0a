"""Messages to instances, from clients, activities, timers and other instances.

Every message names its target. At every commit a message is exactly one of two things: consumed by a history
row of that transaction, or a row in `inbox` written by it. A client's request with a name (`operation_id`) has
the id under which its answer is kept (`remembered_as`) and a digest of its content (`content`), see
`perdure.engine.core.repeats`; older stored messages have neither. Messages between instances name their
execution, so that a late message, after the id was reused, is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from operator import attrgetter
from typing import Any, Final, Literal

import msgspec
from msgspec import Raw

from perdure.errors import InvalidInstanceId, PayloadError
from perdure.failure import Failure
from perdure.model.encryption import refuse_unreadable
from perdure.model.events import ABSENT, EventRaised, ParentLink
from perdure.model.names import is_text

OnExisting = Literal["replace_finished", "return_existing", "reject"]


class _Message(
    msgspec.Struct, frozen=True, tag=True, tag_field="type", omit_defaults=True, kw_only=True, gc=False
):
    instance_id: str


class Start(_Message, frozen=True, gc=True):
    """Start an instance. `visible_at` (microseconds) in the future delays its first step."""

    name: str
    version: str = ""
    input: Raw = ABSENT
    parent: ParentLink | None = None
    tags: dict[str, str] | None = None
    on_existing: OnExisting = "replace_finished"
    visible_at: int = 0
    operation_id: str = ""
    remembered_as: str = ""
    content: str = ""
    fresh: bool = False  # the id was generated for this start, so it is unused
    trace: str = ""  # see `perdure.model.trace_context`, here and below


class Begin(_Message, frozen=True, gc=True):
    """The first step of an accepted start (or of a next execution) that was delayed or held, with its input."""

    execution_id: str
    input: Raw = ABSENT
    operation_id: str = ""
    carried: tuple[EventRaised, ...] = ()
    trace: str = ""


class NextGeneration(_Message, frozen=True, gc=True):
    """The execution after `execution_id`, which continued as new when its batch was full."""

    execution_id: str
    input: Raw = ABSENT
    carried: tuple[EventRaised, ...] = ()
    version: str = ""
    trace: str = ""


class RaiseEvent(_Message, frozen=True):
    """`remembered_until` (microseconds) keeps its operation id for longer than usual.

    `accepted_at` (microseconds) is when a waiting message was accepted: timers due by then fire first. It is 0
    in a message that is handled at once, and in older rows without the field.

    `decided_by` and `roles` are the proven person who sent it, as in `EventRaised`.
    """

    name: str
    input: Raw = ABSENT
    operation_id: str = ""
    remembered_as: str = ""
    content: str = ""
    remembered_until: int = 0
    accepted_at: int = 0
    trace: str = ""
    decided_by: str = ""
    roles: tuple[str, ...] = ()


class CompleteTask(RaiseEvent, frozen=True):
    """A person's answer to one task. `task` is the id of its first wait, `execution_id` the execution that asks; it
    is empty until the answer is accepted, and in older rows without the field.
    """

    task: int = -1
    execution_id: str = ""


class MoveTask(_Message, frozen=True):
    """A person claims or releases an open task, or assigns it to `to`. `task` is the id of its first wait."""

    task: int
    verb: Literal["claim", "release", "assign"]
    person: str
    roles: tuple[str, ...] = ()
    to: str = ""
    operation_id: str = ""
    remembered_as: str = ""
    content: str = ""


class ActivityResult(_Message, frozen=True, gc=True):
    execution_id: str
    task_id: int
    result: Raw = ABSENT
    failure: Failure | None = None
    accepted_at: int = 0


class ChildResult(_Message, frozen=True, gc=True):
    execution_id: str
    task_id: int
    child_id: str
    result: Raw = ABSENT
    failure: Failure | None = None
    accepted_at: int = 0


class EntityOperation(_Message, frozen=True, gc=True):
    """A call or a signal to an entity. `caller` is the caller, None for a client; a signal gets no answer.

    `visible_at` (microseconds) in the future delays it.
    """

    operation: str
    input: Raw = ABSENT
    caller: ParentLink | None = None
    is_signal: bool = False
    visible_at: int = 0
    operation_id: str = ""
    remembered_as: str = ""
    content: str = ""
    trace: str = ""


class EntityResult(_Message, frozen=True, gc=True):
    """The answer to a call, for the calling instance."""

    execution_id: str
    task_id: int
    result: Raw = ABSENT
    failure: Failure | None = None
    accepted_at: int = 0


class LockRequest(_Message, frozen=True, gc=True):
    """To an entity: `caller` requests its lock for a critical section."""

    caller: ParentLink


class LockRelease(_Message, frozen=True, gc=True):
    """To an entity: `caller` releases the lock, or withdraws its request."""

    caller: ParentLink


class LockGrant(_Message, frozen=True):
    """To the holder: `entity` is locked for its call `task_id`."""

    execution_id: str
    task_id: int
    entity: str


class LockProbe(_Message, frozen=True):
    """To the holder: a check whether it is alive. If not, `entity` gets a release."""

    execution_id: str
    task_id: int
    entity: str


class Suspend(_Message, frozen=True):
    reason: str = ""
    operation_id: str = ""
    remembered_as: str = ""
    content: str = ""


class Resume(_Message, frozen=True):
    reason: str = ""
    operation_id: str = ""
    remembered_as: str = ""
    content: str = ""


class Terminate(_Message, frozen=True):
    """`link` is set when a parent terminates its children: a child with another parent ignores it."""

    reason: str = ""
    recursive: bool = False
    link: ParentLink | None = None
    operation_id: str = ""
    remembered_as: str = ""
    content: str = ""


class Rewind(_Message, frozen=True, gc=True):
    """Rewind a failed instance. With `link` the sender is a rewound parent; a missing sub-orchestration is
    started with `again`.
    """

    reason: str = ""
    link: ParentLink | None = None
    again: Start | None = None
    operation_id: str = ""
    remembered_as: str = ""
    content: str = ""


class Purge(_Message, frozen=True):
    """`finished_before` (microseconds) comes from retention: an instance that finished later stays."""

    finished_before: int = 0
    operation_id: str = ""
    remembered_as: str = ""
    content: str = ""


class Request(_Message, frozen=True, gc=True):
    """A client's message, accepted by a worker that does not own the instance; the owner answers it.

    `body` is the message. The answer is kept under `request_id` in `seen`; `asker` is the incarnation to
    notify. `note` (who, address, operation, detail) goes into the audit log.
    """

    request_id: str
    body: Raw
    asked_at: int
    asker: int = 0
    note: tuple[str, str, str, str] | None = None


class Wake(_Message, frozen=True):
    """A timer of this instance is due, or it has local work to continue. Derived, never stored.

    `retry` comes once at a worker's start, because the code of a parked instance may fit now.
    """

    retry: bool = False


Message = (
    Start
    | Begin
    | NextGeneration
    | RaiseEvent
    | CompleteTask
    | MoveTask
    | ActivityResult
    | ChildResult
    | EntityOperation
    | EntityResult
    | LockRequest
    | LockRelease
    | LockGrant
    | LockProbe
    | Suspend
    | Resume
    | Terminate
    | Rewind
    | Purge
    | Request
    | Wake
)

_TEXTS: Final = ("instance_id", "name", "operation", "operation_id", "reason", "version")


@cache
def _texts_of(kind: type[Any]) -> tuple[tuple[str, ...], Callable[[Any], tuple[str, ...]]]:
    """The texts of a message of this kind: their names, and what reads them. All have two at least."""
    names = tuple(field for field in _TEXTS if field in kind.__struct_fields__)
    return names, attrgetter("instance_id", *names)


def refuse_unkept(message: Message) -> None:
    """Raise for a client's message with text that a store cannot keep.

    InvalidInstanceId for an id that is not text, PayloadError otherwise.
    """
    names, read = _texts_of(type(message))
    texts = read(message)
    try:
        together = "".join(texts)
        if together.isascii() and "\0" not in together:
            return
    except TypeError:
        pass  # one is no text
    for field, text in zip(names, texts[1:], strict=True):
        if not isinstance(text, str):
            what = type(text).__name__
            if field == "instance_id":
                raise InvalidInstanceId(f"an instance id must be a string, not {what}")
            raise PayloadError(f"{field.replace('_', ' ')} must be a string, not {what}: nothing was stored")
        if (not text.isascii() or "\0" in text) and not is_text(text):
            raise PayloadError(
                f"{field.replace('_', ' ')} {ascii(text)[:60]} contains NUL or a lone surrogate, which JSON "
                "cannot represent: nothing was stored"
            )


_DATED = (RaiseEvent, ActivityResult, ChildResult, EntityResult)


def accepted(message: Message, at: int) -> Message:
    """The message with its time of acceptance, if its kind has one and it is not set."""
    if isinstance(message, _DATED) and not message.accepted_at:
        return msgspec.structs.replace(message, accepted_at=at)
    return message


encode_message = msgspec.json.Encoder().encode
_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


def decode_message(data: bytes) -> Message:
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError:
        refuse_unreadable(data)
        raise
    except UnicodeDecodeError as error:  # from a damaged row
        refuse_unreadable(data)
        raise msgspec.DecodeError(str(error)) from error
