"""Whether the installed SDK is as `sdk` expects it: a small orchestration through everything that is borrowed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from datetime import timedelta
from typing import Any, Final

from msgspec import Raw

from perdure.failure import Failure
from perdure.hosts.azure_functions import sdk
from perdure.hosts.azure_functions.asking import Names
from perdure.hosts.azure_functions.bridge import bridged
from perdure.model import actions as act
from perdure.model import events as ev
from perdure.replay.decide import Code, Execution
from perdure.replay.environment import CallTarget, Identity

NOW: Final = 1_700_000_000_000_000
EXPECTED: Final = b'[["a",["b"]],true,"e",["Exception",2],3]'


class _Anything:
    """Surroundings in which there is every function."""

    def activity(self, function: Any) -> CallTarget:
        return CallTarget(str(function))

    orchestrator = activity

    def entity(self, name: str) -> None:
        return None

    def operation(self, entity: str, operation: str) -> None:
        return None

    def is_renamed(self, action: act.Action, recorded: Any) -> bool:
        return False

    def pause(self, instance_id: str) -> bool:
        return False

    def logger(self, instance_id: str, is_live: Callable[[], bool]) -> Any:
        return logging.getLogger("perdure.orchestrator")


def _program(context: Any) -> Generator[Any, Any, Any]:
    never = context.call_activity("never", 1)
    kept = context.call_activity("a", {"x": 1})
    pair = yield context.task_all([kept, context.task_all([context.call_activity("b")])])
    yield context.task_any([kept])  # it is done, and not asked for again
    timer = context.create_timer(context.current_utc_datetime + timedelta(days=90))
    event = context.wait_for_external_event("E")
    winner = yield context.task_any([timer, event])
    timer.cancel()
    try:
        yield context.call_activity_with_retry("r", sdk.RetryOptions(1_000, 2))
    except Exception as error:
        raised = [type(error).__name__, sdk.retry_of(sdk.RetryOptions(1_000, 2))["maxNumberOfAttempts"]]
    entity = yield context.call_entity(sdk.EntityId("C", "k"), "add", 3)
    assert never.state is sdk.RUNNING
    return [pair, winner is event, winner.result, raised, entity]


_ARRIVALS: Final[tuple[ev.Arrival, ...]] = (
    ev.ExecutionStarted("check"),
    ev.TaskCompleted(1, Raw(b'"b"')),
    ev.TaskCompleted(0, Raw(b'"a"')),
    ev.EventRaised("e", Raw(b'"e"')),
    ev.TaskFailed(4, Failure("ValueError", "no")),
    ev.TimerFired(5),
    ev.TaskFailed(6, Failure("ValueError", "no")),
    ev.EntityOperationCompleted(7, Raw(b"3")),
)


def finding() -> str:
    """Why the SDK is not as expected; "" when it is."""
    if sdk.MISSING:
        return f"it has no {', '.join(sdk.MISSING)}"
    handle = sdk.Orchestrator.create(_program)
    if sdk.orchestrator_of(handle).is_hidden:
        return "its handles hide the generator function"
    execution = Execution(
        Code("check", bridged(handle, Names())),
        Identity("check", "x"),
        _Anything(),
    )
    execution.begin_episode(NOW)
    asked: list[act.Action] = []
    try:
        for arrival in _ARRIVALS:
            asked += execution.arrive(arrival)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    last = asked[-1] if asked else None
    if isinstance(last, act.CompleteOrchestration) and bytes(last.output) == EXPECTED:
        return ""
    if isinstance(last, act.FailOrchestration):
        return f"{last.failure}"[:300]
    return f"it came out as {last!r}"[:300]


__all__ = ["finding"]
