"""Activities: JSON goes in and comes out through the SDK's converter, so values are what they are on Azure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from msgspec import Raw

from perdure.engine.client.client import Client
from perdure.hosts.azure_functions import sdk
from perdure.hosts.azure_functions.asking import body_of
from perdure.hosts.azure_functions.in_process import HubDoor
from perdure.hosts.azure_functions.invoking import Callee, Output, typed
from perdure.hosts.azure_functions.outputs import send_outputs
from perdure.replay.activity_context import ActivityContext


def activity_body(callee: Callee) -> Callable[..., Any]:
    """An activity as perdure calls it; one that speaks to the hub is handed a client too."""
    if callee.wants_hub:
        return _with_hub(callee)
    if callee.takes_trigger_alone and not callee.takes(ActivityContext):
        return _plain(callee)
    return _alone(callee)


def _plain(callee: Callee) -> Callable[..., Any]:
    """Most activities: their input is all that they take."""
    name, function = callee.described.trigger.name, callee.function

    async def on_loop(body: Raw) -> Any:
        return _result(await function(**{name: sdk.activity_input(bytes(body).decode())}))

    def on_thread(body: Raw) -> Any:
        return _result(function(**{name: sdk.activity_input(bytes(body).decode())}))

    run = on_loop if callee.is_async else on_thread
    return typed(run, callee, {"body": Raw, "return": Raw})


def _alone(callee: Callee) -> Callable[..., Any]:
    result_of = _unchanged if callee.takes(ActivityContext) else _result

    async def on_loop(body: Raw, call: ActivityContext) -> Any:
        return result_of(await callee.function(**_filled(callee, body, call)[0]))

    def on_thread(body: Raw, call: ActivityContext) -> Any:
        return result_of(callee.function(**_filled(callee, body, call)[0]))

    run = on_loop if callee.is_async else on_thread
    return typed(run, callee, {"body": Raw, "call": ActivityContext, "return": Raw})


def _with_hub(callee: Callee) -> Callable[..., Any]:
    result_of = _unchanged if callee.takes(ActivityContext) else _result

    async def run(body: Raw, call: ActivityContext, client: Client, door: HubDoor) -> Any:
        await door.prepare(client)
        filled, outputs = _filled(callee, body, call, door=door, client=client)
        result = await callee.call(filled)
        await send_outputs(callee, outputs, result, client)
        return result_of(result)

    told = {"body": Raw, "call": ActivityContext, "client": Client, "door": HubDoor, "return": Raw}
    return typed(run, callee, told)


def _filled(
    callee: Callee, body: Raw, call: ActivityContext, **hub: Any
) -> tuple[dict[str, Any], dict[str, Output]]:
    given = call if callee.takes(ActivityContext) else sdk.activity_input(bytes(body).decode())
    return callee.arguments(given, f"{call.idempotency_key}:{call.attempt}", attempt=call.attempt, **hub)


_SCALARS: Final = frozenset({str, int, bool, type(None)})
"""Types that perdure writes as the SDK does."""


def _unchanged(value: Any) -> Any:
    """A function that takes perdure's own context returns what any activity of perdure's may return."""
    return value


def _result(value: Any) -> Any:
    return value if type(value) in _SCALARS else body_of(sdk.activity_output(value))


__all__ = ["activity_body"]
