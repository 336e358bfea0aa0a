"""What each of the SDK's actions asks of perdure's context, and how the answer comes back: one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from msgspec import Raw

from perdure.errors import ForeignAwaitError, OrchestratorError, PerdureError
from perdure.hosts.azure_functions import sdk
from perdure.model import payload
from perdure.model.http_calls import HttpResponse, ManagedIdentityTokenSource
from perdure.model.retry import RetryOptions

if TYPE_CHECKING:
    from perdure.failure import Failure
    from perdure.replay.context import OrchestrationContext
    from perdure.replay.task import Task


@dataclass(frozen=True)
class Names:
    """The app's functions by folded name: Azure's host finds them without regard to case."""

    activities: Mapping[str, str] = field(default_factory=dict)
    orchestrators: Mapping[str, str] = field(default_factory=dict)

    def activity(self, asked: str) -> str:
        return self.activities.get(asked.casefold(), asked)

    def orchestrator(self, asked: str) -> str:
        return self.orchestrators.get(asked.casefold(), asked)


@dataclass(frozen=True)
class Ask:
    """One kind of action.

    Parameters:
        begin: asks perdure's context for it.
        value: what the program gets of the result; given the SDK's task too, which may know a type.
        told: what the program's exception says of a failure.
    """

    begin: Callable[[OrchestrationContext, Any, Names], Task[Any]]
    value: Callable[[Any, Any], Any]
    told: Callable[[Any, Exception], str]


def body_of(text: str) -> Raw:
    """JSON text of the SDK's as a body. Raises PayloadError for what strict JSON does not allow, such as NaN."""
    return payload.check(text.encode())


def _decoded(task: Any, result: Raw | None) -> Any:
    return None if result is None else sdk.loads(bytes(result).decode(), sdk.expected_type_of(task))


def _nothing(task: Any, result: Any) -> None:
    return None


def response(task: Any, result: HttpResponse) -> dict[str, Any]:
    """A response as the SDK's programs get it."""
    return {"statusCode": result.status_code, "headers": dict(result.headers), "content": result.content}


def _activity(context: OrchestrationContext, action: Any, names: Names) -> Task[Any]:
    name, policy = names.activity(action.function_name), _policy_of(action)
    return context.call_activity(name, body_of(action.input_), Raw, retry=policy)


def _sub_orchestrator(context: OrchestrationContext, action: Any, names: Names) -> Task[Any]:
    return context.call_sub_orchestrator(
        names.orchestrator(action.function_name),
        body_of(sdk.sub_input_of(action)),
        action.instance_id,
        getattr(action, "version", None),
        Raw,
        retry=_policy_of(action),
    )


def _entity(context: OrchestrationContext, action: Any, names: Names) -> Task[Any]:
    return context.call_entity(action.instance_id, action.operation, body_of(action.input_), Raw)


def _timer(context: OrchestrationContext, action: Any, names: Names) -> Task[Any]:
    return context.create_timer(_aware(action.fire_at))


def _event(context: OrchestrationContext, action: Any, names: Names) -> Task[Any]:
    return context.wait_for_external_event(action.external_event_name, Raw)


def _http(context: OrchestrationContext, action: Any, names: Names) -> Task[Any]:
    asked = sdk.http_request_of(action)
    headers, resource, content = asked["headers"], asked["resource"], asked["content"]
    return context.call_http(
        asked["method"],
        asked["uri"],
        content,
        _with_content_type(headers) if content is not None else headers,
        ManagedIdentityTokenSource(resource) if resource is not None else None,
        is_raw_str=content is not None,  # the SDK has encoded it
    )


def _with_content_type(headers: Mapping[str, str] | None) -> dict[str, str]:
    given = dict(headers or {})
    if not any(name.lower() == "content-type" for name in given):
        given["Content-Type"] = "application/json"
    return given


def _aware(at: datetime) -> datetime:
    """Azure takes a naive time for one in UTC."""
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _policy_of(action: Any) -> RetryOptions | None:
    options = getattr(action, "retry_options", None)
    if options is None:
        return None
    told = sdk.retry_of(options)
    return RetryOptions(
        told["firstRetryIntervalInMilliseconds"],
        max(told["maxNumberOfAttempts"], 1),
        backoff_coefficient=told.get("backoffCoefficient") or 1.0,
        max_retry_interval_in_milliseconds=told.get("maxRetryIntervalInMilliseconds"),
        retry_timeout_in_milliseconds=told.get("retryTimeoutInMilliseconds"),
    )


STACK: Final = " \n "
"""What separates the reason of a failure from its details, on Azure too."""
_OF_CALLS: Final = ("Activity function '", "Orchestrator function '")


def _of_activity(action: Any, error: Exception) -> str:
    failure = getattr(error, "failure", None)
    what = f"{failure}{STACK}{failure.stack}" if failure is not None else str(error)
    return f"Activity function '{action.function_name}' failed: {what}"


def _of_orchestrator(action: Any, error: Exception) -> str:
    failure = getattr(error, "failure", None)
    if failure is None:
        return f"Orchestrator function '{action.function_name}' failed: {error}"
    return f"{output_of_failure(action.function_name, failure)}{STACK}{failure.stack}"


def output_of_failure(name: str, failure: Failure) -> str:
    """The output of a failed instance in Azure's words: the text of its exception, without the type.

    A failed call that the orchestrator did not catch is told by its reason. Its stack is in the failure alone.
    """
    text = failure.message or failure.type
    if text.startswith(_OF_CALLS):
        text = text.partition(STACK)[0]
    return f"Orchestrator function '{name}' failed: {text}"


def _of_operation(action: Any, error: Exception) -> str:
    failure = getattr(error, "failure", None)
    return str(error) if failure is None else str(failure.message)


def _as_it_is(action: Any, error: Exception) -> str:
    return str(error)


ACTIVITY: Final = Ask(_activity, _decoded, _of_activity)
SUB_ORCHESTRATOR: Final = Ask(_sub_orchestrator, _decoded, _of_orchestrator)
ENTITY: Final = Ask(_entity, _decoded, _of_operation)
HTTP: Final = Ask(_http, response, _as_it_is)
TIMER: Final = Ask(_timer, _nothing, _as_it_is)
EVENT: Final = Ask(_event, _decoded, _as_it_is)

ASKS: Final[Mapping[type, Ask]] = {
    sdk.CallActivity: ACTIVITY,
    sdk.CallActivityWithRetry: ACTIVITY,
    sdk.CallSubOrchestrator: SUB_ORCHESTRATOR,
    sdk.CallSubOrchestratorWithRetry: SUB_ORCHESTRATOR,
    sdk.CallEntity: ENTITY,
    sdk.CallHttp: HTTP,
    sdk.CreateTimer: TIMER,
    sdk.WaitForExternalEvent: EVENT,
}


def ask_of(action: Any) -> Ask:
    """The row of an action. Raises OrchestratorError for one that cannot be waited for."""
    found = ASKS.get(type(action))
    if found is None:
        raise OrchestratorError(
            f"the orchestrator waits for a {type(action).__name__}, which has no result: a signal is sent when "
            "signal_entity is called, and needs no yield"
        )
    return found


def refusal_of(yielded: Any) -> Exception | None:
    """What an orchestrator is told that yields something else than a task."""
    if isinstance(yielded, sdk.TaskBase):
        return None
    advice = (
        "wait for several tasks with context.task_all([...])"
        if isinstance(yielded, list | tuple)
        else "yield what a method of the context returns"
    )
    return ForeignAwaitError(f"the orchestrator yields a {type(yielded).__name__}, and only tasks: {advice}")


def failure_for(action: Any, told: Ask, done: Task[Any]) -> Exception:
    """The exception that the SDK's executor would hand the program for a failed task."""
    try:
        done.result  # noqa: B018 (it raises)
    except PerdureError as error:
        raised = Exception(told.told(action, error))
        raised.__cause__ = error
        return raised
    except Exception as error:
        return error
    raise AssertionError("the task has not failed")


__all__ = [
    "ACTIVITY",
    "ASKS",
    "ENTITY",
    "EVENT",
    "HTTP",
    "SUB_ORCHESTRATOR",
    "TIMER",
    "Ask",
    "Names",
    "ask_of",
    "body_of",
    "failure_for",
    "output_of_failure",
    "refusal_of",
    "response",
]
