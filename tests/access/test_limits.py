"""Limits and streams: each caller has its own, and those who watch slow no one down."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

import perdure as df
from perdure.http.access.limits import IN_HAND, RequestsInHand, limited_address
from perdure.http.access.stream_limits import KEPT, MOST, SHARE, StreamLimits
from perdure.http.api import streams
from perdure.http.api.instance_urls import MANAGEMENT as M
from perdure.http.principal import Refused
from perdure.http.shared_reads import PAUSE, SharedReads
from tests.access.conftest import ADMIN, Door, as_key, guarded_app
from tests.http.conftest import LOCAL

# ------------------------------------------------------------------------------------------------ limits


def emptied(door: Door, send: Callable[[], Any], most: int = 40) -> int:
    """How many requests pass until one is refused for its rate."""
    for n in range(most):
        if send().status_code == 429:
            return n
    raise AssertionError("never refused")


@pytest.fixture
def slow(door: Door) -> Door:
    """The same door, with a bucket of five requests for each caller that is never filled again."""
    door.gate._requests._rate, door.gate._requests._burst = 1e-9, 5.0
    return door


def test_holders_of_links_do_not_share_a_limit(slow: Door) -> None:
    status = [
        slow.http.post(f"{M}/orchestrators/approval/a-{n}", headers=as_key(ADMIN)).json()["statusQueryGetUri"]
        for n in range(4)
    ]
    assert emptied(slow, lambda: slow.http.get(status[0])) == 5
    for url in status[1:]:
        assert slow.http.get(url).status_code == 202


def test_links_for_two_verbs_of_one_instance_do_not_share_a_limit(slow: Door) -> None:
    links = slow.start()
    assert emptied(slow, lambda: slow.http.get(links["statusQueryGetUri"])) == 5
    assert slow.http.post(links["suspendPostUri"].replace("{text}", "why")).status_code == 202


def test_keys_do_not_share_a_limit(door: Door) -> None:
    one, other = (as_key(door.key("read", name="the same name")) for _ in range(2))
    door.gate._requests._rate, door.gate._requests._burst = 1e-9, 5.0
    assert emptied(door, lambda: door.http.get(f"{M}/counts", headers=one)) == 5
    assert door.http.get(f"{M}/counts", headers=other).status_code == 200
    assert door.http.get(f"{M}/counts", headers=as_key(ADMIN)).status_code == 200
    assert door.http.get("/api/anyone").status_code == 200


ADDRESSES = {
    "203.0.113.7": ("203.0.113.7", "203.0.113.8"),
    "::ffff:203.0.113.7": ("203.0.113.7", "::ffff:203.0.113.8"),
    "2001:db8:1:2::1": ("2001:db8:1:2:ffff::9", "2001:db8:1:3::1"),
    "fe80::1%eth0": ("fe80::2", "fe80:0:0:1::1"),
    "testclient": ("testclient", "another"),
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_in_ipv6_a_network_is_one_address(address: str) -> None:
    same, other = ADDRESSES[address]
    assert limited_address(address) == limited_address(same)
    assert limited_address(address) != limited_address(other)


def test_addresses_of_one_network_share_the_limits_of_an_address(slow: Door) -> None:
    def from_address(address: str) -> Any:
        app: Any = slow.http.app
        return TestClient(app, base_url=LOCAL, client=(address, 1)).get("/api/anyone")

    numbers = iter(range(1_000))
    assert emptied(slow, lambda: from_address(f"2001:db8::{next(numbers):x}")) == 5
    assert from_address("2001:db8:0:1::1").status_code == 200


def test_one_caller_has_a_share_of_the_requests_in_hand() -> None:
    in_hand = RequestsInHand(20)
    for _ in range(20):
        in_hand.take("one")
    with pytest.raises(Refused) as refused:
        in_hand.take("one")
    assert refused.value.status == 429 and refused.value.retry_after
    in_hand.take("another")
    in_hand.leave("one")
    in_hand.take("one")


def test_one_link_leaves_requests_in_hand_to_others_at_its_address() -> None:
    in_hand = RequestsInHand(20)
    for link in ("a", "b"):
        for _ in range(2):
            in_hand.take("address", link)
        with pytest.raises(Refused):
            in_hand.take("address", link)
    for _ in range(16):
        in_hand.take("address")
    with pytest.raises(Refused):
        in_hand.take("address", "c")
    for name in ("a", "a", "b", "b"):
        in_hand.leave("address", name)
    in_hand.take("address", "a")
    assert in_hand._taken["address"] == 17


@pytest.mark.parametrize(("files", "most"), [(400, 100), (1_024, 256), (1_000_000, IN_HAND)])
def test_one_caller_never_holds_most_of_the_files_of_the_process(
    files: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.http.access.limits.open_files", lambda: files)
    assert RequestsInHand()._most == most


async def test_who_waits_with_a_link_leaves_connections_to_all_others() -> None:
    async with guarded() as (host, access):
        access._in_hand = RequestsInHand(10)
        transport = httpx2.ASGITransport(host)
        async with httpx2.AsyncClient(transport=transport, base_url=LOCAL) as http:
            made = await http.post(f"{M}/orchestrators/approval/a-1", headers=as_key(ADMIN))
            link = f"{made.json()['statusQueryGetUri']}&wait=60"
            first = asyncio.create_task(http.get(link))
            while access._in_hand._taken.total() < 2:
                await asyncio.sleep(0)
            assert (await http.get(link)).status_code == 429
            assert (await http.get("/api/anyone")).status_code == 200
            assert (await http.get(f"{M}/instances", headers=as_key(ADMIN))).status_code == 200
            await http.post(f"{M}/instances/a-1/terminate", headers=as_key(ADMIN))
            assert (await first).status_code == 200
            assert (await http.get(link)).status_code == 200
            assert not access._in_hand._taken


# ---------------------------------------------------------------------------------------------- streams


def test_a_caller_has_a_share_and_administrators_have_places_of_their_own() -> None:
    shares = StreamLimits()
    callers = [f"key {n}" for n in range((MOST - KEPT) // SHARE)]
    for name in callers:
        for _ in range(SHARE):
            shares.take(name)
        with pytest.raises(Refused) as refused:
            shares.take(name)
        assert refused.value.status == 429 and refused.value.retry_after
    with pytest.raises(Refused) as full:
        shares.take("another")
    assert full.value.status == 503 and full.value.retry_after
    for _ in range(SHARE):
        shares.take("the administrator", is_admin=True)
    shares.leave(callers[0])
    with pytest.raises(Refused):
        shares.take(callers[1], is_admin=False)


def test_a_place_that_is_left_can_be_taken_again() -> None:
    shares = StreamLimits(most=3, share=2, kept=1)
    shares.take("one")
    shares.take("one")
    for _ in range(5):
        with pytest.raises(Refused):
            shares.take("one")
        shares.leave("one")
        shares.take("one")
    assert shares._taken.total() == 2


class Reader:
    """One stream, asked for as a server would: it takes what it is sent for as long as it likes to."""

    def __init__(self, app: Any, path: str, key: str) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.frames = asyncio.Queue[bytes]()
        self.reads = True
        self._gone = asyncio.Event()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [
                (b"host", b"localhost:7071"),
                (b"accept", b"text/event-stream"),
                (b"x-functions-key", key.encode()),
            ],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 7071),
        }
        self.task = asyncio.create_task(app(scope, self._receive, self._send))
        self.begun = asyncio.Event()

    async def _receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
            self.begun.set()
            return
        if not self.reads:
            await asyncio.Event().wait()
        self.body += message.get("body", b"")
        self.frames.put_nowait(message.get("body", b""))

    async def close(self) -> None:
        self._gone.set()
        await self.task


@asynccontextmanager
async def guarded(most: int = 6, share: int = 3, kept: int = 1) -> AsyncIterator[Any]:
    """A server with few places; gives its host, and makes keys."""
    host = guarded_app().asgi(store="memory:", admin_key=ADMIN)
    async with host.lifespan():
        serving: Any = host._serving
        access = serving.app.app.state.access
        access.shares = StreamLimits(most, share, kept)
        yield host, access


async def key_of(host: Any, access: Any, name: str) -> str:
    made = await host.client.create_key(name, ["read", "decide"])
    access.keys.refresh()
    secret: str = made.secret
    return secret


@pytest.mark.parametrize("path", [f"{M}/events", f"{M}/tasks/events", f"{M}/instances/s-1/events"])
async def test_who_takes_all_streams_takes_none_of_the_others(path: str) -> None:
    async with guarded() as (host, access):
        await host.client.start_new("sleeper", "s-1")
        greedy, other, late = [await key_of(host, access, name) for name in ("greedy", "other", "late")]
        readers = [Reader(host, path, greedy) for _ in range(5)]
        await asyncio.gather(*(reader.begun.wait() for reader in readers))
        assert sorted(reader.status for reader in readers) == [200, 200, 200, 429, 429]
        refused = next(reader for reader in readers if reader.status == 429)
        await refused.task
        assert b"problem" in refused.headers[b"content-type"] and b"retry-after" in refused.headers
        assert b"event: problem" not in refused.body

        more = [Reader(host, path, one) for one in (other, other)]
        await asyncio.gather(*(reader.begun.wait() for reader in more))
        assert [reader.status for reader in more] == [200, 200]
        full, administrator = Reader(host, path, late), Reader(host, path, ADMIN)
        await asyncio.gather(full.begun.wait(), administrator.begun.wait())
        assert (full.status, administrator.status) == (503, 200)
        assert b"event: problem" not in administrator.body

        await asyncio.gather(*(one.close() for one in (*readers, *more, administrator, full)))
        assert access.shares._taken.total() == 0


async def test_streams_are_not_refused_for_watchers_of_the_application(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("perdure.engine.client.watching.MOST", 1)
    async with guarded() as (host, _):
        await host.client.start_new("sleeper", "s-1")
        own = host.client.watch("s-1")
        await anext(own)
        reader = Reader(host, f"{M}/instances/s-1/events", ADMIN)
        assert b"Running" in await reader.frames.get() or b"Pending" in reader.body
        await reader.close()
        await own.aclose()


async def test_a_reader_that_takes_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "READER_MAY_STALL", 0.01)
    async with guarded() as (host, access):
        await host.client.start_new("sleeper", "s-1")
        for path in (f"{M}/events", f"{M}/instances/s-1/events"):
            reader = Reader(host, path, ADMIN)
            reader.reads = False
            await reader.task
            assert reader.status == 200
        assert access.shares._taken.total() == 0
        assert host.client.gateway.loop.watched is None


# ------------------------------------------------------------------------------------------------- looks


class Time:
    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    def looking(self, seconds: float, told: list[int]) -> Callable[[], Awaitable[int]]:
        async def look() -> int:
            await asyncio.sleep(0)
            self.now += seconds
            told.append(len(told))
            return len(told)

        return look


async def test_two_hundred_who_watch_the_same_share_one_look() -> None:
    time, told = Time(), list[int]()
    looks = SharedReads(time, time.sleep)
    ask = time.looking(0.01, told)
    assert set(await asyncio.gather(*(looks.look("list", ask) for _ in range(200)))) == {1}
    assert set(await asyncio.gather(*(looks.look("list", ask) for _ in range(200)))) == {2}


async def test_who_asks_while_a_look_is_under_way_gets_a_later_one() -> None:
    time, began, goes_on = Time(), asyncio.Event(), asyncio.Event()
    looks = SharedReads(time, time.sleep)
    seen = "before"

    async def ask() -> str:
        found = seen
        began.set()
        await goes_on.wait()
        return found

    first = asyncio.create_task(looks.look("one", ask))
    await began.wait()
    seen = "after"
    second = asyncio.create_task(looks.look("one", ask))
    goes_on.set()
    assert [await first, await second] == ["before", "after"]


async def test_looking_takes_a_part_of_the_time_however_many_look() -> None:
    time, told = Time(), list[int]()
    looks = SharedReads(time, time.sleep)
    ask = time.looking(0.01, told)
    await asyncio.gather(*(looks.look(f"list {n}", ask) for n in range(200)))
    assert len(told) == 200
    assert sum(time.slept) == pytest.approx(199 * 0.01 * PAUSE)


async def test_a_look_that_fails_fails_for_those_who_shared_it_and_not_for_the_next() -> None:
    time, told = Time(), list[int]()
    looks = SharedReads(time, time.sleep)

    async def fails() -> int:
        raise df.StoreError("away")

    results = await asyncio.gather(*(looks.look("one", fails) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [df.StoreError] * 3
    assert await looks.look("one", time.looking(0.0, told)) == 1
