"""Activities on executors: what crosses, what comes back, and what happens when workers die."""

import asyncio
import os
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import asynccontextmanager

import psutil
import pytest

import perdure as df
from perdure.engine.activities.executors import host
from perdure.engine.activities.executors.channel import ExecutorChannel
from perdure.errors import PayloadError
from tests.engine import elsewhere

REASON = "the orchestrator cancelled the call"


def app_on(executor, *activities, **options) -> df.App:
    app = df.App("elsewhere")
    for activity in activities:
        app.activity(executor=executor, **options)(activity)

    @app.orchestrator
    async def main(context: df.OrchestrationContext):
        name, input_ = context.get_input()
        return await context.call_activity(name, input_)

    @app.orchestrator
    def main_yield(context: df.OrchestrationContext):
        name, input_ = context.get_input()
        return (yield context.call_activity(name, input_))

    @app.orchestrator
    async def stop(context: df.OrchestrationContext):
        name, input_ = context.get_input()
        task = context.call_activity(name, input_)
        await context.wait_for_external_event("Stop")
        task.cancel()

    @app.orchestrator
    async def together(context: df.OrchestrationContext):
        tasks = [context.call_activity(name, input_) for name, input_ in context.get_input()]
        return await context.task_all(tasks)

    return app


@asynccontextmanager
async def served(app):
    async with app.running(store="memory:") as client:
        yield client


async def run(client, name, input_=None, orchestrator="main"):
    instance = await client.start_new(orchestrator, None, [name, input_])
    return await client.wait_for_completion(instance, 60)


async def appears(path, seconds: float = 30.0) -> None:
    for _ in range(int(seconds / 0.01)):
        if os.path.exists(path):  # noqa: ASYNC240
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{path} never appeared")


# --------------------------------------------------------------------------------------------- processes


async def test_a_process_pool_runs_both_kinds_and_carries_types_failures_and_the_context():
    app = app_on(df.process_pool(workers=1), elsewhere.describe, elsewhere.describe_async, elsewhere.fail)
    app.activity(elsewhere.quick)
    async with served(app) as client:
        photo = {"path": "a.jpg", "width": 3}
        for orchestrator in ("main", "main_yield"):
            status = await run(client, "describe", photo, orchestrator)
            assert status.output["photo"] == ["a.jpg", 3]
            assert status.output["pid"] != os.getpid()
            assert status.output["call"] == [status.instance_id, "describe", 1]
            assert status.output["key"] == f"{status.instance_id}:{status.execution_id}:0"
        elsewhere_async = (await run(client, "describe_async", photo)).output
        assert elsewhere_async["pid"] == status.output["pid"]
        failure = (await run(client, "fail", 7)).failure.cause
        assert (failure.type, failure.message) == ("ValueError", "no 7")
        assert "elsewhere.py" in failure.stack
        assert (await run(client, "quick")).output == os.getpid()
    assert not psutil.pid_exists(elsewhere_async["pid"])


async def test_a_process_that_dies_costs_nobody_anything(tmp_path):
    """A killed child: its activity runs again, and so do those beside it."""
    app = app_on(df.process_pool(workers=2), elsewhere.die_once, elsewhere.quick)
    async with served(app) as client:
        calls = [("quick", None), ("die_once", f"{tmp_path}/mark"), ("quick", None), ("quick", None)]
        instance = await client.start_new("together", None, calls)
        status = await client.wait_for_completion(instance, 60)
        assert all(isinstance(pid, int) for pid in status.output)
        assert (await run(client, "quick")).output not in (os.getpid(), None)


# The pool's own thread counts the children of a broken pool, and CPython does not lock them against a submission that
# has just started one: "dictionary changed size during iteration". perdure has left that pool by then.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_an_activity_that_kills_its_process_again_and_again_fails_and_nobody_else_does(tmp_path):
    app = app_on(df.process_pool(workers=2), elsewhere.die_always, elsewhere.wait_for_file)
    async with served(app) as client:
        beside = await client.start_new("main", None, ["wait_for_file", f"{tmp_path}/go"])
        await appears(f"{tmp_path}/go.1.begun")
        failure = (await run(client, "die_always", f"{tmp_path}/deaths")).failure.cause
        (tmp_path / "go").touch()
        assert (await client.wait_for_completion(beside, 60)).output == "done"
    assert failure.type == "perdure.errors.ExecutorFailed"
    assert (
        "'die_always' (attempt 1) on process pool of 2: 3 processes ended while they ran it"
        in failure.message
    )
    assert (tmp_path / "deaths").read_text() == "xxx"


async def test_progress_of_another_process_is_shown_and_a_cancellation_reaches_it(tmp_path):
    app = app_on(df.process_pool(workers=1), elsewhere.wait_for_file, elsewhere.wait_for_ever)
    path = f"{tmp_path}/never"
    async with served(app) as client:
        instance = await client.start_new("stop", None, ["wait_for_file", path])
        await appears(f"{path}.1.begun")
        while " of 0, last heartbeat 0 s ago)" not in (await client.get_status(instance)).waiting_for:
            await asyncio.sleep(0.02)
        (activity,) = (await client.get_status(instance)).waiting.activities
        queued = await client.start_new("stop", None, ["wait_for_file", f"{path}-queued"])
        await client.raise_event(queued, "Stop")
        await client.wait_for_completion(queued, 60)
        await client.raise_event(instance, "Stop")
        await client.wait_for_completion(instance, 60)
        await appears(f"{path}.cancelled")
        other = await client.start_new("stop", None, ["wait_for_ever", f"{path}-async"])
        await appears(f"{path}-async.1.begun")
        await client.terminate(other)
        await appears(f"{path}-async.cancelled")
        while client.gateway.health()["activities_abandoned_in_executors"]:
            await asyncio.sleep(0.01)
    assert activity.where == "process pool of 1"
    assert (tmp_path / "never.cancelled").read_text() == REASON
    assert not (tmp_path / "never-queued.1.begun").exists()


async def test_a_body_that_heeds_nothing_is_ended_with_its_process_and_the_pool_goes_on(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(host, "CANCELLED_WITHIN", 0.1)
    app = app_on(df.process_pool(workers=1), elsewhere.hang, timeout=0.2)
    app.activity(executor=app.registry.activities["hang"].executor)(elsewhere.quick)
    async with served(app) as client:
        failure = (await run(client, "hang", f"{tmp_path}/hang")).failure.cause
        hanging = int((tmp_path / "hang.1.begun").read_text())
        assert (await run(client, "quick")).output != hanging
        while psutil.pid_exists(hanging):
            await asyncio.sleep(0.02)
    assert failure.type == "TimeoutError"
    assert "exceeded its timeout of 0.2 s" in failure.message


async def test_silence_of_another_process_is_noticed(tmp_path):
    app = app_on(df.process_pool(workers=1), elsewhere.hang, heartbeat_timeout=0.3)
    async with served(app) as client:
        failure = (await run(client, "hang", f"{tmp_path}/hang")).failure.cause
        hanging = int((tmp_path / "hang.1.begun").read_text())
    assert "sent no heartbeat for 0.3 s" in failure.message
    assert not psutil.pid_exists(hanging)


async def test_when_the_engine_stops_its_processes_do_and_the_activity_runs_again(tmp_path):
    path, store = f"{tmp_path}/go", f"sqlite:///{tmp_path}/hub.db"
    app = app_on(df.process_pool(workers=1), elsewhere.wait_for_file)
    async with app.running(store=store) as client:
        instance = await client.start_new("main", None, ["wait_for_file", path])
        await appears(f"{path}.1.begun")
    assert "the engine is stopping" in (tmp_path / "go.cancelled").read_text()
    (tmp_path / "go").touch()
    async with app.running(store=store) as client:
        assert (await client.wait_for_completion(instance, 60)).output == "done"


@pytest.mark.parametrize("body", [elsewhere.unrecorded, elsewhere.unrecorded_async, elsewhere.refuse])
@pytest.mark.parametrize("make", [lambda: df.process_pool(workers=1), lambda: "threads"])
async def test_what_is_final_elsewhere_is_final_here(body, make, tmp_path):
    """A result that JSON cannot carry, and a subclass of a final class in a group: one attempt each."""
    policy = df.RetryPolicy(first_interval=0.01, max_attempts=3, non_retryable=(elsewhere.Declined,))
    app = app_on(make(), body, retry=policy)

    @app.executor("threads")
    def threads():
        with ThreadPoolExecutor(1) as pool:
            yield pool

    marker = tmp_path / "calls"
    async with served(app) as client:
        status = await run(client, body.__name__, str(marker))

    assert marker.read_text() == "x"
    refused = body is elsewhere.refuse
    assert status.failure.is_a(elsewhere.Declined) is refused
    assert status.failure.is_a(PayloadError) is not refused
    assert ("card 4711 was declined" if refused else "has finished") in status.failure.cause.message


# --------------------------------------------------------------------------------- other executors, their lives


async def test_a_named_executor_is_made_for_each_engine_and_its_generator_runs_to_its_end():
    life = []
    app = app_on("threads", elsewhere.quick, elsewhere.leave)

    @app.executor("threads")
    def threads():
        life.append("made")
        with ThreadPoolExecutor(1) as pool:
            yield pool
        life.append("gone")

    for _ in range(2):
        async with served(app) as client:
            assert (await run(client, "quick")).output == os.getpid()
            assert (await run(client, "leave")).failure.cause.type == "SystemExit"
    assert life == ["made", "gone", "made", "gone"]


async def test_an_executor_given_ready_made_stays_its_owners():
    with ThreadPoolExecutor(1) as pool:
        app = app_on(pool, elsewhere.quick)
        async with served(app) as client:
            assert (await run(client, "quick")).output == os.getpid()
        assert pool.submit(int).result() == 0


async def test_a_broken_executor_that_nobody_can_make_again_says_so_and_the_worker_is_unhealthy(tmp_path):
    import multiprocessing

    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        app = app_on(pool, elsewhere.die_always)
        async with served(app) as client:
            failure = (await run(client, "die_always", f"{tmp_path}/deaths")).failure.cause
            assert client.gateway.health()["healthy"] is False
    assert "cannot be replaced" in failure.message


async def test_an_executor_that_cannot_be_made_stops_the_start_and_leaves_nothing_behind():
    def unmakeable():
        raise OSError("no such cluster")

    with pytest.raises(OSError, match="no such cluster"):
        async with served(app_on(unmakeable, elsewhere.quick)):
            pass


def test_a_line_is_closed_although_nobody_accepts_on_it_yet(monkeypatch):
    slow_to_start = []
    monkeypatch.setattr(threading.Thread, "start", lambda thread: slow_to_start.append(thread))
    ExecutorChannel(lambda attempt, pid: None, lambda attempt: None).close()
    [accepting] = slow_to_start
    accepting.run()


@pytest.mark.parametrize("retries", [0, 1])
async def test_a_pool_whose_processes_cannot_even_begin_is_given_up_with_a_hint(retries):
    class Barren(df.ProcessPool):
        def __call__(self):
            import multiprocessing

            return ProcessPoolExecutor(
                1, multiprocessing.get_context("spawn"), initializer=os._exit, initargs=(1,)
            )

    app = app_on(Barren(1), elsewhere.quick)
    async with served(app) as client:
        failure = (await run(client, "quick")).failure.cause
    assert "3 times its worker processes ended before they ran anything" in failure.message
    assert "__main__" in failure.message


# -------------------------------------------------------------------------------------------------- mistakes


def test_what_no_other_process_can_import_is_refused_when_it_is_decorated():
    app = df.App("elsewhere")

    with pytest.raises(df.RegistrationError, match="a lambda"):
        app.activity(name="it", executor=df.process_pool(1))(lambda: 1)
    with pytest.raises(df.RegistrationError, match="defined inside another function"):

        @app.activity(executor=df.process_pool(1))
        def inner(): ...

    with pytest.raises(df.RegistrationError, match="neither a concurrent"):
        app.activity(executor=7)(elsewhere.quick)
    with pytest.raises(df.RegistrationError, match="at least one process"):
        df.process_pool(workers=0)
    app.executor("cpu", df.process_pool(1))
    with pytest.raises(df.RegistrationError, match="already taken"):
        app.executor("cpu", df.process_pool(1))


async def test_a_name_that_is_not_the_function_stops_the_start(monkeypatch):
    app = app_on(df.process_pool(1), elsewhere.quick)
    monkeypatch.setattr(elsewhere, "quick", int)

    with pytest.raises(df.RegistrationError, match=r"tests.engine.elsewhere.quick is something else"):
        async with served(app):
            pass


async def test_an_executor_nobody_registered_stops_the_start():
    with pytest.raises(df.RegistrationError, match="no executor named 'gpu'.*it has none"):
        async with served(app_on("gpu", elsewhere.quick)):
            pass


def scan(ledger: "Ledger") -> None: ...


class Ledger: ...


async def test_resources_do_not_cross():
    app = app_on(df.process_pool(1), scan)

    @app.lifespan
    async def resources():
        yield Ledger()

    with pytest.raises(
        df.RegistrationError, match=r"the resources of a lifespan \(Ledger\) cannot be passed"
    ):
        async with served(app):
            pass


async def test_a_function_typed_into_a_session_stops_the_start(monkeypatch):
    import __main__

    monkeypatch.setattr(elsewhere.quick, "__module__", "__main__")
    monkeypatch.setattr(__main__, "quick", elsewhere.quick, raising=False)
    monkeypatch.setattr(__main__, "__spec__", None)
    monkeypatch.delattr(__main__, "__file__", raising=False)

    with pytest.raises(df.RegistrationError, match="interactive session"):
        async with served(app_on(df.process_pool(1), elsewhere.quick)):
            pass
