from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.log.rig import Rig, rigs


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    yield from rigs(tmp_path)
