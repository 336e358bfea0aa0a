"""One history at a time: endings, retries, and timers that were on time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from perdure.model import events as ev
from perdure.replay.state import State
from simulation.activities import attempts_of, pause_after
from simulation.ledger import Past, RunRecord
from simulation.people_checks import ANSWERS
from simulation.program import Call, Wait, calls_of, steps_of, waits_of

if TYPE_CHECKING:
    from simulation.world import World

LATEST = 26_000_000  # microseconds that a timer may be late in a world without troubles


def check_history(world: World, run: RunRecord) -> None:
    """I3, I4, I6 were folded at each commit; here is what needs the program beside it."""
    body = world.plan.program.bodies[int(run.row.name.removeprefix("body"))]
    calls = {call.key: call for step in steps_of(body) for call in calls_of(step)}
    waits = [wait for step in steps_of(body) for wait in waits_of(step)]
    for number, past in run.executions.items():
        last = number == run.row.execution_no
        if last and past.rows and past.state.started is None and past.state.ending is None:
            world.ledger.problem("I3", f"{run}: execution {number} has history and never started")
        _HistoryWalk(world, run, past, calls, waits).check()
    if run.row.parent_id is not None and len(world.ledger.runs_of(run.row.instance_id)) > 1:
        world.met("a child run again under its own id")


class _HistoryWalk:
    """Through the events of one execution."""

    def __init__(
        self, world: World, run: RunRecord, past: Past, calls: dict[int, Call], waits: list[Wait]
    ) -> None:
        self._world = world
        self._run = run
        self._past = past
        self._calls = calls
        self._timed = {wait.event for wait in waits if wait.timeout is not None}
        self._scheduled: dict[int, ev.TaskScheduled] = {}
        self._failed_at: dict[int, int] = {}
        self._timers: dict[int, ev.TimerCreated] = {}
        self._held_since = 0

    def check(self) -> None:
        for at, events in self._past.recorded:
            for event in events:
                self._event(event, at)
        self._pairs()
        for task in self._scheduled.values():
            call = self._calls[json.loads(bytes(task.input))["key"]]
            if task.attempt > attempts_of(call):
                self._bad("I21", f"attempt {task.attempt} of {call}")

    def _pairs(self) -> None:
        """A monitor's events go to the wait of the present round, and none that was sent after its timer was due."""
        if any(
            isinstance(event, ev.ExecutionRewound) for _, events in self._past.recorded for event in events
        ):
            return
        state, wanted = State(), {}
        asked_at = {d.order.key: d.asked_at for d in self._world.dealings if d.order.verb == "raise"}
        for at, events in self._past.recorded:
            for event in events:
                if isinstance(event, ev.EventRaised) and event.name.startswith("m"):
                    waits = [number for number, (wait, _) in state.waits.items() if wait.name == event.name]
                    timer = state.timers.get(max(waits, default=-2) + 1)
                    if timer is not None:
                        wanted[state.raised] = max(waits)
                        self._met_left(len(waits))
                        if (
                            self._clock_is_right()
                            and asked_at[json.loads(bytes(event.input))] >= timer.fire_at
                        ):
                            self._bad(
                                "deadline", f"an event came in spite of timer {timer.id}, due before it"
                            )
                state.apply(event, at)
        for number, wait_id in wanted.items():
            taken = state.taken.get(wait_id)
            if taken is None or taken[2][0] != number:
                self._bad("pairing", f"event {number} did not go to wait {wait_id}, which the code awaited")
        answers = {d.order.key: d.asked_at for d in self._world.dealings if d.order.verb in ANSWERS}
        self._deadlines(state, asked_at | answers)

    def _deadlines(self, state: State, asked_at: dict[int, int]) -> None:
        """No wait has taken an event that was sent at its deadline or after it."""
        if not self._clock_is_right():
            return
        for wait, _, (number, event) in state.taken.values():
            if wait.deadline and asked_at.get(json.loads(bytes(event.input)), 0) >= wait.deadline:
                self._bad("deadline", f"event {number} went to wait {wait.id}, whose time was over")

    def _met_left(self, waits: int) -> None:
        if waits > 1:
            self._world.met("an event for one of several waits")

    def _clock_is_right(self) -> bool:
        plan = self._world.plan
        straight = not plan.knobs.drift and not plan.knobs.creeping
        return straight and not any(f.effect == "jump" for f in plan.faults) and not self._world.ledger.shared

    def _bad(self, code: str, text: str) -> None:
        self._world.ledger.problem(code, f"{self._run}: {text}")

    def _event(self, event: ev.HistoryEvent, at: int) -> None:
        match event:
            case ev.TaskScheduled():
                self._scheduled[event.id] = event
                if not event.name.startswith("work"):
                    self._bad("B3", f"it scheduled {event.name!r}, which only code that is put away asks for")
            case ev.TaskCompleted():
                if self._scheduled[event.task_id].attempt > 1:
                    self._world.met("a retry that succeeded in the end")
            case ev.TaskFailed():
                self._failed(event, at)
            case ev.SubOrchestrationFailed() if event.failure.type.endswith("InstanceExists"):
                self._world.met("a child whose id was taken")
            case ev.TimerCreated():
                self._timers[event.id] = event
                self._retry(event, at)
            case ev.TimerFired():
                self._fired(self._timers[event.timer_id], at)
            case ev.TimerCanceled():
                if self._timers[event.timer_id].purpose == "timeout":
                    self._world.met("an event won against its timeout")
            case ev.ExecutionResumed():
                self._held_since = at

    def _failed(self, event: ev.TaskFailed, at: int) -> None:
        task = self._scheduled[event.task_id]
        call = self._calls[json.loads(bytes(task.input))["key"]]
        self._failed_at[task.id if task.call < 0 else task.call] = at
        if call.ends and not call.fatal:
            self._world.met("an attempt that exited, or cancelled itself")
        if call.final:
            self._world.met("a payload refused, and not asked for again")
        elif call.fatal:
            self._world.met("a failure that is not retried")
        elif call.attempts and task.attempt == call.attempts:
            self._world.met("a retry exhausted")

    def _retry(self, timer: ev.TimerCreated, at: int) -> None:
        """The pause follows the policy (I21)."""
        if timer.purpose != "retry" or timer.of not in self._failed_at:
            return
        attempt = max(t.attempt for t in self._scheduled.values() if timer.of in (t.id, t.call))
        first = self._scheduled[timer.of]
        pause = pause_after(self._calls[json.loads(bytes(first.input))["key"]], attempt)
        if timer.fire_at - at != pause:
            self._bad("I21", f"the pause after attempt {attempt} is {timer.fire_at - at}, not {pause}")

    def _fired(self, timer: ev.TimerCreated, at: int) -> None:
        if timer.purpose == "timeout":
            self._world.met("an event timed out")
        due = max(timer.fire_at, self._held_since)
        if at - due > LATEST and self._is_calm():
            self._bad("I24", f"timer {timer.id} fired {(at - due) / 1e6:.1f} s late")

    def _is_calm(self) -> bool:
        """Nothing in this world can make a timer late, except clocks that went back."""
        plan = self._world.plan
        may = all(f.effect == "evict" or (f.effect == "jump" and f.amount < 0) for f in plan.faults)
        suspends = any(o.verb == "suspend" for client in plan.clients for o in client.orders)
        return may and not suspends
