"""One rewind is enough: it takes back every failure that brought the end about, and no other."""

import pytest

from perdure import App, OrchestrationContext, RetryPolicy, RuntimeStatus, TaskFailedError
from perdure.engine.upkeep.verification import verify
from perdure.testing import environment

S = RuntimeStatus
RETRY = RetryPolicy(first_interval=10, max_attempts=2)


class Bank:
    def __init__(self) -> None:
        self.is_down = True
        self.runs: list[str] = []

    def pay(self, what: str) -> str:
        self.runs.append(what)
        if self.is_down and not what.startswith("ok"):
            raise ConnectionError(f"no bank for {what}")
        return f"paid {what}"


def gathered(chained: bool):
    async def main(context: OrchestrationContext):
        done, errors = [], []
        for task in [context.call_activity("pay", str(n)) for n in range(3)]:
            try:
                done.append(await task)
            except TaskFailedError as error:
                errors.append(error)
        if errors and chained:
            raise RuntimeError("payments failed") from errors[0]
        if errors:
            raise RuntimeError("payments failed")
        return done

    def main_yield(context: OrchestrationContext):
        done, errors = [], []
        for task in [context.call_activity("pay", str(n)) for n in range(3)]:
            try:
                done.append((yield task))
            except TaskFailedError as error:
                errors.append(error)
        if errors and chained:
            raise RuntimeError("payments failed") from errors[0]
        if errors:
            raise RuntimeError("payments failed")
        return done

    return main, main_yield


async def group(context: OrchestrationContext):
    done, errors = [], []
    for n in range(3):
        try:
            done.append(await context.call_activity("pay", str(n)))
        except TaskFailedError as error:
            errors.append(error)
    if errors:
        raise ExceptionGroup("payments failed", errors)
    return done


async def branches(context: OrchestrationContext):
    async def branch(n):
        return await context.call_activity("pay", str(n))

    running = [context.spawn(branch(n)) for n in range(3)]
    await context.create_timer(60)
    return await context.task_all(running)


async def at_the_end(context: OrchestrationContext):
    tasks = [context.call_activity("pay", str(n)) for n in range(3)]
    await context.create_timer(60)
    await context.call_activity("pay", "ok meanwhile")
    return await context.task_all(tasks)


async def retried(context: OrchestrationContext):
    tasks = [context.call_activity("pay", str(n), retry=RETRY) for n in range(3)]
    await context.create_timer(60)
    return await context.task_all(tasks)


async def children(context: OrchestrationContext):
    tasks = [context.call_sub_orchestrator("middle", str(n)) for n in range(3)]
    await context.create_timer(60)
    return await context.task_all(tasks)


async def middle(context: OrchestrationContext, what: str):
    tasks = [context.call_sub_orchestrator("leaf", what) for _ in range(2)]
    await context.create_timer(30)
    return (await context.task_all(tasks))[0]


async def leaf(context: OrchestrationContext, what: str):
    first = context.call_activity("pay", what)
    second = context.call_activity("pay", what)
    await context.create_timer(10)
    await context.task_all(first, second)
    return first.result


async def entities(context: OrchestrationContext):
    tasks = [context.call_entity(f"@teller@{n}", "pay", str(n)) for n in range(3)]
    await context.create_timer(60)
    return await context.task_all(tasks)


FORMS = {
    "gathered": gathered(True)[0],
    "gathered, yield": gathered(True)[1],
    "unchained": gathered(False)[0],
    "unchained, yield": gathered(False)[1],
    "group": group,
    "branches": branches,
    "at the end": at_the_end,
    "retried": retried,
    "children": children,
    "entities": entities,
}


def app_of(bank: Bank, main) -> App:
    app = App("bank")
    app.orchestrator(name="main")(main)
    app.orchestrator(name="middle")(middle)
    app.orchestrator(name="leaf")(leaf)

    @app.activity
    def pay(what: str) -> str:
        return bank.pay(what)

    @app.entity
    class teller:
        def pay(self, what: str) -> str:
            return bank.pay(what)

    return app


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("restarted", [False, True])
async def test_one_rewind_takes_back_all_that_failed(form, restarted):
    bank = Bank()
    async with environment(app_of(bank, FORMS[form])) as env:
        instance = await env.client.start_new("main")
        assert (await env.client.wait_for_completion(instance)).runtime_status is S.Failed
        bank.is_down = False
        if restarted:
            await env.restart()
        await env.client.rewind(instance, "the bank is back")
        status = await env.client.wait_for_completion(instance)
        report = verify(env.store)

    assert status.output == ["paid 0", "paid 1", "paid 2"]
    assert bank.runs.count("ok meanwhile") == (1 if form == "at the end" else 0)
    assert report.ok, report.problems


async def tolerant(context: OrchestrationContext):
    """Two of four quotes are enough; what fails later has nothing to do with those that are missing."""
    quotes = [context.call_activity("pay", what) for what in ("a", "ok b", "c", "ok d")]
    found = []
    for quote in quotes:
        try:
            found.append(await quote)
        except TaskFailedError:
            pass
    await context.call_activity("pay", f"ok with {len(found)}")
    return await context.call_activity("pay", "e")


def tolerant_yield(context: OrchestrationContext):
    quotes = [context.call_activity("pay", what) for what in ("a", "ok b", "c", "ok d")]
    found = []
    for quote in quotes:
        try:
            found.append((yield quote))
        except TaskFailedError:
            pass
    yield context.call_activity("pay", f"ok with {len(found)}")
    return (yield context.call_activity("pay", "e"))


@pytest.mark.parametrize("orchestrator", [tolerant, tolerant_yield])
async def test_a_failure_that_the_code_got_over_stays_as_it_is(orchestrator):
    bank = Bank()
    async with environment(app_of(bank, orchestrator)) as env:
        instance = await env.client.start_new("main")
        assert (await env.client.wait_for_completion(instance)).runtime_status is S.Failed
        bank.is_down = False
        await env.client.rewind(instance)
        assert (await env.client.wait_for_completion(instance)).output == "paid e"

    assert sorted(bank.runs) == ["a", "c", "e", "e", "ok b", "ok d", "ok with 2"]
