"""Encryption at rest: nothing readable in the file, or in another row; keys that change, keys that are wrong."""

import asyncio
import logging
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest

import perdure as df
from perdure.engine.upkeep.verification import verify
from perdure.errors import DecryptionFailed, ExtraMissing, SettingError, StoreInUse, WrongEncryptionKey
from perdure.model.encryption import MAGIC, Unreadable
from perdure.store import open_store
from perdure.store.column_encryption import SPOTS, Vault
from perdure.store.encryption import Encryption, new_key
from perdure.store.memory import MemoryStore
from perdure.store.port import Store
from perdure.store.sqlite.store import SqliteStore
from perdure.testing import environment
from perdure.testing.conformance import StoreConformance
from perdure.testing.transfer_suite import EVERYTHING, MovingConformance, everything_of

K1, K2 = new_key(), new_key()
FIRST = Encryption({"k1": K1})
BOTH = Encryption({"k2": K2, "k1": K1})
SECOND = Encryption({"k2": K2})
CANARY = "canary-7f3a"


class TestEncrypted(StoreConformance):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.path = tmp_path / "perdure.db"

    def make_store(self) -> Store:
        return SqliteStore(str(self.path), "claims", FIRST)


class TestEncryptedMoves(MovingConformance):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.path = tmp_path
        self.made = 0

    def make_store(self, hub: str = "claims") -> Store:
        self.made += 1
        return SqliteStore(str(self.path / f"{self.made}.db"), hub, FIRST)


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PERDURE_ENCRYPTION_KEYS", raising=False)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "perdure.db")


def app_of(encryption: Encryption | None) -> df.App:
    app = df.App("claims", encryption=encryption)

    @app.activity
    def echo(text: str) -> str:
        return f"{text} {CANARY}-result"

    @app.orchestrator
    async def coroutine(context: df.OrchestrationContext, text: str) -> Any:
        context.set_custom_status(f"{CANARY}-status")
        said = await context.call_activity(echo, text)
        asked = context.human_task("Go", title=f"{CANARY}-title", facts={"fact": f"{CANARY}-fact"})
        return [said, await asked]

    @app.orchestrator
    def generator(context: df.OrchestrationContext):  # type: ignore[no-untyped-def]
        context.set_custom_status(f"{CANARY}-status")
        said = yield context.call_activity("echo", context.get_input())
        return [said, (yield context.wait_for_external_event("Go"))]

    @app.orchestrator
    async def broken(context: df.OrchestrationContext) -> None:
        raise ValueError(f"{CANARY}-failure")

    @app.entity
    def note(context: df.EntityContext) -> None:
        context.set_state(context.get_input())

    return app


async def fill(path: str, encryption: Encryption | None, prefix: str = "") -> None:
    """Instances in both styles, small and large, failed, suspended with mail, delayed, and an entity."""
    async with environment(app_of(encryption), store=path) as env:
        client = env.client
        for style in ("coroutine", "generator"):
            await client.start_new(style, f"{prefix}{style}", f"{CANARY}-input")
        await client.start_new("coroutine", f"{prefix}large", CANARY * 5_000)
        await client.start_new("broken", f"{prefix}broken")
        await client.start_new(
            "generator", f"{prefix}later", f"{CANARY}-later", start_at=env.now + timedelta(days=9)
        )
        await env.settled()
        await client.suspend(f"{prefix}generator")
        await client.raise_event(f"{prefix}generator", "Go", f"{CANARY}-event", event_id=f"{prefix}e1")
        await client.signal_entity(df.EntityId("note", f"{prefix}n"), "put", f"{CANARY}-state")
        await client.raise_event(f"{prefix}coroutine", "Go", f"{CANARY}-event")
        await client.wait_for_completion(f"{prefix}coroutine")
        await client.create_key("ops", ["read"])
        await env.settled()


async def finish(path: str, encryption: Encryption | None, prefix: str = "") -> None:
    """What was in flight goes on, from what is stored alone."""
    async with environment(app_of(encryption), store=path) as env:
        await env.client.resume(f"{prefix}generator")
        await env.client.raise_event(f"{prefix}large", "Go", 1)
        done = await env.client.wait_for_completion(f"{prefix}generator")
        assert done.output == [f"{CANARY}-input {CANARY}-result", f"{CANARY}-event"]
        large = await env.client.wait_for_completion(f"{prefix}large")
        assert large.output == [f"{CANARY * 5_000} {CANARY}-result", 1]
        kept = await env.client.read_entity_state(df.EntityId("note", f"{prefix}n"))
        assert kept.state == f"{CANARY}-state"
        later = await env.client.get_status(f"{prefix}later", show_input=True)
        assert later is not None and later.runtime_status.value == "Pending"


def found_in(directory: Path) -> list[str]:
    """The files with the canary in them; read by another process, because this one's engine has them open."""
    code = "import pathlib, sys; [print(f.name) for f in sorted(pathlib.Path(sys.argv[1]).iterdir()) "
    code += "if sys.argv[2].encode() in f.read_bytes()]"
    told = subprocess.run(
        [sys.executable, "-c", code, str(directory), CANARY], capture_output=True, check=True
    )
    return told.stdout.decode().split()


def change(path: str, *statements: str) -> None:
    connection = apsw.Connection(path)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def rows_of(path: str) -> dict[str, list[bytes]]:
    connection = apsw.Connection(path)
    found = {
        spot.name: [
            cell
            for (cell,) in connection.execute(f"select {spot.column} from {spot.table}")
            if cell is not None
        ]
        for spot in SPOTS
    }
    connection.close()
    return found


def key_ids(path: str) -> set[bytes]:
    """The ids of the keys in use, b"" for plain."""
    ids = set()
    for cells in rows_of(path).values():
        for cell in cells:
            at = len(MAGIC) + 1
            ids.add(cell[at : at + cell[at - 1]] if cell.startswith(MAGIC) else b"")
    return ids


def problems(path: str, encryption: Encryption | None) -> list[str]:
    return verify(open_store(path, "claims", encryption)).problems


# ------------------------------------------------------------------------------------------- nothing leaks


async def test_nothing_that_users_say_is_in_the_file_its_log_or_a_backup(path: str, tmp_path: Path) -> None:
    await fill(path, None)
    assert found_in(tmp_path) == ["perdure.db"]  # the search finds it where it is
    os.unlink(path)

    async with environment(app_of(FIRST), store=path) as env:
        await env.client.start_new("coroutine", "during", f"{CANARY}-input")
        await env.settled()
        assert os.stat(path + "-wal").st_size > 0
        assert found_in(tmp_path) == []
    await fill(path, FIRST)
    df.backup(path, tmp_path / "copy.db", encryption=FIRST)
    assert found_in(tmp_path) == []
    assert all(cell.startswith(MAGIC) for cells in rows_of(path).values() for cell in cells)
    assert min(map(len, rows_of(path).values())) > 0 or {
        name for name, cells in rows_of(path).items() if not cells
    } == {"dropped.body"}
    assert problems(path, FIRST) == []
    await finish(path, FIRST)
    assert problems(path, FIRST) == []


async def test_equal_contents_are_not_equal_in_the_file(path: str) -> None:
    await fill(path, FIRST)
    cells = [cell for cells in rows_of(path).values() for cell in cells]
    assert len(set(cells)) == len(cells)


async def test_a_backup_is_served_with_the_same_keys(path: str, tmp_path: Path) -> None:
    await fill(path, FIRST)
    made = df.backup(path, tmp_path / "copy.db")  # also without keys: order and chain are checked then
    assert made.hubs["claims"].encrypted > 0
    await finish(str(tmp_path / "copy.db"), FIRST)


# --------------------------------------------------------------------------------------- wrong and missing keys


@pytest.mark.parametrize("wrong", [None, SECOND, Encryption({"k1": K2}), Encryption({"k2": K2, "k1": K2})])
async def test_without_the_right_key_nothing_is_opened_for_writing(
    path: str, wrong: Encryption | None
) -> None:
    await fill(path, FIRST)
    before = rows_of(path)
    with pytest.raises(WrongEncryptionKey, match=r"'k1'.*Nothing was changed"):
        async with app_of(wrong).running(store=path):
            pass
    assert rows_of(path) == before
    await finish(path, FIRST)


async def test_without_a_key_status_and_list_work_and_say_what_is_encrypted(path: str) -> None:
    from perdure.cli.target import StoreReader
    from perdure.engine.client.client import Client

    await fill(path, FIRST)
    client = Client(StoreReader(open_store(path, "claims")))
    done = await client.get_status("coroutine", show_input=True)
    assert done is not None
    assert (done.input, done.output, done.custom_status) == ("<encrypted>",) * 3
    assert done.runtime_status.value == "Completed"
    going = await client.get_status("large")
    assert going is not None and going.output is None
    assert going.waiting_for.startswith("waiting for the event 'Go'")
    listed = (await client.query(top=9)).instances
    assert {one.output for one in listed if one.completed_time} == {"<encrypted>"}
    entity = await client.read_entity_state(df.EntityId("note", "n"))
    assert entity.state == "<encrypted>"
    with pytest.raises(DecryptionFailed, match=r"history of instance 'coroutine'.*PERDURE_ENCRYPTION_KEYS"):
        await client.get_status("coroutine", show_history=True)
    report = verify(open_store(path, "claims"))
    assert report.problems == [] and report.encrypted == report.rows


async def test_a_wrong_key_is_refused_for_reading_too(path: str) -> None:
    await fill(path, FIRST)
    with pytest.raises(WrongEncryptionKey, match="'k1'"):
        open_store(path, "claims", Encryption({"k1": K2})).counts()


def test_keys_that_are_none() -> None:
    for keys in ({}, {"k": "short"}, {"k": b"x" * 31}, {"a b": K1}, {"": K1}, {"k": "é" * 44}):
        with pytest.raises(SettingError):
            Encryption(keys)
    with pytest.raises(SettingError, match="'k3' is not among"):
        Encryption({"k1": K1}, current="k3")
    assert K1 not in repr(FIRST) + str(FIRST)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(ExtraMissing, match=r"perdure\[crypto\]"):
        Encryption({"k1": K1})


async def test_the_variable_comes_before_the_application(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERDURE_ENCRYPTION_KEYS", f"k2:{K2}, k1:{K1}")
    async with app_of(FIRST).running(store=path) as client:
        await client.start_new("broken", "b")
        await client.wait_for_completion("b", 10)
    assert key_ids(path) == {b"k2"}


# ------------------------------------------------------------------------------------------- changed rows


def flip(path: str, table: str, column: str, where: str) -> None:
    connection = apsw.Connection(path)
    [(rowid, cell)] = connection.execute(f"select rowid, {column} from {table} where {where}").fetchall()
    changed = cell[:-1] + bytes([cell[-1] ^ 1])
    connection.execute(f"update {table} set {column} = ? where rowid = ?", (changed, rowid))
    connection.close()


def number_of(path: str, instance_id: str) -> int:
    connection = apsw.Connection(path)
    [(number,)] = connection.execute(
        "select instance_no from instances where instance_id = ?", (instance_id,)
    )
    connection.close()
    return int(number)


async def test_every_flipped_bit_of_a_row_is_noticed() -> None:
    stored = FIRST.encrypt(b"approved", b"bound")
    assert FIRST.decrypt(stored, b"bound") == b"approved"
    for bit in range(len(stored) * 8):
        changed = bytearray(stored)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises((ValueError, KeyError)):
            FIRST.decrypt(bytes(changed), b"bound")
    for cut in range(len(stored)):
        with pytest.raises((ValueError, KeyError)):
            FIRST.decrypt(stored[:cut], b"bound")


async def test_not_even_the_mark_of_encrypted_rows_can_be_changed_unnoticed(path: str) -> None:
    await fill(path, FIRST)
    connection = apsw.Connection(path)
    for bit in range(8):
        for spot in SPOTS[1:-1]:
            number = "wait_id" if spot.table == "waits" else "rowid"
            found = connection.execute(f"select {number}, {spot.column} from {spot.table} limit 1").fetchall()
            for rowid, cell in found:
                if cell is not None:
                    changed = bytes([cell[0] ^ 1 << bit]) + cell[1:]
                    row = (rowid,) * 12
                    assert isinstance(Vault("claims", FIRST).open_cell(spot, changed, row), Unreadable)
    connection.close()


async def test_a_changed_row_parks_its_instance_with_the_reason_and_nobody_else(path: str) -> None:
    await fill(path, FIRST)
    number = number_of(path, "large")
    flip(path, "history", "events", f"instance_no = {number} and episode = 1")
    [problem] = problems(path, FIRST)
    assert problem.startswith("large execution 1: history.events of instance_no")
    assert f"instance_no {number}, execution_no 1, episode 1 cannot be decrypted" in problem
    async with environment(app_of(FIRST), store=path) as env:
        with pytest.raises(DecryptionFailed, match="'large'"):
            await env.client.get_status("large", show_history=True)
        await env.client.raise_event("large", "Go", 1)
        await env.settled()
        parked = await env.client.get_status("large")
        assert parked is not None and parked.runtime_status.value == "Suspended"
        assert f"history.events of instance_no {number}" in parked.reason
        await env.client.resume("generator")
        assert (await env.client.wait_for_completion("generator")).output[1] == f"{CANARY}-event"


@pytest.mark.parametrize("table", ["history", "payloads"])
async def test_rows_cannot_change_places(path: str, table: str) -> None:
    await fill(path, FIRST)
    await fill(path, FIRST, "b-")
    a, b = number_of(path, "large"), number_of(path, "b-large")
    column = "events" if table == "history" else "body"
    change(
        path,
        f"create temp table kept as select * from {table} where instance_no = {a} and episode = 0;"
        f"update {table} set {column} = (select {column} from {table} where instance_no = {b} and episode = 0)"
        f" where instance_no = {a} and episode = 0",
    )
    [problem, *_] = problems(path, FIRST)
    assert problem.startswith("large execution 1: ") and "belong to another row" in problem


async def test_a_changed_message_stays_and_stops_nobody(path: str, caplog: pytest.LogCaptureFixture) -> None:
    await fill(path, FIRST)
    flip(path, "inbox", "message", "instance_id = 'later'")
    with caplog.at_level(logging.ERROR, "perdure.store"):
        async with environment(app_of(FIRST), store=path) as env:
            await env.advance(days=10)
            await env.client.resume("generator")
            await env.client.wait_for_completion("generator")
            later = await env.client.get_status("later")
            assert later is not None and later.runtime_status.value == "Pending"
    told = [record.getMessage() for record in caplog.records if "later" in record.getMessage()]
    assert len(told) == 1 and "inbox.message of message_no" in told[0]


async def test_a_changed_entity_state_is_never_overwritten(path: str) -> None:
    await fill(path, FIRST)
    flip(path, "state", "entity_state", "entity_state is not null")
    before = rows_of(path)["state.entity_state"]
    async with environment(app_of(FIRST), store=path) as env:
        with pytest.raises(df.OutcomeUnknown, match=r"state\.entity_state of instance_no"):
            await env.client.signal_entity(df.EntityId("note", "n"), "put", 1)
        shown = await env.client.read_entity_state(df.EntityId("note", "n"))
        assert shown.state == "<cannot be decrypted>"
        await env.client.resume("generator")
        await env.client.wait_for_completion("generator")
    assert rows_of(path)["state.entity_state"] == before


async def test_a_changed_salt_is_reported_and_parks(path: str) -> None:
    await fill(path, FIRST)
    flip(path, "instances", "salt", "instance_id = 'large'")
    assert any(p.startswith("large ") and "instances.salt" in p for p in problems(path, FIRST))
    async with environment(app_of(FIRST), store=path) as env:
        await env.client.raise_event("large", "Go", 1)
        await env.settled()
        parked = await env.client.get_status("large")
        assert parked is not None and "instances.salt" in parked.reason


# ----------------------------------------------------------------------------------------- mixed, and rotation


async def test_what_is_plain_stays_readable_when_encryption_begins(path: str) -> None:
    await fill(path, None)
    assert key_ids(path) == {b""}
    await fill(path, FIRST, "b-")
    assert key_ids(path) == {b"", b"k1"}
    assert problems(path, FIRST) == []
    await finish(path, FIRST)
    await finish(path, FIRST, "b-")
    assert problems(path, FIRST) == []


async def test_keys_rotate_and_the_chain_stays(path: str, tmp_path: Path) -> None:
    await fill(path, None)
    await fill(path, FIRST, "b-")
    await fill(path, BOTH, "c-")
    assert key_ids(path) == {b"", b"k1", b"k2"}
    chain = "select instance_no, execution_no, episode, digest, hash from history order by 1, 2, 3"
    before = apsw.Connection(path).execute(chain).fetchall()
    with pytest.raises(WrongEncryptionKey):
        await asyncio.to_thread(df.rekey, path, encryption=SECOND)
    told: list[Any] = []
    done = df.rekey(path, encryption=BOTH, vacuum=True, progress=lambda *said: told.append(said))
    assert done.key == "k2" and done.unreadable == [] and 0 < done.plain < done.rows
    assert told[-1][1] == told[-1][2]
    assert key_ids(path) == {b"k2"}
    assert found_in(tmp_path) == []  # not in free space either
    assert apsw.Connection(path).execute(chain).fetchall() == before
    assert problems(path, SECOND) == []
    assert df.rekey(path, encryption=SECOND).rows == 0
    for prefix in ("", "b-", "c-"):
        await finish(path, SECOND, prefix)
    with pytest.raises(WrongEncryptionKey, match="'k2'"):
        open_store(path, "claims", FIRST).open()


async def test_a_store_that_is_served_is_not_rekeyed(path: str) -> None:
    async with app_of(FIRST).running(store=path):
        with pytest.raises(StoreInUse):
            await asyncio.to_thread(df.rekey, path, encryption=BOTH)
    with pytest.raises(SettingError, match="PERDURE_ENCRYPTION_KEYS"):
        df.rekey(path)


class Crash(BaseException):
    pass


@pytest.mark.parametrize("pages", [1, 2, 4, 7])
async def test_a_rekey_that_is_cut_off_goes_on(path: str, pages: int) -> None:
    await fill(path, FIRST)
    left = [pages]

    def cut(*_: object) -> None:
        left[0] -= 1
        if not left[0]:
            raise Crash

    with pytest.raises(Crash):
        df.rekey(path, encryption=BOTH, progress=cut)
    assert key_ids(path) == {b"k1", b"k2"}
    assert problems(path, BOTH) == []
    with pytest.raises(WrongEncryptionKey, match="'k1'"):  # still needed
        open_store(path, "claims", SECOND).open()
    df.rekey(path, encryption=BOTH)
    assert key_ids(path) == {b"k2"}
    await finish(path, SECOND)


async def test_what_cannot_be_decrypted_is_told_and_keeps_the_old_key(path: str) -> None:
    await fill(path, FIRST)
    flip(path, "history", "events", f"instance_no = {number_of(path, 'large')} and episode = 1")
    done = df.rekey(path, encryption=BOTH)
    assert len(done.unreadable) == 1 and "history.events" in done.unreadable[0]
    with pytest.raises(WrongEncryptionKey, match="'k1'"):
        open_store(path, "claims", SECOND).open()
    open_store(path, "claims", BOTH).open()


# ----------------------------------------------------------------------------------------------- copies


@pytest.mark.parametrize("source", [None, FIRST])
@pytest.mark.parametrize("plain", [False, True])
async def test_a_copy_is_encrypted_anew_or_plain_as_is_said(
    path: str, tmp_path: Path, source: Encryption | None, plain: bool
) -> None:
    await fill(path, source)
    copy = str(tmp_path / "copy.db")
    made = df.copy(path, copy, encryption=BOTH, plain=plain)
    assert made.report.problems == []
    assert key_ids(copy) == ({b""} if plain else {b"k2"})
    await finish(copy, None if plain else SECOND)


async def test_an_encrypted_store_is_not_copied_without_its_key(path: str, tmp_path: Path) -> None:
    await fill(path, FIRST)
    with pytest.raises(WrongEncryptionKey):
        df.copy(path, str(tmp_path / "copy.db"))


def test_an_unreadable_row_is_not_exported(path: str) -> None:
    store = SqliteStore(path, "claims", FIRST)
    store.open()
    store.commit(EVERYTHING)
    memory = MemoryStore("claims")
    memory.open()
    memory.commit(EVERYTHING)
    assert everything_of(store) == everything_of(memory)
    store.close()
    flip(path, "state", "entity_state", "instance_no = 9")
    store.open()
    with pytest.raises(DecryptionFailed, match="state.entity_state of instance_no 9"):
        everything_of(store)
    store.close()


def test_what_is_decrypted_in_another_hub_of_the_file_is_its_own(path: str) -> None:
    """Hubs of one file have keys of their own."""
    for hub, keys in (("claims", FIRST), ("other", SECOND), ("third", None)):
        store = SqliteStore(path, hub, keys)
        numbers = store.open()
        assert numbers.next_instance_no >= 1
        store.close()
    for hub, keys in (("claims", SECOND), ("other", FIRST)):
        with pytest.raises(WrongEncryptionKey):
            SqliteStore(path, hub, keys).open()


def test_the_salt_of_a_key_changes_before_it_is_worn_out() -> None:
    own = Encryption({"k1": K1})
    own._left = 1
    first, second = own.encrypt(b"a", b""), own.encrypt(b"a", b"")
    at = len(own.prefix)
    assert first[at : at + 16] != second[at : at + 16]
    assert [FIRST.decrypt(one, b"") for one in (first, second)] == [b"a", b"a"]
