"""Instants as text on the wire."""

from __future__ import annotations

from datetime import UTC, datetime

from perdure.model.durations import stamp


def unstamp(text: str) -> datetime:
    """An instant in ISO 8601; one without a zone is UTC. Raises ValueError."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


__all__ = ["stamp", "unstamp"]
