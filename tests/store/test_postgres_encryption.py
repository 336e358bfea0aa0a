"""Encryption at rest in PostgreSQL: nothing readable in any table, placed activities included; keys change."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import perdure as df
from perdure.errors import StoreInUse, WrongEncryptionKey
from perdure.model.encryption import MAGIC
from perdure.model.records import Batch, BodyRow, DroppedRow, SeenRow
from perdure.store.encryption import Encryption, new_key
from perdure.store.port import SharedStore, Store
from perdure.store.sqlite.store import SqliteStore
from perdure.store.transfer import transfer
from perdure.testing.conformance import StoreConformance, episode, instance, key, wait
from perdure.testing.shared_store_suite import ALL, NAMES, SharedStoreConformance, activity, profile, result
from perdure.testing.transfer_suite import EVERYTHING, MovingConformance, everything_of
from tests.store.conftest import Place

K1, K2 = new_key(), new_key()
FIRST = Encryption({"k1": K1})
BOTH = Encryption({"k2": K2, "k1": K1})
SECOND = Encryption({"k2": K2})
CANARY = b"canary-7f3a"


class TestEncrypted(StoreConformance):
    @pytest.fixture(autouse=True)
    def _place(self, newest_place: Place) -> None:
        self.place = newest_place

    def make_store(self) -> Store:
        return self.place.store(cipher=FIRST)


class TestEncryptedShared(SharedStoreConformance):
    @pytest.fixture(autouse=True)
    def _place(self, newest_place: Place) -> None:
        self.place = newest_place

    def make_stores(self) -> Callable[[], SharedStore]:
        return lambda: self.place.store(cipher=FIRST)


class TestEncryptedMoves(MovingConformance):
    @pytest.fixture(autouse=True)
    def _place(self, newest_place: Place) -> None:
        self.place = newest_place

    def make_store(self, hub: str = "claims") -> Store:
        return self.place.another().store(cipher=FIRST)


def cells(place: Place) -> dict[str, list[bytes]]:
    """All binary cells of the hub by table and column, but for digests and hashes."""
    found: dict[str, list[bytes]] = {}
    with psycopg.connect(place.url) as connection:
        columns = connection.execute(
            "select table_name::text, column_name::text from information_schema.columns "
            "where table_schema = 'perdure' and data_type = 'bytea' and column_name not in ('digest', 'hash', 'head')"
        ).fetchall()
        for table, column in columns:
            rows = connection.execute(
                f"select {column} from perdure.{table} t join perdure.hubs h using (hub_no) "
                f"where h.name = %s and {column} is not null",
                (place.hub,),
            ).fetchall()
            found[f"{table}.{column}"] = [bytes(row[0]) for row in rows]
    return found


def key_ids(place: Place) -> set[bytes]:
    """Of all that is encrypted; b"" for what is not. Proofs, schemas of waits and counts are left out."""
    at = len(MAGIC)
    return {
        cell[at + 1 : at + 1 + cell[at]] if cell.startswith(MAGIC) else b""
        for where, of in cells(place).items()
        if where not in ("encryption.proof", "waits.schema", "ring.value")
        for cell in of
    }


def fill(place: Place, cipher: Encryption | None, first: int = 1) -> None:
    """Something of every kind, an activity for others with it, and the result of another."""
    store = place.store(cipher=cipher)
    store.register(profile("one"))
    no = store.open().next_message_no
    said = b'{"said":"%s"}' % CANARY
    name = f"claim-{first}"
    store.commit(
        Batch(
            1,
            new_instances=[instance(first), instance(first + 1, f"@counter@{first}", kind="entity")],
            history=[episode(first, events=said)],
            bodies=[BodyRow(first, 0, 0, 0, said)],
            custom_status=[(first, said)],
            waits_opened=[wait(first, 1)._replace(task=said)],
            entity_states=[(first + 1, said)],
            seen=[SeenRow(f"op-{first}", name, said, 10**16)],
            dropped=[DroppedRow(name, 5, "event", "E", "", "gone", said)],
            keys=[key(f"k-{first}", secret=CANARY)],
            activities_placed=[activity(1, name, invocation=said), activity(2, name, invocation=said)],
        )
    )
    [claimed] = store.claim([""], NAMES, 1)
    assert claimed.invocation == said
    store.commit(Batch(2, results=[result(claimed, no, message=said)]))
    store.take(ALL)
    assert store.poll(9, 0, 99).messages[-1].message == said
    store.close()


def test_nothing_that_users_say_is_in_any_table(place: Place) -> None:
    fill(place, FIRST)
    found = cells(place)
    assert {where for where, of in found.items() if not of} == {"ring.value"}
    assert key_ids(place) == {b"k1"}
    assert not any(CANARY in cell for of in found.values() for cell in of)


def test_keys_rotate_and_plain_rows_are_encrypted(newest_place: Place) -> None:
    fill(newest_place, None)
    fill(newest_place, FIRST, 10)
    fill(newest_place, BOTH, 20)
    assert key_ids(newest_place) == {b"", b"k1", b"k2"}
    told: list[Any] = []
    done = df.rekey(
        newest_place.url,
        hub=newest_place.hub,
        encryption=BOTH,
        vacuum=True,
        progress=lambda *said: told.append(said),
    )
    assert done.unreadable == []
    assert 0 < done.plain < done.rows
    assert done.hubs[newest_place.hub]["activities"] == 4
    assert told[-1][1] == told[-1][2]
    assert key_ids(newest_place) == {b"k2"}
    store = newest_place.store(cipher=SECOND)
    store.register(profile("two"))
    store.open()
    assert [row.invocation.count(CANARY) for row in store.claim([""], NAMES, 9)] == [1, 1, 1]
    store.close()
    with pytest.raises(WrongEncryptionKey, match="'k2'"):
        newest_place.store(cipher=FIRST).open()
    assert df.rekey(newest_place.url, hub=newest_place.hub, encryption=SECOND).rows == 0


def test_without_the_right_keys_nothing_is_opened_for_writing(newest_place: Place) -> None:
    fill(newest_place, FIRST)
    wrong = Encryption({"k1": new_key()})
    for cipher in (None, SECOND, wrong):
        store = newest_place.store(cipher=cipher)
        with pytest.raises(WrongEncryptionKey):
            store.open()
        store.close()
    reader = newest_place.store(cipher=wrong)
    with pytest.raises(WrongEncryptionKey):
        reader.get("claim-1")
    reader.close()
    reader = newest_place.store()
    found = reader.get("claim-1", history=True)
    assert found is not None
    assert found.row.status == "Running"
    assert CANARY not in found.history[0].events
    reader.close()


def test_a_hub_that_is_served_is_not_rekeyed(newest_place: Place) -> None:
    store = newest_place.store(cipher=FIRST)
    store.register(profile("one"))
    store.open()
    with pytest.raises(StoreInUse):
        df.rekey(newest_place.url, hub=newest_place.hub, encryption=BOTH)
    store.close()


def test_a_copy_is_encrypted_anew_or_plain_as_is_said(newest_place: Place, tmp_path: Any) -> None:
    source = SqliteStore(str(tmp_path / "source.db"), newest_place.hub)
    source.open()
    source.commit(EVERYTHING)
    rows = everything_of(source)
    source.close()
    store, back = newest_place.store(cipher=FIRST), SqliteStore(str(tmp_path / "back.db"), newest_place.hub)
    source.open()
    store.open()
    back.open()
    transfer(source, store)
    assert key_ids(newest_place) == {b"k1"}
    transfer(store, back)
    assert everything_of(back) == rows
    for one in (source, store, back):
        one.close()
