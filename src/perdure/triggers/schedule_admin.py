"""Schedules for operators: list, pause, resume, run now, backfill.

`Schedules` uses the methods of a client only, because a schedule is an instance and a command to it is an event. So
it works in process, through a store and over HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from msgspec import Raw

from perdure.engine.client.client import Client
from perdure.engine.client.paging import all_pages
from perdure.engine.core.audit import noted_as
from perdure.errors import InstanceNotFound, PayloadError
from perdure.model import payload
from perdure.model.durations import instant, moment
from perdure.model.instances import OrchestrationStatus, RuntimeStatus
from perdure.model.messages import Start
from perdure.triggers.names import SCHEDULE, schedule_id
from perdure.triggers.schedule_orchestration import CONTROL, MOST, Control, Fired, SchedulePlan, ScheduleState

FINISHED = frozenset(
    {RuntimeStatus.Completed, RuntimeStatus.Failed, RuntimeStatus.Terminated, RuntimeStatus.Canceled}
)


@dataclass(frozen=True)
class ScheduleStatus:
    """One schedule: its definition and its progress.

    `paused` is the reason of a pause, or empty. `next` has the next ticks in UTC, `recent` the last runs, newest
    last. `skipped` counts the ticks that the catch-up or overlap policy skipped.
    """

    name: str
    cron: str
    timezone: str
    words: str
    instance_id: str
    status: str
    paused: str
    next: Sequence[datetime]
    recent: Sequence[Fired]
    waiting: int
    fired: int
    skipped: int


class Schedules:
    """The schedules of a client's hub.

    Every method raises InstanceNotFound for a schedule that this hub has never run. A call with an `operation_id` can
    be repeated: within a day it takes effect once.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def list(self, *, upcoming: int = 3) -> list[ScheduleStatus]:
        """Every schedule of the hub with its next `upcoming` ticks, sorted by name."""
        shown = [_shown(found, upcoming) async for found in all_pages(self._client.query, name=SCHEDULE)]
        return sorted((one for one in shown if one is not None), key=lambda one: one.name)

    async def get(self, name: str, *, upcoming: int = 3) -> ScheduleStatus | None:
        """The schedule with this name, or None."""
        status = await self._client.get_status(schedule_id(name))
        return None if status is None else _shown(status, upcoming)

    async def pause(self, name: str, reason: str = "", *, operation_id: str | None = None) -> None:
        """Pause a schedule. Ticks that pass while it is paused are skipped."""
        await self._order(name, Control("pause", reason=reason), operation_id)

    async def resume(self, name: str, *, operation_id: str | None = None) -> None:
        """Resume a paused schedule. It fires again at its next tick."""
        await self._order(name, Control("resume"), operation_id)

    async def run(self, name: str, *, operation_id: str | None = None) -> None:
        """Fire a schedule now, in addition to its ticks, even while it is paused. It waits for a current run."""
        await self._order(name, Control("run"), operation_id)

    async def backfill(
        self, name: str, after: datetime, until: datetime, *, operation_id: str | None = None
    ) -> int:
        """Fire a schedule for past ticks, in order, whether they have fired before or not.

        Parameters:
            name: the schedule.
            after: only ticks later than this time.
            until: only ticks not later than this time, and not later than now.

        Returns: the number of ticks, at most 1,000. With 0, nothing fires.
        """
        status = await self.get(name)
        if status is None:
            raise _missing(name)
        begin = instant(after, "after")
        end = min(instant(until, "until"), self._client.gateway.now())
        ticks = SchedulePlan(name, status.cron, status.timezone).when.between(begin, end, MOST)
        if ticks:
            await self._order(name, Control("backfill", after=begin, until=end), operation_id)
        return len(ticks)

    async def _order(self, name: str, order: Control, operation_id: str | None) -> None:
        noted_as(f"{order.verb}_schedule", name, order.why)
        try:
            await self._client.raise_event(schedule_id(name), CONTROL, order, event_id=operation_id)
        except InstanceNotFound:
            raise _missing(name) from None


async def install(client: Client, plan: SchedulePlan) -> None:
    """Start a schedule, or give a running one the settings of this deploy. Several workers can do so at once."""
    gateway = client.gateway
    instance_id = schedule_id(plan.name)
    status = await client.get_status(instance_id)
    if status is None or status.runtime_status in FINISHED:
        await gateway.accept(
            Start(
                instance_id=instance_id,
                name=SCHEDULE,
                input=Raw(payload.encode(ScheduleState(plan, gateway.now()))),
                on_existing="return_existing" if status is None else "replace_finished",
                operation_id=f"{instance_id}:installed:{gateway.now()}",
            )
        )
    elif _state(status) is None or _state(status).plan != plan:  # type: ignore[union-attr]
        await client.raise_event(instance_id, CONTROL, Control("configure", plan=plan))


def _state(status: OrchestrationStatus) -> ScheduleState | None:
    try:
        return (
            payload.decode(payload.encode(status.custom_status), ScheduleState)
            if status.custom_status
            else None
        )
    except PayloadError:
        return None


def _shown(status: OrchestrationStatus, upcoming: int) -> ScheduleStatus | None:
    state = _state(status)
    if state is None:
        return None
    ticks: Any = () if state.paused else islice(state.plan.when.ticks(state.last), upcoming)
    return ScheduleStatus(
        name=state.plan.name,
        cron=state.plan.cron,
        timezone=state.plan.timezone,
        words=state.plan.when.explain(),
        instance_id=status.instance_id,
        status=status.runtime_status.value,
        paused=state.paused,
        next=[moment(tick) for tick in ticks],
        recent=state.recent,
        waiting=len(state.pending),
        fired=state.fired,
        skipped=state.skipped,
    )


def _missing(name: str) -> InstanceNotFound:
    return InstanceNotFound(
        f"there is no schedule {name!r} in this hub. A schedule is created when an application with "
        f"@app.schedule(..., name={name!r}) first runs on this hub"
    )
