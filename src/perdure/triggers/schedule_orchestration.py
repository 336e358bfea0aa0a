"""The orchestration of a schedule. It is eternal: it sleeps until the next tick, fires, and continues.

One instance of the built-in orchestrator runs one schedule of the hub. So a tick fires once, however many workers
there are, survives every crash, and is visible like any other instance. A run is a child orchestration whose id
contains the tick. It calls the client function as an activity, whose client derives the ids of the instances it
starts from the tick. So a body that runs twice after a crash starts nothing twice.
Operators control a schedule through an event: pause, resume, run now, backfill. A new deploy sends its settings in
the same way. Two small policies decide about missed ticks, and about a tick that comes during a run. They depend on
the schedule's own state only.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Literal

import msgspec

from perdure.failure import Failure
from perdure.model.durations import instant, moment, stamp
from perdure.replay.context import OrchestrationContext
from perdure.replay.task import Task
from perdure.triggers.cron import Cron
from perdure.triggers.interval import Interval, is_interval
from perdure.triggers.names import FIRING, firing_activity, firing_id

CatchUp = Literal["latest", "skip", "all"]
Overlap = Literal["skip", "queue", "allow"]
Verb = Literal["pause", "resume", "run", "backfill", "configure"]

CONTROL = "control"  # the event that contains a command
GRACE = 60_000_000  # microseconds after which a tick counts as missed
MOST = 1_000  # the most ticks of one catch-up or backfill
SHOWN = 10  # runs in the status
GENERATION = 50  # turns of one execution, to bound its history


class SchedulePlan(msgspec.Struct, frozen=True, omit_defaults=True):
    """The definition of a schedule in the code."""

    name: str
    cron: str
    timezone: str = "UTC"
    catch_up: CatchUp = "latest"
    overlap: Overlap = "skip"

    @property
    def when(self) -> Cron | Interval:
        return Interval(self.cron) if is_interval(self.cron) else Cron(self.cron, self.timezone)


class Pending(msgspec.Struct, frozen=True, omit_defaults=True):
    """A run that has not begun: its tick in microseconds, and its cause, which is empty for an ordinary tick."""

    tick: int
    cause: str = ""  # missed | manual | backfill


class Fired(msgspec.Struct, frozen=True, omit_defaults=True):
    """A run, as shown in the status."""

    tick: int
    instance_id: str
    cause: str = ""
    outcome: str = "running"  # running | done | failed


class ScheduleState(msgspec.Struct, omit_defaults=True):
    """The state that one execution of a schedule passes to the next."""

    plan: SchedulePlan
    last: int  # all ticks up to this one are done
    paused: str = ""
    pending: list[Pending] = msgspec.field(default_factory=list)
    recent: list[Fired] = msgspec.field(default_factory=list)
    skipped: int = 0  # all ticks that a policy skipped
    fired: int = 0


class Control(msgspec.Struct, frozen=True, omit_defaults=True):
    """A command of an operator or a new deploy."""

    verb: Verb
    reason: str = ""
    after: int = 0  # for backfill: only ticks later than this
    until: int = 0  # for backfill: only ticks not later than this
    plan: SchedulePlan | None = None  # for configure

    @property
    def why(self) -> str:
        """The detail for the audit log."""
        return self.reason or (
            f"{stamp(moment(self.after))} to {stamp(moment(self.until))}" if self.until else ""
        )


class Tick(msgspec.Struct, frozen=True, omit_defaults=True):
    """The tick that a scheduled function runs for, and its schedule."""

    schedule: str
    at: int
    cause: str = ""

    @property
    def scheduled_for(self) -> Any:
        """The time of the tick, as an aware datetime in UTC. The function runs at or after it."""
        return moment(self.at)

    @property
    def is_past_due(self) -> bool:
        """Whether this is the catch-up of a missed tick. The name is Azure's."""
        return self.cause == "missed"


def schedule(context: OrchestrationContext, state: ScheduleState) -> Generator[Task[Any], Any, None]:
    """The built-in orchestrator of every schedule."""
    control = context.wait_for_external_event(CONTROL, Control)
    running: dict[Task[Any], Fired] = {}
    turns = 0
    while turns < GENERATION or (running and state.plan.overlap != "allow"):
        if turns < GENERATION:
            _fire(context, state, running)
        context.set_custom_status(_view(state))
        timer = None if state.paused else context.create_timer(moment(state.plan.when.next(state.last)))
        waits: list[Task[Any]] = [control, *running] if timer is None else [control, timer, *running]
        winner = yield context.task_any(waits)
        if timer is not None and winner is not timer:
            timer.cancel()
        now = instant(context.current_utc_datetime)
        if winner is control:
            _obey(state, control.result, now)
            control = context.wait_for_external_event(CONTROL, Control)
        elif winner is timer:
            _come_due(state, now, busy=bool(running))
        else:
            _note_end(state, running.pop(winner), winner.failure)
        turns += 1
    context.continue_as_new(state)


def firing(context: OrchestrationContext, tick: Tick) -> Generator[Task[Any], Any, Any]:
    """The built-in orchestrator of one run: it calls the function, with the function's own retry policy."""
    result = yield context.call_activity(firing_activity(tick.schedule), tick)
    return result


# ------------------------------------------------------------------------------- changes of the state


def _fire(context: OrchestrationContext, state: ScheduleState, running: dict[Task[Any], Fired]) -> None:
    """Begin the pending runs that the overlap policy allows."""
    while state.pending and (not running or state.plan.overlap == "allow"):
        due = state.pending.pop(0)
        tick = Tick(state.plan.name, due.tick, due.cause)
        again = due.cause in ("manual", "backfill")
        instance_id = firing_id(context.instance_id, due.tick, state.fired if again else None)
        task = context.call_sub_orchestrator(FIRING, tick, instance_id)
        running[task] = fired = Fired(due.tick, instance_id, due.cause)
        state.recent = [*state.recent, fired][-SHOWN:]
        state.fired += 1


def _come_due(state: ScheduleState, now: int, *, busy: bool) -> None:
    """Handle the ticks up to now. There are several if no worker ran meanwhile."""
    due = state.plan.when.between(state.last, now, MOST)
    state.last = now if len(due) == MOST else (due[-1] if due else state.last)
    missed = [tick for tick in due if now - tick > GRACE]
    timely = [Pending(tick) for tick in due if now - tick <= GRACE]
    made_up = _caught_up(state.plan.catch_up, missed, bool(timely))
    state.skipped += len(missed) - len(made_up)
    _queue(state, [*made_up, *timely], busy=busy)


def _caught_up(policy: CatchUp, missed: list[int], timely: bool) -> list[Pending]:
    match policy:
        case "all":
            return [Pending(tick, "missed") for tick in missed]
        case "latest" if missed and not timely:
            return [Pending(missed[-1], "missed")]
        case _:
            return []


def _queue(state: ScheduleState, due: list[Pending], *, busy: bool) -> None:
    """Queue runs. A catch-up always waits its turn. The overlap policy decides about a tick during a run."""
    for one in due:
        occupied = busy or bool(state.pending)
        if one.cause or not occupied or state.plan.overlap == "allow":
            state.pending.append(one)
        elif state.plan.overlap == "skip" or any(not other.cause for other in state.pending):
            state.skipped += 1  # at most one tick is queued, because the next run handles all the work
        else:
            state.pending.append(one)


def _obey(state: ScheduleState, order: Control, now: int) -> None:
    match order.verb:
        case "pause":
            state.paused = order.reason or "paused"
        case "resume":
            if state.paused:
                state.paused, state.last = "", now
        case "run":
            state.pending.append(Pending(now, "manual"))
        case "backfill":
            ticks = state.plan.when.between(order.after, min(order.until, now), MOST)
            state.pending += [Pending(tick, "backfill") for tick in ticks]
        case "configure":
            if order.plan is not None and order.plan != state.plan:
                moved = (order.plan.cron, order.plan.timezone) != (state.plan.cron, state.plan.timezone)
                state.plan, state.last = order.plan, now if moved else state.last


def _note_end(state: ScheduleState, ended: Fired, failure: Failure | None) -> None:
    outcome = "done" if failure is None else "failed"
    state.recent = [
        msgspec.structs.replace(fired, outcome=outcome) if fired == ended else fired for fired in state.recent
    ]


def _view(state: ScheduleState) -> ScheduleState:
    """The state for the status, with a shortened list of pending runs."""
    return msgspec.structs.replace(state, pending=state.pending[:SHOWN], recent=list(state.recent))
