"""The log in Azure Storage, over Azurite: the port's contract, every promise of a store, and requests by hand."""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from perdure.errors import StoreError, StoreInUse, StoreUnusable
from perdure.store.encryption import Encryption
from perdure.store.log.account import account_of
from perdure.store.log.appending import Patience
from perdure.store.log.azure import AzureLog, AzureService, table_name
from perdure.store.log.copying import write_copy
from perdure.store.log.port import LARGEST, Missing, Moved, Trimmed, Unknown
from perdure.store.log.requests import Answer, Requests
from perdure.store.log.store import LogStore, Terms, at_once
from perdure.store.port import Store
from perdure.testing.conformance import StoreConformance
from perdure.testing.transfer_suite import MovingConformance
from tests.store.log.azurite import account_at, azurite
from tests.store.log.rig import contents, numbers, start

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("azurite")]
CIPHER = Encryption({"k1": bytes(range(32))})
_numbers = count()


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with azurite(tmp_path_factory.mktemp("azurite")) as found:
        yield found


@pytest.fixture
def service(connection: str) -> Iterator[AzureService]:
    found = AzureService(account_at(connection), f"hub{next(_numbers)}")
    yield found
    found.close()


class _OnAzurite:
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path, connection: str) -> None:
        self.path, self.account = tmp_path, account_at(connection)
        self.hub = f"hub{next(_numbers)}"


class TestAzure(_OnAzurite, StoreConformance):
    def make_store(self) -> Store:
        service = AzureService(self.account, self.hub)
        return LogStore(service, "claims", directory=str(self.path))


class TestEncrypted(_OnAzurite, StoreConformance):
    def make_store(self) -> Store:
        service = AzureService(self.account, self.hub)
        return LogStore(service, "claims", CIPHER, directory=str(self.path))


class TestMoves(_OnAzurite, MovingConformance):
    def make_store(self, hub: str = "claims") -> Store:
        service = AzureService(self.account, f"hub{next(_numbers)}")
        return LogStore(service, hub, directory=str(self.path))


# -------------------------------------------------------------------------------------------- the port's contract


def test_a_log_that_does_not_exist_is_missing(service: AzureService) -> None:
    log = service.log()
    assert not service.exists()
    with pytest.raises(Missing):
        log.head()
    log.create()
    log.create()
    assert service.exists()
    assert log.head()[:2] == (0, b"")
    assert log.read(0) == ([], 0)
    log.close()


@pytest.mark.parametrize("size", [0, 1, 64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1, 655_360, 655_361, LARGEST])
def test_records_of_all_sizes(service: AzureService, size: int) -> None:
    log = service.log()
    log.create()
    log.head()
    record = os.urandom(size)
    assert log.append(0, record, b"me") == 1
    assert log.append(1, b"next") == 2
    records, end = log.read(0)
    assert [found.content for found in records] == [record, b"next"]
    assert end == 2
    assert log.head()[:2] == (2, b"me")
    log.close()


def test_of_many_at_one_position_exactly_one_wins(service: AzureService) -> None:
    first = service.log()
    first.create()
    won: list[int] = []
    logs = [service.log() for _ in range(6)]
    for log in logs:
        log.head()

    def race(no: int) -> None:
        try:
            logs[no].append(0, f"{no}".encode())
            won.append(no)
        except Moved:
            pass

    threads = [threading.Thread(target=race, args=(no,)) for no in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert first.read(0)[0][0].content == f"{won[0]}".encode()
    for log in (first, *logs):
        log.close()


def test_a_sleeper_appends_nothing_where_the_log_was_trimmed(service: AzureService) -> None:
    sleeper, other = service.log(), service.log()
    sleeper.create()
    sleeper.head()
    other.head()
    for no in range(5):
        other.append(no, b"x")
    other.trim(4)
    with pytest.raises(Moved):
        sleeper.append(0, b"late")
    with pytest.raises(Trimmed):
        sleeper.read(0)
    assert len(sleeper.read(4)[0]) == 1
    sleeper.close()
    other.close()


def test_a_renewal_by_another_moves_the_head(service: AzureService) -> None:
    one, other = service.log(), service.log()
    one.create()
    one.head()
    other.head()
    other.touch(0, b"other")
    with pytest.raises(Moved):
        one.append(0, b"x")
    assert one.head().holder == b"other"
    assert 0 <= one.head().age < 60
    one.close()
    other.close()


def test_more_records_than_a_page_are_read_in_order(service: AzureService) -> None:
    log = service.log()
    log.create()
    log.head()
    for no in range(1_100):
        log.append(no, b"%d" % no)
    found: list[bytes] = []
    while True:
        records, end = log.read(len(found))
        found += [record.content for record in records]
        if len(found) >= end:
            break
    assert found == [b"%d" % no for no in range(1_100)]
    log.trim(1_050)
    with pytest.raises(Trimmed):
        log.read(1_049)
    assert len(log.read(1_050)[0]) == 50
    log.close()


def test_the_document_changes_by_its_tag(service: AzureService) -> None:
    about = service.about()
    assert about.read() is None
    tag = about.write(b"one", None)
    with pytest.raises(Moved):
        about.write(b"two", None)
    assert about.read() == (b"one", tag)
    about.write(b"three", tag)
    with pytest.raises(Moved):
        about.write(b"four", tag)


def test_blobs(service: AzureService) -> None:
    log, blobs = service.log(), service.blobs()
    log.create()
    blobs.put("bodies/2", b"two")
    blobs.put("bodies/1", b"one")
    blobs.put("snapshots/1", b"s")
    assert blobs.names("bodies/") == ["bodies/1", "bodies/2"]
    assert len(blobs.names("")) == 3
    assert blobs.get("bodies/2") == b"two"
    blobs.delete(["bodies/1", "bodies/9"])
    with pytest.raises(Missing):
        blobs.get("bodies/1")
    log.close()


def test_a_commit_is_one_request(
    service: AzureService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LogStore(service, "claims", directory=str(tmp_path))
    store.open()
    asked: list[str] = []
    log = store._appender.log
    real = log._requests.ask  # type: ignore[attr-defined]
    monkeypatch.setattr(log._requests, "ask", lambda *given: (asked.append(given[1]), real(*given))[1])  # type: ignore[attr-defined]
    store.commit(start(1))
    assert asked == ["$batch"]
    store.close()


class Unlucky:
    """Requests that are cut, answered by nobody, or delivered after the next one. Commits only."""

    def __init__(self, requests: Requests, seed: int) -> None:
        self._real, self._chance = requests.ask, random.Random(seed)
        self._late: list[tuple[Any, ...]] = []
        self.fates: Counter[str] = Counter()

    def ask(self, *given: Any) -> Answer:
        if given[1] != "$batch":
            return self._real(*given)
        fate = self._chance.choice(("done", "done", "cut", "unanswered", "late"))
        self.fates[fate] += 1
        late, self._late = self._late, []
        try:
            if fate == "done":
                return self._real(*given)
            if fate == "unanswered":
                self._real(*given)
            if fate == "late":
                self._late = [given]
        finally:
            for request in late:
                self._real(*request)
        raise Unknown(fate)


@pytest.mark.parametrize("seed", range(2))
def test_commits_whose_requests_go_astray_are_there_once(
    service: AzureService, tmp_path: Path, seed: int
) -> None:
    patience = Patience(60.0, lambda: 0.0, lambda _: None)
    store = LogStore(service, "claims", directory=str(tmp_path / "a"), patience=patience, aside=at_once)
    store.open()
    log = store._appender.log
    assert isinstance(log, AzureLog)
    unlucky = Unlucky(log._requests, seed)
    log._requests.ask = unlucky.ask  # type: ignore[method-assign]
    for number in range(1, 61):
        store.commit(start(number))
    assert min(unlucky.fates.values()) > 5
    reader = service.log()
    assert reader.read(0)[1] == 61
    reader.close()
    copy = str(tmp_path / "copy.db")
    write_copy(service, "claims", copy)
    assert contents(store.location) == contents(copy)
    store.close()


def test_a_snapshot_and_a_takeover(connection: str, tmp_path: Path) -> None:
    name = f"hub{next(_numbers)}"

    def engine(machine: str) -> LogStore:
        service = AzureService(account_at(connection), name)
        terms = Terms(lease=3_600)  # it must not run out on a slow machine
        return LogStore(service, "claims", directory=str(tmp_path / machine), terms=terms, aside=at_once)

    first = engine("a")
    first.open()
    for number in range(1, 31):
        first.commit(start(number))
        if number % 10 == 0:
            first.save()
    second = engine("b")
    second._has_opened = True  # as one that was fenced: it does not wait
    with pytest.raises(StoreInUse, match="holds azure:devstoreaccount1"):
        second.open()
    second.close()
    first.close()
    third = engine("c")
    third.open()
    assert numbers(third) == list(range(1, 31))
    third.commit(start(31))
    with pytest.raises(StoreError):
        first.commit(start(99))
    third.close()


# ------------------------------------------------------------------------------------------------- bad input


def test_a_wrong_key_says_so(connection: str) -> None:
    wrong = connection.replace("AccountKey=", "AccountKey=AAAA")
    service = AzureService(account_at(wrong), "hub")
    with pytest.raises(StoreUnusable, match="the account key or the signature is wrong"):
        service.exists()
    service.close()


def test_no_service_at_all_is_unknown() -> None:
    account = account_of(
        {
            "AzureWebJobsStorage": "AccountName=a;AccountKey=AAAA;TableEndpoint=http://127.0.0.1:1/a;"
            "BlobEndpoint=http://127.0.0.1:1/a"
        }
    )
    with pytest.raises(Unknown, match="127.0.0.1:1"):
        AzureService(account, "hub").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "needs the setting AzureWebJobsStorage"),
        ({"AzureWebJobsStorage": "nonsense"}, "is no connection string"),
        ({"AzureWebJobsStorage": "AccountName=a"}, "no valid AccountKey"),
        ({"AzureWebJobsStorage": "AccountName=a;AccountKey=?"}, "no valid AccountKey"),
        ({"AzureWebJobsStorage": "AccountKey=AAAA"}, "names no account"),
        ({"AzureWebJobsStorage__tableServiceUri": "https://a"}, "are needed both"),
    ],
)
def test_settings_that_name_no_account(settings: dict[str, str], said: str) -> None:
    with pytest.raises(StoreUnusable, match=said):
        account_of(settings)


def test_the_forms_of_a_connection_string() -> None:
    emulator = account_of({"AzureWebJobsStorage": "UseDevelopmentStorage=true"})
    assert (emulator.tables, emulator.blobs) == (
        "http://127.0.0.1:10002/devstoreaccount1",
        "http://127.0.0.1:10000/devstoreaccount1",
    )
    usual = account_of(
        {"AzureWebJobsStorage": "AccountName=a;AccountKey=AAAA;EndpointSuffix=core.chinacloudapi.cn"}
    )
    assert usual.tables == "https://a.table.core.chinacloudapi.cn"
    sas = account_of(
        {
            "X": "TableEndpoint=https://b.table.x;BlobEndpoint=https://b.blob.x;SharedAccessSignature=?sv=1&sig=s"
        },
        "X",
    )
    assert sas.name == "b"
    assert sas.sign_table("GET", "https://b.table.x/t", {}) == "sv=1&sig=s"
    assert "AAAA" not in repr(usual)


def test_hub_names_become_table_names_by_a_rule() -> None:
    assert table_name("claims") == "perdureclaims"
    others = {table_name(hub) for hub in ("Claims", "my-hub", "my_hub", "x" * 200, "ü")}
    assert len(others) == 5
    assert all(
        3 <= len(name) <= 63 and name.isalnum() and name.isascii() and name.islower() for name in others
    )
