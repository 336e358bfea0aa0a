"""Times as text in requests and responses."""

from __future__ import annotations

from datetime import UTC, datetime

from perdure.model.durations import stamp


def unstamp(text: str) -> datetime:
    """Parse a time in ISO 8601. A time without a zone is UTC. Raises ValueError."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


__all__ = ["stamp", "unstamp"]
