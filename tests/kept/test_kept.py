"""Today's code goes on with what earlier code has written. README.md says what is kept, and why for ever."""

import gzip
import json
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from perdure import RuntimeStatus
from perdure.engine.client.paging import all_pages
from perdure.engine.upkeep.verification import verify
from perdure.maintenance import copy
from perdure.model import events as ev
from perdure.model import hash_chain
from perdure.model.durations import moment
from perdure.model.records import InstanceFilter
from perdure.store import open_store
from perdure.store.encryption import Encryption
from perdure.testing import check_recording, environment, read_recording
from tests.kept.application import STYLES, build
from tests.kept.making import KEY

HERE = Path(__file__).parent
KEPT = moment(1_767_600_000_000_000)  # later than everything in the files
EVENTS = {
    "EventRaised", "ExecutionStarted", "TaskCompleted", "TaskFailed", "SubOrchestrationCompleted",
    "SubOrchestrationFailed", "TimerFired", "EntityOperationCompleted", "EntityOperationFailed", "LockGranted",
    "ExecutionSuspended", "ExecutionResumed", "ExecutionParked", "ExecutionRewound", "TaskScheduled", "TaskCanceled",
    "SubOrchestrationCreated", "TimerCreated", "TimerCanceled", "EventAwaited", "WaitCanceled", "EventRejected",
    "EntityCalled", "EntitySignaled", "LockRequested", "LockReleased", "PatchMarked", "ExecutionCompleted",
    "ExecutionFailed", "ExecutionTerminated", "ContinuedAsNew", "EntityOperated",
}  # fmt: skip
UNSERVED = "queue:nowhere:unread"  # a message of a queue that the application does not have
EVERYTHING = InstanceFilter(kind="", top=1_000)
GO = ("Step", "Typed", "Go")


def encryption_of(name: str) -> Encryption | None:
    return Encryption.read(KEY) if name == "encrypted" else None


def opened(name: str, folder: Path) -> Any:
    file = folder / f"{name}.db"
    file.write_bytes(gzip.decompress((HERE / f"{name}.sqlite.gz").read_bytes()))
    return open_store(f"sqlite:///{file}", "kept", encryption_of(name))


@pytest.fixture(params=["plain", "encrypted", "memory", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """The kept database as it is, and moved to the other stores."""
    if request.param in ("plain", "encrypted"):
        return opened(request.param, tmp_path)
    url = "memory:" if request.param == "memory" else request.getfixturevalue("newest_url")
    moved = open_store(url, "kept", None)
    copy(opened("plain", tmp_path), moved)
    return moved


@asynccontextmanager
async def today(store: Any, **deploy: Any):
    app = build(**deploy)
    async with environment(app, store=store, start=KEPT) as env:
        yield env


def recordings() -> list[Any]:
    with gzip.open(HERE / "exports.jsonl.gz") as lines:
        return [read_recording(line) for line in lines if b'"events":[]' not in line]  # of what has begun


def test_every_type_of_event_is_in_the_kept_database(tmp_path: Path) -> None:
    store = opened("plain", tmp_path)
    store.open()
    kinds = set()
    for row in store.query(EVERYTHING):
        for execution_no in store.executions(row.instance_no):
            for one in store.history_of(row.instance_no, execution_no).history:
                kinds |= {type(event).__name__ for event in ev.decode_events(one.events)}
    store.close()

    assert kinds == EVENTS
    assert {kind.__name__ for kind in get_args(ev.HistoryEvent)} >= EVENTS


@pytest.mark.parametrize("name", ["plain", "encrypted"])
def test_a_kept_database_is_read_as_it_is_before_an_engine_opens_it(name: str, tmp_path: Path) -> None:
    read = opened(name, tmp_path)
    before = read.query(EVERYTHING)
    read.close_reader()
    store = opened(name, tmp_path)
    store.open()

    assert len(before) == 63
    assert {(row.replays, row.replay_reason) for row in before} == {(0, "")}
    assert before == store.query(EVERYTHING)
    store.close()


def test_what_is_kept_verifies(store: Any) -> None:
    store.open()
    report = verify(store)
    store.close()

    assert report.problems == []
    assert (report.instances, report.redacted, report.encrypted) == (63, 0, 0)


def test_every_exported_history_agrees_with_its_code() -> None:
    found = {one.instance_id: check_recording(one, build()) for one in recordings()}

    assert len(found) == 53
    assert [(name, verdict.detail) for name, verdict in found.items() if not verdict.agrees] == []


@pytest.mark.parametrize("style", STYLES)
def test_an_exported_history_disagrees_with_other_code(style: str) -> None:
    (one,) = [one for one in recordings() if one.instance_id == f"disagreeing-{style}"]

    assert check_recording(one, build(changed=True)).finding == "disagrees"


async def test_every_instance_that_was_open_is_driven_to_its_end(store: Any) -> None:
    async with today(store) as env:
        client = env.client
        await env.settled()
        before = {one.instance_id: one async for one in all_pages(client.query)}
        await env.advance(days=31)
        for _ in range(len(GO) + 1):
            async for one in all_pages(client.query):
                await _push(client, one)
            await env.advance(minutes=10)
        after = {one.instance_id: one async for one in all_pages(client.query)}
        ledger = await client.read_entity_state("@ledger@main")

    opened = {name for name, one in before.items() if not one.runtime_status.is_finished}
    left = {name: one.waiting_for for name, one in after.items() if not one.runtime_status.is_finished}
    assert set(left) == {"schedule:hourly", UNSERVED}
    assert {name for name in opened if after[name].runtime_status != "Completed"} == set(left)
    outputs = {name: after[name].output for name in after}
    for style in STYLES:
        assert outputs[f"everything-{style}"][-2:] == ["go on", 42]
        assert outputs[f"generations-{style}"] == [0, 1, 2, "go on"]
        assert outputs[f"rewound-{style}"] == [3, "go on"]
        assert outputs[f"disagreeing-{style}"] == [2, 1, 6]
        assert outputs[f"unserved-{style}"] == [1, 4]
        assert outputs[f"suspended-{style}"] == "held while suspended"
        assert outputs[f"retrying-{style}"] == 9
        assert outputs[f"working-{style}"] == 6
        assert outputs[f"section-{style}"] == [2, "go on"]
        assert outputs[f"parent-{style}"] == outputs[f"waiting-{style}"] == "go on"
        assert outputs[f"sleeping-{style}"] == "1"
    assert ledger.state == {"total": 1_044}


async def _push(client: Any, one: Any) -> None:
    """What an operator would do: resume what is suspended, raise what is waited for."""
    if one.runtime_status == RuntimeStatus.Suspended and one.instance_id != UNSERVED:
        await client.resume(one.instance_id)
        return  # what came meanwhile was held, and is delivered now
    for wait in one.waiting.events if one.waiting is not None else ():
        if wait.name in GO:
            await client.raise_event(one.instance_id, wait.name, 7 if wait.name == "Typed" else "go on")


@pytest.mark.parametrize("style", STYLES)
async def test_what_has_failed_can_still_be_rewound_and_what_has_finished_be_started_anew(
    store: Any, style: str
) -> None:
    async with today(store) as env:
        await env.client.rewind(f"failed-{style}")
        await env.client.raise_event(f"failed-{style}", "Go", "after all")
        rewound = await env.client.wait_for_completion(f"failed-{style}")
        await env.client.restart(f"generations-done-{style}", restart_with_new_instance_id=False)
        await env.settled()
        again = await env.client.get_status(f"generations-done-{style}")

    assert rewound.output == [3, "after all"]
    assert again.runtime_status == RuntimeStatus.Running


# ------------------------------------------------------------------------------------------- the hash chain


def chains() -> list[dict[str, Any]]:
    return json.loads((HERE / "chains.json").read_text())


@pytest.mark.parametrize("vector", chains(), ids=lambda vector: vector["name"])
def test_the_chain_is_what_it_was(vector: dict[str, Any]) -> None:
    salt, execution_no = bytes.fromhex(vector["salt"]), vector["execution"]
    head = hash_chain.base_of(salt, execution_no)
    assert head.hex() == vector["base"]
    for row in vector["rows"]:
        digest = hash_chain.digest_of(salt, bytes.fromhex(row["events"]))
        head = hash_chain.link(head, execution_no, row["episode"], row["at"], digest)
        assert (digest.hex(), head.hex()) == (row["digest"], row["hash"])


def test_each_member_of_a_row_is_in_its_hash() -> None:
    """Of two vectors that differ in one member, the last hashes differ: the vectors would notice a lost member."""
    last = [vector["rows"][-1]["hash"] for vector in chains() if vector["rows"]]

    assert len(set(last)) == len(last) == 9


def test_events_are_written_as_they_were(tmp_path: Path) -> None:
    """A row that is read and written again is the same row: its digest goes on to agree."""
    store = opened("plain", tmp_path)
    store.open()
    for row in store.query(EVERYTHING):
        for execution_no in store.executions(row.instance_no):
            for one in store.history_of(row.instance_no, execution_no).history:
                assert ev.encode_events(ev.decode_events(one.events)) == one.events
    store.close()


def test_the_exports_are_what_the_database_holds(tmp_path: Path) -> None:
    """Of what had begun; `working-…` were started after the export."""
    store = opened("plain", tmp_path)
    store.open()
    kept = {
        row.instance_id for row in store.query(EVERYTHING) if row.kind == "orchestration" and row.episodes
    }
    store.close()

    exported = {one.instance_id for one in recordings()}
    assert {name for name in kept if not name.startswith("working-")} == exported
    assert all(msgspec.to_builtins(one)["format"] == "perdure-history/1" for one in recordings())
