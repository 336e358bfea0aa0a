"""Workers and clients whose way to the database fails at the worst moment: at a commit, or beyond a lease."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import perdure as df
from perdure.errors import EngineStopped, OutcomeUnknown, StoreError
from tests.postgres.evidence import SETTINGS, Evidence, Stale
from tests.postgres.network import Network, refusal
from tests.postgres.proxy import Proxy, When
from tests.postgres.servers import NEWEST, Server

ROOT = Path(__file__).parents[2]
LEASE = 1.5
HISTORY = r"into \S*history"
INSTANCES = r"into \S*instances"


def counting_app(runs: list[str]) -> df.App:
    app = df.App("faults")

    @app.activity
    def note(text: str, context: df.ActivityContext) -> str:
        runs.append(context.idempotency_key)
        return text

    @app.orchestrator
    async def noting(context: df.OrchestrationContext, text: str) -> str:
        first: str = await context.call_activity(note, text)
        await context.wait_for_external_event("Go")
        return first + await context.call_activity(note, text)

    return app


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(NEWEST, settings=SETTINGS) as server:
        yield server


@pytest.fixture
async def url(server: Server) -> AsyncIterator[str]:
    with server.database() as url:
        async with df.App("faults").running(store=url, accept_only=True):
            pass  # the tables are there
        yield url


@pytest.fixture
def evidence(url: str) -> Iterator[Evidence]:
    evidence = Evidence(url)
    evidence.gather()
    yield evidence
    evidence.close()


async def until_heard(ask: Callable[[], Any]) -> int:
    """Ask until there is an answer, as a client does; returns how often it took."""
    for times in range(1, 100):
        with suppress(OutcomeUnknown, EngineStopped, StoreError):
            await ask()
            return times
        await asyncio.sleep(0.05)
    raise AssertionError("nobody hears")


@pytest.mark.parametrize("when", ["before", "forwarded", "answered"])
async def test_a_start_whose_commit_is_cut_off_makes_one_instance(
    server: Server, url: str, evidence: Evidence, when: When
) -> None:
    runs: list[str] = []
    with Proxy(server) as proxy:
        async with counting_app(runs).running(store=proxy.url(url), accept_only=True) as client:
            cut = proxy.cut_commit(matching=INSTANCES, when=when)
            await until_heard(lambda: client.start_new("noting", "one", "a", operation_id="start one"))
            assert cut.happened.is_set(), "no commit of a start came by"
            await until_heard(lambda: client.start_new("noting", "one", "a", operation_id="start one"))
        async with counting_app(runs).running(store=url, lease=LEASE) as client:
            await client.raise_event("one", "Go")
            done = await client.wait_for_completion("one", 20)
    assert done.output == "aa"
    assert len(runs) == 2
    assert evidence.twice() == []
    assert evidence.stale() == Stale(0, 0)


@pytest.mark.parametrize("when", ["before", "forwarded", "answered"])
async def test_a_worker_whose_commit_is_cut_off_goes_on(
    server: Server, url: str, evidence: Evidence, when: When
) -> None:
    runs: list[str] = []
    with Proxy(server) as proxy:
        async with (
            counting_app([]).running(store=url, accept_only=True) as client,
            counting_app(runs).running(store=proxy.url(url), lease=LEASE),
        ):
            for number in range(1, 4):
                cut = proxy.cut_commit(number, matching=HISTORY, when=when)
                name = f"cut-{number}"
                await client.start_new("noting", name, "a")
                await client.raise_event(name, "Go")
                assert (await client.wait_for_completion(name, 20)).output == "aa"
                assert cut.happened.is_set()
                proxy.heal()
    assert len(set(runs)) == 6
    assert evidence.twice() == []
    assert evidence.stale() == Stale(0, 0)


async def test_a_commit_that_arrives_after_a_takeover_is_fenced_off(
    server: Server, url: str, evidence: Evidence
) -> None:
    """A result's commit sets out in time and arrives when its sender is void. Nobody else has written anything
    meanwhile that it could collide with, so that nothing but the fence is in its way.
    """
    runs: list[str] = []
    with Proxy(server) as proxy:
        async with (
            counting_app([]).running(store=url, accept_only=True, lease=LEASE) as client,
            counting_app(runs).running(store=proxy.url(url), lease=LEASE, worker_name="slow"),
        ):
            await until(lambda: evidence.owners() == {"slow"})
            held = proxy.hold_commit(2, matching=HISTORY)
            await client.start_new("noting", "held", "a")
            await until(held.happened.is_set)
            proxy.stall()
            await until(lambda: evidence.takeovers() == 1)
            proxy.heal()
            await until(lambda: evidence.owners() == {"slow"})  # as another incarnation
            await client.raise_event("held", "Go")
            assert (await client.wait_for_completion("held", 20)).output == "aa"
    assert "history" in "".join(held.statements)
    assert evidence.stale() == Stale(0, 0)
    assert evidence.twice() == []
    assert len(set(runs)) == 2


async def test_a_commit_that_arrives_when_another_has_gone_on_is_refused(
    server: Server, url: str, evidence: Evidence
) -> None:
    """It sets out in time, is held up beyond the lease, and reaches the server when another has taken over."""
    slow_runs: list[str] = []
    quick_runs: list[str] = []
    with Proxy(server) as proxy:
        async with (
            counting_app([]).running(store=url, accept_only=True, lease=LEASE) as client,
            counting_app(slow_runs).running(store=proxy.url(url), lease=LEASE, worker_name="slow"),
        ):
            await client.start_new("noting", "held", "a")
            await until(lambda: evidence.awaiting("Go") == {"held"})
            held = proxy.hold_commit(matching=HISTORY)
            await client.raise_event("held", "Go")
            await until(held.happened.is_set)
            proxy.stall()
            async with counting_app(quick_runs).running(store=url, lease=LEASE, worker_name="quick"):
                done = await client.wait_for_completion("held", 30)
                assert evidence.takeovers() == 1
                proxy.heal()
                await client.start_new("noting", "after", "b")
                await client.raise_event("after", "Go")
                await client.wait_for_completion("after", 20)
                await until(lambda: evidence.entered("slow") > 1)  # it has noticed, and is there again
    assert done.output == "aa"
    assert len(quick_runs) >= 1, "the other worker had nothing to do with it"
    assert evidence.twice() == []
    assert evidence.stale() == Stale(0, 0)


async def test_a_worker_cut_off_in_a_network_of_its_own_commits_nothing_after_healing(tmp_path: Path) -> None:
    if reason := refusal():
        pytest.skip(reason)
    with Network("east", "west") as network:
        listen = {**SETTINGS, "listen_addresses": f"127.0.0.1,{network.address}"}
        with Server(NEWEST, settings=listen, admits=[network.subnet]) as server, server.database() as url:
            await _cut_off(network, url, tmp_path)


async def _cut_off(network: Network, url: str, directory: Path) -> None:
    async with df.App("victim").running(store=url, accept_only=True, lease=LEASE):
        evidence = Evidence(url)
        evidence.gather()
    async with df.App("victim").running(store=url, accept_only=True, lease=LEASE) as client:
        workers = [_victim(network, name, url, directory) for name in ("east", "west")]
        try:
            await until(lambda: evidence.owners() == {"east", "west"})
            await _file(client, range(20))
            network.cut("east")
            begun = time.monotonic()
            await until(lambda: evidence.owners() == {"west"})
            assert time.monotonic() - begun < LEASE + 30
            await _file(client, range(20, 40))
            await until(lambda: len(evidence.finished("claim-")) == 40)
            assert [worker.poll() for worker in workers] == [None, None]
            network.heal("east")
            await until(lambda: evidence.owners() == {"east", "west"})
            await _file(client, range(40, 60))
            await until(lambda: len(evidence.finished("claim-")) == 60)
        finally:
            for worker in workers:
                worker.kill()
                worker.communicate()
        assert evidence.takeovers() >= 1
        assert evidence.twice() == []
        assert evidence.stale() == Stale(0, 0)
        evidence.close()


def _victim(network: Network, name: str, url: str, directory: Path) -> subprocess.Popen[Any]:
    command = [sys.executable, "-m", "tests.postgres.victim", "--store", network.url(url), "--name", name]
    command += ["--ledger", str(directory / "ledger"), "--lease", str(LEASE), "--pool", "heavy"]
    with (directory / f"{name}.log").open("wb") as log:
        return network.start(
            name, command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log
        )


async def _file(client: df.Client, numbers: range) -> None:
    for number in numbers:
        claim = {"id": f"claim-{number}", "number": number, "amount": 1, "checks": 2, "waits": False}
        await client.start_new("claims", claim["id"], {**claim, "flaky": False})


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 40
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, "it does not come to pass"
        await asyncio.sleep(0.05)
