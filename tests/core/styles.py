"""Every orchestrator of these tests is written twice: with `yield` and with `await`."""

from collections.abc import Callable
from typing import Any

import pytest


def both(yielding: Callable[..., Any], awaiting: Callable[..., Any]) -> pytest.MarkDecorator:
    """Run the test with each of the two, as its `orchestrator`."""
    return pytest.mark.parametrize(
        "orchestrator", [pytest.param(yielding, id="yield"), pytest.param(awaiting, id="async")]
    )
