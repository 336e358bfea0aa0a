"""Who is handed which links to an instance: what the caller may do, and nothing else."""

import asyncio
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import azure.functions as func
import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

import perdure as df
from examples.approval import app as approval_app
from examples.claims import app as claims_app
from examples.walkthrough import app as walkthrough_app
from perdure.http.api.instance_urls import MANAGEMENT as M
from perdure.model import payload
from tests.access.conftest import ADMIN, as_key
from tests.examples.test_claims import CLAIM
from tests.examples.test_walkthrough import CLAIM as WALKED
from tests.http.conftest import LOCAL

URIS = {
    "statusQueryGetUri",
    "sendEventPostUri",
    "terminatePostUri",
    "purgeHistoryDeleteUri",
    "restartPostUri",
    "suspendPostUri",
    "resumePostUri",
    "rewindPostUri",
}
OPERATOR = as_key(ADMIN)
SECRET = "known-to-the-input-alone"


def make_app(**options: Any) -> df.App:
    """Every way to be handed links, in routes of every kind."""
    app = df.App("handing", **options)

    @app.orchestrator
    async def waits(context: df.OrchestrationContext) -> object:
        context.set_custom_status("asking")
        return await context.wait_for_external_event("Go")

    @app.orchestrator
    async def fails(context: df.OrchestrationContext) -> object:
        raise ValueError("no such claim")

    async def asked(request: Request) -> tuple[Any, dict[str, Any]]:
        body = await request.json()
        return body.get("id"), {"on_existing": body.get("on_existing", "replace_finished")}

    @app.route("/response", methods=["POST"], auth="anonymous")
    async def response(request: Request, client: df.Client) -> object:
        wanted, how = await asked(request)
        return client.create_check_status_response(
            request, await client.start_new(waits, wanted, SECRET, **how)
        )

    @app.route("/payload", methods=["POST"], auth="anonymous")
    async def as_payload(request: Request, client: df.Client) -> object:
        wanted, how = await asked(request)
        return client.create_http_management_payload(
            await client.start_new(waits, wanted, SECRET, **how), request
        )

    @app.route("/azure", methods=["POST"], auth="anonymous")
    async def azure(request: Request, client: df.Client) -> object:
        wanted, how = await asked(request)
        return client.get_client_response_links(request, await client.start_new(waits, wanted, SECRET, **how))

    @app.route("/waited", methods=["POST"], auth="anonymous")
    async def waited(request: Request, client: df.Client) -> object:
        wanted, how = await asked(request)
        instance_id = await client.start_new(waits, wanted, SECRET, **how)
        return await client.wait_for_completion_or_create_check_status_response(request, instance_id, 1)

    @app.route("/caught", methods=["POST"], auth="anonymous")
    async def caught(request: Request, client: df.Client) -> object:
        wanted, _ = await asked(request)
        try:
            await client.start_new(waits, wanted, SECRET)
        except df.InstanceExists:
            pass
        return client.create_check_status_response(request, wanted)

    @app.route("/task", methods=["POST"], auth="anonymous")
    async def task(request: Request, client: df.Client) -> object:
        wanted, how = await asked(request)
        [found] = await asyncio.gather(client.start_new(waits, wanted, SECRET, **how))
        return client.create_check_status_response(request, found)

    @app.route("/thread", methods=["POST"], auth="anonymous")
    def thread(request: Request, body: dict[str, Any], client: df.SyncClient) -> object:
        how = {"on_existing": body.get("on_existing", "replace_finished")}
        return client.create_check_status_response(
            request, client.start_new(waits, body.get("id"), SECRET, **how)
        )

    @app.route("/package", methods=["POST"], auth="anonymous")
    async def package(request: func.HttpRequest, client: df.Client) -> func.HttpResponse:
        body = request.get_json()
        how = {"on_existing": body.get("on_existing", "replace_finished")}
        found: func.HttpResponse = client.create_check_status_response(
            request, await client.start_new(waits, body.get("id"), SECRET, **how)
        )
        return found

    @app.route("/many", methods=["POST"], auth="anonymous")
    async def many(request: Request, client: df.Client) -> object:
        made = [
            await client.start_new(waits, one, SECRET, on_existing="return_existing")
            for one in await request.json()
        ]
        return client.create_check_status_response(request, made[-1])

    @app.route("/plain/{how}", methods=["POST"], auth="anonymous")
    async def plain(request: Request, client: df.Client) -> object:
        taken = await client.start_new(waits, "plain", SECRET, on_existing=request.path_params["how"])
        return client.create_check_status_response(request, taken)

    @app.route("/failing", methods=["POST"], auth="anonymous")
    async def failing(request: Request, client: df.Client) -> object:
        instance_id = await client.start_new(fails, None, SECRET, tags={"desk": "a-tag"})
        return await client.wait_for_completion_or_create_check_status_response(request, instance_id)

    @app.route("/own", methods=["POST"], auth="anonymous")
    async def own(client: df.Client) -> object:
        return client.create_http_management_payload(await client.start_new(waits))

    @app.route("/documents", methods=["POST"], auth="anonymous", links=("status", "raise:Go", "raise:Docs"))
    async def documents(request: Request, client: df.Client) -> object:
        return client.create_check_status_response(request, await client.start_new(waits, None, SECRET))

    @app.route("/blind", methods=["POST"], auth="anonymous", links=())
    async def blind(request: Request, client: df.Client) -> object:
        return client.create_check_status_response(request, await client.start_new(waits, None, SECRET))

    @app.route("/keyed", methods=["POST"])
    async def keyed(request: Request, client: df.Client) -> object:
        return client.create_check_status_response(request, await client.start_new(waits, None, SECRET))

    return app


WAYS = ("response", "payload", "azure", "waited", "task", "thread", "package")


@contextmanager
def serving(app: df.App, **settings: Any) -> Iterator[TestClient]:
    host = app.asgi(store="memory:", admin_key=ADMIN, **settings)
    with TestClient(host, base_url=LOCAL, follow_redirects=False) as http:
        yield http


@pytest.fixture
def http() -> Iterator[TestClient]:
    with serving(make_app()) as client:
        yield client


def key(http: TestClient, *scopes: str) -> dict[str, str]:
    made = http.post(f"{M}/keys", json={"name": "tester", "scopes": scopes}, headers=OPERATOR)
    return as_key(made.json()["secret"])


def urls_in(answer: Any) -> list[str]:
    """Every address anywhere in an answer, filled in, the Location header too."""
    text = json.dumps(answer.json()) + " " + answer.headers.get("location", "")
    return [
        url.replace("{eventName}", "Go").replace("{text}", "why") for url in re.findall(r'http[^"\s]+', text)
    ]


def all_verbs_of(url: str) -> list[tuple[str, str]]:
    """An address tried for every verb: its own path and those of the others, with its signature."""
    path, _, query = url.partition("?")
    instance = re.sub(r"/(raiseEvent/[^/]+|terminate|suspend|resume|restart|rewind)$", "", path)
    sig = "&".join(part for part in query.split("&") if part.startswith("sig="))
    ends = [
        "/raiseEvent/Go",
        "/raiseEvent/ApproverDecision",
        "/raiseEvent/Decision",
        "/terminate",
        "/suspend",
    ]
    ends += ["/resume", "/restart", "/rewind", "/links"]
    return [("DELETE", f"{instance}?{sig}"), *(("POST", f"{instance}{end}?{sig}") for end in ends)]


# --------------------------------------------------------------------------------- every example's answers


@pytest.mark.parametrize(
    ("app", "path", "body", "waiting_for"),
    [
        (approval_app, "/api/approvals", {"who": "Ada", "what": "a keyboard", "amount": 120}, "Decision"),
        (walkthrough_app, "/api/claims", WALKED, "ApproverDecision"),
        (claims_app, "/api/claims", None, "ApproverDecision"),
    ],
    ids=["approval", "walkthrough", "claims"],
)
def test_whoever_asks_an_example_can_look_and_do_nothing(
    app: df.App, path: str, body: Any, waiting_for: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLAIMS_HOME", str(tmp_path))
    content = payload.encode(CLAIM) if body is None else json.dumps(body).encode()
    with serving(app) as http:
        answer = http.post(path, content=content)
        assert answer.status_code == 202
        made = answer.json()["id"]
        assert set(answer.json()) == {"id", "statusQueryGetUri"}
        watched = http.get(f"{M}/instances/{made}/events", headers=OPERATOR)
        assert watched.status_code == 200
        tried = 0
        for url in urls_in(answer):
            shown = http.get(url)
            assert shown.status_code == 202 and shown.json()["input"] is None
            for method, address in all_verbs_of(url):
                refused = http.request(method, address, json={"approved": True})
                assert refused.status_code in (401, 403, 404, 405, 429), (method, address, refused.text)
                tried += 1
        assert tried >= 20
        assert http.get(f"{M}/instances/{made}", headers=OPERATOR).json()["runtimeStatus"] == "Running"


def test_who_files_a_claim_again_gets_a_link_with_the_key_of_the_first_alone(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLAIMS_HOME", str(tmp_path))
    body = payload.encode(CLAIM)
    mine = {"Idempotency-Key": "a-key-of-the-claimant"}
    with serving(claims_app) as http:
        first = http.post("/api/claims", content=body, headers=mine)
        again = http.post("/api/claims", content=body, headers=mine)
        strangers = [
            http.post("/api/claims", content=body),
            http.post("/api/claims", content=body, headers={"Idempotency-Key": "another"}),
            http.post("/api/claims", content=body, headers={"Idempotency-Key": CLAIM.claim_id}),
            http.post("/api/claims", content=body, headers={"Idempotency-Key": "another"}),
        ]
        assert set(first.json()) == set(again.json()) == {"id", "statusQueryGetUri"}
        assert http.get(again.json()["statusQueryGetUri"]).status_code == 202
        for stranger in strangers:
            assert stranger.status_code == 202
            assert stranger.json() == {"id": CLAIM.claim_id}
            assert "location" not in stranger.headers and "sig=" not in stranger.text


# ------------------------------------------------------------------------------------------- who gets what


@pytest.mark.parametrize("way", WAYS)
def test_a_caller_without_a_key_gets_the_status_and_one_that_operates_gets_all(
    http: TestClient, way: str
) -> None:
    callers: list[tuple[dict[str, str], set[str]]] = [
        ({}, {"statusQueryGetUri"}),
        (as_key("pdk_nonsense"), {"statusQueryGetUri"}),
        (as_key(ADMIN + "?"), {"statusQueryGetUri"}),
        ({"Authorization": "Bearer a.token.of-another-house"}, {"statusQueryGetUri"}),
        (key(http, "read"), {"statusQueryGetUri"}),
        (key(http, "function"), {"statusQueryGetUri"}),
        (key(http, "operate"), URIS),
        (key(http, "admin"), URIS),
        (OPERATOR, URIS),
    ]
    for headers, expected in callers:
        answer = http.post(f"/api/{way}", json={}, headers=headers)
        assert answer.json().keys() - {"id"} == expected, headers
        assert http.get(answer.json()["statusQueryGetUri"]).status_code == 202


@pytest.mark.parametrize("way", [*WAYS, "caught"])
@pytest.mark.parametrize("finished", [False, True])
def test_a_start_that_met_an_instance_hands_a_stranger_nothing(
    http: TestClient, way: str, finished: bool
) -> None:
    if way == "caught" and finished:
        return  # then it is replaced, and the new one is the caller's own
    asked = {"id": "theirs", "on_existing": "return_existing"}
    assert http.post("/api/response", json=asked).json().keys() == {"id", "statusQueryGetUri"}
    if finished:
        http.post(f"{M}/instances/theirs/raiseEvent/Go", json="the outcome", headers=OPERATOR)
        http.get(f"{M}/instances/theirs?wait=60", headers=OPERATOR)

    stranger = http.post(f"/api/{way}", json=asked)
    assert stranger.json() == {"id": "theirs"}
    assert "location" not in stranger.headers and "outcome" not in stranger.text
    operator = http.post(f"/api/{way}", json=asked, headers=OPERATOR)
    assert operator.status_code in (200, 202)
    assert "sig=" in operator.text or operator.json() == "the outcome"


@pytest.mark.parametrize("how", ["reject", "replace_finished"])
def test_the_error_of_a_start_that_met_an_instance_tells_a_stranger_no_status(
    http: TestClient, how: str
) -> None:
    assert http.post("/api/plain/reject").status_code == 202
    stranger = http.post(f"/api/plain/{how}")
    reader = http.post(f"/api/plain/{how}", headers=key(http, "read"))
    assert (stranger.status_code, stranger.json()["code"]) == (409, "instance-exists")
    assert "Running" not in stranger.text
    assert reader.status_code == 409 and "is Running" in reader.json()["detail"]


def test_a_start_that_met_more_instances_than_are_kept_hands_out_none(
    http: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.engine.core.repeats._MET_AT_MOST", 2)
    taken = ["a", "b", "c"]
    for one in taken:
        assert "sig=" in http.post("/api/many", json=[one]).text
    assert http.post("/api/many", json=taken).json() == {"id": "c"}


def test_a_failure_that_is_waited_for_shows_what_a_status_link_shows(http: TestClient) -> None:
    stranger = http.post("/api/failing")
    assert (stranger.status_code, stranger.json()["runtimeStatus"]) == (500, "Failed")
    assert stranger.json()["output"] == "ValueError: no such claim"
    assert not any(stranger.json()[name] for name in ("input", "failure", "tags", "reason"))
    reader = http.post("/api/failing", headers=key(http, "read")).json()
    assert reader["tags"] == {"desk": "a-tag"} and reader["failure"]["stack"]


@pytest.mark.parametrize("way", WAYS)
def test_the_key_of_the_first_brings_the_link_back(http: TestClient, way: str) -> None:
    mine, asked = {"Idempotency-Key": "mine"}, {"id": "own", "on_existing": "return_existing"}
    answers = [http.post(f"/api/{way}", json=asked, headers=mine) for _ in range(2)]
    assert [set(answer.json()) for answer in answers] == [{"id", "statusQueryGetUri"}] * 2
    assert http.post(f"/api/{way}", json=asked, headers={"Idempotency-Key": "yours"}).json() == {"id": "own"}
    other = http.post(f"/api/{way}", json={**asked, "note": 1}, headers=mine)
    assert other.status_code == 422 and "sig=" not in other.text


def test_the_key_of_the_first_opens_no_later_instance_of_the_id(http: TestClient) -> None:
    mine, asked = {"Idempotency-Key": "mine"}, {"id": "reused", "on_existing": "return_existing"}
    assert "sig=" in http.post("/api/response", json=asked, headers=mine).text
    http.post(f"{M}/instances/reused/terminate", headers=OPERATOR)
    assert "sig=" in http.post("/api/response", json={"id": "reused"}).text  # another caller replaces it
    assert http.post("/api/response", json=asked, headers=mine).json() == {"id": "reused"}
    http.delete(f"{M}/instances/reused", headers=OPERATOR)
    assert http.post("/api/response", json=asked, headers=mine).status_code in (202, 404)


def test_a_key_that_met_an_instance_proves_nothing_when_it_is_sent_again(http: TestClient) -> None:
    asked = {"id": "theirs", "on_existing": "return_existing"}
    http.post("/api/response", json=asked)
    for _ in range(3):
        again = http.post("/api/response", json=asked, headers={"Idempotency-Key": "strangers"})
        assert again.json() == {"id": "theirs"}


def test_the_servers_own_code_gets_all_links_when_it_names_no_request(http: TestClient) -> None:
    assert http.post("/api/own").json().keys() - {"id"} == URIS


def test_a_route_says_what_else_it_hands_out(http: TestClient) -> None:
    links = http.post("/api/documents").json()
    assert links.keys() == {"id", "statusQueryGetUri", "sendEventPostUri", "sendEventPostUris"}
    assert links["sendEventPostUris"].keys() == {"Go", "Docs"}
    assert links["sendEventPostUri"] == links["sendEventPostUris"]["Go"]
    for event, url in links["sendEventPostUris"].items():
        other = url.replace(f"/{event}?", "/Other?")
        assert http.post(other, json=1).status_code == 403
    for event, url in reversed(links["sendEventPostUris"].items()):
        assert http.post(url, json=event).status_code == 202
    assert http.get(links["statusQueryGetUri"] + "&wait=60").json()["output"] == "Go"
    assert http.post("/api/blind").json().keys() == {"id"}


def test_a_key_for_functions_gets_what_the_route_hands_out(http: TestClient) -> None:
    answer = http.post("/api/keyed", headers=key(http, "function"))
    assert answer.json().keys() == {"id", "statusQueryGetUri"}
    assert http.post("/api/keyed", headers=OPERATOR).json().keys() - {"id"} == URIS


@pytest.mark.parametrize("links", [("status", "approve"), ("raise:",), "status", ("inspect",)])
def test_a_route_that_hands_out_what_there_is_not_is_refused(links: Any) -> None:
    with pytest.raises(df.RegistrationError, match="links|link"):
        df.App("x").route("/x", links=links)


# --------------------------------------------------------------------------------- what a link shows


ASKS = ("", "&showInput=true", "&showHistory=true&showHistoryOutput=true", "&execution=1", "&wait=0.01")


@pytest.mark.parametrize("ask", ASKS)
def test_a_status_link_shows_the_status_and_nothing_else(http: TestClient, ask: str) -> None:
    answer = http.post("/api/response", json={"id": "i-1"})
    http.post(f"{M}/instances/i-1/suspend?reason=fraud, tell no one", headers=OPERATOR)
    shown = http.get(answer.json()["statusQueryGetUri"] + ask)

    assert shown.status_code == 202
    document = shown.json()
    assert document["runtimeStatus"] == "Suspended" and document["customStatus"] == "asking"
    assert SECRET not in shown.text and "fraud" not in shown.text
    assert not {"history", "historyEvents", "events", "executions"} & document.keys()
    assert document["input"] is document["failure"] is document["waiting"] is None
    assert document["tags"] == {} and document["reason"] == ""


def test_an_operators_link_shows_input_and_history(http: TestClient) -> None:
    links = http.post("/api/response", json={}, headers=OPERATOR).json()
    shown = http.get(links["statusQueryGetUri"] + "&showHistory=true").json()
    assert shown["input"] == SECRET and shown["events"]


def test_asking_by_a_link_makes_no_other_link(http: TestClient) -> None:
    """Else a link would never expire for those who go on asking."""
    url = http.post("/api/response", json={}).json()["statusQueryGetUri"]
    assert http.get(url).headers["location"] == url


def test_who_restarts_by_a_link_gets_the_status_of_the_new_run(http: TestClient) -> None:
    links = http.post("/api/response", json={}, headers=OPERATOR).json()
    http.post(links["terminatePostUri"].replace("{text}", "why"))
    again = http.post(links["restartPostUri"])
    assert again.status_code == 202 and again.json().keys() == {"id", "statusQueryGetUri"}


# -------------------------------------------------------------------------------------------- as in Azure


def test_as_in_azure_everyone_gets_all_and_each_open_route_is_named_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "perdure.http"), serving(make_app(links="azure")) as http:
        for way in WAYS:
            assert http.post(f"/api/{way}", json={}).json().keys() - {"id"} == URIS
        asked = {"id": "theirs", "on_existing": "return_existing"}
        for _ in range(2):
            assert http.post("/api/response", json=asked).json().keys() - {"id"} == URIS
    warned = [record.getMessage() for record in caplog.records if "links='azure'" in record.getMessage()]
    routes = [route for route in make_app().registry.routes if route.auth == "anonymous"]
    assert len(warned) == len(routes)
    for route in routes:
        assert sum(f"POST /api{route.path} " in line for line in warned) == 1


def test_without_it_nothing_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "perdure.http"), serving(make_app()):
        assert not [record for record in caplog.records if "links=" in record.getMessage()]
    with pytest.raises(df.RegistrationError, match="links"):
        df.App("x", links="all")  # type: ignore[arg-type]


def test_a_code_of_somebody_elses_sign_in_is_no_attempt(http: TestClient) -> None:
    """`?code=` and `Authorization` of an open route may be the application's own."""
    for n in range(60):
        answer = http.post(f"/api/response?code=oauth-{n}", json={}, headers={"Authorization": f"Basic {n}"})
        assert answer.json().keys() == {"id", "statusQueryGetUri"}
