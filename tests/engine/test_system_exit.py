"""Whatever a body raises, `sys.exit()` included, ends its own call and nothing else."""

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from perdure import App, EntityContext, EntityId, OrchestrationContext, RetryPolicy, RuntimeStatus
from perdure.testing import environment
from tests.core.styles import both
from tests.engine.programs import app_with, until

S = RuntimeStatus
EXITS = [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError]


def call_yield(context: OrchestrationContext):
    try:
        yield context.call_activity("work")
    except Exception as error:
        return error.failure.type


async def call_async(context: OrchestrationContext):
    try:
        await context.call_activity("work")
    except Exception as error:
        return error.failure.type


def told(failure_type: object) -> str:
    return str(failure_type).rpartition(".")[2]


@both(call_yield, call_async)
@pytest.mark.parametrize("kind", ["def", "async def", "async def that waits"])
@pytest.mark.parametrize("raised", EXITS)
async def test_an_activity_that_exits_has_failed_and_the_engine_goes_on(orchestrator, kind, raised):
    def work():
        raise raised(2)

    async def work_async():
        raise raised(2)

    async def work_waiting():
        await asyncio.sleep(0)
        raise raised(2)

    async def fine():
        await asyncio.sleep(0)
        return "fine"

    async def other(context: OrchestrationContext):
        return await context.call_activity("fine")

    app = app_with(orchestrator, fine)
    app.activity(name="work")({"def": work, "async def": work_async}.get(kind, work_waiting))
    app.orchestrator(name="other")(other)
    async with environment(app) as env:
        assert told((await env.run("main")).output) == raised.__name__
        assert (await env.run("other")).output == "fine"


@pytest.mark.parametrize("raised", EXITS)
@pytest.mark.parametrize("style", ["yield", "async"])
async def test_an_orchestrator_that_exits_has_failed_and_the_engine_goes_on(style, raised):
    def exits_yield(context: OrchestrationContext):
        yield context.create_timer(1)
        raise raised(2)

    async def exits_async(context: OrchestrationContext):
        await context.create_timer(1)
        raise raised(2)

    app = app_with(exits_yield if style == "yield" else exits_async)
    app.orchestrator(name="fine")(lambda context: "fine")
    async with environment(app) as env:
        status = await env.run("main")
        assert (status.runtime_status, told(status.failure.type)) == (S.Failed, raised.__name__)
        assert (await env.run("fine")).output == "fine"


@pytest.mark.parametrize("raised", EXITS)
@pytest.mark.parametrize(("offload", "is_async"), [(False, False), (True, False), (True, True)])
async def test_an_entity_operation_that_exits_is_undone_and_the_engine_goes_on(raised, offload, is_async):
    def counter(context: EntityContext):
        context.set_state(context.get_state(0) + 1)
        if context.operation_name == "exit":
            raise raised(2)

    async def counter_async(context: EntityContext):
        counter(context)

    async def flow(context: OrchestrationContext):
        name = EntityId("counter", "a")
        await context.call_entity(name, "add")
        try:
            await context.call_entity(name, "exit")
        except Exception as error:
            return error.failure.type

    app = App("exits")
    app.entity(name="counter", offload=offload)(counter_async if is_async else counter)
    app.orchestrator(flow)
    async with environment(app) as env:
        assert told((await env.run("flow")).output) == raised.__name__
        assert (await env.client.read_entity_state(EntityId("counter", "a"))).entity_state == 1


@dataclass
class Exits:
    amount: int

    def __post_init__(self) -> None:
        if self.amount < 0:
            raise SystemExit(2)


async def test_a_type_that_exits_while_it_is_read_is_a_misfit():
    async def takes(context: OrchestrationContext, claim: Exits):
        got = await context.wait_for_external_event("Claim", Exits)
        return got.amount

    def work(claim: Exits): ...

    async def calls(context: OrchestrationContext):
        await context.call_activity(work, {"amount": -1})

    app = App("exits")
    app.orchestrator(name="takes")(takes)
    app.orchestrator(name="declares", events={"Claim": Exits})(takes)
    app.orchestrator(calls)
    app.activity(work)
    async with environment(app) as env:
        assert (await env.run("takes", {"amount": -1})).runtime_status is S.Failed
        assert (await env.run("calls")).runtime_status is S.Failed
        declared = await env.client.start_new("declares", None, {"amount": 1})
        with pytest.raises(Exception, match="SystemExit"):
            await env.client.raise_event(declared, "Claim", {"amount": -1})
        await env.client.raise_event(declared, "Claim", {"amount": 7})
        assert (await env.client.wait_for_completion(declared)).output == 7


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise SystemExit(2)


@both(call_yield, call_async)
async def test_an_exception_whose_text_exits_is_a_failure_like_any_other(orchestrator):
    async def work():
        raise Unspeakable

    async with environment(app_with(orchestrator, work)) as env:
        assert (await env.run("main")).output.endswith("Unspeakable")


# ------------------------------------------------------------------------------- cancelled by its own side


def timed_yield(context: OrchestrationContext):
    try:
        return (yield context.call_activity("work", timeout=60, retry=RetryPolicy(1, 2)))
    except Exception as error:
        return told(error.failure.type)


async def timed_async(context: OrchestrationContext):
    try:
        return await context.call_activity("work", timeout=60, retry=RetryPolicy(1, 2))
    except Exception as error:
        return told(error.failure.type)


@both(timed_yield, timed_async)
async def test_an_activity_that_cancels_itself_has_failed_and_is_retried(orchestrator):
    attempts = []

    async def work():
        attempts.append(1)
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    async with environment(app_with(orchestrator, work)) as env:
        assert (await env.run("main")).output == "CancelledError"
    assert len(attempts) == 2


@both(call_yield, call_async)
@pytest.mark.parametrize("undone", [False, True])
async def test_a_cancellation_left_behind_does_not_reach_the_next_activity(orchestrator, undone):
    async def work():
        asyncio.current_task().cancel()
        if undone:
            asyncio.current_task().uncancel()
        return "left it behind"

    async def waits():
        await asyncio.sleep(0)
        return "undisturbed"

    async def many(context: OrchestrationContext):
        calls = [context.call_activity("work" if n % 2 else "waits") for n in range(20)]
        return sorted(set(await context.task_all(calls)))

    app = app_with(orchestrator, work, waits)
    app.orchestrator(many)
    async with environment(app) as env:
        assert (await env.run("many")).output == ["left it behind", "undisturbed"]


async def test_an_activity_that_swallows_its_cancellation_has_failed_at_its_deadline():
    let_go = asyncio.Event()

    async def work():
        while not let_go.is_set():
            try:
                await let_go.wait()
            except:  # noqa: E722  (what some code does)
                pass

    async def timed(context: OrchestrationContext):
        try:
            await context.call_activity("work", timeout=0.01)
        except Exception as error:
            return error.failure.type

    async with environment(app_with(timed, work)) as env:
        assert (await env.run("main")).output == "TimeoutError"
        let_go.set()


class Cancelling(ThreadPoolExecutor):
    """An executor that cancels the first of what it is given."""

    asked = 0

    def submit(self, *args, **kwargs):
        Cancelling.asked += 1
        if Cancelling.asked > 1:
            return super().submit(*args, **kwargs)
        cancelled: Future = Future()
        cancelled.cancel()
        return cancelled


async def test_an_activity_that_its_executor_cancels_has_failed():
    Cancelling.asked = 0
    app = App("cancelled")
    app.activity(name="work", executor=Cancelling(1))(plain)
    app.orchestrator(name="main")(timed_async)
    async with app.running(store="memory:") as client:
        status = await client.wait_for_completion(await client.start_new("main"))
    assert (status.output, Cancelling.asked) == ("done", 2)


def plain():
    return "done"


@pytest.mark.parametrize("closing", ["the host", "the engine"])
async def test_an_activity_cut_off_by_the_end_of_its_host_runs_again(closing, tmp_path):
    """`asyncio.run` cancels every task at its end: that is no failure of the body."""
    begun = []

    async def work():
        begun.append(1)
        if len(begun) == 1:
            await asyncio.Event().wait()
        return "second time"

    async with environment(app_with(call_or_return, work), store=f"sqlite:///{tmp_path}/hub.db") as env:
        instance = await env.client.start_new("main")
        await until(lambda: begun)
        if closing == "the host":
            mine = asyncio.current_task()
            for task in asyncio.all_tasks():
                if task is not mine and (task.get_name() == "perdure-host" or "_drive" in repr(task)):
                    task.cancel()
            await asyncio.sleep(0)
        await env.restart()
        assert (await env.client.wait_for_completion(instance)).output == "second time"


async def call_or_return(context: OrchestrationContext):
    return await context.call_activity("work")


# --------------------------------------------------------------------------------- in a task of the body's own


async def exits():
    raise SystemExit(2)


async def created():
    await asyncio.create_task(exits())


async def gathered():
    await asyncio.gather(exits(), asyncio.sleep(3600))


async def grouped():
    async with asyncio.TaskGroup() as group:
        group.create_task(exits())


async def deeply():
    await asyncio.create_task(created())


async def left_alone():
    task = asyncio.create_task(exits())
    while not task.done():
        await asyncio.sleep(0)
    await task


@both(call_yield, call_async)
@pytest.mark.parametrize("work", [created, gathered, deeply, left_alone])
async def test_a_task_that_a_body_creates_may_exit_without_ending_the_process(orchestrator, work):
    app = App("tasks")
    app.orchestrator(name="main")(orchestrator)
    app.activity(name="work")(work)
    async with environment(app) as env:
        assert told((await env.run("main")).output) == "SystemExit"


async def test_a_task_group_that_exits_names_the_exit_among_its_members():
    app = App("groups")
    app.activity(name="work", retry=RetryPolicy(1, 3, non_retryable=(SystemExit,)))(grouped)
    app.orchestrator(name="main")(call_or_return)
    async with environment(app) as env:
        status = await env.run("main")
        assert status.runtime_status is S.Failed
        assert "SystemExit" in repr(status.failure)
        assert len(env.calls("work")) == 1


async def test_an_operation_whose_task_exits_has_failed_and_the_next_one_runs():
    async def counter(context: EntityContext):
        context.set_state(context.get_state(0) + 1)
        if context.operation_name == "exit":
            await asyncio.create_task(exits())

    async def flow(context: OrchestrationContext):
        try:
            await context.call_entity(EntityId("counter", "a"), "exit")
        except Exception as error:
            await context.call_entity(EntityId("counter", "a"), "add")
            return error.failure.type

    app = App("exits")
    app.entity(name="counter", offload=True)(counter)
    app.orchestrator(flow)
    async with environment(app) as env:
        assert told((await env.run("flow")).output) == "SystemExit"
        assert (await env.client.read_entity_state(EntityId("counter", "a"))).entity_state == 1


async def test_only_tasks_of_bodies_are_looked_after_and_an_own_factory_still_makes_them():
    loop, made = asyncio.get_running_loop(), []

    def factory(loop, coroutine, **options):
        made.append(coroutine.__name__)
        return asyncio.Task(coroutine, loop=loop, **options)

    async def mine():
        return asyncio.current_task().get_coro()

    async def work():
        task = asyncio.create_task(mine())
        return type(await task).__name__ + " " + task.get_coro().cr_code.co_name

    loop.set_task_factory(factory)
    try:
        async with environment(app_with(call_or_return, work)) as env:
            assert (await env.run("main")).output == "_Contained mine"
            assert type(await asyncio.create_task(mine())).__name__ == "coroutine"
            async with environment(app_with(call_or_return, work)) as second:  # two engines on one event loop
                await second.run("main")
            assert (await env.run("main")).output == "_Contained mine"
        assert "mine" in made
        assert loop.get_task_factory() is factory
    finally:
        loop.set_task_factory(None)


async def test_a_task_that_is_cancelled_before_it_begins_leaves_no_warning(recwarn):
    async def work():
        task = asyncio.create_task(exits())
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    async with environment(app_with(call_or_return, work)) as env:
        assert (await env.run("main")).output is True
    assert not [warning for warning in recwarn if "never awaited" in str(warning.message)]
