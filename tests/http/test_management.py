"""Azure's management API: paths, codes, headers and bodies."""

import re
from urllib.parse import parse_qsl, urlsplit

import pytest
from starlette.testclient import TestClient

import perdure as df
from tests.http.conftest import LOCAL, M, finish, start


def test_a_start_is_202_with_the_management_urls_and_where_to_ask(http: TestClient) -> None:
    answer = http.post(f"{M}/orchestrators/echo/a-1", json={"n": 1})

    here = f"{LOCAL}{M}/instances/a-1"
    assert answer.status_code == 202
    assert answer.headers["location"] == here
    assert answer.headers["retry-after"] == "10"
    assert answer.json() == {
        "id": "a-1",
        "statusQueryGetUri": here,
        "sendEventPostUri": f"{here}/raiseEvent/{{eventName}}",
        "terminatePostUri": f"{here}/terminate?reason={{text}}",
        "purgeHistoryDeleteUri": here,
        "restartPostUri": f"{here}/restart",
        "suspendPostUri": f"{here}/suspend?reason={{text}}",
        "resumePostUri": f"{here}/resume?reason={{text}}",
        "rewindPostUri": f"{here}/rewind?reason={{text}}",
    }


def test_a_start_without_an_id_gets_a_new_one(http: TestClient) -> None:
    one, other = (http.post(f"{M}/orchestrators/echo").json()["id"] for _ in range(2))

    assert one != other
    assert len(one) == 32


def test_an_empty_body_is_no_input(http: TestClient) -> None:
    http.post(f"{M}/orchestrators/echo/empty")

    assert finish(http, "empty")["output"] is None


def test_a_start_with_a_timeout_answers_the_output_if_it_completes_in_time(http: TestClient) -> None:
    answer = http.post(f"{M}/orchestrators/echo/quick?timeout=60&pollingInterval=1", json=[1, "two"])

    assert answer.status_code == 200
    assert answer.json() == [1, "two"]


def test_a_start_with_a_timeout_answers_202_if_it_does_not(http: TestClient) -> None:
    answer = http.post(f"{M}/orchestrators/sleeper/slow?timeout=0.01")

    assert answer.status_code == 202
    assert answer.json()["id"] == "slow"


@pytest.mark.parametrize("sig", ["\U00021bd3", "x\r\nSet-Cookie: a=b", "x&showInput=true"])
def test_a_signature_that_is_no_text_for_a_header_is_quoted_in_the_location(app: df.App, sig: str) -> None:
    key = "an admin's key of more than 32 characters"
    with TestClient(
        app.asgi(store="memory:", admin_key=key), base_url=LOCAL, headers={"x-functions-key": key}
    ) as http:
        start(http, "approval", "a-1", {})
        answer = http.get(f"{M}/instances/a-1", params={"sig": sig})

    assert answer.status_code == 202
    shown = answer.headers["location"]
    assert shown.isascii() and shown.isprintable()
    assert dict(parse_qsl(urlsplit(shown).query)) == {"sig": sig}


def test_an_unfinished_instance_is_202_and_says_when_to_ask_again(http: TestClient) -> None:
    start(http, "approval", "a-1", {"n": 1}, tag="region=eu")

    answer = http.get(f"{M}/instances/a-1")

    assert answer.status_code == 202
    assert answer.headers["location"] == f"{LOCAL}{M}/instances/a-1"
    assert answer.headers["retry-after"] == "5"
    assert answer.headers["cache-control"] == "no-store"
    status = answer.json()
    assert status["name"] == "approval"
    assert status["instanceId"] == "a-1"
    assert status["runtimeStatus"] == "Running"
    assert status["input"] == {"n": 1}
    assert status["output"] is None
    assert status["createdTime"].endswith("Z")
    assert status["waitingFor"].startswith("waiting for the event 'ApproverDecision' since ")
    assert status["tags"] == {"region": "eu"}
    assert status["reason"] == ""
    assert status["failure"] is None
    assert status["customStatus"] == "asking"
    assert "historyEvents" not in status


def test_a_completed_instance_is_200_with_its_output(http: TestClient) -> None:
    start(http, "echo", "e-1", {"deep": [1, 2.5, "x", None]})

    status = finish(http, "e-1")

    assert status["runtimeStatus"] == "Completed"
    assert status["output"] == {"deep": [1, 2.5, "x", None]}
    assert status["waitingFor"] == ""


def test_show_input_can_be_turned_off(http: TestClient) -> None:
    start(http, "sleeper", "s-1", "secret")

    assert http.get(f"{M}/instances/s-1?showInput=False").json()["input"] is None
    assert "secret" not in http.get(f"{M}/instances/s-1?showInput=false&showHistory=true").text


def test_a_failed_instance_is_200_or_500_if_so_asked(http: TestClient) -> None:
    start(http, "broken", "b-1")

    status = finish(http, "b-1")
    answer = http.get(f"{M}/instances/b-1?returnInternalServerErrorOnFailure=true")

    assert status["runtimeStatus"] == "Failed"
    assert status["failure"]["type"] == "ValueError"  # type: ignore[index]
    assert "alert" in str(status["output"])
    assert answer.status_code == 500
    assert answer.json()["runtimeStatus"] == "Failed"


def test_history_comes_in_azures_shape_and_in_ours(http: TestClient) -> None:
    start(http, "approval", "a-1")
    http.post(f"{M}/instances/a-1/raiseEvent/ApproverDecision", json={"approved": True})
    finish(http, "a-1")

    without = http.get(f"{M}/instances/a-1?showHistory=true").json()
    status = http.get(f"{M}/instances/a-1?showHistory=true&showHistoryOutput=true").json()

    azure = [event["EventType"] for event in status["historyEvents"]]
    assert azure == ["ExecutionStarted", "EventRaised", "TaskCompleted", "ExecutionCompleted"]
    task = status["historyEvents"][2]
    assert task["FunctionName"] == "shout"
    assert task["Result"] == "APPROVED"
    assert task["ScheduledTime"] <= task["Timestamp"]
    assert "Result" not in without["historyEvents"][2]
    assert [event["type"] for event in status["events"]][:2] == ["ExecutionStarted", "EventAwaited"]


def test_a_list_is_paged_by_the_continuation_header(http: TestClient) -> None:
    for number in range(5):
        start(http, "sleeper", f"s-{number}")

    first = http.get(f"{M}/instances/?top=3")
    token = first.headers["x-ms-continuation-token"]
    second = http.get(f"{M}/instances?top=3", headers={"x-ms-continuation-token": token})

    assert [one["instanceId"] for one in first.json()] == ["s-4", "s-3", "s-2"]
    assert [one["instanceId"] for one in second.json()] == ["s-1", "s-0"]
    assert "x-ms-continuation-token" not in second.headers


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", {"order-1", "order-2", "claim-1"}),
        ("runtimeStatus=Running", {"order-1", "claim-1"}),
        ("runtimeStatus=completed,Failed", {"order-2"}),
        ("instanceIdPrefix=order-", {"order-1", "order-2"}),
        ("name=approval", {"claim-1"}),
        ("waitingFor=ApproverDecision", {"claim-1"}),
        ("tag=region%3Deu", {"order-1"}),
        ("createdTimeFrom=2020-01-01T00:00:00Z", {"order-1", "order-2", "claim-1"}),
        ("createdTimeFrom=2020-01-01T00:00:00.000000Z&createdTimeTo=2020-01-02", set()),
    ],
)
def test_a_list_is_filtered(http: TestClient, query: str, found: set[str]) -> None:
    start(http, "sleeper", "order-1", tag="region=eu")
    start(http, "echo", "order-2")
    start(http, "approval", "claim-1")
    finish(http, "order-2")

    answer = http.get(f"{M}/instances?{query}")

    assert answer.status_code == 200
    assert {one["instanceId"] for one in answer.json()} == found


def test_counts_tell_how_many_stand_where(http: TestClient) -> None:
    start(http, "sleeper", "s-1")
    start(http, "echo", "e-1")
    finish(http, "e-1")

    counts = http.get(f"{M}/counts").json()

    assert {status: number for status, number in counts.items() if number} == {"Running": 1, "Completed": 1}


def test_an_event_is_202_without_a_body_and_completes_the_instance(http: TestClient) -> None:
    start(http, "approval", "a-1")

    answer = http.post(f"{M}/instances/a-1/raiseEvent/ApproverDecision", json={"approved": False})

    assert (answer.status_code, answer.content) == (202, b"")
    assert finish(http, "a-1")["output"] == "DENIED"


def test_an_event_name_may_hold_what_a_path_does_not(http: TestClient) -> None:
    start(http, "open_door", "o-1")

    answer = http.post(f"{M}/instances/o-1/raiseEvent/anything%20at%20all")

    assert answer.status_code == 202
    assert finish(http, "o-1")["output"] is None


def test_the_same_idempotency_key_is_the_same_event(http: TestClient) -> None:
    start(http, "open_door", "o-1")
    headers = {"Idempotency-Key": "k-1"}

    answers = [
        http.post(f"{M}/instances/o-1/raiseEvent/anything at all", json=1, headers=headers) for _ in range(2)
    ]

    assert [answer.status_code for answer in answers] == [202, 202]


def test_the_same_idempotency_key_is_the_same_start(http: TestClient) -> None:
    headers = {"Idempotency-Key": "k-2"}

    ids = {http.post(f"{M}/orchestrators/sleeper", headers=headers).json()["id"] for _ in range(3)}

    assert len(ids) == 1
    assert len(http.get(f"{M}/instances").json()) == 1


@pytest.mark.parametrize("operation", ["raiseevent/ApproverDecision", "RAISEEVENT/approverdecision"])
def test_operations_are_compared_without_case(http: TestClient, operation: str) -> None:
    start(http, "approval", "a-1")

    assert http.post(f"{M}/Instances/a-1/{operation}", json={"approved": True}).status_code == 202


def test_a_failed_instance_is_rewound_and_others_are_refused(http: TestClient) -> None:
    start(http, "broken", "b-1")
    finish(http, "b-1")
    start(http, "approval", "a-1")

    rewound = http.post(f"{M}/instances/b-1/rewind?reason=it%20is%20mended")
    again = finish(http, "b-1")
    history = http.get(f"{M}/instances/b-1?showHistory=true").json()
    running = http.post(f"{M}/instances/a-1/rewind")
    http.post(f"{M}/instances/a-1/terminate")
    finish(http, "a-1")
    ended = http.post(f"{M}/instances/a-1/rewind")
    unknown = http.post(f"{M}/instances/nobody/rewind")

    assert rewound.status_code == 202
    assert again["runtimeStatus"] == "Failed"
    assert [e["type"] for e in history["events"]].count("ExecutionRewound") == 1
    assert history["executions"] == [1]
    assert (running.status_code, ended.status_code, unknown.status_code) == (409, 410, 404)


def test_a_restart_of_an_unknown_id_is_404(http: TestClient) -> None:
    assert http.post(f"{M}/instances/nobody/restart").status_code == 404
    assert http.post(f"{M}/instances/nobody/restart?restartWithNewInstanceId=false").status_code == 404


def test_a_suspended_instance_waits_until_it_is_resumed(http: TestClient) -> None:
    start(http, "approval", "a-1")

    suspended = http.post(f"{M}/instances/a-1/suspend?reason=audit%20day")
    status = http.get(f"{M}/instances/a-1").json()
    http.post(f"{M}/instances/a-1/raiseEvent/ApproverDecision", json={"approved": True})
    resumed = http.post(f"{M}/instances/a-1/resume?reason=done")

    assert (suspended.status_code, resumed.status_code) == (202, 202)
    assert status["runtimeStatus"] == "Suspended"
    assert status["reason"].startswith("operator")
    assert status["waitingFor"] == "suspended by an operator until resumed"
    assert finish(http, "a-1")["output"] == "APPROVED"


def test_a_terminated_instance_tells_the_reason_as_its_output(http: TestClient) -> None:
    start(http, "sleeper", "s-1")

    answer = http.post(f"{M}/instances/s-1/terminate?reason=not%20needed")

    assert (answer.status_code, answer.content) == (202, b"")
    status = finish(http, "s-1")
    assert status["runtimeStatus"] == "Terminated"
    assert status["output"] == "not needed"


def test_a_restart_answers_like_a_start(http: TestClient) -> None:
    start(http, "echo", "e-1", "again")
    finish(http, "e-1")

    fresh = http.post(f"{M}/instances/e-1/restart")
    same = http.post(f"{M}/instances/e-1/restart?restartWithNewInstanceId=false")

    assert fresh.status_code == 202
    assert fresh.headers["location"].endswith(fresh.json()["id"])
    assert fresh.json()["id"] != "e-1"
    assert same.json()["id"] == "e-1"
    assert finish(http, fresh.json()["id"])["output"] == "again"


def test_a_purge_deletes_a_finished_instance(http: TestClient) -> None:
    start(http, "echo", "e-1")
    finish(http, "e-1")

    answer = http.delete(f"{M}/instances/e-1")

    assert (answer.status_code, answer.json()) == (200, {"instancesDeleted": 1})
    assert http.get(f"{M}/instances/e-1").status_code == 404
    assert http.delete(f"{M}/instances/e-1").status_code == 404


def test_a_purge_of_many_needs_a_beginning_and_deletes_the_finished(http: TestClient) -> None:
    for name in ("echo", "broken", "sleeper"):
        start(http, name, name)
    finish(http, "echo")
    finish(http, "broken")
    since = "createdTimeFrom=2020-01-01T00:00:00Z"

    assert http.delete(f"{M}/instances").status_code == 400
    assert http.delete(f"{M}/instances?{since}&runtimeStatus=Failed").json() == {"instancesDeleted": 1}
    assert http.delete(f"{M}/instances/?{since}").json() == {"instancesDeleted": 1}
    assert http.delete(f"{M}/instances?{since}").status_code == 404
    assert http.get(f"{M}/instances/sleeper").status_code == 202


def test_ids_are_quoted_in_urls(http: TestClient) -> None:
    answer = http.post(f"{M}/orchestrators/sleeper/Müller%20%25%26%3D;%3A1")

    location = answer.headers["location"]
    assert answer.json()["id"] == "Müller %&=;:1"
    assert location == f"{LOCAL}{M}/instances/M%C3%BCller%20%25%26%3D;:1"
    assert http.get(location).json()["instanceId"] == "Müller %&=;:1"


def test_another_hub_is_not_answered_about_this_one(http: TestClient) -> None:
    start(http, "sleeper", "s-1")

    assert http.get(f"{M}/instances/s-1?taskHub=HOSTS&connection=Storage&code=x").status_code == 202
    assert http.get(f"{M}/instances/s-1?taskHub=elsewhere").status_code == 404


def test_head_and_unknown_paths_and_methods(http: TestClient) -> None:
    start(http, "sleeper", "s-1")

    assert http.head(f"{M}/instances/s-1").content == b""
    assert http.get(f"{M}/nothing").status_code == 404
    answer = http.put(f"{M}/instances/s-1")
    assert answer.status_code == 405
    assert "GET" in answer.headers["allow"]


def test_a_bulk_operation_is_previewed_then_done_a_page_at_a_time(http: TestClient) -> None:
    for number in range(3):
        start(http, "sleeper", f"s-{number}")

    found = http.get(f"{M}/bulk/terminate", params={"name": "sleeper"}).json()
    first = http.post(f"{M}/bulk/terminate", params={"name": "sleeper", "top": "2", "reason": "enough"})
    token = {"x-ms-continuation-token": first.headers["x-ms-continuation-token"]}
    second = http.post(f"{M}/bulk/terminate", params={"name": "sleeper", "top": "2"}, headers=token)

    assert (found["matched"], found["examples"], found["dryRun"]) == (3, ["s-2", "s-1", "s-0"], True)
    assert (first.status_code, first.json()["done"]) == (200, 2)
    assert (second.json()["done"], "x-ms-continuation-token" in second.headers) == (1, False)
    assert http.get(f"{M}/counts").json() == {"Terminated": 3}


@pytest.mark.parametrize(
    ("verb", "query", "status"),
    [
        ("terminate", {}, 400),
        ("terminate", {"all": "true"}, 200),
        ("terminate", {"name": "x", "top": "501"}, 400),
        ("purge", {"runtimeStatus": "Sleeping"}, 400),
        ("purge", {"createdTimeTo": "yesterday"}, 400),
        ("restart", {"all": "true"}, 404),
    ],
)
def test_a_bulk_operation_says_whom_it_concerns(
    http: TestClient, verb: str, query: dict[str, str], status: int
) -> None:
    assert http.post(f"{M}/bulk/{verb}", params=query).status_code == status


@pytest.mark.parametrize(
    "asked",
    [
        "runtimeStatus=Running&runtimeStatus=Completed",
        "runtimeStatus=Running,Completed",
        "runtimeStatus=running&runtimeStatus=Failed,completed",
    ],
)
def test_every_status_that_is_named_counts(http: TestClient, asked: str) -> None:
    start(http, "echo", "done", 1)
    start(http, "approval", "asking")
    finish(http, "done")

    found = http.get(f"{M}/instances?{asked}").json()
    assert {one["instanceId"] for one in found} == {"done", "asking"}
    only = http.get(f"{M}/instances?runtimeStatus=Failed&runtimeStatus=Completed").json()
    assert [one["instanceId"] for one in only] == ["done"]
    assert http.get(f"{M}/instances?runtimeStatus=Running&runtimeStatus=Odd").status_code == 400


def test_a_purge_of_several_statuses_takes_them_all(http: TestClient) -> None:
    for name, one in (("echo", "done"), ("broken", "failed")):
        start(http, name, one, 1)
        finish(http, one)
    since = "createdTimeFrom=2020-01-01T00:00:00Z"

    purged = http.delete(f"{M}/instances?{since}&runtimeStatus=Completed&runtimeStatus=Failed")
    assert purged.json() == {"instancesDeleted": 2}


def test_a_purge_may_take_sub_orchestrations_along(http: TestClient) -> None:
    start(http, "parent", "p", 1)
    finish(http, "p")
    start(http, "parent", "q", 1)
    finish(http, "q")

    assert http.delete(f"{M}/instances/p?recursive=true").json() == {"instancesDeleted": 2}
    assert [one["instanceId"] for one in http.get(f"{M}/instances?instanceIdPrefix=p").json()] == []
    since = "createdTimeFrom=2020-01-01T00:00:00Z"
    http.delete(f"{M}/instances?{since}&recursive=true")
    assert http.get(f"{M}/instances").json() == []


def test_parked_instances_are_a_filter_of_their_own(http: TestClient) -> None:
    start(http, "lost", "parked")
    start(http, "approval", "held")
    http.post(f"{M}/instances/held/suspend?reason=x")

    found = http.get(f"{M}/instances?parked=true").json()
    assert [one["instanceId"] for one in found] == ["parked"]
    page = http.get("/instances?parked=true", headers={"Accept": "text/html"}).text
    assert 'class="status parked"' in page and "held" not in page
    assert "<b>1</b> parked" in http.get("/instances", headers={"Accept": "text/html"}).text
    assert 'class="badge"' in http.get("/instances/parked", headers={"Accept": "text/html"}).text
    assert 'class="badge"' not in http.get("/instances/held", headers={"Accept": "text/html"}).text
    assert http.get(f"{M}/bulk/terminate?parked=true").json()["matched"] == 1


def test_pages_take_several_statuses(http: TestClient) -> None:
    start(http, "echo", "done", 1)
    start(http, "approval", "asking")
    finish(http, "done")

    page = http.get("/instances?status=Running&status=Completed", headers={"Accept": "text/html"}).text
    assert "/instances/done" in page and "/instances/asking" in page


def test_lists_tell_of_sub_orchestrations_and_retries(http: TestClient) -> None:
    start(http, "waiting_parent", "p")
    start(http, "retrying", "r")
    until = {
        "p": "waiting for the sub-orchestration 'approval' (",
        "r": "waiting for attempt 2 of 'flaky' at ",
    }
    found: dict[str, str] = {}
    for _ in range(2_000):
        found = {one["instanceId"]: one["waitingFor"] for one in http.get(f"{M}/instances").json()}
        if all(found[name].startswith(text) for name, text in until.items()):
            break
    assert {name: found[name][: len(text)] for name, text in until.items()} == until
    assert found["r"].endswith("(it failed with ConnectionError: not now)")
    page = http.get("/instances", headers={"Accept": "text/html"}).text
    assert re.search("Attempt 2 of flaky in .*</b>: ConnectionError: not now", page)
    assert "waiting for the sub-orchestration" in page
