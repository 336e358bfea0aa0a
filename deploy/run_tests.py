"""Runs pytest in parallel, and runs the few tests that failed a second time, alone.

    python deploy/run_tests.py [pytest's arguments]

Many tests start servers, browsers and databases, and kill them. On a machine that is busy with something else such a
test can fail for its surroundings. CPython's own test runner repeats failed tests as well (`-m test --rerun`). A test
that passes the second time is printed as FLAKY, with its first failure above. It is a fault of the test or of the
product and has to be mended, but it does not refuse everything else. More than `MOST` failures are never repeated.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

MOST: Final = 3  # failed tests that are run again
FAILED: Final = 1  # pytest's exit code when tests failed; others are errors of usage, collection or pytest
PARALLEL: Final = (
    "-n",
    "3",
    "--dist",
    "loadgroup",
)  # many tests wait for servers: three processes fill two cores


def main(arguments: list[str]) -> int:
    """Run pytest with `arguments`. Returns its exit code, or that of the second run."""
    Path(".pytest_cache/v/cache/lastfailed").unlink(missing_ok=True)
    code = _pytest(*PARALLEL, *arguments)
    failed = _failed() if code == FAILED else []
    if not 0 < len(failed) <= MOST:
        return code
    print(f"\n{len(failed)} failed. Running again, alone: {' '.join(failed)}", flush=True)
    options = [argument for argument in arguments if argument.startswith("-")]
    again = _pytest(*options, *failed)
    if not again:
        print(
            "\n".join(f"FLAKY {test}: failed in the first run, passed alone" for test in failed), flush=True
        )
    return again


def _pytest(*arguments: str) -> int:
    return subprocess.run([sys.executable, "-m", "pytest", "-q", *arguments], check=False).returncode


def _failed() -> list[str]:
    try:
        return list(json.loads(Path(".pytest_cache/v/cache/lastfailed").read_text()))
    except (OSError, ValueError):
        return []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
