"""The commands: what they print, how they end, and which way they take to the instances."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

import perdure as df
from perdure.cli.main import root
from tests.http.conftest import make_app

runner = CliRunner()


def perdure(*arguments: str, store: Path | None = None, stdin: str | None = None) -> Result:
    """A command, in this process."""
    given = [*arguments, "--store", str(store)] if store else list(arguments)
    return runner.invoke(root, given, input=stdin, env={"PERDURE_STORE": "", "PERDURE_HUB": ""})


def said(*arguments: str, store: Path) -> Any:
    """What a command that succeeds prints with --json."""
    result = perdure(*arguments, "--json", store=store)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def serve(store: Path, work: Callable[[df.Client], Awaitable[object]], hub: str = "hosts") -> None:
    """Serve the application for as long as some work takes."""

    async def during() -> None:
        async with make_app().running(store=str(store), hub=hub) as client:
            await work(client)

    asyncio.run(during())


@pytest.fixture
def filled(store: Path) -> Path:
    """A database with some instances, without a server."""

    async def fill(client: df.Client) -> None:
        await client.start_new("echo", "done", {"n": 1}, tags={"region": "eu"})
        await client.start_new("broken", "failed")
        await client.start_new("approval", "asking", ["x"])
        await client.start_new("sleeper", "asleep")
        await client.wait_for_completion("done", 10)
        await client.wait_for_completion("failed", 10)

    serve(store, fill)
    return store


def test_an_unknown_status_is_answered_with_the_nearest(store: Path) -> None:
    outcome = perdure("list", "--status", "Runing", store=store)
    told = " ".join(outcome.stderr.replace("│", " ").split())
    assert outcome.exit_code == 2 and "Value error" not in told
    assert "'Runing' is not a status. Did you mean Running? The statuses are Pending, Running, " in told


def test_list_prints_a_line_for_each_in_a_pipe(filled: Path) -> None:
    result = perdure("list", store=filled)

    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert [line[0] for line in lines] == ["asleep", "asking", "failed", "done"]
    assert lines[1][1] == "Running"
    assert lines[1][4].startswith("waiting for the event 'ApproverDecision'")


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (("--status", "completed", "--status", "failed"), ["failed", "done"]),
        (("--name", "sleeper"), ["asleep"]),
        (("--prefix", "as"), ["asleep", "asking"]),
        (("--waiting-for", "ApproverDecision"), ["asking"]),
        (("--tag", "region=eu"), ["done"]),
        (("--failure", "no way"), []),
        (("--failure", ""), ["asleep", "asking", "failed", "done"]),
        (("--status", "failed", "--ended-after", "2000-01-01"), ["failed"]),
        (("--ended-before", "2000-01-01"), []),
        (("--older-than", "1d"), []),
        (("--parent", "done"), []),
        (("--order", "oldest"), ["done", "failed", "asking", "asleep"]),
        (("--built-in", "--name", "sleeper"), ["asleep"]),
    ],
)
def test_list_filters(filled: Path, options: tuple[str, ...], found: list[str]) -> None:
    page = said("list", *options, store=filled)

    assert [one["instanceId"] for one in page["instances"]] == found
    assert page["continuation"] is None


def test_count_takes_the_filters_of_list(filled: Path) -> None:
    assert perdure("count", store=filled).stdout == "4\n"
    assert said("count", "--status", "failed", store=filled) == {"count": 1, "searchedFrom": None}
    assert perdure("count", "--tag", "region=eu", "--name", "echo", store=filled).stdout in ("0\n", "1\n")


@pytest.fixture
def parked(store: Path) -> Path:
    """A database with parked instances and one that an operator has suspended, without a server."""

    async def fill(client: df.Client) -> None:
        await client.start_new("lost", "parked")
        await client.start_new("approval", "held")
        await client.suspend("held")

    serve(store, fill)
    return store


def test_list_shows_what_is_parked_and_filters_by_it(parked: Path) -> None:
    lines = [line.split("\t") for line in perdure("list", store=parked).stdout.splitlines()]
    only = said("list", "--parked", store=parked)["instances"]

    assert [line[:2] for line in lines] == [["held", "Suspended"], ["parked", "Pending parked"]]
    assert [one["instanceId"] for one in only] == ["parked"]
    assert perdure("status", "parked", store=parked).stdout.startswith("parked  Pending parked\n")


def test_what_is_parked_can_be_ended_at_once(parked: Path) -> None:
    result = perdure("terminate", "--parked", "--yes", store=parked)

    assert result.exit_code == 0, result.output
    assert said("status", "parked", store=parked)["runtimeStatus"] == "Terminated"
    assert said("status", "held", store=parked)["runtimeStatus"] == "Suspended"


def test_purge_takes_sub_orchestrations_along_when_it_is_told_to(store: Path) -> None:
    async def fill(client: df.Client) -> None:
        for one in ("p", "q"):
            await client.start_new("parent", one)
            await client.wait_for_completion(one, 10)

    serve(store, fill)
    assert perdure("purge", "p", "--recursive", store=store).exit_code == 0
    left = [one["instanceId"] for one in said("list", store=store)["instances"]]
    assert len(left) == 2 and all(one.startswith("q") for one in left)
    assert perdure("purge", "--name", "parent", "--recursive", "--yes", store=store).exit_code == 0
    assert said("list", store=store)["instances"] == []


def test_list_goes_on_where_a_page_ended(filled: Path) -> None:
    first = said("list", "--top", "3", store=filled)
    second = said("list", "--top", "3", "--continuation", first["continuation"], store=filled)
    hinted = perdure("list", "--top", "3", store=filled)

    assert [one["instanceId"] for one in second["instances"]] == ["done"]
    assert f"--continuation {first['continuation']}" in hinted.stderr


def test_status_tells_people_and_programs(filled: Path) -> None:
    told = perdure("status", "asking", store=filled).stdout
    document = said("status", "asking", store=filled)

    assert told.startswith("asking  Running")
    assert "Waiting for the event 'ApproverDecision' since" in told
    assert document["runtimeStatus"] == "Running"
    assert document["input"] == ["x"]


def test_status_with_wait_ends_by_how_the_instance_ended(filled: Path) -> None:
    assert perdure("status", "done", "--wait", store=filled).exit_code == 0
    assert perdure("status", "failed", "--wait", store=filled).exit_code == 1
    assert perdure("status", "failed", store=filled).exit_code == 0
    late = perdure("status", "asleep", "--wait", "--timeout", "0", store=filled)
    assert late.exit_code == 1
    assert "has not finished" in late.stderr


def test_history_tells_what_happened(filled: Path) -> None:
    lines = [line.split("\t") for line in perdure("history", "done", store=filled).stdout.splitlines()]
    events = said("history", "done", store=filled)["events"]

    assert [line[2] for line in lines] == ["ExecutionStarted", "ExecutionCompleted"]
    assert lines[1][4] == '{"n": 1}'
    assert [event["type"] for event in events] == ["ExecutionStarted", "ExecutionCompleted"]


def test_what_is_told_without_a_server_happens_when_the_application_is_served_again(filled: Path) -> None:
    started = perdure("start", "echo", "--id", "new", "--input", '{"late": true}', store=filled)
    raised = perdure("raise", "asking", "ApproverDecision", "--input", '{"approved": true}', store=filled)
    before = said("status", "new", store=filled)
    outputs = {}

    async def look(client: df.Client) -> None:
        for instance_id in ("new", "asking"):
            outputs[instance_id] = (await client.wait_for_completion(instance_id, 10)).output

    serve(filled, look)

    assert (started.exit_code, started.stdout) == (0, "new\n")
    assert (raised.exit_code, raised.stdout) == (0, "Event ApproverDecision was accepted for asking.\n")
    assert before["runtimeStatus"] == "Pending"
    assert outputs == {"new": {"late": True}, "asking": "APPROVED"}


@pytest.mark.parametrize(
    "told",
    [
        ("start", "echo"),
        ("raise", "asking", "ApproverDecision", "-i", '{"approved": true}'),
        ("restart", "done"),
        ("rewind", "failed"),
    ],
)
def test_a_command_warns_if_no_worker_serves_the_hub(filled: Path, told: tuple[str, ...]) -> None:
    result = perdure(*told, store=filled)

    assert result.exit_code == 0, result.output
    assert result.stderr.startswith("note: no worker serves this hub at present.")


def test_input_is_read_from_a_file_and_from_standard_input(filled: Path, tmp_path: Path) -> None:
    file = tmp_path / "input.json"
    file.write_text('{"from": "file"}')

    by_file = perdure("start", "echo", "--id", "by-file", "-i", f"@{file}", store=filled)
    by_pipe = perdure("start", "echo", "--id", "by-pipe", "-i", "-", store=filled, stdin='"pipe"')
    inputs = []

    async def look(client: df.Client) -> None:
        for instance_id in ("by-file", "by-pipe"):
            status = await client.wait_for_completion(instance_id, 10)
            inputs.append(status.output)

    serve(filled, look)

    assert (by_file.exit_code, by_pipe.exit_code) == (0, 0)
    assert inputs == [{"from": "file"}, "pipe"]


def test_the_other_verbs_are_accepted_and_said(filled: Path) -> None:
    assert perdure("suspend", "asleep", "--reason", "audit", store=filled).stdout == "asleep is suspended.\n"
    assert said("status", "asleep", store=filled)["runtimeStatus"] == "Suspended"
    assert said("resume", "asleep", store=filled) == {"instanceId": "asleep"}
    assert said("terminate", "asleep", "--reason", "enough", store=filled) == {"instanceId": "asleep"}
    assert said("status", "asleep", store=filled)["output"] == "enough"
    assert perdure("rewind", "failed", "--reason", "mended", store=filled).exit_code == 0
    assert said("restart", "done", store=filled)["instanceId"] not in ("", "done")
    assert perdure("purge", "done", "failed", store=filled).stdout == "2 instances purged.\n"
    assert said("purge", "--created-before", "2100-01-01", "--yes", store=filled)["instancesDeleted"] == 1


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("status", "nobody"), 3),
        (("history", "nobody"), 3),
        (("raise", "nobody", "e"), 3),
        (("purge", "nobody"), 3),
        (("terminate", "nobody"), 3),
        (("raise", "done", "e"), 1),
        (("terminate", "done"), 1),
        (("restart", "asleep"), 1),
        (("purge", "asleep"), 1),
        (("start", "echo", "--id", "asleep"), 1),
        (("start", "echo", "--id", "a/b"), 1),
        (("start", "echo", "--input", "{"), 2),
        (("start", "echo", "--input", "@/no/such/file"), 2),
        (("start", "echo", "--tag", "colour"), 2),
        (("list", "--status", "Sleeping"), 2),
        (("list", "--top", "0"), 2),
        (("purge",), 2),
        (("status",), 2),
        (("explode",), 2),
        (("status", "done", "--hub", "other"), 4),
        (("status", "done", "--url", "http://127.0.0.1:9"), 4),
        (("start", "echo", "--url", "http://127.0.0.1:9"), 4),
    ],
)
def test_a_command_ends_with_the_code_of_what_went_wrong(
    filled: Path, arguments: tuple[str, ...], code: int
) -> None:
    result = perdure(*arguments, store=filled)

    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert result.stderr


def test_errors_are_json_on_stderr_when_json_is_asked_for(filled: Path) -> None:
    result = perdure("terminate", "nobody", "--json", store=filled)

    assert json.loads(result.stderr)["error"]["code"] == "instance-not-found"


def test_a_wrong_path_is_said_to_be_wrong_and_makes_no_database(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere.db"

    for command in (("list",), ("start", "echo"), ("verify",)):
        result = perdure(*command, store=missing)
        assert result.exit_code == 4
        assert "no database at" in result.stderr
    assert not missing.exists()


def test_a_file_of_another_program_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    other.write_bytes(b"not a database at all" * 100)

    assert perdure("list", store=other).exit_code == 4


def test_of_several_hubs_one_must_be_named(filled: Path) -> None:
    async def nothing(client: df.Client) -> None:
        await client.start_new("sleeper", "elsewhere")

    serve(filled, nothing, hub="second")

    assert "second" in perdure("list", store=filled).stderr
    page = said("list", "--hub", "second", store=filled)
    assert [one["instanceId"] for one in page["instances"]] == ["elsewhere"]


def test_an_engine_without_a_server_can_be_watched_but_not_told(filled: Path) -> None:
    results = []

    async def meanwhile(client: df.Client) -> None:
        results.append(await asyncio.to_thread(perdure, "status", "asking", store=filled))
        results.append(await asyncio.to_thread(perdure, "terminate", "asking", store=filled))

    serve(filled, meanwhile)

    assert results[0].exit_code == 0
    assert results[1].exit_code == 4
    assert "has" in results[1].stderr


def test_verify_finds_nothing_in_what_is_whole(filled: Path) -> None:
    result = perdure("verify", store=filled)

    assert result.exit_code == 0, result.stdout
    assert re.fullmatch(r"hub hosts: 4 instances, \d+ rows of history, no problems\n", result.stdout)
    assert said("verify", store=filled)["hubs"]["hosts"]["problems"] == []


def test_verify_finds_what_was_changed(filled: Path) -> None:
    import apsw

    connection = apsw.Connection(str(filled))
    connection.execute(
        "update history set events = cast(replace(cast(events as text), '\"n\":1', '\"n\":2') as blob)"
    )
    connection.close()

    result = perdure("verify", store=filled)

    assert result.exit_code == 1
    assert "done" in result.stdout


def test_data_is_no_command_to_the_terminal(store: Path) -> None:
    async def fill(client: df.Client) -> None:
        await client.start_new("echo", "x", "\x1b[31mred\x1b]0;title\x07", tags={"t": "\x1b[2J"})
        await client.wait_for_completion("x", 10)

    serve(store, fill)

    for command in ("status", "history"):
        assert "\x1b" not in perdure(command, "x", store=store).stdout


def test_help_lists_the_exit_codes() -> None:
    result = perdure("list", "--help")

    assert "3 not found" in " ".join(result.stdout.split())


def test_an_address_that_is_none_is_said_to_be_none(filled: Path) -> None:
    result = perdure("list", "--url", "localhost", store=filled)
    assert result.exit_code == 2
    assert "must begin with http://" in " ".join(result.stderr.replace("│", " ").split())


def test_a_store_of_another_kind_is_no_store() -> None:
    result = perdure("list", "--store", "mysql://x/y")
    assert result.exit_code == 4
    assert "use sqlite:///file.db, postgresql://... or memory:" in result.stderr


def test_a_file_that_is_no_program_is_not_served(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# Read me")
    result = perdure("run", str(readme), "--port", "0")
    assert result.exit_code == 1
    assert "is not a Python file" in result.stderr
