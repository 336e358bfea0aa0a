"""Timer triggers as schedules of the hub."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from perdure.engine.client.client import Client
from perdure.hosts.azure_functions import sdk
from perdure.hosts.azure_functions.in_process import HubDoor
from perdure.hosts.azure_functions.invoking import Callee, typed
from perdure.hosts.azure_functions.outputs import send_outputs
from perdure.hosts.azure_functions.retrying import policy_of
from perdure.model.durations import moment
from perdure.replay.activity_context import ActivityContext
from perdure.triggers.cron import Cron
from perdure.triggers.definitions import Schedule
from perdure.triggers.interval import Interval
from perdure.triggers.schedule_orchestration import CatchUp, SchedulePlan, Tick

if TYPE_CHECKING:
    from perdure.hosts.azure_functions.indexing import AppFunction


def schedule_of(described: AppFunction, callee: Callee) -> Schedule:
    """The schedule of a function with a timer trigger. Raises ValueError for one that cannot be read."""
    trigger, folder = described.trigger, callee.folder
    said = folder.resolved(str(trigger.get("schedule", "")))
    catch_up: CatchUp = "latest" if trigger.get("useMonitor", True) else "skip"
    plan = SchedulePlan(described.name, said, folder.setting("WEBSITE_TIME_ZONE") or "UTC", catch_up)
    plan.when.next(0)
    return Schedule(
        described.name,
        _body(callee, plan.when),
        plan=plan,
        retry=policy_of(described.retry),
        runs_at_start=bool(trigger.get("runOnStartup", False)),
    )


def _body(callee: Callee, when: Cron | Interval) -> Callable[..., Any]:
    async def fire(tick: Tick, call: ActivityContext, client: Client, door: HubDoor) -> None:
        await door.prepare(client)
        arguments, outputs = callee.arguments(
            _request(tick, when), call.idempotency_key, door=door, client=client, attempt=call.attempt
        )
        await send_outputs(callee, outputs, await callee.call(arguments), client)

    told = {"tick": Tick, "call": ActivityContext, "client": Client, "door": HubDoor, "return": None}
    return typed(fire, callee, told)


def _request(tick: Tick, when: Cron | Interval) -> Any:
    status = {
        "Last": moment(tick.at).isoformat(),
        "Next": moment(when.next(tick.at)).isoformat(),
        "LastUpdated": moment(tick.at).isoformat(),
    }
    return sdk.timer_request(past_due=tick.is_past_due, schedule_status=status)


__all__ = ["schedule_of"]
