"""A database that restarts, throws its clients out, is full or gets in its own way: the hub goes on afterwards."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import TypeVar

import psycopg
import pytest
from starlette.testclient import TestClient

import perdure as df
from tests.postgres.servers import Server

FLOWS = 60
AGAIN = (df.EngineStopped, df.OutcomeUnknown, df.Overloaded, df.StoreError)
T = TypeVar("T")


async def until_answered(send: Callable[[], Awaitable[T]]) -> T:
    """Repeat a request as long as the answer is a 503."""
    while True:
        try:
            return await send()
        except AGAIN:
            await asyncio.sleep(0.05)


def flows() -> df.App:
    app = df.App("outages")

    @app.activity
    async def step(n: int) -> int:
        return n + 1

    @app.orchestrator(events={"Go": int})
    async def flow(context: df.OrchestrationContext, n: int) -> int:
        first = await context.call_activity(step, n)
        go = await context.wait_for_external_event("Go", int, timeout=timedelta(hours=1))
        return await context.call_activity(step, first + go)

    return app


@pytest.fixture
def url(own_postgres: Server) -> Iterator[str]:
    with own_postgres.database() as found:
        yield found


async def all_flow(first: df.Client, second: df.Client, trouble: asyncio.Task[None]) -> Counter[str]:
    """Start, raise and wait while the trouble lasts, as any client would: again until it is answered."""
    clients = (first, second)
    patient = asyncio.timeout(90)

    async def one(n: int) -> df.OrchestrationStatus:
        client = clients[n % 2]
        start = partial(client.start_new, "flow", f"flow-{n}", n, operation_id=f"start-{n}")
        await until_answered(start)
        go = partial(clients[(n + 1) % 2].raise_event, f"flow-{n}", "Go", 1, event_id=f"go-{n}")
        await until_answered(go)
        return await until_answered(partial(client.wait_for_completion, f"flow-{n}", 60))

    async with patient:
        rounds = 0
        done: list[df.OrchestrationStatus] = []
        while not trouble.done() or not done:
            span = range(rounds * FLOWS, (rounds + 1) * FLOWS)
            done += await asyncio.gather(*(one(n) for n in span))
            rounds += 1
        await trouble
    assert [status.output for status in done] == [n + 3 for n in range(len(done))]
    return Counter(str(status.runtime_status) for status in done)


async def under(url: str, trouble: object) -> int:
    """Two workers and their clients, while something happens on another thread; returns how many flows ended."""
    app = flows()
    async with (
        app.running(store=url, lease=2.0, worker_name="one") as first,
        app.running(store=url, lease=2.0, worker_name="two") as second,
    ):
        task: asyncio.Task[None] = asyncio.create_task(asyncio.to_thread(trouble))  # type: ignore[arg-type]
        ended = await all_flow(first, second, task)
        assert set(ended) == {"Completed"}
        with psycopg.connect(url) as looking:
            [raised] = looking.execute(
                "select count(*) from perdure.history where convert_from(events, 'utf8') like '%EventRaised%'"
            ).fetchall()
            [twice] = looking.execute(
                "select count(*) from (select instance_id from perdure.instances group by hub_no, instance_id "
                "having count(*) > 1) t"
            ).fetchall()
        assert twice == (0,)
        assert raised[0] == sum(ended.values())
        return sum(ended.values())


@pytest.mark.timeout(150)
async def test_immediate_restarts_under_load_and_during_recovery(own_postgres: Server, url: str) -> None:
    def restarts() -> None:
        for _ in range(3):
            own_postgres.restart("immediate")
        own_postgres.restart("immediate")  # again at once: the recovery itself is cut off

    assert await under(url, restarts) >= FLOWS


@pytest.mark.timeout(150)
async def test_sessions_that_are_thrown_out(url: str) -> None:
    def resets() -> None:
        with psycopg.connect(url, autocommit=True) as admin:
            for _ in range(8):
                admin.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity "
                    "where pid <> pg_backend_pid() and datname = current_database()"
                )
                threading.Event().wait(0.3)

    assert await under(url, resets) >= FLOWS


@pytest.mark.timeout(150)
async def test_no_connection_is_to_be_had(url: str) -> None:
    def exhaustion() -> None:
        taken: list[psycopg.Connection] = []
        admin = psycopg.connect(url, autocommit=True)
        try:
            while len(taken) < 2_000:
                taken.append(psycopg.connect(url))
        except psycopg.OperationalError:
            admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'perdure%'"
            )
            threading.Event().wait(2.0)
        finally:
            for one in (*taken, admin):
                one.close()

    assert await under(url, exhaustion) >= FLOWS


@pytest.mark.timeout(150)
async def test_deadlocks_with_a_stranger_are_done_again(url: str) -> None:
    def stranger() -> None:
        """Locks rows of the hub in an order that meets the workers' own."""
        with psycopg.connect(url) as rude:
            for _ in range(6):
                with suppress(psycopg.errors.DeadlockDetected):  # one of the two is the victim
                    rude.execute("select 1 from perdure.instances order by random() for update")
                    threading.Event().wait(0.1)
                rude.rollback()

    assert await under(url, stranger) >= FLOWS


@pytest.mark.timeout(120)
def test_the_api_says_503_while_the_database_is_away_and_never_a_false_2xx(
    own_postgres: Server, url: str
) -> None:
    starts, instances = (
        f"/runtime/webhooks/durabletask/{what}" for what in ("orchestrators/flow", "instances")
    )
    with TestClient(flows().asgi(store=url, access="open", lease=2.0), base_url="http://localhost") as http:
        assert http.post(f"{starts}/before", json=1).status_code == 202
        own_postgres.stop()
        answers = [
            http.post(f"{starts}/meanwhile", json=1),
            http.get(f"{instances}/before"),
            http.get("/readyz"),
        ]
        assert [answer.status_code for answer in answers] == [503, 503, 503]
        assert all("retry-after" in answer.headers for answer in answers)
        own_postgres.start()
        for _ in range(600):
            if http.get("/readyz").status_code == 200:
                break
            threading.Event().wait(0.05)
        assert http.post(f"{starts}/meanwhile", json=1).status_code in (202, 409)
        assert http.get(f"{instances}/meanwhile").status_code in (200, 202)


@pytest.mark.timeout(180)
async def test_many_threads_start_one_id_at_once_and_all_answers_agree(url: str) -> None:
    """64 threads of clients of two workers, round after round: one execution each."""
    rounds, threads = 200, 64
    app = flows()
    async with (
        app.running(store=url, lease=10.0, worker_name="one") as first,
        app.running(store=url, lease=10.0, worker_name="two") as second,
    ):
        event_loop = asyncio.get_running_loop()
        barrier = threading.Barrier(threads)
        clients = [df.SyncClient(client, event_loop) for client in (first, second)]

        def contender(number: int) -> list[str]:
            said = []
            for n in range(rounds):
                barrier.wait()
                try:
                    clients[number % 2].start_new("flow", f"round-{n}", number, on_existing="reject")
                    said.append("won")
                except df.InstanceExists:
                    said.append("lost")
            return said

        with ThreadPoolExecutor(threads) as pool:
            futures = [event_loop.run_in_executor(pool, contender, number) for number in range(threads)]
            answers = await asyncio.gather(*futures)
        winners = [
            [number for number in range(threads) if answers[number][n] == "won"] for n in range(rounds)
        ]
        assert [len(won) for won in winners] == [1] * rounds
        with psycopg.connect(url) as looking:
            [found] = looking.execute(
                "select count(*), count(distinct instance_id) from perdure.instances"
            ).fetchall()
        assert found == (rounds, rounds)
        for n, [winner] in enumerate(winners[:20]):
            await first.raise_event(f"round-{n}", "Go", 1)
            status = await first.wait_for_completion(f"round-{n}", 30)
            assert status.output == winner + 3
