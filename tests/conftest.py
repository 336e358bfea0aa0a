"""What all tests share.

Tests marked `long`, and those that repeat others on further versions of PostgreSQL, run only with `--long`:
`make test-long` runs everything.
"""

import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres.servers import NEWEST

pytest_plugins = ["perdure.testing.plugin", "tests.postgres.fixtures"]

MEMORY = Path("/dev/shm")
ROOM = 4 * 2**30  # bytes; a run takes about one gigabyte


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long", action="store_true", help="run long tests and every version of PostgreSQL, too"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: takes many seconds, or repeats others; runs with --long only")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell starts background jobs so. The programs under test would inherit it, and would not hear Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if "TMPDIR" not in os.environ and may_hold_files(MEMORY):
        os.environ["TMPDIR"] = os.fspath(MEMORY)  # the processes of a parallel run, and servers, inherit it
        tempfile.tempdir = None  # it is asked for again


def may_hold_files(memory: Path) -> bool:
    """Whether temporary files go there: tests sync thousands of files, and none of them loses its power."""
    if not memory.is_dir() or not os.access(memory, os.W_OK):
        return False
    return not os.statvfs(memory).f_flag & os.ST_NOEXEC and shutil.disk_usage(memory).free > ROOM


@pytest.fixture(scope="session")
def is_long_run(pytestconfig: pytest.Config) -> bool:
    """Whether tests that only take more samples of the same should take them all."""
    return bool(pytestconfig.getoption("--long"))


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Switch loggers on again that a test, or a library that it used in this process, has switched off for all."""
    levels = {one: one.level for one in (logging.getLogger(), logging.getLogger("perdure"))}
    disabled, off = logging.root.manager.disable, set(_switched_off())
    yield
    for logger, level in levels.items():
        logger.setLevel(level)
    logging.disable(disabled)
    for logger in _switched_off():
        logger.disabled = logger in off


def _switched_off() -> list[logging.Logger]:
    known = logging.root.manager.loggerDict.values()
    return [logger for logger in known if isinstance(logger, logging.Logger) and logger.disabled]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Each group runs in one process. They come first: at the end, the other processes would wait for them.
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)
    if config.getoption("--long"):
        return
    left_out = [item for item in items if is_long(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not is_long(item)]


def is_long(item: pytest.Item) -> bool:
    if item.get_closest_marker("long"):
        return True
    parameters = getattr(item, "callspec", None)
    versions = [parameters.params.get(name, NEWEST) for name in ("postgres", "place")] if parameters else []
    return any(version != NEWEST for version in versions)
