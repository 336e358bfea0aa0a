"""The SDK's own executor as the oracle: it is handed perdure's history in its own JSON, and its output is compared.

The SDK numbers what it is asked for in the order of the asks, and waits for events not at all. A retry takes two more
numbers, for its timer and for the attempt behind it, and after the last attempt the SDK waits for one timer more.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from typing import Any, Final, NamedTuple

import azure.durable_functions as df

from tests.hosted.drawing import RETRIED, program

ITS_OWN_FAULT = "does not have pending sub-task"
"""What the SDK fails with when a compound that is done is told of one more child."""
CONTINUE_AS_NEW: Final = 4
_ASKED = frozenset(
    {"TaskScheduled", "SubOrchestrationCreated", "TimerCreated", "EntityCalled", "EntitySignaled"}
)
_CAME = {
    "TaskCompleted": (5, "TaskScheduledId"),
    "TaskFailed": (6, "TaskScheduledId"),
    "SubOrchestrationCompleted": (8, "TaskScheduledId"),
    "SubOrchestrationFailed": (9, "TaskScheduledId"),
}


class Translation:
    """One history in the SDK's JSON."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.numbers: dict[int, int] = {}  # perdure's ids to the SDK's
        self.names: dict[int, str] = {}
        self.open_waits: Counter[str] = Counter()
        self.early: dict[str, list[Any]] = {}
        self.taken: set[str] = set()  # names of early events that a wait has taken since the last arrival
        self.is_unclear = False
        self.next = 0
        self.at = ""

    def of(self, history: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for event, following in zip(history, [*history[1:], {}], strict=True):
            if event["type"] not in _ASKED | {"EventAwaited"}:
                self.taken.clear()
            self.begin(event["timestamp"])
            kind = event["type"]
            if kind == "ExecutionStarted":
                self.put(0, Name="program", Input=json.dumps(event["input"]), Version="")
                for one in event.get("carried", ()):
                    self.raised(one["name"], one.get("input"))
            elif kind in _ASKED:
                self.asked(event)
            elif kind == "EventAwaited":
                self.awaited(event["name"])
            elif kind == "EventRaised":
                self.raised(event["name"], event.get("input"))
            elif kind == "TimerFired":
                self.put(11, TimerId=self.numbers[event["timer_id"]])
            elif kind.startswith("EntityOperation"):
                self.operated(event)
            elif kind in _CAME:
                self.came(event, following)
        return self.events

    def begin(self, at: str) -> None:
        if at != self.at:
            self.at = at
            self.put(12)

    def put(self, kind: int, **more: Any) -> None:
        at = self.at.replace("+00:00", "Z")
        self.events.append({"EventType": kind, "EventId": -1, "IsPlayed": False, "Timestamp": at, **more})

    def asked(self, event: dict[str, Any]) -> None:
        self.numbers[event["id"]] = self.next
        self.names[event["id"]] = event.get("name", "")
        self.next += 1

    def awaited(self, name: str) -> None:
        self.is_unclear |= name in self.taken
        if self.early.get(name):
            self.taken.add(name)
            self.put(15, Name=name, Input=json.dumps(self.early[name].pop(0)))
        else:
            self.open_waits[name] += 1

    def raised(self, name: str, data: Any) -> None:
        if self.open_waits[name]:
            self.open_waits[name] -= 1
            self.put(15, Name=name, Input=json.dumps(data))
        else:
            self.early.setdefault(name, []).append(data)

    def operated(self, event: dict[str, Any]) -> None:
        number, guid = self.numbers[event["task_id"]], f"operation-{event['task_id']}"
        failed = event["type"] == "EntityOperationFailed"
        result = event["failure"]["message"] if failed else event.get("result")
        answer = {"result": json.dumps(result), **({"exceptionType": "Error"} if failed else {})}
        self.put(14, Input=json.dumps({"id": guid}))
        self.events[-1]["EventId"] = number
        self.put(15, Name=guid, Input=json.dumps(answer))

    def came(self, event: dict[str, Any], following: dict[str, Any]) -> None:
        kind, key = _CAME[event["type"]]
        number = self.numbers[event["task_id"]]
        if not event["type"].endswith("Failed"):
            self.put(kind, **{key: number}, Result=json.dumps(event.get("result")))
            return
        failure, name = event["failure"], self.names[event["task_id"]]
        reason = (  # Azure's worker tells an activity's exception with its type, the SDK an orchestrator's without
            f"Activity function '{name}' failed: {failure['type']}: {failure['message']}"
            if kind == 6
            else f"Orchestrator function '{name}' failed: {failure['message']}"
        )
        self.put(kind, **{key: number}, Reason=reason, Details="")
        if name in RETRIED and following.get("purpose") != "retry":  # the timer behind the last attempt
            self.put(11, TimerId=self.next)
            self.next += 1


class Verdict(NamedTuple):
    """What becomes of a generation, or what the program raises.

    It `is_unclear` where two waits for one name are asked for at once, and the first takes an event that was there
    before: the SDK would hand it to both.
    """

    is_done: bool
    output: Any = None
    next_input: Any = None
    fault: str = ""
    is_unclear: bool = False


def verdict(history: list[dict[str, Any]], instance_id: str) -> Verdict:
    """What the SDK makes of the history of one generation."""
    translation = Translation()
    document = {
        "history": translation.of(history),
        "instanceId": instance_id,
        "isReplaying": False,
        "parentInstanceId": None,
        "input": json.dumps(history[0]["input"]),
        "upperSchemaVersion": 1,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context = df.DurableOrchestrationContext.from_json(json.dumps(document))
        if translation.is_unclear:
            return Verdict(False, is_unclear=True)
        try:
            state = json.loads(df.Orchestrator(program).handle(context))
        except Exception as error:
            return Verdict(True, fault=str(error).partition("\n\n$OutOfProcData$")[0])
    last = state["actions"][-1][-1:]
    if last and last[0]["actionType"] == CONTINUE_AS_NEW:
        return Verdict(bool(state["isDone"]), next_input=json.loads(last[0]["input"]))
    return Verdict(bool(state["isDone"]), state.get("output"))


__all__ = ["ITS_OWN_FAULT", "Verdict", "verdict"]
