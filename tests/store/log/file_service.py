"""A service in a file that several processes share. Each request is a transaction, so none is half done."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

from perdure.store.log.port import Head, Missing, Moved, Record, Trimmed

_TABLES = """
create table if not exists head (end integer, tag integer, holder blob, at integer);
create table if not exists records (position integer primary key, content blob, at integer);
create table if not exists about (content blob, tag integer);
create table if not exists blobs (name text primary key, content blob);
"""
_PAGE = 500


class FileService:
    """A `Service`, `Log`, `About` and `Blobs` in one. `before` is told of each request."""

    def __init__(self, path: str, before: Callable[[str], object] = lambda verb: None) -> None:
        self.where = self.path = path
        self.directory = "hub"
        self.before = before
        self._seen: tuple[int, int] | None = None
        with closing(sqlite3.connect(path, timeout=60)) as connection:
            connection.executescript(_TABLES)

    @contextmanager
    def _request(self, verb: str) -> Iterator[sqlite3.Cursor]:
        self.before(verb)
        with closing(sqlite3.connect(self.path, timeout=60, isolation_level=None)) as connection:
            connection.execute("pragma synchronous = off")
            connection.execute("begin immediate")
            yield connection.cursor()
            connection.execute("commit")
        self.before(verb)

    def log(self) -> FileService:
        return FileService(self.path, self.before)

    def about(self) -> FileAbout:
        return FileAbout(self)

    def blobs(self) -> FileBlobs:
        return FileBlobs(self)

    def exists(self) -> bool:
        with self._request("exists") as cursor:
            return bool(cursor.execute("select 1 from head").fetchall())

    def close(self) -> None:
        self._seen = None

    # ------------------------------------------------------------------------------------------ the log

    def create(self) -> None:
        with self._request("create") as cursor:
            cursor.execute(
                "insert into head select 0, 1, x'', ? where not exists (select 1 from head)", (_now(),)
            )

    def head(self) -> Head:
        with self._request("head") as cursor:
            found = cursor.execute("select * from head").fetchall()
        if not found:
            raise Missing
        [(end, tag, holder, at)] = found
        self._seen = end, tag
        return Head(end, holder, (_now() - at) / 1e6)

    def append(self, at: int, record: bytes, holder: bytes | None = None) -> int:
        with self._request("append") as cursor:
            self._swap(cursor, at, at + 1, holder)
            cursor.execute("insert into records values (?, ?, ?)", (at, record, _now()))
        return at + 1

    def touch(self, at: int, holder: bytes) -> None:
        with self._request("touch") as cursor:
            self._swap(cursor, at, at, holder)

    def _swap(self, cursor: sqlite3.Cursor, at: int, end: int, holder: bytes | None) -> None:
        if self._seen is None or self._seen[0] != at:
            raise Moved
        cursor.execute(
            "update head set end = ?, tag = tag + 1, holder = coalesce(?, holder), at = ? where tag = ?",
            (end, holder, _now(), self._seen[1]),
        )
        if cursor.rowcount != 1:
            raise Moved
        self._seen = end, self._seen[1] + 1

    def read(self, at: int) -> tuple[list[Record], int]:
        with self._request("read") as cursor:
            [(end,)] = cursor.execute("select end from head").fetchall()
            sql = "select content, at from records where position >= ? order by position limit ?"
            found = cursor.execute(sql, (at, _PAGE)).fetchall()
            first = cursor.execute("select min(position) from records").fetchone()[0]
        if at < end and (first is None or at < first):
            raise Trimmed
        return [Record(*row) for row in found], end

    def trim(self, below: int) -> None:
        with self._request("trim") as cursor:
            cursor.execute("delete from records where position < ?", (below,))


class FileAbout:
    def __init__(self, service: FileService) -> None:
        self._service = service

    def read(self) -> tuple[bytes, str] | None:
        with self._service._request("about") as cursor:
            found = cursor.execute("select content, tag from about").fetchall()
        return (found[0][0], str(found[0][1])) if found else None

    def write(self, content: bytes, tag: str | None) -> str:
        with self._service._request("write") as cursor:
            found = cursor.execute("select tag from about").fetchall()
            if (str(found[0][0]) if found else None) != tag:
                raise Moved
            new = found[0][0] + 1 if found else 1
            cursor.execute("delete from about")
            cursor.execute("insert into about values (?, ?)", (content, new))
        return str(new)


class FileBlobs:
    def __init__(self, service: FileService) -> None:
        self._service = service

    def put(self, name: str, content: bytes) -> None:
        with self._service._request("put") as cursor:
            cursor.execute("insert or replace into blobs values (?, ?)", (name, content))

    def get(self, name: str) -> bytes:
        with self._service._request("get") as cursor:
            found = cursor.execute("select content from blobs where name = ?", (name,)).fetchall()
        if not found:
            raise Missing(name)
        return bytes(found[0][0])

    def names(self, prefix: str) -> list[str]:
        with self._service._request("names") as cursor:
            found = cursor.execute("select name from blobs order by name").fetchall()
        return [name for (name,) in found if name.startswith(prefix)]

    def delete(self, names: Sequence[str]) -> None:
        with self._service._request("delete") as cursor:
            cursor.executemany("delete from blobs where name = ?", [(name,) for name in names])


def _now() -> int:
    return time.time_ns() // 1_000
