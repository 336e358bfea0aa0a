"""Canaries: secrets are put into every input, and every output is searched for them.

What is read: every line that is logged, tracebacks included; standard error; every answer to callers who may not
read; the audit log; the probes. The canaries are in inputs and outputs, events, custom statuses, entity states,
errors that user code raises, keys, signatures, headers and cookies, and one is in an encrypted store.
"""

import io
import logging
import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

import perdure as df
from perdure.http.api.instance_urls import MANAGEMENT as M
from tests.access.conftest import ADMIN, TOKEN, Door, as_key
from tests.http.conftest import LOCAL

CANARY = "canary-2b7e-value"
AT_REST = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="
NAMES = {
    "id": "c-1",
    "name": "keeper",
    "event": "e",
    "key": "k",
    "key_id": "k",
    "task": "c-1:0",
    "queue": "q",
    "number": "PDR-001",
}


def app_full_of_secrets() -> df.App:
    app = df.App("secrets")

    @app.activity(retry=df.RetryPolicy(first_interval=0.001, max_attempts=2))
    def spill(text: str) -> str:
        raise ValueError(f"cannot use {text}")

    @app.activity
    def returns_it(text: str) -> object:
        return {text: object()}  # nothing that JSON can carry

    @app.orchestrator
    async def keeper(context: df.OrchestrationContext) -> object:
        context.set_custom_status({"asks about": context.get_input()})
        return await context.wait_for_external_event("e")

    @app.orchestrator
    async def spilling(context: df.OrchestrationContext) -> object:
        return await context.call_activity(spill, context.get_input())

    @app.orchestrator
    async def unsendable(context: df.OrchestrationContext) -> object:
        return await context.call_activity(returns_it, context.get_input())

    @app.orchestrator
    async def raising(context: df.OrchestrationContext) -> object:
        raise RuntimeError(f"refuses {context.get_input()}")

    @app.orchestrator
    async def fickle(context: df.OrchestrationContext, amount: int) -> object:
        return amount

    @app.entity
    class Vault:
        def __init__(self) -> None:
            self.text = ""

        def put(self, text: str) -> None:
            self.text = text

        def spill(self, text: str) -> None:
            raise ValueError(f"cannot take {text}")

    @app.route("/typed", methods=["POST"], auth="anonymous")
    async def typed(amount: int, client: df.Client) -> str:
        return str(amount)

    @app.route("/failing", methods=["POST"], auth="anonymous")
    async def failing(request: Request) -> str:
        text = (await request.body()).decode()
        return str(int("x") if text else 0)

    @app.route("/failing/{what}", methods=["POST"], auth="anonymous")
    async def failing_at(what: str) -> str:
        return str(int("x"))

    @app.route("/unsendable", methods=["POST"], auth="anonymous")
    async def unsendable_answer(request: Request) -> object:
        return {"seen": await request.json(), "and": object()}

    return app


class Listener(logging.Handler):
    """Keeps what every logger says, as it would be written."""

    def __init__(self) -> None:
        super().__init__(0)
        self.said = io.StringIO()

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.split(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2", "asyncio"):
            return  # the client of this test, which knows its own secrets
        self.said.write(f"{record.getMessage()} {record.args!r}\n")
        if record.exc_info and record.exc_info[1] is not None:
            self.said.write("".join(traceback.format_exception(record.exc_info[1])))


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener, root = Listener(), logging.getLogger()
    level = root.level
    root.addHandler(listener)
    root.setLevel(0)
    yield listener
    root.removeHandler(listener)
    root.setLevel(level)


@pytest.fixture(params=["memory", "encrypted"])
def door(request: pytest.FixtureRequest, tmp_path: Path, listener: Listener) -> Iterator[Door]:
    at_rest = {"encryption_keys": f"k1:{AT_REST}"} if request.param == "encrypted" else {}
    store = "memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/secrets.db"
    host = app_full_of_secrets().asgi(store=store, token=TOKEN, admin_key=ADMIN, **at_rest)
    with TestClient(host, base_url=LOCAL, follow_redirects=False, raise_server_exceptions=False) as http:
        found = Door(http, host)
        found.gate._failures.take = lambda _: 0
        yield found


def fill(door: Door, key: str) -> list[Any]:
    """Canaries in everything that can carry one; returns the answers that refuse something."""
    send = as_key(key)

    def post(path: str, **more: Any) -> Any:
        return door.http.post(M + path, headers=send, **more)

    for name in ("keeper", "spilling", "unsendable", "raising"):
        assert post(f"/orchestrators/{name}/{name}", json=CANARY).status_code == 202
    for name in ("spilling", "unsendable", "raising"):
        assert (
            door.http.get(f"{M}/instances/{name}?wait=60", headers=send).json()["runtimeStatus"] == "Failed"
        )
    post("/orchestrators/fickle/f-1", json=CANARY)
    post("/entities/Vault/v?op=put", json=CANARY)
    post("/entities/Vault/v?op=spill", json=CANARY)
    post("/queues/nobody", json=CANARY)
    post("/instances/keeper/raiseEvent/e", json={"secret": CANARY})
    door.http.get(f"{M}/instances/keeper?wait=60", headers=send)
    return [
        post("/orchestrators/none/x", json=CANARY),
        post("/orchestrators/keeper/x?startAt=never", json=CANARY),
        post("/instances/keeper/raiseEvent/e", json=CANARY),
        door.http.post(
            f"{M}/keys", json={"name": "x", "scopes": ["read"], "secret": CANARY}, headers=as_key(ADMIN)
        ),
        door.http.post(f"{M}/keys", content=f'{{"name": "{CANARY}"'.encode(), headers=as_key(ADMIN)),
        door.http.post("/api/typed", json=CANARY),
        door.http.post("/api/failing", content=CANARY.encode()),
        door.http.post("/api/unsendable", json=CANARY),
        door.http.get("/api/none", headers={"x-functions-key": CANARY, "Cookie": f"a={CANARY}"}),
    ]


def test_no_canary_is_logged_or_told_to_anybody(
    door: Door, listener: Listener, capfd: pytest.CaptureFixture[str]
) -> None:
    key = door.key("operate")
    answers = fill(door, key)
    sig = door.gate.signer.sign("status", "keeper")
    door.http.get(f"{M}/instances/keeper?sig={sig}")
    door.http.get(f"{M}/instances/keeper?sig={sig[:-1]}")
    door.http.get(f"{M}/instances?code={key}x")
    door.http.get(f"/?token={TOKEN}")
    door.http.get(f"/durabletask/{key}/instances/none")
    door.http.get(f"/durabletask/{key}/instances?top=x")
    door.http.request("PATCH", f"/durabletask/{key}/counts")
    audit = door.audit(top="1000")

    assert [answer.status_code for answer in answers] == [400, 400, 410, 400, 400, 400, 500, 500, 404]
    for answer in answers:
        assert CANARY not in answer.text, answer.text
    out, err = capfd.readouterr()
    shown = {"log": listener.said.getvalue(), "stdout": out, "stderr": err, "audit": str(audit)}
    shown |= {path: door.http.get(path).text for path in ("/healthz", "/readyz")}
    shown["openapi"] = door.http.get("/openapi.json", headers=as_key(ADMIN)).text
    for where, text in shown.items():
        for secret in (CANARY, key, key[13:], sig, ADMIN, AT_REST):
            assert secret not in text, (where, [line for line in text.splitlines() if secret in line][:3])
    assert TOKEN not in shown["audit"] + err


def test_who_may_not_read_is_told_nothing_at_any_route(door: Door) -> None:
    """Pages, problem documents, streams: for strangers, for keys of functions, for links to something else."""
    fill(door, door.key("operate"))
    door.start("keeper", "other")
    asked = 0

    def path_of(row: Any, id_: str) -> str:
        names = {**NAMES, "id": id_, "task": f"{id_}:0", "credential": "none", "name": "Vault", "key": "v"}
        return re.sub(r"\{(\w+)(:\w+)?\}", lambda found: names[found[1]], row.path)

    sig = door.gate.signer.sign("decide", "other", "e")
    for shown in ("", f"code={door.key('function')}", f"sig={sig}", "code=wrong", "token=wrong"):
        for row in door.rows():
            if row.function:
                continue
            for id_ in ("keeper", "raising", "spilling", "unsendable", "@Vault@v"):
                url = f"{path_of(row, id_)}?{shown}&showInput=true&showHistory=true"
                answer = door.http.request(row.methods[0], url)
                assert CANARY not in answer.text + str(answer.headers), (row.path, shown)
                asked += 1
    assert asked > 1_000


def test_who_may_read_reads_it(door: Door) -> None:
    """Or the tests above would find nothing because there is nothing."""
    fill(door, door.key("operate"))
    read = as_key(door.key("read"))
    for id_ in ("keeper", "raising", "spilling"):
        answer = door.http.get(f"{M}/instances/{id_}?showHistory=true&showHistoryOutput=true", headers=read)
        assert CANARY in answer.text, id_
        assert CANARY in door.http.get(f"/instances/{id_}", headers=read).text, id_


@pytest.mark.parametrize("sent", ["a\nERROR perdure: forged", "\x1b[2J\x1b[31mred", "a\r\nb"])
def test_a_line_of_the_log_is_one_line_and_no_command(door: Door, listener: Listener, sent: str) -> None:
    quoted = "".join(f"%{byte:02x}" for byte in sent.encode())
    for method, path in (
        ("GET", f"{M}/instances/{quoted}"),
        ("POST", f"{M}/orchestrators/{quoted}/x"),
        ("POST", f"{M}/orchestrators/keeper/x?version={quoted}"),
        ("POST", f"{M}/queues/{quoted}"),
        ("GET", f"/{quoted}"),
        ("POST", f"/api/failing?x={quoted}"),
        ("POST", f"/api/failing/{quoted}"),
    ):
        door.http.request(method, path, headers=as_key(ADMIN), json=1)

    said = listener.said.getvalue()
    assert "the function 'failing_at' failed" in said
    for line in said.splitlines():
        assert not line.startswith(("ERROR perdure: forged", "b ")), said
    assert "\x1b" not in said
