"""Commands that change something in a file are in the audit log as well: one row each, with who ran them.

The commands come from the command line itself, so that a new one has to be placed here.
"""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer.main

import perdure as df
from perdure.cli.main import root
from perdure.triggers import Queues
from tests.access.test_audit import app_with_triggers
from tests.cli.test_cli import perdure, said

# What they do is no operation on a hub: they look, serve, copy files, or need a server that signs.
OTHERS = frozenset(
    {
        *("migrate", "partitions", "workers"),
        *(
            "audit",
            "status",
            "list",
            "count",
            "watch",
            "history",
            "export",
            "replay",
            "verify",
            "settings",
            "binding",
        ),
        *(
            "run",
            "backup",
            "copy",
            "encryption-key",
            "rekey",
            "link",
            "postgres",
            "hubs",
            "version",
            "doctor",
            "trace",
        ),
        *(
            "keys list",
            "entities list",
            "entities show",
            "tasks list",
            "tasks show",
            "schedules list",
            "schedules show",
            "queues dead",
            "queues list",
        ),
    }
)
CHANGING: dict[str, tuple[list[str], str]] = {
    "start": (["start", "echo", "--id", "new-1"], "start"),
    "raise": (["raise", "asking", "ApproverDecision", "--input", '{"approved": true}'], "raise_event"),
    "suspend": (["suspend", "running"], "suspend"),
    "resume": (["resume", "stopped"], "resume"),
    "terminate": (["terminate", "running"], "terminate"),
    "rewind": (["rewind", "broken"], "rewind"),
    "purge": (["purge", "done"], "purge"),
    "restart": (["restart", "done"], "restart"),
    "entities signal": (["entities", "signal", "Counter@k", "add", "--input", "1"], "entity_operation"),
    "tasks claim": (["tasks", "claim", "asking:0", "--as", "ada"], "claim_task"),
    "tasks release": (["tasks", "release", "asking:0", "--as", "ada"], "release_task"),
    "tasks assign": (["tasks", "assign", "asking:0", "ben", "--as", "ada"], "assign_task"),
    "tasks complete": (["tasks", "complete", "asking:0", "-i", '{"approved": true}'], "complete_task"),
    "schedules pause": (["schedules", "pause", "yearly", "--reason", "holidays"], "pause_schedule"),
    "schedules resume": (["schedules", "resume", "yearly"], "resume_schedule"),
    "schedules run": (["schedules", "run", "yearly"], "run_schedule"),
    "schedules backfill": (
        ["schedules", "backfill", "yearly", "2020-01-01", "2021-06-01"],
        "backfill_schedule",
    ),
    "queues send": (["queues", "send", "claims-in", "--input", "1"], "send_message"),
    "queues redeliver": (["queues", "redeliver", "queue:claims-in:m1"], "redeliver_message"),
    "keys create": (["keys", "create", "desk", "--scope", "read"], "create_key"),
    "keys revoke": (["keys", "revoke", "{key}"], "revoke_key"),
    "keys rotate-links": (["keys", "rotate-links"], "rotate_links"),
}


DETAILS = {
    "schedules pause": "yearly: holidays",
    "schedules resume": "yearly",
    "schedules run": "yearly",
    "schedules backfill": "yearly: 2020-01-01T00:00:00.000000Z to 2021-06-01T00:00:00.000000Z",
    "queues send": "claims-in",
    "queues redeliver": "claims-in",
}


def names(group: Any, before: str = "") -> set[str]:
    found: set[str] = set()
    for name, command in group.commands.items():
        found |= names(command, f"{before}{name} ") if hasattr(command, "commands") else {before + name}
    return found


def test_every_command_is_in_one_of_the_two_tables() -> None:
    known = names(typer.main.get_command(root))

    assert known - OTHERS - CHANGING.keys() == set()
    assert set(CHANGING) <= known


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    store = tmp_path / "perdure.db"

    async def fill() -> None:
        async with app_with_triggers().running(store=str(store), hub="hosts") as client:
            for name, id_ in (("approval", "asking"), ("sleeper", "running"), ("sleeper", "stopped")):
                await client.start_new(name, id_)
            await client.suspend("stopped", "lunch")
            for name, id_ in (("broken", "broken"), ("echo", "done")):
                await client.start_new(name, id_)
                await client.wait_for_completion(id_, 10)
            await client.signal_entity(df.EntityId("Counter", "k"), "add", 1)
            letter = await Queues(client).send("claims-in", 1, message_id="m1")
            await client.wait_for_completion(letter, 10)

    asyncio.run(fill())
    return store


@pytest.mark.parametrize("command", CHANGING)
def test_a_command_that_changes_something_is_one_row(filled: Path, command: str) -> None:
    arguments, operation = CHANGING[command]
    if "{key}" in arguments:
        perdure("keys", "create", "old", "--scope", "read", store=filled)
        [key] = said("keys", "list", store=filled)
        arguments = [key["key_id"] if one == "{key}" else one for one in arguments]
    before = len(said("audit", store=filled)["records"])

    done = perdure(*arguments, store=filled)

    assert done.exit_code == 0, done.output
    records = said("audit", store=filled)["records"]
    [new] = records[: len(records) - before]
    assert (new["operation"], new["outcome"], new["times"], new["address"]) == (operation, "ok", 1, "cli")
    assert new["detail"] == DETAILS.get(command, new["detail"])
    assert new["who"].endswith("(on this machine)")
    assert abs((datetime.now(UTC) - datetime.fromisoformat(new["time"])).total_seconds()) < 120
