"""Spans that a test can look at."""

from collections.abc import Iterator

import pytest

from tests.outbound.conftest import server
from tests.telemetry.collecting import Collected, collecting


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collected]:
    """The spans of the engines that this test runs; read them once they have stopped."""
    with collecting(monkeypatch) as spans:
        yield spans


__all__ = ["server"]
