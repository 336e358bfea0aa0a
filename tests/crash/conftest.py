"""Faults are logged, thousands of them: not here."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.crash.world import WORLDS


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("perdure")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(level)


@pytest.fixture(autouse=True)
def _end_of_the_world() -> Iterator[None]:
    yield
    for world in WORLDS:
        world.end()
    WORLDS.clear()
