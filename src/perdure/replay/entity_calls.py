"""Entities in an orchestrator: calls, signals, and critical sections.

A critical section locks several entities for one orchestration. They are requested one by one, in the order of
their ids, and the next is requested when the previous one is granted. Every orchestration keeps that order, so
two of them never wait for each other. Until the section ends, only its holder's operations run on them. Inside,
only the locked entities can be called: an orchestration that waited there for another entity, another section,
or a child that needs one of its entities, could cause a deadlock. The lock is a task. It is granted with the
last of its entities, and released at the end of its `with` block; the engine also releases it when the
execution ends.
"""

from __future__ import annotations

from datetime import datetime
from types import UnionType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from msgspec import Raw

from perdure.errors import OrchestratorError
from perdure.model import actions as act
from perdure.model import events as ev
from perdure.model.durations import instant
from perdure.model.entities import EntityId, checked_operation, entity_id_of, name_in
from perdure.replay.inputs import NO_INPUT
from perdure.replay.recorder import Recorder
from perdure.replay.task import PENDING, CallTask, Task

if TYPE_CHECKING:
    from types import TracebackType


T = TypeVar("T")


class EntityTask(CallTask[T]):
    """A call of an entity."""

    __slots__ = ("entity",)

    def __init__(
        self, context: EntityCalls, task_id: int, entity: str, operation: str, expected: Any
    ) -> None:
        super().__init__(context, task_id, "Entity", operation, expected)
        self.entity = entity

    def _describe(self) -> str:
        return f"the operation '{self.name}' of the entity {self.entity}"


class EntityLock(Task["EntityLock"]):
    """A critical section over some entities: `async with context.lock(a, b):`, or `with (yield context.lock(a,
    b)):`. It can be awaited like any task, also together with a timer.
    """

    __slots__ = ("_granted", "entity_ids")

    _context: EntityCalls

    def __init__(self, context: EntityCalls, task_id: int, entity_ids: tuple[str, ...]) -> None:
        super().__init__(context, task_id)
        self.entity_ids = entity_ids
        self._granted = 0

    @property
    def entities(self) -> tuple[EntityId, ...]:
        """The entities, in the order in which they are locked."""
        return tuple(map(EntityId.parse, self.entity_ids))

    @property
    def is_held(self) -> bool:
        """Whether all entities are locked and not released."""
        return self._context._lock is self and self._state != PENDING

    def release(self) -> None:
        """Leave the critical section. Calling it again does nothing."""
        context = self._context
        if (
            context._lock is self and not context.will_continue_as_new
        ):  # then the end of the execution releases it
            context._emit(act.ReleaseLock(self.id, self._asked()))
            context._lock = None

    def cancel(self) -> None:
        """Stop waiting for the lock and release the entities granted so far, or release a held lock."""
        self.release()
        if self._state == PENDING:
            self._waiters = None
            self._fail(OrchestratorError("this wait for a critical section was cancelled"))

    async def __aenter__(self) -> EntityLock:
        return await self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.release()

    def __enter__(self) -> EntityLock:
        if self._state == PENDING:
            raise OrchestratorError(
                "this lock was not awaited: write `with (yield context.lock(...)):`, or `async with "
                "context.lock(...):`"
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.release()

    # ------------------------------------------------------------------------- inside: for the engine

    def _asked(self) -> tuple[str, ...]:
        """The entities requested so far: granted ones, and the awaited one."""
        return self.entity_ids[: self._granted + 1]

    def _next(self) -> str | None:
        """The entity whose grant is awaited."""
        return self.entity_ids[self._granted] if self._granted < len(self.entity_ids) else None

    def _grant(self, entity: str) -> None:
        if entity == self._next():
            self._granted += 1
            if self._granted == len(self.entity_ids) and self._state == PENDING:
                self._complete(self)

    def _describe(self) -> str:
        return f"the critical section over {', '.join(self.entity_ids)}"


class EntityCalls(Recorder):
    """The part of an orchestration's context that calls, signals and locks entities."""

    __slots__ = ("_lock",)

    _lock: EntityLock | None

    @overload
    def call_entity(
        self, entity: EntityId | str, operation: str, input_: Any, expected_type: type[T]
    ) -> Task[T]: ...
    @overload
    def call_entity(
        self, entity: EntityId | str, operation: str, input_: Any = None, *, expected_type: type[T]
    ) -> Task[T]: ...
    @overload
    def call_entity(
        self,
        entity: EntityId | str,
        operation: str,
        input_: Any = None,
        expected_type: UnionType | None = None,
    ) -> Task[Any]: ...
    def call_entity(
        self, entity: EntityId | str, operation: str, input_: Any = NO_INPUT, expected_type: Any = None
    ) -> Task[Any]:
        """Call an operation of an entity; wait for the returned task to get its result.

        Calls of one orchestration to one entity arrive in order. Inside a critical section only the locked
        entities can be called.

        Parameters:
            entity: the entity, which need not exist yet.
            operation: the name of the operation.
            input_: anything strict JSON can carry.
            expected_type: the result's type.

        Raises:
            OrchestratorError for an entity outside the critical section, InvalidInstanceId, PayloadError at
            once; the task raises TaskFailedError when the operation failed.
        """
        self._alive()
        if expected_type is not None:
            self._check_readable(expected_type, ev.EntityCalled)
        entity_id = entity_id_of(entity)
        self._known_entity(entity_id)
        lock = self._lock
        if lock is not None and lock._state != PENDING and entity_id not in lock.entity_ids:
            raise OrchestratorError(
                f"inside a critical section only the locked entities can be called: {entity_id} is not one of "
                f"{', '.join(lock.entity_ids)}. Add it to context.lock(...), signal it, or call it outside"
            )
        checked_operation(operation)
        body = self._operation_body(
            entity_id, operation, input_, ev.EntityCalled
        )  # a rejected call takes no id
        task: EntityTask[Any] = EntityTask(
            self,
            self._take_id(),
            entity_id,
            operation,
            Any if expected_type is None else expected_type,
        )
        self._emit(act.CallEntity(task.id, entity_id, operation, body))
        self._calls[task.id] = task
        return task

    def signal_entity(
        self, entity: EntityId | str, operation: str, input_: Any = NO_INPUT, *, at: datetime | None = None
    ) -> None:
        """Send an operation to an entity without waiting for it. A failure of the operation is not reported to
        the orchestration.

        Signals and calls of one orchestration to one entity arrive in order.

        Parameters:
            at: an aware datetime for the delivery. Delayed signals arrive in the order of their times.
        """
        self._alive()
        entity_id = entity_id_of(entity)
        self._known_entity(entity_id)
        body = self._operation_body(entity_id, checked_operation(operation), input_, ev.EntitySignaled)
        due = instant(at, "at") if at is not None else 0  # a rejected signal takes no id
        self._emit(act.SignalEntity(self._take_id(), entity_id, operation, body, due))

    def _operation_body(self, entity_id: str, operation: str, input_: Any, recorded: type) -> Raw:
        return self._guarded_body(self._env.operation(name_in(entity_id), operation), input_, recorded)

    def lock(self, *entities: EntityId | str) -> EntityLock:
        """Enter a critical section: until it ends, no other caller's operations run on these entities.

            async with context.lock(account, other):      # async def
            with (yield context.lock(account, other)):    # def

        The entities are locked in the order of their ids, so that critical sections cannot deadlock. Sections
        cannot be nested; inside, only the locked entities can be called, and no sub-orchestrations. The section
        ends with its block, or with the execution.

        Raises OrchestratorError for a nested section, or a section without entities.
        """
        self._alive()
        if self._lock is not None:
            raise OrchestratorError(
                "critical sections cannot be nested: this orchestration holds or awaits the lock of "
                f"{', '.join(self._lock.entity_ids)}. Lock all the entities at once"
            )
        wanted = tuple(sorted({entity_id_of(entity) for entity in entities}))
        if not wanted:
            raise OrchestratorError("context.lock takes at least one entity")
        for entity_id in wanted:
            self._known_entity(entity_id)
        lock = EntityLock(self, self._take_id(), wanted)
        self._emit(act.RequestLock(lock.id, wanted))
        self._lock = lock
        return lock

    def lock_entities(self, entities: list[EntityId]) -> EntityLock:
        """`lock`, as durabletask spells it."""
        return self.lock(*entities)

    @property
    def locked_entities(self) -> tuple[EntityId, ...]:
        """The entities of the current critical section; empty outside a section."""
        lock = self._lock
        return lock.entities if lock is not None and lock.is_held else ()

    def _outside_section(self, what: str) -> None:
        lock = self._lock
        if lock is not None and lock._state != PENDING:
            raise OrchestratorError(
                f"inside a critical section {what} is not allowed: it might need an entity that is locked "
                f"here ({', '.join(lock.entity_ids)}), which would be a deadlock. Do it before or after the "
                "section"
            )
