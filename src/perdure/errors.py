"""Every error perdure raises, in one tree.

    PerdureError
    ├── PayloadError              a value or a body that strict JSON cannot carry, or that does not fit its type
    │   ├── EventRefused          an event that the orchestrator's declared `events` do not admit
    │   └── MessageRefused        a queue's message that does not fit its function, at any attempt
    ├── RegistrationError         a function that cannot be registered as written (raised while decorating)
    ├── HostedAppError            an app that was written for another host, and cannot be served
    ├── SettingError              a setting's value cannot be meant, or there is no such setting
    ├── FunctionNotFound          a name nobody registered
    ├── InvalidInstanceId         an id outside Azure's rules
    ├── InstanceNotFound          no such instance in this hub
    ├── InstanceExists            the id is taken and the policy says not to replace it
    ├── IdempotencyConflict       a name for a request that another request had (422 over HTTP)
    ├── IllegalTransition         the verb does not apply to the instance's present status
    │   └── InstanceFinished      ... because it has finished (410 over HTTP)
    ├── AccessRefused             this caller may not do that (403 over HTTP)
    │   ├── Unauthenticated       ... because no key was shown, or one that opens nothing (401)
    │   ├── LinkSpent             ... because a link that works once was used before (410)
    │   └── RateLimited           ... so fast (429)
    ├── KeyNotFound               no such key in this hub
    ├── Overloaded                the worker has more accepted work queued than it admits (429)
    ├── EngineStopped             the engine is not running, or stopped before the work was done (503)
    ├── OutcomeUnknown            the store failed while committing: the work may or may not be done (503)
    ├── StoreError                the store itself
    │   ├── StoreFull             no space left: nothing was changed, try again later (507)
    │   ├── StoreInUse            another engine has this file open
    │   ├── StoreTooNew           the file was written by a newer perdure
    │   ├── StoreUnusable         not a perdure database, damaged, or opened by a second SQLite library
    │   │   └── WrongEncryptionKey   ... because a key it is encrypted with is missing, or is another one
    │   ├── DecryptionFailed      encrypted content that cannot be read: its key is missing, or it was changed
    │   ├── CommitRefused         the store refused one value of a batch, for certain
    │   ├── CommitConflict        another worker was there first; nothing was changed, and it may be done again
    │   └── FenceLost             another incarnation owns these rows now
    ├── TaskFailedError           an activity or sub-orchestration failed (raised inside orchestrators)
    ├── HttpCallError             a call_http got no response
    │   ├── HttpDenied            the application's HttpPolicy does not admit the address, or the size
    │   ├── HttpStatusError       a status that the call counts as a failure, while attempts are left
    │   └── SecretNotFound        a Secret of that name is not known here
    ├── ExtraMissing              an optional dependency is needed and not installed
    ├── NonDeterminismError       the code disagrees with the recorded history
    │   └── MisfitError           ... because a payload that was accepted no longer fits its type
    └── OrchestratorError         an orchestrator did something that orchestrators may not
        └── ForeignAwaitError     ... such as awaiting what the context did not return

    EngineSignal(BaseException)   control flow of the engine: user code that catches Exception must not catch it
    ├── Evicted                   the execution is being put away; nothing it does counts any more
    ├── FunctionMissing           history calls a function that this worker does not have
    └── Interrupted               the watchdog stopped user code that ran too long

Messages say what happened, to which instance, what it probably means and what to do next.
`code` is stable: programs refer to it. People are given its number, under which `docs/errors` has a page;
`perdure.error_numbers` is the table, and a traceback ends with it.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, Final

from perdure.error_numbers import note_of, number_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perdure.failure import Failure


class PerdureError(Exception):
    """The root of everything perdure raises on purpose."""

    code: ClassVar[str] = "perdure-error"

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        note = note_of(self.code)
        if note:
            self.add_note(note)

    @property
    def number(self) -> str:
        """The number of its page, such as "PDR-020"; "" for an error of an application's own."""
        return number_of(self.code)


class PayloadError(PerdureError):
    """A value that strict JSON cannot carry, or a body that does not fit the expected type.

    `pointer` is the RFC 6901 pointer to the offending place, "" for the whole value.
    """

    code = "payload"

    def __init__(self, message: str, pointer: str = "") -> None:
        super().__init__(message)
        self.pointer = pointer

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.args[0], self.pointer)


class EventRefused(PayloadError):
    """An event whose name or shape the orchestrator's `events={...}` does not admit. Nothing was stored."""

    code = "event-refused"


class MessageRefused(PayloadError):
    """A queue's message that does not fit the parameter of the queue's function. It is dead at once."""

    code = "message-refused"


class RegistrationError(PerdureError, TypeError):
    """A function that cannot be registered as it is written."""

    code = "registration"


class HostedAppError(PerdureError):
    """An app that was written for another host, such as Azure Functions, and cannot be served.

    `faults` are all that were found, each with its place.
    """

    code = "hosted-app"

    def __init__(self, message: str, faults: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.faults = faults


class FunctionNotFound(PerdureError):
    """No function of that kind and name is registered in this application."""

    code = "function-not-found"


class SettingError(PerdureError, ValueError):
    """A setting was given a value that it cannot have, or there is no such setting."""

    code = "setting"


class InvalidInstanceId(PerdureError, ValueError):
    """The instance id breaks Azure's rules (see `perdure.model.instances.check_instance_id`)."""

    code = "invalid-instance-id"


class InstanceNotFound(PerdureError):
    """No instance of that id exists in this hub (it may have been purged)."""

    code = "instance-not-found"


class InstanceExists(PerdureError):
    """The id belongs to an instance that the start's `on_existing` policy does not replace."""

    code = "instance-exists"


class IdempotencyConflict(PerdureError):
    """An Idempotency-Key or operation id that was used, repeated with another content. Nothing was done."""

    code = "idempotency-conflict"


class IllegalTransition(PerdureError):
    """The management verb does not apply to the instance's present status."""

    code = "illegal-transition"


class InstanceFinished(IllegalTransition):
    """The instance has completed, failed or been terminated; the message was not accepted."""

    code = "instance-finished"


class AccessRefused(PerdureError):
    """The key that was shown does not open this. A key with the scope that the message names does."""

    code = "forbidden"


class Unauthenticated(AccessRefused):
    """No key was shown, or one that is wrong, expired or revoked."""

    code = "unauthenticated"


class LinkSpent(AccessRefused):
    """A link that works once was used before. What it was for has been decided."""

    code = "link-spent"


class RateLimited(AccessRefused):
    """More requests than the server takes from one caller: wait, and go on more slowly."""

    code = "rate-limited"


class KeyNotFound(PerdureError):
    """No access key of that id exists in this hub."""

    code = "key-not-found"


class Overloaded(PerdureError):
    """More accepted work is queued than this worker admits. Nothing was stored; try again shortly."""

    code = "overloaded"


class EngineStopped(PerdureError):
    """The engine is not running, or it stopped before it had taken up the work. Nothing was stored."""

    code = "engine-stopped"


class OutcomeUnknown(PerdureError):
    """The store failed during the commit. The work may or may not be done: repeat it with the same ids."""

    code = "outcome-unknown"


class StoreError(PerdureError):
    """The store cannot do what it was asked."""

    code = "store"


class StoreFull(StoreError):
    """No space is left for the database. Nothing was changed and nothing accepted before is lost."""

    code = "store-full"


class StoreInUse(StoreError):
    """Another engine has the database open. One engine at a time serves a SQLite file."""

    code = "store-in-use"


class StoreTooNew(StoreError):
    """The database was written by a newer version of perdure. Nothing was changed."""

    code = "store-too-new"


class StoreUnusable(StoreError):
    """The file is not a perdure database, is damaged, or is opened in a way that would corrupt it."""

    code = "store-unusable"


class WrongEncryptionKey(StoreUnusable):
    """A key that the store is encrypted with was not given, or is not the same. Nothing was changed."""

    code = "wrong-encryption-key"


class DecryptionFailed(StoreError):
    """Encrypted content cannot be read: its key was not given, or the row is not what was written."""

    code = "decryption-failed"


class CommitRefused(StoreError):
    """The store refused a value of the batch and rolled all of it back, for certain."""

    code = "commit-refused"


class CommitConflict(StoreError):
    """Another worker's transaction came between: this one was rolled back, for certain, and may be done again.

    An id was taken meanwhile, an operation was accepted elsewhere, or the database broke a deadlock. Whoever does
    it again has to read again first.
    """

    code = "commit-conflict"


class FenceLost(StoreError):
    """Rows that this incarnation counted on have been changed by another one."""

    code = "fence-lost"


class TaskFailedError(PerdureError):
    """An activity or sub-orchestration that an orchestrator waited for has failed.

    `failure` carries type, message, stack and cause as they were recorded in history, `task_id` is the id of the
    call there (the last attempt's), or -1.
    """

    code = "task-failed"

    def __init__(self, message: str, failure: Failure, task_id: int = -1) -> None:
        super().__init__(message)
        self.failure = failure
        self.task_id = task_id

    def is_a(self, kind: type[BaseException] | str) -> bool:
        """Whether the call failed with an exception of this class, as `except` would decide.

        `except TaskFailedError as error: if error.is_a(CardDeclined): ...` works wherever the call ran: in a
        thread, another process, another worker, a sub-orchestration, an entity. Subclasses count, and so do
        explicit causes and the members of exception groups.

        Parameters:
            kind: the class, or its name where it cannot be imported: "shop.errors.CardDeclined". A name without
                a dot is that of a built-in class if there is one, else of a class in any module.
        """
        return self.failure.is_a(kind)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.args[0], self.failure, self.task_id)


class HttpCallError(PerdureError):
    """An HTTP call got no response: no connection, a broken one, or a response that cannot be read."""

    code = "http-call"


class HttpDenied(HttpCallError):
    """The application's `HttpPolicy` does not admit this address or this size. Nothing else was tried."""

    code = "http-denied"


class HttpStatusError(HttpCallError):
    """The response's status counts as a failure of this attempt (`retry_statuses`)."""

    code = "http-status"


class SecretNotFound(HttpCallError):
    """Neither the environment nor `HttpPolicy.secrets` has a secret of this name. Nothing was sent."""

    code = "secret-not-found"


class ExtraMissing(PerdureError):
    """What was asked for needs an optional dependency that is not installed."""

    code = "extra-missing"


@contextmanager
def needing(extra: str, what: str) -> Iterator[None]:
    """Import optional packages inside this: one that is missing raises ExtraMissing, which says how to install it.

    Parameters:
        extra: the extra of perdure that installs the packages.
        what: the feature that needs them, as the subject of a sentence.
    """
    try:
        yield
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package == "perdure":
            raise
        raise ExtraMissing(
            f"{what} needs the package {package!r}, which is not installed or does not load: "
            f"pip install 'perdure[{extra}]'"
        ) from error


class NonDeterminismError(PerdureError):
    """The orchestrator's code does not do what its recorded history says it did.

    `expected` is what history holds, `found` what the code did instead, `where` its source line.
    """

    code = "non-determinism"

    def __init__(self, message: str, *, expected: str = "", found: str = "", where: str = "") -> None:
        super().__init__(message)
        self.expected = expected
        self.found = found
        self.where = where


class MisfitError(NonDeterminismError):
    """A payload that was accepted, or recorded, does not fit the type that today's code reads it as.

    `payload` says whose it is ("the result of call 3 (activity 'pay')"), `wanted` names the type, `pointer` is
    the RFC 6901 pointer to the member, "" for the whole value, and `reason` says what is wrong with it.
    """

    code = "misfit"

    def __init__(
        self, message: str, *, payload: str = "", wanted: str = "", pointer: str = "", reason: str = ""
    ) -> None:
        super().__init__(message, expected=payload, found=reason)
        self.payload = payload
        self.wanted = wanted
        self.pointer = pointer
        self.reason = reason


class OrchestratorError(PerdureError):
    """An orchestrator did something that orchestrators may not do."""

    code = "orchestrator"


class TaskCancelled(OrchestratorError):
    """An orchestrator waited for an activity that it had cancelled itself."""

    code = "task-cancelled"


class ActivityCancelled(PerdureError):
    """Raised in an activity by `context.raise_if_cancelled()`: nobody wants its result any more."""

    code = "activity-cancelled"


class ExecutorFailed(PerdureError):
    """The executor of an activity could not carry out an attempt: its processes died, or it is broken."""

    code = "executor-failed"


class ForeignAwaitError(OrchestratorError):
    """An orchestrator awaited or yielded something that its context did not return."""

    code = "foreign-await"


class EngineSignal(BaseException):
    """Control flow of the engine. Outside `Exception`, so that `except Exception` cannot swallow it."""

    code: ClassVar[str] = "engine-signal"


class Evicted(EngineSignal):
    """The execution is being put away: nothing its cleaning up does can reach the store."""

    code = "evicted"


class FunctionMissing(EngineSignal):
    """Replay met a call of a function that this worker does not have: the instance waits for one that does."""

    code = "function-missing"


class Interrupted(EngineSignal):
    """The watchdog stopped an orchestrator that kept the loop to itself for too long."""

    code = "interrupted"


def error_of(code: str) -> type[PerdureError]:
    """The class that bears this code and is made from a text; `PerdureError` where there is none."""
    return next((kind for kind in _family(PerdureError) if kind.code == code), PerdureError)


_OUTWARD: Final[dict[type[PerdureError], str]] = {
    StoreFull: (
        "no space is left for the database, and nothing was changed. Whoever runs this server has to make room; "
        "reading goes on meanwhile"
    ),
    CommitRefused: (
        "the database refused what this would have written, and nothing of it was stored. Asking again does not "
        "help; the server's log says what was refused"
    ),
    DecryptionFailed: "what is stored here is encrypted, and this server cannot read it. Its log says why",
    StoreError: (
        "the store does not answer as it should just now: nothing is known to have been done. Try again in a few "
        "seconds; the server's log says what is wrong"
    ),
    OutcomeUnknown: (
        "the store failed while this was under way: it may or may not have happened, or happen when the store is "
        "back. Ask for the instance's status then, or repeat the request with the same id"
    ),
}
"""The nearest ancestor's words are meant."""


def outward(error: Exception) -> str:
    """What an error says to whoever asks over a network.

    A store's own words name its address, its file or its driver. Those are for the log.
    """
    from_store = isinstance(error, StoreError) or isinstance(error.__cause__, StoreError)
    if not from_store:
        return str(error)
    return next((_OUTWARD[kind] for kind in type(error).__mro__ if kind in _OUTWARD), str(error))


def _family(kind: type[PerdureError]) -> list[type[PerdureError]]:
    if kind is TaskFailedError:  # made from a failure
        return []
    return [kind, *(found for child in kind.__subclasses__() for found in _family(child))]
