"""The fallback: an orchestrator driven by the JSON protocol of Azure's host, with the whole history at each turn.

It serves functions that hide their generator, and versions of the SDK whose inside is not as `sdk` expects. A turn
costs some 50 microseconds for each event before it, so an execution may have a thousand events and no more.

The SDK numbers what it asks for in the order of the asks; waits for events have no number. Retries are perdure's, so
a call with retries ends once. Where it has failed, the SDK is told of all its attempts at once, with the timers
between them and the one that it waits for behind the last.

In one case the SDK cannot be told of a completion: it fails in its own code when a compound that is done hears of one
more child. Such a completion is left out, and the program goes on without it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping
from datetime import datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from msgspec import Raw

from perdure.engine.functions.callables import presented
from perdure.errors import OrchestratorError
from perdure.hosts.azure_functions import asking, sdk
from perdure.hosts.azure_functions.asking import Ask, Names, body_of, failure_for, refusal_of
from perdure.model.durations import stamp
from perdure.replay.arrivals import Arrivals
from perdure.replay.context import OrchestrationContext
from perdure.replay.task import FAILED, PENDING, TimerTask

if TYPE_CHECKING:
    from perdure.replay.task import Task

MOST_EVENTS: Final = 1_000
CONTINUE_AS_NEW, SIGNAL_ENTITY, EVENT, ENTITY = 4, 9, 6, 7
ORCHESTRATOR_STARTED, EXECUTION_STARTED, EVENT_SENT, EVENT_RAISED, TIMER_FIRED = 12, 0, 14, 15, 11
_COMPLETED: Final = {0: 5, 1: 5, 8: 5, 2: 8, 3: 8}
_FAILED: Final = {0: 6, 1: 6, 8: 6, 2: 9, 3: 9}
_LABEL: Final = "\n\n$OutOfProcData$:"

ROWS: Final[Mapping[int, Ask]] = {
    0: asking.ACTIVITY,
    1: asking.ACTIVITY,
    2: asking.SUB_ORCHESTRATOR,
    3: asking.SUB_ORCHESTRATOR,
    5: asking.TIMER,
    EVENT: asking.EVENT,
    ENTITY: asking.ENTITY,
    8: asking.HTTP,
}
"""The kinds of actions in the protocol, as rows of the table of asks."""


def by_protocol(handle: Callable[[str], str], names: Names) -> Callable[[OrchestrationContext], Any]:
    """An orchestrator's handle, as perdure runs it."""

    def orchestrate(context: OrchestrationContext) -> Generator[Task[Any], Any, Any]:
        return Conversation(context, handle, names).run()

    behind = sdk.orchestrator_of(handle).function
    return presented(orchestrate, behind, {"context": OrchestrationContext})


class Conversation:
    """One execution of a handle."""

    def __init__(self, durable: OrchestrationContext, handle: Callable[[str], str], names: Names) -> None:
        self._durable = durable
        self._handle = handle
        self._names = names
        self._arrivals: Arrivals[Task[Any]] = Arrivals(durable)
        self._history: list[dict[str, Any]] = []
        self._open: dict[Task[Any], tuple[int, int, Any]] = {}  # the SDK's number, the kind and the action
        self._waits: dict[str, list[str]] = {}  # by folded name the names of open waits, the newest last
        self._timers: list[tuple[int, TimerTask]] = []  # where the action is in the list, and the timer
        self._next = 0
        self._seen = 0
        self._told = 0  # how much of the history the SDK has taken
        self._late: Exception | None = None  # what it said to a completion that it could not take
        self._has_cancelled = False  # a program may wait for a timer that it has cancelled, for ever
        self._at: datetime | None = None

    def run(self) -> Generator[Task[Any], Any, Any]:
        self._begin()
        version = self._durable.version
        self._put(EXECUTION_STARTED, Name="orchestrator", Input=self._input(), Version=version)
        while True:
            state = self._turn()
            if state is not None:
                if self._ask_all(list(_flat(state["actions"]))):
                    return None
                if state.get("isDone"):
                    return None if state.get("output") is None else body_of(json.dumps(state["output"]))
            yield from self._until_something()

    def _input(self) -> str | None:
        text = bytes(self._durable.get_input(Raw)).decode()
        return None if text == "null" else text

    # ---------------------------------------------------------------------------------- speaking to the SDK

    def _begin(self) -> None:
        now = self._durable.current_utc_datetime
        if now != self._at:
            self._at = now
            self._put(ORCHESTRATOR_STARTED)

    def _put(self, kind: int, number: int = -1, **more: Any) -> None:
        if len(self._history) >= MOST_EVENTS:
            raise OrchestratorError(
                f"the server drives this orchestrator by the JSON protocol, which ends at {MOST_EVENTS:,} events. "
                "The log of its start says why: remove that reason, or call continue_as_new earlier"
            )
        at = stamp(self._durable.current_utc_datetime)
        event = {"EventType": kind, "EventId": number, "IsPlayed": False, "Timestamp": at, **more}
        self._history.append(event)

    def _turn(self) -> dict[str, Any] | None:
        """Have the program go on; None where the SDK cannot be told of what came. Raises what the program raises."""
        __tracebackhide__ = True
        document = {
            "history": self._history,
            "instanceId": self._durable.instance_id,
            "isReplaying": self._durable.is_replaying,
            "parentInstanceId": self._durable.parent_instance_id,
            "input": self._input(),
            "upperSchemaVersion": 1,
        }
        try:
            state: dict[str, Any] = json.loads(self._handle(json.dumps(document)))
        except Exception as error:
            if sdk.is_one_child_too_many(error):
                self._late = error
                del self._history[self._told :]
                return None
            raise _of_the_program(error) from None
        self._told = len(self._history)
        for event in self._history:
            event["IsPlayed"] = True
        if state.get("customStatus") is not None:
            self._durable.set_custom_status(body_of(json.dumps(state["customStatus"])))
        return state

    # ------------------------------------------------------------------------------------ asking of perdure

    def _ask_all(self, actions: list[dict[str, Any]]) -> bool:
        """Ask for the new actions. Returns whether the execution continues as new."""
        for place, timer in self._timers:
            if actions[place].get("isCanceled") and self._open.pop(timer, None) is not None:
                self._has_cancelled = True
                self._arrivals.leave(timer)
                timer.cancel()
        fresh, self._seen = actions[self._seen :], len(actions)
        for place, action in enumerate(fresh, self._seen - len(fresh)):
            if action["actionType"] == CONTINUE_AS_NEW:
                self._durable.continue_as_new(body_of(action["input"]), save_events=True)
                return True
            self._ask(place, action)
        return False

    def _ask(self, place: int, action: dict[str, Any]) -> None:
        kind, number = action["actionType"], self._next
        self._next += kind != EVENT
        if kind == SIGNAL_ENTITY:
            self._durable.signal_entity(action["instanceId"], action["operation"], body_of(action["input"]))
            return
        if action.get("isCanceled"):
            self._has_cancelled = True
            return
        seen = _as_object(action)
        asked = ROWS[kind].begin(self._durable, seen, self._names)
        self._open[asked] = number, kind, seen
        if kind == EVENT:
            self._waits.setdefault(seen.external_event_name.casefold(), []).append(seen.external_event_name)
        elif isinstance(asked, TimerTask):
            self._timers.append((place, asked))
        if asked._state == PENDING:
            self._arrivals.follow(asked)
        else:
            self._arrivals.on_done(asked)

    def _until_something(self) -> Generator[Task[Any], Any, None]:
        if not self._open and not self._has_cancelled:
            raise self._late or OrchestratorError(
                "the orchestrator waits for nothing that can come: it yields None, or a signal, which has no result: "
                "yield what a method of the context returns"
            )
        while (done := self._arrivals.take()) is None:
            yield self._arrivals
        number, kind, action = self._open.pop(done)
        self._begin()
        if kind == EVENT:
            newest = self._waits[action.external_event_name.casefold()].pop()
            self._put(EVENT_RAISED, Name=newest, Input=_text(done._outcome))
        elif kind == ENTITY:
            self._answered(number, action, done)
        elif isinstance(done, TimerTask):
            self._put(TIMER_FIRED, TimerId=number)
        elif done._state == FAILED:
            self._failed(number, kind, action, done)
        else:
            self._put(_COMPLETED[kind], TaskScheduledId=number, Result=_text(done._outcome))

    def _answered(self, number: int, action: Any, done: Task[Any]) -> None:
        failed, guid = done._state == FAILED, f"operation-{number}"
        result = json.dumps(str(failure_for(action, ROWS[ENTITY], done))) if failed else _text(done._outcome)
        answer = {"result": result, **({"exceptionType": "Error"} if failed else {})}
        self._put(EVENT_SENT, number, Input=json.dumps({"id": guid}))
        self._put(EVENT_RAISED, Name=guid, Input=json.dumps(answer))

    def _failed(self, number: int, kind: int, action: Any, done: Task[Any]) -> None:
        told, _, stack = str(failure_for(action, ROWS[kind], done)).partition(" \n ")
        attempts = max(action.retry_options.most, 1) if action.retry_options is not None else 0
        self._put(_FAILED[kind], TaskScheduledId=number, Reason=told, Details=stack)
        for attempt in range(1, attempts + 1):
            self._put(TIMER_FIRED, TimerId=self._take())
            if attempt < attempts:
                self._put(_FAILED[kind], TaskScheduledId=self._take(), Reason=told, Details=stack)

    def _take(self) -> int:
        number, self._next = self._next, self._next + 1
        return number


def _flat(actions: Any) -> Iterator[dict[str, Any]]:
    """Actions in the order of their asks, those of compounds too."""
    for one in actions:
        if isinstance(one, list):
            yield from _flat(one)
        elif "compoundActions" in one:
            yield from _flat(one["compoundActions"])
        else:
            yield one


def _of_the_program(error: Exception) -> BaseException:
    """What the program has raised, of what its handle raises; what it yields that is no task is told in words."""
    refused = refusal_of(error.obj) if sdk.is_of_no_task(error) else None
    return refused or error.__cause__ or Exception(str(error).partition(_LABEL)[0])


class _Options:
    """The options of a retry, as the protocol has them."""

    def __init__(self, told: dict[str, Any]) -> None:
        self._told = told
        self.most = int(told["maxNumberOfAttempts"])

    def to_json(self) -> dict[str, Any]:
        return self._told


def _as_object(action: dict[str, Any]) -> Any:
    """An action of the protocol with the names that the table of asks reads."""
    options, request = action.get("retryOptions"), action.get("httpRequest") or {}
    source = request.get("tokenSource")
    return SimpleNamespace(
        function_name=action.get("functionName"),
        input_=action.get("input"),
        _input=action.get("input"),
        instance_id=action.get("instanceId"),
        version=action.get("version"),
        operation=action.get("operation"),
        external_event_name=action.get("externalEventName"),
        fire_at=datetime.fromisoformat(action["fireAt"]) if "fireAt" in action else None,
        retry_options=_Options(options) if options else None,
        http_request=SimpleNamespace(
            method=request.get("method"),
            uri=request.get("uri"),
            content=request.get("content"),
            headers=request.get("headers"),
            token_source=SimpleNamespace(resource=source.get("resource")) if source else None,
        ),
    )


def _text(outcome: Any) -> str | None:
    """An outcome as JSON text: a body as it is, a response as the SDK expects it."""
    match outcome:
        case None:
            return None
        case Raw():
            return bytes(outcome).decode()
    return json.dumps(asking.response(None, outcome))


__all__ = ["MOST_EVENTS", "by_protocol"]
