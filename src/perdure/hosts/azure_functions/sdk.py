"""Everything that is borrowed of the inside of `azure-functions-durable` 1.x and `azure-functions`, named here alone.

The SDK's classes do what they do on Azure: they check arguments, resolve builders to names, find types, encode custom
classes, and pass a task's value up through its compounds. The rest of this package sees them under these names. What
differs between 1.3 and 1.7 is settled here. A name that another version lacks gets a stand-in and
is listed in `MISSING`; then orchestrators are driven by the JSON protocol, which needs none of these names.
"""

from __future__ import annotations

import json
import os
import sys
import typing
import warnings
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from json.encoder import encode_basestring_ascii
from operator import attrgetter
from typing import Any, Final, NamedTuple, TypeGuard

from perdure.errors import HostedAppError

PACKAGE: Final = "azure-functions-durable"


def version_of(name: str) -> str:
    """The version of an installed package, "" if that is not known."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


if version_of(PACKAGE).partition(".")[0] not in ("", "1"):
    raise HostedAppError(
        f"{PACKAGE} {version_of(PACKAGE)} is installed, and perdure serves apps for 1.x, whose protocol is another "
        f"one: run pip install '{PACKAGE}<2'"
    )


@contextmanager
def _elsewhere() -> Iterator[None]:
    """Away from the app's folder: the SDK reads the host.json of where it is imported, and without comments."""
    # For the app's folder too, which the process changes into. Some entries are the names of hooks, and no paths.
    sys.path[:] = [os.path.abspath(one) if not one or os.path.exists(one) else one for one in sys.path]
    with chdir(os.path.dirname(__file__)):
        yield


with _elsewhere(), warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the SDK looks into the folder that it is imported in
    import azure.functions as func
    from azure.durable_functions import (
        DurableOrchestrationClient,
        DurableOrchestrationContext,
        EntityId,
        Orchestrator,
        RetryOptions,
    )

FunctionRegister = func.FunctionRegister
_MODELS: Final = "azure.durable_functions.models"
MISSING: Final[list[str]] = []
"""The names of the SDK's inside that the installed version does not have."""


def _borrowed(module: str, name: str) -> Any:
    """A class of the SDK's inside, or a stand-in for one that is not there."""
    try:
        return getattr(import_module(f"{_MODELS}.{module}"), name)
    except (ImportError, AttributeError):
        MISSING.append(f"{module}.{name}")
        return type(name, (_StandIn,), {})


class _StandIn:
    """What stands for a class that is not there, so that the names exist."""

    RUNNING = SUCCEEDED = value = None

    def __init__(self, *_: Any) -> None:
        """Take any arguments: nothing is made of it."""


TaskBase = _borrowed("Task", "TaskBase")
CompoundTask = _borrowed("Task", "CompoundTask")
RetryAbleTask = _borrowed("Task", "RetryAbleTask")
_TimerTask: Any = _borrowed("Task", "TimerTask")
TaskState = _borrowed("Task", "TaskState")
FunctionContext = _borrowed("FunctionContext", "FunctionContext")
ReplaySchema = _borrowed("ReplaySchema", "ReplaySchema")
RUNNING: Final = TaskState.RUNNING
SUCCEEDED: Final = TaskState.SUCCEEDED


def _action(name: str) -> Any:
    return _borrowed(f"actions.{name}", name)


CallActivity = _action("CallActivityAction")
CallActivityWithRetry = _action("CallActivityWithRetryAction")
CallSubOrchestrator = _action("CallSubOrchestratorAction")
CallSubOrchestratorWithRetry = _action("CallSubOrchestratorWithRetryAction")
CallEntity = _action("CallEntityAction")
CallHttp = _action("CallHttpAction")
ContinueAsNew = _action("ContinueAsNewAction")
CreateTimer = _action("CreateTimerAction")
WaitForExternalEvent = _action("WaitForExternalEventAction")

try:
    from azure.functions._durable_functions import df_dumps, df_loads
except ImportError:  # before 1.26 and 2.2 of azure-functions
    from azure.functions import _durable_functions as _converters

    def df_dumps(value: Any) -> str:
        """A value as JSON text; custom classes by their `to_json`."""
        return json.dumps(value, default=_converters._serialize_custom_object)

    def df_loads(s: str, expected_type: type | None = None) -> Any:
        """The value of JSON text; custom classes by their `from_json`."""
        return json.loads(s, object_hook=_converters._deserialize_custom_object)


_PLAIN: Final = frozenset({float, list, dict})
"""Types whose JSON needs none of the SDK's hooks, unless something else is inside."""
_WRITE: Final[dict[type, Callable[[Any], str]]] = {
    int: int.__repr__,
    str: encode_basestring_ascii,
    bool: {True: "true", False: "false"}.__getitem__,
    type(None): lambda _: "null",
}
"""How JSON writes a value of exactly this type."""
_scan: Final[Callable[[str, int], tuple[Any, int]]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


def dumps(value: Any) -> str:
    """A value as the SDK writes it; without its hooks where they have nothing to do, in a tenth of the time."""
    kind = type(value)
    if kind in _WRITE:
        return _WRITE[kind](value)
    if kind in _PLAIN:
        try:
            return json.dumps(value)
        except TypeError:
            pass
    return str(df_dumps(value))


def plain(value: Any) -> str:
    """A value as JSON text, without hooks. Raises TypeError for what JSON cannot carry."""
    kind = type(value)
    return _WRITE[kind](value) if kind in _WRITE else json.dumps(value)


def loads(text: str, expected_type: type | None = None) -> Any:
    """A value as the SDK reads it: its hooks rebuild objects of custom classes, which name their class."""
    if "__class__" not in text and "\\u005f" not in text:
        value = _read(text)
        if expected_type is None or isinstance(value, expected_type):
            return value
    return df_loads(text, expected_type)


def _read(text: str) -> Any:
    try:
        value, end = _scan(text, 0)
    except StopIteration:  # white space in front, or no JSON
        return json.loads(text)
    return value if end == len(text) else json.loads(text)


def _quicken() -> None:
    """Let the SDK's actions write their inputs with `dumps`, whose texts are those of the SDK's own function."""
    for name, module in list(sys.modules.items()):
        if name.startswith(f"{_MODELS}.actions.") and hasattr(module, "df_dumps"):
            module.df_dumps = dumps  # type: ignore[attr-defined]


_quicken()
LATEST_SCHEMA: Final = max(ReplaySchema, key=lambda one: one.value) if not MISSING else None


class Timer(_TimerTask):  # type: ignore[misc]
    """A timer that tells what was asked for it when it is cancelled."""

    asked: Any = None

    def cancel(self) -> None:
        """Cancel it, as the SDK does; the engine lets go of the timer at once."""
        super().cancel()
        if self.asked is not None:
            self.asked.cancel()


class UserFunction(NamedTuple):
    """The user's own function behind what the decorators made of it, and what they noted.

    `is_handle`: it is known. A handle that hides it stands for itself, with `is_hidden`.
    """

    function: Any
    is_handle: bool
    is_hidden: bool = False
    input_type: type | None = None


def orchestrator_of(handle: Any) -> UserFunction:
    """The generator function that an orchestrator's handle holds; a raw function is itself."""
    found = getattr(handle, "orchestrator_function", None)
    is_hidden = found is None and is_handle(handle)
    return UserFunction(
        found or handle, found is not None, is_hidden, getattr(handle, "_df_input_type", None)
    )


def entity_of(handle: Any) -> UserFunction:
    """The function that an entity's handle holds; a raw function is itself."""
    found = getattr(handle, "entity_function", None)
    return UserFunction(found or handle, found is not None, found is None and is_handle(handle))


def client_function_of(function: Any) -> UserFunction:
    """The client function behind the decorator that makes its client."""
    found = getattr(function, "client_function", None)
    return UserFunction(found or function, found is not None)


def is_handle(function: Any) -> bool:
    """Whether this was made by `Orchestrator.create` or `Entity.create`, and hides what it was made from."""
    return getattr(function, "__module__", "") in (
        "azure.durable_functions.orchestrator",
        "azure.durable_functions.entity",
    )


def action_of(task: Any) -> Any:
    """What an atomic task, or a call with retries, asks for."""
    action = task.actions if isinstance(task, RetryAbleTask) else task.action_repr
    return action[0] if isinstance(action, list) else action


_NO_ACTIONS: Final[list[Any]] = []
is_scheduled: Final = attrgetter("_is_scheduled_flag")
"""Whether an atomic task has been asked for."""


def mark_scheduled(task: Any, task_id: int) -> None:
    """Note that it has been asked for: compounds that are made of it later do not ask again."""
    task._set_is_scheduled(True)
    if task.id is None:
        task.id = task_id


def forget_actions(compound: Any) -> None:
    """Drop what a compound would ask for, when all of it has been asked for: a sleeping instance is smaller."""
    compound.action_repr = _NO_ACTIONS


def expected_type_of(task: Any) -> type | None:
    """The type that a task's result is decoded as, where the SDK has found one."""
    return getattr(task, "_expected_output_type", None)


def settle(task: Any, value: Any, *, failed: bool) -> None:
    """Set a task's value, which the SDK passes up.

    A compound that is done is told of no more children: the SDK counts them, and fails in its own code at one too
    many, or lets a `task_all` succeed that has failed.
    """
    node = task
    while node.parent is not None:
        if node.parent.state is not RUNNING:
            node.parent = None
            break
        node = node.parent
    if isinstance(task, RetryAbleTask):
        task.pending_tasks.clear()
    task.set_value(is_error=failed, value=value)


def is_one_child_too_many(error: Exception) -> bool:
    """Whether the SDK's own code has failed, because a compound that is done was told of one more child."""
    return error.__cause__ is None and "does not have pending sub-task" in str(error)


def is_of_no_task(error: Exception) -> TypeGuard[AttributeError]:
    """Whether the SDK's own code has failed, because a program has yielded something else than a task."""
    return isinstance(error, AttributeError) and error.name in ("_is_scheduled", "is_played")


def retry_of(options: Any) -> dict[str, Any]:
    """The options of a retry in the words of Azure's protocol, those of subclasses too."""
    found: dict[str, Any] = options.to_json()
    return found


def http_request_of(action: Any) -> dict[str, Any]:
    """A durable HTTP request as data: method, uri, content, headers, and the resource of its token."""
    request = action.http_request
    source = request.token_source
    return {
        "method": request.method,
        "uri": request.uri,
        "content": request.content,
        "headers": request.headers,
        "resource": getattr(source, "resource", None) if source is not None else None,
    }


def sub_input_of(action: Any) -> str:
    """The input of a call of a sub-orchestration, as JSON text."""
    text: str = action._input
    return text


class Context(DurableOrchestrationContext):  # type: ignore[misc]
    """The SDK's context without its history: what it knows, a subclass tells; what it does is the SDK's own code.

    The attributes that the SDK's methods read stand here once, for all instances.
    """

    _replay_schema = LATEST_SCHEMA
    _maximum_short_timer_duration = None
    _long_timer_interval_duration = None
    _continue_as_new_flag = False
    _sequence_number = 0
    _function_context = FunctionContext()

    def _generate_task(
        self,
        action: Any,
        retry_options: Any = None,
        id_: Any = None,
        parent: Any = None,
        task_constructor: Any = None,
    ) -> Any:
        """Make a task; a timer is one that tells when it is cancelled."""
        if isinstance(action, CreateTimer):
            return Timer(id_, action)
        return super()._generate_task(action, retry_options, id_, parent)


def timer_request(*, past_due: bool, schedule_status: dict[str, str]) -> Any:
    """What a function is told of the timer that called it."""
    return import_module("azure.functions.timer").TimerRequest(
        past_due=past_due, schedule_status=schedule_status, schedule={"AdjustForDST": True}
    )


def _queue_message(message_id: str, text: str, deliveries: int) -> Any:
    made = import_module("azure.functions.queue").QueueMessage
    return made(id=message_id, body=text, dequeue_count=deliveries)


_FORMS: Final[dict[Any, Callable[[str, str, int], Any]]] = {
    str: lambda _, text, __: text,
    bytes: lambda _, text, __: text.encode(),
    dict: lambda _, text, __: json.loads(text),
    list: lambda _, text, __: json.loads(text),
}


def hints_of(function: Any) -> dict[str, Any]:
    """The types of a function's parameters; none where an annotation cannot be resolved."""
    try:
        return typing.get_type_hints(function)
    except Exception:  # annotations that name nothing are the app's own business
        return {}


def message_maker(function: Any, parameter: str) -> Callable[[str, str, int], Any]:
    """What makes a message in the form that a function's parameter asks for: id, text, deliveries."""
    annotation = hints_of(function).get(parameter)
    return _FORMS.get(typing.get_origin(annotation) or annotation, _queue_message)


def messages_of(value: Any) -> list[str]:
    """The messages that a function has set on a queue. Raises TypeError for what is none."""
    match value:
        case None:
            return []
        case str():
            return [value]
        case bytes() | bytearray():
            return [bytes(value).decode()]
        case func.QueueMessage():
            return [value.get_body().decode()]
        case list() | tuple():
            return [text for one in value for text in messages_of(one)]
        case dict():
            return [json.dumps(value)]
    raise TypeError(
        f"a queue takes text, bytes, func.QueueMessage or a list of these, not {type(value).__name__}"
    )


def client_of(text: str, invocation_id: str) -> Any:
    """The SDK's client for a binding's text."""
    try:
        return DurableOrchestrationClient(text, invocation_id)
    except TypeError:  # before 1.5 it knows of no invocation
        return DurableOrchestrationClient(text)


def activity_input(text: str) -> Any:
    """What an activity is handed for its input, as Azure's converter does. Raises ValueError."""
    try:
        return loads(text)
    except Exception as error:
        raise ValueError(f"the input of the activity cannot be read ({text[:200]}): {error}") from error


def activity_output(value: Any) -> str:
    """The JSON text of what an activity returns. Raises ValueError for what JSON cannot carry."""
    try:
        return dumps(value)
    except TypeError as error:
        raise ValueError(f"what the activity returns has no JSON form ({value!r}): {error}") from error


def operated(handle: Any, document: dict[str, Any]) -> dict[str, Any]:
    """One operation of an entity, through its handle's JSON."""
    found: dict[str, Any] = json.loads(handle(json.dumps(document)))
    return found


def client_module() -> Any:
    """The module whose three functions send the client's requests. Raises HostedAppError if they are elsewhere."""
    module = sys.modules.get(f"{_MODELS}.DurableOrchestrationClient")
    names = ("get_async_request", "post_async_request", "delete_async_request")
    lacking = [name for name in names if not hasattr(module, name)]
    if lacking:
        raise HostedAppError(
            f"the client of {packages()} has no {', '.join(lacking)}, by which perdure answers its requests: "
            f"install a version of {PACKAGE} that perdure knows, 1.3 to 1.7"
        )
    return module


def packages() -> str:
    """Which versions of Azure's packages are installed, for people."""
    return ", ".join(
        f"{name} {version_of(name) or 'of no known version'}" for name in (PACKAGE, "azure-functions")
    )


__all__ = [
    "MISSING",
    "PACKAGE",
    "RUNNING",
    "SUCCEEDED",
    "CallActivity",
    "CallActivityWithRetry",
    "CallEntity",
    "CallHttp",
    "CallSubOrchestrator",
    "CallSubOrchestratorWithRetry",
    "CompoundTask",
    "Context",
    "ContinueAsNew",
    "CreateTimer",
    "DurableOrchestrationClient",
    "EntityId",
    "Orchestrator",
    "RetryOptions",
    "RetryAbleTask",
    "TaskBase",
    "Timer",
    "FunctionRegister",
    "UserFunction",
    "WaitForExternalEvent",
    "action_of",
    "activity_input",
    "activity_output",
    "client_function_of",
    "client_module",
    "client_of",
    "dumps",
    "entity_of",
    "expected_type_of",
    "forget_actions",
    "func",
    "hints_of",
    "http_request_of",
    "is_handle",
    "is_of_no_task",
    "is_one_child_too_many",
    "is_scheduled",
    "loads",
    "mark_scheduled",
    "message_maker",
    "messages_of",
    "operated",
    "orchestrator_of",
    "packages",
    "plain",
    "retry_of",
    "settle",
    "sub_input_of",
    "timer_request",
    "version_of",
]
