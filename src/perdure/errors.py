"""Every error perdure raises, in one tree.

    PerdureError
    ├── PayloadError              a value or a body that is not strict JSON, or does not fit its type
    │   ├── EventRefused          an event that the orchestrator's declared `events` do not accept
    │   └── MessageRefused        a queue's message that does not fit its function
    ├── RegistrationError         a function that cannot be registered as written (raised while decorating)
    ├── HostedAppError            an app for another host that cannot be served
    ├── SettingError              an invalid value of a setting, or an unknown setting
    ├── FunctionNotFound          a name that is not registered
    ├── InvalidInstanceId         an id outside Azure's rules
    ├── InstanceNotFound          no such instance in this hub
    ├── InstanceExists            the id is in use and the policy does not allow to replace the instance
    ├── IdempotencyConflict       an idempotency key that a different request used before (422 over HTTP)
    ├── IllegalTransition         the command does not apply to the instance's current status
    │   └── InstanceFinished      ... because it has finished (410 over HTTP)
    ├── TaskClosed                a human task that was decided, has expired, or was withdrawn (409 over HTTP)
    ├── TaskHeld                  a human task that another person has claimed (409)
    ├── TaskRefused               an answer that cannot count for a human task (403)
    ├── AccessRefused             the caller does not have the required scope (403 over HTTP)
    │   ├── Unauthenticated       ... because there is no key, or an invalid one (401)
    │   ├── LinkSpent             ... because a link that works once was used before (410)
    │   └── RateLimited           ... because the caller sends too many requests (429)
    ├── KeyNotFound               no such key in this hub
    ├── Overloaded                the worker's queue of accepted work is full (429)
    ├── EngineStopped             the engine is not running, or stopped before it accepted the work (503)
    ├── OutcomeUnknown            the store failed during a commit, which may or may not have succeeded (503)
    ├── StoreError                an error of the store
    │   ├── StoreFull             no space left; nothing was changed (507)
    │   ├── StoreInUse            another engine has this file open
    │   ├── StoreTooNew           the file was written by a newer perdure
    │   ├── StoreUnusable         not a perdure database, damaged, or opened by a second SQLite library
    │   │   └── WrongEncryptionKey   ... because an encryption key is missing or wrong
    │   ├── DecryptionFailed      encrypted content that cannot be read: its key is missing, or it was changed
    │   ├── CommitRefused         the store rejected a value of a batch; nothing was written
    │   ├── CommitConflict        another worker committed first; nothing was changed, and a retry is possible
    │   └── FenceLost             another incarnation owns these rows now
    ├── TaskFailedError           an activity or sub-orchestration failed (raised inside orchestrators)
    ├── HttpCallError             a call_http got no response
    │   ├── HttpDenied            the application's HttpPolicy does not allow the address or the size
    │   ├── HttpStatusError       a status that the call counts as a failure
    │   └── SecretNotFound        a Secret that this worker does not have
    ├── ActivityCancelled         an activity's result is no longer needed (raised inside the activity)
    ├── ExecutorFailed            the executor of an activity could not run an attempt
    ├── ExtraMissing              an optional dependency is needed and not installed
    ├── NonDeterminismError       the code disagrees with the recorded history
    │   └── MisfitError           ... because an accepted payload no longer fits its type
    └── OrchestratorError         an orchestrator did something that orchestrators must not do
        ├── TaskCancelled         ... such as awaiting an activity that it had cancelled
        └── ForeignAwaitError     ... such as awaiting an object that the context did not return

    EngineSignal(BaseException)   control flow of the engine: user code that catches Exception must not catch it
    ├── Evicted                   the execution is being evicted from memory; its actions have no effect
    ├── FunctionMissing           history calls a function that this worker does not have
    └── Interrupted               the watchdog stopped user code that ran too long

A message says what happened, to which instance, the likely cause, and what to do next.
`code` is stable, for programs. Each code has a number (`perdure.error_numbers`) with a page in `docs/errors`, and a
traceback ends with the number.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, Final

from perdure.error_numbers import note_of, number_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perdure.failure import Failure


class PerdureError(Exception):
    """The base class of all errors of perdure."""

    code: ClassVar[str] = "perdure-error"

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        note = note_of(self.code)
        if note:
            self.add_note(note)

    @property
    def number(self) -> str:
        """The number of the error's page, such as "PDR-020"; "" for an application's own error class."""
        return number_of(self.code)


class PayloadError(PerdureError):
    """A value that strict JSON cannot represent, or a body that does not fit the expected type.

    `pointer` is the RFC 6901 pointer to the invalid member, "" for the whole value.
    """

    code = "payload"

    def __init__(self, message: str, pointer: str = "") -> None:
        super().__init__(message)
        self.pointer = pointer

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.args[0], self.pointer)


class EventRefused(PayloadError):
    """The orchestrator's `events={...}` does not accept the event's name or data. Nothing was stored."""

    code = "event-refused"


class TaskClosed(PerdureError):
    """The human task has been decided, has expired, or was withdrawn. Nothing was sent."""

    code = "task-closed"


class TaskHeld(PerdureError):
    """Another person has claimed the human task. Nothing was changed."""

    code = "task-held"


class TaskRefused(PerdureError):
    """The caller's answer cannot count for the human task: no proven person, another role, or a second decision."""

    code = "task-refused"


class MessageRefused(PayloadError):
    """A queue's message does not fit the parameter of the queue's function. It becomes a dead letter at once."""

    code = "message-refused"


class RegistrationError(PerdureError, TypeError):
    """A function cannot be registered as it is written."""

    code = "registration"


class HostedAppError(PerdureError):
    """An app for another host, such as Azure Functions, cannot be served.

    `faults` lists all problems, each with its place.
    """

    code = "hosted-app"

    def __init__(self, message: str, faults: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.faults = faults


class FunctionNotFound(PerdureError):
    """No function of this kind and name is registered in this application."""

    code = "function-not-found"


class SettingError(PerdureError, ValueError):
    """A setting has an invalid value, or there is no such setting."""

    code = "setting"


class InvalidInstanceId(PerdureError, ValueError):
    """The instance id breaks Azure's rules (see `perdure.model.instances.check_instance_id`)."""

    code = "invalid-instance-id"


class InstanceNotFound(PerdureError):
    """No instance with this id exists in this hub. It may have been purged."""

    code = "instance-not-found"


class InstanceExists(PerdureError):
    """The id belongs to an instance that the `on_existing` policy of the start does not replace."""

    code = "instance-exists"


class IdempotencyConflict(PerdureError):
    """An Idempotency-Key or operation id was used before with a different request. Nothing was done."""

    code = "idempotency-conflict"


class IllegalTransition(PerdureError):
    """The command does not apply to the instance's current status."""

    code = "illegal-transition"


class InstanceFinished(IllegalTransition):
    """The instance has completed, failed or been terminated. The message was not accepted."""

    code = "instance-finished"


class AccessRefused(PerdureError):
    """The caller does not have the required scope. The message names the scope."""

    code = "forbidden"


class Unauthenticated(AccessRefused):
    """The request has no key, or a key that is wrong, expired or revoked."""

    code = "unauthenticated"


class LinkSpent(AccessRefused):
    """A link that works once was used before. Its event has been raised."""

    code = "link-spent"


class RateLimited(AccessRefused):
    """The caller sends more requests than the server accepts from one caller. Wait, and send fewer requests."""

    code = "rate-limited"


class KeyNotFound(PerdureError):
    """No access key with this id exists in this hub."""

    code = "key-not-found"


class Overloaded(PerdureError):
    """The worker's queue of accepted work is full. Nothing was stored. Retry shortly."""

    code = "overloaded"


class EngineStopped(PerdureError):
    """The engine is not running, or it stopped before it accepted the work. Nothing was stored."""

    code = "engine-stopped"


class OutcomeUnknown(PerdureError):
    """The store failed during the commit, which may or may not have succeeded. Repeat the call with the same ids."""

    code = "outcome-unknown"


class StoreError(PerdureError):
    """The store cannot do the operation."""

    code = "store"


class StoreFull(StoreError):
    """No space is left for the database. Nothing was changed, and accepted work is not lost."""

    code = "store-full"


class StoreInUse(StoreError):
    """Another engine has the store open. One engine at a time can open a SQLite file, or a hub in Azure Storage.

    `holder` is the address of the engine that holds a hub in Azure Storage, "" if it is not known.
    """

    code = "store-in-use"

    def __init__(self, message: str, holder: str = "") -> None:
        super().__init__(message)
        self.holder = holder

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.args[0], self.holder)


class StoreTooNew(StoreError):
    """The database was written by a newer version of perdure. Nothing was changed."""

    code = "store-too-new"


class StoreUnusable(StoreError):
    """The file is not a perdure database, is damaged, or is opened in a way that can corrupt it."""

    code = "store-unusable"


class WrongEncryptionKey(StoreUnusable):
    """An encryption key of the store is missing or wrong. Nothing was changed."""

    code = "wrong-encryption-key"


class DecryptionFailed(StoreError):
    """Encrypted content cannot be read: its key is missing, or the row was changed."""

    code = "decryption-failed"


class CommitRefused(StoreError):
    """The store rejected a value of the batch. The whole batch was rolled back."""

    code = "commit-refused"


class CommitConflict(StoreError):
    """A transaction conflicted with another worker's. It was rolled back and can be retried.

    Another worker used the id meanwhile or accepted the operation, or the database broke a deadlock. Read the rows
    again before the retry.
    """

    code = "commit-conflict"


class FenceLost(StoreError):
    """Another incarnation has changed rows that this incarnation owned."""

    code = "fence-lost"


class TaskFailedError(PerdureError):
    """An activity or sub-orchestration that an orchestrator waited for has failed.

    `failure` contains type, message, stack and cause, as recorded in history. `task_id` is the id of the call in
    history (of the last attempt), or -1.
    """

    code = "task-failed"

    def __init__(self, message: str, failure: Failure, task_id: int = -1) -> None:
        super().__init__(message)
        self.failure = failure
        self.task_id = task_id

    def is_a(self, kind: type[BaseException] | str) -> bool:
        """Whether the call failed with an exception of this class, as in `except`.

        `except TaskFailedError as error: if error.is_a(CardDeclined): ...` works wherever the call ran: in a
        thread, another process, another worker, a sub-orchestration or an entity. Subclasses match, and so do
        explicit causes and the members of exception groups.

        Parameters:
            kind: the class, or its name if it cannot be imported: "shop.errors.CardDeclined". A name without a dot
                means the built-in class if there is one, else a class in any module.
        """
        return self.failure.is_a(kind)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.args[0], self.failure, self.task_id)


class HttpCallError(PerdureError):
    """An HTTP call got no response: no connection, a broken one, or a response that cannot be read."""

    code = "http-call"


class HttpDenied(HttpCallError):
    """The application's `HttpPolicy` does not allow this address or this size."""

    code = "http-denied"


class HttpStatusError(HttpCallError):
    """The status of the response counts as a failure of this attempt (`retry_statuses`)."""

    code = "http-status"


class SecretNotFound(HttpCallError):
    """The environment or `HttpPolicy.secrets` has no secret with this name. The request was not sent."""

    code = "secret-not-found"


class ExtraMissing(PerdureError):
    """A feature needs an optional dependency that is not installed."""

    code = "extra-missing"


@contextmanager
def needing(extra: str, what: str) -> Iterator[None]:
    """A context for imports of optional packages. A missing package raises ExtraMissing with the install command.

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
            f"{what} needs the package {package!r}, which is not installed or does not load. Run: "
            f"pip install 'perdure[{extra}]'"
        ) from error


class NonDeterminismError(PerdureError):
    """The orchestrator's code does not match its recorded history.

    `expected` is the action in history, `found` the action of the code, and `where` its source line.
    """

    code = "non-determinism"

    def __init__(self, message: str, *, expected: str = "", found: str = "", where: str = "") -> None:
        super().__init__(message)
        self.expected = expected
        self.found = found
        self.where = where


class MisfitError(NonDeterminismError):
    """An accepted or recorded payload does not fit the type that the current code reads it as.

    `payload` describes the payload ("the result of call 3 (activity 'pay')"), `wanted` is the name of the type,
    `pointer` the RFC 6901 pointer to the member, "" for the whole value, and `reason` the mismatch.
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
    """An orchestrator did something that orchestrators must not do."""

    code = "orchestrator"


class TaskCancelled(OrchestratorError):
    """An orchestrator awaited an activity that it had cancelled."""

    code = "task-cancelled"


class ActivityCancelled(PerdureError):
    """Raised in an activity by `context.raise_if_cancelled()`, because its result is no longer needed."""

    code = "activity-cancelled"


class ExecutorFailed(PerdureError):
    """The executor of an activity could not run an attempt: its processes died, or it is broken."""

    code = "executor-failed"


class ForeignAwaitError(OrchestratorError):
    """An orchestrator awaited or yielded an object that its context did not return."""

    code = "foreign-await"


class EngineSignal(BaseException):
    """Control flow of the engine. Not a subclass of `Exception`, so that `except Exception` does not catch it."""

    code: ClassVar[str] = "engine-signal"


class Evicted(EngineSignal):
    """The execution is being evicted from memory. The actions of its clean-up code have no effect."""

    code = "evicted"


class FunctionMissing(EngineSignal):
    """The history calls a function that this worker does not have. The instance waits for a worker that has it."""

    code = "function-missing"


class Interrupted(EngineSignal):
    """The watchdog stopped an orchestrator that blocked the engine for too long."""

    code = "interrupted"


def error_of(code: str) -> type[PerdureError]:
    """The error class with this code that is constructed from a message; `PerdureError` if there is none."""
    return next((kind for kind in _family(PerdureError) if kind.code == code), PerdureError)


_OUTWARD: Final[dict[type[PerdureError], str]] = {
    StoreFull: (
        "no space is left for the database, and nothing was changed. The operator of this server has to free some "
        "space. Reading still works"
    ),
    CommitRefused: (
        "the database rejected the data of this request, and nothing was stored. A retry does not help. The server's "
        "log has the reason"
    ),
    DecryptionFailed: "the stored data is encrypted, and this server cannot decrypt it. Its log has the reason",
    StoreError: (
        "the store is not available at the moment. As far as the server knows, the request had no effect. Retry in a "
        "few seconds. The server's log has the reason"
    ),
    OutcomeUnknown: (
        "the store failed during this request. The request may or may not have taken effect, or can take effect when "
        "the store is back. Check the status of the instance then, or repeat the request with the same id"
    ),
}
"""The messages for callers, by class. A subclass has the message of its nearest ancestor."""


def outward(error: Exception) -> str:
    """The message of an error for a caller over the network.

    The message of a store contains its address, file or driver. It is for the log only.
    """
    from_store = isinstance(error, StoreError) or isinstance(error.__cause__, StoreError)
    if not from_store:
        return str(error)
    return next((_OUTWARD[kind] for kind in type(error).__mro__ if kind in _OUTWARD), str(error))


def holder_told(error: BaseException) -> str:
    """The address of the engine that holds the store, if this error or its cause names it: for callers."""
    found = next((one for one in (error, error.__cause__) if isinstance(one, StoreInUse)), None)
    return found.holder if found is not None else ""


def _family(kind: type[PerdureError]) -> list[type[PerdureError]]:
    if kind is TaskFailedError:  # constructed from a failure, not from a message
        return []
    return [kind, *(found for child in kind.__subclasses__() for found in _family(child))]
