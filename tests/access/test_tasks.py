"""People's tasks over HTTP: the person comes from the key, and never from the request."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

import perdure as df
from perdure.cli.main import root
from perdure.cli.terminal import NOT_FOUND
from perdure.errors import TaskClosed, TaskHeld, TaskRefused
from perdure.http.api.instance_urls import MANAGEMENT as M
from perdure.http.host import Host, application
from perdure.http.remote.client import RemoteClient
from tests.access.conftest import ADMIN, TOKEN, Door, as_key
from tests.http.conftest import LOCAL

ADA, BEN, SAM = "ada@example.org", "ben@example.org", "sam@example.org"


@dataclass
class Decision:
    """Pay the claim, or deny it."""

    approve: bool


def desk_app() -> df.App:
    app = df.App("desk")

    @app.orchestrator
    async def review(context: df.OrchestrationContext) -> list[Any]:
        task = context.human_task(
            "Decide",
            Decision,
            title="Pay claim 7?",
            facts={"amount": 51_200},
            roles=("adjuster",),
            timeout=timedelta(hours=72),
            decisions=2,
        )
        return [[one.approve for one in await task], list(task.decided_by)]

    @app.orchestrator
    async def hostile(context: df.OrchestrationContext, text: str) -> Any:
        return await context.human_task("Any", title=text, facts={text: text}, then=text)

    @app.orchestrator
    async def photo(context: df.OrchestrationContext) -> str:
        return await context.wait_for_external_event("Photo", str)

    return app


@pytest.fixture
def door() -> Iterator[Door]:
    host: Host = desk_app().asgi(store="memory:", token=TOKEN, admin_key=ADMIN)
    with TestClient(host, base_url=LOCAL, follow_redirects=False) as http:
        yield Door(http, host)


def person(door: Door, name: str, *roles: str) -> dict[str, str]:
    return as_key(door.key("decide", *(f"role:{role}" for role in roles), name=name))


def post(door: Door, who: dict[str, str], task: str, verb: str, **options: Any) -> httpx2.Response:
    answer: Any = door.http.post(f"{M}/tasks/{task}/{verb}", headers=who, **options)
    return answer  # type: ignore[no-any-return]


def test_people_claim_and_decide_with_their_own_keys(door: Door) -> None:
    ada, ben = person(door, ADA, "adjuster"), person(door, BEN, "adjuster")
    door.start("review", "r-1")
    [task] = door.http.get(f"{M}/tasks", headers=ada).json()
    assert (task["title"], task["facts"], task["roles"]) == ("Pay claim 7?", {"amount": 51_200}, ["adjuster"])
    assert door.http.get(f"{M}/tasks/{task['id']}", headers=ben).json() == task

    assert post(door, ada, task["id"], "claim").status_code == 202
    held = post(door, ben, task["id"], "claim")
    assert (held.status_code, held.json()["code"]) == (409, "task-held")
    assert f"{ADA} claimed this task" in held.json()["detail"]
    assert [one["id"] for one in door.http.get(f"{M}/tasks?mine=true", headers=ada).json()] == [task["id"]]
    assert door.http.get(f"{M}/tasks?mine=true", headers=ben).json() == []

    assert post(door, ada, task["id"], "complete", json={"approve": True}).status_code == 202
    twice = post(door, ada, task["id"], "complete", json={"approve": True})
    assert (twice.status_code, twice.json()["code"]) == (403, "task-refused")
    assert post(door, ben, task["id"], "complete", json={"approve": False}).status_code == 202
    status = door.http.get(f"{M}/instances/r-1?wait=30", headers=as_key(ADMIN)).json()
    assert status["output"] == [[True, False], [ADA, BEN]]

    late = post(door, ben, task["id"], "complete", json={"approve": False})
    assert (late.status_code, late.json()["code"]) == (409, "task-closed")
    assert door.http.get(f"{M}/tasks/{task['id']}", headers=ada).status_code == 404
    named = {(row["operation"], row["who"].split(" (")[0]) for row in door.audit(instance="r-1")}
    assert {("claim_task", ADA), ("complete_task", ADA), ("complete_task", BEN)} <= named


def test_a_person_sees_the_tasks_of_their_roles_only(door: Door) -> None:
    sam = person(door, SAM, "supervisor")
    door.start("review", "r-1")
    door.start("photo", "p-1")
    assert [task["event"] for task in door.http.get(f"{M}/tasks", headers=sam).json()] == ["Photo"]
    everything = door.http.get(f"{M}/tasks", headers=as_key(door.key("operate"))).json()
    assert {task["event"] for task in everything} == {"Photo", "Decide"}
    [hidden] = [task["id"] for task in everything if task["event"] == "Decide"]
    assert door.http.get(f"{M}/tasks/{hidden}", headers=sam).status_code == 404
    assert post(door, sam, hidden, "complete", json={"approve": True}).status_code == 403


def test_a_key_without_a_person_decides_nothing_that_needs_one(door: Door) -> None:
    """Neither as a task, nor as an event, nor with a name in the body."""
    operator = as_key(door.key("operate", name=ADA))
    door.start("review", "r-1")
    door.start("photo", "p-1")
    tasks = {task["event"]: task["id"] for task in door.http.get(f"{M}/tasks", headers=operator).json()}

    claimed = post(door, operator, tasks["Decide"], "claim")
    decided = post(door, operator, tasks["Decide"], "complete", json={"approve": True, "decided_by": ADA})
    raised = door.http.post(f"{M}/instances/r-1/raiseEvent/Decide", json={"approve": True}, headers=operator)
    assert [one.status_code for one in (claimed, decided, raised)] == [403, 403, 403]
    assert post(door, operator, tasks["Photo"], "complete", json="front").status_code == 202
    assert any(row["outcome"] == "task-refused" for row in door.audit(instance="r-1"))


def test_an_event_by_a_persons_key_with_the_scope_operate_names_them(door: Door) -> None:
    both = as_key(door.key("operate", "decide", "role:adjuster", name=ADA))
    door.start("review", "r-1")
    for expected in (202, 403):
        raised = door.http.post(f"{M}/instances/r-1/raiseEvent/Decide", json={"approve": True}, headers=both)
        assert raised.status_code == expected


def test_a_role_belongs_to_a_person(door: Door) -> None:
    made = door.http.post(
        f"{M}/keys", json={"name": "x", "scopes": ["read", "role:adjuster"]}, headers=as_key(ADMIN)
    )
    assert "a role belongs to the key of a person" in made.text, made.text


async def test_the_remote_client_has_the_same_verbs() -> None:
    app = desk_app()
    async with app.running(store="memory:") as client:
        await client.start_new("photo", "p-1")
        transport = httpx2.ASGITransport(app=application(client))
        async with RemoteClient(LOCAL, transport=transport) as remote:
            [task] = (await remote.list_tasks(text="photo")).tasks
            assert task == (await client.list_tasks()).tasks[0]
            assert await remote.get_task(task.id) == task
            with pytest.raises(TaskRefused):
                await remote.claim_task(task.id, df.Person(ADA))
            await client.claim_task(task.id, df.Person(ADA))
            with pytest.raises(TaskHeld):
                await remote.complete_task(task.id, None, "front")
            await client.release_task(task.id, df.Person(ADA))
            await remote.complete_task(task.id, None, "front")
            assert await remote.get_task(task.id) is None
            with pytest.raises(TaskClosed):
                await remote.complete_task(task.id, None, "front")


def test_the_commands(tmp_path: Path) -> None:
    hub = ["--store", str(tmp_path / "hub.db"), "--hub", "desk"]

    async def start() -> None:
        async with desk_app().running(store=str(tmp_path / "hub.db")) as client:
            await client.start_new("review", "r-1")

    asyncio.run(start())

    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(root, ["tasks", *words, *hub])
        return done.exit_code, done.output

    code, listed = run("list")
    assert code == 0, listed
    assert "Pay claim 7?" in listed
    assert run("list", "--role", "supervisor")[1].strip().count("\n") <= 1
    code, shown = run("show", "r-1:0")
    assert (code, "amount" in shown, "adjuster" in shown) == (0, True, True)
    assert run("claim", "r-1:0")[0] != 0
    claimed = run("claim", "r-1:0", "--as", ADA, "--role", "adjuster")
    assert (claimed[0], "was claimed" in claimed[1]) == (0, True)
    held = run("claim", "r-1:0", "--as", BEN, "--role", "adjuster")
    assert (held[0] != 0, f"{ADA} claimed this task" in held[1]) == (True, True)
    assert run("release", "r-1:0", "--as", ADA)[0] == 0
    assert run("assign", "r-1:0", BEN, "--as", ADA, "--role", "adjuster")[0] == 0
    assert run("complete", "r-1:0", "-i", '{"approve": true}', "--as", ADA, "--role", "adjuster")[0] == 0
    assert run("show", "r-1:7")[0] == NOT_FOUND
