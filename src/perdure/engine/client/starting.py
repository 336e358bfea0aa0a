"""`client.start_new`, with overloads that check the input of an orchestrator passed by reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, TypeVar, Unpack, overload

from msgspec import Raw

from perdure.engine.client.occasions import occasion
from perdure.engine.core.repeats import Met, born_of, bound_by_key, is_carried
from perdure.engine.functions.registry import (
    Orchestrator,
    preferred,
    registered,
    version_among,
)
from perdure.errors import InstanceExists, InstanceFinished, InstanceNotFound, PayloadError
from perdure.model import payload
from perdure.model.durations import instant
from perdure.model.instances import check_instance_id
from perdure.model.messages import OnExisting, Start, Terminate
from perdure.replay.activity_calls import Same
from perdure.replay.context import OrchestrationContext
from perdure.replay.inputs import NO_INPUT, input_body

if TYPE_CHECKING:
    from perdure.engine.client.gateway import Gateway

PLACES_TAKEN = 8
"""How often a start that replaces a running instance tries again when another start has taken the id."""
REPLACED = "a new start has the same id, and the app's overridableExistingInstanceStates is AnyState"

I = TypeVar("I")  # noqa: E741 - an input


I_contra = TypeVar("I_contra", contravariant=True)


class Orchestrates(Protocol[I_contra]):
    """An orchestrator with an input."""

    def __call__(
        self, context: OrchestrationContext, input_: I_contra, /, *args: Any, **kwargs: Any
    ) -> Any: ...


class StartOptions(TypedDict, total=False):
    """The optional arguments of a start."""

    version: str | None
    start_at: datetime | None
    tags: Mapping[str, str] | None
    on_existing: OnExisting
    operation_id: str | None


class Starting:
    """The part of `Client` that starts orchestrations."""

    gateway: Gateway

    @overload
    async def start_new(
        self,
        orchestration_function_name: Orchestrates[I],
        instance_id: str | None,
        client_input: I | Same[I],
        **options: Unpack[StartOptions],
    ) -> str: ...
    @overload
    async def start_new(
        self,
        orchestration_function_name: Orchestrates[I],
        instance_id: str | None = None,
        *,
        client_input: I | Same[I],
        **options: Unpack[StartOptions],
    ) -> str: ...
    @overload
    async def start_new(
        self,
        orchestration_function_name: str | Callable[[OrchestrationContext], Any],
        instance_id: str | None = None,
        client_input: Any = None,
        **options: Unpack[StartOptions],
    ) -> str: ...
    async def start_new(
        self,
        orchestration_function_name: str | Callable[..., Any],
        instance_id: str | None = None,
        client_input: Any = NO_INPUT,
        *,
        version: str | None = None,
        start_at: datetime | None = None,
        tags: Mapping[str, str] | None = None,
        on_existing: OnExisting = "replace_finished",
        operation_id: str | None = None,
    ) -> str:
        """Start an orchestration and return its instance id once the start is durable.

        Parameters:
            orchestration_function_name: the function itself, or its registered name.
            instance_id: 1 to 256 characters by Azure's rules; None generates one.
            client_input: anything strict JSON can carry, typed or not. Without it the default of the
                orchestrator's parameter is used, if it has one.
            version: the version to run; default is that of the passed function if it is registered in one
                version, else the hub's default version, else the newest registered version.
            start_at: an aware datetime in the future delays the first step; the instance is Pending until then.
            tags: strings to find the instance by.
            on_existing: for an id that exists. `replace_finished` replaces a finished instance and raises
                otherwise, `return_existing` starts nothing and returns the id, `reject` always raises.
            operation_id: an id that makes a repeat safe: a repeat within 24 hours returns the first answer and
                starts nothing. In a route, default is the Idempotency-Key of its request.

        Raises:
            FunctionNotFound, InvalidInstanceId, InstanceExists, IdempotencyConflict for an `operation_id` that
            named another start, PayloadError, Overloaded, EngineStopped, OutcomeUnknown.
        """
        function = orchestration_function_name
        if isinstance(function, str):
            definition, name, own_version = None, function, ""
        else:
            found = registered(function)
            definition, own_version = preferred(found), version_among(found)
            name = definition.name
        self.gateway.has_orchestrator(name)
        if isinstance(definition, Orchestrator):
            _guard(definition, client_input)
        fresh = instance_id is None
        chosen = self.gateway.new_instance_id() if instance_id is None else check_instance_id(instance_id)
        return await self._started(
            Start(
                instance_id=chosen,
                name=name,
                version=version or own_version,
                input=body_of(client_input),
                tags=checked_tags(tags),
                on_existing=on_existing,
                visible_at=instant(start_at, "start_at") if start_at is not None else 0,
                operation_id=operation_id or "",
                fresh=fresh,
            )
        )

    async def _started(self, start: Start) -> str:
        """Send a start and record the instance for the links of its request."""
        start = bound_by_key(start)
        try:
            found = await self.gateway.accept(start)
        except InstanceExists:
            if start.on_existing != "replace_finished" or not self.gateway.replaces_running:
                occasion().meet(start.instance_id)
                raise
            found = await self._in_place_of_running(start)
        if isinstance(found, Met) and not await self._is_own(found, start):
            occasion().meet(found)
        return str(found)

    async def _in_place_of_running(self, start: Start) -> Any:
        """Terminate the instance that has the id, and start. Raises InstanceExists if others keep taking the id."""
        for _ in range(PLACES_TAKEN):
            with suppress(InstanceNotFound, InstanceFinished):
                await self.gateway.accept(Terminate(instance_id=start.instance_id, reason=REPLACED))
            with suppress(InstanceExists):
                return await self.gateway.accept(start)
        return await self.gateway.accept(start)

    async def _is_own(self, found: Met, start: Start) -> bool:
        """Whether the current request has the same key as the start that created this instance."""
        if not found.born or not is_carried(start.operation_id):
            return False
        stored = await self.gateway.read(lambda: self.gateway.store.get(found), brief=True)
        return stored is not None and born_of(stored.row.salt) == found.born


def _guard(definition: Orchestrator, client_input: Any) -> None:
    """Raise PayloadError for an input that the function, passed by reference, would not receive without loss."""
    if client_input is not NO_INPUT:
        guard = definition.input_guard
        if guard is not None:
            guard((), client_input)


def body_of(value: Any) -> Raw:
    """The payload of a value; an encoded body is returned as it is."""
    return value if isinstance(value, Raw) else input_body(value)


def checked_tags(tags: Mapping[str, str] | None) -> dict[str, str] | None:
    """Validated tags. Raises PayloadError."""
    if not tags:
        return None
    if not isinstance(tags, Mapping) or len(tags) > 50:
        raise PayloadError("tags are at most 50 pairs of strings")
    if not all(isinstance(text, str) for pair in tags.items() for text in pair):
        raise PayloadError("tags are at most 50 pairs of strings")
    payload.encode(dict(tags), limit=16_384)
    return dict(tags)


__all__ = ["Starting", "body_of", "checked_tags"]
