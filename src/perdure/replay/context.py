"""What an orchestrator sees: its context. Every method that can be waited for returns a Task.

The context only notes down what is asked (`actions`) and what is open; it performs nothing.
During replay it holds each action against the one history recorded in its place (`_script`).
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from heapq import heappop, heappush
from itertools import chain
from operator import itemgetter
from types import UnionType
from typing import Any, Protocol, TypeVar, overload

from msgspec import Raw

from perdure.errors import (
    EngineSignal,
    ForeignAwaitError,
    FunctionMissing,
    FunctionNotFound,
    OrchestratorError,
    PayloadError,
)
from perdure.model import actions as act
from perdure.model import events as ev
from perdure.model import payload
from perdure.model.durations import EARLIEST, LATEST, Seconds, in_range, instant, micros, moment
from perdure.model.http_calls import BUILT_IN
from perdure.model.instances import child_id_of
from perdure.model.names import is_name, not_a_name
from perdure.model.retry import RetryPolicy
from perdure.replay import pairing, patches
from perdure.replay.activity_calls import ActivityCalls
from perdure.replay.child_calls import ChildCalls
from perdure.replay.determinism import Mismatch, agree, misfit, mismatch
from perdure.replay.entity_calls import EntityLock, EntityVerbs
from perdure.replay.fiber import Fiber
from perdure.replay.http_calls import HttpCalls
from perdure.replay.inputs import NO_INPUT, input_body
from perdure.replay.pairing import same
from perdure.replay.relay import idle_relay
from perdure.replay.task import (
    NO_DEFAULT,
    PENDING,
    CallTask,
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
"""The mark, a patch's, of executions whose code was told that their input does not fit."""
SPREAD_FROM = 100  # calls that are open when a sub-orchestration is no longer kept beside its caller
NULL = pairing.NULL
REFUSALS = 3  # how often code that swallows it is told that nothing it asks for counts any more
IDLE: list[act.Action] = []
"""The actions of code that is not running: one empty list for all of them, since thousands sleep."""
NOTHING_TAKEN: dict[int, EventTask[Any]] = {}
"""The same for events that were taken and not looked at."""


@dataclass(frozen=True)
class CallTarget:
    """A function as a call needs it: its registered name, its result's type, its default retry and timeout."""

    name: str
    output_type: Any = Any
    retry: RetryPolicy | None = None
    timeout: int = 0
    heartbeat: int = 0
    version: str = ""
    guard: payload.Guard | None = None
    """What an input has to pass to be read whole as the type of the function's parameter."""


class Environment(Protocol):
    """What the context asks of its surroundings; all of it is fixed while the code is."""

    def activity(self, function: Any) -> CallTarget:
        """Resolve an activity by reference or name. Raises FunctionNotFound."""

    def orchestrator(self, function: Any) -> CallTarget:
        """Resolve an orchestrator by reference or name. Raises FunctionNotFound."""

    def entity(self, name: str) -> None:
        """Raise FunctionNotFound when no entity has this name, which is in lower case."""

    def operation(self, entity: str, operation: str) -> payload.Guard | None:
        """What an operation's input has to pass to be read whole, where an entity of that name is known."""

    def is_renamed(self, action: act.Action, recorded: Any) -> bool:
        """Whether an action is the recorded one but for a name that its function also goes by."""

    def logger(self, context: OrchestrationContext) -> Any:
        """A logger that is silent during replay."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Which execution of which instance this is."""

    instance_id: str
    execution_id: str
    parent_instance_id: str | None = None
    version: str = ""


class OrchestrationContext(ActivityCalls, ChildCalls, HttpCalls, EntityVerbs):
    """Everything an orchestrator may touch of the outside world. Azure's `DurableOrchestrationContext`."""

    __slots__ = (
        "_buffered",
        "_calls",
        "_closed_waits",
        "_custom_status",
        "_doom",
        "_door",
        "_due",
        "_env",
        "_fibers",
        "_gaps",
        "_generation",
        "_identity",
        "_input",
        "_input_type",
        "_kept",
        "_next_event",
        "_next_id",
        "_now",
        "_old_input",
        "_open_ended",
        "_opened_waits",
        "_pairing",
        "_parks_misfits",
        "_patches",
        "_random",
        "_refusals",
        "_replaying",
        "_rewound",
        "_script",
        "_script_at",
        "_status_changed",
        "_taken",
        "_timers",
        "_unfit",
        "_uuids",
        "_waits",
        "actions",
    )

    def __init__(self, identity: Identity, environment: Environment) -> None:
        self._identity = identity
        self._env = environment
        self._input: Raw = NULL
        self._input_type: Any = Any
        self._door: Callable[[str], str] | None = None
        self._now = 0
        self._replaying = False
        self._doom: EngineSignal | None = None  # why nothing that the code asks for counts any more
        self._refusals = 0
        self._next_id = 0
        self._next_event = 0
        self._uuids = 0
        self._random: random.Random | None = None
        self._custom_status: bytes | None = None
        self._status_changed = False
        self._generation: act.ContinueAsNew | None = None
        self._script: list[Any] | None = None
        self._script_at = 0
        self._open_ended = False
        self._patches: dict[str, bool] | None = None
        self._rewound: dict[int, int] | None = None
        self._parks_misfits = False
        self._unfit: tuple[PayloadError, Mismatch] | None = None  # the misfit that the code was told last
        self._old_input = False  # accepted before the present code was there; so were events below `_kept`
        self._kept = 0
        self.actions = IDLE
        self._calls: dict[int, CallTask[Any]] = {}
        self._timers: dict[int, TimerTask] = {}
        self._due: list[tuple[int, int]] = []
        self._waits: dict[int, EventTask[Any]] = {}
        self._gaps = 0  # places of waits that have gone
        self._pairing = ev.OLDEST
        # Of these the empty ones cost nothing: thousands of instances hold them and nothing in them.
        self._opened_waits: Sequence[EventTask[Any]] = ()
        self._closed_waits: Sequence[EventTask[Any]] = ()
        self._taken: dict[int, EventTask[Any]] = NOTHING_TAKEN  # events that the code has not looked at
        self._buffered: list[tuple[int, ev.EventRaised]] = []  # a deque would weigh 700 bytes an instance
        self._fibers: dict[Fiber[Any], None] | None = None  # branches, without those that ended well
        self._lock: EntityLock | None = None  # the critical section it is in or waits for

    # --------------------------------------------------------------------------------------- who and when

    @property
    def instance_id(self) -> str:
        """The id of this instance."""
        return self._identity.instance_id

    @property
    def execution_id(self) -> str:
        """The id of this execution; another one after each continue-as-new."""
        return self._identity.execution_id

    @property
    def parent_instance_id(self) -> str | None:
        """The instance that called this one as a sub-orchestration, or None."""
        return self._identity.parent_instance_id

    @property
    def version(self) -> str:
        """The version this instance started with."""
        return self._identity.version

    @property
    def is_replaying(self) -> bool:
        """True while history is being replayed: what the code does now it has done before."""
        return self._replaying

    @property
    def current_utc_datetime(self) -> datetime:
        """The time of the present episode, aware, in UTC; the same again in replay, and never going back."""
        return moment(self._now)

    @property
    def logger(self) -> Any:
        """A standard logger that is silent during replay, so that each line appears once."""
        return self._env.logger(self)

    @property
    def custom_status(self) -> Any:
        """What `set_custom_status` set last in this execution, or None."""
        return None if self._custom_status is None else payload.decode(self._custom_status)

    @property
    def will_continue_as_new(self) -> bool:
        """Whether `continue_as_new` has been called."""
        return self._generation is not None

    @overload
    def get_input(self, expected_type: type[T]) -> T: ...
    @overload
    def get_input(self, expected_type: UnionType | None = None) -> Any: ...
    def get_input(self, expected_type: Any = None) -> Any:
        """The input this execution started with. Raises PayloadError on a misfit.

        Its type is `expected_type`, else the one the orchestrator declares for its input, else what JSON gives.
        An input that was accepted, and fitted before a deploy, parks the instance instead.
        """
        wanted = self._input_type if expected_type is None else expected_type
        try:
            return payload.decode(self._input, wanted)
        except PayloadError as error:
            found = misfit("the input", wanted, error)
            if not self._parks_misfits:
                self._unfit = error, found  # earlier versions told the code, and left no mark
            elif not self._is_told():
                raise self._park(found) from None
            raise

    def _is_told(self) -> bool:
        """Whether the code hears that its input does not fit. History has a mark if it was told."""
        if self._doom is not None:
            return True
        known = REFUSED in (self._patches or ())
        return patches.patched(self, REFUSED) if known or not self._old_input else False

    # ------------------------------------------------------------------------------------------- waiting

    def create_timer(self, fire_at: datetime | Seconds) -> TimerTask:
        """A durable timer of any length: an aware datetime, or how long from now (timedelta or seconds).

        A time in the past fires at once. `cancel()` it when it no longer matters. Raises ValueError for a naive
        datetime, and for a time beyond the year 9999.
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
        """Wait for an event raised to this instance; one that came earlier is taken at once.

        The oldest wait for a name that the code still awaits takes the oldest event; each event is taken once. An
        event whose body does not fit `expected_type` is rejected, the status says why, and the wait goes on.

        Parameters:
            timeout: how long to wait; then TimeoutError is raised, or `default` is the result.

        Raises:
            OrchestratorError for a name that the orchestrator's `events` do not admit, or that no client can raise:
            such an event never comes. ValueError for a deadline beyond the year 9999.
        """
        self._alive()
        if not is_name(name) and not self._is_recorded("name", lambda kept: kept == name):
            raise OrchestratorError(not_a_name(name, "the name of an event"))
        if expected_type is not None:
            self._check_readable(expected_type, ev.EventAwaited)
        if self._door is not None:
            self._check_door(name, self._door(name))
        deadline = self._after(timeout, "the deadline", "deadline") if timeout is not None else 0
        wait: EventTask[Any] = EventTask(
            self, self._take_id(), name, Any if expected_type is None else expected_type
        )
        recorded = self._emit(act.AwaitEvent(wait.id, name, deadline))
        self._waits[wait.id] = wait
        self._opened_waits = _with(self._opened_waits, wait)
        self._serve(wait)
        if self._taken and wait._state == PENDING and self._pairing == ev.AWAITED:
            pairing.pass_on(self, wait)
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
        """Wait for all: one list gives a list of results, several arguments a tuple, in argument order.

        Fails with the first failure in the order of history; the other tasks go on.
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
        """Wait for the first to be done; the result is that task itself. Never raises what the task raised."""
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
        """Run a generator or coroutine as a concurrent branch; wait for the task to get what it returns.

        Branches still running when the orchestrator returns are given up. One that failed and was never
        waited for fails the orchestration.
        """
        self._alive()
        if not isinstance(branch, (Generator, Coroutine)):
            raise ForeignAwaitError(
                f"spawn takes a generator or a coroutine (call the function), not {type(branch).__name__}"
            )
        fiber: Fiber[T] = Fiber(self, branch)
        if self._doom is not None:  # a branch that has not begun closes without running any code
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
        """End this execution and begin the next with a new input and an empty history.

        Events that nobody has taken yet go along, unless `save_events` is False. The next execution runs the
        same version unless `version` names another. Return right after the call; the return value is ignored.
        """
        self._alive()
        patches.check_version(version)
        guard = payload.guard_of(self._input_type) if version is None else None
        body = self._guarded_body(guard, input_, ev.ContinuedAsNew)
        self._generation = act.ContinueAsNew(body, save_events, version or "")

    def patched(self, name: str) -> bool:
        """Whether to run the code behind a change: True for executions that had not come here before it.

        The answer is recorded in history, so replay gets the same one, and is the same for the whole execution.
        `if context.patched("fraud-check"): new code; else: old code` keeps instances in flight on the old code.
        """
        self._alive()
        return patches.patched(self, name)

    def deprecate_patch(self, name: str) -> None:
        """In place of `patched(name)` once no instance needs the old code any more, and its branch is gone.

        New executions are still marked, so that going back to the code that asks `patched` does them no harm.
        When those have finished too, remove the call.
        """
        self._alive()
        patches.deprecate(self, name)

    def set_custom_status(self, status: Any) -> None:
        """Something to show while this instance runs; at most 16 KiB as JSON. Raises PayloadError beyond."""
        self._alive()
        self._custom_status = payload.encode(status, limit=CUSTOM_STATUS_LIMIT)
        self._status_changed = True

    def new_uuid(self) -> str:
        """A UUID as text, the same again in replay, by the algorithm Azure documents."""
        return str(uuid.uuid5(_UUID_NAMESPACE, self._unique("%Y-%m-%dT%H:%M:%S.%fZ")))

    def new_guid(self) -> uuid.UUID:
        """A UUID, the same again in replay, by the algorithm Azure documents."""
        return uuid.uuid5(uuid.NAMESPACE_URL, self._unique(None))

    def random(self) -> random.Random:
        """A random number generator that gives the same numbers again in replay."""
        if self._random is None:
            self._random = random.Random(f"{self.instance_id}\0{self.execution_id}")
        return self._random

    # ---------------------------------------------------------------- inside: for tasks and for Execution

    def _unique(self, form: str | None) -> str:
        self._alive()
        now = moment(self._now)
        name = f"{self.instance_id}_{now.strftime(form) if form else now}_{self._uuids}"
        self._uuids += 1
        return name

    def _chance(self, call: int, attempt: int) -> float:
        return random.Random(f"{self.instance_id}\0{self.execution_id}\0{call}\0{attempt}").random()

    def _is_recorded(self, field: str, is_odd: Callable[[Any], bool]) -> bool:
        """Whether history has something as odd in this place: then it was accepted once, and is again."""
        found = getattr(self._recorded(), field, None)
        return found is not None and is_odd(found)

    def _after(self, duration: Seconds, what: str, recorded_in: str = "fire_at") -> int:
        """The instant so long from now. Raises ValueError when a datetime cannot say it."""
        at = self._now + micros(duration)
        if EARLIEST <= at <= LATEST or self._is_recorded(recorded_in, lambda kept: kept > LATEST):
            return at
        return in_range(at, what)

    def _limit(self, timeout: Seconds, what: str, recorded_in: str) -> int:
        """A limit of an activity in microseconds; 0 for none."""
        limit = micros(timeout)
        if limit < 0 and not self._is_recorded(recorded_in, lambda kept: kept < 0):
            raise ValueError(f"{what} must not be negative, not {timeout!r}")
        return limit

    def _target(self, resolve: Callable[[Any], CallTarget], function: Any) -> CallTarget:
        """A name that nobody here has is a reason to wait for a worker that has it."""
        if not isinstance(function, str) and not callable(function):
            raise OrchestratorError(
                f"a call takes a function or its registered name, not {type(function).__name__}"
            )
        if self._doom is not None:
            return CallTarget("")
        try:
            return resolve(function)
        except FunctionNotFound as error:
            if isinstance(function, str) and not is_name(function):
                raise OrchestratorError(not_a_name(function, "the name of a function")) from None
            self._doom = FunctionMissing(str(error))
            raise self._doom from None

    def _check_door(self, name: str, refusal: str) -> None:
        """Refuse a wait for what cannot come. What history holds, or what came before the door was closed, may."""
        if not refusal or any(same(event.name, name) for _, event in self._buffered):
            return
        script, at = self._script, self._script_at
        recorded = script[at] if script is not None and at < len(script) else None
        if not isinstance(recorded, ev.EventAwaited) or recorded.name != name:
            raise OrchestratorError(
                f"waiting for the event {name!r} would never end: {refusal}. Declare it in events=... of the "
                "orchestrator, or correct the name"
            )

    def _known_entity(self, entity_id: str) -> None:
        """An entity that nobody here has is a reason to wait for a worker that has it. What history holds, stays."""
        if self._script is None and self._doom is None:
            try:
                self._env.entity(entity_id[1:].partition("@")[0])
            except FunctionNotFound as error:
                self._doom = FunctionMissing(str(error))
                raise self._doom from None

    def _alive(self) -> None:
        if self._doom is not None:
            self._refuse(self._doom)

    def _refuse(self, doom: EngineSignal) -> None:
        """The code is to unwind. A bare `except:` may swallow that again and again; then it is let go on, asks in
        vain, and blocks at its next wait."""
        self._refusals += 1
        if self._refusals <= REFUSALS:
            raise doom

    def _check_readable(self, expected_type: Any, recorded: type) -> None:
        """Raise PayloadError where a value is asked for as a type that no JSON can be read as.

        A history in which the code got past this is replayed as it went.
        """
        flaw = payload.why_unreadable(expected_type)
        if flaw is not None and not self._has_recorded(recorded):
            raise PayloadError(f"expected_type is {payload.title(expected_type)}. {flaw}")

    def _guarded_body(self, guard: payload.Guard | None, input_: Any, recorded: type) -> Raw:
        """The body of an input. Raises PayloadError for one that would not arrive whole, unless history has it."""
        if guard is not None:
            self._hold(guard, input_, recorded)
        return input_body(input_)

    def _hold(self, guard: payload.Guard, input_: Any, recorded: type) -> None:
        if input_ is not NO_INPUT and not self._has_recorded(recorded):
            guard((), input_)

    def _has_recorded(self, recorded: type) -> bool:
        script, at = self._script, self._script_at
        return script is not None and at < len(script) and isinstance(script[at], recorded)

    def _take_id(self) -> int:
        taken = self._next_id
        self._next_id = taken + 1
        return taken

    def _emit(self, action: act.Action) -> Any | None:
        """Note an action; in replay, hold it against history and return the event it became."""
        if self._script is None and self._generation is None and self._doom is None:
            self.actions.append(action)
            return None
        if self._doom is not None:
            self._refuse(self._doom)
            return None
        if self._generation is not None and not isinstance(action, act.ContinueAsNew | act.FailOrchestration):
            return None  # what comes after continue_as_new belongs to no execution
        script = self._script
        if script is None:
            self.actions.append(action)
            return None
        recorded = self._recorded()
        if recorded is None or not self._agree(action, recorded):
            raise self._differs(recorded, action)
        self._script_at += 1
        self._pass_rewinds()
        return recorded

    def _recorded(self) -> Any | None:
        """In replay: the next decision of history."""
        script, at = self._script, self._script_at
        return script[at] if script is not None and at < len(script) else None

    def _differs(self, recorded: Any | None, action: act.Action | None) -> Mismatch:
        """The code does not do what history says; a payload that did not fit is the likelier cause."""
        found = mismatch(recorded, action) if self._unfit is None else self._unfit[1]
        return self._park(found)

    def _park(self, found: Mismatch) -> Mismatch:
        self._doom = found
        return found

    def _agree(self, action: act.Action, recorded: Any) -> bool:
        """Also of another name, when today's function goes by the recorded one as well."""
        return agree(action, recorded) or self._env.is_renamed(action, recorded)

    def _pass_rewinds(self) -> None:
        """In replay, behind the last decision that counts: what a rewind set is so from here on.

        Where nothing is recorded behind it, the code goes on living here.
        """
        script = self._script
        assert script is not None
        while self._script_at < len(script) and isinstance(
            rewound := script[self._script_at], ev.ExecutionRewound
        ):
            self._script_at += 1
            self._next_id = max(self._next_id, rewound.next_id)
            self._now = max(self._now, rewound.at)
            self._rewound = {**(self._rewound or {}), **dict.fromkeys(rewound.voided, rewound.at)}
            if self._open_ended and self._script_at == len(script):
                self._script = None
                self._replaying = False
                return

    def _recorded_retry(self, call: int) -> int | None:
        """In replay: when history tried this call again, 0 if it did not; None when this is new."""
        if self._script is None:
            return None
        recorded = self._recorded()
        if isinstance(recorded, ev.TimerCreated) and recorded.purpose == "retry" and recorded.of == call:
            return recorded.fire_at
        return 0

    def _schedule(
        self, name: str, body: Raw, timeout: int, silence: int, expected: Any, call: int, attempt: int
    ) -> CallTask[Any]:
        task: CallTask[Any] = CallTask(self, self._take_id(), "Activity", name, expected)
        first = task.id if call < 0 else call
        self._emit(act.ScheduleTask(task.id, name, body, first, attempt, timeout, silence))
        self._calls[task.id] = task
        return task

    def _cancel_call(self, call: CallTask[Any]) -> None:
        self._emit(act.CancelTask(call.id))
        self._calls.pop(call.id, None)

    def _create_child(
        self,
        name: str,
        body: Raw,
        instance_id: str | None,
        version: str,
        expected: Any,
        call: int,
        attempt: int,
    ) -> CallTask[Any]:
        task: CallTask[Any] = CallTask(self, self._take_id(), "Orchestrator", name, expected)
        identity = self._identity
        child = instance_id or child_id_of(
            identity.instance_id, identity.execution_id, task.id, spread=len(self._calls) >= SPREAD_FROM
        )
        self._emit(
            act.CreateSubOrchestration(
                task.id, name, child, version, body, task.id if call < 0 else call, attempt
            )
        )
        self._calls[task.id] = task
        return task

    def _timer(self, fire_at: int, purpose: str, of: int) -> TimerTask:
        task = TimerTask(self, self._take_id(), fire_at, purpose, of)
        recorded = self._emit(act.CreateTimer(task.id, fire_at, purpose, of))
        if recorded is not None:
            task.fire_at = recorded.fire_at
        self._timers[task.id] = task
        heappush(self._due, (task.fire_at, task.id))
        return task

    def _cancel_timer(self, timer: TimerTask) -> None:
        self._emit(act.CancelTimer(timer.id))
        self._timers.pop(timer.id, None)

    def _cancel_wait(self, wait: EventTask[Any]) -> None:
        self._emit(act.CancelWait(wait.id))
        self._close_wait(wait)

    def _close_wait(self, wait: EventTask[Any]) -> None:
        if self._waits.pop(wait.id, None) is not None:
            self._gaps += 1
            if self._gaps > len(self._waits) + 8:  # else looking for the first means passing over all those
                self._waits, self._gaps = dict(self._waits), 0
        self._closed_waits = _with(self._closed_waits, wait)

    def _give_back(self, wait: EventTask[Any]) -> None:
        """An event was taken by a wait that the code then cancelled without looking: it is not lost."""
        assert wait.event is not None
        self._emit(act.CancelWait(wait.id))
        number, event = wait.event
        wait.event = None
        self._taken.pop(wait.id, None)
        if self._pairing == ev.AWAITED:
            wait._give_back()
        behind = sum(1 for other, _ in self._buffered if other < number)
        self._buffered.insert(behind, (number, event))
        self._deliver_buffered()

    def _serve(self, wait: EventTask[Any]) -> None:
        """Give a new wait the oldest buffered event of its name that fits."""
        if self._generation is not None:
            return  # a wait begun after continue_as_new takes nothing: the next execution gets the event
        at = 0
        while wait._state == PENDING and at < len(self._buffered):
            kept = self._buffered[at]
            if same(kept[1].name, wait.name):
                del self._buffered[at]
                self._offer(wait, kept)
            else:
                at += 1

    def _deliver_buffered(self) -> None:
        if self._pairing == ev.AWAITED:
            kept, self._buffered = self._buffered, []
            for item in kept:
                self._arrived(item)
            return
        for wait in list(self._waits.values()):
            self._serve(wait)

    def _awaits(self, name: str) -> bool:
        """Whether an event of this name would be taken at once."""
        return any(same(wait.name, name) for wait in self._waits.values())

    def _awaiting(self, name: str) -> EventTask[Any] | None:
        """The wait that would take an event of this name next."""
        return next((wait for wait in self._waits.values() if same(wait.name, name)), None)

    def _raised(self, event: ev.EventRaised) -> None:
        """An event arrived: a wait for its name takes it, or it is kept."""
        item = (self._next_event, event)
        self._next_event += 1
        self._arrived(item)

    def _arrived(self, item: pairing.Item) -> None:
        waits = (wait for wait in self._waits.values() if same(wait.name, item[1].name))
        oldest = next(waits, None)
        if oldest is None or self._generation is not None:
            self._buffered.append(item)
            return
        second = next(waits, None) if self._pairing != ev.OLDEST else None
        if second is None:
            self._offer(oldest, item)
        else:
            pairing.choose(self, item, chain((oldest, second), waits))

    def _offer(self, wait: EventTask[Any], item: tuple[int, ev.EventRaised]) -> None:
        event, recorded = item[1], self._recorded()
        if isinstance(recorded, ev.EventRejected) and recorded.wait_id == wait.id:
            self._reject(wait, event, recorded.reason)  # whatever today's type would take
            return
        try:
            value = payload.decode(pairing.body_of(event), wait.expected)
        except PayloadError as error:
            if self._script is not None or item[0] < self._kept:
                raise self._park(misfit(f"the event '{event.name}'", wait.expected, error)) from None
            self._reject(wait, event, f"does not fit: {error}")
            return
        self._take(wait, item, value)

    def _take(self, wait: EventTask[Any], item: pairing.Item, value: Any) -> None:
        if self._taken is NOTHING_TAKEN:
            self._taken = {}
        self._taken[wait.id] = wait
        self._close_wait(wait)
        wait._take(item, value)

    def _reject(self, wait: EventTask[Any], event: ev.EventRaised, reason: str) -> None:
        self._emit(act.RejectEvent(wait.id, event.name, event.operation_id, event.input, reason))

    def _unconsumed_kept(self) -> int:
        """How many of the unconsumed events, the first of them, were accepted before the present code was there."""
        unseen = [wait.event for wait in self._taken.values() if wait.event is not None]
        return sum(number < self._kept for number, _ in [*self._buffered, *unseen])

    def _unconsumed(self) -> tuple[ev.EventRaised, ...]:
        """Events nobody has looked at, in the order of their arrival: buffered, or taken and not seen."""
        unseen = [wait.event for wait in self._taken.values() if wait.event is not None]
        return tuple(event for _, event in sorted([*self._buffered, *unseen], key=itemgetter(0)))

    def _earliest_timer(self) -> int | None:
        due = self._due
        while due and due[0][1] not in self._timers:
            heappop(due)
        return due[0][0] if due else None

    def _branch_ended(self, fiber: Fiber[Any]) -> None:
        """Nothing has to be told of this branch any more."""
        if self._fibers is not None:
            self._fibers.pop(fiber, None)

    def _check_own(self, children: Sequence[Any], verb: str) -> None:
        for child in children:
            if not isinstance(child, Task) or child._context is not self:
                raise ForeignAwaitError(
                    f"{verb} takes tasks of this context, not {type(child).__name__}: "
                    "wrap generators and coroutines in context.spawn(...)"
                )


DurableOrchestrationContext = OrchestrationContext

_UUID_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_OID, "9e952958-5e33-4daf-827f-2fa12937b875")


def _listed(tasks: tuple[Any, ...], verb: str) -> list[Any]:
    """The arguments of `task_all` and `task_any`: tasks, or one list of them."""
    if len(tasks) != 1 or isinstance(tasks[0], Task):
        return list(tasks)
    if not isinstance(tasks[0], Iterable):
        raise ForeignAwaitError(f"{verb} takes tasks or one list of tasks, not {type(tasks[0]).__name__}")
    return list(tasks[0])


def _with(waits: Sequence[EventTask[Any]], wait: EventTask[Any]) -> Sequence[EventTask[Any]]:
    if isinstance(waits, list):
        waits.append(wait)
        return waits
    return [*waits, wait]
