"""schedules and queues on the command line: with a server, and on a file without one."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

import perdure as df
from perdure.triggers import Queues
from tests.cli.test_cli import perdure, said
from tests.cli.test_run import KEY, folder, running
from tests.http.conftest import M

__all__ = ["folder"]

PROGRAM = """
import perdure as df

app = df.App("office")


@app.schedule("0 2 * * *", timezone="Europe/Berlin", name="nightly")
async def nightly(client: df.Client) -> None: ...


@app.schedule("0 0 1 1 *", name="yearly")
async def yearly(client: df.Client) -> None:
    raise ValueError("the printer is on fire")


@app.queue("claims", retry=df.RetryPolicy(first_interval=0.001, max_attempts=1))
async def claims(message: dict) -> None:
    if message.get("broken"):
        raise ValueError("no customer")


@app.queue("idle")
async def idle(message: dict) -> None: ...
"""


def lines(*arguments: str, store: Path) -> list[list[str]]:
    """What a command prints in a pipe."""
    result = perdure(*arguments, store=store)
    assert result.exit_code == 0, result.output
    return [line.split("\t") for line in result.stdout.splitlines()]


def schedule(name: str, store: Path) -> dict[str, Any]:
    found: dict[str, Any] = said("schedules", "show", name, store=store)
    return found


@pytest.fixture
def served(folder: Path) -> Iterator[Path]:
    """The database of a server that runs."""
    (folder / "app.py").write_text(PROGRAM)
    with running(folder) as (_, address):
        store = folder / "perdure.db"
        store.with_suffix(".address").write_text(address)
        yield store


def finish(store: Path, instance_id: str) -> None:
    """Wait until an instance has ended."""
    address = store.with_suffix(".address").read_text()
    httpx2.get(f"{address}{M}/instances/{instance_id}?wait=60", headers=KEY, trust_env=False, timeout=60)


@pytest.fixture
def unserved(tmp_path: Path) -> Path:
    """A database with schedules and messages, without a server."""
    namespace: dict[str, Any] = {}
    exec(PROGRAM, namespace)
    app: df.App = namespace["app"]
    store = tmp_path / "perdure.db"

    async def fill() -> None:
        async with app.running(store=str(store)) as client:
            for number, body in enumerate(({}, {"broken": 1})):
                message = await Queues(client).send("claims", body, message_id=f"m-{number}")
                await client.wait_for_completion(message, 10)
            await Queues(client).send("nobodys", {}, message_id="m-9")

    asyncio.run(fill())
    return store


# ------------------------------------------------------------------------------------------- schedules


def test_schedules_are_listed_paused_resumed_and_run_at_a_server(served: Path) -> None:
    listed = lines("schedules", "list", store=served)
    assert [(line[0], line[2], line[3]) for line in listed] == [
        ("nightly", "never", "0"),
        ("yearly", "never", "0"),
    ]
    assert ":00:00 UTC, in " in listed[0][1]
    assert listed[0][4] == "At 02:00 every day (Europe/Berlin)"

    assert perdure("schedules", "pause", "nightly", store=served).stdout == "nightly is paused.\n"
    assert lines("schedules", "list", store=served)[0][1] == "paused"
    told = perdure("schedules", "pause", "nightly", "--reason", "holidays", store=served)
    assert told.exit_code == 0
    assert lines("schedules", "list", store=served)[0][1] == "paused: holidays"
    assert schedule("nightly", served)["next"] == []
    assert perdure("schedules", "resume", "nightly", store=served).stdout == "nightly fires again.\n"
    assert len(schedule("nightly", served)["next"]) == 5

    assert perdure("schedules", "run", "yearly", store=served).stdout == "yearly fires now.\n"
    [fired] = schedule("yearly", served)["recent"]
    finish(served, fired["instanceId"])
    watched = perdure("watch", fired["instanceId"], store=served)
    assert watched.exit_code == 1 and "the printer is on fire" in watched.stdout
    assert perdure("schedules", "run", "yearly", "--json", store=served).stdout.split() == [
        "{",
        '"name":',
        '"yearly",',
        '"served":',
        "true",
        "}",
    ]


def test_one_schedule_is_shown_with_its_next_instants_and_its_last_firings(served: Path) -> None:
    assert (
        perdure("schedules", "backfill", "nightly", "2026-01-01", "2026-01-03T02:00", store=served).exit_code
        == 0
    )

    told = perdure("schedules", "show", "nightly", "--next", "2", store=served).stdout.splitlines()
    assert told[0] == "nightly  At 02:00 every day (0 2 * * *, Europe/Berlin)"
    table = [line.split("\t") for line in told[2:]]
    assert [(line[0][-5:], line[1]) for line in table[:2]] == [("02:00", "next"), ("02:00", "next")]
    assert [line[2] for line in table[2:]] == ["backfill"] * len(table[2:])
    assert table[-1][0] == "Thu 1 Jan 2026, 02:00"
    assert schedule("nightly", served)["fired"] + schedule("nightly", served)["waiting"] == 3


@pytest.mark.parametrize(
    ("after", "until", "ticks"),
    [
        ("2026-01-01", "2026-01-02", 1),  # midnight to midnight in Berlin
        ("2026-01-01T02:00", "2026-01-02T02:00", 1),  # later than, up to
        ("2026-01-01T01:00+00:00", "2026-01-02T01:00:00Z", 1),  # the same instants
        ("2026-01-01T00:59+00:00", "2026-01-02T00:59+00:00", 1),
    ],
)
def test_a_backfill_reads_times_in_the_schedules_zone(
    unserved: Path, after: str, until: str, ticks: int
) -> None:
    answer = said("schedules", "backfill", "nightly", after, until, store=unserved)

    assert answer == {"name": "nightly", "served": False, "ticks": ticks}


def test_a_backfill_without_an_end_goes_up_to_now(unserved: Path) -> None:
    after = (datetime.now(UTC) - timedelta(days=2)).isoformat()

    assert said("schedules", "backfill", "nightly", after, store=unserved)["ticks"] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("backfill", "nightly", "2999-01-01", "2999-01-03"), 1, "has no past tick"),
        (("backfill", "nightly", "2026-01-03", "2026-01-01"), 1, "has no past tick"),
        (("backfill", "nightly", "monday"), 2, "is not a date or a time"),
        (("backfill", "nightly"), 2, "Missing argument"),
        (("pause", "nobody"), 3, "Its schedules: nightly, yearly"),
        (("resume", "nobody"), 3, "Its schedules: nightly, yearly"),
        (("run", "nobody"), 3, "Its schedules: nightly, yearly"),
        (("show", "nobody"), 3, "Its schedules: nightly, yearly"),
        (("backfill", "nobody", "2026-01-01"), 3, "Its schedules: nightly, yearly"),
    ],
)
def test_what_cannot_be_meant_is_said_and_ends_by_its_code(
    unserved: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    result = perdure("schedules", *arguments, store=unserved)

    assert (result.exit_code, result.stdout) == (code, "")
    assert words in " ".join(result.stderr.replace("│", " ").split())


def test_an_order_to_a_file_waits_and_says_so(unserved: Path) -> None:
    told = perdure("schedules", "pause", "nightly", "--reason", "holidays", store=unserved)
    assert told.stdout == "nightly: accepted. It takes effect when the application runs again.\n"
    assert schedule("nightly", unserved)["paused"] == ""

    namespace: dict[str, Any] = {}
    exec(PROGRAM, namespace)

    async def serve() -> None:
        async with namespace["app"].running(store=str(unserved)) as client:
            async for status in client.watch("schedule:nightly"):
                if (status.custom_status or {}).get("paused"):
                    return

    asyncio.run(serve())
    assert schedule("nightly", unserved)["paused"] == "holidays"


# ---------------------------------------------------------------------------------------------- queues


def test_messages_are_sent_counted_and_delivered_again_at_a_server(served: Path) -> None:
    sent = perdure("queues", "send", "claims", "-i", '{"broken": 1}', "--id", "m-1", store=served)
    assert sent.stdout == "queue:claims:m-1 was accepted.\n" and sent.stderr == ""
    again = said("queues", "send", "claims", "-i", '{"broken": 1}', "--id", "m-1", store=served)
    assert again == {"name": "queue:claims:m-1", "served": True, "id": "queue:claims:m-1"}
    finish(served, "queue:claims:m-1")
    assert lines("queues", "list", store=served) == [
        ["claims", "0", "0", "1", ""],
        ["idle", "0", "0", "0", ""],
    ]
    assert lines("queues", "list", "claims", store=served) == [["claims", "0", "0", "1", ""]]

    [letter] = lines("queues", "dead", store=served)
    assert (letter[0], letter[1], letter[3]) == ("queue:claims:m-1", "claims", "ValueError: no customer")
    told = perdure("queues", "redeliver", "queue:claims:m-1", store=served)
    assert told.stdout == "queue:claims:m-1 is redelivered.\n"
    finish(served, "queue:claims:m-1")
    told = perdure("queues", "redeliver", "--all", "claims", store=served)
    assert told.stdout == "1 dead letter of claims is redelivered.\n"
    failed = lines("list", "--status", "failed", store=served)
    assert all(line[4] == "ValueError: no customer" for line in failed)


def test_a_message_for_a_queue_that_nobody_serves_is_noted(served: Path) -> None:
    told = perdure("queues", "send", "clams", "-i", "{}", store=served)

    assert told.exit_code == 0
    assert (
        told.stderr == "note: no function handles the messages of 'clams'. The message waits until one does\n"
    )
    assert ["clams", "1", "0", "0", "no function handles its messages"] in lines(
        "queues", "list", store=served
    )


def test_a_file_tells_of_its_queues_and_keeps_what_is_ordered(unserved: Path) -> None:
    assert lines("queues", "list", store=unserved) == [
        ["claims", "0", "1", "1", ""],
        ["nobodys", "1", "0", "0", ""],
    ]
    [letter] = said("queues", "dead", "claims", store=unserved)
    assert (letter["instanceId"], letter["reason"]) == ("queue:claims:m-1", "ValueError: no customer")
    assert said("queues", "dead", "nobodys", store=unserved) == []

    told = perdure("queues", "redeliver", "--all", "claims", store=unserved)
    assert (
        told.stdout == "1 dead letter of claims: accepted. It takes effect when the application runs again.\n"
    )
    assert perdure("queues", "send", "claims", "-i", "7", store=unserved).stdout.endswith(" was accepted.\n")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("send", "claims", "-i", "{broken"), 2, "not valid JSON near 'broken'"),
        (("send",), 2, "Missing argument"),
        (("send", "a/b", "-i", "1"), 1, "instance id"),
        (("redeliver",), 2, "pass messages, or a queue with --all"),
        (("redeliver", "x", "--all", "claims"), 2, "pass messages, or a queue with --all"),
        (("redeliver", "queue:claims:none"), 3, "no instance 'queue:claims:none'"),
        (("redeliver", "queue:claims:m-0"), 1, "'queue:claims:m-0'"),
    ],
)
def test_a_queue_order_that_cannot_be_meant_is_said_so(
    unserved: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    result = perdure("queues", *arguments, store=unserved)

    assert (result.exit_code, result.stdout) == (code, "")
    assert words in " ".join(result.stderr.replace("│", " ").split())


def test_with_a_key_the_same_is_done_at_an_address(served: Path) -> None:
    address = served.with_suffix(".address").read_text()
    made = json.loads(perdure("keys", "create", "desk", "-s", "read", "--json", store=served).stdout)
    key = made["secret"]

    listed = perdure("schedules", "list", "--url", address, "--key", key)
    refused = perdure("schedules", "run", "nightly", "--url", address, "--key", key)
    nobody = perdure("queues", "list", "--url", address, "--key", "wrong")

    assert listed.exit_code == 0 and listed.stdout.startswith("nightly\t")
    assert refused.exit_code == 1 and "'operate'" in refused.stderr and "PDR-090" in refused.stderr
    assert nobody.exit_code == 1 and "is not valid here" in nobody.stderr


def test_the_audit_log_of_a_server_calls_an_order_what_it_is(served: Path) -> None:
    for order in (
        ("schedules", "pause", "nightly", "--reason", "holidays"),
        ("schedules", "resume", "nightly"),
        ("schedules", "backfill", "nightly", "2020-01-01", "2020-01-03"),
        ("queues", "send", "claims", "-i", '{"broken": true}', "--id", "m-1"),
    ):
        assert perdure(*order, store=served).exit_code == 0
    finish(served, "queue:claims:m-1")
    for which in (("queue:claims:m-1",), ("--all", "claims")):
        assert perdure("queues", "redeliver", *which, store=served).exit_code == 0
        finish(served, "queue:claims:m-1")

    rows = [
        (one["operation"], one["detail"])
        for one in said("audit", store=served)["records"]
        if one["operation"].endswith(("_schedule", "_message"))
    ]

    assert rows[::-1] == [
        ("pause_schedule", "nightly: holidays"),
        ("resume_schedule", "nightly"),
        (
            "backfill_schedule",
            "nightly: 2019-12-31T23:00:00.000000Z to 2020-01-02T23:00:00.000000Z",
        ),
        ("send_message", "claims"),
        ("redeliver_message", "claims"),
        ("redeliver_message", "claims"),
    ]


@pytest.mark.parametrize("command", [("schedules",), ("queues",)])
def test_the_bare_word_shows_what_there_is(command: tuple[str, ...]) -> None:
    told = perdure(*command)

    assert told.exit_code == 2
    assert "list" in told.output and "Exit codes" in told.output
