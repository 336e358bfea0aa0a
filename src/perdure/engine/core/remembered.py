"""Stored answers of `seen`, read for repeated requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perdure.errors import PerdureError, StoreError
from perdure.model import payload

if TYPE_CHECKING:
    from perdure.model.records import SeenRow


def answer_in(row: SeenRow) -> Any:
    """The stored answer. Raises StoreError if it cannot be read."""
    try:
        return payload.decode(row.answer)
    except PerdureError as error:
        raise damaged_answer(row, str(error)) from error


def damaged_answer(row: SeenRow, why: str) -> StoreError:
    """The error for a repeated request whose stored answer is damaged."""
    return StoreError(
        f"this request was made before, and the row of its answer ({row.operation_id!r}) is damaged: {why}. "
        f"Check the instance {row.instance_id!r}, and repeat the request under another name if necessary"
    )


__all__ = ["answer_in", "damaged_answer"]
