"""Faults are logged, thousands of them: not here."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("perdure")
    logger.disabled, level = False, logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(level)
