"""A hub in Azure Storage: the log in a table, snapshots and large bodies in a container.

The head has the key `~`, which sorts behind all records. A record has one or more rows `%016x.%02d`, each with at
most ten properties of 64 KiB. A commit is one entity group transaction: the head is merged if its ETag is the one
that was seen last, and the rows of the record are inserted. The document about the hub is a row of the same table.
"""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import msgspec

from perdure.errors import StoreUnusable
from perdure.store.log.azure_blobs import AzureBlobs
from perdure.store.log.azure_rows import (
    ACCEPT,
    WRITES,
    as_json,
    binary_cell,
    entity,
    int_cell,
    key_of,
    multipart,
    reason_of,
    records_of,
    rows_of,
    worst_status,
)
from perdure.store.log.port import LARGEST, Head, Missing, Moved, Record, Trimmed, Unknown
from perdure.store.log.requests import BUSY, Answer, Requests, retry_after

if TYPE_CHECKING:
    from perdure.store.log.account import Account

_PREFIX: Final = "perdure"
_HEAD: Final = "~"
_TIMEOUT: Final = 10.0  # seconds
_DELETED_AT_ONCE: Final = 100
_LOOKS: Final = 3
_ETAG: Final = re.compile(rb"^ETag: *(.+?)\r?$", re.MULTILINE | re.IGNORECASE)


def table_name(hub: str) -> str:
    """The name of a hub's table and container: `perdure` and the hub's name, if it has only small letters and digits.

    Any other name is cut to its letters and digits, and gets the beginning of its SHA-256.
    """
    if re.fullmatch(r"[a-z0-9]{1,40}", hub):
        return f"{_PREFIX}{hub}"
    kept = re.sub(r"[^a-z0-9]", "", hub.lower())[:32]
    return f"{_PREFIX}{kept}{hashlib.sha256(hub.encode()).hexdigest()[:12]}"


class AzureService:
    """A `Service` in a storage account."""

    def __init__(self, account: Account, hub: str) -> None:
        self.name = table_name(hub)
        self.where = f"azure:{account.name}/{hub}"
        place = hashlib.sha256(f"{account.tables}/{self.name}".encode()).hexdigest()[:12]
        self.directory = f"azure-{self.name}-{place}"
        self._account = account
        self._tables = Requests(account.tables, account.sign_table, timeout=_TIMEOUT)
        self._blobs = AzureBlobs(Requests(account.blobs, account.sign_blob, timeout=6 * _TIMEOUT), self.name)

    def log(self) -> AzureLog:
        requests = Requests(self._account.tables, self._account.sign_table, timeout=_TIMEOUT)
        return AzureLog(requests, self.name, self._blobs)

    def about(self) -> AzureAbout:
        return AzureAbout(self._tables, self.name)

    def blobs(self) -> AzureBlobs:
        return self._blobs

    def exists(self) -> bool:
        try:
            entity(self._tables, self.name, "log", _HEAD)
        except Missing:
            return False
        return True

    def close(self) -> None:
        self._tables.close()
        self._blobs.close()


class AzureLog:
    """A `Log` in a table."""

    def __init__(self, requests: Requests, table: str, blobs: AzureBlobs) -> None:
        self._requests, self._table, self._blobs = requests, table, blobs
        self._seen: tuple[int, str] | None = None  # the end, and the head's ETag

    def create(self) -> None:
        self._demand(
            self._requests.ask("POST", "Tables", as_json({"TableName": self._table}), WRITES), (201, 204, 409)
        )
        self._blobs.create()
        row = {"PartitionKey": "log", "RowKey": _HEAD, **int_cell("end", 0), "holder": ""}
        self._demand(self._requests.ask("POST", self._table, as_json(row), WRITES), (201, 204, 409))

    def head(self) -> Head:
        row, answer = entity(self._requests, self._table, "log", _HEAD)
        end = int(row["end"])
        self._seen = end, answer.headers["etag"]
        age = answer.date - datetime.fromisoformat(row["Timestamp"]).timestamp()
        return Head(end, base64.b64decode(row["holder"]), max(0.0, age))

    def append(self, at: int, record: bytes, holder: bytes | None = None) -> int:
        if len(record) > LARGEST:
            raise ValueError(f"a record of {len(record)} bytes")
        head = self._merge(at, at + 1, holder)
        rows: list[Any] = [("POST", self._table, {}, row) for row in rows_of(at, record)]
        tag = self._transact([head, *rows])
        self._seen = at + 1, tag
        return at + 1

    def touch(self, at: int, holder: bytes) -> None:
        self._seen = at, self._transact([self._merge(at, at, holder)])

    def _merge(self, at: int, end: int, holder: bytes | None) -> Any:
        seen = self._seen
        if seen is None or seen[0] != at:
            raise Moved
        row = dict(int_cell("end", end))
        if holder is not None:
            row["holder"] = base64.b64encode(holder).decode()
        return ("MERGE", key_of(self._table, "log", _HEAD), {"If-Match": seen[1]}, row)

    def _transact(self, operations: list[Any]) -> str:
        """One entity group transaction: all or nothing. Returns the ETag of the first operation. Raises Moved."""
        answer = self._batch(operations)
        status = worst_status(answer)
        if status in (409, 412):
            raise Moved
        tag = _ETAG.search(answer.body)
        if status != 204 or tag is None:
            raise StoreUnusable(f"{self._table} refuses a commit with {status}: {reason_of(answer)}")
        return tag[1].decode()

    def _batch(self, operations: list[Any]) -> Answer:
        body = multipart(self._requests.endpoint, operations)
        kind = {
            "Content-Type": "multipart/mixed; boundary=batch_0",
            **ACCEPT,
            "MaxDataServiceVersion": "3.0",
        }
        answer = self._requests.ask("POST", "$batch", body, kind)
        if answer.status == 202 and worst_status(answer) in BUSY:
            raise Unknown(reason_of(answer), retry_after(answer))
        return answer

    # ---------------------------------------------------------------------------------------------- reading

    def read(self, at: int) -> tuple[list[Record], int]:
        for _ in range(_LOOKS):
            records, end = self._look(at)
            if records or end <= at:
                return records, end
            if self._first() > at:
                raise Trimmed
        raise StoreUnusable(
            f"the log in the table {self._table} lacks the record {at}, and has earlier ones: another program "
            "deleted it. `perdure verify` tells what else is missing"
        )

    def _look(self, at: int) -> tuple[list[Record], int]:
        wanted = f"PartitionKey eq 'log' and RowKey ge '{at:016x}' and RowKey le '{_HEAD}'"
        rows, is_last = self._query(wanted)
        head = [row for row in rows if row["RowKey"] == _HEAD]
        records = records_of(at, [row for row in rows if row["RowKey"] != _HEAD])
        if is_last and head:
            return records, int(head[0]["end"])
        row, _ = entity(self._requests, self._table, "log", _HEAD)
        return records, int(row["end"])

    def _first(self) -> int:
        """The position of the first record that is kept."""
        rows, _ = self._query("PartitionKey eq 'log' and RowKey lt '~'", "&$top=1&$select=RowKey")
        if not rows:
            return 1 << 62
        position, _, row = str(rows[0]["RowKey"]).partition(".")
        return int(position, 16) + (row != "00")  # a trim that has stopped leaves the end of a record

    def _query(self, wanted: str, more: str = "") -> tuple[list[dict[str, Any]], bool]:
        """A page of rows, and whether it is the last."""
        path = f"{self._table}()?$filter={quote(wanted, safe='')}{more}"
        answer = self._requests.ask("GET", path, b"", ACCEPT)
        if answer.status == 404:
            raise Missing
        self._demand(answer, (200,))
        rows: list[dict[str, Any]] = msgspec.json.decode(answer.body)["value"]
        return rows, "x-ms-continuation-nextrowkey" not in answer.headers

    # --------------------------------------------------------------------------------------------- trimming

    def trim(self, below: int) -> None:
        wanted = f"PartitionKey eq 'log' and RowKey lt '{below:016x}'"
        while True:
            rows, is_last = self._query(wanted, "&$select=RowKey")
            for at in range(0, len(rows), _DELETED_AT_ONCE):
                self._delete([row["RowKey"] for row in rows[at : at + _DELETED_AT_ONCE]])
            if is_last:
                return

    def _delete(self, keys: list[str]) -> None:
        answer = self._batch(
            [("DELETE", key_of(self._table, "log", key), {"If-Match": "*"}, None) for key in keys]
        )
        if worst_status(answer) not in (204, 404):  # another engine may trim at the same time
            raise StoreUnusable(f"{self._table} refuses to delete records: {reason_of(answer)}")

    def _demand(self, answer: Answer, wanted: tuple[int, ...]) -> None:
        if answer.status not in wanted:
            raise self._requests.unexpected(answer, f"a request for the table {self._table}")

    def close(self) -> None:
        self._seen = None
        self._requests.close()


class AzureAbout:
    """An `About` in a row of the hub's table."""

    def __init__(self, requests: Requests, table: str) -> None:
        self._requests, self._table = requests, table

    def read(self) -> tuple[bytes, str] | None:
        try:
            row, answer = entity(self._requests, self._table, "hub", "about")
        except Missing:
            return None
        return base64.b64decode(row["content"]), answer.headers["etag"]

    def write(self, content: bytes, tag: str | None) -> str:
        row = {"PartitionKey": "hub", "RowKey": "about", **binary_cell("content", content)}
        if tag is None:
            answer = self._insert(row)
        else:
            path = key_of(self._table, "hub", "about")
            answer = self._requests.ask("PUT", path, as_json(row), {**WRITES, "If-Match": tag})
        if answer.status in (409, 412):
            raise Moved
        if answer.status not in (201, 204):
            raise self._requests.unexpected(answer, "a change of the hub's document")
        return answer.headers["etag"]

    def _insert(self, row: dict[str, Any]) -> Answer:
        answer = self._requests.ask("POST", self._table, as_json(row), WRITES)
        if answer.status == 404:  # the first row of a new hub
            self._requests.ask("POST", "Tables", as_json({"TableName": self._table}), WRITES)
            answer = self._requests.ask("POST", self._table, as_json(row), WRITES)
        return answer


def tables_of(requests: Requests) -> list[str]:
    """The tables of all hubs in an account."""
    found: list[str] = []
    after = ""
    while True:
        wanted = quote(f"TableName ge '{_PREFIX}' and TableName lt '{_PREFIX}~'", safe="")
        answer = requests.ask("GET", f"Tables?$filter={wanted}{after}", b"", ACCEPT)
        if answer.status != 200:
            raise requests.unexpected(answer, "a list of the tables")
        found += [row["TableName"] for row in msgspec.json.decode(answer.body)["value"]]
        following = answer.headers.get("x-ms-continuation-nexttablename")
        if not following:
            return [name for name in found if name.startswith(_PREFIX)]
        after = f"&NextTableName={quote(following, safe='')}"


__all__ = ["AzureAbout", "AzureService", "table_name", "tables_of"]
