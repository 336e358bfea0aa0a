"""The Idempotency-Key of a request: over HTTP, through remote clients, pages, the command line and links."""

import re
from typing import Any

import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

import perdure as df
from perdure.http.api.instance_urls import MANAGEMENT as M
from perdure.http.remote.client import RemoteClient
from tests.access.conftest import ADMIN, Door, as_key
from tests.access.conftest import door as door
from tests.http.conftest import LOCAL, finish, make_app, start

KEY = {"Idempotency-Key": "k-1"}
INSTANCE = f"{M}/instances"


def test_a_used_key_answers_no_other_verb(http: TestClient) -> None:
    made = http.post(f"{M}/orchestrators/open_door/o-1", headers=KEY)
    assert made.status_code == 202
    for verb, status in (("suspend", "Suspended"), ("resume", "Running"), ("terminate", "Terminated")):
        assert http.post(f"{INSTANCE}/o-1/{verb}", headers=KEY).status_code == 202
        assert http.get(f"{INSTANCE}/o-1").json()["runtimeStatus"] == status
    again = http.post(f"{INSTANCE}/o-1/restart", headers=KEY).json()["id"]
    assert again != "o-1"
    assert http.post(f"{INSTANCE}/o-1/restart", headers=KEY).json()["id"] == again
    assert http.delete(f"{INSTANCE}/o-1", headers=KEY).status_code == 200
    assert http.get(f"{INSTANCE}/o-1").status_code == 404


def test_one_webhook_id_raised_to_three_instances_reaches_all(http: TestClient) -> None:
    for one in ("o-1", "o-2", "o-3"):
        start(http, "open_door", one)
        raised = http.post(f"{INSTANCE}/{one}/raiseEvent/anything at all", json=one, headers=KEY)
        assert raised.status_code == 202
    assert [finish(http, one)["output"] for one in ("o-1", "o-2", "o-3")] == ["o-1", "o-2", "o-3"]


def test_the_same_key_with_another_body_is_422_and_nothing_is_done(http: TestClient) -> None:
    answers = [http.post(f"{M}/orchestrators/echo", json={"n": n}, headers=KEY) for n in (1, 2)]
    assert [answer.status_code for answer in answers] == [202, 422]
    assert answers[1].json()["number"] == "PDR-095"
    assert answers[1].json()["code"] == "idempotency-conflict"
    assert len(http.get(INSTANCE).json()) == 1


def test_a_message_id_names_one_message(http: TestClient) -> None:
    answers = [http.post(f"{M}/queues/orders?messageId=m-1", json=body).status_code for body in (1, 1, 2)]
    assert answers == [202, 202, 422]


def test_a_message_without_a_name_is_sent_once_for_one_key(http: TestClient) -> None:
    def sent(queue: str, body: object) -> Any:
        return http.post(f"{M}/queues/{queue}", json=body, headers=KEY)

    assert sent("orders", 1).json() == sent("orders", 1).json() != sent("parcels", 1).json()
    assert sent("orders", 2).status_code == 422
    assert len(http.get(INSTANCE).json()) == 2


def test_an_entity_takes_one_operation_of_a_key() -> None:
    app, url = make_app(), f"{M}/entities/counter"

    @app.entity
    def counter(context: df.EntityContext) -> None:
        context.set_state(context.get_state(lambda: 0) + context.get_input())

    with TestClient(app.asgi(store="memory:", access="open"), base_url=LOCAL) as http:
        answers = [
            http.post(f"{url}/{key}?op=add", json=body, headers=KEY).status_code
            for key, body in (("a", 1), ("a", 1), ("b", 1), ("a", 2))
        ]
    assert answers == [202, 202, 202, 422]


async def test_a_remote_client_raises_the_error_of_the_server(remote: RemoteClient) -> None:
    first = await remote.start_new("echo", None, 1, operation_id="k-1")
    assert await remote.start_new("echo", None, 1, operation_id="k-1") == first
    with pytest.raises(df.IdempotencyConflict):
        await remote.start_new("echo", None, 2, operation_id="k-1")
    await remote.start_new("open_door", "o-1", operation_id="k-1")
    await remote.terminate("o-1", operation_id="k-1")
    status = await remote.get_status("o-1")
    assert status is not None and status.runtime_status is df.RuntimeStatus.Terminated


def test_who_holds_a_link_burns_no_key_of_others(door: Door) -> None:
    """Every verb of the link, under the key that the victim will use for its start."""
    links = door.start()
    door.start(instance_id="a-2")
    filled = {name: re.sub(r"\{\w+\}", "ApproverDecision", url) for name, url in links.items()}
    for name in ("suspendPostUri", "resumePostUri"):
        assert door.http.post(filled[name], headers=KEY).status_code == 202
    assert door.http.post(filled["sendEventPostUri"], json={"approved": True}, headers=KEY).status_code == 202

    victim = as_key(ADMIN) | KEY
    assert door.http.post(f"{M}/orchestrators/echo", headers=victim).status_code == 202
    raised = door.http.post(
        f"{INSTANCE}/a-2/raiseEvent/ApproverDecision", json={"approved": False}, headers=victim
    )
    assert raised.status_code == 202
    assert door.http.get(f"{INSTANCE}/a-2?wait=60", headers=as_key(ADMIN)).json()["output"] == "DENIED"


def test_two_keys_of_the_hub_do_not_share_names(door: Door) -> None:
    one, other = (as_key(door.key("operate", name=name)) | KEY for name in ("one", "other"))
    ids = [
        door.http.post(f"{M}/orchestrators/echo", json=name, headers=caller).json()["id"]
        for name, caller in (("one", one), ("other", other), ("one", one), ("other", other))
    ]
    assert ids[0] == ids[2] != ids[1] == ids[3]


def test_a_form_of_one_instance_does_not_count_for_another(http: TestClient) -> None:
    """The number that the page gave a form travels with it; a foreign one changes nothing for anybody else."""
    for one in ("s-1", "s-2"):
        start(http, "sleeper", one)
    page = http.get("/instances/s-1").text
    token = re.search(r'name="csrf" value="([^"]+)"', page)
    assert token is not None
    form = {"csrf": token[1], "operation": "the-same"}
    for one in ("s-1", "s-2"):
        assert http.post(f"/instances/{one}/suspend", data=form).status_code == 303
        assert http.get(f"{INSTANCE}/{one}").json()["runtimeStatus"] == "Suspended"


# ------------------------------------------------------------------------------------ client functions


def serving(function: Any) -> TestClient:
    app = make_app()
    app.route("/go", methods=["POST"], auth="anonymous")(function)
    return TestClient(app.asgi(store="memory:", access="open"), base_url=LOCAL)


def test_a_function_starts_once_for_one_key() -> None:
    async def go(request: Request, client: df.Client) -> list[str]:
        body = await request.json()
        return [await client.start_new("echo", None, body) for _ in range(2)]

    with serving(go) as http:
        first = http.post("/api/go", json=1, headers=KEY).json()
        again = http.post("/api/go", json=1, headers=KEY).json()
        others = [http.post("/api/go", json=1).json() for _ in range(2)]
        refused = http.post("/api/go", json=2, headers=KEY)

        assert len(set(first)) == 2 and again == first
        assert len({*first, *others[0], *others[1]}) == 6
        assert refused.status_code == 422 and refused.json()["number"] == "PDR-095"


def test_a_function_may_compute_its_input_anew_for_a_repeat() -> None:
    counted = iter(range(10))

    async def go(request: Request, client: df.Client) -> str:
        return await client.start_new("echo", None, {"at": next(counted)})

    with serving(go) as http:
        made = http.post("/api/go", content=b"", headers=KEY)
        assert made.status_code == 200


def test_names_that_the_code_chooses_are_its_own_whoever_calls() -> None:
    """A stranger who sends the name that the code will use as a key of its own changes nothing."""

    async def go(request: Request, claim: dict[str, str], client: df.Client) -> str:
        return await client.start_new("echo", claim["id"], claim, operation_id=claim["id"])

    with serving(go) as http:
        stranger = http.post(
            "/api/go", json={"id": "c-1", "who": "stranger"}, headers={"Idempotency-Key": "c-2"}
        )
        victim = http.post("/api/go", json={"id": "c-2", "who": "victim"})
        assert stranger.text == "c-1" and victim.text == "c-2"
