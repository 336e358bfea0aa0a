"""A hub in Azure Storage: the log in a table, snapshots and large bodies in a container.

The head has the key `~`, which sorts behind all records. A record has one or more rows `%016x.%02d`, each with at
most ten properties of 64 KiB. A commit is one entity group transaction: the head is merged if its ETag is the one
that was seen last, and the rows of the record are inserted. The document about the hub is a row of the same table.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote
from xml.etree import ElementTree

import msgspec

from perdure.errors import StoreUnusable
from perdure.store.log.port import LARGEST, Head, Missing, Moved, Record, Trimmed, Unknown
from perdure.store.log.requests import Answer, Requests, said

if TYPE_CHECKING:
    from perdure.store.log.account import Account

_PREFIX: Final = "perdure"
_HEAD: Final = "~"
_PIECE: Final = 64 * 1024
_PIECES: Final = 10  # of a row
_ROW: Final = _PIECE * _PIECES
_TIMEOUT: Final = 10.0  # seconds
_ACCEPT: Final = {"Accept": "application/json;odata=minimalmetadata", "DataServiceVersion": "3.0"}
_WRITES: Final = {**_ACCEPT, "Content-Type": "application/json", "Prefer": "return-no-content"}
_DELETED_AT_ONCE: Final = 100
_LOOKS: Final = 3
_STATUS: Final = re.compile(rb"^HTTP/1\.1 (\d{3})", re.MULTILINE)
_ETAG: Final = re.compile(rb"^ETag: *(.+?)\r?$", re.MULTILINE | re.IGNORECASE)
_json = msgspec.json.Encoder().encode


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
            _entity(self._tables, self.name, "log", _HEAD)
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
            self._requests.ask("POST", "Tables", _json({"TableName": self._table}), _WRITES), (201, 204, 409)
        )
        self._blobs.create()
        row = {"PartitionKey": "log", "RowKey": _HEAD, **_int("end", 0), "holder": ""}
        self._demand(self._requests.ask("POST", self._table, _json(row), _WRITES), (201, 204, 409))

    def head(self) -> Head:
        row, answer = _entity(self._requests, self._table, "log", _HEAD)
        end = int(row["end"])
        self._seen = end, answer.headers["etag"]
        age = answer.date - datetime.fromisoformat(row["Timestamp"]).timestamp()
        return Head(end, base64.b64decode(row["holder"]), max(0.0, age))

    def append(self, at: int, record: bytes, holder: bytes | None = None) -> int:
        if len(record) > LARGEST:
            raise ValueError(f"a record of {len(record)} bytes")
        head = self._merge(at, at + 1, holder)
        rows: list[Any] = [("POST", self._table, {}, row) for row in _rows(at, record)]
        tag = self._transact([head, *rows])
        self._seen = at + 1, tag
        return at + 1

    def touch(self, at: int, holder: bytes) -> None:
        self._seen = at, self._transact([self._merge(at, at, holder)])

    def _merge(self, at: int, end: int, holder: bytes | None) -> Any:
        seen = self._seen
        if seen is None or seen[0] != at:
            raise Moved
        row = dict(_int("end", end))
        if holder is not None:
            row["holder"] = base64.b64encode(holder).decode()
        return ("MERGE", _key(self._table, "log", _HEAD), {"If-Match": seen[1]}, row)

    def _transact(self, operations: list[Any]) -> str:
        """One entity group transaction: all or nothing. Returns the ETag of the first operation. Raises Moved."""
        answer = self._batch(operations)
        status = _inner(answer)
        if status in (409, 412):
            raise Moved
        tag = _ETAG.search(answer.body)
        if status != 204 or tag is None:
            raise StoreUnusable(f"{self._table} refuses a commit with {status}: {_reason(answer)}")
        return tag[1].decode()

    def _batch(self, operations: list[Any]) -> Answer:
        body = _multipart(self._requests.endpoint, operations)
        kind = {
            "Content-Type": "multipart/mixed; boundary=batch_0",
            **_ACCEPT,
            "MaxDataServiceVersion": "3.0",
        }
        answer = self._requests.ask("POST", "$batch", body, kind)
        if answer.status == 202 and _inner(answer) in (408, 429, 500, 503):
            raise Unknown(_reason(answer))
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
        records = _records(at, [row for row in rows if row["RowKey"] != _HEAD])
        if is_last and head:
            return records, int(head[0]["end"])
        row, _ = _entity(self._requests, self._table, "log", _HEAD)
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
        answer = self._requests.ask("GET", path, b"", _ACCEPT)
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
            [("DELETE", _key(self._table, "log", key), {"If-Match": "*"}, None) for key in keys]
        )
        if _inner(answer) not in (204, 404):  # another engine may trim at the same time
            raise StoreUnusable(f"{self._table} refuses to delete records: {_reason(answer)}")

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
            row, answer = _entity(self._requests, self._table, "hub", "about")
        except Missing:
            return None
        return base64.b64decode(row["content"]), answer.headers["etag"]

    def write(self, content: bytes, tag: str | None) -> str:
        row = {"PartitionKey": "hub", "RowKey": "about", **_binary("content", content)}
        if tag is None:
            answer = self._insert(row)
        else:
            path = _key(self._table, "hub", "about")
            answer = self._requests.ask("PUT", path, _json(row), {**_WRITES, "If-Match": tag})
        if answer.status in (409, 412):
            raise Moved
        if answer.status not in (201, 204):
            raise self._requests.unexpected(answer, "a change of the hub's document")
        return answer.headers["etag"]

    def _insert(self, row: dict[str, Any]) -> Answer:
        answer = self._requests.ask("POST", self._table, _json(row), _WRITES)
        if answer.status == 404:  # the first row of a new hub
            self._requests.ask("POST", "Tables", _json({"TableName": self._table}), _WRITES)
            answer = self._requests.ask("POST", self._table, _json(row), _WRITES)
        return answer


class AzureBlobs:
    """A `Blobs` in a container."""

    def __init__(self, requests: Requests, container: str) -> None:
        self._requests, self._container = requests, container

    def create(self) -> None:
        answer = self._requests.ask("PUT", f"{self._container}?restype=container")
        self._demand(answer, (201, 409))

    def put(self, name: str, content: bytes) -> None:
        kind = {"x-ms-blob-type": "BlockBlob", "Content-Type": "application/octet-stream"}
        self._demand(self._requests.ask("PUT", f"{self._container}/{name}", content, kind), (201,))

    def get(self, name: str) -> bytes:
        answer = self._requests.ask("GET", f"{self._container}/{name}")
        if answer.status == 404:
            raise Missing(name)
        self._demand(answer, (200,))
        return answer.body

    def names(self, prefix: str) -> list[str]:
        found: list[str] = []
        marker = ""
        while True:
            more = f"&marker={quote(marker, safe='')}" if marker else ""
            path = f"{self._container}?restype=container&comp=list&prefix={quote(prefix, safe='')}{more}"
            answer = self._requests.ask("GET", path)
            self._demand(answer, (200,))
            listing = ElementTree.fromstring(answer.body.lstrip(b"\xef\xbb\xbf"))
            found += [name.text or "" for name in listing.iterfind("Blobs/Blob/Name")]
            marker = listing.findtext("NextMarker") or ""
            if not marker:
                return sorted(found)

    def delete(self, names: Sequence[str]) -> None:
        for name in names:
            self._demand(self._requests.ask("DELETE", f"{self._container}/{name}"), (202, 404))

    def close(self) -> None:
        self._requests.close()

    def _demand(self, answer: Answer, wanted: tuple[int, ...]) -> None:
        if answer.status not in wanted:
            raise self._requests.unexpected(answer, f"a request for the container {self._container}")


def tables_of(requests: Requests) -> list[str]:
    """The tables of all hubs in an account."""
    found: list[str] = []
    after = ""
    while True:
        wanted = quote(f"TableName ge '{_PREFIX}' and TableName lt '{_PREFIX}~'", safe="")
        answer = requests.ask("GET", f"Tables?$filter={wanted}{after}", b"", _ACCEPT)
        if answer.status != 200:
            raise requests.unexpected(answer, "a list of the tables")
        found += [row["TableName"] for row in msgspec.json.decode(answer.body)["value"]]
        following = answer.headers.get("x-ms-continuation-nexttablename")
        if not following:
            return [name for name in found if name.startswith(_PREFIX)]
        after = f"&NextTableName={quote(following, safe='')}"


# ---------------------------------------------------------------------------------------------------- rows


def _entity(requests: Requests, table: str, partition: str, row: str) -> tuple[dict[str, Any], Answer]:
    answer = requests.ask("GET", _key(table, partition, row), b"", _ACCEPT)
    if answer.status == 404:
        raise Missing
    if answer.status != 200:
        raise requests.unexpected(answer, f"a look at the table {table}")
    return msgspec.json.decode(answer.body), answer


def _key(table: str, partition: str, row: str) -> str:
    return f"{table}(PartitionKey='{partition}',RowKey='{row}')"


def _int(name: str, value: int) -> dict[str, Any]:
    return {name: str(value), f"{name}@odata.type": "Edm.Int64"}


def _binary(name: str, value: bytes) -> dict[str, Any]:
    return {name: base64.b64encode(value).decode(), f"{name}@odata.type": "Edm.Binary"}


def _rows(at: int, record: bytes) -> Iterator[dict[str, Any]]:
    """The rows of a record. The first one has their number."""
    starts = range(0, max(1, len(record)), _ROW)
    for no, start in enumerate(starts):
        row: dict[str, Any] = {"PartitionKey": "log", "RowKey": f"{at:016x}.{no:02d}"}
        if no == 0:
            row["rows"] = len(starts)
        for piece in range(_PIECES):
            begin = start + piece * _PIECE
            content = record[begin : min(begin + _PIECE, start + _ROW)]
            if content or piece == 0:
                row.update(_binary(f"d{piece}", content))
        yield row


def _records(at: int, rows: list[dict[str, Any]]) -> list[Record]:
    """The whole records of a page from a position on, up to the first gap."""
    found: list[Record] = []
    no = 0
    while no < len(rows) and rows[no]["RowKey"] == f"{at:016x}.00" and no + rows[no]["rows"] <= len(rows):
        own = rows[no : no + rows[no]["rows"]]
        content = b"".join(
            base64.b64decode(row[f"d{piece}"])
            for row in own
            for piece in range(_PIECES)
            if f"d{piece}" in row
        )
        written = datetime.fromisoformat(own[0]["Timestamp"]).timestamp()
        found.append(Record(content, round(written * 1e6)))
        at, no = at + 1, no + len(own)
    return found


# ----------------------------------------------------------------------------------------------- batches


def _multipart(endpoint: str, operations: list[Any]) -> bytes:
    parts = [b"--batch_0\r\nContent-Type: multipart/mixed; boundary=changeset_0\r\n\r\n"]
    for verb, path, headers, row in operations:
        sent = {**_WRITES, **headers} if row is not None else {**_ACCEPT, **headers}
        lines = "".join(f"{key}: {value}\r\n" for key, value in sent.items())
        parts.append(
            "--changeset_0\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n"
            f"{verb} {endpoint}/{path} HTTP/1.1\r\n{lines}\r\n".encode()
        )
        parts.append(b"" if row is None else _json(row))
        parts.append(b"\r\n")
    parts.append(b"--changeset_0--\r\n--batch_0--\r\n")
    return b"".join(parts)


def _inner(answer: Answer) -> int:
    """The worst status of the operations in a transaction, or that of the whole request."""
    found = [int(status) for status in _STATUS.findall(answer.body)] if answer.status == 202 else []
    return max(found, default=answer.status)


def _reason(answer: Answer) -> str:
    code = re.search(rb'"code":\s*"(\w+)', answer.body)
    return code[1].decode() if code else said(answer)


__all__ = ["AzureAbout", "AzureService", "table_name", "tables_of"]
