"""A hub with a row in every table, hands that damage one cell of it, and a look at how the rest fares."""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import apsw
import psycopg

import perdure as df
from perdure.errors import InstanceNotFound, PerdureError
from perdure.model.damaged import UNNAMED, UNNAMED_ENTITY
from perdure.model.instances import OrchestrationStatus

if TYPE_CHECKING:
    from typing import LiteralString

VICTIM, SOUND, HELD, ENTITY, DONE = "victim", "sound", "held", df.EntityId("counter", "a"), "done"
TEXT, NUMBER, BYTES, JSON = "text", "number", "bytes", "json"
COLUMNS: dict[str, dict[str, str]] = {
    "instances": {
        **dict.fromkeys(("instance_id", "kind", "name", "version", "status", "reason"), TEXT),
        **dict.fromkeys(("partition", "execution_no", "episodes", "created_at", "updated_at"), NUMBER),
        **dict.fromkeys(("completed_at", "due_at", "local_work", "parent_task"), NUMBER),
        **dict.fromkeys(("parent_id", "parent_execution"), TEXT),
        "tags": TEXT,
        "salt": BYTES,
        "head": BYTES,
        "replays": NUMBER,
        "replay_reason": TEXT,
        "hub_no": NUMBER,
    },
    "history": {
        "execution_no": NUMBER,
        "episode": NUMBER,
        "at": NUMBER,
        "events": JSON,
        "digest": BYTES,
        "hash": BYTES,
    },
    "payloads": {"execution_no": NUMBER, "episode": NUMBER, "no": NUMBER, "body": JSON},
    "state": {"custom_status": JSON, "entity_state": JSON},
    "waits": {"wait_id": NUMBER, "name": TEXT, "since": NUMBER, "deadline": NUMBER, "schema": JSON},
    "inbox": {"hub_no": NUMBER, "instance_id": TEXT, "visible_at": NUMBER, "message": JSON},
    "seen": {"operation_id": TEXT, "instance_id": TEXT, "answer": JSON, "expires_at": NUMBER},
    "dropped": {
        **dict.fromkeys(("instance_id", "kind", "name", "operation_id", "reason"), TEXT),
        "at": NUMBER,
        "body": BYTES,
    },
    "keys": {
        **dict.fromkeys(("key_id", "kind", "name", "scopes", "created_by"), TEXT),
        **dict.fromkeys(("created_at", "expires_at", "revoked_at", "last_used_at"), NUMBER),
        "secret": BYTES,
    },
    "audit": {
        **dict.fromkeys(("who", "address", "operation", "instance_id", "detail", "outcome"), TEXT),
        "at": NUMBER,
        "times": NUMBER,
    },
}
WHICH: dict[tuple[str, str], str] = {
    ("history", ""): "instance_no = {victim}",
    ("payloads", ""): "instance_no = {victim}",
    ("state", "custom_status"): "instance_no = {victim}",
    ("state", "entity_state"): "instance_no = {entity}",
    ("waits", ""): "instance_no = {victim}",
    ("instances", ""): "instance_no = {victim}",
}
"""Which row of a table is damaged; the only one, or the first, where nothing is said."""


def app_of() -> df.App:
    app = df.App("damage")

    @app.activity
    def double(n: int) -> int:
        return 2 * n

    @app.orchestrator
    def working(context: df.OrchestrationContext):  # type: ignore[no-untyped-def]
        context.set_custom_status({"asked": context.get_input()["n"]})
        doubled = yield context.call_activity(double, context.get_input()["n"])
        said = yield context.wait_for_external_event("Go", int)
        return doubled + said

    @app.entity
    class Counter:
        value: int = 0

        def add(self, n: int) -> int:
            self.value += n
            return self.value

    return app


async def filled(store: str, hub: str = "damage") -> None:
    """Make the hub. What the victim takes in is kept out of line."""
    async with app_of().running(store=store, hub=hub) as client:
        asked = {"n": 1, "much": "x" * 20_000}
        await client.start_new("working", VICTIM, asked, tags={"kind": "victim"}, operation_id="start-victim")
        for name in (SOUND, HELD, DONE):
            await client.start_new("working", name, asked, tags={"kind": name})
        await client.raise_event(DONE, "Go", 1)
        await client.wait_for_completion(DONE, 60)
        await client.start_new("working", "gone", asked)
        await _waits_for(client, "gone")
        await client.suspend("gone")
        await client.raise_event("gone", "Go", 1, event_id="dropped-event")
        await client.terminate("gone", "not wanted")
        await client.signal_entity(ENTITY, "add", 5)
        while not (await client.read_entity_state(ENTITY)).exists:
            await asyncio.sleep(0)
        await client.create_key("reader", ["read"])
        for name in (VICTIM, SOUND, HELD):
            await _waits_for(client, name)
        await client.suspend(HELD, "stocktaking")
        await client.raise_event(HELD, "Go", 7, event_id="held-event")


async def _waits_for(client: df.Client, name: str) -> None:
    while True:
        status = await client.get_status(name)
        if status is not None and "Go" in status.waiting_for:
            return
        await asyncio.sleep(0)


@dataclass
class Found:
    """What a look at the whole hub told."""

    statuses: dict[str, OrchestrationStatus]
    answers: dict[str, str]


async def lived_with(store: str, hub: str = "damage") -> Found:
    """Serve the hub, ask everything, and do to the damaged instance all that can be done to one.

    Raises what any of this raises for the others, or anything that is no PerdureError.
    """
    answers: dict[str, str] = {}
    async with app_of().running(store=store, hub=hub) as client:
        listed = [one for page in [await client.query(show_input=True)] for one in page.instances]
        statuses = {one.instance_id: one for one in listed}
        await client.counts()
        await client.query(tags={"kind": SOUND})
        await client.query(status=["Running"], name="working", waiting_for="Go")
        await client.keys()
        await client.audit()
        await client.gateway.read(lambda: client.gateway.store.dropped(None, 100))
        await client.query_entities(fetch_state=True)
        await client.bulk("terminate", dry_run=True)
        for name in statuses:
            for history in (False, True):
                try:
                    await client.get_status(name, history, history, True)
                except PerdureError as error:
                    answers[f"status of {name}"] = str(error)
        fresh = await client.start_new("working", None, {"n": 3})
        await client.raise_event(fresh, "Go", 1)
        assert (await client.wait_for_completion(fresh, 60)).output == 7
        await client.raise_event(SOUND, "Go", 5)
        assert (await client.wait_for_completion(SOUND, 60)).output == 7
        for verb in ("resume", "suspend", "terminate"):
            await _tried(answers, verb, getattr(client, verb)(VICTIM, "why not"))
        await _tried(answers, "event", client.raise_event(VICTIM, "Go", 1))
        await _tried(
            answers, "repeat", client.start_new("working", VICTIM, {"n": 1}, operation_id="start-victim")
        )
        await client.start_new("working", "after", {"n": 3})  # the loop has lived through it
        for name in (*statuses, VICTIM):
            if name in (VICTIM,) or name.startswith((UNNAMED, UNNAMED_ENTITY)):
                await _tried(answers, "terminate", client.terminate(name))
                await _tried(answers, f"purge {name}", client.purge_instance_history(name))
                assert await client.get_status(name) is None, answers
    return Found(statuses, answers)


async def _tried(answers: dict[str, str], verb: str, asked: Any) -> None:
    try:
        await asyncio.wait_for(asked, 60)
    except InstanceNotFound:
        pass
    except PerdureError as error:
        answers[verb] = str(error)


# ------------------------------------------------------------------------------------------------ SQLite

GARBAGE: dict[str, dict[str, str]] = {
    TEXT: {
        "no-utf8": "cast(x'6bff80' as text)",
        "null": "null",
        "a-number": "17",
        "bytes": "x'ff00'",
        "empty": "''",
    },
    NUMBER: {"huge": "9223372036854775807", "negative": "-5", "null": "null", "text": "'soon'"},
    BYTES: {"other": "x'00ff'", "null": "null", "text": "'text'", "empty": "x''"},
    JSON: {
        "broken": "cast('{\"a\":' as blob)",
        "empty-list": "cast('[]' as blob)",
        "no-utf8": "x'5b22ff225d'",
        "unknown": 'cast(\'[{"type":"Unheard"}]\' as blob)',
        "null": "null",
        "text": "'[]'",
        "nothing": "x''",
    },
}


def damage(path: str, table: str, column: str, value: str) -> int:
    """Put an SQL value into one cell, whatever the schema says of it; returns how many cells that were."""
    connection = apsw.Connection(path)
    connection.execute("pragma ignore_check_constraints = on")
    connection.execute("pragma writable_schema = on")
    connection.execute(
        "update sqlite_schema set sql = replace(replace(sql, ') strict', ')'), 'not null', '') where name = ?",
        (table,),
    )
    version = connection.pragma("schema_version")
    connection.pragma("schema_version", version + 1)
    connection.close()
    connection = apsw.Connection(path)
    numbers = dict(
        connection.execute(
            "select name, instance_no from (select instance_id as name, instance_no from instances)"
        )
    )
    where = WHICH.get((table, column), WHICH.get((table, ""), "1"))
    where = where.format(victim=numbers[VICTIM], entity=numbers["@counter@a"])
    key = "rowid" if table not in ("waits", "keys") else ("wait_id" if table == "waits" else "key_id")
    newest = f"select max({key}) from {table} where {where}"
    connection.execute(f"update {table} set {column} = {value} where {where} and {key} = ({newest})")
    changed = connection.changes()
    connection.close()
    return changed


# -------------------------------------------------------------------------------------------- PostgreSQL

_REFUSED = {
    TEXT: ("no-utf8", "bytes", "null"),
    **dict.fromkeys((NUMBER, BYTES, JSON), ("text", "null")),
}
_IN_POSTGRES = {
    "no-utf8": r"'\x5b22ff225d'",
    "other": r"'\x00ff'",
    **dict.fromkeys(("nothing", "empty"), "''"),
}


def is_refused_by_types(table: str, column: str, garbage: str) -> bool:
    """Whether PostgreSQL's types keep this out, or have nothing against it because any text will do."""
    if COLUMNS[table][column] == TEXT and table in _FREE_TEXT:
        return True
    return garbage in _REFUSED[COLUMNS[table][column]]


def damage_postgres(url: str, table: str, column: str, garbage: str) -> int:
    """The same in PostgreSQL, in the only hub that there is."""
    kind = COLUMNS[table][column]
    value = GARBAGE[kind][garbage].replace("cast(", "").replace(" as blob)", "")
    value = f"'{value}'" if kind == TEXT and garbage == "a-number" else _IN_POSTGRES.get(garbage, value)
    if column == "hub_no" and garbage == "huge":
        value = "2147483647"  # its type goes no further
    with psycopg.connect(url, autocommit=True) as session:
        numbers = dict(session.execute("select instance_id, instance_no from perdure.instances").fetchall())
        where = WHICH.get((table, column), WHICH.get((table, ""), "true"))
        where = where.format(victim=numbers[VICTIM], entity=numbers["@counter@a"])
        newest = f"select max(ctid) from perdure.{table} where {where}"
        statement = f"update perdure.{table} set {column} = {value} where ctid = ({newest})"
        return session.execute(cast("LiteralString", statement)).rowcount


# --------------------------------------------------------------------------------------------- detection

_FREE_TEXT = {"seen", "dropped", "keys", "audit"}
_MAY_BE_NULL = {
    *(
        ("instances", column)
        for column in ("completed_at", "due_at", "parent_id", "parent_execution", "parent_task")
    ),
    *(("state", "custom_status"), ("state", "entity_state"), ("waits", "schema"), ("inbox", "visible_at")),
    *(("instances", "tags"), ("keys", "expires_at"), ("keys", "revoked_at"), ("keys", "last_used_at")),
}
_ANY_JSON = {("state", "custom_status"), ("seen", "answer")}
_FREE_REASONS = {("instances", "reason"), ("instances", "replay_reason")}
_ANY_BYTES = {("keys", "secret"), ("dropped", "body")}


def is_undetectable(table: str, column: str, garbage: str) -> bool:
    """Whether an engine could have written this, as far as one row and its history tell."""
    if (table, column, garbage) in {
        ("instances", "instance_id", "a-number"),
        ("instances", "version", "empty"),
    }:
        return True
    match garbage:
        case "a-number" | "empty" if COLUMNS[table][column] == TEXT:
            return table in _FREE_TEXT or (table, column) in _FREE_REASONS
        case "null":
            return (table, column) in _MAY_BE_NULL
        case "empty-list" | "unknown":
            return (table, column) in _ANY_JSON
        case "other" | "empty":
            return (table, column) in _ANY_BYTES
        case _:
            return False


__all__ = [
    *("COLUMNS", "GARBAGE", "HELD", "SOUND", "VICTIM", "Found", "app_of", "damage", "damage_postgres"),
    *("filled", "is_refused_by_types", "is_undetectable", "lived_with"),
]
