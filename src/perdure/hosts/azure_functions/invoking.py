"""Calling a user's function with what its bindings hand it, and taking what it gives back.

A function is called by name with one argument for each binding, as Azure's worker does, and with its `func.Context`
where it has a parameter `context`. An `async def` function runs on the event loop, a `def` one on a thread.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from starlette.concurrency import run_in_threadpool

from perdure.engine.client.client import Client
from perdure.engine.functions.callables import is_async, presented, signature_of
from perdure.errors import HostedAppError
from perdure.hosts.azure_functions import sdk
from perdure.hosts.azure_functions.indexing import HOSTED

if TYPE_CHECKING:
    from pathlib import Path

    from perdure.hosts.azure_functions.folder import Folder
    from perdure.hosts.azure_functions.in_process import HubDoor
    from perdure.hosts.azure_functions.indexing import AppFunction, Binding

CLIENTS: Final = frozenset({"durableclient", "orchestrationclient"})
CONTEXT: Final = "context"
RETURN: Final = "$return"


class Retried:
    """The retry that an invocation is."""

    max_retry_count = 0
    exception = None

    def __init__(self, attempt: int) -> None:
        self.retry_count = attempt - 1


class Trace:
    """The trace that an invocation belongs to: none is known."""

    trace_state = trace_parent = Traceparent = Tracestate = ""
    attributes: Final[dict[str, str]] = {}


class InvocationContext(sdk.func.Context):
    """What a function learns of its own call: `func.Context`."""

    _local = threading.local()

    def __init__(self, name: str, folder: Path, invocation_id: str, attempt: int = 1) -> None:
        self._name, self._folder, self._id = name, folder, invocation_id
        self._retried = Retried(attempt)

    @property
    def invocation_id(self) -> str:
        return self._id

    @property
    def thread_local_storage(self) -> Any:
        return self._local

    @property
    def function_name(self) -> str:
        return self._name

    @property
    def function_directory(self) -> str:
        return str(self._folder)

    @property
    def trace_context(self) -> Any:
        return Trace()

    @property
    def retry_context(self) -> Any:
        return self._retried


class Output(sdk.func.Out[Any]):
    """What a function sets on an output binding."""

    def __init__(self) -> None:
        self._value: Any = None

    def set(self, val: Any) -> None:
        self._value = val

    def get(self) -> Any:
        return self._value


@dataclass(frozen=True)
class Callee:
    """A user's function, and how its parameters are filled.

    Parameters:
        described: the function as the app has it.
        function: the user's own function.
        is_rich: it takes the SDK's client, and not the client's binding as text.
        folder: the app's.
        timeout: microseconds that a call may take; 0 for no limit. Of activities the engine sees to it.
        storage: where messages go whose connection is the emulator or none: "hub", or "storage" for the emulator.
    """

    described: AppFunction
    function: Callable[..., Any]
    is_rich: bool
    folder: Folder
    storage: str = "hub"
    timeout: int = 0
    parameters: frozenset[str] = field(default_factory=frozenset)

    @staticmethod
    def of(described: AppFunction, folder: Folder, storage: str = "hub", timeout: int = 0) -> Callee:
        function, is_rich = described.function, False
        while (behind := sdk.client_function_of(function)).is_handle:
            function, is_rich = behind.function, True
        return Callee(
            described, function, is_rich, folder, storage, timeout, frozenset(signature_of(function))
        )

    @cached_property
    def is_async(self) -> bool:
        return is_async(self.function)

    def takes(self, kind: type, parameter: str = "") -> bool:
        """Whether a parameter, by default the trigger's, is annotated with a class of perdure's own."""
        return self._hints.get(parameter or self.described.trigger.name) is kind

    @cached_property
    def _hints(self) -> Mapping[str, Any]:
        return sdk.hints_of(self.function)

    @cached_property
    def wants_hub(self) -> bool:
        """Whether it speaks to the hub: by a client, or by what it sets on its outputs."""
        return bool(self.outputs) or any(one.kind in CLIENTS for one in self.described.others)

    @cached_property
    def outputs(self) -> tuple[Binding, ...]:
        return tuple(one for one in self.described.others if one.is_output)

    def arguments(
        self,
        given: Any,
        invocation_id: str,
        *,
        door: HubDoor | None = None,
        client: Client | None = None,
        attempt: int = 1,
    ) -> tuple[dict[str, Any], dict[str, Output]]:
        """What to call it with, and the outputs that it may set. `given` is what the trigger hands it."""
        if self.takes_trigger_alone:  # most activities
            return {self.described.trigger.name: given}, {}
        self._refuse_inputs()
        outputs = {one.name: Output() for one in self.outputs if one.name != RETURN}
        filled: dict[str, Any] = {self.described.trigger.name: given, **outputs}
        if door is not None and client is not None:
            for one in self.described.others:
                if one.kind in CLIENTS:
                    filled[one.name] = self._client_for(one, door, client, invocation_id)
        filled.setdefault(
            CONTEXT, InvocationContext(self.described.name, self.folder.path, invocation_id, attempt)
        )
        return {name: value for name, value in filled.items() if name in self.parameters}, outputs

    def _refuse_inputs(self) -> None:
        """Raise HostedAppError for a call that needs inputs which are not hosted."""
        for one in self.described.others:
            if one.kind not in HOSTED and not one.is_output and one.name in self.parameters:
                raise HostedAppError(
                    f"{self.described.name} needs its input {one.name!r}, and {one.properties.get('type')} is not "
                    f"hosted here: call the service in the code of the function ({self.described.place})"
                )

    def _client_for(self, binding: Binding, door: HubDoor, client: Client, invocation_id: str) -> Any:
        text = door.text_for(client)
        if self.is_rich:
            return sdk.client_of(text, invocation_id)
        return Client(text) if self.takes(Client, binding.name) else text

    @cached_property
    def takes_trigger_alone(self) -> bool:
        """Whether its trigger fills its one parameter."""
        return self.parameters == {self.described.trigger.name}

    async def call(self, arguments: Mapping[str, Any]) -> Any:
        """Call it, from the event loop. Raises TimeoutError after the app's `functionTimeout`."""
        async with asyncio.timeout(self.timeout / 1e6 if self.timeout else None):
            if self.is_async:
                return await self.function(**arguments)
            result = await run_in_threadpool(lambda: self.function(**arguments))
            return await result if inspect.isawaitable(result) else result


def typed(run: Any, callee: Callee, annotations: Mapping[str, Any]) -> Callable[..., Any]:
    """A wrapper around a user's function, annotated for perdure, and named as the function for people."""
    return presented(run, callee.function, annotations, callee.described.name)


def unfilled(callee: Callee) -> list[str]:
    """Parameters that no binding fills, and bindings that no parameter takes: Azure's worker refuses both."""
    bound = {one.name for one in callee.described.bindings if one.name != RETURN}
    parameters = signature_of(callee.function)
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        return []
    needed = {name for name, one in parameters.items() if one.default is one.empty} - {CONTEXT}
    return [
        *(f"its parameter {name!r} has no binding" for name in sorted(needed - bound)),
        *(f"its binding {name!r} has no parameter" for name in sorted(bound - set(parameters))),
    ]


__all__ = ["CLIENTS", "RETURN", "Callee", "InvocationContext", "Output", "typed", "unfilled"]
