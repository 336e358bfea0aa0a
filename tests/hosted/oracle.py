"""The SDK's own executor as the oracle: it is handed perdure's history in its own JSON, and its output is compared.

The SDK numbers what it is asked for in the order of the asks, and waits for events not at all. A retry takes two more
numbers, for its timer and for the attempt behind it, and after the last attempt the SDK waits for one timer more.
"""

from __future__ import annotations

import json
import warnings
from typing import Any

import azure.durable_functions as df

from tests.hosted.drawing import RETRIED, program

ITS_OWN_FAULT = "does not have pending sub-task"
"""What the SDK fails with when a compound that is done is told of one more child."""
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
        self.open_waits: set[str] = set()
        self.early: dict[str, Any] = {}
        self.next = 0
        self.at = ""

    def of(self, history: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
        for event, following in zip(history, [*history[1:], {}], strict=True):
            self.begin(event["timestamp"])
            kind = event["type"]
            if kind == "ExecutionStarted":
                self.put(0, Name="program", Input=json.dumps(seed), Version="")
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
        if name in self.early:
            self.put(15, Name=name, Input=json.dumps(self.early.pop(name)))
        else:
            self.open_waits.add(name)

    def raised(self, name: str, data: Any) -> None:
        if name in self.open_waits:
            self.open_waits.remove(name)
            self.put(15, Name=name, Input=json.dumps(data))
        else:
            self.early[name] = data

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


def verdict(history: list[dict[str, Any]], seed: int, instance_id: str) -> tuple[bool, Any, str]:
    """What the SDK makes of a history: whether it is done, its output, and its own fault."""
    document = {
        "history": Translation().of(history, seed),
        "instanceId": instance_id,
        "isReplaying": False,
        "parentInstanceId": None,
        "input": json.dumps(seed),
        "upperSchemaVersion": 1,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context = df.DurableOrchestrationContext.from_json(json.dumps(document))
        try:
            state = json.loads(df.Orchestrator(program).handle(context))
        except Exception as error:
            return False, None, str(error).partition("\n\n$OutOfProcData$")[0]
    return bool(state["isDone"]), state.get("output"), ""


__all__ = ["ITS_OWN_FAULT", "verdict"]
