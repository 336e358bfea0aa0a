"""Links that are made for a person: the records name the person, and a task counts their decision."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

import perdure as df
from perdure.cli.main import root
from perdure.http.access.gate import Access
from perdure.http.api.instance_urls import MANAGEMENT as M
from perdure.http.host import Host, application
from perdure.http.remote.client import RemoteClient
from tests.access.conftest import ADMIN, TOKEN, Door, as_key
from tests.access.test_tasks import ADA, BEN, desk_app
from tests.http.conftest import LOCAL

APPROVE, DENY = {"field.approve": "true"}, {"field.approve": "false"}


@pytest.fixture
def door() -> Iterator[Door]:
    host: Host = desk_app().asgi(store="memory:", token=TOKEN, admin_key=ADMIN)
    with TestClient(host, base_url=LOCAL, follow_redirects=False) as http:
        yield Door(http, host)


def made(door: Door, key: str = ADMIN, **wanted: Any) -> httpx2.Response:
    body = {"event": "Decide", **wanted}
    answer: Any = door.http.post(f"{M}/instances/r-1/links", json=body, headers=as_key(key))
    return answer  # type: ignore[no-any-return]


def link(door: Door, person: str = "", *roles: str) -> str:
    answer = made(door, **({"for": person, "roles": roles} if person else {}))
    assert answer.status_code == 201, answer.text
    url: str = answer.json()["url"]
    return url


def test_the_history_the_log_and_the_task_name_the_person(door: Door) -> None:
    door.start("review", "r-1")
    for person, answer in ((ADA, APPROVE), (BEN, DENY)):
        thanks = door.http.post(link(door, person, "adjuster"), data=answer)
        assert thanks.status_code == 200, thanks.text

    status = door.http.get(f"{M}/instances/r-1?wait=30&showHistory=true", headers=as_key(ADMIN)).json()
    assert status["output"] == [[True, False], [ADA, BEN]]
    named = [row["who"].partition(" (link, key ")[0] for row in door.audit(operation="decide")]
    assert named == [BEN, ADA]


def test_a_page_says_in_whose_name_it_answers(door: Door) -> None:
    door.start("review", "r-1")
    page = door.http.get(link(door, "Ada <b>L</b>", "adjuster"))
    assert "Ada &lt;b&gt;L&lt;/b&gt;" in page.text
    assert "You answer as" not in door.http.get(link(door)).text


@pytest.mark.parametrize(
    ("roles", "why"),
    [(("supervisor",), "the task is for the role adjuster"), ((), "the task is for the role adjuster")],
)
def test_the_role_of_the_link_decides_whether_the_answer_counts(
    door: Door, roles: tuple[str, ...], why: str
) -> None:
    door.start("review", "r-1")
    url = link(door, ADA, *roles)
    refused = door.http.post(url, data=APPROVE)
    assert (refused.status_code, why in refused.text) == (403, True), refused.text
    assert [row["outcome"] for row in door.audit(operation="decide")] == ["task-refused"]


def test_a_link_is_no_way_around_the_claim_of_another_person(door: Door) -> None:
    door.start("review", "r-1")
    url = link(door, BEN, "adjuster")
    ada = as_key(door.key("decide", "role:adjuster", name=ADA))
    [task] = door.http.get(f"{M}/tasks", headers=ada).json()
    assert door.http.post(f"{M}/tasks/{task['id']}/claim", headers=ada).status_code == 202

    held = door.http.post(url, data=APPROVE)
    assert (held.status_code, f"{ADA} claimed this task" in held.text) == (409, True), held.text
    assert [row["outcome"] for row in door.audit(operation="decide")] == ["task-held"]

    assert door.http.post(f"{M}/tasks/{task['id']}/release", headers=ada).status_code == 202
    assert door.http.post(url, data=APPROVE).status_code == 200  # the refusal has not used the link


def test_a_link_without_a_person_decides_nothing_that_needs_one(door: Door) -> None:
    door.start("review", "r-1")
    assert door.http.post(link(door), data=APPROVE).status_code == 403


def test_two_links_of_one_person_are_one_pair_of_eyes(door: Door) -> None:
    door.start("review", "r-1")
    assert door.http.post(link(door, ADA, "adjuster"), data=APPROVE).status_code == 200
    again = door.http.post(link(door, ADA, "adjuster"), data=APPROVE)
    assert (again.status_code, "another person must give the next" in again.text) == (403, True)


def test_the_name_in_a_link_cannot_be_changed(door: Door) -> None:
    door.start("review", "r-1")
    for_ada, for_ben = link(door, "ada", "adjuster"), link(door, "bob", "adjuster")
    path, _, sig_of_ada = for_ada.partition("?sig=")
    sig_of_ben = for_ben.partition("?sig=")[2]
    assert len(sig_of_ada) == len(sig_of_ben)
    for at in range(0, len(sig_of_ada), 4):  # every group of letters is three bytes
        forged = sig_of_ada[:at] + sig_of_ben[at : at + 4] + sig_of_ada[at + 4 :]
        if forged not in (sig_of_ada, sig_of_ben):
            assert door.http.get(f"{path}?sig={forged}").status_code in (403, 429)
    named = door.http.post(for_ada, json={"approve": True, "decided_by": "bob"}, headers={"x-user": "bob"})
    assert named.status_code in (202, 400)
    assert not [row for row in door.audit(operation="decide") if row["who"].startswith("bob")]


def test_only_an_administrator_makes_links_in_the_name_of_a_person(door: Door) -> None:
    door.start("review", "r-1")
    operator = door.key("operate", name=ADA)
    assert made(door, operator).status_code == 201
    for wanted in ({"for": ADA}, {"for": BEN, "roles": ["adjuster"]}):
        refused = made(door, operator, **wanted)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert "requires the scope 'admin'" in refused.json()["detail"]


@pytest.mark.parametrize(
    "wanted", [{"roles": ["adjuster"]}, {"for": "a\nb"}, {"for": "x" * 201}, {"for": ADA, "roles": [""]}]
)
def test_a_name_that_no_record_can_have_makes_no_link(door: Door, wanted: dict[str, Any]) -> None:
    door.start("review", "r-1")
    assert made(door, **wanted).status_code == 400


async def test_the_clients_make_them_alike() -> None:
    app = desk_app()
    async with app.running(store="memory:") as client:
        await client.start_new("review", "r-1")
        transport = httpx2.ASGITransport(
            app=application(client, access=Access(client, is_open=True, public_url=LOCAL))
        )
        async with (
            RemoteClient(LOCAL, transport=transport) as remote,
            httpx2.AsyncClient(transport=transport) as http,
        ):
            for one, person in (
                (client, df.Person(ADA, ("adjuster",))),
                (remote, df.Person(BEN, ("adjuster",))),
            ):
                url = await one.create_event_link("r-1", "Decide", for_=person)
                assert (await http.post(url, json={"approve": True})).status_code == 202
            assert (await client.wait_for_completion("r-1")).output == [[True, True], [ADA, BEN]]
            with pytest.raises(df.PayloadError, match="the person of a link"):
                await client.create_event_link("r-1", "Decide", for_="")


def test_the_command(tmp_path: Path) -> None:
    hub = ["--store", str(tmp_path / "hub.db"), "--hub", "desk"]

    async def start() -> None:
        async with desk_app().running(store=str(tmp_path / "hub.db")) as client:
            await client.start_new("review", "r-1")

    asyncio.run(start())
    words = ["link", "r-1", "Decide", "--public-url", LOCAL, *hub]
    printed = CliRunner().invoke(root, [*words, "--for", ADA, "--role", "adjuster"])
    assert printed.exit_code == 0, printed.output

    with TestClient(desk_app().asgi(store=str(tmp_path / "hub.db"), admin_key=ADMIN), base_url=LOCAL) as http:
        url = printed.output.strip()
        assert http.post(url, json={"approve": True}).status_code == 202
        assert http.get(f"{M}/audit?operation=create_link", headers=as_key(ADMIN)).json()["records"][0][
            "detail"
        ] == (f"Decide for {ADA}")
    assert CliRunner().invoke(root, [*words, "--role", "adjuster"]).exit_code == 2
