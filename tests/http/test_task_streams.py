"""Server-sent events of people's tasks: each person those of their roles, and each change."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from perdure.http.api.instance_urls import MANAGEMENT as M
from tests.access.conftest import ADMIN, Door, as_key
from tests.access.test_tasks import ADA, SAM, desk_app, person, post
from tests.access.test_tasks import door as door
from tests.http.serving import served
from tests.http.test_streams import LIVE, frames_in, live

PATH = f"{M}/tasks/events"


def frames(door: Door, who: dict[str, str], **more: Any) -> list[dict[str, Any]]:
    answer = door.http.get(PATH, headers={**who, **more.pop("headers", {})}, params=more)
    assert answer.status_code == 200, answer.text
    return frames_in(answer.text)


def test_a_person_gets_the_tasks_of_their_roles_only(door: Door) -> None:
    ada, sam = person(door, ADA, "adjuster"), person(door, SAM, "supervisor")
    door.start("review", "r-1")
    [listed, task] = frames(door, ada)
    assert (listed["event"], task["event"]) == ("list", "task")
    assert listed["data"]["taskIds"] == [task["data"]["id"]]
    assert task["data"] == door.http.get(f"{M}/tasks", headers=ada).json()[0]
    assert [one["data"] for one in frames(door, sam)] == [{"taskIds": []}]
    assert "r-1" not in door.http.get(PATH, headers=sam).text
    assert len(frames(door, as_key(ADMIN))) == 2


def test_a_reader_that_comes_back_gets_nothing_until_something_has_changed(door: Door) -> None:
    ada = person(door, ADA, "adjuster")
    door.start("review", "r-1")
    [listed, task] = frames(door, ada)
    known = {"Last-Event-ID": task["id"]}
    assert listed["id"] == task["id"]
    assert frames(door, ada, headers=known) == []
    post(door, ada, task["data"]["id"], "claim")
    [_, changed] = frames(door, ada, headers=known)
    assert changed["data"]["holder"] == ADA
    assert changed["id"] != task["id"]


@pytest.mark.parametrize(
    ("query", "found"), [({"role": "adjuster"}, 1), ({"role": "x"}, 0), ({"mine": "true"}, 0)]
)
def test_the_filters_of_the_list_apply(door: Door, query: dict[str, str], found: int) -> None:
    ada = person(door, ADA, "adjuster")
    door.start("review", "r-1")
    assert len(frames(door, ada, **query)) == 1 + found


def test_without_a_key_there_is_no_stream(door: Door) -> None:
    assert door.http.get(PATH).status_code == 401


@pytest.fixture
def address() -> Iterator[str]:
    with served(desk_app().asgi(store="memory:", access="open")) as found:
        yield found


async def test_a_stream_tells_a_new_task_and_its_end(address: str) -> None:
    async with (
        httpx2.AsyncClient(base_url=address + M, timeout=60) as http,
        asyncio.timeout(60),
        http.stream("GET", "/tasks/events", headers=LIVE) as response,
    ):
        coming = live(response)
        assert (await anext(coming))["data"] == {"taskIds": []}
        await http.post("/orchestrators/photo/p-1")
        listed, task = await anext(coming), await anext(coming)
        assert listed["data"]["taskIds"] == [task["data"]["id"]]
        assert task["data"]["event"] == "Photo"
        await http.post("/instances/p-1/raiseEvent/Photo", json="x")
        assert (await anext(coming))["data"] == {"taskIds": []}
