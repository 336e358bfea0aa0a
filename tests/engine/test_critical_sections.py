"""Critical sections: exclusive, without deadlock, and released however the holder ends."""

from datetime import timedelta

import pytest

from perdure import (
    App,
    EntityContext,
    EntityId,
    InstanceFinished,
    OrchestrationContext,
    RuntimeStatus,
    Settings,
    TaskFailedError,
)
from perdure.engine.core.ports import Limits
from perdure.engine.upkeep.verification import verify
from perdure.testing import environment
from tests.core.styles import both

S = RuntimeStatus
A, B, C = (EntityId("account", name) for name in "abc")


class Account:
    def __init__(self) -> None:
        self.balance = 0
        self.seen: list[str] = []

    def add(self, amount: int) -> int:
        self.balance += amount
        return self.balance

    def get(self) -> int:
        return self.balance

    def note(self, who: str) -> list[str]:
        self.seen.append(who)
        return self.seen

    def fail(self) -> None:
        raise ValueError("no")


def transfer_yield(context: OrchestrationContext):
    source, target, amount = context.get_input()
    with (yield context.lock(EntityId("account", source), EntityId("account", target))) as lock:
        assert lock.is_held
        balance = yield context.call_entity(f"@account@{source}", "get")
        yield context.create_timer(1)
        if balance >= amount:
            yield context.call_entity(f"@account@{source}", "add", -amount)
            yield context.call_entity(f"@account@{target}", "add", amount)
    return [str(e) for e in context.locked_entities]


async def transfer_async(context: OrchestrationContext):
    source, target, amount = context.get_input()
    async with context.lock(f"@account@{source}", f"@account@{target}") as lock:
        assert lock.is_held
        balance = await context.call_entity(f"@account@{source}", "get")
        await context.create_timer(1)
        if balance >= amount:
            await context.call_entity(f"@account@{source}", "add", -amount)
            await context.call_entity(f"@account@{target}", "add", amount)
    return [str(e) for e in context.locked_entities]


def app_with(orchestrator=None, *, settings: Settings | None = None, **named) -> App:
    app = App("bank", settings=settings)
    app.entity(name="Account")(Account)
    if orchestrator is not None:
        app.orchestrator(name="main")(orchestrator)
    for name, function in named.items():
        app.orchestrator(name=name)(function)
    return app


async def balances(env) -> list[int]:
    states = [await env.client.read_entity_state(entity) for entity in (A, B, C)]
    return [state.state["balance"] if state.exists else 0 for state in states]


@both(transfer_yield, transfer_async)
@pytest.mark.parametrize("store", ["memory:", "sqlite"])
@pytest.mark.parametrize("restarted", [False, True])
async def test_transfers_in_a_circle_neither_block_nor_interfere(orchestrator, store, restarted, tmp_path):
    url = store if store == "memory:" else f"sqlite:///{tmp_path}/hub.db"
    async with environment(app_with(orchestrator), store=url) as env:
        for entity in (A, B, C):
            await env.client.signal_entity(entity, "add", 100)
        ids = [
            await env.client.start_new("main", None, [source, target, 60])
            for source, target in ("ab", "bc", "ca", "ba", "cb", "ac")
        ]
        if restarted:
            await env.advance(seconds=2)
            await env.restart()
        for instance_id in ids:
            status = await env.client.wait_for_completion(instance_id)
            assert (status.runtime_status, status.output) == (S.Completed, [])
        found = await balances(env)
        locked = [entity.locked_by for entity in (await env.client.query_entities()).entities]
        report = verify(env.store)

    assert sum(found) == 300 and min(found) >= 0
    assert locked == ["", "", ""]
    assert report.ok, report.problems


def holder_yield(context: OrchestrationContext):
    if context.get_input() == "second":
        yield context.wait_for_external_event("How")
        return
    with (yield context.lock(A, B)):
        yield context.call_entity(A, "note", "holder")
        how = yield context.wait_for_external_event("How")
        if how == "fail":
            raise KeyError("lost")
        if how == "anew":
            context.continue_as_new("second")
            return
        yield context.call_entity(A, "note", "holder again")


async def holder_async(context: OrchestrationContext):
    if context.get_input() == "second":
        await context.wait_for_external_event("How")
        return
    async with context.lock(A, B):
        await context.call_entity(A, "note", "holder")
        how = await context.wait_for_external_event("How")
        if how == "fail":
            raise KeyError("lost")
        if how == "anew":
            context.continue_as_new("second")
            return
        await context.call_entity(A, "note", "holder again")


async def other(context: OrchestrationContext):
    return await context.call_entity(A, "note", "other")


def by_event(how: str):
    async def end(env) -> None:
        await env.client.raise_event("holder", "How", how)

    return end


async def by_terminating(env) -> None:
    await env.client.terminate("holder", "enough")


async def by_purging(env) -> None:
    await env.client.terminate("holder", "enough")
    await env.client.purge_instance_history("holder")


async def by_terminating_suspended(env) -> None:
    await env.client.suspend("holder")
    await env.client.terminate("holder", "enough")


ENDS = {
    "complete": by_event("complete"),
    "fail": by_event("fail"),
    "continue-as-new": by_event("anew"),
    "terminate": by_terminating,
    "terminate and purge": by_purging,
    "terminate while suspended": by_terminating_suspended,
}


@both(holder_yield, holder_async)
@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("asleep", [False, True], ids=["awake", "evicted"])
async def test_however_the_holder_ends_the_entities_are_free(orchestrator, how, asleep):
    async with environment(app_with(orchestrator, other=other)) as env:
        await env.client.start_new("main", "holder")
        await env.settled()
        await env.client.start_new("other", "other")
        await env.settled()
        before = await env.client.get_status("other")
        assert before.waiting_for == "waiting for the entity @account@a to do 'note'"
        assert (await env.client.read_entity_state(A)).locked_by == "holder"
        if asleep:
            await env.evict()
        await ENDS[how](env)
        seen = (await env.client.wait_for_completion("other")).output
        states = [await env.client.read_entity_state(entity) for entity in (A, B)]

    assert seen == ["holder", *(["holder again"] if how == "complete" else []), "other"]
    assert [state.locked_by for state in states] == ["", ""]
    assert not states[1].exists


@both(holder_yield, holder_async)
async def test_terminated_between_two_grants_nothing_stays_locked(orchestrator):
    """The first entity is locked for this one, the second for somebody else."""

    async def has_b(context: OrchestrationContext):
        async with context.lock(B):
            await context.wait_for_external_event("Go")

    async with environment(app_with(orchestrator, has_b=has_b, other=other)) as env:
        await env.client.start_new("has_b", "has_b")
        await env.settled()
        await env.client.start_new("main", "holder")
        await env.settled()
        status = await env.client.get_status("holder")
        assert status.waiting_for == "waiting for the lock of the entity @account@b"
        await env.client.terminate("holder", "enough")
        await env.settled()
        assert (await env.client.read_entity_state(A)).locked_by == ""
        assert (await env.client.read_entity_state(B)).locked_by == "has_b"
        await env.client.raise_event("has_b", "Go")
        await env.client.wait_for_completion("has_b")
        assert (await env.client.read_entity_state(B)).locked_by == ""
        assert (await env.client.query_entities()).entities == []


def timed_yield(context: OrchestrationContext):
    lock = context.lock(A)
    timer = context.create_timer(timedelta(minutes=1))
    winner = yield context.task_any(lock, timer)
    if winner is timer:
        lock.cancel()
        return "gave up"
    lock.release()
    return "had it"


async def timed_async(context: OrchestrationContext):
    lock = context.lock(A)
    timer = context.create_timer(timedelta(minutes=1))
    winner = await context.task_any(lock, timer)
    if winner is timer:
        lock.cancel()
        return "gave up"
    lock.release()
    return "had it"


@both(timed_yield, timed_async)
async def test_waiting_for_a_lock_can_be_given_up(orchestrator):
    async with environment(app_with(orchestrator, holder=holder_async)) as env:
        assert (await env.run("main")).output == "had it"
        await env.client.start_new("holder", "holder")
        await env.settled()
        assert (await env.run("main")).output == "gave up"
        await env.client.raise_event("holder", "How", "complete")
        await env.client.wait_for_completion("holder")
        assert (await env.client.read_entity_state(A)).locked_by == ""


def rules_yield(context: OrchestrationContext):
    told = []
    with (yield context.lock(A, A)):
        for forbidden in (
            lambda: context.call_entity(B, "get"),
            lambda: context.lock(C),
            lambda: context.call_sub_orchestrator("other"),
        ):
            try:
                forbidden()
            except Exception as error:
                told.append(f"{type(error).__name__}: {error}")
        context.signal_entity(B, "note", "signalled")
        try:
            yield context.call_entity(A, "fail")
        except TaskFailedError as error:
            told.append(error.failure.type)
    yield context.call_entity(B, "get")
    try:
        context.lock()
    except Exception as error:
        told.append(str(error))
    try:
        with context.lock(A):
            pass
    except Exception as error:
        told.append(str(error))
    return told


async def rules_async(context: OrchestrationContext):
    told = []
    async with context.lock(A, A):
        for forbidden in (
            lambda: context.call_entity(B, "get"),
            lambda: context.lock(C),
            lambda: context.call_sub_orchestrator("other"),
        ):
            try:
                forbidden()
            except Exception as error:
                told.append(f"{type(error).__name__}: {error}")
        context.signal_entity(B, "note", "signalled")
        try:
            await context.call_entity(A, "fail")
        except TaskFailedError as error:
            told.append(error.failure.type)
    await context.call_entity(B, "get")
    try:
        context.lock()
    except Exception as error:
        told.append(str(error))
    try:
        with context.lock(A):
            pass
    except Exception as error:
        told.append(str(error))
    return told


@both(rules_yield, rules_async)
async def test_what_a_critical_section_does_not_allow(orchestrator):
    async with environment(app_with(orchestrator, other=other)) as env:
        told = (await env.run("main")).output

    assert told[0].startswith("OrchestratorError: inside a critical section only the locked entities")
    assert told[1].startswith("OrchestratorError: critical sections cannot be nested")
    assert "calling a sub-orchestration is not allowed" in told[2]
    assert told[3] == "ValueError"
    assert "at least one" in told[4]
    assert "was not awaited" in told[5]


async def test_who_sends_inside_the_section_goes_before_those_who_wait():
    async def main(context: OrchestrationContext):
        async with context.lock(A):
            context.signal_entity(A, "note", "1")
            await context.create_timer(10)
            context.signal_entity(A, "note", "2")

    async with environment(app_with(main)) as env:
        await env.client.start_new("main", "m")
        await env.advance(seconds=1)
        await env.client.signal_entity(A, "note", "outside")
        await env.client.wait_for_completion("m")
        await env.settled()
        assert (await env.client.read_entity_state(A)).state["seen"] == ["1", "2", "outside"]


async def test_a_lock_whose_holder_left_no_trace_is_released_when_somebody_waits():
    """As after a store was put back from a copy: the entity remembers a holder that never was."""
    async with environment(app_with(holder_async, other=other)) as env:
        await env.client.start_new("main", "holder")
        await env.settled()
        tables = env.store._tables
        await env.evict()
        number = tables.numbers.pop("holder")
        del tables.instances[number]
        await env.restart()
        await env.client.start_new("other", "o")
        assert (await env.client.wait_for_completion("o")).output == ["holder", "other"]
        assert (await env.client.read_entity_state(B)).locked_by == ""


async def test_a_grant_for_one_who_has_gone_is_declined():
    async with environment(app_with(holder_async, has_a=holder_async, other=other)) as env:
        await env.client.start_new("has_a", "first")
        await env.settled()
        await env.client.start_new("main", "second")
        await env.settled()
        await env.client.terminate("second", "")
        with pytest.raises(InstanceFinished):
            await env.client.terminate("second", "")
        await env.client.terminate("first", "")
        assert (await env.run("other")).output == ["holder", "other"]


async def test_a_section_survives_batches_of_one_message_each():
    limits = Settings(limits=Limits(episodes=1, feeds=1))
    async with environment(app_with(transfer_async, settings=limits)) as env:
        await env.client.signal_entity(A, "add", 100)
        ids = [await env.client.start_new("main", None, ["a", "b", 30]) for _ in range(4)]
        for instance_id in ids:
            assert (await env.client.wait_for_completion(instance_id)).runtime_status is S.Completed
        await env.settled()
        assert await balances(env) == [10, 90, 0]


async def test_an_entity_that_signals_itself_for_ever_does_not_starve_others():
    def restless(context: EntityContext):
        context.set_state(context.get_state(int) + 1)
        if context.get_state() < 5_000:
            context.signal_entity(context.entity_id, "again")

    app = app_with(other=other)
    app.entity(restless)
    async with environment(app) as env:
        batches: list[int] = []
        env.engine.loop._committed = lambda batch, seconds: batches.append(len(batch.history))
        await env.client.signal_entity(EntityId("restless", "r"), "go")
        await env.run("other")
        assert len(batches) < 10
        await env.settled()
        assert (await env.client.read_entity_state(EntityId("restless", "r"))).state == 5_000
