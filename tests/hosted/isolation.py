"""What loading an Azure app leaves in the process is taken back: modules, paths and settings."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
APPS = (os.fspath(ROOT / "tests" / "hosted" / "apps"), os.fspath(ROOT / "examples" / "azure_claims"))


@pytest.fixture(autouse=True)
def taken_back() -> Iterator[None]:
    """Forget the modules of apps, and put the path and the environment back."""
    path, modules, environment = list(sys.path), set(sys.modules), dict(os.environ)
    yield
    sys.path[:] = path
    os.environ.clear()
    os.environ.update(environment)
    for name in set(sys.modules) - modules:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if name.split(".")[0] in ("function_app", "__app__", "other") or file.startswith(APPS):
            del sys.modules[name]
