"""The commands with a store in PostgreSQL: the same verbs, and only those that move a hub need it alone."""

from __future__ import annotations

import asyncio
import json
import re
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner, Result

import perdure as df
from perdure.cli.main import root
from perdure.http.host import application
from perdure.http.remote.client import RemoteClient
from perdure.model.instances import PARTITIONS
from perdure.store.encryption import new_key
from perdure.store.postgres.store import PostgresStore
from tests.http.conftest import LOCAL, M, make_app
from tests.postgres.servers import Server, free_port

PASSWORD = "hunter2-is-secret"
VARIABLES = {"PERDURE_STORE": "", "PERDURE_HUB": "", "PERDURE_URL": "", "PERDURE_KEY": ""}


def perdure(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(root, list(arguments), env={**VARIABLES, **(env or {})})


def told(*arguments: str, **options: Any) -> Any:
    """What a command that succeeds prints with --json."""
    result = perdure(*arguments, "--json", **options)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def url(newest_url: str) -> str:
    """A fresh database, with a password that nobody asks for and nobody is to see."""
    return newest_url.replace("postgres@", f"postgres:{PASSWORD}@")


async def fill(client: df.Client) -> None:
    await client.start_new("echo", "done", {"n": 1})
    await client.start_new("broken", "failed")
    await client.start_new("approval", "asking", ["x" * 40_000])
    await client.start_new("sleeper", "asleep")
    await client.wait_for_completion("done", 20)
    await client.wait_for_completion("failed", 20)


async def filled(store: str) -> None:
    async with make_app().running(store=store) as client:
        await fill(client)


# ------------------------------------------------------------------------------------------ asking and telling


async def test_commands_ask_and_tell_beside_those_who_serve(url: str) -> None:
    async with make_app().running(store=url, worker_name="one") as client:
        await fill(client)

        def during() -> None:
            listed = told("list", "--store", url)["instances"]
            assert [one["instanceId"] for one in listed] == ["asleep", "asking", "failed", "done"]
            assert told("status", "asking", "--store", url)["waitingFor"].startswith("waiting for the event")
            answer = perdure(
                "raise", "asking", "ApproverDecision", "-i", '{"approved": true}', "--store", url
            )
            assert answer.exit_code == 0, answer.output
            assert told("status", "asking", "--wait", "--store", url)["output"] == "APPROVED"
            started = perdure("start", "echo", "--id", "by-hand", "-i", "7", "--store", url)
            assert started.exit_code == 0, started.output
            assert told("status", "by-hand", "--wait", "--store", url)["output"] == 7

        await asyncio.to_thread(during)
        assert (await client.wait_for_completion("by-hand", 10)).output == 7


async def test_commands_without_a_server_keep_what_they_are_told(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.engine.cluster.pending_requests.OWNER_ANSWERS_WITHIN", 100_000_000)
    await filled(url)

    def meanwhile() -> None:
        since = time.monotonic()
        unknown = perdure("raise", "nobody", "ApproverDecision", "--store", url)
        assert (unknown.exit_code, "may be done later" in unknown.output) == (4, True)
        assert time.monotonic() - since < 50  # an owner would have a hundred seconds to answer
        answer = perdure("raise", "asking", "ApproverDecision", "-i", '{"approved": false}', "--store", url)
        assert answer.exit_code == 0, answer.output
        assert told("workers", "--store", url) == []
        assert told("status", "asking", "--store", url)["runtimeStatus"] == "Running"

    await asyncio.to_thread(meanwhile)
    async with make_app().running(store=url) as client:
        assert (await client.wait_for_completion("asking", 20)).output == "DENIED"


async def test_workers_and_partitions_are_told_the_same_by_the_store_and_over_http(url: str) -> None:
    app = df.App("hosts", default_version="2.1")
    app.orchestrator(make_app().registry.orchestrators["echo"].function)
    async with (
        make_app().running(store=url, worker_name="first", pool=["gpu", "big"]) as client,
        app.running(store=url, worker_name="second"),
        make_app().running(store=url, worker_name="door", role="api"),
    ):
        async with asyncio.timeout(60):
            while {one.partitions for one in await client.workers()} != {0, PARTITIONS // 2}:
                await asyncio.sleep(0.05)
        transport = httpx2.ASGITransport(app=application(client))
        async with RemoteClient(LOCAL, transport=transport) as remote:
            far, parts = await remote.workers(), await remote.partitions()
        async with httpx2.AsyncClient(transport=transport, base_url=LOCAL) as http:
            page = await http.get("/workers")
            documents = (await http.get(f"{M}/workers")).json()
        near = await asyncio.to_thread(told, "workers", "--store", url)
        shares = await asyncio.to_thread(told, "partitions", "--store", url)
        lines = (await asyncio.to_thread(perdure, "workers", "--store", url)).stdout.splitlines()

    assert [(w.name, w.role, w.state, w.partitions) for w in far] == [
        ("first", "worker", "living", PARTITIONS // 2),
        ("second", "worker", "living", PARTITIONS // 2),
        ("door", "api", "living", 0),
    ]
    assert (far[0].pools, far[1].version, far[1].orchestrators) == (["gpu", "big"], "2.1", ["echo"])
    assert all(0 < worker.lease_left <= 10 for worker in far)
    steady = ("name", "role", "state", "pools", "partitions", "since", "version", "incarnation")
    assert [[one[k] for k in steady] for one in documents] == [[one[k] for k in steady] for one in near]
    assert [(p.partition, p.owner) for p in parts] == [(s["partition"], s["owner"]) for s in shares]
    assert {p.owner for p in parts} == {"first", "second"}
    assert len(parts) == PARTITIONS
    assert page.status_code == 200
    assert "first" in page.text
    assert f"{PARTITIONS // 2} of {PARTITIONS}" in page.text
    assert '<a href="/workers" aria-current="page">Workers</a>' in page.text
    assert [line.split("\t")[0] for line in lines] == ["first", "second", "door"]


# ---------------------------------------------------------------------------------------------------- roles


async def test_an_api_takes_requests_and_runs_nothing(url: str) -> None:
    async with make_app().running(store=url, role="api") as door:
        with pytest.raises(df.FunctionNotFound):
            await door.start_new("no_such_function", "never")
        await door.start_new("approval", "a-1")
        await door.raise_event("a-1", "ApproverDecision", {"approved": True})
        with pytest.raises(TimeoutError):
            await door.wait_for_completion("a-1", 0.5)
        async with make_app().running(store=url, role="worker"):
            assert (await door.wait_for_completion("a-1", 20)).output == "APPROVED"


async def test_an_api_of_older_code_starts_what_a_worker_has(url: str) -> None:
    newer = make_app()

    @newer.orchestrator
    async def brand_new(context: df.OrchestrationContext) -> str:
        return "new"

    async with newer.running(store=url), make_app().running(store=url, role="api") as door:
        async with asyncio.timeout(60):
            while True:
                try:
                    await door.start_new("brand_new", "n-1")
                    break
                except df.FunctionNotFound:  # it has not looked around yet
                    await asyncio.sleep(0.05)
        assert (await door.wait_for_completion("n-1", 20)).output == "new"


async def test_what_nobody_can_run_waits_visibly_and_goes_on_with_whoever_can(url: str) -> None:
    """The owner of an instance's partition has to have its code: a living worker without it keeps it waiting."""
    whole = make_app()
    lacking = df.App("hosts")
    lacking.orchestrator(whole.registry.orchestrators["echo"].function)
    async with whole.running(store=url) as client:
        await client.start_new("approval", "a-1")
    async with lacking.running(store=url, worker_name="lacking") as client:
        await client.raise_event("a-1", "ApproverDecision", {"approved": True})
        async with asyncio.timeout(60):
            while "no_worker" not in str((await status_of(client, "a-1")).reason):
                await asyncio.sleep(0.05)
        waiting = await status_of(client, "a-1")
        assert "no worker here has the orchestrator 'approval'" in waiting.reason
        assert "waiting for a worker that has its orchestrator function" in waiting.waiting_for
        assert waiting.runtime_status is df.RuntimeStatus.Suspended
    async with whole.running(store=url) as client:
        assert (await client.wait_for_completion("a-1", 20)).output == "APPROVED"


async def test_a_call_of_what_nobody_has_waits_and_goes_on_with_whoever_has_it(url: str) -> None:
    """An activity that the owner does not know keeps its caller waiting until a worker that knows it takes over."""
    caller, callee = df.App("hosts"), df.App("hosts")

    @caller.orchestrator
    async def outer(context: df.OrchestrationContext) -> object:
        return await context.call_activity("far_away", 20)

    @callee.activity
    async def far_away(n: int) -> int:
        return n + 1

    callee.orchestrator(outer)
    async with caller.running(store=url) as client:
        await client.start_new(outer, "o-1")
        async with asyncio.timeout(60):
            while "no activity named 'far_away'" not in (await status_of(client, "o-1")).reason:
                await asyncio.sleep(0.05)
    async with callee.running(store=url) as client:
        assert (await client.wait_for_completion("o-1", 20)).output == 21


async def status_of(client: df.Client, instance_id: str) -> df.OrchestrationStatus:
    found = await client.get_status(instance_id)
    assert found is not None
    return found


# --------------------------------------------------------------------------------------------------- moving


async def test_a_hub_moves_to_postgresql_in_flight_and_back(url: str, tmp_path: Path) -> None:
    here, back = f"sqlite:///{tmp_path}/here.db", f"sqlite:///{tmp_path}/back.db"
    await filled(here)
    made = await asyncio.to_thread(told, "copy", here, url)
    assert (made["hub"], made["verified"]) == ("hosts", 4)
    assert await asyncio.to_thread(told, "list", "--store", url) == await asyncio.to_thread(
        told, "list", "--store", here
    )
    async with make_app().running(store=url) as client:
        await client.raise_event("asking", "ApproverDecision", {"approved": True})
        assert (await client.wait_for_completion("asking", 20)).output == "APPROVED"
        await client.start_new("approval", "asking-2")
        while (await status_of(client, "asking-2")).custom_status != "asking":
            await asyncio.sleep(0.02)
        refused = await asyncio.to_thread(perdure, "copy", url, back)
        assert refused.exit_code == 4
        assert "workers serve it" in refused.stderr
    verified = await asyncio.to_thread(told, "verify", "--store", url)
    assert verified["hubs"]["hosts"]["problems"] == []
    made = await asyncio.to_thread(told, "copy", url, back)
    assert made["verified"] == 5
    async with make_app().running(store=back) as client:
        assert (await status_of(client, "asking")).output == "APPROVED"
        await client.raise_event("asking-2", "ApproverDecision", {"approved": False})
        assert (await client.wait_for_completion("asking-2", 20)).output == "DENIED"


APP = """
import perdure as df

app = df.App("hosts")

@app.activity
def shout(text: str) -> str: ...

@app.orchestrator
async def approval(context: df.OrchestrationContext):
    context.set_custom_status("asking")
    await context.wait_for_external_event("{event}")

@app.orchestrator
async def sleeper(context: df.OrchestrationContext):
    await context.create_timer(30 * 24 * 3600)
"""


async def test_todays_code_is_checked_against_what_is_in_flight(url: str, tmp_path: Path) -> None:
    await filled(url)
    (tmp_path / "good.py").write_text(APP.replace("{event}", "ApproverDecision"))
    (tmp_path / "bad.py").write_text(APP.replace("{event}", "SomethingElse"))
    for name, code, agree in (("good", 0, 2), ("bad", 1, 1)):
        asked = ("replay", "--app", str(tmp_path / f"{name}.py"), "--store", url, "--json")
        result = await asyncio.to_thread(perdure, *asked)
        assert result.exit_code == code, result.output
        assert json.loads(result.stdout)["agree"] == agree


async def test_a_hub_is_encrypted_where_it_is(url: str) -> None:
    await filled(url)
    key = f"k1:{new_key()}"
    done = await asyncio.to_thread(told, "rekey", "--store", url, env={"PERDURE_ENCRYPTION_KEYS": key})
    assert done["key"] == "k1"
    assert done["plain"] > 0
    with_key = await asyncio.to_thread(told, "verify", "--store", url, env={"PERDURE_ENCRYPTION_KEYS": key})
    assert with_key["hubs"]["hosts"] == {"instances": 4, "rows": 4, "encrypted": 0, "problems": []}
    async with make_app().running(store=url, encryption_keys=key) as client:
        await client.raise_event("asking", "ApproverDecision", {"approved": True})
        assert (await client.wait_for_completion("asking", 20)).output == "APPROVED"


async def test_a_backup_is_left_to_postgresqls_own_tools(url: str, tmp_path: Path) -> None:
    result = perdure("backup", str(tmp_path / "copy.db"), "--store", url)
    assert result.exit_code == 4
    assert "pg_dump" in result.stderr
    assert not (tmp_path / "copy.db").exists()


# ------------------------------------------------------------------------------------------------- migrating


def test_the_schema_is_made_once_and_by_itself(url: str) -> None:
    assert perdure("list", "--store", url).exit_code == 4
    first, second = told("migrate", "--store", url), told("migrate", "--store", url)
    assert first["before"] == 0
    assert second["before"] == second["version"] == first["version"]


async def test_a_dba_runs_what_is_printed_and_a_role_with_few_rights_serves(
    postgres: Server, postgres_url: str
) -> None:
    printed = perdure("migrate", "--print", "--store", f"{postgres_url}?schema=claims").stdout
    assert '"claims".instances' in printed
    database = postgres_url.rpartition("/")[2]
    role = f"worker_{database[-12:]}"
    rights = printed[printed.index("-- create role") :].replace("-- ", "").replace("perdure_worker", role)
    postgres.sql(printed, database)
    postgres.sql(rights, database)
    low = postgres_url.replace("postgres@", f"{role}@")
    try:
        refused = await asyncio.to_thread(perdure, "migrate", "--store", f"{low}?schema=other")
        assert refused.exit_code == 4
        assert "perdure migrate --print" in refused.stderr
        async with make_app().running(store=f"{low}?schema=claims") as client:
            await fill(client)
            await client.raise_event("asking", "ApproverDecision", {"approved": True})
            assert (await client.wait_for_completion("asking", 20)).output == "APPROVED"
    finally:
        postgres.sql(f"drop owned by {role}; drop role {role}", database)


def test_a_sqlite_file_needs_no_migration() -> None:
    refused = perdure("migrate")
    assert refused.exit_code == 2
    assert perdure("migrate", "--print").stdout.startswith("begin;")


# ---------------------------------------------------------------------------------------------- the password


async def test_the_password_is_nowhere_to_be_seen(
    url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "app.py").write_text(APP.replace("{event}", "ApproverDecision"))
    app, nobody = str(tmp_path / "app.py"), f"@127.0.0.1:{free_port()}"
    away = re.sub(r"@[^/]+", nobody, url)
    mistaken = [
        away,
        url.replace("postgresql://", "postgresqll://"),
        url.replace("postgresql://", "mysql://"),
        url + "?schema=Not-A-Name",
        url + "?pooler=transaction",
        url + "?sslmode=nonsense",
        url.replace(PASSWORD, f"{PASSWORD}%zz"),
        url.replace(PASSWORD, f"{PASSWORD}/x"),
        url.replace(PASSWORD, f"{PASSWORD}#x"),
        url.replace(PASSWORD, f"x@{PASSWORD}"),
        away.replace(f":{PASSWORD}", "") + f"?password={PASSWORD}",
        f"postgresql://postgres:{PASSWORD}@127.0.0.1:not-a-port/x",
    ]
    commands = [
        ("settings",), ("list",), ("status", "x"), ("raise", "x", "y"), ("workers",), ("partitions",),
        ("verify",), ("rekey",), ("backup", str(tmp_path / "b.db")), ("migrate",), ("replay", "--app", app),
        ("keys", "list"), ("list", "--hub", "no-such-hub"), ("run", app, "--port", "0", "--store-wait", "0"),
        ("run", app, "--reload", "--workers", "2"), ("verify", "--hub", "no-such-hub"),
    ]  # fmt: skip

    def all_of_them() -> None:
        for store in (url, *mistaken):
            for command in commands:
                if command[0] == "run" and store == url and "--reload" not in command:
                    continue  # it would serve
                seen(perdure(*command, "--store", store), command, store)
            seen(perdure("copy", store, str(tmp_path / "c.db")), ("copy",), store)
            seen(perdure("copy", str(tmp_path / "none.db"), store), ("copy",), store)

    def seen(result: Result, command: tuple[str, ...], store: str) -> None:
        said = result.output + result.stderr + str(result.exception or "")
        assert PASSWORD not in said, (command, store.replace(PASSWORD, "***"), said)
        assert not result.exception or isinstance(result.exception, SystemExit), (command, result.exception)

    await filled(url)
    await asyncio.to_thread(all_of_them)
    assert PASSWORD not in caplog.text
    for store in (url, *mistaken):
        try:
            shown = repr(PostgresStore(store, "hosts"))
        except df.StoreUnusable as error:
            shown = repr(error)
        assert PASSWORD not in shown


# --------------------------------------------------------------------------------------------- a database away


def test_run_waits_for_a_database_and_not_for_ever(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP.replace("{event}", "ApproverDecision"))
    since = time.monotonic()
    store = f"postgresql://me:{PASSWORD}@127.0.0.1:{free_port()}/claims"
    result = perdure(
        "run", str(tmp_path / "app.py"), "--port", "0", "--store", store, "--store-wait", "600ms"
    )

    assert result.exit_code == 4
    assert "waiting for the database, up to 0.6 s" in result.stderr
    assert "Traceback" not in result.output
    assert 0.5 < time.monotonic() - since < 60


@pytest.mark.parametrize(
    ("before", "after", "hint"),
    [
        (r"/([^/?]*)$", "/nowhere", "createdb nowhere"),
        (r"//[^@]*@", "//nobody:x@", "%40"),
    ],
)
def test_run_does_not_wait_for_what_will_never_be(
    url: str, tmp_path: Path, before: str, after: str, hint: str
) -> None:
    (tmp_path / "app.py").write_text(APP.replace("{event}", "ApproverDecision"))
    wrong = re.sub(before, after, url)
    assert wrong != url

    result = perdure("run", str(tmp_path / "app.py"), "--port", "0", "--store", wrong)

    assert result.exit_code == 4
    assert hint in result.stderr
    assert "waiting for" not in result.stderr
    assert PASSWORD not in result.output


@pytest.mark.parametrize("role", ["all", "api"])
async def test_while_the_database_is_away_nothing_is_said_to_be_done(
    own_postgres: Server, monkeypatch: pytest.MonkeyPatch, role: Any
) -> None:
    monkeypatch.setattr("perdure.engine.loop.loop.CLIENT_WAITS", 0)
    with own_postgres.database() as url:
        async with (
            make_app().running(store=url, role=role) as client,
            httpx2.AsyncClient(
                transport=httpx2.ASGITransport(app=application(client)), base_url=LOCAL, timeout=60
            ) as http,
        ):
            assert (await http.post(f"{M}/orchestrators/approval/a-1")).status_code == 202
            assert (await http.get("/readyz")).status_code == 200
            await asyncio.to_thread(own_postgres.stop, "immediate")
            try:
                refused = [
                    await http.post(f"{M}/orchestrators/approval/a-2"),
                    await http.post(
                        f"{M}/instances/a-1/raiseEvent/ApproverDecision", json={"approved": True}
                    ),
                    await http.post(f"{M}/instances/a-1/terminate"),
                    await http.get(f"{M}/instances/a-1"),
                    await http.get(f"{M}/instances"),
                    await http.get(f"{M}/workers"),
                    await http.get("/readyz"),
                ]
            finally:
                await asyncio.to_thread(own_postgres.start)
            assert [answer.status_code for answer in refused] == [503] * len(refused)
            assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
            async with asyncio.timeout(60):
                while (await http.get("/readyz")).status_code != 200:
                    await asyncio.sleep(0.05)
            assert (await http.post(f"{M}/orchestrators/approval/a-3")).status_code == 202
            assert (await http.get(f"{M}/instances/a-1")).status_code == 202


# ------------------------------------------------------------------------------------------ links and new hubs


async def test_a_link_is_made_beside_those_who_serve(url: str) -> None:
    await filled(url)

    refused = await asyncio.to_thread(perdure, "link", "asking", "ApproverDecision", "--store", url)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "--public-url" in refused.stderr

    address = {"PERDURE_PUBLIC_URL": "https://hub.example.org"}
    made = await asyncio.to_thread(perdure, "link", "asking", "ApproverDecision", "--store", url, env=address)
    assert made.exit_code == 0, made.output
    assert made.stdout.startswith("https://hub.example.org/decide/asking/ApproverDecision?sig=")


async def test_the_first_key_makes_the_tables_and_the_hub(url: str) -> None:
    create = ("keys", "create", "ops", "--scope", "admin", "--store", url)
    made = await asyncio.to_thread(perdure, *create, "--hub", "hosts")
    assert made.exit_code == 0, made.output
    assert "Created the hub 'hosts'" in made.stderr
    assert PASSWORD not in made.output
    async with make_app().running(store=url, hub="hosts") as client:
        assert [one.name for one in await client.keys()] == ["ops"]


async def test_the_store_tells_of_a_pool_that_nobody_serves(url: str) -> None:
    app = make_app()

    @app.activity(pool="gpu")
    def big(n: int) -> int:
        return n

    @app.orchestrator
    async def job(context: df.OrchestrationContext) -> int:
        return await context.call_activity(big, 1)

    async with app.running(store=url) as client:
        await client.start_new("job", "j-1")
        async with asyncio.timeout(60):
            while "pool gpu" not in str((await status_of(client, "j-1")).waiting_for):
                await asyncio.sleep(0.05)
        shown = await asyncio.to_thread(perdure, "status", "j-1", "--store", url)

    lines = shown.stdout.splitlines()
    assert "pool gpu, which no worker serves" in lines[1]
    assert lines[2].startswith("open          big: attempt 1, in pool gpu, which no worker serves")


async def test_who_cannot_be_obeyed_now_is_told_so(url: str) -> None:
    async with make_app().running(store=url):
        there = await asyncio.to_thread(perdure, "start", "echo", "--store", url)
        assert (there.exit_code, there.stderr) == (0, "")
        lacking = await asyncio.to_thread(perdure, "start", "nope", "--store", url)
        assert lacking.exit_code == 0, lacking.output
        assert "no worker of this hub has an orchestrator 'nope'" in lacking.stderr
        assert "sleeper" in lacking.stderr

    alone = await asyncio.to_thread(perdure, "start", "echo", "--id", "later", "--store", url)
    assert alone.stdout == "later\n"
    assert "no worker serves this hub at present" in alone.stderr
