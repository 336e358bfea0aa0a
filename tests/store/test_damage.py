"""One damaged cell: everything else goes on, and the instance that has it is shown, named and removed.

Every column of every table is given what no engine writes there. The hub is then served, listed, asked and changed.
"""

import asyncio
import json
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import httpx2
import psycopg
import pytest
from typer.testing import CliRunner

import perdure as df
from perdure.cli.main import root
from perdure.engine.upkeep.verification import verify
from perdure.http.host import application
from perdure.model.instances import RuntimeStatus
from perdure.store import hubs_of, open_store
from tests.postgres.fixtures import Servers
from tests.postgres.servers import NEWEST
from tests.store.damage import (
    COLUMNS,
    GARBAGE,
    HELD,
    SOUND,
    VICTIM,
    app_of,
    damage,
    damage_postgres,
    filled,
    is_refused_by_types,
    is_undetectable,
    lived_with,
)

OWN = ("instances", "history", "payloads", "waits")
"""Tables whose damaged row is the victim's."""
CASES = [
    pytest.param(table, column, kind, garbage, id=f"{table}.{column}-{garbage}")
    for table, columns in COLUMNS.items()
    for column, kind in columns.items()
    for garbage in GARBAGE[kind]
    if (column, garbage)
    not in {("wait_id", "null"), ("key_id", "null")}  # SQLite has no nulls in these keys at all
]


def problems_of(store: str) -> list[str]:
    opened = open_store(store, "damage")
    try:
        return verify(opened).problems
    finally:
        opened.close_reader()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("damage") / "template.db"
    asyncio.run(filled(str(path)))
    return path


@pytest.fixture
def path(template: Path, tmp_path: Path) -> str:
    shutil.copy(template, tmp_path / "hub.db")
    return str(tmp_path / "hub.db")


@pytest.mark.parametrize(("table", "column", "kind", "garbage"), CASES)
async def test_one_damaged_cell_is_the_problem_of_its_instance(
    path: str, table: str, column: str, kind: str, garbage: str
) -> None:
    assert damage(path, table, column, GARBAGE[kind][garbage])
    problems = problems_of(path)
    if not is_undetectable(table, column, garbage):
        assert problems, "verify has not found it"
    found = await lived_with(path)
    shown = [one for name, one in found.statuses.items() if name not in (SOUND, HELD, "done", "gone")]
    if table == "instances" and problems and column not in ("hub_no", "partition"):
        [victim] = shown
        assert any(problem.startswith(f"{victim.instance_id}") for problem in problems)
    others = [one for name, one in found.statuses.items() if name in (SOUND, HELD, "done", "gone")]
    assert [one.reason for one in others if "damaged" in one.reason] == []


@pytest.mark.parametrize("garbage", ["no-utf8", "bytes"])
async def test_a_status_that_there_is_none_of_is_shown_with_its_reason(path: str, garbage: str) -> None:
    damage(path, "instances", "status", GARBAGE["text"][garbage])
    found = await lived_with(path)
    victim = found.statuses[VICTIM]
    assert victim.runtime_status is RuntimeStatus.Suspended
    assert victim.reason.startswith("damaged: in the row of the instance (instance_no ")
    assert "status is" in victim.reason
    assert "perdure export --raw" in found.answers["resume"] and "damaged" in found.answers["resume"]


async def test_an_empty_history_is_not_running_without_a_word(path: str) -> None:
    damage(path, "history", "events", "cast('[]' as blob)")
    found = await lived_with(path)
    victim = found.statuses[VICTIM]
    assert "episode" in victim.reason and "do not match their digest" in victim.reason


async def test_an_id_that_cannot_be_read_is_replaced_by_the_number_of_the_instance(path: str) -> None:
    damage(path, "instances", "instance_id", "cast(x'766963ff' as text)")
    found = await lived_with(path)
    [name] = [name for name in found.statuses if name.startswith("damaged::")]
    assert r"vic\xff" in found.statuses[name].reason
    assert f"purge {name}" not in found.answers


async def restarted_with_a_forged_input(store: str, forge: Callable[[], None]) -> None:
    """The victim has ended; its input, which lies in a row of payloads, becomes another one."""
    app = app_of()
    async with app.running(store=store, hub="damage") as client:
        await client.terminate(VICTIM)
        await client.wait_for_completion(VICTIM)
    forge()
    async with app.running(store=store, hub="damage") as client:
        with pytest.raises(df.IllegalTransition, match=r"damaged: body 0 .* digest.*perdure export --raw"):
            await client.restart(VICTIM)
        shown = await client.get_status(VICTIM, show_input=True)
        assert shown is not None and shown.input != "forged"


async def test_nothing_is_restarted_with_an_input_that_was_changed(path: str) -> None:
    def forge() -> None:
        connection = apsw.Connection(path)
        connection.execute("update payloads set body = cast('\"forged\"' as blob)")
        connection.close()

    await restarted_with_a_forged_input(path, forge)


def test_a_damaged_instance_is_exported_as_it_is(path: str) -> None:
    damage(path, "instances", "status", "cast(x'52ff' as text)")
    damage(path, "history", "events", "x'5b22ff225d'")
    outcome = CliRunner().invoke(root, ["export", "--raw", VICTIM, "--store", path])
    assert outcome.exit_code == 0, outcome.stderr
    rows: dict[str, list[dict[str, Any]]] = json.loads(outcome.stdout)["rows"]
    assert rows["history"][-1]["events"] == {"base64": "WyL/Il0="}
    assert {"instances", "history", "payloads", "state", "waits", "inbox"} <= rows.keys()
    assert rows["instances"][0]["instance_id"] == VICTIM
    assert rows["waits"][0]["name"] == "Go"


COPIED = [
    ("instances", "name", "null"),
    ("instances", "status", "no-utf8"),
    ("history", "events", "text"),
    ("payloads", "body", "null"),
    ("waits", "schema", "empty-list"),
]


@pytest.mark.parametrize(("table", "column", "garbage"), COPIED)
def test_a_damaged_hub_is_not_copied_until_the_instance_is_removed(
    path: str, tmp_path: Path, table: str, column: str, garbage: str
) -> None:
    assert damage(path, table, column, GARBAGE[COLUMNS[table][column]][garbage])
    goal = tmp_path / "copy.db"
    refused = CliRunner().invoke(root, ["copy", path, str(goal)])
    assert refused.exit_code == 4 and f": {VICTIM}" in refused.stderr
    assert (
        "is damaged" in refused.stderr
        and "was not copied" in refused.stderr
        and "perdure purge" in refused.stderr
    )
    assert not goal.exists()

    CliRunner().invoke(root, ["terminate", VICTIM, "--store", path])  # refused where it is shown as damaged
    assert CliRunner().invoke(root, ["purge", VICTIM, "--store", path, "--yes"]).exit_code == 0
    copied = CliRunner().invoke(root, ["copy", path, str(goal)])
    assert copied.exit_code == 0, copied.output
    assert problems_of(str(goal)) == []


@pytest.mark.parametrize(("table", "column"), [("keys", "name"), ("audit", "who"), ("dropped", "body")])
def test_a_copy_names_a_damaged_row_that_belongs_to_no_instance(
    path: str, tmp_path: Path, table: str, column: str
) -> None:
    assert damage(path, table, column, "null")
    refused = CliRunner().invoke(root, ["copy", path, str(tmp_path / "copy.db")])
    assert refused.exit_code == 4 and f"the row of {table} (" in refused.stderr
    assert not (tmp_path / "copy.db").exists()


def test_the_name_of_a_hub_that_cannot_be_read_hides_no_other(path: str) -> None:
    connection = apsw.Connection(path)
    connection.execute("insert into hubs (name) values (cast(x'ff68' as text))")
    connection.close()
    assert sorted(hubs_of(path)) == [r"\xffh", "damage"]
    assert CliRunner().invoke(root, ["verify", "--store", path]).exit_code == 0


# -------------------------------------------------------------------------------------------- PostgreSQL


@pytest.fixture(scope="module")
def filled_database(postgres_servers: Servers) -> Iterator[str]:
    """To be copied by PostgreSQL, which is quicker than to fill one for each test."""
    with postgres_servers(NEWEST).database() as url:
        asyncio.run(filled(url))
        yield url


@pytest.fixture
def database(filled_database: str) -> Iterator[str]:
    address, _, template = filled_database.rpartition("/")
    name = f"damaged_{secrets.token_hex(6)}"
    with psycopg.connect(f"{address}/postgres", autocommit=True) as session:
        session.execute(f"create database {name} template {template}")  # type: ignore[call-overload]
        yield f"{address}/{name}"
        session.execute(f"drop database {name} with (force)")  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("table", "column", "kind", "garbage"),
    [
        pytest.param(*case.values, id=case.id, marks=[pytest.mark.long] if number % 3 else [])
        for number, case in enumerate(CASES)
        if not is_refused_by_types(*(case.values[at] for at in (0, 1, 3)))
    ],
)
async def test_one_damaged_cell_in_postgres(
    database: str, table: str, column: str, kind: str, garbage: str
) -> None:
    """As far as the types of PostgreSQL let it in. Without `--long` a third of what SQLite is asked above."""
    assert damage_postgres(database, table, column, garbage)
    problems = problems_of(database)
    if not is_undetectable(table, column, garbage):
        assert problems, "verify has not found it"
    await lived_with(database)


async def test_nothing_is_restarted_with_an_input_that_was_changed_in_postgres(database: str) -> None:
    def forge() -> None:
        with psycopg.connect(database) as session:
            session.execute("update perdure.payloads set body = convert_to('\"forged\"', 'UTF8')")

    await restarted_with_a_forged_input(database, forge)


# ------------------------------------------------------------------------------------------ over HTTP

DOORS = (
    *("/", "/instances", "/audit", "/keys", "/runtime/webhooks/durabletask/instances?showInput=true"),
    *("/instances/{id}", "/runtime/webhooks/durabletask/instances/{id}"),
    "/runtime/webhooks/durabletask/instances/{id}?showHistory=true&showHistoryOutput=true&showInput=true",
    "/runtime/webhooks/durabletask/entities?fetchState=true",
)


@pytest.mark.parametrize(
    ("table", "column", "garbage"),
    [
        ("instances", "status", "no-utf8"),
        ("instances", "name", "bytes"),
        ("instances", "tags", "empty"),
        ("instances", "created_at", "huge"),
        ("history", "events", "no-utf8"),
        ("history", "at", "huge"),
        ("payloads", "body", "broken"),
        ("state", "custom_status", "no-utf8"),
        ("state", "entity_state", "unknown"),
        ("waits", "schema", "empty-list"),
        ("keys", "created_at", "huge"),
        ("audit", "at", "text"),
    ],
)
async def test_pages_and_api_answer_with_a_damaged_row(
    path: str, table: str, column: str, garbage: str
) -> None:
    damage(path, table, column, GARBAGE[COLUMNS[table][column]][garbage])
    async with app_of().running(store=path) as client:
        transport = httpx2.ASGITransport(app=application(client))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
            for door in DOORS:
                for accept in ("text/html", "application/json"):
                    answer = await http.get(door.replace("{id}", VICTIM), headers={"accept": accept})
                    assert answer.status_code < 500, (door, answer.text)
