"""What all tests share.

Tests marked `long`, and those that repeat others on further versions of PostgreSQL, run only with `--long`:
`make test-long` runs everything.
"""

import pytest

from tests.postgres.servers import NEWEST

pytest_plugins = ["perdure.testing.plugin", "tests.postgres.fixtures"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long", action="store_true", help="run long tests and every version of PostgreSQL, too"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: takes many seconds, or repeats others; runs with --long only")


@pytest.fixture(scope="session")
def is_long_run(pytestconfig: pytest.Config) -> bool:
    """Whether tests that only take more samples of the same should take them all."""
    return bool(pytestconfig.getoption("--long"))


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
