"""Server-sent events: state as it changes, taken up again where it was left, in every place a client may be."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import msgspec
import pytest
from starlette.testclient import TestClient

import perdure as df
from perdure.http.host import application
from perdure.http.remote.client import RemoteClient
from tests.http.conftest import LOCAL, M, finish, make_app, start
from tests.http.serving import served

LIVE = {"Accept": "text/event-stream"}


def frames_in(text: str) -> list[dict[str, Any]]:
    found = []
    for block in text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "data" in lines:
            found.append({**lines, "data": msgspec.json.decode(lines["data"])})
    return found


async def live(response: httpx2.Response) -> AsyncIterator[dict[str, Any]]:
    block = ""
    async for line in response.aiter_lines():
        block += line + "\n"
        if not line:
            for frame in frames_in(block):
                yield frame
            block = ""


@pytest.fixture
def address() -> Any:
    with served(make_app().asgi(store="memory:", access="open")) as found:
        yield found


def test_whoever_wants_no_stream_gets_what_there_is_now(http: TestClient) -> None:
    start(http, "approval", "a-1")
    answer = http.get(f"{M}/instances/a-1/events")

    assert answer.headers["content-type"].startswith("text/event-stream")
    [frame] = frames_in(answer.text)
    assert frame["event"] == "status"
    assert frame["data"]["instanceId"] == "a-1"
    known = http.get(f"{M}/instances/a-1/events", headers={"Last-Event-ID": frame["id"]})
    assert known.text == ""


def test_a_reader_that_comes_back_is_told_what_has_changed_and_then_to_stay_away(http: TestClient) -> None:
    start(http, "approval", "a-1")
    [before] = frames_in(http.get(f"{M}/instances/a-1/events").text)
    http.post(f"{M}/instances/a-1/raiseEvent/ApproverDecision", json={"approved": True})
    finish(http, "a-1")

    [after] = frames_in(http.get(f"{M}/instances/a-1/events", headers={"Last-Event-ID": before["id"]}).text)
    assert after["data"]["runtimeStatus"] == "Completed"
    assert after["id"] != before["id"]
    end = http.get(f"{M}/instances/a-1/events", headers={**LIVE, "Last-Event-ID": after["id"]})
    assert end.status_code == 204


def test_an_instance_that_is_not_there_is_a_problem_and_no_stream(http: TestClient) -> None:
    answer = http.get(f"{M}/instances/nobody/events", headers=LIVE)

    assert (answer.status_code, answer.json()["code"]) == (404, "instance-not-found")


def test_the_same_id_used_again_is_another_state(http: TestClient) -> None:
    start(http, "echo", "e-1", 1)
    finish(http, "e-1")
    [first] = frames_in(http.get(f"{M}/instances/e-1/events").text)
    http.delete(f"{M}/instances/e-1")
    start(http, "echo", "e-1", 2)
    finish(http, "e-1")

    [second] = frames_in(http.get(f"{M}/instances/e-1/events", headers={"Last-Event-ID": first["id"]}).text)
    assert second["data"]["output"] == 2


async def test_a_stream_tells_each_change_and_ends_with_the_instance(address: str) -> None:
    async with httpx2.AsyncClient(base_url=address + M, timeout=60) as http:
        await http.post("/orchestrators/approval/a-1")
        seen: list[str] = []
        async with http.stream("GET", "/instances/a-1/events", headers=LIVE) as response:
            async for frame in live(response):
                seen.append(frame["data"]["runtimeStatus"])
                if frame["data"]["waitingFor"].startswith("waiting for the event"):
                    if "Suspended" not in seen:
                        await http.post("/instances/a-1/suspend")
                    else:
                        await http.post(
                            "/instances/a-1/raiseEvent/ApproverDecision", json={"approved": False}
                        )
                elif frame["data"]["runtimeStatus"] == "Suspended":
                    await http.post("/instances/a-1/resume")

    assert seen[-1] == "Completed"
    assert "Suspended" in seen


async def test_a_list_tells_who_matches_who_changes_and_who_is_gone(address: str) -> None:
    async with httpx2.AsyncClient(base_url=address + M, timeout=60) as http:
        await http.post("/orchestrators/approval/a-1")
        await http.post("/orchestrators/sleeper/s-1")
        query = {"name": "approval", "runtimeStatus": "Running"}
        told: list[tuple[str, Any]] = []
        cursor = ""
        async with http.stream("GET", "/events", params=query, headers=LIVE) as response:
            async for frame in live(response):
                told.append(
                    (frame["event"], frame["data"].get("instanceId", frame["data"].get("instanceIds")))
                )
                cursor = frame["id"]
                if told[-1] == ("instance", "a-1"):
                    await http.post("/orchestrators/approval/a-2")
                elif told[-1] == ("instance", "a-2"):
                    await http.post("/instances/a-1/terminate")
                elif told[-1] == ("list", ["a-2"]):
                    break
        again = await http.get("/events", params=query, headers={"Last-Event-ID": cursor})
        anew = await http.get("/events", params=query, headers={"Last-Event-ID": "of another time"})

    assert ("list", ["a-2", "a-1"]) in told
    assert all("s-1" not in str(what) for _, what in told)
    assert again.text == ""
    assert [frame["event"] for frame in frames_in(anew.text)] == ["list", "instance"]


async def test_in_process_and_over_http_a_client_watches_alike(local: df.Client, address: str) -> None:
    async with RemoteClient(address) as remote:
        for client in (local, remote):
            await client.start_new("approval", "w-1")
            seen = []
            async for status in client.watch("w-1"):
                seen.append(status)
                if status.waiting is not None and status.waiting.events:
                    await client.raise_event("w-1", "ApproverDecision", {"approved": True})
            assert seen[-1].output == "APPROVED"
            assert len(seen) >= 2
            assert [status.instance_id for status in [s async for s in client.watch("w-1")]] == ["w-1"]
            with pytest.raises(df.InstanceNotFound):
                async for _ in client.watch("nobody"):
                    pass


async def test_a_watcher_of_what_is_purged_comes_to_an_end(local: df.Client) -> None:
    await local.start_new("approval", "p-1")
    seen = 0
    async for status in local.watch("p-1"):
        seen += 1
        if status.waiting is not None and status.waiting.events:
            await local.terminate("p-1")
            await local.purge_instance_history("p-1")
    assert seen >= 1


async def test_while_nobody_watches_the_loop_has_nothing_to_call(local: df.Client) -> None:
    loop = local.gateway.loop  # type: ignore[attr-defined]
    assert loop.watched is None
    await local.start_new("approval", "n-1")
    watching = local.watch("n-1")
    await anext(watching)
    assert loop.watched is not None
    await watching.aclose()  # type: ignore[attr-defined]
    assert loop.watched is None


async def test_too_many_watchers_are_refused(local: df.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.engine.client.watching.MOST", 1)
    await local.start_new("approval", "m-1")
    first = local.watch("m-1")
    await anext(first)
    with pytest.raises(df.Overloaded):
        await anext(local.watch("m-1"))
    await first.aclose()  # type: ignore[attr-defined]


async def test_a_connection_that_breaks_is_taken_up_again(local: df.Client) -> None:
    """The server's answers break off after each frame; the watcher goes on with the id of the last one."""
    ids: list[str | None] = []

    class Breaking(httpx2.AsyncBaseTransport):
        inner = httpx2.ASGITransport(app=application(local))

        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            if request.url.path.endswith("/events"):
                ids.append(request.headers.get("last-event-id"))
                request.headers["accept"] = "*/*"  # one frame, and the end
                answer = await self.inner.handle_async_request(request)
                body = await answer.aread()
                return httpx2.Response(answer.status_code, headers=answer.headers, stream=Broken(body))
            return await self.inner.handle_async_request(request)

    class Broken(httpx2.AsyncByteStream):
        def __init__(self, body: bytes) -> None:
            self.body = body

        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield self.body
            await asyncio.sleep(0)
            raise httpx2.ReadError("broken off")

    async with RemoteClient(LOCAL, transport=Breaking()) as client:
        await client.start_new("approval", "b-1")
        seen = []
        async for status in client.watch("b-1"):
            seen.append(status.runtime_status.value)
            if len(seen) == 1:
                await client.raise_event("b-1", "ApproverDecision", {"approved": True})
                await local.wait_for_completion("b-1", 10)

    assert seen[-1] == "Completed"
    assert ids[0] is None and ids[1]
