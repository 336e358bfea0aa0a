"""The buttons of the instance page: their actions, texts, and the statuses in which they are shown."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from perdure.engine.client.client import Client
from perdure.errors import InstanceNotFound
from perdure.http.table import Scope
from perdure.model.instances import FINISHED, RuntimeStatus

Form = Mapping[str, str]
Doing = Callable[[Client, str, Form, str], Awaitable[str]]
_OPEN = frozenset(RuntimeStatus) - FINISHED


@dataclass(frozen=True)
class Verb:
    """A button. `do` takes client, instance id, form and operation id, and returns the instance to show next."""

    name: str
    explained: str
    done: str
    do: Doing
    shown_in: frozenset[RuntimeStatus]
    scope: Scope = "operate"
    takes_reason: bool = False
    danger: bool = False

    @property
    def title(self) -> str:
        return self.name.capitalize()


def _with_reason(method_of: Callable[[Client], Callable[..., Awaitable[object]]]) -> Doing:
    """The action of a button whose form has only a reason."""

    async def act(client: Client, instance_id: str, form: Form, operation: str) -> str:
        await method_of(client)(instance_id, form.get("reason", ""), operation_id=operation)
        return instance_id

    return act


async def _restart(client: Client, instance_id: str, form: Form, operation: str) -> str:
    return await client.restart(instance_id, "same_id" not in form, operation_id=operation)


async def _purge(client: Client, instance_id: str, form: Form, operation: str) -> str:
    if not await client.purge_instance_history(
        instance_id, recursive="recursive" in form, operation_id=operation
    ):
        raise InstanceNotFound(f"there is no instance {instance_id!r} to purge")
    return ""


_ALL = (
    Verb(
        "suspend",
        "The instance stops until it is resumed. Messages that arrive meanwhile are stored.",
        "Suspended.",
        _with_reason(lambda client: client.suspend),
        _OPEN - {RuntimeStatus.Suspended},
        takes_reason=True,
    ),
    Verb(
        "resume",
        "The instance continues, with the stored messages in order.",
        "Resumed.",
        _with_reason(lambda client: client.resume),
        frozenset({RuntimeStatus.Suspended}),
        takes_reason=True,
    ),
    Verb(
        "rewind",
        "The instance continues where it failed. Failed calls run again, completed calls do not.",
        "Rewound.",
        _with_reason(lambda client: client.rewind),
        frozenset({RuntimeStatus.Failed}),
        takes_reason=True,
    ),
    Verb(
        "restart",
        "A new run with the same orchestrator and input.",
        "Restarted. This is the new run.",
        _restart,
        FINISHED,
    ),
    Verb(
        "terminate",
        "The instance ends immediately and permanently. Running activities continue, but their results are dropped.",
        "Terminated.",
        _with_reason(lambda client: client.terminate),
        _OPEN,
        takes_reason=True,
        danger=True,
    ),
    Verb(
        "purge",
        "Deletes the instance and its history. This cannot be undone.",
        "Purged.",
        _purge,
        FINISHED,
        scope="admin",
        danger=True,
    ),
)
VERBS = {verb.name: verb for verb in _ALL}
DONE = {"event": "The event was accepted.", **{verb.name: verb.done for verb in _ALL}}
"""The page's message after a form was accepted, by the parameter `done` in the URL."""
