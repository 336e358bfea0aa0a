"""Older versions of the SDK, each in a folder of its own, in front of the installed one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = (
    "test_traps.py",
    "test_http.py",
    "test_folders.py",
    "test_against_the_sdk.py",
    "test_failed_output.py",
    "test_shapes_of_apps.py",
    "test_changed_code.py",
)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("version", ["1.3.3", "1.5.0", "1.6.0"])
def test_programs_come_to_the_same_on_an_older_sdk(version: str, tmp_path: Path) -> None:
    wanted = f"azure-functions-durable=={version}"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", os.fspath(tmp_path)]
    subprocess.run([*pip, wanted], check=True, timeout=300)
    tests = [os.fspath(ROOT / "tests" / "hosted" / name) for name in TESTS]
    path = os.pathsep.join((os.fspath(tmp_path), os.fspath(ROOT / "src"), os.fspath(ROOT)))
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-3_000:]
