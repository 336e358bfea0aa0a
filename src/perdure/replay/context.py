"""The context of an orchestrator. Every method that can be awaited returns a Task.

`recorder` records the actions, and compares them with history in replay.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Coroutine, Generator, Iterable
from datetime import datetime
from types import SimpleNamespace, UnionType
from typing import Any, TypeVar, overload

from msgspec import Raw

from perdure.errors import (
    ForeignAwaitError,
    OrchestratorError,
    PayloadError,
)
from perdure.model import actions as act
from perdure.model import events as ev
from perdure.model import payload
from perdure.model.durations import Seconds, instant, moment
from perdure.model.http_calls import BUILT_IN
from perdure.replay import patches
from perdure.replay.child_calls import ChildCalls
from perdure.replay.determinism import misfit
from perdure.replay.entity_calls import EntityCalls, EntityLock
from perdure.replay.environment import Environment, Identity
from perdure.replay.fiber import Fiber
from perdure.replay.http_calls import HttpCalls
from perdure.replay.human_tasks import HumanTasks
from perdure.replay.inputs import NO_INPUT
from perdure.replay.pairing import NULL
from perdure.replay.relay import idle_relay
from perdure.replay.task import (
    NO_DEFAULT,
    PENDING,
    EventTask,
    Task,
    TimerTask,
    WaitTask,
    WhenAll,
    WhenAny,
)

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")
T6 = TypeVar("T6")
D = TypeVar("D")

CUSTOM_STATUS_LIMIT = 16 * 1024  # bytes, as in Azure
REFUSED = f"{BUILT_IN}InputRefused"
"""The patch marker of executions whose code received an error for an input that does not fit."""


class OrchestrationContext(HttpCalls, HumanTasks, ChildCalls, EntityCalls):
    """The only access of an orchestrator to the outside world. Azure's `DurableOrchestrationContext`."""

    __slots__ = (
        "_custom_status",
        "_input",
        "_input_type",
        "_old_input",
        "_random",
        "_status_changed",
        "_uuids",
    )

    def __init__(self, identity: Identity, environment: Environment) -> None:
        super().__init__(identity, environment)
        self._input: Raw = NULL
        self._input_type: Any = Any
        self._uuids = 0
        self._random: random.Random | None = None
        self._custom_status: bytes | None = None
        self._status_changed = False
        self._old_input = False  # accepted before the current code was deployed
        self._lock: EntityLock | None = None  # its critical section, entered or awaited

    # --------------------------------------------------------------------------------------- who and when

    @property
    def parent_instance_id(self) -> str | None:
        """The instance that called this one as a sub-orchestration, or None."""
        return self._identity.parent_instance_id

    @property
    def version(self) -> str | None:
        """The version of this execution, None without one."""
        return self._identity.version or None

    @property
    def function_context(self) -> SimpleNamespace:
        """The properties that Azure's host gives the function. It is always empty: perdure has none."""
        return SimpleNamespace()

    @property
    def is_replaying(self) -> bool:
        """True while history is being replayed: the code repeats earlier actions."""
        return self._replaying

    @property
    def logger(self) -> Any:
        """A standard logger that is silent during replay, so that each line appears once."""
        return self._env.logger(self.instance_id, self._is_live)

    @property
    def custom_status(self) -> Any:
        """The last value of `set_custom_status` in this execution, or None."""
        return None if self._custom_status is None else payload.decode(self._custom_status)

    @overload
    def get_input(self, expected_type: type[T]) -> T: ...
    @overload
    def get_input(self, expected_type: UnionType | None = None) -> Any: ...
    def get_input(self, expected_type: Any = None) -> Any:
        """The input of this execution. Raises PayloadError if it does not fit.

        Its type is `expected_type`, else the orchestrator's annotation, else plain JSON. An input that fitted
        before a deployment, and no longer fits, parks the instance instead.
        """
        wanted = self._input_type if expected_type is None else expected_type
        try:
            return payload.decode(self._input, wanted)
        except PayloadError as error:
            found = misfit("the input", wanted, error)
            if not self._parks_misfits:
                self._unfit = (
                    error,
                    found,
                )  # earlier versions raised the error in the code, and left no marker
            elif not self._is_told():
                raise self._park(found) from None
            raise

    def _is_told(self) -> bool:
        """Whether the code receives an error for an input that does not fit. History has a marker if it did."""
        if self._doom is not None:
            return True
        known = REFUSED in (self._patches or ())
        return patches.patched(self, REFUSED) if known or not self._old_input else False

    # ------------------------------------------------------------------------------------------- waiting

    def create_timer(self, fire_at: datetime | Seconds) -> TimerTask:
        """A durable timer of any length, until an aware datetime or for a duration (timedelta or seconds).

        A time in the past fires at once. Cancel it with `cancel()` when it is no longer needed. Raises
        ValueError for a naive datetime, and for a time beyond the year 9999.
        """
        self._alive()
        at = (
            instant(fire_at, "fire_at")
            if isinstance(fire_at, datetime)
            else self._after(fire_at, "the timer")
        )
        return self._timer(at, "", -1)

    @overload
    def wait_for_external_event(
        self, name: str, expected_type: type[T], *, timeout: Seconds | None = None
    ) -> Task[T]: ...
    @overload
    def wait_for_external_event(
        self, name: str, expected_type: type[T], *, timeout: Seconds | None = None, default: D
    ) -> Task[T | D]: ...
    @overload
    def wait_for_external_event(
        self,
        name: str,
        expected_type: UnionType | None = None,
        *,
        timeout: Seconds | None = None,
        default: Any = NO_DEFAULT,
    ) -> Task[Any]: ...
    def wait_for_external_event(
        self,
        name: str,
        expected_type: Any = None,
        *,
        timeout: Seconds | None = None,
        default: Any = NO_DEFAULT,
    ) -> Task[Any]:
        """Wait for an external event; the wait takes an earlier event at once.

        The oldest wait for a name that the code still awaits takes the oldest event; each event is taken once.
        An event whose body does not fit `expected_type` is rejected, with the reason in the status, and the
        wait continues.

        Parameters:
            timeout: how long to wait, in seconds or as a timedelta; afterwards the task raises TimeoutError or
                returns `default`.

        Raises:
            OrchestratorError for a name that the orchestrator's `events` do not admit, or that no client can
            raise. ValueError for a deadline beyond the year 9999.
        """
        self._check_wait(name, expected_type)
        deadline = self._after(timeout, "the deadline", "deadline") if timeout is not None else 0
        wait: EventTask[Any] = EventTask(
            self, self._take_id(), name, Any if expected_type is None else expected_type
        )
        recorded = self._emit(act.AwaitEvent(wait.id, name, deadline))
        self._open_wait(wait)
        if timeout is None:
            return wait
        if wait._state != PENDING:
            return wait
        fire_at = recorded.deadline if recorded is not None and recorded.deadline else deadline
        return WaitTask(wait, self._timer(fire_at, "timeout", wait.id), default)

    @overload
    def task_all(self, a: Task[T1], /) -> Task[tuple[T1]]: ...  # type: ignore[overload-overlap]
    @overload
    def task_all(self, tasks: Iterable[Task[T]], /) -> Task[list[T]]: ...
    @overload
    def task_all(self, a: Task[T1], b: Task[T2], /) -> Task[tuple[T1, T2]]: ...
    @overload
    def task_all(self, a: Task[T1], b: Task[T2], c: Task[T3], /) -> Task[tuple[T1, T2, T3]]: ...
    @overload
    def task_all(
        self, a: Task[T1], b: Task[T2], c: Task[T3], d: Task[T4], /
    ) -> Task[tuple[T1, T2, T3, T4]]: ...
    @overload
    def task_all(
        self, a: Task[T1], b: Task[T2], c: Task[T3], d: Task[T4], e: Task[T5], /
    ) -> Task[tuple[T1, T2, T3, T4, T5]]: ...
    @overload
    def task_all(
        self, a: Task[T1], b: Task[T2], c: Task[T3], d: Task[T4], e: Task[T5], f: Task[T6], /
    ) -> Task[tuple[T1, T2, T3, T4, T5, T6]]: ...
    @overload
    def task_all(self, *tasks: Task[T]) -> Task[tuple[T, ...]]: ...
    def task_all(self, *tasks: Any) -> Task[Any]:
        """Wait for all tasks: one list gives a list of results, several arguments a tuple, in argument order.

        Fails with the first failure in the order of history; the other tasks continue.
        """
        self._alive()
        children = _listed(tasks, "task_all")
        self._check_own(children, "task_all")
        is_one_list = len(tasks) == 1 and not isinstance(tasks[0], Task)
        return WhenAll(self, children, list if is_one_list else tuple)

    @overload
    def task_any(self, a: Task[T1], /) -> Task[Task[T1]]: ...
    @overload
    def task_any(self, a: Task[T1], b: Task[T2], /) -> Task[Task[T1] | Task[T2]]: ...
    @overload
    def task_any(self, a: Task[T1], b: Task[T2], c: Task[T3], /) -> Task[Task[T1] | Task[T2] | Task[T3]]: ...
    @overload
    def task_any(self, tasks: Iterable[Task[T]], /) -> Task[Task[T]]: ...
    @overload
    def task_any(self, *tasks: Task[T]) -> Task[Task[T]]: ...
    def task_any(self, *tasks: Any) -> Task[Task[Any]]:
        """Wait for the first task to finish; the result is that task itself, also if it failed."""
        self._alive()
        children = _listed(tasks, "task_any")
        relay = idle_relay(children)
        strangers = relay.strangers_among(children) if relay is not None else None
        if strangers is not None:
            self._check_own(strangers, "task_any")
            return WhenAny(self, children, relay, strangers)
        self._check_own(children, "task_any")
        if not children:
            raise OrchestratorError("task_any needs at least one task: nothing could ever complete it")
        return WhenAny(self, children)

    def spawn(self, branch: Generator[Any, Any, T] | Coroutine[Any, Any, T]) -> Task[T]:
        """Run a generator or coroutine as a concurrent branch; wait for the task to get its return value.

        Branches that still run when the orchestrator returns are abandoned. A failed branch that was never
        awaited fails the orchestration.
        """
        self._alive()
        if not isinstance(branch, (Generator, Coroutine)):
            raise ForeignAwaitError(
                f"spawn takes a generator or a coroutine (call the function), not {type(branch).__name__}"
            )
        fiber: Fiber[T] = Fiber(self, branch)
        if self._doom is not None:  # a branch that has not started closes without running any code
            branch.close()
            return fiber
        if self._fibers is None:
            self._fibers = {}
        self._fibers[fiber] = None
        fiber.advance(None)
        return fiber

    # -------------------------------------------------------------------------------------------- the rest

    def continue_as_new(
        self, input_: Any = NO_INPUT, *, save_events: bool = True, version: str | None = None
    ) -> None:
        """End this execution and start the next with a new input and an empty history.

        The next execution keeps events that no wait has taken, unless `save_events` is False. The next
        execution runs the same version unless `version` names another. Return right after the call; the return
        value is ignored.
        """
        self._alive()
        patches.check_version(version)
        guard = payload.guard_of(self._input_type) if version is None else None
        body = self._guarded_body(guard, input_, ev.ContinuedAsNew)
        self._generation = act.ContinueAsNew(body, save_events, version or "")

    def patched(self, name: str) -> bool:
        """Whether to run the changed code: True for executions that had not reached this place before the
        change.

        History records the answer, so replay returns the same one, for the whole execution. `if
        context.patched("fraud-check"): new code; else: old code` keeps running instances on the old code.
        """
        self._alive()
        return patches.patched(self, name)

    def deprecate_patch(self, name: str) -> None:
        """Replaces `patched(name)` once no instance needs the old code and its branch is removed.

        New executions still get the marker, so that a rollback to code with `patched` does not break them. When
        the last instance with the marker has finished, remove the call.
        """
        self._alive()
        patches.deprecate(self, name)

    def set_custom_status(self, status: Any) -> None:
        """Set a status to show while this instance runs; at most 16 KiB as JSON. Raises PayloadError beyond
        that.
        """
        self._alive()
        self._custom_status = payload.encode(status, limit=CUSTOM_STATUS_LIMIT)
        self._status_changed = True

    def new_uuid(self) -> str:
        """A UUID as text, the same in replay, by the algorithm that Azure documents."""
        return str(uuid.uuid5(_UUID_NAMESPACE, self._unique("%Y-%m-%dT%H:%M:%S.%fZ")))

    def new_guid(self) -> uuid.UUID:
        """A UUID, the same in replay, by the algorithm that Azure documents."""
        return uuid.uuid5(uuid.NAMESPACE_URL, self._unique(None))

    def random(self) -> random.Random:
        """A random number generator that repeats its numbers in replay."""
        if self._random is None:
            self._random = random.Random(f"{self.instance_id}\0{self.execution_id}")
        return self._random

    def _unique(self, form: str | None) -> str:
        self._alive()
        now = moment(self._now)
        name = f"{self.instance_id}_{now.strftime(form) if form else now}_{self._uuids}"
        self._uuids += 1
        return name


DurableOrchestrationContext = OrchestrationContext

_UUID_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_OID, "9e952958-5e33-4daf-827f-2fa12937b875")


def _listed(tasks: tuple[Any, ...], verb: str) -> list[Any]:
    """The arguments of `task_all` and `task_any`: tasks, or one list of them."""
    if len(tasks) != 1 or isinstance(tasks[0], Task):
        return list(tasks)
    if not isinstance(tasks[0], Iterable):
        raise ForeignAwaitError(f"{verb} takes tasks or one list of tasks, not {type(tasks[0]).__name__}")
    return list(tasks[0])
