"""Messages: what travels to an instance, from clients, activities, timers and other instances.

Every message names its target. At every commit a message is exactly one of two things: consumed by a history
row of that transaction, or a row in `inbox` written by it. There is no third place.
What a client names to be able to repeat it (`operation_id`) bears the id under which its answer is kept
(`remembered_as`) and a digest of what it asks (`content`), see `perdure.engine.core.repeats`; messages stored before
there were any have neither.
Messages between instances name the execution they are meant for, so that one that comes late, after the id
was used again, is dropped instead of being believed.
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
    """Begin an instance. `visible_at` (microseconds) in the future delays its first step."""

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
    fresh: bool = False  # the id was made up for this start: nobody can have it


class Begin(_Message, frozen=True, gc=True):
    """The first step of an accepted start (or of a next execution) that was delayed or held, with its input."""

    execution_id: str
    input: Raw = ABSENT
    operation_id: str = ""
    carried: tuple[EventRaised, ...] = ()


class NextGeneration(_Message, frozen=True, gc=True):
    """The execution after `execution_id`, which continued as new when its batch had no room for more."""

    execution_id: str
    input: Raw = ABSENT
    carried: tuple[EventRaised, ...] = ()
    version: str = ""


class RaiseEvent(_Message, frozen=True):
    """`remembered_until` (microseconds) keeps its operation id for longer than others are kept.

    `accepted_at` (microseconds) is when a message that waits was accepted: timers that were due by then come first.
    It is 0 in a message that is handled as it comes, and in rows written before there was such a field.
    """

    name: str
    input: Raw = ABSENT
    operation_id: str = ""
    remembered_as: str = ""
    content: str = ""
    remembered_until: int = 0
    accepted_at: int = 0


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
    """A call or a signal to an entity. `caller` is who asked, None for a client; a signal gets no answer.

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


class EntityResult(_Message, frozen=True, gc=True):
    """The answer to a call, for the instance that called."""

    execution_id: str
    task_id: int
    result: Raw = ABSENT
    failure: Failure | None = None
    accepted_at: int = 0


class LockRequest(_Message, frozen=True, gc=True):
    """To an entity: `caller` wants it for its critical section."""

    caller: ParentLink


class LockRelease(_Message, frozen=True, gc=True):
    """To an entity: `caller` does not need it any more, whether it has it or still waits for it."""

    caller: ParentLink


class LockGrant(_Message, frozen=True):
    """To the holder: `entity` is locked for its call `task_id`."""

    execution_id: str
    task_id: int
    entity: str


class LockProbe(_Message, frozen=True):
    """To the holder: does it still live? If not, `entity` is told to go on without it."""

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
    """A failed instance is to go on. With `link` a rewound parent asks its sub-orchestration, to be started as
    `again` says if it is not there."""

    reason: str = ""
    link: ParentLink | None = None
    again: Start | None = None
    operation_id: str = ""
    remembered_as: str = ""
    content: str = ""


class Purge(_Message, frozen=True):
    """`finished_before` (microseconds) is retention's: an instance that did not finish before then stays."""

    finished_before: int = 0
    operation_id: str = ""
    remembered_as: str = ""
    content: str = ""


class Request(_Message, frozen=True, gc=True):
    """A client's message, accepted by a worker that does not own the instance: the owner answers it.

    `body` is the message. The answer is kept under `request_id` in `seen`; `asker` is the incarnation to give a
    hint. `note` (who, address, operation, detail) goes into the audit log with what is done.
    """

    request_id: str
    body: Raw
    asked_at: int
    asker: int = 0
    note: tuple[str, str, str, str] | None = None


class Wake(_Message, frozen=True):
    """A timer of this instance is due, or it has local work to take up again. Derived, never stored.

    `retry` comes once at a worker's start: perhaps the code fits by now that it was parked for.
    """

    retry: bool = False


Message = (
    Start
    | Begin
    | NextGeneration
    | RaiseEvent
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
    """Raise for a client's message with a text that no store could keep.

    InvalidInstanceId for an id that is no text at all, PayloadError for the rest.
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
    """The message with the time of its acceptance, if that matters for its kind and is not known yet."""
    if isinstance(message, _DATED) and not message.accepted_at:
        return msgspec.structs.replace(message, accepted_at=at)
    return message


encode_message = msgspec.json.Encoder().encode
_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


def decode_message(data: bytes) -> Message:
    """A stored inbox row's message."""
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError:
        refuse_unreadable(data)
        raise
    except UnicodeDecodeError as error:  # of a damaged row
        refuse_unreadable(data)
        raise msgspec.DecodeError(str(error)) from error
