"""The answers of `seen`, as they are read for whoever repeats a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perdure.errors import PerdureError, StoreError
from perdure.model import payload

if TYPE_CHECKING:
    from perdure.model.records import SeenRow


def answer_in(row: SeenRow) -> Any:
    """What is kept of an answer. Raises StoreError where that cannot be read any more."""
    try:
        return payload.decode(row.answer)
    except PerdureError as error:
        raise damaged_answer(row, str(error)) from error


def damaged_answer(row: SeenRow, why: str) -> StoreError:
    """What a client is told whose first request was answered, and whose answer is damaged."""
    return StoreError(
        f"this was asked before, and the row of the answer ({row.operation_id!r}) is damaged: {why}. "
        f"Look at the instance {row.instance_id!r}, and ask again under another name if need be"
    )


__all__ = ["answer_in", "damaged_answer"]
