"""A record of the log as rows of a table, and entity group transactions as the service reads and answers them."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import msgspec

from perdure.store.log.port import Missing, Record
from perdure.store.log.requests import Answer, Requests, said

ACCEPT: Final = {"Accept": "application/json;odata=minimalmetadata", "DataServiceVersion": "3.0"}
WRITES: Final = {**ACCEPT, "Content-Type": "application/json", "Prefer": "return-no-content"}
_PIECE: Final = 64 * 1024
_PIECES: Final = 10  # of a row
_ROW: Final = _PIECE * _PIECES
_STATUS: Final = re.compile(rb"^HTTP/1\.1 (\d{3})", re.MULTILINE)
as_json = msgspec.json.Encoder().encode


def entity(requests: Requests, table: str, partition: str, row: str) -> tuple[dict[str, Any], Answer]:
    answer = requests.ask("GET", key_of(table, partition, row), b"", ACCEPT)
    if answer.status == 404:
        raise Missing
    if answer.status != 200:
        raise requests.unexpected(answer, f"a look at the table {table}")
    return msgspec.json.decode(answer.body), answer


def key_of(table: str, partition: str, row: str) -> str:
    return f"{table}(PartitionKey='{partition}',RowKey='{row}')"


def int_cell(name: str, value: int) -> dict[str, Any]:
    return {name: str(value), f"{name}@odata.type": "Edm.Int64"}


def binary_cell(name: str, value: bytes) -> dict[str, Any]:
    return {name: base64.b64encode(value).decode(), f"{name}@odata.type": "Edm.Binary"}


def rows_of(at: int, record: bytes) -> Iterator[dict[str, Any]]:
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
                row.update(binary_cell(f"d{piece}", content))
        yield row


def records_of(at: int, rows: list[dict[str, Any]]) -> list[Record]:
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


def multipart(endpoint: str, operations: list[Any]) -> bytes:
    parts = [b"--batch_0\r\nContent-Type: multipart/mixed; boundary=changeset_0\r\n\r\n"]
    for verb, path, headers, row in operations:
        sent = {**WRITES, **headers} if row is not None else {**ACCEPT, **headers}
        lines = "".join(f"{key}: {value}\r\n" for key, value in sent.items())
        parts.append(
            "--changeset_0\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n"
            f"{verb} {endpoint}/{path} HTTP/1.1\r\n{lines}\r\n".encode()
        )
        parts.append(b"" if row is None else as_json(row))
        parts.append(b"\r\n")
    parts.append(b"--changeset_0--\r\n--batch_0--\r\n")
    return b"".join(parts)


def worst_status(answer: Answer) -> int:
    """The worst status of the operations in a transaction, or that of the whole request."""
    found = [int(status) for status in _STATUS.findall(answer.body)] if answer.status == 202 else []
    return max(found, default=answer.status)


def reason_of(answer: Answer) -> str:
    code = re.search(rb'"code":\s*"(\w+)', answer.body)
    return code[1].decode() if code else said(answer)


__all__ = [
    "ACCEPT",
    "WRITES",
    "binary_cell",
    "entity",
    "int_cell",
    "as_json",
    "key_of",
    "multipart",
    "reason_of",
    "records_of",
    "rows_of",
    "worst_status",
]
