"""While the store is away nothing is said to be done: 503 with Retry-After, and no false 2xx on any route."""

import asyncio
import re
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

import perdure as df
from perdure.errors import StoreError, StoreFull, StoreInUse
from perdure.http.access.gate import Access
from perdure.http.host import application
from perdure.http.remote.client import RemoteClient
from perdure.http.routing import GatedRoute
from perdure.store.memory import MemoryStore
from perdure.testing.faults import FaultyStore
from tests.http.conftest import LOCAL, M, make_app

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.fixture
def store() -> FaultyStore:  # type: ignore[override]
    return FaultyStore(MemoryStore("hosts"))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.engine.loop.loop.CLIENT_WAITS", 0)


@pytest.fixture
async def serving(store: FaultyStore) -> AsyncIterator[Any]:
    async with make_app().running(store=store, hub="hosts") as client:
        yield application(client)


@pytest.fixture
async def http(serving: Any) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=serving)
    async with httpx2.AsyncClient(transport=transport, base_url=LOCAL) as client:
        yield client


def rows(serving: Any) -> list[Any]:
    return [route.row for route in serving.app.app.routes if isinstance(route, GatedRoute)]


async def test_no_route_says_that_it_has_done_what_is_not_stored(
    serving: Any, http: httpx2.AsyncClient, store: FaultyStore
) -> None:
    """Every route that changes something, from the router: a new one cannot escape."""
    await http.post(f"{M}/orchestrators/approval/some-1")
    store.plan.away = True
    tried = 0
    for row in rows(serving):
        for method in set(row.methods) - {"GET", "HEAD"}:
            if row.path in ("/login", "/logout", "/look", "/inbox"):
                continue  # they change a cookie, and nothing that is stored
            name = "approval" if "orchestrators" in row.path else "some-1"
            path = re.sub(r"\{\w+(:\w+)?\}", "some-1", row.path.replace("{name}", name))
            answer = await http.request(
                method, path, params={"op": "add", "all": "true", "createdTimeFrom": "2020-01-01"}, json={}
            )
            tried += 1
            assert "the plan" not in answer.text, (row.path, answer.text)  # the store's own words
            assert answer.status_code >= 400 or is_page(answer) or failed_each(answer), (
                row.path,
                answer.text,
            )
            if answer.status_code == 503:
                assert int(answer.headers["retry-after"]) > 0
                assert answer.json()["code"] in ("outcome-unknown", "store", "engine-stopped")
    assert tried > 30


CANARY = "postgresql://db.internal.example:5599/claims"


class Gone:
    """A store that cannot be reached, and whose errors contain its address."""

    def __getattr__(self, verb: str) -> Any:
        def fail(*_: Any, **__: Any) -> Any:
            raise StoreError(f"{CANARY} does not answer")

        return fail


def example_of(path: str) -> str:
    """The path with an example for each of its parameters."""
    return re.sub(r"\{\w+(:\w+)?\}", "some-1", path.replace("{task}", "some-1:0"))


async def test_no_route_answers_as_if_nothing_were_there(
    serving: Any, http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked while the store is away is not known: no 404, no empty list, but 503 and when to come back."""
    await http.post(f"{M}/orchestrators/approval/some-1")
    knows_itself = {"/healthz", "/readyz", "/openapi.json", "/docs", "/login", f"{M}/whoami", f"{M}/queues"}
    knows_itself |= {"/errors", "/errors/{number}", "/start/{name}", "/functions"}
    knows_itself |= {"/metrics"}  # the worker's own counters; the gauges of the hub are left out
    answered = {}
    with monkeypatch.context() as patched:
        patched.setattr(serving.app.app.state.client.gateway, "store", Gone())
        for row in rows(serving):
            if row.methods == ("GET",) and row.path not in knows_itself:
                answer = await http.get(example_of(row.path))
                answered[row.path] = (answer.status_code, int(answer.headers.get("retry-after", "0")) > 0)
    assert len(answered) > 15
    assert {path: found for path, found in answered.items() if found != (503, True)} == {}


@pytest.mark.parametrize("accept", ["*/*", "application/json", BROWSER])
async def test_nobody_is_told_where_the_database_is(
    serving: Any,
    http: httpx2.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    accept: str,
) -> None:
    """The store's address is in the log, which is for the operator, and in no response."""
    tried = 0
    with monkeypatch.context() as patched:
        patched.setattr(serving.app.app.state.client.gateway, "store", Gone())
        for row in rows(serving):
            path = example_of(row.path)
            if "GET" in row.methods:
                answer = await http.get(path, headers={"Accept": accept})
                tried += answer.status_code == 503
                assert CANARY not in answer.text, path
                assert "db.internal" not in str(answer.headers), path
    assert tried > 15
    assert CANARY in caplog.text


async def test_a_commit_in_doubt_does_not_tell_it_either(
    http: httpx2.AsyncClient, store: FaultyStore
) -> None:
    store.plan.away = True
    answer = await http.post(f"{M}/orchestrators/approval/a-1")

    assert (answer.status_code, answer.json()["code"]) == (503, "outcome-unknown")
    assert "the plan" not in answer.text
    assert "may or may not have taken effect" in answer.json()["detail"]


@pytest.mark.parametrize(
    "path", ["/", "/instances", "/instances/some-1", "/entities", "/entities/a/b", "/workers", "/triggers"]
)
async def test_a_page_that_cannot_be_shown_says_so_and_looks_again(
    serving: Any, http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(serving.app.app.state.client.gateway, "store", Gone())
        answer = await http.get(path, headers={"Accept": BROWSER})
        program = await http.get(path, headers={"Accept": "application/json"})

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.headers["content-type"].startswith("text/html")
    assert '<meta http-equiv="refresh" content="5">' in answer.text
    assert 'href="/"' in answer.text and f'href="{program.json()["type"]}"' in answer.text
    assert (program.status_code, program.json()["code"]) == (503, "store")
    assert program.headers["retry-after"] == "5"


async def test_a_gate_that_cannot_ask_for_keys_answers_a_browser_with_a_page(
    store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_app().running(store=store, hub="hosts") as client:
        access = Access(client, token="t" * 20)
        transport = httpx2.ASGITransport(app=application(client, access=access))
        async with httpx2.AsyncClient(transport=transport, base_url=LOCAL) as http:
            with monkeypatch.context() as patched:
                patched.setattr(client.gateway, "store", Gone())
                answer = await http.get("/", headers={"Accept": BROWSER})
    assert answer.status_code == 503
    assert '<meta http-equiv="refresh"' in answer.text and CANARY not in answer.text


def is_page(answer: httpx2.Response) -> bool:
    return answer.status_code == 303 and "done=" not in answer.headers["location"]


def failed_each(answer: httpx2.Response) -> bool:
    """A page of a bulk operation tells what became of each."""
    return "/bulk/" in str(answer.url) and answer.json()["done"] == 0


async def test_the_probes_say_so_and_say_when_it_is_over(
    http: httpx2.AsyncClient, store: FaultyStore
) -> None:
    assert (await http.get("/readyz")).json() == {"ready": True, "reason": ""}
    store.plan.away = True
    refused = await http.post(f"{M}/orchestrators/approval/a-1")
    away = await http.get("/readyz")

    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert (away.status_code, away.json()["ready"], away.json()["reason"]) == (503, False, "store")
    assert int(away.headers["retry-after"]) > 0
    assert (await http.get("/healthz")).status_code == 200  # a restart would not help

    store.plan.away = False
    async with asyncio.timeout(60):
        while (await http.post(f"{M}/orchestrators/approval/a-2")).status_code not in (202, 409):
            await asyncio.sleep(0.01)
    assert (await http.get("/readyz")).status_code == 200


async def test_a_commit_without_an_end_holds_nobody_up(
    serving: Any, http: httpx2.AsyncClient, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a synchronous standby that is away: the commit neither fails nor succeeds."""
    engine: Any = serving.app.app.state.client.gateway
    await http.post(f"{M}/orchestrators/approval/a-0")  # the first makes the key for links
    under_way, goes_on, commit, later = threading.Event(), threading.Event(), store.commit, 0.0

    def hang(batch: Any) -> None:
        under_way.set()
        assert goes_on.wait(60)
        commit(batch)

    monkeypatch.setattr(store, "commit", hang)
    monkeypatch.setattr(engine.callers._clock, "monotonic", lambda: time.monotonic() + later)
    waiting = asyncio.create_task(http.post(f"{M}/orchestrators/approval/a-1"))
    await asyncio.to_thread(under_way.wait, 60)
    engine.callers.look()
    assert not waiting.done()
    assert (await http.get("/readyz")).status_code == 200

    later = 6.0
    engine.callers.look()
    told = await waiting
    assert (told.status_code, told.json()["code"]) == (503, "outcome-unknown")
    refused = await http.post(f"{M}/orchestrators/approval/a-2")
    assert (refused.status_code, refused.json()["code"]) == (503, "store")
    assert "no answer" not in refused.text and int(refused.headers["retry-after"]) > 0
    assert (await http.get("/readyz")).json() == {"ready": False, "reason": "store"}
    assert (await http.get("/healthz")).status_code == 200

    goes_on.set()
    async with asyncio.timeout(60):
        while (await http.get(f"{M}/instances/a-1")).status_code != 202:  # it was only late
            await asyncio.sleep(0.01)
    engine.callers.look()
    assert (await http.get("/readyz")).status_code == 200
    assert (await http.get(f"{M}/instances/a-2")).status_code == 404, "and this was never stored"


async def test_a_full_store_is_507_and_reading_goes_on(http: httpx2.AsyncClient, store: FaultyStore) -> None:
    await http.post(f"{M}/orchestrators/approval/a-1")
    store.plan.full = True
    answer = await http.post(f"{M}/orchestrators/approval/a-2")

    refusing = await http.get("/readyz")

    assert (answer.status_code, answer.json()["code"]) == (507, "store-full")
    assert (refusing.status_code, refusing.json()["ready"]) == (503, False), refusing.text
    assert (await http.get(f"{M}/instances/a-1")).status_code == 202
    assert (await http.get(f"{M}/instances/a-2")).status_code == 404


async def test_a_full_queue_is_not_ready_and_still_healthy(
    serving: Any, http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine: Any = serving.app.app.state.client.gateway
    monkeypatch.setattr(type(engine.callers), "__len__", lambda _: engine.settings.queued_requests)

    busy = await http.get("/readyz")
    assert (busy.status_code, busy.json()["reason"]) == (503, "busy")
    assert (await http.get("/healthz")).status_code == 200
    assert isinstance(serving.app.app.state.client, df.Client)


async def test_it_is_not_ready_while_writes_are_refused_and_is_again_with_the_first_that_is_not(
    http: httpx2.AsyncClient, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = True
    commit = store.commit

    def refused(batch: Any) -> None:
        if full:
            raise StoreFull("no space is left")
        commit(batch)

    monkeypatch.setattr(store, "commit", refused)
    assert (await http.get("/readyz")).status_code == 200
    refusal = await http.post(f"{M}/orchestrators/approval/some-1")
    assert refusal.status_code in (503, 507), refusal.text
    answer = await http.get("/readyz")
    assert (answer.status_code, answer.json()["reason"]) == (503, "store")
    assert (await http.get("/healthz")).status_code == 200
    full = False
    assert (await http.post(f"{M}/orchestrators/approval/some-2")).status_code == 202
    assert (await http.get("/readyz")).status_code == 200


async def test_readiness_counts_nothing(
    http: httpx2.AsyncClient, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def counted() -> dict[str, int]:
        raise AssertionError("counting reads every instance of the hub")

    monkeypatch.setattr(store, "counts", counted)
    assert (await http.get("/readyz")).status_code == 200


async def test_an_engine_that_lost_its_hub_names_the_engine_that_holds_it(
    http: httpx2.AsyncClient, serving: Any, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller can go there. The rest of the store's message, with its address, stays in the log."""

    def held() -> Any:
        raise StoreInUse(f"the engine b holds {CANARY} and serves it at http://b:7071", "http://b:7071")

    monkeypatch.setattr(store, "reopen", held)
    store.plan.away = True
    lost = await http.post(f"{M}/orchestrators/approval/a-1")
    later = await http.post(f"{M}/orchestrators/approval/a-2")
    transport = httpx2.ASGITransport(app=serving)
    async with RemoteClient(LOCAL, transport=transport) as remote:
        with pytest.raises(df.OutcomeUnknown) as far:
            await remote.start_new("approval", "a-3")

    for answer in (lost, later):
        assert (answer.status_code, answer.json()["holder"]) == (503, "http://b:7071")
        assert CANARY not in answer.text
    assert isinstance(far.value.__cause__, StoreInUse)
    assert far.value.__cause__.holder == "http://b:7071"
