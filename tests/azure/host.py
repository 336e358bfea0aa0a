"""As much of Azure's host as the sample programs need: it feeds the official package histories, as its host does.

One episode at a time: hand over the history, look at which tasks are open, do what they ask for, write down what came
of it. Ids of tasks are read from the package's own table of open tasks, since retries take theirs while replaying.
"""

import heapq
import itertools
import json
import warnings
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.azure import official

Event = dict[str, Any]
TASK_COMPLETED, TASK_FAILED, CHILD_COMPLETED, CHILD_FAILED, TIMER_FIRED = 5, 6, 8, 9, 11
CONTINUE_AS_NEW, SIGNAL_ENTITY = 4, 9


class Failed(Exception):
    """The orchestration failed."""


class Host:
    """An application of the official package, with a clock of its own."""

    def __init__(self, app: Any, start: datetime) -> None:
        self.now = start
        self._functions = {_name(function): function.get_user_function() for function in app.get_functions()}
        self._entities: dict[str, str | None] = {}

    def run(
        self,
        name: str,
        input_: Any = None,
        instance_id: str = "main",
        events: Iterable[tuple[float, str, Any]] = (),
        parent: str | None = None,
    ) -> Any:
        """Run an orchestration to its end; `events` come after so many seconds. Raises Failed."""
        body = json.dumps(input_)
        while True:
            execution = Execution(self, name, body, instance_id, parent)
            for after, event_name, data in events:
                execution.expect(after, {"EventType": 15, "Name": event_name, "Input": json.dumps(data)})
            state = execution.finish()
            last = state["actions"][0][-1] if state["actions"][0] else {}
            if last.get("actionType") != CONTINUE_AS_NEW:
                return state.get("output")
            body = last["input"]

    def call(self, name: str, body: str) -> Any:
        """An activity."""
        return self._functions[name](json.loads(body))

    def operate(self, entity_id: str, operation: str, body: str) -> str:
        """An operation of an entity; returns its result as JSON."""
        _, name, key = entity_id.split("@")
        state = self._entities.get(entity_id)
        batch = [{"name": operation, "input": json.dumps(body), "isSignal": False}]
        request = {
            "self": {"name": name, "key": key},
            "exists": state is not None,
            "state": state,
            "batch": batch,
        }
        handle = next(f for known, f in self._functions.items() if known.lower() == name)
        answer = json.loads(handle(json.dumps(request)))
        self._entities[entity_id] = answer["entityState"]
        return str(answer["results"][0]["result"])

    def handle(self, name: str, document: Event) -> tuple[Any, Event]:
        """One episode: the official context afterwards, and what the orchestrator asks for."""
        package = official.package()
        function = self._functions[name]
        context = package.DurableOrchestrationContext.from_json(json.dumps(document))
        context._input_expected_type = function._df_input_type
        try:
            state = package.Orchestrator(function.orchestrator_function).handle(context)
        except Exception as error:
            raise Failed(str(error).partition("\n\n$OutOfProcData$:")[0]) from error
        return context, json.loads(state)


class Execution:
    """One execution of one orchestration: its history, and what is on its way to it."""

    def __init__(self, host: Host, name: str, body: str, instance_id: str, parent: str | None) -> None:
        self._host, self._name, self._body = host, name, body
        self._id, self._parent = instance_id, parent
        self._history: list[Event] = []
        self._coming: list[tuple[datetime, int, Event]] = []
        self._numbers = itertools.count()
        self._known: set[int] = set()
        self._signals = 0

    def expect(self, after: float, event: Event) -> None:
        """An event that comes in so many seconds."""
        at = self._host.now + timedelta(seconds=after)
        heapq.heappush(self._coming, (at, next(self._numbers), event))

    def finish(self) -> Event:
        """Episode after episode, until it is done."""
        batch: list[Event] = [{"EventType": 0, "Name": self._name, "Version": "", "Input": self._body}]
        while True:
            self._note({"EventType": 12}, *batch)
            context, state = self._host.handle(self._name, self._document())
            if state["isDone"]:
                return state
            for event in self._history:
                event["IsPlayed"] = True
            self._signal(state["actions"][0])
            self._begin(context.open_tasks)
            self._host.now = max(self._host.now, self._coming[0][0])  # IndexError: it would wait for ever
            batch = []
            while self._coming and self._coming[0][0] <= self._host.now:
                batch.append(heapq.heappop(self._coming)[2])

    def _document(self) -> Event:
        return {
            "history": self._history,
            "input": self._body,
            "instanceId": self._id,
            "isReplaying": False,
            "parentInstanceId": self._parent,
            "upperSchemaVersion": 1,
            "upperSchemaVersionNew": 2,
        }

    def _note(self, *events: Event) -> None:
        stamp = self._host.now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        self._history += [{"EventId": -1, "IsPlayed": False, "Timestamp": stamp, **event} for event in events]

    def _signal(self, actions: list[Event]) -> None:
        signals = [action for action in actions if action["actionType"] == SIGNAL_ENTITY]
        for signal in signals[self._signals :]:
            self._host.operate(signal["instanceId"], signal["operation"], signal["input"])
        self._signals = len(signals)

    def _begin(self, open_tasks: dict[Any, Any]) -> None:
        for number in sorted(key for key in open_tasks if isinstance(key, int)):
            if number not in self._known:
                self._known.add(number)
                self._do(number, open_tasks[number], open_tasks[number]._get_action())

    def _do(self, number: int, task: Any, action: Any) -> None:
        match type(action).__name__:
            case "NoOpAction" if task.parent.is_waiting_on_timer:
                self._pause(number, task.parent)
            case "NoOpAction":
                self._do(number, task, task.parent.actions)
            case "CallActivityAction" | "CallActivityWithRetryAction":
                self._note({"EventType": 4, "EventId": number, "Name": action.function_name})
                self._answer(
                    number, TASK_COMPLETED, lambda: self._host.call(action.function_name, action.input_)
                )
            case "CallSubOrchestratorAction":
                self._note({"EventType": 7, "EventId": number, "Name": action.function_name})
                child = action.instance_id or f"{self._id}:{number}"
                self._answer(
                    number,
                    CHILD_COMPLETED,
                    lambda: self._host.run(
                        action.function_name, json.loads(action._input), child, parent=self._id
                    ),
                )
            case "CreateTimerAction":
                self._note({"EventType": 10, "EventId": number})
                due = (action.fire_at.astimezone(UTC) - self._host.now).total_seconds()
                self.expect(max(due, 0.0), {"EventType": TIMER_FIRED, "TimerId": number})
            case "CallEntityAction":
                self._note(
                    {"EventType": 14, "EventId": number, "Input": json.dumps({"id": f"request-{number}"})}
                )
                result = self._host.operate(action.instance_id, action.operation, action.input_)
                raised = {
                    "EventType": 15,
                    "Name": f"request-{number}",
                    "Input": json.dumps({"result": result}),
                }
                self.expect(0, raised)
            case other:
                raise NotImplementedError(other)

    def _pause(self, number: int, retried: Any) -> None:
        """A retry's timer; the last attempt is followed by one that takes no time."""
        exhausted = retried.num_attempts >= retried.retry_options.max_number_of_attempts
        seconds = 0.0 if exhausted else retried.retry_options.first_retry_interval_in_milliseconds / 1000
        self._note({"EventType": 10, "EventId": number})
        self.expect(seconds, {"EventType": TIMER_FIRED, "TimerId": number})

    def _answer(self, number: int, completed: int, work: Any) -> None:
        try:
            event = {"EventType": completed, "Result": json.dumps(work())}
        except Exception as error:
            event = {"EventType": completed + 1, "Reason": str(error), "Details": "{}"}
        self.expect(0, {**event, "TaskScheduledId": number})


def run(
    app: Any, start: datetime, name: str, input_: Any, events: Iterable[tuple[float, str, Any]] = ()
) -> Any:
    """What an orchestration of the official package comes to."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Host(app, start).run(name, input_, events=events)


def _name(function: Any) -> str:
    trigger = function.get_trigger().get_dict_repr()
    given = trigger.get("orchestration") or trigger.get("activity") or trigger.get("entityName")
    return str(given or function.get_function_name())
