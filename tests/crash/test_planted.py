"""The planted tests of the core's review (`core_review.md`): each names a way in which such engines lose or
repeat work, and shows that this one does not. One thread, virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import pytest
from msgspec import Raw

from perdure import ActivityContext, App, OrchestrationContext
from perdure.engine.core.ports import Limits
from perdure.errors import InstanceExists
from perdure.model.messages import RaiseEvent, Start
from perdure.store.memory import MemoryStore
from perdure.testing.faults import Fault, FaultPlan
from tests.crash.checks import picture, verify
from tests.crash.scenarios import RETRY
from tests.crash.sweep import APPS
from tests.crash.world import ROOMY, Reply, World, event, manage, start

Flow = Generator[Any, Any, Any]


def world(*plans: FaultPlan, style: str = "yield", **options: Any) -> World:
    return World(APPS[style], MemoryStore("crash"), list(plans), **options)


def own_world(app: App, *plans: FaultPlan, **options: Any) -> World:
    return World(app, MemoryStore("crash"), list(plans), **options)


def runs_of(w: World, name: str) -> list[Any]:
    return [ran for ran in w.witness if ran.name == name]


# ------------------------------------------------------------------------------------------------- batches


def test_cut_batch_mid_cascade() -> None:
    """A2: a batch is cut while a parent's children start; the process dies; no child is missing."""
    w = world(limits=Limits(episodes=3, feeds=100))
    w.loop.post(Start(instance_id="c", name="crowd", input=Raw(b"12"), operation_id="op"), Reply())
    w.turn()
    created = [e for e in w.status("c").history if e["type"] == "SubOrchestrationCreated"]
    waiting = w.inner.poll(2**62, 2**62, 100).messages
    assert len(created) == 12 and len(waiting) == 10, "the batch was not cut"
    w.kill()
    w.settle()
    assert w.status("c").output == [*range(12)]
    verify(w)


@pytest.mark.parametrize("fault", [Fault.FAIL, Fault.LOSE_ANSWER, Fault.FULL, Fault.CRASH_AFTER])
def test_what_a_cut_batch_did_not_reach_survives_its_failed_commit(fault: Fault) -> None:
    """Results and requests that a full batch had not come to are neither lost nor left without an answer."""
    w = world(limits=Limits(episodes=2))
    w.paused = True
    w.ask(start("fan", "f", 6), start("listener", "e", 3))
    w.run_bodies()
    w.paused = False
    w.store.plan.faults[len(w.calls) + 2] = fault
    w.ask(*(event("e", "Go", n) for n in range(3)))
    assert w.store.fired or w.lives[0].fired
    assert w.status("f").output == [[1, 2, 3, 6, 5, 10], 28]
    assert w.status("e").output == [[0, 1, 2], 4]
    if fault is not Fault.CRASH_AFTER:
        assert len(runs_of(w, "double")) == 3, "results that were there were thrown away"
    verify(w)


def test_what_waits_for_room_outlives_a_store_that_then_fails() -> None:
    """Results that found no room are in memory only: a look at the store that fails drops everything else."""
    w = world()
    w.paused = True
    w.start("fan", "f", 6)
    w.run_bodies()
    ran = len(runs_of(w, "double"))
    w.store.plan.full = True
    w.turn()
    w.store.plan.full = False
    w.store.plan.faults[len(w.calls) + 1] = Fault.FAIL
    w.paused = False
    w.pass_time(2)
    assert w.store.fired and w.store.fired[0][1] == "poll"
    assert w.status("f").output == [[1, 2, 3, 6, 5, 10], 28]
    assert ran and len(runs_of(w, "double")) == ran, "results that waited for room were forgotten"
    verify(w)


def test_a_full_store_does_not_change_the_order_of_events() -> None:
    """I15: what waits for room does not let later events pass."""
    w = world(limits=Limits(episodes=1))
    w.start("listener", "e", 4)
    for n in range(3):  # accepted together, taken up one by one
        w.loop.post(RaiseEvent(instance_id="e", name="Go", input=Raw(b"%d" % n), operation_id=f"o{n}"))
    w.store.plan.full = True
    w.turn()
    w.store.plan.full = False
    w.ask(event("e", "Go", 3))
    w.settle()
    assert w.status("e").output == [[0, 1, 2, 3], 5]


def test_a_resume_that_finds_no_room_delivers_what_was_held_once() -> None:
    """Held messages come back with their instance; the batch that failed does not bring them a second time."""
    w = world()
    w.start("listener", "e", 3)
    w.manage("suspend", "e")
    for n in range(2):
        w.raise_event("e", "Go", n)
    w.kill()  # what was held is only in the store now
    w.store.plan.faults[len(w.calls) + 5] = Fault.FULL
    w.manage("resume", "e")
    assert w.store.fired and w.store.fired[0][1] == "commit"
    w.pass_time(2)
    w.raise_event("e", "Go", 2)
    assert w.status("e").output == [[0, 1, 2], 4]
    assert "reopen" not in w.calls, "the store had to stop a message that came twice"
    verify(w)


# -------------------------------------------------------------------------------------------------- timers


def test_an_event_from_a_clock_that_is_ahead_fires_no_timer_before_its_time() -> None:
    """A worker whose clock is ahead accepts an event: the owner's clock says whether the deadline has passed."""
    w = world()
    w.start("decision", "d")
    ahead = w.clock.now() + 100_000_000
    w.loop.post(RaiseEvent(instance_id="d", name="Decision", input=Raw(b"7"), accepted_at=ahead))
    w.pass_time(60)
    assert w.status("d").output == [7, "none", 2]


def test_timer_behind_local_activity() -> None:
    """A7: an activity that takes its time does not hide a timer, not even from the next process."""
    w = world()
    w.paused = True
    w.start("overdue", "o")
    row = w.inner.get("o")
    assert row is not None and row.row.local_work == 1 and row.row.due_at is not None
    w.kill()
    w.pass_time(40)
    assert not fired(w, "o")
    w.pass_time(6)
    assert fired(w, "o"), "the timer is hidden behind the activity"
    w.paused = False
    w.settle()
    assert w.status("o").output == [True, 2]


def fired(w: World, instance_id: str) -> bool:
    return any(e["type"] == "TimerFired" for e in w.status(instance_id).history)


@pytest.mark.parametrize("evict", [False, True])
def test_suspended_due_timer_no_spin(evict: bool) -> None:
    """A7: a suspended instance whose timer is due is left alone by every poll, in every process."""
    w = world(evict=evict)
    w.ask(start("sleeper", "s"), start("decision", "d"))
    w.ask(manage("suspend", "s"), manage("suspend", "d"))
    w.pass_time(200)
    w.kill()
    w.settle()
    before = len(w.calls)
    w.pass_time(600)
    asked = w.calls[before:]
    assert set(asked) == {"poll"} and len(asked) <= 31, asked
    assert w.inner.poll(2**62, 2**62, 10).due == []
    w.ask(manage("resume", "s"), manage("resume", "d"))
    w.pass_time(65)
    assert w.status("d").output == ["expired", "none", 2]


# ------------------------------------------------------------------------------------------------ eviction


def rude_app(style: str) -> App:
    """An orchestrator whose cleaning up does everything that it should not."""
    app = App("rude")

    @app.activity
    def refund() -> None: ...

    if style == "yield":

        @app.orchestrator
        def rude(context: OrchestrationContext) -> Flow:
            got = None
            try:
                got = yield context.wait_for_external_event("Go")
                return got
            finally:
                if got is None:
                    try:
                        context.set_custom_status("cleaned up")
                        context.continue_as_new("again")
                    finally:
                        yield context.call_activity("refund")
    else:

        @app.orchestrator
        async def rude(context: OrchestrationContext) -> Any:
            got = None
            try:
                got = await context.wait_for_external_event("Go")
                return got
            finally:
                if got is None:
                    try:
                        context.set_custom_status("cleaned up")
                        context.continue_as_new("again")
                    finally:
                        await context.call_activity("refund")

    return app


@pytest.mark.parametrize("style", ["yield", "await"])
@pytest.mark.parametrize("how", ["eviction", "failed commit", "stop"])
def test_evict_with_finally(style: str, how: str) -> None:
    """B3: putting code away runs its `finally:`; nothing that does reaches history, activities or status."""
    w = own_world(rude_app(style))
    w.start("rude", "r")
    before = w.inner.get("r", history=True)
    if how == "eviction":
        w.process.core.cache.evict_idle(2**62)
    elif how == "failed commit":
        w.store.plan.faults[len(w.calls) + 1] = Fault.FAIL
        w.loop.post(RaiseEvent(instance_id="r", name="Other", operation_id="x"), Reply())
        w.turn()
    else:
        w.kill()
    assert w.inner.get("r", history=True) == before
    assert not w.process.bodies.waiting and not w.witness
    w.raise_event("r", "Go", "well")
    status = w.status("r")
    assert (status.output, status.custom_status) == ("well", None)
    assert not any(e["type"] == "TaskScheduled" for e in status.history)
    verify(w)


# ---------------------------------------------------------------------------------------- keys and repetition


def test_retry_keeps_key() -> None:
    """A5: every attempt of one call has one key, across crashes; another call and generation has another."""
    w = world()
    w.start("retrying", "r")
    w.kill()
    w.pass_time(35)
    w.kill()
    w.pass_time(100)
    w.settle()
    flaky = runs_of(w, "flaky")
    assert {ran.attempt for ran in flaky} == {1, 2, 3}
    assert len({ran.key for ran in flaky}) == 1
    assert {ran.key for ran in flaky}.isdisjoint(ran.key for ran in runs_of(w, "broken"))
    w.start("counter", "c")
    for value in ("x", "y"):
        w.raise_event("c", "Count", value)
    assert len({ran.key for ran in runs_of(w, "add") if ran.instance_id == "c"}) == 2


def test_restart_after_spill_runs_once() -> None:
    """B7, for activities of this process: what was done is not done again, what was open runs once."""
    w = world()
    w.paused = True
    w.start("fan", "f", 6)
    w.run_bodies(most=4)
    w.turn()
    w.kill()
    w.paused = False
    w.settle()
    assert w.status("f").output == [[1, 2, 3, 6, 5, 10], 28]
    assert len([ran for ran in w.witness if ran.task[1] < 6]) == 6
    assert len(w.witness) == len({ran.key for ran in w.witness}) == 7


def test_activities_taken_up_after_a_restart_survive_a_batch_that_finds_no_room() -> None:
    """The batch that brought their instance back fails for another's sake; they are started all the same."""
    w = world()
    w.paused = True
    w.ask(start("fan", "f", 6), start("listener", "e", 1))
    w.kill()
    w.store.plan.full = True
    w.loop.post(RaiseEvent(instance_id="e", name="Go", input=Raw(b"1")), Reply())
    w.turn()
    assert "commit" in w.calls and not w.process.bodies.waiting
    w.store.plan.full = False
    w.paused = False
    w.pass_time(2)
    assert w.status("f").output == [[1, 2, 3, 6, 5, 10], 28]
    verify(w)


def test_an_activity_that_is_running_is_not_started_again_when_its_instance_is_loaded() -> None:
    w = world()
    w.paused = True
    w.ask(start("overdue", "o"), start("overdue", "p"))
    w.process.core.cache.evict_idle(2**62)
    w.raise_event("o", "Other")
    w.store.plan.faults[len(w.calls) + 2] = Fault.LOSE_ANSWER
    w.raise_event("p", "Other")
    w.pass_time(1)
    w.paused = False
    w.settle()
    assert len(runs_of(w, "add")) == 2


@pytest.mark.parametrize("fault", [Fault.LOSE_ANSWER, Fault.CRASH_AFTER])
def test_start_retry_after_lost_answer(fault: Fault) -> None:
    """A12: whoever repeats a start by its operation id gets the first answer, and one instance."""
    plain = world()
    plain.ask(start("sequence", None, 1))
    commit = plain.calls.index("commit") + 1
    w = world(FaultPlan({commit: fault}))
    answered = w.ask(start("sequence", None, 1))[0]
    again = w.ask(start("sequence", "other-id", 1))[0]
    assert w.lives[0].fired and isinstance(answered, str)
    assert [row[0] for row in picture(w)["instances"]] == sorted([answered, again])
    for _ in range(2):
        assert w.repeat("op-1", start("sequence", None, 1)) == answered
        assert w.repeat("op-1", start("sequence", "third-id", 1)) == answered
        w.kill()
    assert len(picture(w)["instances"]) == 2


def test_event_retry_across_can() -> None:
    """A12: an event repeated after continue-as-new, in another process, is still the same event."""
    w = world()
    w.start("counter", "c")
    w.raise_event("c", "Count", "a")
    w.raise_event("c", "Count", "b")
    w.kill()
    for operation in ("op-2", "op-3", "op-2"):
        w.repeat(operation, event("c", "Count", "a"))
        w.process.core.cache.evict_idle(2**62)
    w.raise_event("c", "Count", "stop")
    assert w.status("c").output == ["a", "b"]
    verify(w)


def test_a_repeat_of_every_verb_gets_the_first_answer() -> None:
    w = world()
    w.start("listener", "e", 1)
    steps = [
        manage("suspend", "e"),
        event("e", "Go", 1),
        manage("resume", "e"),
        manage("purge_instance_history", "e"),
        start("deaf", "e"),
        manage("terminate", "e", "enough"),
    ]
    for number, step in enumerate(steps, start=2):
        [first] = w.ask(step)
        assert w.repeat(f"op-{number}", step) == first, step.label
        w.kill()
        assert w.repeat(f"op-{number}", step) == first, step.label
    assert w.status("e").runtime_status == "Terminated"


# ------------------------------------------------------------------------------------------------- families


def test_recursive_terminate_taken_id() -> None:
    """B12: a child that could not be had under its id is a failed call; its id's owner is left alone."""
    w = world()
    w.start("listener", "stranger", 1)
    w.start("grandparent", "g")
    assert w.status("g").custom_status == "TaskFailedError"
    failed = [e for e in w.status("g").history if e["type"] == "SubOrchestrationFailed"]
    assert failed and failed[0]["failure"]["type"].endswith(InstanceExists.__name__)
    w.process.core.cache.evict_idle(2**62)
    w.manage("terminate", "g", "enough", recursive=True)
    assert w.status("g-mid").runtime_status == "Terminated"
    assert all(s[2] == "Terminated" for s in picture(w)["instances"] if s[0].startswith("g"))
    assert w.status("stranger").runtime_status == "Running"
    w.raise_event("stranger", "Go", 1)
    assert w.status("stranger").runtime_status == "Completed"


def test_a_recursive_terminate_that_overtakes_a_refusal_spares_the_stranger() -> None:
    """B12: the parent ends before it has heard that its child's id was taken."""
    w = world(limits=replace(ROOMY, episodes=1))
    w.start("listener", "stranger", 1)
    w.loop.post(Start(instance_id="g", name="grandparent"), Reply())
    w.turn()
    w.manage("terminate", "g", "enough", recursive=True)
    assert not any(e["type"] == "SubOrchestrationFailed" for e in w.status("g").history)
    assert w.status("stranger").runtime_status == "Running"
    w.raise_event("stranger", "Go", 1)
    assert w.status("stranger").output == [[1], 2]
    verify(w)


def test_purge_child_parent_still_reads_result() -> None:
    """B11, B10: a parent keeps its child's result, however large, when the child is purged."""
    w = world()
    w.start("large", "b", "x" * 7)
    w.manage("purge_instance_history", "large-child")
    w.kill()
    w.raise_event("b", "More", "!")
    assert w.status("b").output[:3] == [1807, 1807, 1]
    verify(w)


def test_purge_child_while_its_parent_is_suspended() -> None:
    """The result waits in the parent's own inbox, not with the child."""
    w = world()
    w.paused = True
    w.start("large", "b", "x" * 7)
    w.manage("suspend", "b")
    w.paused = False
    w.settle()
    w.manage("resume", "b")
    w.manage("suspend", "b")
    w.pass_time(1)
    w.manage("purge_instance_history", "large-child")
    w.kill()
    w.manage("resume", "b")
    w.raise_event("b", "More", "!")
    assert w.status("b").output[:3] == [1807, 1807, 1]


# -------------------------------------------------------------------------------------------------- answers


def test_release_on_closed_loop() -> None:
    """B14: a client whose event loop is gone holds nobody up; its request counts all the same."""
    gone = asyncio.new_event_loop()
    lost = gone.create_future()
    gone.close()
    w = world()
    w.loop.post(Start(instance_id="a", name="sequence", input=Raw(b"1")), lost)
    w.start("sequence", "b", 1)
    w.loop.post(Start(instance_id="a", name="sequence", input=Raw(b"1")), lost)
    w.settle()
    w.start("sequence", "c", 1)
    assert [w.status(i).runtime_status for i in "abc"] == ["Completed"] * 3
    cancelled = Reply()
    cancelled.set_result(None)  # as a future that its client has cancelled
    w.loop.post(Start(instance_id="d", name="sequence", input=Raw(b"1")), cancelled)
    w.settle()
    assert w.status("d").runtime_status == "Completed"


def test_suspended_between_two_generations() -> None:
    """A generation that was on its way when the instance was suspended begins at the resume."""
    w = world(limits=replace(ROOMY, feeds=1))
    w.start("counter", "c", [])
    w.paused = True
    w.raise_event("c", "Count", "a")
    w.run_bodies()
    w.turn()  # continues as new; the next generation is a message
    w.store.plan.full = True
    w.turn()
    w.store.plan.full = False
    w.paused = False
    w.manage("suspend", "c")
    w.kill()
    w.pass_time(30)
    w.manage("resume", "c")
    w.raise_event("c", "Count", "stop")
    assert w.status("c").output == ["a"]
    verify(w)


def test_payment_is_made_once_by_whoever_honours_the_key() -> None:
    """The promise to users: dies after the body, before the result; the second run bears the same key."""
    app, paid = App("pay"), dict[str, int]()

    @app.activity(retry=RETRY)
    def pay(amount: int, context: ActivityContext) -> int:
        charged = paid.setdefault(context.idempotency_key, amount)
        if context.attempt == 1:
            raise TimeoutError("the answer of the gateway was lost")
        return charged

    @app.orchestrator
    def claim(context: OrchestrationContext) -> Flow:
        first = yield context.call_activity("pay", 5)
        second = yield context.call_activity("pay", 5)
        return first + second

    w = own_world(app)
    w.paused = True
    w.start("claim", "c")
    for _ in range(30):
        w.run_bodies()
        w.kill()  # bodies ran, results are gone
        w.turn()
        w.run_bodies()
        w.pass_time(7)
    w.paused = False
    w.pass_time(60)
    assert w.status("c").output == 10
    assert sorted(paid.values()) == [5, 5] and len(w.witness) > 6


def test_results_that_pass_a_failed_instance_by_answer_no_call_that_a_rewind_in_their_batch_opens_again() -> (
    None
):
    """B14: siblings whose failures came too late to count are started again by the rewind, and not waited for."""
    app, is_up = App("siblings"), [False]

    @app.activity
    def act(number: int) -> int:
        if not is_up[0]:
            raise ConnectionError(f"away: {number}")
        return number

    @app.orchestrator
    def fan(context: OrchestrationContext) -> Flow:
        return (yield context.task_all([context.call_activity(act, number) for number in range(4)]))

    w = own_world(app)
    w.paused = True
    w.start("fan", "f")
    w.run_bodies(1)
    w.settle()
    assert w.status("f").runtime_status == "Failed"
    w.run_bodies()  # their failures stand in the loop's inbox, and the rewind behind them
    is_up[0] = True
    w.paused = False
    w.manage("rewind", "f", "the bank is back")
    assert w.status("f").runtime_status == "Completed"
    assert w.status("f").output == [0, 1, 2, 3]
    verify(w)
