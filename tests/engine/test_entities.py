"""Entities: calls, signals, state, failures, deletion, order; in both styles of entity and of orchestrator."""

from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from perdure import (
    App,
    EntityContext,
    EntityId,
    FunctionNotFound,
    IllegalTransition,
    InvalidInstanceId,
    OrchestrationContext,
    PayloadError,
    RegistrationError,
    RuntimeStatus,
    Settings,
    TaskFailedError,
)
from perdure.engine.upkeep.verification import verify
from perdure.testing import environment
from tests.core.styles import both

S = RuntimeStatus
ONE = EntityId("Counter", "one")
TWO = EntityId("Counter", "two")


class Counter:
    """The state is the attributes."""

    value: int = 0

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    def get(self) -> int:
        return self.value

    def fail(self, context: EntityContext, amount: int) -> None:
        self.value += amount
        context.signal_entity(TWO, "add", amount)
        raise ValueError("no such amount")

    def pass_on(self, amount: int, context: EntityContext) -> str:
        self.value -= amount
        context.signal_entity(TWO, "add", amount)
        return context.entity_key


@dataclass
class Basket:
    """A dataclass as a whole."""

    items: dict[str, int] = field(default_factory=dict)

    def put(self, item: str) -> int:
        self.items[item] = self.items.get(item, 0) + 1
        return self.items[item]

    def total(self) -> int:
        return sum(self.items.values())


def register(context: EntityContext):
    """A function that looks at the operation's name, as in Azure."""
    kept = context.get_state(list)
    match context.operation_name:
        case "append":
            kept.append(context.get_input())
            context.set_state(kept)
            if kept[-1] == "bad":
                context.signal_entity(ONE, "add", 1000)
                raise ValueError("bad is refused")
            context.set_result(len(kept))
        case "read":
            return kept
        case "clear":
            context.destruct_on_exit()


def app_with(orchestrator=None, **named) -> App:
    app = App("claims")
    app.entity(name="Counter")(Counter)
    app.entity(Basket)
    app.entity(name="register")(register)
    if orchestrator is not None:
        app.orchestrator(name="main")(orchestrator)
    for name, function in named.items():
        app.orchestrator(name=name)(function)
    return app


def call_yield(context: OrchestrationContext):
    first = yield context.call_entity(ONE, "add", 5)
    second = yield context.call_entity(ONE, "add", 2, int)
    return [first, second]


async def call_async(context: OrchestrationContext):
    first = await context.call_entity(ONE, "add", 5)
    second = await context.call_entity(ONE, "add", 2, int)
    return [first, second]


@both(call_yield, call_async)
@pytest.mark.parametrize("store", ["memory:", "sqlite"])
async def test_a_call_changes_the_state_and_gets_its_answer(orchestrator, store, tmp_path):
    url = store if store == "memory:" else f"sqlite:///{tmp_path}/hub.db"
    async with environment(app_with(orchestrator), store=url) as env:
        assert (await env.run("main")).output == [5, 7]
        await env.restart()
        assert (await env.run("main")).output == [12, 14]
        state = await env.client.read_entity_state(ONE)
        report = verify(env.store)

    assert (state.exists, state.state, state.entity_id.key) == (True, {"value": 14}, "one")
    assert report.ok, report.problems


@pytest.mark.parametrize("evicted", [False, True])
async def test_the_state_outlives_eviction_and_restart(evicted):
    async with environment(app_with(call_yield)) as env:
        await env.client.signal_entity(ONE, "add", 3)
        if evicted:
            await env.evict()
        else:
            await env.restart()
        await env.client.signal_entity(ONE, "ADD", 4)
        assert (await env.client.read_entity_state("@counter@one")).state == {"value": 7}


async def test_a_dataclass_is_the_state_as_a_whole():
    async with environment(app_with()) as env:
        basket = EntityId("basket", "b")
        for item in ("pear", "plum", "pear"):
            await env.client.signal_entity(basket, "put", item)
        assert (await env.client.read_entity_state(basket)).state == {"items": {"pear": 2, "plum": 1}}


async def test_a_function_looks_at_the_operations_name():
    async with environment(app_with()) as env:
        entity = EntityId("Register", "r")
        await env.client.signal_entity(entity, "append", "a")
        await env.client.signal_entity(entity, "append", "bad")
        await env.client.signal_entity(entity, "append", "b")
        assert (await env.client.read_entity_state(entity)).state == ["a", "b"]
        assert not (await env.client.read_entity_state(ONE)).exists
        (dropped,) = env.store.dropped("@register@r", 10)

    assert (dropped.kind, dropped.name) == ("operation", "append")
    assert "ValueError: bad is refused" in dropped.reason


def failing_yield(context: OrchestrationContext):
    yield context.call_entity(ONE, "add", 1)
    try:
        yield context.call_entity(ONE, "fail", 50)
    except TaskFailedError as error:
        return [str(error), error.failure.type, (yield context.call_entity(ONE, "get"))]


async def failing_async(context: OrchestrationContext):
    await context.call_entity(ONE, "add", 1)
    try:
        await context.call_entity(ONE, "fail", 50)
    except TaskFailedError as error:
        return [str(error), error.failure.type, await context.call_entity(ONE, "get")]


@both(failing_yield, failing_async)
async def test_a_failed_operation_takes_back_its_state_and_its_signals(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        output = (await env.run("main")).output
        assert not (await env.client.read_entity_state(TWO)).exists

    assert output[0] == "the operation 'fail' of the entity @counter@one failed: ValueError: no such amount"
    assert output[1:] == ["ValueError", 1]


async def test_an_unknown_operation_fails_the_call_with_the_known_ones():
    async def main(context: OrchestrationContext):
        await context.call_entity(ONE, "subtract", 1)

    async with environment(app_with(main)) as env:
        failure = (await env.run("main")).failure

    assert "has no operation 'subtract'; it has add, fail, get, pass_on" in failure.message


async def test_an_input_that_does_not_fit_fails_the_operation():
    async def main(context: OrchestrationContext):
        await context.call_entity(ONE, "add", "much")

    async with environment(app_with(main)) as env:
        failure = (await env.run("main")).failure
        assert not (await env.client.read_entity_state(ONE)).exists

    assert failure.cause.type == "perdure.errors.PayloadError"


async def test_entities_signal_one_another_when_the_operation_succeeds():
    async def main(context: OrchestrationContext):
        return await context.call_entity(ONE, "pass_on", 4)

    async with environment(app_with(main)) as env:
        assert (await env.run("main")).output == "one"
        assert (await env.client.read_entity_state(ONE)).state == {"value": -4}
        assert (await env.client.read_entity_state(TWO)).state == {"value": 4}


async def test_an_entity_starts_an_orchestration():
    def starter(context: EntityContext):
        context.set_state(context.start_new("child", "chosen", context.get_input()))

    async def child(context: OrchestrationContext):
        return context.get_input()

    app = app_with(child=child)
    app.entity(starter)
    async with environment(app) as env:
        await env.client.signal_entity(EntityId("starter", ""), "go", {"n": 1})
        assert (await env.client.wait_for_completion("chosen")).output == {"n": 1}


def delete_yield(context: OrchestrationContext):
    yield context.call_entity(ONE, "add", 5)
    yield context.call_entity(ONE, "delete")
    return (yield context.call_entity(ONE, context.get_input()["then"]))


async def delete_async(context: OrchestrationContext):
    await context.call_entity(ONE, "add", 5)
    await context.call_entity(ONE, "delete")
    return await context.call_entity(ONE, context.get_input()["then"])


@both(delete_yield, delete_async)
@pytest.mark.parametrize("store", ["memory:", "sqlite"])
async def test_a_deleted_entity_begins_anew(orchestrator, store, tmp_path):
    url = store if store == "memory:" else f"sqlite:///{tmp_path}/hub.db"
    async with environment(app_with(orchestrator), store=url) as env:
        assert (await env.run("main", {"then": "get"})).output == 0
        assert (await env.run("main", {"then": "delete"})).output is None
        assert not (await env.client.read_entity_state(ONE)).exists
        assert (await env.client.query_entities()).entities == []
        await env.client.signal_entity(ONE, "add", 3)
        assert (await env.client.read_entity_state(ONE)).state == {"value": 3}


async def test_a_delayed_signal_outlives_the_entity_it_is_for():
    async with environment(app_with()) as env:
        await env.client.signal_entity(ONE, "add", 1)
        await env.client.signal_entity(ONE, "add", 10, at=env.now + timedelta(hours=1))
        await env.client.signal_entity(ONE, "delete")
        assert not (await env.client.read_entity_state(ONE)).exists
        await env.restart()
        await env.advance(hours=1)
        assert (await env.client.read_entity_state(ONE)).state == {"value": 10}


def delayed_yield(context: OrchestrationContext):
    entity = EntityId("register", "r")
    now = context.current_utc_datetime
    context.signal_entity(entity, "append", "late", at=now + timedelta(hours=2))
    context.signal_entity(entity, "append", "soon", at=now + timedelta(hours=1))
    context.signal_entity(entity, "append", "now")
    yield context.create_timer(1)


async def delayed_async(context: OrchestrationContext):
    entity = EntityId("register", "r")
    now = context.current_utc_datetime
    context.signal_entity(entity, "append", "late", at=now + timedelta(hours=2))
    context.signal_entity(entity, "append", "soon", at=now + timedelta(hours=1))
    context.signal_entity(entity, "append", "now")
    await context.create_timer(1)


@both(delayed_yield, delayed_async)
async def test_delayed_signals_arrive_at_their_time(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        await env.run("main")
        entity = EntityId("register", "r")
        assert (await env.client.read_entity_state(entity)).state == ["now"]
        await env.advance(hours=1)
        assert (await env.client.read_entity_state(entity)).state == ["now", "soon"]
        await env.advance(hours=1)
        assert (await env.client.read_entity_state(entity)).state == ["now", "soon", "late"]


def ordered_yield(context: OrchestrationContext):
    entity = EntityId("register", "r")
    for number in range(300):
        context.signal_entity(entity, "append", number)
    return (yield context.call_entity(entity, "read"))


async def ordered_async(context: OrchestrationContext):
    entity = EntityId("register", "r")
    for number in range(300):
        context.signal_entity(entity, "append", number)
    return await context.call_entity(entity, "read")


@both(ordered_yield, ordered_async)
async def test_what_one_sender_sends_arrives_in_order(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        assert (await env.run("main")).output == list(range(300))


def many_yield(context: OrchestrationContext):
    entity = context.get_input()
    calls = [
        context.call_entity(f"@counter@{n if entity is None else entity}", "add", 1) for n in range(1000)
    ]
    return sum((yield context.task_all(calls)))


async def many_async(context: OrchestrationContext):
    total = 0
    for _ in range(1000):
        total = await context.call_entity(ONE, "add", 1)
    return total


@pytest.mark.parametrize(
    ("orchestrator", "input_", "expected"),
    [(many_yield, None, 1000), (many_yield, "one", 500_500), (many_async, None, 1000)],
    ids=["a thousand entities", "one entity", "one entity, one by one"],
)
async def test_a_thousand_calls_cost_a_handful_of_commits(orchestrator, input_, expected):
    async with environment(app_with(orchestrator)) as env:
        commits: list[int] = []
        env.engine.loop._committed = lambda batch, seconds: commits.append(len(batch.history))
        assert (await env.run("main", input_)).output == expected

    assert len(commits) <= 6, commits


async def test_the_history_of_an_entity_stays_bounded_and_names_what_was_done():
    async with environment(app_with(), store="memory:") as env:
        for _ in range(100):
            await env.client.signal_entity(ONE, "add", 1)
        stored = env.store.get("@counter@one")
        executions = env.store.executions(stored.row.instance_no)
        rows = [env.store.history_of(stored.row.instance_no, no).history for no in executions]
        report = verify(env.store)

    assert sum(map(len, rows)) <= 32
    assert b'"type":"EntityOperated","operation":"add"' in rows[-1][-1].events
    assert report.ok, report.problems


async def test_lists_and_counts_show_orchestrations_only():
    async with environment(app_with(call_yield)) as env:
        await env.run("main", instance_id="m")
        assert [i.instance_id for i in (await env.client.query()).instances] == ["m"]
        assert await env.client.counts() == {"Completed": 1}
        page = await env.client.query_entities(name="Counter", fetch_state=True)

    assert [(str(e.entity_id), e.state) for e in page.entities] == [("@counter@one", {"value": 7})]


@both(call_yield, call_async)
async def test_operations_for_an_entity_that_a_deploy_lacks_wait_visibly_and_go_when_another_has_it(
    orchestrator,
):
    bare = App("claims")
    bare.orchestrator(name="main")(orchestrator)
    async with environment(app_with(orchestrator)) as env:
        await env.client.signal_entity(ONE, "add", 0)
        await env.client.suspend("@counter@one")
        await env.client.start_new("main", "m")
        await env.settled()
        suspended = await env.client.get_status("m")
        await env.restart(bare)
        await env.client.resume("@counter@one")
        await env.settled()
        status = await env.client.get_status("m")
        (waiting,) = (await env.client.query_entities()).entities
        await env.restart(app_with(orchestrator))
        output = (await env.client.wait_for_completion("m")).output

    reason = "no_worker: no worker here has the entity 'counter'"
    assert suspended.waiting_for.endswith("which is on hold (operator)")
    assert waiting.reason == status.waiting.operations[0].reason == reason
    assert status.waiting_for == (
        f"waiting for the entity @counter@one to do 'add', which is on hold ({reason})"
    )
    assert output == [5, 7]


def signals_nobody_yield(context: OrchestrationContext):
    context.signal_entity("@counterr@k", "add", 1)
    yield context.create_timer(1)
    return "signalled"


async def signals_nobody_async(context: OrchestrationContext):
    context.signal_entity("@counterr@k", "add", 1)
    await context.create_timer(1)
    return "signalled"


def calls_nobody_yield(context: OrchestrationContext):
    return (yield context.call_entity("@counterr@k", "add", 1))


async def calls_nobody_async(context: OrchestrationContext):
    return await context.call_entity("@counterr@k", "add", 1)


def locks_nobody_yield(context: OrchestrationContext):
    with (yield context.lock(ONE, "@counterr@k")):
        return "locked"


async def locks_nobody_async(context: OrchestrationContext):
    async with context.lock(ONE, "@counterr@k"):
        return "locked"


@both(
    (signals_nobody_yield, calls_nobody_yield, locks_nobody_yield),
    (signals_nobody_async, calls_nobody_async, locks_nobody_async),
)
@pytest.mark.parametrize("which", [0, 1, 2])
async def test_an_orchestration_that_needs_an_entity_nobody_has_waits_with_that_reason(orchestrator, which):
    main = orchestrator[which]
    whole = app_with(main)
    whole.entity(name="counterr")(Counter)
    async with environment(app_with(main)) as env:
        await env.client.start_new("main", "m")
        await env.settled()
        status = await env.client.get_status("m")
        (listed,) = (await env.client.query()).instances
        entities = (await env.client.query_entities()).entities
        await env.restart(whole)
        after = await env.client.wait_for_completion("m")

    assert status.reason.startswith("no_worker: no entity named 'counterr' is registered in this application")
    assert status.waiting_for == "waiting for a worker that has an entity that it calls (PDR-072)"
    assert listed.waiting_for == status.waiting_for
    assert entities == [], "nothing was sent"
    assert after.runtime_status == "Completed"


async def test_a_client_cannot_signal_an_entity_that_nobody_has():
    async with environment(app_with()) as env:
        with pytest.raises(
            FunctionNotFound, match="no entity named 'counterr' is registered .* it has basket, counter"
        ):
            await env.client.signal_entity("@counterr@k", "add", 1)
        assert (await env.client.query_entities()).entities == []
        await env.client.signal_entity("@Counter@k", "add", 1)


@pytest.mark.parametrize("offload", [False, True])
async def test_an_entity_cannot_signal_an_entity_that_nobody_has(offload):
    def relay(context: EntityContext) -> None:
        context.signal_entity("@counterr@k", "add", 1)

    async def main(context: OrchestrationContext):
        await context.call_entity("@relay@k", "go")

    app = app_with(main)
    app.entity(name="relay", offload=offload)(relay)
    async with environment(app) as env:
        failure = (await env.run("main")).failure

    assert failure.cause.type.endswith("FunctionNotFound")
    assert "no entity named 'counterr'" in failure.cause.message


async def test_a_suspended_entity_keeps_what_comes_and_does_it_when_resumed():
    async with environment(app_with()) as env:
        await env.client.signal_entity(ONE, "add", 1)
        await env.client.suspend("@counter@one", "maintenance")
        await env.client.signal_entity(ONE, "add", 2)
        state = await env.client.read_entity_state(ONE)
        assert (state.state, state.reason) == ({"value": 1}, "operator: maintenance")
        await env.restart()
        await env.client.signal_entity(ONE, "add", 4)
        await env.client.resume("@counter@one")
        await env.settled()
        assert (await env.client.read_entity_state(ONE)).state == {"value": 7}


async def test_verbs_of_orchestrations_are_refused_for_entities():
    async with environment(app_with(call_yield)) as env:
        await env.client.signal_entity(ONE, "add", 1)
        for verb in (
            env.client.terminate("@counter@one"),
            env.client.raise_event("@counter@one", "Event"),
            env.client.purge_instance_history("@counter@one"),
        ):
            with pytest.raises(IllegalTransition, match="entity"):
                await verb
        with pytest.raises(InvalidInstanceId):
            await env.client.start_new("main", "@counter@one")


async def test_purging_a_suspended_entity_answers_who_waits_for_it():
    async def main(context: OrchestrationContext):
        return await context.call_entity(ONE, "add", 5)

    async with environment(app_with(main)) as env:
        await env.client.signal_entity(ONE, "add", 1)
        await env.client.suspend("@counter@one")
        await env.client.start_new("main", "m")
        await env.settled()
        assert await env.client.purge_instance_history("@counter@one") == 1
        assert "was purged by an operator" in (await env.client.wait_for_completion("m")).failure.message
        assert not (await env.client.read_entity_state(ONE)).exists


async def test_a_repeated_signal_counts_once():
    async with environment(app_with()) as env:
        for _ in range(3):
            await env.client.signal_entity(ONE, "add", 1, operation_id="the-one")
        assert (await env.client.read_entity_state(ONE)).state == {"value": 1}


@pytest.mark.parametrize(
    "name_and_key", [("", "k"), ("a@b", "k"), ("a", "k/l"), ("a", "\n"), ("a", "k" * 300), ("a", 5)]
)
def test_ids_that_break_the_rules_are_refused(name_and_key):
    with pytest.raises(InvalidInstanceId):
        EntityId(*name_and_key)


def test_ids_are_equal_whatever_the_case_of_their_names():
    assert EntityId("Counter", "A") == EntityId("counter", "A") != EntityId("counter", "a")
    assert EntityId.parse("@counter@a@b") == EntityId("Counter", "a@b")
    assert len({EntityId("Counter", "A"), EntityId("counter", "A")}) == 1


async def asynchronous(context: EntityContext): ...


def generating(context: EntityContext):
    yield


class Demanding:
    def __init__(self, number: int) -> None: ...


class TwoInputs:
    def put(self, a: int, b: int) -> None: ...


@pytest.mark.parametrize("function", [asynchronous, generating, Demanding, TwoInputs, 5])
def test_what_cannot_be_an_entity_is_refused_while_decorating(function):
    with pytest.raises(RegistrationError):
        App("claims").entity(function)


async def test_state_that_json_cannot_carry_fails_the_operation():
    def odd(context: EntityContext):
        context.set_state(object())

    async def main(context: OrchestrationContext):
        await context.call_entity(EntityId("odd", "o"), "go")

    app = app_with(main)
    app.entity(odd)
    async with environment(app) as env:
        failure = (await env.run("main")).failure

    assert failure.cause.type.endswith(PayloadError.__name__)


async def test_an_operation_that_keeps_the_loop_to_itself_fails_and_the_entity_stands_still():
    spinning = {"on": True}

    def spin(context: EntityContext):
        context.set_state("half done")
        while spinning["on"]:
            pass
        context.set_state("done")

    async def main(context: OrchestrationContext):
        await context.call_entity("@spin@s", "go")

    app = app_with(main)
    app.entity(spin)
    async with environment(app, settings=Settings(interrupt_after=0.3)) as env:
        failure = (await env.run("main")).failure
        spinning["on"] = False
        await env.client.signal_entity("@spin@s", "go")
        parked = await env.client.read_entity_state("@spin@s")
        await env.client.resume("@spin@s")
        await env.settled()
        after = await env.client.read_entity_state("@spin@s")

    assert failure.cause.type == "TimeoutError"
    assert (parked.exists, parked.reason.partition(":")[0]) == (False, "poison")
    assert (after.state, after.reason) == ("done", "")
