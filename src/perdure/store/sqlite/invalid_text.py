"""Reading text that is not UTF-8: apsw rejects the whole statement for one such cell.

A statement that fails so is repeated with every cell as bytes, and undecodable text becomes `Garbled`. That
costs nothing without damage.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from perdure.model.damaged import Garbled

if TYPE_CHECKING:
    from collections.abc import Callable

    Execute = Callable[..., Any]

_KINDS: Final[dict[str, Callable[[bytes], Any]]] = {
    "integer": int,
    "real": float,
    "blob": bytes,
    "null": lambda _: None,
}


def reading(execute: Execute) -> Execute:
    """`execute` for reading statements; its result has `fetchall`."""
    return partial(_Rows, execute)


class _Rows:
    """The answer to a statement, not fetched yet."""

    __slots__ = ("_cursor", "_execute", "_sql", "_values")

    def __init__(self, execute: Execute, sql: str, values: tuple[Any, ...] = ()) -> None:
        self._execute, self._sql, self._values = execute, sql, values
        self._cursor = execute(sql, values)

    def fetchall(self) -> list[Any]:
        try:
            rows: list[Any] = self._cursor.fetchall()
        except UnicodeDecodeError:
            return self._as_bytes()
        return rows

    def _as_bytes(self) -> list[Any]:
        described = self._execute(self._sql, self._values).get_description()
        columns = [f"c{at}" for at in range(len(described))]
        cells = ", ".join(f"typeof({column}), cast({column} as blob)" for column in columns)
        rows = self._execute(
            f"with found ({', '.join(columns)}) as ({self._sql}) select {cells} from found", self._values
        ).fetchall()
        return [tuple(_cell(*row[at : at + 2]) for at in range(0, len(row), 2)) for row in rows]


def _cell(kind: str, stored: bytes) -> Any:
    if kind != "text":
        return _KINDS[kind](stored)
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return Garbled.of(stored)
